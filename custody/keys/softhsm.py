"""SoftHSM token stores for laptops and drills: one directory each, filled in a child process.

SoftHSM reads SOFTHSM2_CONF when it is initialised, once per process, so a process sees one store:
`TokenStore.environment` goes into the environment of the actor's process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from custody.errors import Malformed, Unavailable
from custody.keys.profiles import data_directory, library_paths, profile_named
from custody.keys.uri import Pkcs11Uri

_CONFIG = "softhsm2.conf"
_INIT = Path(__file__).with_name("softhsm_init.py")


@dataclass(frozen=True, slots=True)
class TokenStore:
    """One actor's directory of tokens and its configuration file."""

    directory: Path

    @property
    def config(self) -> Path:
        """The file SOFTHSM2_CONF names."""
        return self.directory / _CONFIG

    @property
    def environment(self) -> Mapping[str, str]:
        """What the actor's process needs in its environment.  Holds no secret."""
        return {"SOFTHSM2_CONF": str(self.config)}


def create_store(directory: Path) -> TokenStore:
    """Make a token store readable by this user alone; an existing one is left as it is."""
    place = directory.absolute()
    if any(char in str(place) for char in "#\n=") or str(place) != str(place).strip():
        raise Malformed("SoftHSM's configuration cannot name this directory", where=str(place))
    tokens = place / "tokens"
    for path in (place, tokens):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = TokenStore(place)
    if not store.config.exists():
        template = (data_directory("softhsm") / "softhsm2.conf.in").read_text()
        store.config.write_text(template.replace("@TOKENS@", str(tokens)))
    return store


def find_library() -> Path:
    """Return where SoftHSM's library lies on this machine."""
    for path in library_paths(profile_named("softhsm2")):
        if path.is_file():
            return path
    raise Unavailable("SoftHSM is not installed", hint="apt-get install softhsm2")


def init_token(store: TokenStore, label: str, *, so_pin: bytes, user_pin: bytes) -> Pkcs11Uri:
    """Initialise a new token in ``store`` with both PINs; return its URI, by serial number.

    The PINs (4 to 255 bytes) go through a pipe: softhsm2-util would take them on its command line.
    """
    if not 1 <= len(label.encode()) <= 32:
        raise Malformed("a token label has 1 to 32 bytes")
    if any(b"\n" in pin or not 4 <= len(pin) <= 255 for pin in (so_pin, user_pin)):
        raise Malformed("a PIN has 4 to 255 bytes and no line break")
    child = subprocess.run(
        [sys.executable, "-I", str(_INIT), str(find_library()), label],
        input=so_pin + b"\n" + user_pin + b"\n",
        capture_output=True,
        env=os.environ | store.environment,
        timeout=60,
        check=False,
    )
    if child.returncode != 0:
        words = child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason"]
        raise Unavailable(f"SoftHSM did not make a token ({words[0]})", where=str(store.directory))
    serial = child.stdout.decode("ascii").strip()
    return Pkcs11Uri(token=label, serial=serial, module_name="softhsm2")


def write_pin_file(path: Path, pin: bytes) -> Path:
    """Write a PIN file that only this user can read, for ``pin-source``; it must not exist."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pin + b"\n")
    return path
