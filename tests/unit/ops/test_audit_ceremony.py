"""Whether a ceremony's admissions and policy are of the keys that its transcript says were made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import read_csr, spki_of
from custody.crypto.signature import public_bytes
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Admit, MakePolicy, SplitRecovery
from custody.formats.envelope import decode_statement, encode_statement
from custody.formats.policy_text import parse_quorum
from custody.formats.transcript import MadeKey
from custody.ops.audit_ceremony import check_admissions, check_policy_made
from custody.ops.ceremony_place import check_of_table
from custody.ops.recovery import RecoveryOrder, make_recovery
from custody.rules.ceremony import Progress
from custody.rules.verdicts import Ledger
from tests.unit.crypto.vectors import VECTORS
from tests.unit.formats import ceremony_example as example
from tests.unit.people import NOW, authority, key, policy, signed_policy, signer

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


SIGNERS = ("cas", "ida")
HELD = replace(
    example.script(),
    steps=(
        *example.script().steps[:-1],
        Admit(by="cas", who=(*SIGNERS, "sec1")),
        MakePolicy(draft="draft.toml", signers=SIGNERS),
    ),
)
POLICY_MADE = signed_policy(policy(), *SIGNERS)


def of_policy(tmp_path: Path, hands: Mapping[str, str], digest: str | None = None) -> list[str]:
    """Judge a policy by who signs a transcript: by their names, whose keys these are."""
    data = encode_statement(POLICY_MADE.predicate, POLICY_MADE.envelope.signatures)
    (tmp_path / "policy-1.dsse").write_bytes(data)
    made = [
        replace(example.IDA_SIGN, person=name, spki=public_bytes(key(whose).public_key()))
        for name, whose in hands.items()
    ]
    ledger = Ledger()
    with ledger.failing("ceremony.policy"):
        progress = Progress(keys=made, policy=digest or POLICY_MADE.digest)
        check_policy_made(tmp_path, HELD, progress, ledger)
    assert ledger.verdicts
    return [verdict.reason for verdict in ledger.failed]


def signs(*names: str, **others: str) -> dict[str, str]:
    """Say that people sign by their own keys, and some by others'."""
    return {name: name for name in names} | others


def test_a_policy_signed_by_who_sits_at_the_table_holds(tmp_path: Path) -> None:
    """Its signers' keys are those of the transcript; who keeps a log is in no policy."""
    assert [] == of_policy(tmp_path, signs(*SIGNERS, "sec1", leo="leo"))


def test_strangers_cannot_hold_a_ceremony_of_a_policy_that_others_signed(tmp_path: Path) -> None:
    """A forged transcript around a real policy, whose digest people wrote down, is not sound."""
    strangers = {name: f"eve as {name}" for name in (*SIGNERS, "sec1")}
    assert ["the policy does not say that the key of cas is his"] == of_policy(tmp_path, strangers)
    # One stranger among the people of the real one is enough.
    one = signs(*SIGNERS) | {"sec1": "eve as sec1"}
    assert ["the policy does not say that the key of sec1 is his"] == of_policy(tmp_path, one)
    # Two who are in the policy, each by the other's key.
    crossed = signs("sec1", cas="ida", ida="cas")
    assert ["the policy does not say that the key of cas is his"] == of_policy(tmp_path, crossed)


def test_a_policy_that_its_signers_did_not_sign_is_refused(tmp_path: Path) -> None:
    """A listed custodian whom the script has sign, and whose signature is not there, is named."""
    held = replace(HELD, steps=(*HELD.steps[:-1], MakePolicy(draft="d.toml", signers=("cyd",))))
    data = encode_statement(POLICY_MADE.predicate, POLICY_MADE.envelope.signatures)
    (tmp_path / "policy-1.dsse").write_bytes(data)
    one = replace(example.IDA_SIGN, person="cyd", spki=public_bytes(key("cyd").public_key()))
    progress = Progress(keys=[one], policy=POLICY_MADE.digest)
    with pytest.raises(Refused, match="not signed by cyd"):
        check_policy_made(tmp_path, held, progress, Ledger())


def test_another_policy_than_was_told_is_refused(tmp_path: Path) -> None:
    """The file in the folder is the policy whose digest was read aloud."""
    assert ["the policy is another one"] == of_policy(tmp_path, signs(*SIGNERS), "00" * 32)


def test_a_policy_with_another_authority_than_was_made_is_refused(tmp_path: Path) -> None:
    """An authority's certificate that was swapped beside the draft does not take the place."""
    made = [replace(example.AUTHORITY, spki=example.IDA_SIGN.spki)]
    with pytest.raises(Refused, match="does not list the authority that was made here"):
        check_of_table(policy(), HELD, Progress(keys=made), tmp_path)
    own = [replace(example.AUTHORITY, spki=spki_of(authority()))]
    check_of_table(policy(), HELD, Progress(keys=own), tmp_path)


def test_a_policy_with_another_recovery_key_than_was_split_is_refused(tmp_path: Path) -> None:
    """A stranger's recovery key, whose record was laid beside the draft, is not signed for."""
    split = SplitRecovery(by="cas", among="2 of (cas, ida, cyd)")
    held = replace(HELD, steps=(*HELD.steps[:-1], split, HELD.steps[-1]))
    ours, theirs = (
        make_recovery(
            RecoveryOrder(
                environment="production",
                epoch=1,
                suite="P256",
                among=parse_quorum("2 of (cas, ida, cyd)"),
            ),
            signer=signer("cas"),
            token_random=None,
            now=NOW,
        )
        for _ in range(2)
    )
    (tmp_path / "recovery-1.dsse").write_bytes(ours.statement)
    for record in (None, theirs.record):
        named = None if record is None else record.predicate.in_policy(record.digest)
        with pytest.raises(Refused, match="names another recovery key than was made here"):
            check_of_table(replace(policy(), recovery=named), held, Progress(), tmp_path)
    good = ours.record.predicate.in_policy(ours.record.digest)
    check_of_table(replace(policy(), recovery=good), held, Progress(), tmp_path)
