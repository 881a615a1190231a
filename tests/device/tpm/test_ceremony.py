"""A ceremony whose people bring tokens of different kinds: one process, one device at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from custody.errors import Unavailable
from custody.keys.profiles import library_paths, profile_named
from custody.lab.softhsm import create_store, find_library, write_pin_file
from custody.lab.swtpm import Swtpm
from tests.device.tpm import test_tpm2_pkcs11 as chips
from tests.release.test_ceremonies import KILLED, PIN, STEPS, Desk
from tests.release.world import REPOSITORY


def test_a_table_of_softhsm_and_a_tpm(machine: Swtpm, tmp_path: Path) -> None:
    """A custodian's PKCS#11 token and an officer's TPM take turns; both are in the transcript."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    desk = Desk(tmp_path, create_store(tmp_path / "store"))
    desk.bring("ida", "custodian")
    desk.uris["alice"], desk.roles["alice"] = f"tpm:?tcti={machine.tcti}", "officer"
    write_pin_file(tmp_path / "alice.pin", PIN)
    desk.write(*STEPS)
    desk.hold()
    assert "sound" in desk.verify().splitlines()
    enrolled = desk.steps()[2]
    assert ["sign", "share"] == [key.use for key in enrolled.keys]
    assert "softhsm2" != enrolled.tokens[0].profile
    assert {"ida", "alice"} == {token.person for step in desk.steps() for token in step.tokens}


def test_a_tpm_that_holds_a_strangers_key_is_refused(machine: Swtpm, tmp_path: Path) -> None:
    """A key that somebody made in a TPM beforehand stops the ceremony there too."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    desk = Desk(tmp_path, create_store(tmp_path / "store"))
    desk.bring("ida", "custodian")
    desk.uris["alice"], desk.roles["alice"] = f"tpm:?tcti={machine.tcti}", "officer"
    write_pin_file(tmp_path / "alice.pin", PIN)
    uri = f"{desk.uris['alice']}&pin-source={tmp_path}/alice.pin"
    words = ("--environment", "elsewhere", "--token", uri, "--home", "other", "--out", "other-out")
    desk.run("custodian", "init", "eve", *words)
    desk.write(*STEPS)
    assert "holds what the script does not expect: private" in desk.hold(1)


@pytest.fixture
def mixed(machine: Swtpm, tmp_path: Path) -> Desk:
    """A table of two PKCS#11 libraries: SoftHSM, and tpm2-pkcs11 in front of a TPM."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    paths = library_paths(profile_named("tpm2-pkcs11"))
    library = next((path for path in paths if path.is_file()), None)
    if library is None:
        pytest.skip("tpm2-pkcs11 is not installed")
    desk = Desk(tmp_path, create_store(tmp_path / "store"))
    desk.more = {
        "TPM2_PKCS11_STORE": str(tmp_path / "tpm2"),
        "TPM2_PKCS11_TCTI": machine.tcti,
    }
    (tmp_path / "tpm2").mkdir(mode=0o700)
    made = f"from {chips.__name__} import initialise; initialise({str(library)!r})"
    subprocess.run([sys.executable, "-c", made], env=desk.environment, cwd=REPOSITORY, check=True)
    desk.bring("ida", "custodian")
    desk.uris["alice"], desk.roles["alice"] = "pkcs11:token=tpm?module-name=tpm2-pkcs11", "officer"
    write_pin_file(tmp_path / "alice.pin", chips.PINS[1])
    return desk


def test_a_table_of_two_token_libraries(mixed: Desk) -> None:
    """Two PKCS#11 libraries take turns in one process, and again in the one that goes on."""
    enrol = 'do = "enrol"; who = "alice"; suite = "RSA2048_OAEP_SHA256"'
    admit = 'do = "admit"; by = "ida"; who = ["ida", "alice"]; files = ["bob.dsse"]'
    # The custodian's token is used before the officer's and after it.
    mixed.write(STEPS[0], STEPS[1], enrol, STEPS[3], admit)
    assert "bob.dsse" in mixed.hold(4)
    assert ["softhsm2", "tpm2-pkcs11"] == [step.tokens[0].profile for step in mixed.steps()[1:3]]
    assert ["sign", "share"] == [key.use for key in mixed.steps()[2].keys]
    assert 4 == len(mixed.steps())
    mixed.bring("bob", "officer")
    uri = f"{mixed.uris.pop('bob')}&pin-source={mixed.folder}/bob.pin"
    words = ("--token", uri, "--invitation", "table/invitation.json", "--home", "bob")
    mixed.run("officer", "enroll", "bob", *words, "--out", "table/bob.dsse")
    mixed.hold()
    assert "sound" in mixed.verify().splitlines()
    (last,) = mixed.transcript.read_text().splitlines()[-1:]
    assert 2 == last.count('"keyid"')


def test_a_ceremony_dies_between_two_token_libraries(mixed: Desk) -> None:
    """Killed when the second library's key was made, it goes on, and names what was left there."""
    enrol = 'do = "enrol"; who = "alice"; suite = "RSA2048_OAEP_SHA256"'
    mixed.write(STEPS[0], enrol, STEPS[1], *STEPS[3:])
    mixed.hold(-signal.SIGKILL, KILLED, "0", "save_identity")
    mixed.hold()
    assert "sound" in mixed.verify().splitlines()
    enrolled = mixed.steps()[1]
    assert "tpm2-pkcs11" == enrolled.tokens[0].profile
    assert enrolled.found
