"""Dreamer 4 in PyTorch: tokenizer, shortcut-forcing dynamics, agent heads, imagination and PMPO
(arXiv 2509.24527).

    import dreamer4

    run = dreamer4.create('pixel_catch', configs=['pixel'], logdir='logdir/catch').train()
    run.agent.save_pretrained('catch', run=run.logdir)
    policy = dreamer4.Policy(dreamer4.from_pretrained('catch'))
"""

import importlib

import gymnasium

__version__ = '0.1.0'

# Name -> its module, imported when it is asked for: torch takes seconds.
LATE = {
    'Agent': 'agent',
    'DreamEnv': 'dream_env',
    'DreamVectorEnv': 'dream_env',
    'Experiment': 'experiment',
    'Policy': 'load',
    'create': 'experiment',
    'from_pretrained': 'pretrained',
}

gymnasium.register(
    'dreamer4/Dream-v0',
    entry_point='dreamer4.dream_env:DreamEnv',
    vector_entry_point='dreamer4.dream_env:DreamVectorEnv',
)


def __getattr__(name: str):
    if name not in LATE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{LATE[name]}', __name__), name)


def __dir__():
    return [*globals(), *LATE]
