"""Other people's recordings into replay folders, and folders out again; see embodied.convert. Adds
the formats that torch reads.

    python -m dreamer4.convert FORMAT SOURCE DEST
"""

import sys

from embodied.convert.command import main as run
from embodied.convert.formats import LED, Format, register

NEEDS = ('tensordict',)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    hansen = 'film strips or shards, and TASK.pt, of nicklashansen'
    register('nicklashansen', Format('dreamer4.tensor_files:open_hansen', hansen, LED, NEEDS))
    register('tdmpc2', Format('dreamer4.tensor_files:open_tdmpc2', 'TD-MPC2 sets', LED, NEEDS))
    return run(argv)


if __name__ == '__main__':
    sys.exit(main())
