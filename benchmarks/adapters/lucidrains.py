"""The adapter of github.com/lucidrains/dreamer4."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

from .training import optimizers, step


class Lucidrains:
    """github.com/lucidrains/dreamer4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        vision = {
            name: types.ModuleType(name)
            for name in ('torchvision', 'torchvision.models', 'torchvision.transforms')
        }
        vision['torchvision'].models, vision['torchvision'].transforms = (
            vision['torchvision.models'],
            vision['torchvision.transforms'],
        )
        vision['torchvision.models'].VGG16_Weights = SimpleNamespace(DEFAULT=None)  # LPIPS is off
        package = types.ModuleType('dreamer4')
        package.__path__ = [str(checkout / 'dreamer4')]
        sys.modules.update(vision, dreamer4=package)
        from dreamer4.dreamer4 import DynamicsWorldModel, VideoTokenizer

        self.s, heads = s, dict(attn_heads=s.heads, attn_dim_head=s.width // s.heads)
        self.tokenizer_net = VideoTokenizer(
            dim=s.width,
            dim_latent=s.channels,
            patch_size=s.patch,
            image_height=s.size,
            image_width=s.size,
            num_latent_tokens=s.latents,
            encoder_depth=s.tokenizer_depth,
            decoder_depth=s.tokenizer_depth,
            lpips_loss_weight=0.0,
            **heads,
        ).to(s.device)
        self.dynamics_net = DynamicsWorldModel(
            dim=s.width,
            dim_latent=s.channels,
            max_steps=s.levels,
            num_register_tokens=s.registers,
            num_spatial_tokens=s.latents // s.pack,
            num_latent_tokens=s.latents,
            depth=s.dynamics_depth,
            time_block_every=s.time_every,
            num_continuous_actions=16,
            **heads,
        ).to(s.device)
        self.optimizers = optimizers(self.tokenizer_net, self.dynamics_net)
        self.video = torch.rand(s.batch, 3, s.clip, s.size, s.size, device=s.device)
        self.latents = torch.rand(s.batch, s.time, s.latents, s.channels, device=s.device) * 2 - 1
        self.actions = torch.rand(s.batch, s.time, 16, device=s.device) * 0.98 + 0.01

    def tokenizer(self) -> None:
        step(self.optimizers['tokenizer'], self.tokenizer_net(self.video))

    def dynamics(self) -> None:
        step(
            self.optimizers['dynamics'],
            self.dynamics_net(latents=self.latents, continuous_actions=self.actions),
        )

    @torch.no_grad()
    def generate(self) -> None:
        self.dynamics_net.generate(
            self.s.context + self.s.horizon,
            num_steps=self.s.steps,
            batch_size=self.s.batch,
            prompt_latents=self.latents[:, : self.s.context, None],
            prompt_continuous_actions=self.actions[:, : self.s.context],
            return_decoded_video=False,
            return_agent_actions=True,
        )
