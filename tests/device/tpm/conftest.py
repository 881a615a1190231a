"""Fixtures for real TPM commands: each test has a software TPM of its own, freshly booted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.errors import Unavailable
from custody.keys.hostapi import HostTpm
from custody.lab import bootlog, swtpm
from custody.lab.swtpm import Swtpm

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed")


@pytest.fixture(scope="session")
def manufactured() -> Iterator[Swtpm]:
    """A TPM that is only ever copied: making its EK certificates takes a second."""
    if not swtpm.available():
        pytest.skip("swtpm and swtpm-tools are not installed")
    # Not pytest's own directory: a UNIX socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="custody-tpm-") as directory:
        made = Swtpm(Path(directory) / "tpm", Path(directory) / "vendor")
        try:
            made.manufacture()
        except Unavailable as error:
            pytest.fail(f"{error}: {(made.directory / 'setup.log').read_text()[-800:]}")
        yield made


@pytest.fixture
def machine(manufactured: Swtpm) -> Iterator[Swtpm]:
    """A machine that has booted: its TPM holds the registers of the lab's recorded boot."""
    with tempfile.TemporaryDirectory(prefix="custody-tpm-") as directory:
        copy = Swtpm(Path(directory) / "tpm", manufactured.vendor)
        shutil.copytree(manufactured.directory, copy.directory)
        copy.start()
        try:
            bootlog.extend(copy, bootlog.record(bootlog.BootState()))
            yield copy
        finally:
            copy.stop()


@pytest.fixture
def other_machine(manufactured: Swtpm) -> Iterator[Swtpm]:
    """Another TPM by the same vendor, with an EK of its own."""
    with tempfile.TemporaryDirectory(prefix="custody-tpm-") as directory:
        other = Swtpm(Path(directory) / "tpm", manufactured.vendor)
        other.manufacture()
        other.start()
        try:
            yield other
        finally:
            other.stop()


@pytest.fixture
def host(machine: Swtpm) -> HostTpm:
    """The machine's TPM as its host uses it."""
    from custody.keys.tpm_host import TpmHost

    return TpmHost(machine.tcti)
