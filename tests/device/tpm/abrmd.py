"""A user-space resource manager before a software TPM, on a message bus of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from custody.lab.swtpm import Swtpm

_NAME = "com.intel.tss2.Tabrmd.Custody"
_LIBRARY = "libtss2-tcti-tabrmd.so.0"
_READY_SECONDS = 10


def missing() -> str:
    """Say what is not installed here, or nothing."""
    for program in ("tpm2-abrmd", "dbus-daemon"):
        if shutil.which(program) is None:
            return program
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return _LIBRARY
    return ""


@contextmanager
def resource_manager(machine: Swtpm, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run tpm2-abrmd before the machine's TPM; give the TCTI that leads through it."""
    daemon = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    with running(daemon, stdout=subprocess.PIPE) as bus:
        assert bus.stdout is not None
        patch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.stdout.readline().strip())
        command = ["tpm2-abrmd", "--session", f"--dbus-name={_NAME}", f"--tcti={machine.tcti}"]
        if os.geteuid() == 0:
            command.append("--allow-root")
        with running(command, stdout=subprocess.DEVNULL):
            _wait_for_name()
            yield f"tabrmd:bus_name={_NAME},bus_type=session"


@contextmanager
def running(command: list[str], *, stdout: int) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the block."""
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True) as started:
        try:
            yield started
        finally:
            started.terminate()


def _wait_for_name() -> None:
    ask = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]
    ask += ["org.freedesktop.DBus.GetNameOwner", f"string:{_NAME}"]
    end = time.monotonic() + _READY_SECONDS
    while subprocess.run(ask, capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            pytest.fail("tpm2-abrmd does not start")
        time.sleep(0.05)
