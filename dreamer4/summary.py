"""What the agent is made of and what an update costs, in numbers counted from the model."""

from torch import nn

from .conv_tokenizer import ConvTokenizer
from .nets.transformer import Transformer
from .tokenizer import Tokenizer


def parameters(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for m in modules for p in m.parameters())


def matmul_parameters(*modules: nn.Module) -> int:
    """Parameters of linear layers: each costs 2 FLOPs per token forward and 4 backward."""
    return sum(
        m.weight.numel() for root in modules for m in root.modules() if isinstance(m, nn.Linear)
    )


def products(transformer: Transformer, tokens: int, read: int) -> int:
    """Multiplications with weights in one forward pass over a frame of `tokens`, of which `read`
    are read (see Transformer.forward).
    """
    *blocks, last = transformer.blocks
    space, rest = matmul_parameters(last.space), matmul_parameters(last.mlp)
    if last.time is None:
        queries = (
            last.space.heads * last.space.channels * last.space.qkv.in_features
            + last.space.out.weight.numel()
        )
        final = (space - queries) * tokens + (queries + rest) * read
    else:
        final = (space + matmul_parameters(last.time)) * tokens + rest * read
    return matmul_parameters(*blocks) * tokens + final


def frame_products(tokenizer: Tokenizer) -> tuple[int, int]:
    """Multiplications with weights of encoding a frame, and of decoding it."""
    if isinstance(tokenizer, ConvTokenizer):
        if not tokenizer.learned:
            return 0, 0
        parts = (
            (tokenizer.encoders, tokenizer.inward, tokenizer.bottleneck),
            (
                tokenizer.decoders,
                tokenizer.outward,
                tokenizer.unbottleneck,
            ),
        )
        return tuple(
            matmul_parameters(*part) + sum(net.products for net in part[0].values())
            for part in parts
        )
    tokens, latents = tokenizer.layout.size, tokenizer.config.latents
    return products(tokenizer.encoder, tokens, latents), products(
        tokenizer.decoder, tokens, tokens - latents
    )


def update_flops(agent) -> dict[str, float]:
    """Estimated FLOPs of one update by part: 2 per weight and token forward, 6 with backward;
    attention scores are left out.

    At a few dozen tokens per frame the scores are one or two percent of the whole.
    """
    c, frames, heads = agent.config, agent.frames_per_update, agent.heads
    tokens = agent.dynamics.layout.size
    encode, decode = frame_products(agent.tokenizer)
    denoise = products(agent.dynamics.transformer, tokens - 1, agent.dynamics.tokens)
    observe = products(agent.dynamics.transformer, tokens, 1)
    world_heads = matmul_parameters(heads.reward_head, heads.cont_head, heads.behaviour_head)
    rl_heads = matmul_parameters(heads.policy_head, heads.value_head)
    decisions = c.imagination.starts * c.imagination.horizon / c.imagination.every
    return {
        'tokenizer': 6 * (encode + decode) * c.batch.frames / c.tokenizer_training.every,
        'encode': 2 * encode * frames,
        'world model': (
            6 * frames * (denoise + observe + world_heads)
            + 4 * frames * c.shortcut.bootstrap * denoise
        ),
        'imagination': (
            2 * decisions * (c.shortcut.steps * denoise + observe + rl_heads + world_heads)
        ),
        'actor critic': 6 * decisions * rl_heads * c.imagination.epochs,
    }


def describe(agent) -> str:
    """A table in plain text."""
    heads, dynamics = agent.heads, agent.dynamics
    rows = [
        (
            'tokenizer',
            parameters(agent.tokenizer),
            f'{agent.config.tokenizer.kind}, latents {agent.tokenizer.latent_shape}',
        ),
        (
            'dynamics',
            parameters(dynamics),
            f'{dynamics.layout.size} tokens: '
            + ' '.join(f'{k} {s.stop - s.start}' for k, s in dynamics.layout.slots.items()),
        ),
        ('heads', parameters(heads), f'actions {agent.actions.describe()}'),
    ]
    flops = update_flops(agent)
    lines = [f'{name:<12} {count / 1e6:8.2f}M  {text}' for name, count, text in rows]
    lines.append(f'{"total":<12} {sum(r[1] for r in rows) / 1e6:8.2f}M  on {agent.device}')
    lines.append(
        f'{sum(flops.values()) / 1e9:.1f} GFLOPs per update of {agent.frames_per_update} frames: '
        + ', '.join(f'{k} {v / 1e9:.1f}' for k, v in flops.items())
    )
    return '\n'.join(lines)
