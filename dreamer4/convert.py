"""Other people's recordings into replay folders, and folders out again; see embodied.convert.

python -m dreamer4.convert FORMAT SOURCE DEST
"""

import sys

from embodied.convert.command import main

if __name__ == '__main__':
    sys.exit(main())
