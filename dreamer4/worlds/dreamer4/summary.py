"""What Dreamer 4's world model is made of and what an update costs, counted from the model."""

from ...nets.transformer import Transformer
from ...summary import matmul_parameters, parameters
from .. import Summary


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


def summarize(world) -> Summary:
    """Parts of a Dreamer4, and FLOPs of an update: attention scores are left out, which at a few
    dozen tokens per frame are one or two percent of the whole.
    """
    c, heads, dynamics = world.config, world.heads, world.dynamics
    frames, tokens = c.batch.size * c.batch.length, dynamics.layout.size
    encode, decode = world.tokenizer.products()
    denoise = products(dynamics.transformer, dynamics.bare.size, dynamics.tokens)
    observe = products(dynamics.transformer, tokens, 1)
    read = matmul_parameters(heads)
    dreamt = c.imagination.starts * c.imagination.horizon / c.imagination.every
    flops = {
        'tokenizer': 6 * (encode + decode) * c.batch.frames / c.tokenizer_training.every,
        'encode': 2 * encode * frames,
        'world model': 6 * frames * (denoise + observe + read)
        + 4 * frames * c.shortcut.bootstrap * denoise,
        'imagination': 2 * dreamt * (c.shortcut.steps * denoise + observe + read),
    }
    again = 2 * frames * (denoise + observe)
    if c.tokenizer.kind == 'patches':  # the one whose transformers are computed again
        again += 2 * (encode + decode) * c.batch.frames / c.tokenizer_training.every
    slots = ' '.join(f'{k} {s.stop - s.start}' for k, s in dynamics.layout.slots.items())
    kind, latents = c.tokenizer.kind, world.tokenizer.latent_shape
    rows = [
        ('tokenizer', parameters(world.tokenizer), f'{kind}, latents {latents}'),
        ('dynamics', parameters(dynamics), f'{tokens} tokens: {slots}'),
        ('heads', parameters(heads), 'reward, continue, behaviour'),
    ]
    return Summary(rows, flops, again)
