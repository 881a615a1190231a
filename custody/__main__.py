"""``python -m custody`` is ``custody``."""

from __future__ import annotations

from custody.cli import main

if __name__ == "__main__":
    main()
