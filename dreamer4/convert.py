"""Other people's recordings into replay folders, and folders out again; see embodied.convert. Adds
the formats that torch reads, and checkpoints in shards (shards.py) that are to be in one piece.

    python -m dreamer4.convert FORMAT SOURCE DEST
    python -m dreamer4.convert checkpoint LOGDIR DEST
"""

import shutil
import sys
from pathlib import Path

from embodied.base import Stored
from embodied.checkpoint import Checkpoint, find_save
from embodied.convert.command import main as run
from embodied.convert.formats import EXPORTS, LED, Format, register
from embodied.errors import ConfigError
from embodied.save import read

from . import runs

NEEDS = ('tensordict',)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    hansen = 'film strips or shards, and TASK.pt, of nicklashansen'
    register('nicklashansen', Format('dreamer4.tensor_files:open_hansen', hansen, LED, NEEDS))
    register('tdmpc2', Format('dreamer4.tensor_files:open_tdmpc2', 'TD-MPC2 sets', LED, NEEDS))
    EXPORTS['checkpoint'] = 'dreamer4.convert:to_plain'
    return run(argv)


def to_plain(source: Path, dest: Path, *_) -> str:
    """Write the newest save of a run as a run of one process would have it, into a folder of its
    own with the run's config.yaml and spaces. Returns what was done as a sentence.

    Args:
        source: logdir, ckpt folder or save. dest: a folder that is new, or empty.

    Raises:
        CheckpointError: there is no save, or a damaged one. ConfigError: dest holds something.
    """
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ConfigError(f'{dest}: expected a new or an empty folder for the checkpoint')
    save, run = find_save(source), runs.folder_of(source)
    from . import shards  # torch takes seconds

    trees, meta = read(save)
    plain = {
        k: shards.whole(tree) if isinstance(tree, Stored) else tree for k, tree in trees.items()
    }
    made = Checkpoint(dest / 'ckpt', 1).save(plain, meta)
    if (run / runs.FILENAME).is_file():
        shutil.copy(run / runs.FILENAME, dest / runs.FILENAME)
    if (run / runs.SPACES).is_dir():
        shutil.copytree(run / runs.SPACES, dest / runs.SPACES)
    return f'{save} is {made} now, in one piece.'


if __name__ == '__main__':
    sys.exit(main())
