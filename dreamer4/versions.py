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
    'shortcut.bootstrap_start': 500,
    'tokenizer.lpips_net': 'vgg',
    'actor.beta': 0.3,
    'tokenizer.unmasked': 0.25,
    'tokenizer_training.every': 2,
    'tokenizer_training.slow': 1.0,
    'dynamics.pack': 2,
}
# A flag that is gone -> its values, and the flag with which this version is told the same.
REPLACED: dict[str, dict[str, list[str]]] = {
    'logger.tensorboard': {
        'true': ['--logger.outputs', 'terminal', 'jsonl', 'tensorboard'],
        'false': ['--logger.outputs', 'terminal', 'jsonl'],
    },
    'agent.world': {'rssm': ['--agent.world', 'dreamerv3']},
    'agent.actor.prior': {
        'slow': ['--agent.actor.prior', '0.03'],
        'frozen': ['--agent.actor.prior', 'clone'],
    },
    'agent.actor.anneal': {
        'true': ['--agent.actor.openness', '0.9', '0.6'],
        'false': ['--agent.actor.openness', '[]'],
    },
}
# What was a setting each before `agent.world` named the algorithm whose parts they are, which of
# them -> key below `agent` -> value.
_METHOD = {
    'actor.backprop': 0.0,
    'actor.discounted': True,
    'value.lam': 0.95,
    'value.target': 'slow',
    'value.regulariser': 0.0,
    'value.replay': 0.0,
    'optim.rule': 'adamw',
    'optim.beta2': 0.999,
    'optim.weight_decay': 0.0,
    'optim.clip': 100.0,
}
_FORM = {
    'rssm.blocks': 1,
    'rssm.latents': 'categorical',
    'rssm.unimix': 0.0,
    'rssm.prior_layers': 1,
    'rssm.act': 'elu',
    'rssm.norm': 'none',
    'rssm.free_of': 'batch',
    'rssm.image': 0.5,
    'rssm.cont': 1.0,
    'heads.scalar': 'plain',
}
PUBLISHED: dict[str, dict[str, Value]] = {
    'dreamer4': _METHOD
    | {'actor.discounted': False, 'optim.beta2': 0.99, 'optim.weight_decay': 1e-3}
    | {'optim.clip': 1.0}
    | {'heads.scalar': 'twohot'},
    'dreamerv1': _METHOD
    | _FORM
    | {'rssm.cell': 'plain', 'rssm.latents': 'gaussian', 'rssm.head_layers': 2, 'rssm.cont': 0.0}
    | {'rssm.dyn': 1.0, 'rssm.rep': 1.0, 'rssm.unimix': 0.01}
    | {'actor.backprop': 1.0, 'value.target': 'online'},
    'dreamerv2': _METHOD
    | _FORM
    | {'rssm.cell': 'norm', 'rssm.head_layers': 4, 'rssm.dyn': 0.8, 'rssm.rep': 0.2}
    | {'actor.backprop': 0.1, 'optim.weight_decay': 1e-6},
    'dreamerv3': _METHOD
    | {'rssm.cell': 'block', 'rssm.blocks': 8, 'rssm.latents': 'categorical'}
    | {'rssm.unimix': 0.01, 'rssm.prior_layers': 2, 'rssm.head_layers': 1}
    | {'rssm.act': 'silu', 'rssm.norm': 'rms', 'rssm.free_of': 'frame'}
    | {'rssm.dyn': 1.0, 'rssm.rep': 0.1, 'rssm.image': 1.0, 'rssm.cont': 1.0}
    | {'heads.scalar': 'twohot', 'optim.rule': 'laprop', 'optim.clip': 0.0}
    | {'optim.adaptive_clip': 0.3}
    | {'value.target': 'online', 'value.regulariser': 1.0, 'value.replay': 0.3},
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
    _drop(agent, GONE)
    shortcut = agent.get('shortcut', {})
    if shortcut.get('history') == 'commit' or shortcut.get('context_mix') == 0:
        shortcut.pop('context_mix', None)  # it belonged to forcing
    _heads(agent)
    _choices(agent)
    if isinstance(agent.get('optim'), dict):
        agent['optim'] = _together(agent['optim'], agent.get('world') == 'rssm')
        _published(agent)
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


def _choices(agent: dict) -> None:
    """What two keys said together, and one says now; what cannot be said any more stays."""
    heads, batch, actor = (_block(agent, name) for name in ('heads', 'batch', 'actor'))
    if heads.get('continuous') == 'bins':
        heads['continuous'] = heads.pop('action_bins', 11)
    heads.pop('action_bins', None)
    if not batch.get('long_every', 4) and not batch.get('long_last'):
        batch['long_length'] = 0
        del batch['long_every']
        batch.pop('long_last', None)
    elif batch.get('long_every') == 4:
        least = _block(agent, 'schedule').get('dynamics_updates')
        _drop(agent, {'batch.long_every': 4, 'batch.long_last': least and least // 2})
    actor.pop('anneal', None)  # how a bonus fell, which is steered now where anything is
    if isinstance(actor.get('prior'), str):
        _prior(actor, agent.get('world', 'dreamer4') != 'dreamer4')


def _prior(actor: dict, rssm: bool) -> None:
    """Block `agent.actor` of a version that told of the prior by four keys."""
    if 'start' not in actor and actor['prior'] in ('none', 'clone'):
        return  # of today
    prior, pmpo = actor['prior'], actor.get('loss', 'pmpo') == 'pmpo'
    told = {
        'start': 'behaviour' if prior == 'frozen' else 'uniform',
        'floor': (0.0 if prior == 'frozen' else 0.1) if pmpo else actor.get('floor'),
        'acting': 1.0 if rssm or prior == 'frozen' else 0.01,
    }
    actor.setdefault('acting', 1.0)  # before there was such a key
    if any(actor.get(name, value) != value for name, value in told.items()):
        return
    slow = actor.pop('slow', 0.03)
    actor['prior'] = {'slow': slow, 'frozen': 'clone'}.get(prior, 'none')
    if prior == 'none':
        actor.pop('beta', None)  # which nobody read
    for name in told:
        actor.pop(name, None)


def _heads(agent: dict) -> None:
    """Numbers of heads that follow from the width are no settings; what else they were stays."""
    for name in ('tokenizer', 'dynamics'):
        block = _block(agent, name)
        if 'heads' not in block or not isinstance(block.get('width'), int):
            continue
        from .nets.attention import head_count  # torch takes seconds, and no run of today needs it

        if block['heads'] == head_count(block['width']):
            heads = block.pop('heads')
            if shared := block.pop('kv_heads', 0):
                block['group'] = heads // shared


def _block(agent: dict, name: str) -> dict:
    """A block below `agent`, empty if there is none."""
    return block if isinstance(block := agent.get(name), dict) else {}


def _drop(agent: dict, keys: Mapping[str, Value]) -> None:
    """Take away keys below `agent` that have these values."""
    for key, value in keys.items():
        block, _, name = key.partition('.')
        part = _block(agent, block)
        if name in part and part[name] == value:
            del part[name]


def _published(agent: dict) -> None:
    """Name the algorithm whose parts were settings of their own. Parts of none that is known stay,
    and the run is refused by their names.
    """
    at = lambda key, default: _block(agent, key.split('.')[0]).get(key.split('.')[1], default)
    named = [n for n in PUBLISHED if n != 'dreamer4'] if agent.get('world') == 'rssm' else []
    for name in named or ['dreamer4']:
        if all(at(key, value) == value for key, value in PUBLISHED[name].items()):
            break
    else:
        return
    rssm, optim = _block(agent, 'rssm'), agent['optim']
    if named:
        agent['world'] = name
    elif 'cell' in rssm:  # nobody read it
        for key in [*PUBLISHED['dreamerv3'], 'rssm.hidden', 'rssm.layers']:
            if key.startswith('rssm.'):
                rssm.pop(key.removeprefix('rssm.'), None)
    alike = {'rssm.hidden': rssm.get('units'), 'rssm.layers': at('heads.layers', None)}
    _drop(agent, PUBLISHED[name] | alike)
    optim.pop('adaptive_clip', None)  # of LaProp alone
    _one_warmup(optim, bool(named))


def _one_warmup(optim: dict, rssm: bool) -> None:
    """One key for the warm-ups of all parts, if they are those that follow from it."""
    blocks = {name: block for name, block in optim.items() if isinstance(block, dict)}
    found = {name: block['warmup'] for name, block in blocks.items() if 'warmup' in block}
    of_model = found.get('model')
    of_heads = of_model if rssm else 10
    expected = {'tokenizer': of_model, 'policy': of_heads, 'value': of_heads}
    if rssm:  # which has no tokenizer
        del expected['tokenizer']
    if found and all(found.get(name) == value for name, value in expected.items()):
        optim['warmup'] = of_model
        for name in found:
            del blocks[name]['warmup']


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
