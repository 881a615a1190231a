"""A ceremony whose people bring tokens of different kinds: one process, one device at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from custody.errors import Unavailable
from custody.lab.softhsm import create_store, find_library, write_pin_file
from custody.lab.swtpm import Swtpm
from tests.release.test_ceremonies import PIN, STEPS, Desk


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
