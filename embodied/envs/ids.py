"""Ids of Gymnasium that nobody has registered, and who would."""

import re

import gymnasium

from . import unknown

FORM = (
    'An id that a package registers is written gym_<module>:<Id>, '
    'as in gym_minigrid:MiniGrid-Empty-5x5-v0.'
)
# Prefix of ids -> the module that registers them.
REGISTERED_BY = {
    'ALE/': 'ale_py',
    'MiniGrid-': 'minigrid',
    'BabyAI-': 'minigrid',
    'MiniWorld-': 'miniworld',
    'miniwob/': 'miniwob',
    'highway-': 'highway_env',
    'Fetch': 'gymnasium_robotics',
    'Adroit': 'gymnasium_robotics',
    'PointMaze': 'gymnasium_robotics',
    'AntMaze': 'gymnasium_robotics',
    'Panda': 'panda_gym',
    'FlappyBird-': 'flappy_bird_gymnasium',
    'gym_pusht/': 'gym_pusht',
}


def spelt(identifier: str) -> str:
    """The task that an id of Gymnasium stands for; it may name its module, as in package:Id-v0."""
    if ':' in identifier or identifier in gymnasium.registry:
        return f'gym_{identifier}'
    modules = (module for begin, module in REGISTERED_BY.items() if identifier.startswith(begin))
    module = next(modules, None)
    return f'gym_{module}:{identifier}' if module else f'gym_{identifier}'


def unknown_id(identifier: str) -> str:
    """Advice about an id that Gymnasium does not know."""
    for begin, module in REGISTERED_BY.items():
        if identifier.startswith(begin):
            other = ''
            if begin == 'ALE/':
                game = identifier.removeprefix(begin).partition('-')[0]
                other = f', or atari_{re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", game).lower()}'
            return (
                f'The id {identifier!r} is registered by the module {module}: '
                f'write --task gym_{module}:{identifier}{other}.'
            )
    known = [f'gym_{each}' for each in gymnasium.registry]
    return f'{unknown("task", f"gym_{identifier}", known)} {FORM}'
