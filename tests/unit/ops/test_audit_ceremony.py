"""Whether a ceremony's folder is one, whole, and its policy of the keys that were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import spki_of
from custody.crypto.signature import public_bytes
from custody.errors import Refused, Unavailable
from custody.formats.ceremony import Admit, BackUp, MakePolicy, SplitRecovery
from custody.formats.envelope import decode_statement, encode_statement
from custody.formats.policy import Policy
from custody.formats.policy_text import parse_quorum
from custody.formats.transcript import Closed, Done, encode_transcript
from custody.ops.audit_ceremony import check_policy_made, judge_ceremony
from custody.ops.ceremony_place import check_of_table
from custody.ops.recovery import RecoveryOrder, make_recovery
from custody.rules.ceremony import Progress
from custody.rules.verdicts import Ledger
from tests.unit.formats import ceremony_example as example
from tests.unit.people import NOW, authority, key, policy, principal, signed_policy, signer
from tests.unit.rules import ceremony_whole as table
from tests.unit.rules.ceremony_whole import Otherwise, Whole

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


def laid(folder: Path, whole: Whole, kept: int | None = None) -> Path:
    """Lay a whole ceremony into a folder, or its first records beside all that it wrote."""
    (folder / "ceremony.toml").write_bytes(table.SCRIPT)
    (folder / "transcript.jsonl").write_bytes(encode_transcript(whole.lines[:kept]))
    for name, data in whole.contents.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_whole_folder_is_sound_by_what_people_wrote_down(tmp_path: Path) -> None:
    """By the digest of the last record, and by the policy's."""
    whole = table.whole()
    folder = laid(tmp_path, whole)
    last = whole.lines[-1]
    assert isinstance(last.record.event, Closed)
    for pin in (last.digest, last.record.event.policy):
        judged = judge_ceremony(folder, pin=pin)
        assert [] == [v.reason for v in judged.verdicts if v.outcome == "fail"]
        assert judged.sound


@pytest.mark.parametrize("kept", range(1, len(table.whole().lines)))
def test_a_transcript_cut_anywhere_is_not_sound_beside_its_policy(
    tmp_path: Path, kept: int
) -> None:
    """Whatever is left of the records, a policy that is published is not vouched for by them."""
    whole = table.whole()
    folder = laid(tmp_path, whole, kept)
    policy = decode_statement(Policy, whole.contents["policy-1.dsse"]).digest
    judged = judge_ceremony(folder, pin=policy)
    found = {v.check: v.reason for v in judged.verdicts if v.outcome == "fail"}
    assert "it was not closed" == found["ceremony.complete"]
    assert "neither" in found["ceremony.pin"]
    done = sum(isinstance(line.record.event, Done) for line in whole.lines[:kept])
    lacking = [step for step in table.STEPS[done:] if isinstance(step, MakePolicy | BackUp)]
    assert (not lacking) == ("ceremony.files" not in found)
    if any(isinstance(step, MakePolicy) for step in lacking):
        everything = " ".join(v.reason for v in judged.verdicts if v.check == "ceremony.files")
        assert "not on record: " in everything


def test_a_ceremony_that_was_closed_without_its_last_step_is_not_sound(tmp_path: Path) -> None:
    """All who were there, together, cannot sign a shorter ceremony of the same script."""
    whole = table.whole()
    lines = table.chained(
        [(line.record.at, line.record.event) for line in (*whole.lines[:-3], whole.lines[-1])]
    )
    folder = laid(tmp_path, Whole(lines, whole.contents))
    found = failures(folder)
    assert "not what comes next" in found["ceremony.order"]


def test_a_policy_that_lists_a_stranger_is_named_though_all_signed_it(tmp_path: Path) -> None:
    """A machine that slips a principal of its own into the policy is found out by its files."""

    def slip(said: Policy) -> Policy:
        more = principal("eve", "officer")
        people = sorted((*said.principals, more), key=lambda person: person.id)
        return replace(said, principals=tuple(people))

    whole = table.whole(Otherwise(said={"policy-1.dsse": slip}))
    found = failures(laid(tmp_path, whole))
    assert ["ceremony.policy"] == list(found)
    assert "lists eve with a key that nobody admitted" in found["ceremony.policy"]


@pytest.mark.parametrize("name", sorted(table.whole().contents))
def test_one_byte_changed_in_any_file_is_named(tmp_path: Path, name: str) -> None:
    """Each file by its digest, whatever else its reader says of it."""
    folder = laid(tmp_path, table.whole())
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert name in failures(folder)["ceremony.files"]
