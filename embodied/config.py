"""One immutable tree of values: read from a folder of YAML files, overlaid by presets, overridden
by flags, strict at every step.

`defaults.yaml` holds every key once, with its type (that of the value) and its help text (the
comment); every other file is a dict of presets. What a key takes:

    default      takes
    true         true or false, in any case
    64, 1e6      whole numbers, also written 1e6; a number without a dot is an int
    1.0, 3e-4    numbers
    text         any text, as it is
    [1, 2]       a list of such, written `1,2` or `[1, 2]` or `1 2`; of anything where the default
    is []
    auto         any of the above, as YAML reads it
    any, with a comment that holds a mark such as {auto|int}    one of these: the types bool int
    float str, and words that stand for themselves
"""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
import time
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from .console import steady
from .errors import ConfigError, nearest
from .files import whole
from .yaml_tree import YamlTree, read_bool, read_number, read_yaml, shorten

Value = bool | int | float | str | tuple
T = TypeVar('T')

DEFAULTS = 'defaults.yaml'
NAME = re.compile(r'[A-Za-z_]\w*', re.ASCII)
PLAIN_KEY = re.compile(r'[\w.-]*', re.ASCII)
QUESTIONS = ('help', 'print_config')  # flags that are answered instead of a run
FLAGS = ('configs', *QUESTIONS)  # those that are no keys
MARK = re.compile(r'\{(\w+(?:\|\w+)+)\}\s*')


@dataclass(frozen=True)
class Kind:
    """What values a key takes.

    Attributes:
      options: 'bool', 'int', 'float', 'str', 'any', or words that stand for themselves; the first
          that fits, in the order bool to any.
      many: the value is a list of such.
    """

    options: tuple[str, ...]
    many: bool = False

    @classmethod
    def of(cls, default: Value, mark: str = '') -> Self:
        """The kind of a key with this default and, where its comment holds one, this mark
        ('auto|int').
        """
        if mark:
            return cls(tuple(mark.split('|')))
        if isinstance(default, tuple):
            return cls((type(default[0]).__name__ if default else 'any',), many=True)
        return cls(('any' if default == 'auto' else type(default).__name__,))

    def __str__(self) -> str:
        return ('list of ' if self.many else '') + ' or '.join(self.options)

    def cast(self, value: Any) -> Value:
        """The value in the type of this key; strings are read as on the command line. ValueError
        where it does not fit.
        """
        if not self.many:
            return self._single(value)
        if isinstance(value, str):
            inner = value.strip().removeprefix('[').removesuffix(']')
            value = (
                [part.strip().strip('\'"') for part in inner.split(',')] if inner.strip() else []
            )
        if not isinstance(value, (list, tuple)):
            value = [value]
        return tuple(self._single(part) for part in value)

    def _single(self, value: Any) -> Value:
        if value in self.options and value not in _OPTIONS:
            return value
        for option, cast in _OPTIONS.items():
            if option in self.options:
                try:
                    return cast(value)
                except ValueError:
                    continue
        words = [option for option in self.options if option not in _OPTIONS]
        hint = f'; {nearest(value, words)}' if isinstance(value, str) and words else ''
        raise ValueError(f'expected {self}, got {shorten(value)}{hint}')


