"""The cast's tokens: those of `custody.keys.softhsm`."""

from __future__ import annotations

from custody.keys.softhsm import (
    TokenStore,
    create_store,
    find_library,
    init_token,
    write_pin_file,
)

__all__ = ["TokenStore", "create_store", "find_library", "init_token", "write_pin_file"]
