"""Configuration: one YAML tree of defaults, presets that overlay it, flags that override both; strict about names and types.

    defaults.yaml   every key once, with its comment; it also fixes the types
    other *.yaml    preset name -> a partial tree; keys may be nested, dotted ('run.envs') or regular expressions ('.*\\.width')
Types: an int takes 1e6 but not 2.5, a float takes ints, a bool takes true and false only, a list takes 1,2 or [1, 2]. A key whose
default is the word auto takes 'auto' or any number or truth value, because the code decides then.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap

from .errors import ConfigError

DEFAULTS = 'defaults.yaml'
AUTO = 'auto'


class Help(Exception):
    """--help was asked for; the text is the answer."""


class Config(Mapping):
    """Immutable tree of settings: config.run.envs, config['run.envs'], config.flat."""

    def __init__(self, tree: Mapping[str, Any]):
        """Args: tree: nested dicts whose leaves are JSON scalars or lists of them."""
        content = {}
        for key, value in tree.items():
            if not isinstance(key, str):
                raise ConfigError(f'config keys must be text, got {key!r}')
            content[key] = Config(value) if isinstance(value, Mapping) else _leaf(key, value)
        object.__setattr__(self, '_content', content)

    def __getitem__(self, key: str) -> Any:
        value = self
        for part in key.split('.'):
            if not isinstance(value, Config) or part not in value._content:
                raise KeyError(f'config has no key {key!r}; nearest: {nearest(key, self.flat)}')
            value = value._content[part]
        return value

    def __getattr__(self, key: str) -> Any:
        if key.startswith('_') or key not in self._content:
            raise AttributeError(f'config has no key {key!r}; it has {sorted(self._content)}')
        return self._content[key]

    def __setattr__(self, key, value):
        raise AttributeError(f'config is immutable; use update() to get a changed copy of {key!r}')

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return f'Config({self.tree!r})'

    @property
    def tree(self) -> dict[str, Any]:
        """Nested plain dicts."""
        return {k: v.tree if isinstance(v, Config) else v for k, v in self._content.items()}

    @property
    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, in order."""
        out = {}
        for key, value in self._content.items():
            out |= {f'{key}.{k}': v for k, v in value.flat.items()} if isinstance(value, Config) else {key: value}
        return out

    def update(self, changes: Mapping[str, Any], source: str = 'update') -> 'Config':
        """A copy with other values.

        Args:
          changes: nested, dotted or regular-expression keys -> values, texts included; cast to the type of what they replace.
          source: where the changes come from, for messages.

        Raises:
          ConfigError: unknown key or a value of the wrong type.
        """
        flat = dict(self.flat)
        for key, value in _flatten(changes).items():
            for match in _matches(key, flat, source):
                flat[match] = cast(flat[match], value, f'{source}: {match}')
        return Config(_nest(flat))

    def save(self, path: str | Path) -> None:
        """Write as YAML."""
        with open(path, 'w') as file:
            _yaml().dump(self.tree, file)

    @classmethod
    def load(cls, path: str | Path) -> 'Config':
        """Inverse of save.

        Raises:
          ConfigError: the file is missing or not a YAML tree.
        """
        return cls(read_yaml(path))

    def build(self, kind: type, where: str = '') -> Any:
        """This block as an instance of the frozen dataclass `kind`, whose fields are exactly the keys here.

        Raises:
          ConfigError: a key is missing, unknown, or holds a value that its field does not take.
        """
        hints, name = typing.get_type_hints(kind), where or kind.__name__
        fields = [f.name for f in dataclasses.fields(kind)]
        if missing := [f for f in fields if f not in self._content]:
            raise ConfigError(f'{name}: keys {missing} are missing')
        if unknown := [k for k in self._content if k not in fields]:
            raise ConfigError(f'{name}: unknown key {unknown[0]!r}; nearest: {nearest(unknown[0], fields)}')
        return kind(**{f: _field(hints[f], self._content[f], f'{name}.{f}') for f in fields})


