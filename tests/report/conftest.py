"""The fixtures of whole releases, for pages about them."""

from __future__ import annotations

from tests.release.conftest import cast, machine, manufactured

__all__ = ["cast", "machine", "manufactured"]
