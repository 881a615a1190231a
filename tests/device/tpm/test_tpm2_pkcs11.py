"""A TPM behind tpm2-pkcs11: a token that can do little, measured and refused as what it is.

The library reads its environment once per process, so everything runs in children.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from ctypes import byref, c_ulong
from dataclasses import dataclass
from pathlib import Path

import pytest

from custody.keys.api import KeyRole
from custody.keys.profiles import library_paths, profile_named
from custody.keys.uri import Pkcs11Uri
from custody.lab.softhsm import write_pin_file
from custody.lab.swtpm import Swtpm

PINS = (b"31415926", b"271828")
_PROGRAM = "from custody.cli import main; main()"
_MAKE = """
import sys
from cryptography.hazmat.primitives.asymmetric import ec
from custody.errors import Unavailable
from custody.keys.api import KeyRole, parse_key_uri
from custody.keys.pkcs11 import open_token
with open_token(parse_key_uri(sys.argv[1])) as token:
    try:
        token.make(KeyRole(sys.argv[2]), "alice", ec.SECP256R1())
    except Unavailable:
        print("unavailable")
"""


def initialise(library: str) -> None:
    """Make one token labelled ``tpm`` in the store that the environment names."""
    module, slot, count, session = ctypes.CDLL(library), c_ulong(), c_ulong(1), c_ulong()
    so, user = PINS
    flags = c_ulong(6)  # CKF_SERIAL_SESSION | CKF_RW_SESSION
    answers = [
        module.C_Initialize(None),
        module.C_GetSlotList(1, byref(slot), byref(count)),
        module.C_InitToken(slot, so, c_ulong(len(so)), b"tpm".ljust(32)),
        module.C_OpenSession(slot, flags, None, None, byref(session)),
        module.C_Login(session, c_ulong(0), so, c_ulong(len(so))),
        module.C_InitPIN(session, user, c_ulong(len(user))),
        module.C_Logout(session),
        module.C_Finalize(None),
    ]
    if any(answers):
        sys.exit(f"tpm2-pkcs11 answered {answers}")


@dataclass(frozen=True)
class Chip:
    """A token of tpm2-pkcs11 and the processes that use it."""

    uri: Pkcs11Uri
    environment: dict[str, str]

    def python(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python that sees the token."""
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def chip(machine: Swtpm, tmp_path: Path) -> Chip:
    """A fresh token, in a software TPM."""
    found = [path for path in library_paths(profile_named("tpm2-pkcs11")) if path.is_file()]
    if not found:
        pytest.skip("tpm2-pkcs11 is not installed")
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    pin = write_pin_file(tmp_path / "pin", PINS[1])
    made = Chip(
        Pkcs11Uri(token="tpm", module_name="tpm2-pkcs11", pin_source=str(pin)),
        {
            "TPM2_PKCS11_STORE": str(store),
            "TPM2_PKCS11_TCTI": machine.tcti,
            "TPM2_PKCS11_LOG_LEVEL": "0",
            "TSS2_LOG": "all+NONE",
        },
    )
    code = f"from {__name__} import initialise; initialise({str(found[0])!r})"
    done = made.python(code)
    assert 0 == done.returncode, done.stderr
    return made


def test_it_is_measured_for_what_it_is(chip: Chip) -> None:
    """It agrees and wraps nothing, so it is no officer's; twice the same report, as its profile."""
    first, second = (
        chip.python(_PROGRAM, "token", "probe", str(chip.uri), "--json") for _ in range(2)
    )
    assert 0 == first.returncode, first.stderr
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    if "ECDH1_DERIVE" in report["mechanisms"]:
        pytest.skip("a newer tpm2-pkcs11 than the one that was probed")
    verdicts = {fit["duty"]: fit["verdict"] for fit in report["fitness"]}
    assert {"officer", "publisher", "kek"} == {
        duty for duty, verdict in verdicts.items() if verdict == "cannot"
    }
    assert ("tpm2-pkcs11", []) == (report["profile"], report["differences"])
    answers = {item["id"]: item["answer"] for item in report["measured"]}
    assert {"no"} == {answers[id_] for id_ in ("ecdh.raw", "kw", "kwp", "aes.gcm")}
    assert "untested" == answers["ecdsa.digest"]


@pytest.mark.parametrize("role", [role.value for role in KeyRole])
def test_no_key_of_ours_is_left_in_it(chip: Chip, machine: Swtpm, role: str) -> None:
    """A role's template is turned down, and nothing of the key that was tried stays behind."""
    done = chip.python(_MAKE, str(chip.uri), role)
    assert (0, "unavailable\n") == (done.returncode, done.stdout), done.stderr
    # The library leaves what it gave up in the TPM's memory, of which there is little.
    machine.reboot()
    said = chip.python(_PROGRAM, "token", "audit", str(chip.uri))
    assert (0, "the token is empty\n") == (said.returncode, said.stdout)


def test_it_is_listed(chip: Chip) -> None:
    """The token is seen without a PIN."""
    said = chip.python(_PROGRAM, "token", "list", "pkcs11:?module-name=tpm2-pkcs11", "--json")
    (seen,) = json.loads(said.stdout)["tokens"]
    assert ("tpm", "right", False) == (seen["label"], seen["pin"], seen["pinpad"])
