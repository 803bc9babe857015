"""Settings of runs that older versions made, in the keys of this one.

One rule for a key that such a run lacks: the value of BEFORE if there is one, which reproduces what
was done before there was such a key, else the default.
"""

from collections.abc import Mapping

from embodied.config import Value

# Keys that stood below `agent` before there was a block `machine`.
MOVED = ('device', 'precision', 'threads', 'attention', 'compile', 'graphs', 'cache')
# Key -> the value that does what was done before there was the key, where the default does not.
BEFORE: dict[str, Value] = {
    'agent.dynamics.moves': False,
    'agent.heads.layers': 1,
    'agent.heads.reads': 'together',
    'agent.actor.acting': 1.0,
}


def renamed(tree: dict) -> dict:
    """A stored configuration with its keys where they stand today."""
    agent = tree.get('agent')
    if isinstance(agent, dict) and 'machine' not in tree:
        tree['machine'] = {name: agent.pop(name) for name in MOVED if name in agent}
    return tree


def lacking(stored: Mapping[str, Value], today: Mapping[str, Value]) -> dict[str, Value]:
    """Key -> value for the keys of `today`, those of this version with their defaults, that a
    stored configuration lacks; both with dotted keys.
    """
    return {k: BEFORE.get(k, value) for k, value in today.items() if k not in stored}


def words(found: Mapping[str, Value], logdir) -> str:
    """One line about what lacking() found; empty if that is nothing."""
    if not found:
        return ''
    shown = ', '.join(f'{key} {value}' for key, value in list(found.items())[:5])
    more = f' and {len(found) - 5} more' if len(found) > 5 else ''
    return f'{logdir} is a run of an older version; what its config.yaml lacks is {shown}{more}.'
