"""The adapter of github.com/vijayabhaskar-ev/dreamer_v4."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

from .training import latents, optimizers, step, video


class Vijayabhaskar:
    """github.com/vijayabhaskar-ev/dreamer_v4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        sys.path.insert(0, str(checkout))
        # imported and not needed; the second makes a folder in the home of who runs this
        for name in ('wandb', '_env_setup'):
            sys.modules[name] = types.ModuleType(name)
        from dynamics import (
            DynamicsConfig,
            DynamicsModel,
            evaluate_dynamics,
            flow_matching,
            trainer,
        )
        from tokenizer import MaskedAutoencoderLoss, MaskedAutoencoderTokenizer, TokenizerConfig

        self.s, self.flow, self.training, self.evaluation = (
            s,
            flow_matching,
            trainer,
            evaluate_dynamics,
        )
        common = dict(
            embed_dim=s.width, num_heads=s.heads, num_kv_heads=s.heads, dropout=0.0, drop_path=0.0
        )
        self.tokenizer_net = MaskedAutoencoderTokenizer(
            TokenizerConfig(
                image_size=(s.size, s.size),
                patch_size=(s.patch, s.patch),
                depth=s.tokenizer_depth,
                seq_len=s.clip,
                num_latent_tokens=s.latents,
                latent_dim=s.channels,
                **common,
            )
        ).to(s.device)
        self.reconstruction = MaskedAutoencoderLoss().to(s.device)
        # in the place of the tokenizer: the latents are given, in the shape that packing makes of
        # the others'
        encoder = torch.nn.Identity()
        encoder.config = TokenizerConfig(
            num_latent_tokens=s.latents // s.pack, latent_dim=s.pack * s.channels
        )
        config = DynamicsConfig.from_tokenizer(
            encoder.config,
            depth=s.dynamics_depth,
            num_register_tokens=s.registers,
            temporal_interval=s.time_every,
            K_max=s.levels,
            action_dim=16,
            context_length=s.context + s.horizon,
            **common,
        )
        self.dynamics_net = DynamicsModel(config, encoder).to(s.device)
        self.state = trained(self.dynamics_net, config, trainer, s.device)
        self.optimizers = optimizers(self.tokenizer_net, self.dynamics_net)
        self.video, self.latents = video(s), latents(s)
        self.actions = torch.rand(s.batch, s.context + s.horizon - 1, 16, device=s.device)

    def tokenizer(self) -> None:
        out, patch = self.tokenizer_net(self.video), (self.s.patch, self.s.patch)
        step(
            self.optimizers['tokenizer'],
            self.reconstruction(
                out.reconstructed, self.video, out.mask, patch_size=patch
            ).total_loss,
        )

    def dynamics(self) -> None:
        tau, d = self.flow.sample_tau_and_d(
            self.s.batch, self.s.time, K_max=self.s.levels, device=self.s.device
        )
        # as in the loop of its trainer after the curriculum
        tau[:, 0], d[:, 0] = 1 - self.state.dynamics_cfg.tau_ctx, 1 / self.s.levels
        noised, _ = self.flow.add_noise(self.latents, tau)
        loss, _ = self.training.DynamicsTrainer._compute_loss(
            self.state, self.latents, noised, self.actions[:, : self.s.time - 1], tau, d
        )
        step(self.optimizers['dynamics'], loss)

    def generate(self) -> None:
        config = self.state.dynamics_cfg
        known = self.latents[:, :1].expand(-1, self.s.context + self.s.horizon, -1, -1)
        self.evaluation.autoregressive_rollout(
            self.dynamics_net,
            None,
            known,
            self.actions,
            num_context=self.s.context,
            rollout_horizon=self.s.horizon,
            K=self.s.steps,
            tau_ctx=config.tau_ctx,
            context_length=config.context_length,
            K_max=config.K_max,
        )


def trained(net: torch.nn.Module, config, trainer, device: str) -> SimpleNamespace:
    """What the loss reads of the trainer, which wants the file of a trained tokenizer."""
    return SimpleNamespace(
        model=net,
        dynamics_cfg=config,
        training_cfg=trainer.DynamicsTrainingConfig(),
        rms_flow=trainer.RMSNormalizer(),
        rms_bootstrap=trainer.RMSNormalizer(),
        _zero=torch.zeros((), device=device),
    )
