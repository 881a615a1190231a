"""Whether a ceremony's folder is one, whole, and its policy of the keys that were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import spki_of
from custody.crypto.signature import public_bytes
from custody.errors import Refused, Unavailable
from custody.formats.ceremony import Admit, MakePolicy, SplitRecovery
from custody.formats.envelope import encode_statement
from custody.formats.policy_text import parse_quorum
from custody.formats.transcript import encode_transcript
from custody.ops.audit_ceremony import check_policy_made, judge_ceremony
from custody.ops.ceremony_place import check_of_table
from custody.ops.recovery import RecoveryOrder, make_recovery
from custody.rules.ceremony import Progress
from custody.rules.verdicts import Ledger
from tests.unit.formats import ceremony_example as example
from tests.unit.people import NOW, authority, key, policy, signed_policy, signer

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


def _folder(tmp_path: Path) -> Path:
    """The example's folder, with files of the digests that its records have."""
    (tmp_path / "ceremony.toml").write_bytes(example.SCRIPT)
    (tmp_path / "transcript.jsonl").write_bytes(encode_transcript(example.lines()))
    return tmp_path


def failures(folder: Path) -> dict[str, str]:
    """Judge a folder, and return what fails."""
    judged = judge_ceremony(folder, pin=None)
    assert not judged.sound
    return {v.check: v.reason for v in judged.verdicts if v.outcome == "fail"}


@pytest.mark.parametrize("kept", [(), ("ceremony.toml",), ("transcript.jsonl",)])
def test_a_folder_that_is_no_ceremonys_is_told_what_one_holds(
    tmp_path: Path, kept: tuple[str, ...]
) -> None:
    """What is missing is named, and where such a folder comes from."""
    folder = _folder(tmp_path)
    missing = [name for name in ("ceremony.toml", "transcript.jsonl") if name not in kept]
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(Unavailable, match=" and ".join(missing)) as error:
        judge_ceremony(folder, pin=None)
    assert "what the steps wrote" in (error.value.hint or "")
    with pytest.raises(Unavailable, match="no ceremony's folder"):
        judge_ceremony(tmp_path / "nowhere", pin=None)


def test_a_transcript_cut_before_what_still_lies_there_is_named(tmp_path: Path) -> None:
    """A policy, or an authority, of a step that is not on record any more is no policy of it."""
    folder = _folder(tmp_path)
    (folder / "transcript.jsonl").write_bytes(encode_transcript(example.lines()[:7]))
    (folder / "authority.cer").write_bytes(authority())
    found = failures(folder)
    assert "it was not closed" == found["ceremony.complete"]
    assert "not on record: authority.cer" in found["ceremony.files"]


def test_what_lies_beside_a_whole_ceremony_is_nobodys_concern(tmp_path: Path) -> None:
    """A folder that others' certificates were added to is judged by its own files."""
    folder = _folder(tmp_path)
    (folder / "later.sign.cer").write_bytes(authority())
    judged = judge_ceremony(folder, pin=None)
    assert not any("on record" in verdict.reason for verdict in judged.verdicts)


def test_a_policy_that_names_the_record_with_another_key_is_refused(tmp_path: Path) -> None:
    """The right record's digest beside a stranger's public key: bundles would open for him."""
    split = SplitRecovery(by="cas", among="2 of (cas, ida, cyd)")
    held = replace(HELD, steps=(*HELD.steps[:-1], split, HELD.steps[-1]))
    order = RecoveryOrder(
        environment="production", epoch=1, suite="P256", among=parse_quorum("2 of (cas, ida, cyd)")
    )
    ours = make_recovery(order, signer=signer("cas"), token_random=None, now=NOW)
    (tmp_path / "recovery-1.dsse").write_bytes(ours.statement)
    named = ours.record.predicate.in_policy(ours.record.digest)
    stranger = replace(named, spki=public_bytes(key("eve").public_key()))
    with pytest.raises(Refused, match="names another recovery key than was made here"):
        check_of_table(replace(policy(), recovery=stranger), held, Progress(), tmp_path)