class Config(Mapping):
    """An immutable nested mapping with attribute access: config.run.envs, config['run']['envs'] and
    config['run.envs'] are the same.

    Values are bool, int, float, str and tuples of these; blocks are Configs. Keys are identifiers,
    and none is the name of a method.
    """

    def __init__(
        self, values: Mapping[str, Any], kinds: Mapping[str, Kind] | None = None, path: str = ''
    ):
        """Args: a nested mapping; the kind of each dotted key (that of its value by default); the
        dotted place of this block, for errors.

        Raises:
          ConfigError: a key is no identifier or the name of a method, or a value is of no type that
              a config holds.
        """
        tree = {}
        for key, value in values.items():
            where = f'{path}.{key}' if path else str(key)
            if not isinstance(key, str) or not NAME.fullmatch(key) or hasattr(type(self), key):
                raise ConfigError(
                    f'{shorten(where)} cannot be a key: a key is an identifier and none of the'
                    ' names of Config.'
                )
            if isinstance(value, Mapping):
                tree[key] = Config(value, kinds, where)
            else:
                tree[key] = _value(value, where)
        state = {'_tree': tree, '_path': path, '_kinds': dict(kinds or {})}
        for name, part in state.items():
            object.__setattr__(self, name, part)

    def __getitem__(self, key: str) -> Any:
        value = self
        for part in key.split('.'):
            if not isinstance(value, Config) or part not in value._tree:
                raise KeyError(key)
            value = value._tree[part]
        return value

    def __getattr__(self, name: str) -> Any:
        try:
            return self._tree[name]
        except KeyError:
            raise AttributeError(
                f"The config{_at(self._path)} has no key '{name}'; it has {', '.join(self._tree)}."
            ) from None

    def __setattr__(self, name: str, value: Any):
        raise TypeError(f'A config cannot be changed; make another with update({name}=...).')

    def __delattr__(self, name: str):
        raise TypeError('A config cannot be changed.')

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __repr__(self) -> str:
        return f'Config({self.to_dict()})'

    def __reduce__(self):
        return Config, (self.to_dict(), self._kinds, self._path)

    @property
    def flat(self) -> dict[str, Value]:
        """Dotted key -> value, in order; blocks without keys do not show."""
        flat = {}
        for key, value in self._tree.items():
            if isinstance(value, Config):
                flat |= {f'{key}.{inner}': leaf for inner, leaf in value.flat.items()}
            else:
                flat[key] = value
        return flat

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain dicts."""
        return {
            key: value.to_dict() if isinstance(value, Config) else value
            for key, value in self._tree.items()
        }

    def update(
        self, changes: Mapping[str, Any] | None = None, /, *, source: str = 'update()', **more: Any
    ) -> 'Config':
        """Another config with some values replaced.

        Args:
          changes: nested, with dotted keys, or with regular expressions as keys; later ones win.
          source: where the changes come from, for errors.
          more: further changes of keys at the top.

        Raises:
          ConfigError: a key is unknown or an expression matches none, or a value does not fit the
              key's type.
        """
        flat, tree = self.flat, self.to_dict()
        for key, pattern, value in _assignments({**(changes or {}), **more}):
            for name in self._targets(key, pattern, flat, source):
                kind = self._kinds.get(f'{self._path}.{name}' if self._path else name) or Kind.of(
                    flat[name]
                )
                try:
                    _assign(tree, name, kind.cast(value))
                except ValueError as error:
                    where = source if source.endswith(name) else f'{source}: {name}'
                    raise ConfigError(f'{where}: {error}.') from None
        return Config(tree, self._kinds, self._path)

    def _targets(self, key: str, pattern: str, flat: Mapping[str, Value], source: str) -> list[str]:
        if key in flat:
            return [key]
        if PLAIN_KEY.fullmatch(key):
            inside = [name for name in flat if name.startswith(f'{key}.')]
            if inside:
                raise ConfigError(
                    f"{source}: '{key}' is a block and takes no value; its keys are"
                    f' {", ".join(inside[:8])}{", ..." if len(inside) > 8 else ""}.'
                )
            raise ConfigError(f'{source}: unknown key {shorten(key)}; {nearest(key, flat)}.')
        try:
            hits = [name for name in flat if re.fullmatch(pattern, name)]
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f'{source}: {shorten(key)} is neither a key nor a regular expression: {error}.'
            ) from None
        if not hits:
            raise ConfigError(
                f'{source}: no key matches the expression {shorten(key)}; {nearest(key, flat)}.'
            )
        return hits

    def build(self, target: type[T]) -> T:
        """This block as a dataclass of which every field is given here, and nothing else is. Inner
        dataclasses are built from inner blocks.

        Raises:
          ConfigError: a key is missing, unknown, or of another type than its field.
        """
        hints = typing.get_type_hints(target)
        fields = {
            field.name: hints[field.name] for field in dataclasses.fields(target) if field.init
        }
        unknown = [key for key in self if key not in fields]
        missing = [name for name in fields if name not in self]
        if unknown:
            raise ConfigError(
                f"{target.__name__} has no field '{unknown[0]}', which the config"
                f' has{_at(self._path)}; {nearest(unknown[0], fields)}.'
            )
        if missing:
            raise ConfigError(
                f"The config has no key '{missing[0]}'{_at(self._path)}, which {target.__name__}"
                ' needs.'
            )
        arguments = {}
        for name, hint in fields.items():
            try:
                arguments[name] = _fit(self._tree[name], hint)
            except ValueError:
                where = f'{self._path}.{name}' if self._path else name
                raise ConfigError(
                    f'{where}: {target.__name__} expects {_hint_name(hint)}, got'
                    f' {shorten(self._tree[name])}.'
                ) from None
        return target(**arguments)

    def to_yaml(self) -> str:
        """The tree as YAML text, which load() reads from a file."""
        yaml = YAML(typ='safe', pure=True)
        yaml.Representer = _Representer
        yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
        yaml.dump(_listed(self.to_dict()), text := io.StringIO())
        return text.getvalue()

    def save(self, path: str | os.PathLike) -> None:
        """Write the tree as YAML; the file appears whole or not at all.

        Raises:
          ConfigError: it cannot be written.
        """
        try:
            with whole(Path(path)) as file:
                file.write(self.to_yaml().encode())
        except OSError as error:
            raise ConfigError(f'Cannot write the config to {path}: {error}') from error

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'Config':
        """What save() wrote. Raises ConfigError where it is no such file."""
        return cls(read_yaml(Path(path)).values)


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
    for name in [
        preset
        for name, values in flags
        if name == 'configs'
        for value in values
        for preset in value.split(',')
    ]:
        if name not in presets:
            raise ConfigError(
                f'--configs: unknown preset {shorten(name)}; {nearest(name, presets)}.'
            )
        config = config.update(presets[name], source=f"preset '{name}'")
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
    """defaults.yaml, and the presets of all other YAML files by name."""
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


def diff(old: Config, new: Config) -> dict[str, tuple[Value | None, Value | None]]:
    """Dotted key -> (old value, new value) where the two differ; None where there is no such
    key.
    """
    before, after = old.flat, new.flat
    return {
        key: (before.get(key), after.get(key))
        for key in {**before, **after}
        if key not in before or key not in after or before[key] != after[key]
    }


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


def _assignments(
    changes: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, Any]]:
    """(dotted key, expression that matches the same, value) of each leaf of nested changes."""
    for key, value in changes.items():
        where = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _assignments(value, where)
        else:
            pattern = r'\.'.join(
                re.escape(part) if PLAIN_KEY.fullmatch(part) else part for part in where
            )
            yield '.'.join(where), pattern, value


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


def _assign(tree: dict, key: str, value: Value) -> None:
    *blocks, last = key.split('.')
    for block in blocks:
        tree = tree[block]
    tree[last] = value


def _value(value: Any, where: str) -> Value:
    if isinstance(value, (list, tuple)) and all(isinstance(part, _SCALARS) for part in value):
        return tuple(value)
    if isinstance(value, _SCALARS) and value == value:
        return value
    raise ConfigError(
        f'{where}: a value is a bool, int, float, str or a list of these, got {shorten(value)}.'
    )


class _Representer(SafeRepresenter):
    """Writes every float with a dot, because without one it would be read as an int."""

    def represent_float(self, value: float):
        text = super().represent_float(value).value
        mantissa, exponent, power = text.partition('e')
        return self.represent_scalar(
            'tag:yaml.org,2002:float',
            (mantissa if '.' in mantissa else f'{mantissa}.0') + exponent + power,
        )


_Representer.add_representer(float, _Representer.represent_float)


def _listed(tree: dict) -> dict:
    """The tree with lists for tuples, which YAML has no word for."""
    return {
        key: (
            _listed(value)
            if isinstance(value, dict)
            else list(value)
            if isinstance(value, tuple)
            else value
        )
        for key, value in tree.items()
    }


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        return read_bool(value)
    if not isinstance(value, bool):
        raise ValueError
    return value


def _int(value: Any) -> int:
    value = _number(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _number(value: Any) -> int | float:
    """A number, not yet converted, so that a whole one keeps all its digits."""
    if isinstance(value, str):
        return read_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _any(value: Any) -> bool | int | float | str:
    """What YAML would read: the text true is a bool, 2 an int, 2.0 a float."""
    for cast in (_bool, _number, _str):
        try:
            return cast(value)
        except ValueError:
            continue
    raise ValueError


_SCALARS = (bool, int, float, str)
_OPTIONS = {
    'bool': _bool,
    'int': _int,
    'float': lambda value: float(_number(value)),
    'str': _str,
    'any': _any,
}


def _fit(value: Any, hint: Any) -> Any:
    """The value as a field with this type hint holds it. ValueError where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Config):
        return value.build(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError
        return value
    if (origin or hint) in (tuple, list) and isinstance(value, tuple):
        return _fit_list(value, origin or hint, arguments)
    if (
        isinstance(origin or hint, type)
        and issubclass(origin or hint, Mapping)
        and isinstance(value, Config)
    ):
        return value.to_dict() if (origin or hint) is dict else value
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    raise ValueError


def _fit_union(value: Any, hints: tuple) -> Any:
    if type(value) in hints:
        return value
    for hint in hints:
        try:
            return _fit(value, hint)
        except ValueError:
            continue
    raise ValueError


def _fit_list(value: tuple, container: type, hints: tuple) -> Any:
    if not hints:
        return container(value)
    if container is list or hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise ValueError
    return container(_fit(part, hint) for part, hint in zip(value, hints))


def _hint_name(hint: Any) -> str:
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace('typing.', '')
    )


def _at(path: str) -> str:
    return f" at '{path}'" if path else ''
