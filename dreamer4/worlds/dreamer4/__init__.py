"""Dreamer 4's world model: a tokenizer, a transformer that denoises the next latents, and heads.

Read it in this order: world.py, tokenizer.py, dynamics.py, shortcut.py, rollout.py.
"""

import importlib

# `tokenizer.kind` -> the module, in this package, and its class; imported when it is asked for.
TOKENIZERS = {'patches': 'tokenizer:Tokenizer', 'conv': 'conv_tokenizer:ConvTokenizer'}


def find_tokenizer(kind: str) -> type:
    """The class of a tokenizer, by a key of TOKENIZERS."""
    module, _, name = TOKENIZERS[kind].partition(':')
    return getattr(importlib.import_module(f'{__name__}.{module}'), name)
