"""From a command line to a configuration: files, presets, flags, help."""

import contextlib
import difflib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..console import steady
from ..errors import ConfigError, nearest
from ..yaml_tree import YamlTree, read_yaml, shorten
from .kinds import Kind, Value
from .tree import Config

DEFAULTS = 'defaults.yaml'
QUESTIONS = ('help', 'print_config')  # flags that are answered instead of a run
FLAGS = ('configs', *QUESTIONS)  # those that are no keys
BASE = 'builds_on'  # key of a preset: the name of another one, which it lies over
BEHIND = 'behind'  # true in a preset that changes those of tasks, and stands behind them
MARK = re.compile(r'\{(str|float|\w+(?:\|\w+)+)\}\s*')


def parse(
    argv: Sequence[str],
    folder: str | os.PathLike,
    base: Mapping[str, Any] | None = None,
    about: str = '',
    answer: bool = True,
) -> Config:
    """The config that a command line asks for.

    `--configs a b` overlays presets in this order; then `--key value`, `--key=value` and
    `--regular.expression value` override, in their order. `--help [block ...]` prints every key
    with its value after presets and flags, `--print_config` the same as YAML; both end the process.

    Args:
      argv: the arguments, without the program's name.
      folder: holds defaults.yaml and files of presets.
      base: values in place of defaults, below presets and flags.
      about: what --help says first.
      answer: whether --help and --print_config are answered; otherwise they are passed over.

    Raises:
      ConfigError: an argument, preset, key or value is not as it must be; the text is one line.
    """
    defaults, presets = read_folder(Path(folder))
    flags = _flags(argv)
    config = with_kinds(defaults).update(base, source='the settings that this command starts from')
    names = [
        preset
        for name, values in flags
        if name == 'configs'
        for value in values
        for preset in value.split(',')
    ]
    for name in names:
        if name not in presets:
            raise ConfigError(
                f'--configs: unknown preset {shorten(name)}; {nearest(name, presets)}.'
            )
        config = overlaid(config, name, presets)
    _check_order(names, presets, with_kinds(defaults))
    for name, values in flags:
        if name not in config.flat and (near := difflib.get_close_matches(name, FLAGS, 1, 0.85)):
            if near[0] != name:
                raise ConfigError(f'--{name}: unknown flag; did you mean --{near[0]}?')
        if name != 'configs' and name not in QUESTIONS:
            config = config.update({name: _flag_value(name, values, config)}, source=f'--{name}')
    for name, values in flags:
        if name in QUESTIONS and answer:
            asked = name == 'help'
            _show(
                help_text(config, defaults, presets, about, values) if asked else config.to_yaml()
            )
            sys.exit(0)
    return config


def read_folder(folder: Path) -> tuple[YamlTree, dict[str, dict]]:
    """defaults.yaml, and the presets of all other YAML files by name, with the names of those that
    they build on.
    """
    defaults = read_yaml(folder / DEFAULTS)
    presets, origin = {}, {}
    for path in sorted(folder.glob('*.yaml')):
        if path.name == DEFAULTS:
            continue
        for name, preset in read_yaml(path).values.items():
            if not isinstance(preset, dict):
                raise ConfigError(
                    f"{path.name}: the preset '{name}' must hold keys and values, got"
                    f' {shorten(preset)}.'
                )
            if name in presets:
                raise ConfigError(
                    f"The preset '{name}' stands in {origin[name]} and in {path.name}; it may stand"
                    ' once.'
                )
            presets[name], origin[name] = preset, path.name
    return defaults, presets


def lineage(name: str, presets: Mapping[str, Mapping]) -> list[str]:
    """A preset with those that it builds on, the lowest layer first.

    Raises:
      ConfigError: one of them builds on a preset that there is not, or on itself.
    """
    found = [name]
    while base := presets[found[0]].get(BASE):
        if base not in presets:
            raise ConfigError(
                f"The preset '{found[0]}' builds on {shorten(base)}, which is none;"
                f' {nearest(str(base), presets)}.'
            )
        if base in found:
            raise ConfigError(
                f"The preset '{found[0]}' builds on itself, by {' and '.join(found)}."
            )
        found.insert(0, base)
    return found


def overlaid(config: Config, name: str, presets: Mapping[str, Mapping]) -> Config:
    """A config with a preset, and those that it builds on, over it."""
    for layer in lineage(name, presets):
        changes = {key: value for key, value in presets[layer].items() if key not in (BASE, BEHIND)}
        config = config.update(changes, source=f"preset '{layer}'")
    return config


def _check_order(names: Sequence[str], presets: Mapping[str, Mapping], plain: Config) -> None:
    """Refuse a preset that belongs behind those of tasks and that one of them would undo."""
    for at, name in enumerate(names):
        for later in names[at + 1 :] if presets[name].get(BEHIND) else ():
            if presets[later].get(BEHIND):
                continue
            alone = overlaid(plain, name, presets).flat
            both = overlaid(overlaid(plain, name, presets), later, presets).flat
            undone = [key for key in alone if plain[key] != alone[key] != both[key]]
            if undone:
                raise ConfigError(
                    f'--configs {shorten(" ".join(names))}: {later} would undo {len(undone)}'
                    f' settings of {name}, such as {undone[0]}; {name} belongs behind it, as in'
                    f' --configs {later} {name}.'
                )


