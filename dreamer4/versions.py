"""Settings that older versions knew, stored and on command lines, in the keys of this one.

One rule for a key that an older run lacks: the value of BEFORE if there is one, which reproduces
what was done before there was such a key, else the default.
"""

from collections.abc import Mapping, Sequence

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
# Key below `agent` that is gone -> the value that is done now. With another one the run is not
# understood.
GONE: dict[str, Value] = {
    'actor.alpha': 0.5,
    'scales.cont': 1.0,
    'scales.decay': 0.99,
    'scales.dynamics': 1.0,
    'scales.reward': 1.0,
    'scales.behaviour_floor': 0.1,
    'scales.reward_floor': 0.1,
    'shortcut.ramp': 0.1,
    'tokenizer.lpips_net': 'vgg',
}
# A flag that is gone -> its values, and the flag with which this version is told the same.
REPLACED: dict[str, dict[str, list[str]]] = {
    'logger.tensorboard': {
        'true': ['--logger.outputs', 'terminal', 'jsonl', 'tensorboard'],
        'false': ['--logger.outputs', 'terminal', 'jsonl'],
    },
}
OF_ALL = {'rule': 'adamw', 'beta2': 0.99, 'weight_decay': 1e-3, 'clip': 1.0, 'adaptive_clip': 0.0}


def renamed(tree: dict) -> dict:
    """A stored configuration with its keys where they stand today."""
    replay = tree.get('replay')
    if isinstance(replay, dict) and isinstance(where := replay.get('directory'), str):
        replay['directory'] = [where] if where else []  # one folder, before there were several
    agent = tree.get('agent')
    if not isinstance(agent, dict):
        return tree
    if 'machine' not in tree:
        tree['machine'] = {name: agent.pop(name) for name in MOVED if name in agent}
    for key, value in GONE.items():
        block, _, name = key.partition('.')
        if isinstance(part := agent.get(block), dict) and part.get(name) == value:
            del part[name]
    shortcut = agent.get('shortcut', {})
    if shortcut.get('history') == 'commit' or shortcut.get('context_mix') == 0:
        shortcut.pop('context_mix', None)  # it belonged to forcing
    if isinstance(agent.get('optim'), dict):
        agent['optim'] = _together(agent['optim'], agent.get('world') == 'rssm')
    return tree


def flags_of_today(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line in the flags of this version, and what took the place of what in it."""
    argv, out, told = list(argv), [], []
    while argv:
        name, equals, value = argv.pop(0).partition('=')
        key = name.removeprefix('--')
        block, _, rest = key.partition('.')
        if not name.startswith('--'):
            out.append(name + equals + value)
        elif block == 'agent' and rest.partition('.')[0] in MOVED:
            out.append(f'--machine.{rest}{equals}{value}')
            told.append(f'{name} is now --machine.{rest}')
        elif key in REPLACED:
            said = value if equals else argv.pop(0) if argv else ''
            flag = REPLACED[key].get(said.lower())
            out += flag or [name, said]
            told += [f'{name} {said} is now {" ".join(flag)}'] if flag else []
        else:
            out.append(name + equals + value)
    return out, told


def _together(optim: dict, rssm: bool) -> dict:
    """Block `agent.optim` of a version in which every part had an optimizer of its own; as it is,
    if the parts differ.
    """
    # an RSSM has no tokenizer, whose block nobody read
    parts = [block for name, block in optim.items() if not (rssm and name == 'tokenizer')]
    if not all(isinstance(block, dict) and block.get('beta1') == 0.9 for block in parts):
        return optim
    alike = {k: parts[0].get(k, value) for k, value in OF_ALL.items()}
    if any(block.get(k, OF_ALL[k]) != alike[k] for block in parts for k in OF_ALL):
        return optim
    rates = {name: {k: block[k] for k in ('lr', 'warmup')} for name, block in optim.items()}
    return alike | rates


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
