"""``python -m ifujax`` is the command ``ifujax``."""

import sys

from ifujax.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
