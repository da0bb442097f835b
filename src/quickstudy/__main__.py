"""``python -m quickstudy`` is the command line."""

from __future__ import annotations

import sys

from quickstudy.cli import main

if __name__ == "__main__":
    sys.exit(main())
