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

from .command import (
    DEFAULTS,
    MARK,
    configs_dir,
    expand_timestamp,
    help_text,
    parse,
    read_folder,
    with_kinds,
)
from .kinds import Kind, Value
from .tree import Config, diff

__all__ = [
    'DEFAULTS',
    'MARK',
    'Config',
    'Kind',
    'Value',
    'configs_dir',
    'diff',
    'expand_timestamp',
    'help_text',
    'parse',
    'read_folder',
    'with_kinds',
]
