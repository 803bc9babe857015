"""Public Dreamer 4 code, measured by request; started by benchmarks/peers.py in a process of its own, never imported by it.

    python benchmarks/peer_dreamer4.py NAME CHECKOUT SHAPES

SHAPES is the JSON of benchmarks.peers.SHAPES. Reads one request a line (parameters, tokenizer, dynamics, generate) and answers each with one JSON number:
millions of parameters of the tokenizer and of the dynamics, or seconds of one call. An adapter builds the peer's own classes with the same shapes and
calls its own losses; nothing of a peer is kept here.
"""

import json
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import torch


class Hansen:
    """github.com/nicklashansen/dreamer4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        sys.path.insert(0, str(checkout / 'dreamer4'))
        sys.modules['wandb'] = types.ModuleType('wandb')  # imported and not needed
        import model
        import train_dynamics
        self.s, self.model, self.training = s, model, train_dynamics
        patches = (s.size // s.patch) ** 2
        common = dict(d_model=s.width, n_latents=s.latents, n_patches=patches, n_heads=s.heads, depth=s.tokenizer_depth, d_bottleneck=s.channels)
        self.tokenizer_net = model.Tokenizer(
            model.Encoder(patch_dim=3 * s.patch ** 2, **common), model.Decoder(d_patch=3 * s.patch ** 2, **common)).to(s.device)
        self.dynamics_net = model.Dynamics(
            d_model=s.width, d_bottleneck=s.channels, d_spatial=s.pack * s.channels, n_spatial=s.latents // s.pack, n_register=s.registers,
            n_agent=0, n_heads=s.heads, depth=s.dynamics_depth, k_max=s.levels, time_every=s.time_every).to(s.device)
        self.optimizers = {
            name: torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
            for name, net in (('tokenizer', self.tokenizer_net), ('dynamics', self.dynamics_net))}
        self.video = torch.rand(s.batch, s.clip, 3, s.size, s.size, device=s.device)
        self.latents = torch.rand(s.batch, s.time, s.latents // s.pack, s.pack * s.channels, device=s.device) * 2 - 1
        self.actions = torch.rand(s.batch, s.context + s.horizon, 16, device=s.device)

    def tokenizer(self) -> None:
        patches = self.model.temporal_patchify(self.video, self.s.patch)
        guess, mask, _ = self.tokenizer_net(patches)
        step(self.optimizers['tokenizer'], self.model.recon_loss_from_mae(guess, patches, mask))

    def dynamics(self) -> None:
        loss, _ = self.training.dynamics_pretrain_loss(
            self.dynamics_net, z1=self.latents, actions=self.actions[:, :self.s.time], act_mask=None, k_max=self.s.levels,
            B_self=self.s.bootstrap_rows, step=1, bootstrap_start=0)
        step(self.optimizers['dynamics'], loss)

    @torch.no_grad()
    def generate(self) -> None:
        schedule = self.training.make_tau_schedule(k_max=self.s.levels, schedule='shortcut', d=1 / self.s.steps)
        known = self.latents[:, :1].expand(-1, self.s.context + self.s.horizon, -1, -1)
        self.training.sample_autoregressive_packed_sequence(
            self.dynamics_net, z_gt_packed=known, ctx_length=self.s.context, horizon=self.s.horizon, k_max=self.s.levels, sched=schedule,
            actions=self.actions)


class Lucidrains:
    """github.com/lucidrains/dreamer4."""

    def __init__(self, checkout: Path, s: SimpleNamespace):
        vision = {name: types.ModuleType(name) for name in ('torchvision', 'torchvision.models', 'torchvision.transforms')}
        vision['torchvision'].models, vision['torchvision'].transforms = vision['torchvision.models'], vision['torchvision.transforms']
        vision['torchvision.models'].VGG16_Weights = SimpleNamespace(DEFAULT=None)  # LPIPS is off
        package = types.ModuleType('dreamer4')
        package.__path__ = [str(checkout / 'dreamer4')]
        sys.modules.update(vision, dreamer4=package)
        from dreamer4.dreamer4 import DynamicsWorldModel, VideoTokenizer
        self.s, heads = s, dict(attn_heads=s.heads, attn_dim_head=s.width // s.heads)
        self.tokenizer_net = VideoTokenizer(
            dim=s.width, dim_latent=s.channels, patch_size=s.patch, image_height=s.size, image_width=s.size, num_latent_tokens=s.latents,
            encoder_depth=s.tokenizer_depth, decoder_depth=s.tokenizer_depth, lpips_loss_weight=0.0, **heads).to(s.device)
        self.dynamics_net = DynamicsWorldModel(
            dim=s.width, dim_latent=s.channels, max_steps=s.levels, num_register_tokens=s.registers, num_spatial_tokens=s.latents // s.pack,
            num_latent_tokens=s.latents, depth=s.dynamics_depth, time_block_every=s.time_every, num_continuous_actions=16, **heads).to(s.device)
        self.optimizers = {
            name: torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
            for name, net in (('tokenizer', self.tokenizer_net), ('dynamics', self.dynamics_net))}
        self.video = torch.rand(s.batch, 3, s.clip, s.size, s.size, device=s.device)
        self.latents = torch.rand(s.batch, s.time, s.latents, s.channels, device=s.device) * 2 - 1
        self.actions = torch.rand(s.batch, s.time, 16, device=s.device) * 0.98 + 0.01

    def tokenizer(self) -> None:
        step(self.optimizers['tokenizer'], self.tokenizer_net(self.video))

    def dynamics(self) -> None:
        step(self.optimizers['dynamics'], self.dynamics_net(latents=self.latents, continuous_actions=self.actions))

    @torch.no_grad()
    def generate(self) -> None:
        self.dynamics_net.generate(
            self.s.context + self.s.horizon, num_steps=self.s.steps, batch_size=self.s.batch, prompt_latents=self.latents[:, :self.s.context, None],
            prompt_continuous_actions=self.actions[:, :self.s.context], return_decoded_video=False, return_agent_actions=True)


ADAPTERS = {'nicklashansen': Hansen, 'lucidrains': Lucidrains}


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def main() -> None:
    name, checkout, shapes = sys.argv[1], Path(sys.argv[2]), SimpleNamespace(**json.loads(sys.argv[3]))
    torch.set_num_threads(shapes.threads)
    out, sys.stdout = sys.stdout, sys.stderr  # peers print
    peer = ADAPTERS[name](checkout, shapes)
    count = lambda net: sum(p.numel() for p in net.parameters()) / 1e6
    for line in sys.stdin:
        request, *rest = line.split()
        if request == 'parameters':
            answer = count(getattr(peer, f'{("tokenizer", "dynamics")[int(float(rest[0]))]}_net'))
        else:
            begin = time.perf_counter()
            with torch.autocast('cuda', torch.bfloat16, enabled=shapes.device == 'cuda'):
                getattr(peer, request)()
            if shapes.device == 'cuda':
                torch.cuda.synchronize()
            answer = time.perf_counter() - begin
        print(json.dumps(answer), file=out, flush=True)


if __name__ == '__main__':
    main()