def parse(argv: list[str], folder: str | Path) -> Config:
    """Settings of a command line.

    Args:
      argv: without the program's name: --configs a b, --key value, --key=value, --help.
      folder: of the YAML files.

    Raises:
      ConfigError: unknown preset or key, wrong type, or words that belong to no flag. Help: --help was among them.
    """
    defaults, presets = read_folder(folder)
    config, flags = Config(defaults), _flags(argv)
    if 'help' in flags:
        raise Help(help_text(defaults, presets))
    for name in _words(flags.pop('configs', [])):
        if name not in presets:
            raise ConfigError(f'--configs: unknown preset {name!r}; nearest: {nearest(name, presets)}')
        config = config.update(presets[name], f'preset {name}')
    for key, words in flags.items():
        if not words:
            raise ConfigError(f'--{key}: a value is missing')
        config = config.update({key: words[0] if len(words) == 1 else words}, 'flag')
    return config


def read_folder(folder: str | Path) -> tuple[CommentedMap, dict[str, Mapping]]:
    """The defaults with their comments, and all presets of a folder of YAML files.

    Raises:
      ConfigError: a file cannot be read, or two files name the same preset.
    """
    folder, presets = Path(folder), {}
    for path in sorted(folder.glob('*.yaml')):
        if path.name == DEFAULTS:
            continue
        for name, tree in read_yaml(path).items():
            if name in presets:
                raise ConfigError(f'{path}: preset {name!r} is defined twice')
            if not isinstance(tree, Mapping):
                raise ConfigError(f'{path}: preset {name!r} must be a tree of keys, got {tree!r}')
            presets[name] = tree
    return read_yaml(folder / DEFAULTS), presets


def read_yaml(path: str | Path) -> CommentedMap:
    """A YAML file whose top level is a mapping, comments kept.

    Raises:
      ConfigError: it is missing, is no YAML or has another top level.
    """
    try:
        tree = _yaml().load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path}: cannot be read: {error}') from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f'{path}: not valid YAML: {" ".join(str(error).split())[:300]}') from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f'{path}: expected keys at the top level, got {type(tree).__name__}')
    return tree


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) wherever two configs differ; None stands for a key that is not there."""
    a, b = old.flat, new.flat
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def nearest(name: str, known) -> str:
    """The known name that looks most like `name`, by the whole key or by its last part."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if not close:
        tails = {k.rsplit('.', 1)[-1]: k for k in known}
        close = [tails[t] for t in difflib.get_close_matches(name.rsplit('.', 1)[-1], list(tails), 1, 0.5)]
    return close[0] if close else ', '.join(known[:8]) + (' ...' if len(known) > 8 else '')


def expand_logdir(text: str) -> Path:
    """A logdir with {timestamp} replaced by the local time and ~ by the home folder."""
    return Path(text.replace('{timestamp}', datetime.now().strftime('%Y%m%dT%H%M%S'))).expanduser()


def cast(old: Any, new: Any, where: str) -> Any:
    """`new`, perhaps a text, as the type of `old`.

    Raises:
      ConfigError: it does not fit; names where, the expected type and the value.
    """
    if old == AUTO:
        return _scalar(new)
    if isinstance(old, (list, tuple)):
        items = _items(new)
        return [cast(old[0], item, where) for item in items] if old else [_scalar(item) for item in items]
    if isinstance(old, str):
        if isinstance(new, (list, tuple, Mapping)):
            raise ConfigError(f'{where}: expected text, got {new!r}')
        return new if isinstance(new, str) else str(new)
    value = _scalar(new)
    if isinstance(old, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(old, float):
            return float(value)
        if isinstance(old, int) and math.isfinite(value) and value == int(value):
            return int(value)
    raise ConfigError(f'{where}: expected {_type_name(old)}, got {new!r}')


def help_text(defaults: CommentedMap, presets: Mapping[str, Any]) -> str:
    """All keys with defaults and comments, and the names of the presets."""
    lines = ['Presets (--configs a b ..., applied in order): ' + ' '.join(sorted(presets)), '', 'Flags:']
    for key, value, comment in _documented(defaults):
        left = f'  --{key} {value}'
        lines.append(f'{left:<48}  {comment}'.rstrip())
    return '\n'.join(lines)


def _documented(tree: CommentedMap, prefix: str = '') -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, comment behind it) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _documented(value, f'{prefix}{key}.')
            continue
        comment = ''
        tokens = getattr(tree, 'ca', None) and tree.ca.items.get(key)
        if tokens and len(tokens) > 2 and tokens[2]:
            comment = tokens[2].value.split('\n')[0].strip('# \n')
        yield prefix + key, value, comment


