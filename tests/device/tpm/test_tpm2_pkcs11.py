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
from dataclasses import dataclass, replace
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
_KEYS = """
import os, sys
from cryptography.hazmat.primitives.asymmetric import ec
from custody.crypto import keyslots
from custody.crypto.oaepslots import parameters_of
from custody.crypto.signature import public_bytes, sign, verify
from custody.errors import CustodyError
from custody.keys.api import KeyRole, parse_key_uri
from custody.keys.pkcs11 import open_token
INFO, SECRET = bytes(32), bytes(range(64))
token = open_token(parse_key_uri(sys.argv[1]))
suite = (sys.argv[2:] or ["RSA2048_OAEP_SHA256"])[0]
made = token.decrypting().make("share", parameters_of(suite))
spki = public_bytes(made.public_key())
sealed = keyslots.seal(suite, spki, None, SECRET, info=INFO)
"""
_ENROLL = """
import sys
from cryptography.hazmat.primitives.asymmetric import ec
from custody.crypto.oaepslots import parameters_of
from custody.crypto.signature import sign, verify
from custody.keys.api import KeyRole, parse_key_uri
from custody.keys.pkcs11 import open_token
with open_token(parse_key_uri(sys.argv[1])) as token, token.session():
    signer = token.make(KeyRole.SIGN, "sign", ec.SECP256R1())
    opener = token.decrypting().make("share", parameters_of(sys.argv[2]))
    verify(signer.info.spki, b"x", sign(signer, b"x"))
    print(signer.info.spki.hex(), opener.info.spki.hex())
"""
_APPROVE = """
import sys
from custody.crypto import keyslots
from custody.crypto.signature import sign, verify
from custody.encoding import key_id
from custody.keys.api import KeyRole, parse_key_uri
from custody.keys.pkcs11 import open_token
suite, signing, share = sys.argv[2], bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
sealed = keyslots.seal(suite, share, None, bytes(64), info=bytes(32))
with open_token(parse_key_uri(sys.argv[1])) as token, token.session():
    signer = token.find(KeyRole.SIGN, key_id=key_id(signing))
    opener = token.decrypting().find(key_id(share))
    assert bytes(64) == keyslots.open(suite, opener, None, sealed, info=bytes(32))
    for _ in range(2):
        verify(signing, b"x", sign(signer, b"x"))
"""
_MISUSE = (
    _KEYS
    + """
import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass
def tried(act):
    with token._connection.login() as session:
        (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        try:
            print("done", act(key))
        except pkcs11.PKCS11Error:
            print("refused")
tried(lambda key: key.sign(b"x" * 32, mechanism=Mechanism.RSA_PKCS))
tried(lambda key: key.decrypt(bytes(255) + b"1", mechanism=Mechanism.RSA_X_509))
tried(lambda key: key.decrypt(bytes(255) + b"1", mechanism=Mechanism.RSA_PKCS))
"""
)
_BAD_SLOT = (
    _KEYS
    + """
bad = bytearray(sealed)
bad[int(sys.argv[3])] ^= 1
try:
    keyslots.open(suite, made, None, bytes(bad), info=INFO)
    print("opened")
except CustodyError as error:
    print(type(error).__name__, getattr(error, "check", ""))
"""
)


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
    """It agrees and wraps nothing, and is an officer's by RSA; twice the same, as its profile."""
    first, second = (
        chip.python(_PROGRAM, "token", "probe", str(chip.uri), "--json") for _ in range(2)
    )
    assert 0 == first.returncode, first.stderr
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    if "ECDH1_DERIVE" in report["mechanisms"]:
        pytest.skip("a newer tpm2-pkcs11 than the one that was probed")
    verdicts = {fit["duty"]: fit["verdict"] for fit in report["fitness"]}
    wanted = {"officer": "can", "publisher": "can", "kek": "cannot"}
    assert wanted == {duty: verdicts[duty] for duty in wanted}
    assert ("tpm2-pkcs11", []) == (report["profile"], report["differences"])
    answers = {item["id"]: item["answer"] for item in report["measured"]}
    assert {"no"} == {answers[id_] for id_ in ("ecdh.raw", "kw", "kwp", "aes.gcm")}
    assert "untested" == answers["ecdsa.digest"]
    assert {"yes"} == {answer for id_, answer in answers.items() if id_.startswith("kept.")}
    said = chip.python(_PROGRAM, "token", "audit", str(chip.uri))
    assert (0, "the token is empty\n") == (said.returncode, said.stdout)


def test_its_warnings_are_turned_off(chip: Chip) -> None:
    """Nobody has to set its variables: of what it prints at a probe, errors alone are left."""
    quiet = {"TPM2_PKCS11_LOG_LEVEL", "TSS2_LOG"}
    kept = {name: value for name, value in chip.environment.items() if name not in quiet}
    said = replace(chip, environment=kept).python(_PROGRAM, "token", "probe", str(chip.uri))
    assert 0 == said.returncode, said.stderr
    first, *more = said.stderr.splitlines()
    assert first.startswith("making throw-away keys")
    assert all(line.startswith("ERROR: ") for line in more), said.stderr


