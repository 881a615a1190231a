"""The one lock around the token library: it is enough, and it is needed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token
from custody.keys.uri import Pkcs11Uri

OPERATIONS = 1000
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE)


@pytest.fixture
def workload(uri: Pkcs11Uri, token: Pkcs11Token) -> list[str]:
    """The command of the workload, on a token with a key of each use."""
    token.make(KeyRole.SIGN, "sign", ec.SECP256R1())
    token.make(KeyRole.SHARE, "share", ec.SECP256R1())
    return [sys.executable, "-m", "tests.device.threads", str(uri), str(OPERATIONS)]


def test_threads_with_the_lock(workload: list[str]) -> None:
    """Eight threads do 1,000 mixed operations each on one token without an error."""
    child = subprocess.run(
        [*workload, "locked"], capture_output=True, text=True, timeout=240, check=False
    )
    assert 0 == child.returncode, child.stderr
    assert ["8000", "0"] == child.stdout.split()[:2]


def test_threads_without_the_lock(workload: list[str]) -> None:
    """The same workload with the lock taken out ends by a signal, which shows what it is for."""
    ends = []
    # A race.  About half the tries end with a library that has tied itself up instead and answers
    # every call with an error, so twenty without a crash are one in a million.
    for _ in range(20):
        try:
            child = subprocess.run(
                [*workload, "unlocked"], capture_output=True, timeout=30, check=False
            )
            ends.append(child.returncode)
        except subprocess.TimeoutExpired:
            ends.append(0)
        if ends[-1] in CRASHES:
            return
    pytest.fail(f"no crash in twenty tries: {ends}")
