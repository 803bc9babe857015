"""The tree of values itself: immutable, strict at every step, written and read as YAML."""

import dataclasses
import io
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from ..errors import ConfigError, nearest
from ..files import whole
from ..yaml_tree import read_yaml, shorten
from .fit import fit, hint_name
from .kinds import SCALARS, Kind, Value

T = TypeVar('T')
NAME = re.compile(r'[A-Za-z_]\w*', re.ASCII)
PLAIN_KEY = re.compile(r'[\w.-]*', re.ASCII)


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
                arguments[name] = fit(self._tree[name], hint)
            except ValueError:
                where = f'{self._path}.{name}' if self._path else name
                raise ConfigError(
                    f'{where}: {target.__name__} expects {hint_name(hint)}, got'
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


def _assign(tree: dict, key: str, value: Value) -> None:
    *blocks, last = key.split('.')
    for block in blocks:
        tree = tree[block]
    tree[last] = value


def _value(value: Any, where: str) -> Value:
    if isinstance(value, (list, tuple)) and all(isinstance(part, SCALARS) for part in value):
        return tuple(value)
    if isinstance(value, SCALARS) and value == value:
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


def _at(path: str) -> str:
    return f" at '{path}'" if path else ''
