"""The runtime: environments, the driver that steps them, the replay that keeps their rows, and the
loops that put an agent to work on them. Written against the two contracts of base.py alone; knows
nothing of torch or of any particular agent.
"""

from .base import FLAG, REWARD, Agent, Env, RandomAgent

__all__ = ['FLAG', 'REWARD', 'Agent', 'Env', 'RandomAgent', 'from_gymnasium']


def from_gymnasium(env, **settings) -> Env:
    """Any gymnasium env as an Env; see embodied.envs.gymnasium.from_gymnasium, which is imported
    only here.
    """
    from .envs import gymnasium

    return gymnasium.from_gymnasium(env, **settings)
