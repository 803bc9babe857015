"""The adapter of github.com/nicklashansen/dreamer4."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

from .training import latents, optimizers, step, video


class Hansen:
    """github.com/nicklashansen/dreamer4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        sys.path.insert(0, str(checkout / 'dreamer4'))
        sys.modules['wandb'] = types.ModuleType('wandb')  # imported and not needed
        import model
        import train_dynamics

        self.s, self.model, self.training = s, model, train_dynamics
        patches = (s.size // s.patch) ** 2
        common = dict(
            d_model=s.width,
            n_latents=s.latents,
            n_patches=patches,
            n_heads=s.heads,
            depth=s.tokenizer_depth,
            d_bottleneck=s.channels,
        )
        self.tokenizer_net = model.Tokenizer(
            model.Encoder(patch_dim=3 * s.patch**2, **common),
            model.Decoder(d_patch=3 * s.patch**2, **common),
        ).to(s.device)
        self.dynamics_net = model.Dynamics(
            d_model=s.width,
            d_bottleneck=s.channels,
            d_spatial=s.pack * s.channels,
            n_spatial=s.latents // s.pack,
            n_register=s.registers,
            n_agent=0,
            n_heads=s.heads,
            depth=s.dynamics_depth,
            k_max=s.levels,
            time_every=s.time_every,
        ).to(s.device)
        self.optimizers = optimizers(self.tokenizer_net, self.dynamics_net)
        self.video, self.latents = video(s), latents(s)
        self.actions = torch.rand(s.batch, s.context + s.horizon, 16, device=s.device)

    def tokenizer(self) -> None:
        patches = self.model.temporal_patchify(self.video, self.s.patch)
        guess, mask, _ = self.tokenizer_net(patches)
        step(self.optimizers['tokenizer'], self.model.recon_loss_from_mae(guess, patches, mask))

    def dynamics(self) -> None:
        loss, _ = self.training.dynamics_pretrain_loss(
            self.dynamics_net,
            z1=self.latents,
            actions=self.actions[:, : self.s.time],
            act_mask=None,
            k_max=self.s.levels,
            B_self=self.s.bootstrap_rows,
            step=1,
            bootstrap_start=0,
        )
        step(self.optimizers['dynamics'], loss)

    @torch.no_grad()
    def generate(self) -> None:
        schedule = self.training.make_tau_schedule(
            k_max=self.s.levels, schedule='shortcut', d=1 / self.s.steps
        )
        known = self.latents[:, :1].expand(-1, self.s.context + self.s.horizon, -1, -1)
        self.training.sample_autoregressive_packed_sequence(
            self.dynamics_net,
            z_gt_packed=known,
            ctx_length=self.s.context,
            horizon=self.s.horizon,
            k_max=self.s.levels,
            sched=schedule,
            actions=self.actions,
        )
