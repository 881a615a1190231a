"""``custody``, which says at its end on stderr what it has imported: ``python -m`` this module."""

from __future__ import annotations

import sys

from custody.cli import main

LEAD = "loaded: "

if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stderr.write(LEAD + " ".join(sorted(sys.modules)) + "\n")
