"""Whether admissions in a ceremony's folder are of the keys that its transcript says were made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import read_csr
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement
from custody.formats.transcript import MadeKey
from custody.ops.audit_ceremony import check_admissions
from custody.rules.ceremony import Progress
from custody.rules.verdicts import Ledger
from tests.unit.crypto.vectors import VECTORS
from tests.unit.formats import ceremony_example as example

FILE = VECTORS / "admission" / "bob.dsse"
SAID = decode_statement(Admission, FILE.read_bytes()).predicate


def keys() -> list[MadeKey]:
    """The keys of Bob's admission, as a transcript lists them."""
    shares = [share.spki for share in SAID.shares]
    one = replace(example.IDA_SIGN, person=SAID.principal, spki=read_csr(SAID.csr).spki)
    return [one, *(replace(one, use="share", spki=spki) for spki in shares)]


def judge(folder: Path, made: list[MadeKey]) -> list[str]:
    """Return what fails."""
    ledger = Ledger()
    check_admissions(folder, Progress(keys=made), ledger)
    assert ledger.verdicts
    return [verdict.reason for verdict in ledger.failed]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with Bob's admission."""
    shutil.copy(FILE, tmp_path / f"{SAID.principal}.admission.dsse")
    return tmp_path


def test_an_admission_of_the_keys_that_were_made_holds(folder: Path) -> None:
    """All keys of an admission are in the transcript, under the sender's name."""
    assert [] == judge(folder, keys())


def test_an_admission_of_other_keys_is_refused(folder: Path) -> None:
    """A share key that nobody saw made at the table fails, and so does another signing key."""
    for made in (keys()[:1], [replace(keys()[0], spki=example.IDA_SIGN.spki), *keys()[1:]]):
        assert ["offers other keys" in reason for reason in judge(folder, made)] == [True]


def test_an_admission_of_somebody_else_is_refused(folder: Path) -> None:
    """A good admission in another person's place fails; so does none."""
    (folder / "eve.admission.dsse").write_bytes(FILE.read_bytes())
    as_eve = [replace(key, person="eve") for key in keys()]
    assert ["offers other keys" in reason for reason in judge(folder, as_eve)] == [True]
    nobody = [replace(key, person="nobody") for key in keys()]
    assert ["the admission of nobody is not here"] == judge(folder, nobody)
