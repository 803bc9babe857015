"""meta.json of a replay folder: what a row is, the spaces of the env, and facts about the run, so
that an agent can be built from a replay folder alone.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ReplaySchemaError
from ..files import open_regular
from ..space_json import DTYPES, decode_space, encode_space, shape_of
from .schema import Schema

VERSION = 1
FILENAME = 'meta.json'


def encode(
    schema: Schema, obs_space: Mapping | None, act_space: Mapping | None, meta: Mapping
) -> bytes:
    """The text of meta.json."""
    content = {
        'version': VERSION,
        'keys': {
            key: {'dtype': dtype.name, 'shape': list(shape)} for key, dtype, shape in schema.specs
        },
        'obs_space': obs_space and {key: encode_space(space) for key, space in obs_space.items()},
        'act_space': act_space and {key: encode_space(space) for key, space in act_space.items()},
        'meta': dict(meta),
    }
    return (json.dumps(content, indent=1) + '\n').encode()


def read(directory: os.PathLike) -> tuple[Schema, dict | None, dict | None, dict] | None:
    """Schema, obs_space, act_space and meta of a replay folder; None where it has no meta.json, as
    DreamerV3's have none.

    Raises:
      ReplaySchemaError: meta.json is damaged or of another version.
    """
    path = Path(directory) / FILENAME
    try:
        with open_regular(path) as file:
            content = json.loads(file.read(1 << 24))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ReplaySchemaError(f'{path}: cannot be read: {error}.') from error
    try:
        if content['version'] != VERSION:
            raise ReplaySchemaError(
                f'{path}: expected version {VERSION}, found {content["version"]!r}.'
            )
        keys = {
            key: (DTYPES[spec['dtype']], shape_of(spec['shape']))
            for key, spec in content['keys'].items()
        }
        obs_space, act_space = (
            content[name] and {key: decode_space(spec) for key, spec in content[name].items()}
            for name in ('obs_space', 'act_space')
        )
        return Schema(keys, str(path)), obs_space, act_space, dict(content['meta'])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        AssertionError,
    ) as error:
        raise ReplaySchemaError(f'{path}: is damaged: {type(error).__name__}: {error}.') from error
