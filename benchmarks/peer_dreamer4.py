"""Public Dreamer 4 code, measured by request; started by benchmarks/peers.py in a process of its
own, never imported by it.

    python benchmarks/peer_dreamer4.py NAME CHECKOUT SHAPES

SHAPES is the JSON of benchmarks.peers.SHAPES, with device, threads and whether to compile. Reads
one request a line (parameters, tokenizer, dynamics, generate) and answers each with one JSON
number: millions of parameters of the tokenizer and of the dynamics, or seconds of one call. An
adapter builds the peer's own classes with the same shapes and calls its own losses; nothing of a
peer is kept here.
"""

import argparse
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
        self.video = torch.rand(s.batch, s.clip, 3, s.size, s.size, device=s.device)
        self.latents = (
            torch.rand(s.batch, s.time, s.latents // s.pack, s.pack * s.channels, device=s.device)
            * 2
            - 1
        )
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
        # what the loss reads of the trainer, which wants the file of a trained tokenizer
        self.state = SimpleNamespace(
            model=self.dynamics_net,
            dynamics_cfg=config,
            training_cfg=trainer.DynamicsTrainingConfig(),
            rms_flow=trainer.RMSNormalizer(),
            rms_bootstrap=trainer.RMSNormalizer(),
            _zero=torch.zeros((), device=s.device),
        )
        self.optimizers = optimizers(self.tokenizer_net, self.dynamics_net)
        self.video = torch.rand(s.batch, s.clip, 3, s.size, s.size, device=s.device)
        self.latents = (
            torch.rand(s.batch, s.time, s.latents // s.pack, s.pack * s.channels, device=s.device)
            * 2
            - 1
        )
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
        # no QK-norm, as in all its configurations
        common = dict(model_dim=s.width, n_heads=s.heads, n_kv_heads=s.heads, qk_norm=False)
        config = SimpleNamespace(  # depths in blocks of three space layers and one time layer
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
        self.video = torch.rand(s.batch, s.clip, 3, s.size, s.size, device=s.device)
        self.latents = (
            torch.rand(s.batch, s.time, s.latents // s.pack, s.pack * s.channels, device=s.device)
            * 2
            - 1
        )
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


ADAPTERS = {
    'nicklashansen': Hansen,
    'lucidrains': Lucidrains,
    'vijayabhaskar': Vijayabhaskar,
    'machines-in-motion': MachinesInMotion,
}


def optimizers(
    tokenizer: torch.nn.Module, dynamics: torch.nn.Module
) -> dict[str, torch.optim.Optimizer]:
    nets = {'tokenizer': tokenizer, 'dynamics': dynamics}
    return {
        name: torch.optim.AdamW(net.parameters(), 1e-4, fused=True) for name, net in nets.items()
    }


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', choices=sorted(ADAPTERS))
    parser.add_argument('checkout', type=Path, help='of its repository')
    parser.add_argument('shapes', type=json.loads, help='JSON')
    args = parser.parse_args()
    name, checkout, shapes = args.name, args.checkout, SimpleNamespace(**args.shapes)
    torch.set_num_threads(shapes.threads)
    out, sys.stdout = sys.stdout, sys.stderr  # peers print
    peer = ADAPTERS[name](checkout, shapes)
    if shapes.compiled:
        # those without a cache generate from a history that grows
        torch._dynamo.config.recompile_limit = 64
        for net in (peer.tokenizer_net, peer.dynamics_net):
            net.compile()
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
