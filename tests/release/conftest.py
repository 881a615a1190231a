"""One manufactured TPM for all scenarios; every scenario boots a copy of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from custody.crypto.quorum import Node
from custody.keys.uri import TpmUri
from custody.lab import swtpm
from tests.release.cast import TREE, Cast


@pytest.fixture(scope="session")
def manufactured() -> Iterator[tuple[Path, Path]]:
    """Make one TPM and its vendor; skipped where there is no swtpm."""
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        machine = swtpm.Swtpm(Path(folder) / "tpm", Path(folder) / "vendor")
        machine.manufacture()
        yield machine.directory, machine.vendor


def ready(folder: Path, machine: swtpm.Swtpm, tree: Node = TREE, **tokens: int) -> Cast:
    """Give a cast whose host has booted and is enrolled; ``tokens`` says who has several."""
    from custody.keys.tpm import open_host

    cast = Cast(folder, machine, open_host(TpmUri(tcti=machine.tcti)), tree, tokens=tokens)
    cast.boot()
    cast.enrol()
    return cast


@contextmanager
def running(manufactured: tuple[Path, Path]) -> Iterator[swtpm.Swtpm]:
    """Run a copy of the manufactured TPM for the block."""
    original, vendor = manufactured
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        shutil.copytree(original, Path(folder) / "tpm")
        started = swtpm.Swtpm(Path(folder) / "tpm", vendor)
        started.start()
        try:
            yield started
        finally:
            started.stop()


@contextmanager
def fresh(vendor: Path) -> Iterator[swtpm.Swtpm]:
    """Manufacture another machine of the same vendor and run it for the block."""
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        made = swtpm.Swtpm(Path(folder) / "tpm", vendor)
        made.manufacture()
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def machine(manufactured: tuple[Path, Path]) -> Iterator[swtpm.Swtpm]:
    """Start a copy of the manufactured TPM."""
    with running(manufactured) as started:
        yield started


@pytest.fixture
def cast(machine: swtpm.Swtpm, tmp_path: Path) -> Cast:
    """Give a cast whose host has booted and is enrolled."""
    return ready(tmp_path, machine)