@pytest.mark.parametrize("role", [role for role in KeyRole if role.derives])
def test_no_key_that_agrees_is_made_in_it(chip: Chip, role: KeyRole) -> None:
    """A role that agrees is told so, and nothing of the key that was tried stays behind."""
    done = chip.python(_MAKE, str(chip.uri), role.value)
    assert (0, "unavailable\n") == (done.returncode, done.stdout), done.stderr
    said = chip.python(_PROGRAM, "token", "audit", str(chip.uri))
    assert (0, "the token is empty\n") == (said.returncode, said.stdout)


@pytest.mark.parametrize("suite", ["RSA3072_OAEP_SHA256", "RSA2048_OAEP_SHA1"])
def test_it_signs_and_opens_slots(chip: Chip, suite: str) -> None:
    """A signing key on P-256 and an RSA share key are made in one session, and used in another."""
    made = chip.python(_ENROLL, str(chip.uri), suite)
    assert 0 == made.returncode, made.stderr
    used = chip.python(_APPROVE, str(chip.uri), suite, *made.stdout.split())
    assert 0 == used.returncode, used.stderr


def test_what_it_makes_otherwise_is_named(chip: Chip) -> None:
    """Every key says SIGN and DECRYPT here; the audit names it, and what holds."""
    chip.python(_ENROLL, str(chip.uri), "RSA2048_OAEP_SHA256")
    said = chip.python(_PROGRAM, "token", "audit", str(chip.uri), "--json")
    assert 0 == said.returncode, said.stdout + said.stderr
    report = json.loads(said.stdout)
    assert "tpm2-pkcs11" == report["profile"]
    private = {item["role"]: item for item in report["objects"] if item["kind"] == "private"}
    assert {"oaep": ["RSA_PKCS_OAEP"], "sign": ["ECDSA"]} == {
        role: item["mechanisms"] for role, item in private.items()
    }
    assert {("sign-and-decrypt", False)} == {
        (finding["name"], finding["weak"]) for finding in report["findings"]
    }


def test_a_share_key_neither_signs_nor_decrypts_otherwise(chip: Chip) -> None:
    """Though the key says SIGN, the library holds to ALLOWED_MECHANISMS."""
    done = chip.python(_MISUSE, str(chip.uri))
    assert (0, "refused\nrefused\nrefused\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize("suite", ["RSA2048_OAEP_SHA256", "RSA2048_OAEP_SHA1"])
def test_a_bad_slot_is_refused_or_the_token_is_out(chip: Chip, suite: str) -> None:
    """A changed slot opens nothing: the software TPM itself may fail over it, and then says so."""
    done = chip.python(_BAD_SLOT, str(chip.uri), suite, "200")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip() in ("Refused slot.open", "Unavailable"), done.stdout


def test_a_bad_tag_is_refused_after_the_key_was_proven(chip: Chip) -> None:
    """The padding is good and the tag is not: the refusal of a bad padding, word for word."""
    done = chip.python(_BAD_SLOT, str(chip.uri), "RSA2048_OAEP_SHA256", "-1")
    assert (0, "Refused slot.open") == (done.returncode, done.stdout.strip()), done.stderr


def test_it_is_listed(chip: Chip) -> None:
    """The token is seen without a PIN."""
    said = chip.python(_PROGRAM, "token", "list", "pkcs11:?module-name=tpm2-pkcs11", "--json")
    (seen,) = json.loads(said.stdout)["tokens"]
    assert ("tpm", "right", False) == (seen["label"], seen["pin"], seen["pinpad"])
    assert "tpm2-pkcs11" == seen["profile"]


def test_a_tpm_s_own_words_are_not_the_user_s(chip: Chip) -> None:
    """What the TPM's libraries print is turned off, unless the user says otherwise."""
    unset = {name: value for name, value in chip.environment.items() if name != "TSS2_LOG"}
    for environment, heard in ((unset, False), (unset | {"TSS2_LOG": "all+debug"}, True)):
        said = Chip(chip.uri, environment).python(
            _PROGRAM, "token", "list", "pkcs11:?module-name=tpm2-pkcs11"
        )
        assert heard == ("debug:" in said.stderr), said.stderr[:400]


def test_looking_for_tokens_begins_none(chip: Chip, tmp_path: Path) -> None:
    """Where the library keeps nothing, a list of tokens makes no store of it, and says nothing."""
    clean = {name: value for name, value in os.environ.items() if "TPM2" not in name}
    tcti, empty = chip.environment["TPM2_PKCS11_TCTI"], tmp_path / "empty"
    empty.mkdir()
    for words in (["token", "list"], ["token", "list", "--json"]):
        said = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words],
            env=clean | {"HOME": str(tmp_path), "TPM2_PKCS11_TCTI": tcti},
            cwd=empty,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "ERROR" not in said.stderr
        assert [] == list(empty.iterdir())