def _flags(argv: list[str]) -> dict[str, list[str]]:
    """--a 1 --b=2 3 -> {'a': ['1'], 'b': ['2', '3']}; a later flag replaces an earlier one."""
    flags, current = {}, None
    for word in argv:
        if word in ('-h', '--help'):
            flags['help'] = []
        elif word.startswith('--'):
            current, equals, value = word[2:].partition('=')
            flags[current] = [value] if equals else []
        elif current is None:
            raise ConfigError(f'unexpected {word!r}: flags begin with --, as in --task pixel_catch')
        else:
            flags[current].append(word)
    return flags


def _words(values: list[str]) -> list[str]:
    return [part for value in values for part in value.split(',') if part]


def _matches(key: str, flat: Mapping[str, Any], source: str) -> list[str]:
    """The known keys that `key` names, itself or as a regular expression over whole keys."""
    if key in flat:
        return [key]
    if not re.fullmatch(r'[\w.]+', key):
        try:
            pattern = re.compile(key)
        except re.error as error:
            raise ConfigError(f'{source}: {key!r} is no key and no regular expression: {error}') from error
        if found := [k for k in flat if pattern.fullmatch(k)]:
            return found
    raise ConfigError(f'{source}: unknown key {key!r}; nearest: {nearest(key, flat)}')


def _flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    out = {}
    for key, value in tree.items():
        out |= _flatten(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return out


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree = {}
    for key, value in flat.items():
        *parents, last = key.split('.')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _leaf(key: str, value: Any) -> Any:
    """YAML scalars and lists as plain Python ones; anything else is refused."""
    if isinstance(value, (list, tuple)):
        return [_leaf(key, item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise ConfigError(f'{key}: expected text, a number, true, false or a list of these, got {value!r}')


def _scalar(value: Any) -> Any:
    """Text as the number or truth value it spells, if it spells one."""
    if not isinstance(value, str):
        return value
    if value.lower() in ('true', 'false'):
        return value.lower() == 'true'
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.strip().strip('[]').split(',') if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _type_name(value: Any) -> str:
    names = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'text', list: 'a list'}
    return names.get(type(value), type(value).__name__)


def _field(hint: Any, value: Any, where: str) -> Any:
    """`value` for a dataclass field of type `hint`."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Config):
            raise ConfigError(f'{where}: expected a block of keys, got {value!r}')
        return value.build(hint, where)
    if isinstance(value, Config):
        raise ConfigError(f'{where}: expected one value, got the keys {list(value)}')
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if int in allowed and float not in allowed and type(value) is float and value.is_integer():
        return int(value)  # YAML reads 1e6 as a float
    if type(value) in allowed or typing.Any in allowed or any(typing.get_origin(a) is type(value) for a in allowed):
        return value
    raise ConfigError(f'{where}: expected {" or ".join(getattr(a, "__name__", str(a)) for a in allowed)}, got {value!r}')


def _yaml() -> YAML:
    yaml = YAML()  # the round-trip loader keeps comments and knows no tags that run code
    yaml.default_flow_style = False
    return yaml
