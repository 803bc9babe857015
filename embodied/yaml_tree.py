"""Reads a YAML file as a tree of plain values together with the comment of each key. Bounded: no
tags, no objects, a limit on size, depth and number of values, so that a crafted file costs little
and can do nothing.
"""

import copy
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_INT = 2**63
INTEGER = re.compile(r'[-+]?[0-9]{1,20}')
COMMENT = re.compile(r':?\s+#\s*(.*\S)')


@dataclass
class YamlTree:
    """What a file holds.

    Attributes:
      values: nested dict; leaves are bool, int, float, str, None or lists of values. A number that
        is whole and written without a dot is an int, 1e6 too; 1.0 is a float.
      comments: dotted key -> comment behind the key, continued on aligned lines below, or else the
          lines directly above it.
    """

    values: dict[str, Any]
    comments: dict[str, str]


def read_yaml(path: Path) -> YamlTree:
    """The tree in a file; an empty file is an empty tree.

    Raises:
      ConfigError: the file cannot be read, is no YAML, is no mapping, or exceeds the limits; names
          file and line.
    """
    try:
        data = Path(path).read_bytes()[: MAX_BYTES + 1]
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'Cannot read the config file {path}: {error}') from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f'The config file {path} is larger than {MAX_BYTES} bytes.')
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlTree:
    """The tree in a text; `name` says in errors where it came from."""
    return copy.deepcopy(_parsed(text, name))


@functools.lru_cache(maxsize=16)  # a command reads the same files more than once, at .2 s each
def _parsed(text: str, name: str) -> YamlTree:
    try:
        root = YAML(typ='safe', pure=True).compose(text)
    except YAMLError as error:
        raise ConfigError(f'{name} is not valid YAML: {_one_line(error)}') from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:  # what the parser itself stumbles into on malformed input
        raise ConfigError(
            f'{name} is not valid YAML: {type(error).__name__}: {_one_line(error)}'
        ) from error
    if root is None:
        return YamlTree({}, {})
    if not isinstance(root, MappingNode):
        raise ConfigError(f'{name} must hold keys and values, got {_line(root)} a {root.id}.')
    reader = _Reader(name, text.splitlines())
    return YamlTree(reader.mapping(root, (), 0), reader.comments)


class _Reader:
    """Turns composed nodes into plain values, collecting comments on the way."""

    def __init__(self, name: str, lines: list[str]):
        self.name, self.lines = name, lines
        self.comments = {}
        self.count = 0

    def value(self, node: Node, path: tuple[str, ...], depth: int) -> Any:
        self.count += 1
        # aliases can make a small file a huge or endless tree
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise ConfigError(
                f'{self.name}, {_line(node)}: more than {MAX_VALUES} values or {MAX_DEPTH} levels'
                ' are not read as config.'
            )
        if isinstance(node, MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            return [self.value(child, path, depth + 1) for child in node.value]
        return self.scalar(node)

    def mapping(self, node: MappingNode, path: tuple[str, ...], depth: int) -> dict[str, Any]:
        result = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode):
                raise ConfigError(
                    f'{self.name}, {_line(key)}: a key must be a word, got a {key.id}.'
                )
            if key.value in result:
                raise ConfigError(
                    f'{self.name}, {_line(key)}: the key {key.value!r} stands twice in one block.'
                )
            where = (*path, key.value)
            result[key.value] = self.value(child, where, depth + 1)
            if comment := self.comment(key, child):
                self.comments['.'.join(where)] = comment
        return result

    def scalar(self, node: ScalarNode) -> Any:
        tag = str(node.tag).rpartition(':')[2]
        try:
            match tag:
                case 'null':
                    return None
                case 'bool':
                    return read_bool(node.value)
                case 'int' | 'float':
                    return read_number(node.value)
                case 'str' | 'timestamp' | 'value' | 'merge':
                    return node.value
        except ValueError as error:
            raise ConfigError(f'{self.name}, {_line(node)}: {error}') from error
        raise ConfigError(
            f'{self.name}, {_line(node)}: the tag {str(node.tag)!r} is not allowed in a config.'
        )

    def comment(self, key: ScalarNode, child: Node) -> str:
        mark = (
            key.end_mark
            if isinstance(child, (MappingNode, SequenceNode)) and not child.flow_style
            else child.end_mark
        )
        line = self.lines[mark.line] if mark.line < len(self.lines) else ''
        if match := COMMENT.fullmatch(line, mark.column):
            column = line.index('#', mark.column)
            below = _comment_lines(self.lines[mark.line + 1 :], column)
            return ' '.join([match[1], *below])
        first, column = key.start_mark.line, key.start_mark.column
        if self.lines[first][:column].strip():
            return ''  # inside braces, behind other keys
        return ' '.join(reversed(_comment_lines(self.lines[:first][::-1], column)))


def read_bool(text: str) -> bool:
    """true or false, in any case; anything else is a ValueError."""
    if text.lower() not in ('true', 'false'):
        raise ValueError(f'{shorten(text)} is neither true nor false.')
    return text.lower() == 'true'


def read_number(text: str) -> int | float:
    """An int where the text is whole and has no dot (also 1e6), else a float; anything else, and
    not-a-number, is a ValueError.
    """
    text = text.strip().lower().replace('.inf', 'inf')
    if INTEGER.fullmatch(text):
        return _bounded(int(text))
    try:
        number = float(text)
    except ValueError:
        number = float('nan')
    if number != number:
        raise ValueError(f'{shorten(text)} is not a number.')
    return _bounded(int(number)) if '.' not in text and number.is_integer() else number


def _bounded(number: int) -> int:
    if not -MAX_INT <= number < MAX_INT:
        raise ValueError(f'{shorten(str(number))} does not fit into 64 bits.')
    return number


def shorten(value: Any, limit: int = 80) -> str:
    """repr(value), on one line and cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + '...'


def _comment_lines(lines: list[str], column: int) -> list[str]:
    """The comments that a run of lines begins with, as long as each is a comment at `column`."""
    comments = []
    for line in lines:
        if line[:column].strip() or not line[column:].startswith('#'):
            break
        comments.append(line[column:].lstrip('#').strip())
    return comments


def _line(node: Node) -> str:
    return f'line {node.start_mark.line + 1}'


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]
