"""python -m embodied.replay: the command line, see tool.py."""

import sys

from .tool import main

if __name__ == '__main__':
    sys.exit(main())