def with_kinds(defaults: YamlTree) -> Config:
    """The defaults as a config whose keys take what their values and comments say."""
    config = Config(defaults.values)
    kinds = {}
    for key, value in config.flat.items():
        mark = MARK.search(defaults.comments.get(key, ''))
        kinds[key] = Kind.of(value, mark[1] if mark else '')
        try:
            kinds[key].cast(value)
        except ValueError as error:
            raise ConfigError(f'{DEFAULTS}: {key}: {error}, by its own mark.') from None
    return Config(defaults.values, kinds)


def help_text(
    config: Config,
    defaults: YamlTree,
    presets: Mapping[str, Any],
    about: str = '',
    topics: Sequence[str] = (),
) -> str:
    """Every key with its value in `config`, what it takes, its default if that differs, its
    comment.

    Args:
      config: the defaults with presets and flags over them.
      defaults, presets: as read_folder() returns them.
      about: the first lines.
      topics: keys, blocks or expressions; only such keys are shown. None for all.

    Raises:
      ConfigError: a topic matches no key.
    """
    normal, lines, seen = with_kinds(defaults).flat, [], set()
    for key in _on_topic(list(config.flat), topics):
        parts = key.split('.')
        for block in ('.'.join(parts[:depth]) for depth in range(1, len(parts))):
            if block not in seen:
                seen.add(block)
                lines += ['', f'{block}: {defaults.comments.get(block, "")}'.rstrip(': ')]
        comment, changed = MARK.sub('', defaults.comments.get(key, '')), config[key] != normal[key]
        takes = str(config._kinds[key]) + (f'; default {_shown(normal[key])}' if changed else '')
        lines.append(f'  --{key} {_shown(config[key])}  ({takes})'.ljust(58) + f'  {comment}')
    return '\n'.join(
        [
            *(
                []
                if topics
                else [
                    *([about, ''] if about else []),
                    'Usage: --configs preset ... --key value --key=value --expression value',
                    '',
                    '  --configs name ...    presets, overlaid in this order: '
                    + ' '.join(sorted(presets)),
                    "  --'.*\\.width' 64      an expression sets every key that it"
                    ' matches as a whole',
                    '  --help run agent.optim    only these keys or blocks;'
                    ' with --configs as these set them',
                    '  --print_config        all values as YAML, and nothing is run',
                    '',
                ]
            ),
            *map(str.rstrip, lines),
        ]
    )


def _on_topic(keys: Sequence[str], topics: Sequence[str]) -> list[str]:
    """The keys that are, or lie in, one of the topics, or that match it as an expression."""
    shown = set()
    for topic in topics:
        hits = {key for key in keys if key == topic or key.startswith(f'{topic}.')}
        with contextlib.suppress(re.error, RecursionError, OverflowError):
            hits |= {key for key in keys if re.fullmatch(topic, key)}
        if not hits:
            blocks = {key[: at.start()] for key in keys for at in re.finditer(r'\.', key)}
            near = nearest(topic, [*keys, *sorted(blocks)])
            raise ConfigError(f'--help: there is no key or block {shorten(topic)}; {near}.')
        shown |= hits
    return [key for key in keys if key in shown or not topics]


def expand_timestamp(logdir: str, now: float | None = None) -> str:
    """The text with '{timestamp}' replaced by the local time, to the millisecond so that runs
    started together do not share a folder.

    Args: the text; seconds since the epoch, now by default.
    """
    now = time.time() if now is None else now
    stamp = time.strftime('%Y%m%dT%H%M%S', time.localtime(now)) + f'F{int(now * 1000) % 1000:03d}'
    return logdir.replace('{timestamp}', stamp)


def configs_dir(package: str | os.PathLike) -> Path:
    """The folder of configs of a package: inside of it where it is installed, beside it in a
    checkout.

    Raises:
      ConfigError: there is neither.
    """
    for folder in (Path(package) / 'configs', Path(package).parent / 'configs'):
        if (folder / DEFAULTS).is_file():
            return folder
    raise ConfigError(
        f'There is no configs/{DEFAULTS} in or beside {package}: the installation is incomplete.'
    )


def _flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag with the values that follow it."""
    flags = []
    for argument in argv:
        if argument == '-h':
            argument = '--help'
        if argument.startswith('--') and len(argument) > 2:
            name, equals, value = argument[2:].partition('=')
            flags.append((name, [value] if equals else []))
        elif not flags:
            raise ConfigError(f'Expected a flag such as --task, got {shorten(argument)}.')
        else:
            flags[-1][1].append(argument)
    for name, values in flags:
        if name == 'print_config' and values:
            raise ConfigError(f'--print_config takes no value, got {shorten(" ".join(values))}.')
        if name not in QUESTIONS and not values:
            raise ConfigError(f'--{name} needs a value.')
    return flags


def _flag_value(name: str, values: list[str], config: Config) -> str | list[str]:
    """The text behind a flag. Several words are a list, and allowed only where the key takes
    one.
    """
    if len(values) == 1:
        return values[0]
    if name in config.flat and not isinstance(config[name], tuple):
        raise ConfigError(
            f'--{name}: expected one value, got {len(values)}: {shorten(" ".join(values))}.'
        )
    return values


def _show(text: str) -> None:
    with steady(patience=None):  # whoever reads, such as `head`, may have seen enough
        print(text)


def _shown(value: Value) -> str:
    match value:
        case tuple():
            return f'[{", ".join(map(_shown, value))}]'
        case bool():
            return str(value).lower()
        case _:
            return str(value) or "''"
