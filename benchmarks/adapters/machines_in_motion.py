"""The adapter of github.com/machines-in-motion/dreamer-v4."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

from .training import latents, optimizers, step, video


class MachinesInMotion:
    """github.com/machines-in-motion/dreamer-v4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        sys.path.insert(0, str(checkout))
        settings = types.ModuleType('omegaconf')
        # namespaces do for the configuration
        settings.DictConfig, settings.OmegaConf = object, SimpleNamespace(to_object=vars)
        sys.modules['omegaconf'] = settings
        from dreamerv4.loss import (
            ForwardDiffusionWithShortcut,
            RMSLossScaler,
            compute_bootstrap_diffusion_loss,
        )
        from dreamerv4.models.dynamics import DenoiserWrapper
        from dreamerv4.models.tokenizer import TokenizerWrapper
        from dreamerv4.sampling import AutoRegressiveForwardDynamics

        self.s, self.loss = s, compute_bootstrap_diffusion_loss
        config = configuration(s)
        self.tokenizer_net = TokenizerWrapper(config).to(s.device)
        self.dynamics_net = DenoiserWrapper(config, max_num_forward_steps=s.context + s.horizon).to(
            s.device
        )
        self.diffusion, self.scaler = ForwardDiffusionWithShortcut(s.levels), RMSLossScaler()
        # in the place of the tokenizer: nothing is encoded or decoded, as with the others
        latents_only = SimpleNamespace(
            encode=lambda z: z, init_cache=lambda *_, **__: None, decode_step=lambda z, **_: z
        )
        self.world = AutoRegressiveForwardDynamics(
            self.dynamics_net,
            latents_only,
            context_length=s.context + s.horizon,
            denoising_step_count=s.steps,
            device=s.device,
        )
        self.optimizers = optimizers(self.tokenizer_net, self.dynamics_net)
        self.video, self.latents = video(s), latents(s)
        self.actions = torch.rand(s.batch, s.context + s.horizon, 16, device=s.device)

    def tokenizer(self) -> None:
        # as in its script, which asks for CUDA when imported
        loss = torch.nn.functional.mse_loss(self.tokenizer_net(self.video), self.video)
        step(self.optimizers['tokenizer'], self.scaler('mse', loss))

    def dynamics(self) -> None:
        flow, bootstrap = self.loss(
            self.diffusion(self.latents), self.dynamics_net, actions=self.actions[:, : self.s.time]
        )
        step(self.optimizers['dynamics'], self.scaler('short_seq_loss', flow + bootstrap))

    def generate(self) -> None:
        self.world.reset(self.latents[:, : self.s.context], self.actions[:, : self.s.context])
        for action in self.actions[:, self.s.context :].split(1, 1):
            self.world.step(action)


def configuration(s: SimpleNamespace) -> SimpleNamespace:
    """What its networks read of its configuration."""
    # no QK-norm, as in all its configurations
    common = dict(model_dim=s.width, n_heads=s.heads, n_kv_heads=s.heads, qk_norm=False)
    return SimpleNamespace(  # depths in blocks of three space layers and one time layer
        dataset=SimpleNamespace(resolution=(s.size, s.size)),
        tokenizer=SimpleNamespace(
            num_modality_tokens=(s.size // s.patch) ** 2,
            num_latent_tokens=s.latents,
            latent_dim=s.channels,
            patch_size=s.patch,
            enc_num_layers=s.tokenizer_depth // 3,
            dec_num_layers=s.tokenizer_depth // 3,
            max_sequence_length=s.clip,
            context_length=s.clip,
            **common,
        ),
        denoiser=SimpleNamespace(
            num_latent_tokens=s.latents // s.pack,
            latent_dim=s.pack * s.channels,
            num_action_tokens=1,
            num_register_tokens=s.registers,
            n_actions=16,
            n_layers=s.dynamics_depth // 3,
            num_noise_levels=s.levels,
            max_sequence_length=s.time,
            context_length=s.time,
            **common,
        ),
    )
