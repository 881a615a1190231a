"""Scripts that can be held, and transcripts that are of their script: every attack by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody.encoding import Digest, sha256
from custody.formats.ceremony import (
    Admit,
    BackUp,
    Enrol,
    Invite,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    MakePolicy,
    MakeWrapping,
    Script,
    Seat,
    SplitRecovery,
    Step,
    TrustKey,
)
from custody.formats.keybackup import CARRIER_LABEL, WRAPPING_LABEL, carrier_id, wrapping_id
from custody.formats.policy import SuiteName
from custody.formats.transcript import (
    Begun,
    Closed,
    Done,
    Event,
    FoundObject,
    Line,
    MadeKey,
    NamedFile,
    Opened,
)
from custody.rules.ceremony import Progress, TokenName, missing_keys, progress_of, unexpected
from custody.rules.ceremony_script import check_script, has_words
from custody.rules.transcript import judge_so_far, judge_transcript
from custody.rules.verdicts import Verdict, passed
from tests.unit.formats import ceremony_example as example
from tests.unit.formats.fixed import octets
from tests.unit.formats.test_ceremony import _SCRIPTS

Change = Callable[[list[Event]], object]


def judge(
    lines: Sequence[Line],
    *,
    pin: Digest | None = None,
    files: dict[str, Digest] | None = None,
    script: Script | None = None,
) -> tuple[Verdict, ...]:
    """Judge a transcript against the example's script."""
    return judge_transcript(
        script or example.script(),
        example.DIGEST,
        lines,
        example.TOKENS,
        files=example.files() if files is None else files,
        pin=pin,
    )


def failed(verdicts: Sequence[Verdict]) -> set[str]:
    """Return the checks that do not hold."""
    return {verdict.check for verdict in verdicts if verdict.outcome == "fail"}


def changed(change: Change) -> set[str]:
    """Judge the example with its events changed, each record chained and signed again."""
    happened = [*example.events()]
    change(happened)
    return failed(judge(example.chained(happened)))


def test_the_example_holds() -> None:
    """A whole ceremony passes every check, by the digest of its last record."""
    last = example.lines()[-1].digest
    verdicts = judge(example.lines(), pin=last)
    assert passed(verdicts)
    assert {
        *("ceremony.script", "ceremony.chain", "ceremony.order", "ceremony.token"),
        *("ceremony.objects", "ceremony.keys", "ceremony.signature", "ceremony.complete"),
        *("ceremony.files", "ceremony.pin"),
    } == {verdict.check for verdict in verdicts}


def test_without_a_digest_nobody_vouches() -> None:
    """Files that agree with each other are told apart from those that people wrote down."""
    verdicts = judge(example.lines())
    assert ["not-applicable"] == [v.outcome for v in verdicts if v.check == "ceremony.pin"]


@pytest.mark.parametrize("number", range(len(example.lines())))
def test_an_edited_record_is_refused(number: int) -> None:
    """One second more in any record breaks the chain after it, or its signatures."""
    lines = [*example.lines()]
    record = lines[number].record
    lines[number] = replace(
        lines[number], record=replace(record, at=record.at + timedelta(seconds=1))
    )
    found = failed(judge(lines))
    assert {"ceremony.signature" if number == len(lines) - 1 else "ceremony.chain"} <= found


@pytest.mark.parametrize("number", range(1, len(example.lines()) - 1))
def test_reordered_records_are_refused(number: int) -> None:
    """Two records that change places do not follow each other."""
    lines = [*example.lines()]
    lines[number : number + 2] = lines[number : number + 2][::-1]
    assert {"ceremony.chain"} <= failed(judge(lines))


@pytest.mark.parametrize("number", range(1, len(example.lines()) - 1))
def test_a_record_cut_out_is_refused(number: int) -> None:
    """A record that is left out is missed by the one after it."""
    lines = [*example.lines()]
    del lines[number]
    assert {"ceremony.chain"} <= failed(judge(lines))


@pytest.mark.parametrize("kept", range(1, len(example.lines())))
def test_a_transcript_cut_at_its_end_is_refused(kept: int) -> None:
    """Without its last records a ceremony is not complete; so far, nothing is wrong with it."""
    lines = example.lines()[:kept]
    assert "ceremony.complete" in failed(judge(lines))
    assert passed(judge_so_far(example.script(), example.DIGEST, lines, example.TOKENS))


def test_a_transcript_of_another_script_is_refused() -> None:
    """A script that was changed by a blank line has another digest."""
    other = sha256(example.SCRIPT + b"\n").hex()
    verdicts = judge_so_far(example.script(), other, example.lines(), example.TOKENS)
    assert {"ceremony.script"} == failed(verdicts)


def test_a_ceremony_held_again_by_others_is_refused() -> None:
    """The same steps with other times are another ceremony: only what was written down tells."""
    again = example.chained([*example.events()[:-1], replace(example.events()[-1], files=())])
    assert "ceremony.pin" in failed(judge(again, pin=example.lines()[-1].digest))


def _signed_by(number: int, *names: str) -> tuple[Line, ...]:
    def signers(at: int, event: Event) -> Sequence[str]:
        return names if at == number else example.who(at, event)

    return example.chained(example.events(), signers)


@pytest.mark.parametrize("names", [("alice",), ("ida", "alice"), ()])
def test_a_step_signed_by_the_wrong_people_is_refused(names: tuple[str, ...]) -> None:
    """A step of Ida's token is signed by her alone: not by Alice, not by both, not by nobody."""
    assert {"ceremony.signature"} == failed(judge(_signed_by(8, *names)))


def test_a_last_record_that_one_did_not_sign_is_refused() -> None:
    """Everybody signs the last record."""
    last = len(example.lines()) - 1
    assert {"ceremony.complete"} == failed(judge(_signed_by(last, "ida")))


def test_a_signature_of_a_stranger_is_refused() -> None:
    """A key that was not enrolled here signs nothing, not even the last record."""
    last = len(example.lines()) - 1
    lines = _signed_by(last, "ida", "alice", "mallory")
    assert {"ceremony.signature"} == failed(judge(lines))


def test_a_signature_of_another_record_is_refused() -> None:
    """A good signature beside another record does not hold."""
    lines = [*example.lines()]
    lines[8] = replace(lines[8], signatures=lines[4].signatures)
    assert {"ceremony.signature"} == failed(judge(lines))


def _step(number: int, **more: object) -> Change:
    at = 2 * number

    def change(events: list[Event]) -> None:
        assert isinstance(events[at], Done)
        events[at] = replace(events[at], **more)

    return change


STRANGE = FoundObject(person="ida", kind="secret", label="wrap", id="77")
DECOY = example.lies(example.IDA_SIGN)[0]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param(
            _step(4, found=(*example.lies(example.IDA_SIGN), STRANGE)),
            "ceremony.objects",
            id="a wrapping key that nobody expects",
        ),
        pytest.param(
            _step(4, found=(*example.lies(example.IDA_SIGN), DECOY)),
            "ceremony.objects",
            id="a second key under the label and id of a known one",
        ),
        pytest.param(
            _step(2, found=(replace(DECOY, id="00"),)),
            "ceremony.objects",
            id="a key that bears the label before it is made",
        ),
        pytest.param(
            _step(2, found=(example.ATTESTATION,)),
            "ceremony.objects",
            id="objects of somebody whose token is not used",
        ),
        pytest.param(
            _step(3, tokens=(example.token("alice", "0a11"),)),
            "",
            id="another serial where the script says none",
        ),
        pytest.param(
            _step(2, tokens=(example.token("ida", "0a12"),)),
            "ceremony.token",
            id="another serial than the script's",
        ),
        pytest.param(
            _step(2, tokens=(replace(example.IDA, label="eve"),)),
            "ceremony.token",
            id="another label than the script's",
        ),
        pytest.param(
            _step(5, tokens=(replace(example.IDA, model="other"),)),
            "ceremony.token",
            id="another token than in an earlier step",
        ),
        pytest.param(_step(4, tokens=()), "ceremony.token", id="no token"),
        pytest.param(
            _step(4, tokens=(example.ALICE,)), "ceremony.token", id="somebody else's token"
        ),
        pytest.param(_step(4, keys=()), "ceremony.keys", id="no key where one is made"),
        pytest.param(
            _step(4, keys=(example.IDA_SIGN,)), "ceremony.keys", id="a signing key as authority"
        ),
        pytest.param(
            _step(5, keys=(example.made("ida", "ca", "x"),)),
            "ceremony.keys",
            id="a key where none is made",
        ),
        pytest.param(
            _step(3, keys=(example.ALICE_SHARE,)), "ceremony.keys", id="no signing key enrolled"
        ),
        pytest.param(
            _step(3, keys=(replace(example.IDA_SIGN, person="alice"),)),
            "ceremony.keys",
            id="one key for two people",
        ),
        pytest.param(_step(4, do="kek"), "ceremony.order", id="a step of another kind"),
        pytest.param(_step(4, step=5), "ceremony.order", id="a step out of turn"),
    ],
)
def test_a_step_that_was_done_otherwise_is_refused(change: Change, check: str) -> None:
    """What a step could not have done by the script fails its check, though all of it is signed."""
    found = changed(change) - {"ceremony.files"}
    assert check in found if check else not found


def test_one_token_under_two_names_is_refused_by_the_record() -> None:
    """Who enrols twice, by a script that names no token, is found out by what the token says."""
    happened = [*example.events()]
    third = happened[6]
    assert isinstance(third, Done)
    happened[6] = replace(third, tokens=(replace(example.IDA, person="alice"),))
    anybody = TokenName(label=None, serial=None, manufacturer=None, model=None)
    verdicts = judge_so_far(
        example.script(),
        example.DIGEST,
        example.chained(happened),
        dict.fromkeys(("ida", "alice"), anybody),
    )
    assert {"ceremony.token"} == failed(verdicts)


def test_a_key_that_is_gone_from_its_token_is_missed() -> None:
    """A token that comes back emptied, with the same serial number, has not the same keys."""
    gone = changed(_step(4, found=()))
    assert {"ceremony.token"} == gone


def _without_begin(events: list[Event]) -> None:
    del events[3]


def _begun_twice(events: list[Event]) -> None:
    events.insert(3, Begun(step=2))


def _begun_early(events: list[Event]) -> None:
    events.insert(3, Begun(step=3))


def _after_the_end(events: list[Event]) -> None:
    events.append(Begun(step=6))


def _opened_twice(events: list[Event]) -> None:
    events.insert(1, events[0])


def _other_people(events: list[Event]) -> None:
    events[0] = Opened(title="x", people=("ida",), program="x")


def _closed_early(events: list[Event]) -> None:
    del events[-3:-1]


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (_begun_twice, set()),
        (_without_begin, {"ceremony.order"}),
        (_begun_early, {"ceremony.order"}),
        (_after_the_end, {"ceremony.order", "ceremony.complete"}),
        (_opened_twice, {"ceremony.order"}),
        (_other_people, {"ceremony.order"}),
        (_closed_early, {"ceremony.order", "ceremony.files"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_order_of_events(change: Change, checks: set[str]) -> None:
    """A step may be begun again after an interruption; everything else has one place."""
    assert checks == changed(change)


def test_a_clock_that_went_back_is_refused() -> None:
    """A record is not older than the one before it."""
    lines = [*example.lines()]
    early = replace(lines[-1].record, at=example.AT)
    lines[-1] = example.signed(early, ("ida", "alice"))
    assert "ceremony.chain" in failed(judge(lines))


def test_changed_and_missing_files_are_refused() -> None:
    """A file that is not what a step wrote, or is gone, fails; one that is beside them does not."""
    good = example.files()
    for files in (
        {**good, "authority.cer": octets("other").hex()},
        {name: sha for name, sha in good.items() if name != "authority.crl"},
    ):
        assert {"ceremony.files"} == failed(judge(example.lines(), files=files))
    assert passed(judge(example.lines(), files={**good, "more": octets("more").hex()}))


def test_a_file_that_a_later_step_finds_changed_is_refused() -> None:
    """An admission that was swapped before it was admitted is named, whatever its step signed."""
    name = "alice.admission.dsse"

    def swap(events: list[Event]) -> None:
        at = max(n for n, event in enumerate(events) if isinstance(event, Done))
        last = events[at]
        assert isinstance(last, Done)
        other = NamedFile(name=name, sha256=octets("another admission").hex())
        files = (*(f for f in last.files if f.name != name), other)
        events[at] = replace(last, files=tuple(sorted(files, key=lambda f: f.name)))
        known = {**progress_of_events(events).files}
        summed = tuple(NamedFile(name=n, sha256=known[n]) for n in sorted(known))
        events[-1] = Closed(policy=None, files=summed)

    happened = [*example.events()]
    swap(happened)
    files = {**example.files(), name: octets("another admission").hex()}
    verdicts = judge(example.chained(happened), files=files)
    assert [f"used another file than was written: {name}"] == [
        verdict.reason for verdict in verdicts if verdict.outcome == "fail"
    ]


def progress_of_events(events: Sequence[Event]) -> Progress:
    """Say how far events have come."""
    progress = Progress()
    for event in events:
        progress.take(event)
    return progress


def test_a_last_record_that_sums_up_otherwise_is_refused() -> None:
    """What everybody signs lists the files of all steps, and the policy that was made."""

    def fewer(events: list[Event]) -> None:
        events[-1] = Closed(policy=None, files=())

    def policy(events: list[Event]) -> None:
        last = events[-1]
        assert isinstance(last, Closed)
        events[-1] = replace(last, policy=octets("a policy").hex())

    assert {"ceremony.files"} == changed(fewer)
    assert {"ceremony.files"} == changed(policy)


# ── what an interruption leaves ──────────────────────────────────────────────────────────────────


def test_what_an_interrupted_step_left_is_expected_once_it_is_listed() -> None:
    """A key under the label of a step that was begun twice is let lie, then and later."""
    orphan = replace(example.lies(example.IDA_SIGN)[0], id="00")
    happened = [*example.events()]
    second = happened[4]
    assert isinstance(second, Done)
    happened[4] = replace(second, found=(orphan,))
    assert {"ceremony.objects"} == failed(judge(example.chained(happened)))
    happened.insert(3, Begun(step=2))
    for at in (9, 11):
        later = happened[at]
        assert isinstance(later, Done)
        happened[at] = replace(later, found=(orphan, *later.found))
    assert set() == failed(judge(example.chained(happened)))


def test_a_script_that_names_strange_objects_lets_them_lie() -> None:
    """Where a script says "named", what lies in a token is on record, and refuses nothing."""
    happened = [*example.events()]
    second = happened[4]
    assert isinstance(second, Done)
    happened[4] = replace(second, found=(STRANGE,))
    lines = example.chained(happened)
    assert {"ceremony.objects"} == failed(judge(lines))
    assert set() == failed(judge(lines, script=replace(example.script(), others="named")))
    assert (STRANGE,) == unexpected(example.script(), progress_of(lines[:3]), (STRANGE,))


# ── scripts ──────────────────────────────────────────────────────────────────────────────────────


def _script(*steps: Step, people: Sequence[str] = ("ida", "alice")) -> Script:
    seats = tuple(
        Seat(
            name=name,
            role="officer" if name == "alice" else "custodian",
            token=f"pkcs11:token={name}",
        )
        for name in people
    )
    return replace(example.script(), people=seats, steps=steps)


def judged(script: Script) -> tuple[Verdict, ...]:
    """Judge a script whose tokens are named by their labels."""
    names = {
        seat.name: TokenName(label=seat.name, serial=None, manufacturer=None, model=None)
        for seat in script.people
    }
    return check_script(script, names)


INV, EI, EA = Invite(by="ida"), Enrol(who="ida"), Enrol(who="alice")
CA = MakeAuthority(by="ida", name="CA")
ADMIT = Admit(by="ida", who=("ida", "alice"))
SPLIT = SplitRecovery(by="ida", among="2 of (ida, alice, ivan)", seal_to=("alice",))
WRAP = MakeWrapping(by="ida", opened=("alice",))
POLICY = MakePolicy(draft="d.toml", signers=("ida",))
TRUST = TrustKey(who="alice")
KEK = MakeKek(by="alice", label="kek")
BACK_UP = BackUp(who="alice", by="ida", kek="kek", file="kek.dsse")
_FIRST = (INV, EI, EA, CA, ADMIT)


def _holding() -> Script:
    """A script that lets a stranger's key lie under the label of one that is to be made."""
    script = _script(*_FIRST)
    ida, alice = script.people
    held = replace(alice, holds=("Production ALICE sign",))
    return replace(script, people=(ida, held))


def _called(display: str) -> Script:
    """A script in which Alice would be shown to who admits her as somebody else."""
    script = _script(*_FIRST)
    ida, alice = script.people
    return replace(script, people=(ida, replace(alice, display=display)))


def _host(suite: SuiteName | None) -> Script:
    """A script by which a host without a TPM enrols."""
    script = _script(INV, EI, Enrol(who="mainframe", suite=suite), people=("ida", "mainframe"))
    ida, host = script.people
    return replace(script, people=(ida, replace(host, role="host")))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (_script(INV, EI, EA, people=("ida", "alice", "ida")), "there twice: ida"),
        (_script(INV, EI), "nothing shows that they were there"),
        (_script(EI, INV, EA), "there is no invitation yet"),
        (_script(INV, EI, EA, EI), "he has enrolled already"),
        (_script(INV, EI, EA, INV), "there is an invitation already"),
        (_script(Invite(by="alice"), EI, EA), "a custodian invites"),
        (_script(INV, EI, EA, Enrol(who="eve")), "nobody there is called eve"),
        (_script(INV, CA, EI, EA), "has enrolled no key yet: ida"),
        (_script(INV, EI, EA, CA, CA), "there is an authority already"),
        (_script(INV, EI, EA, MakeAuthority(by="alice", name="CA")), "a custodian keeps"),
        (
            _script(
                INV,
                EI,
                EA,
                Enrol(who="ivan"),
                MakeAuthority(by="ivan", name="CA"),
                people=("ida", "alice", "ivan"),
            ),
            "who invites keeps the authority",
        ),
        (_script(INV, EI, EA, ADMIT), "who keeps the authority admits"),
        (_script(INV, EI, EA, CA, Admit(by="ida")), "it admits nobody"),
        (
            _script(INV, EI, EA, CA, replace(ADMIT, attestation="accepted", roots=("00" * 32,))),
            "says what vendors attest of what is brought, and nothing is",
        ),
        (
            _script(
                *(INV, EI, replace(EA, attestation="accepted", roots=("00" * 32,)), CA),
                replace(ADMIT, files=("alice.attestation.pem",)),
            ),
            "the file alice.attestation.pem is another's already",
        ),
        (_script(INV, EI, CA, ADMIT, EA), "has enrolled no key yet: alice"),
        (
            _script(INV, EI, EA, SplitRecovery(by="alice", among="2 of (a, b)")),
            "a custodian states who holds shares",
        ),
        (
            _script(INV, EI, EA, CA, MakePolicy(draft="d.toml", signers=("ida",))),
            "nobody has been admitted",
        ),
        (
            _script(INV, EI, EA, CA, ADMIT, MakePolicy(draft="d.toml", signers=("alice",))),
            "custodians sign a policy",
        ),
        (
            _script(INV, EI, EA, *(2 * [MakeLogKey(by="alice", origin="log.example.com")])),
            "he keeps a log already",
        ),
        (_script(*_FIRST, SPLIT, SPLIT), "there is a recovery key 1 already"),
        (_script(INV, EI, SPLIT, EA), "has enrolled no key yet: alice"),
        (_script(*_FIRST, WRAP), "there is no recovery key 1 yet"),
        (_script(*_FIRST, SPLIT, WRAP, WRAP), "there is a wrapping key 1 already"),
        (_script(*_FIRST, SPLIT, MakeWrapping(by="alice")), "a custodian states a wrapping key"),
        (_script(*_FIRST, SPLIT, MakeWrapping(by="ida", opened=("ida",))), "nobody sealed a share"),
        (_script(*_FIRST, SPLIT, POLICY, TRUST), "there is no wrapping key 1 yet"),
        (_script(*_FIRST, SPLIT, WRAP, TRUST), "there is no policy yet"),
        (_script(*_FIRST, KEK, SPLIT, WRAP, POLICY, BACK_UP), "trusts no wrapping key 1 yet"),
        (_script(*_FIRST, SPLIT, WRAP, POLICY, TRUST, BACK_UP), "no such key was made recoverable"),
        (
            _script(
                *(*_FIRST, SPLIT, WRAP, POLICY, TRUST),
                *(MakeKek(by="alice", label="kek", recoverable=False), BACK_UP),
            ),
            "no such key was made recoverable",
        ),
        (
            _script(
                *(*_FIRST, KEK, SPLIT, WRAP, POLICY, TRUST),
                BackUp(who="alice", by="alice", kek="kek", file="kek.dsse"),
            ),
            "a custodian signs for a backup",
        ),
        (
            _script(
                *(*_FIRST, KEK, SPLIT, WRAP, POLICY, TRUST),
                BackUp(who="alice", by="ida", kek="kek", file="transcript.jsonl"),
            ),
            "a backup is a .dsse",
        ),
        *(
            (_script(*_FIRST, SplitRecovery(by="ida", among=among)), why)
            for among, why in (
                ("ida", "one person alone is no set of shares"),
                ("1 of (ida, alice)", "any one of several people is no group"),
                ("all(1 of (ida, alice), eve)", "any one of several people is no group"),
                ("2 of (2 of (a, b), all(2 of (c, d), e))", "a group is 1 to 16 people"),
                ("1 of (ida, 2 of (a, b))", "one person alone could rebuild the key"),
                ("2 of (2 of (a, b), all(c))", "has one child"),
                ("2 of (ida, ivan)", "without him the recovery key is lost"),
            )
        ),
        (
            _script(*_FIRST, SplitRecovery(by="ida", among="2 of (a, b)", seal_to=("alice",))),
            "seals shares to who holds none: alice",
        ),
        (
            _script(*_FIRST, SplitRecovery(by="ida", among="2 of (ida, b)", seal_to=("ida",))),
            "enrols no key that a share could be sealed to (P256 or P384): ida",
        ),
        (
            _script(
                *(INV, EI, replace(EA, suite="RSA2048_OAEP_SHA256"), CA, ADMIT),
                replace(SPLIT, seal_to=("alice",)),
            ),
            "enrols no key that a share could be sealed to (P256 or P384): alice",
        ),
        (
            _script(*_FIRST, replace(SPLIT, among="2 of (ida, alice)"), MakeWrapping(by="ida")),
            "these shares, with all that are on paper, are too few",
        ),
        (
            _script(*_FIRST, POLICY, SPLIT, WRAP, TRUST),
            "before the recovery key that it is to name",
        ),
        (
            _script(
                *(INV, replace(EI, suite="P256"), EA, CA, ADMIT),
                SplitRecovery(
                    by="ida",
                    among="1 of (2 of (ida, x), 2 of (alice, y))",
                    seal_to=("ida", "alice"),
                ),
                MakeWrapping(by="ida", opened=("ida", "alice")),
            ),
            "these shares are more than are needed",
        ),
        (
            _script(*_FIRST, SPLIT, replace(SPLIT, epoch=2), POLICY),
            "there are several recovery keys, and a policy names one",
        ),
        (_script(*_FIRST, SPLIT, WRAP, POLICY, TRUST, TRUST), "the token trusts it already"),
        (
            _script(INV, EI, EA, CA, Admit(by="ida", who=("alice",)), POLICY),
            "it will not list who was not admitted: ida",
        ),
        (_script(*_FIRST, Admit(by="ida", who=("alice",))), "admits somebody a second time"),
        (_script(*_FIRST, KEK, KEK), "there is an object called 'kek' in that token already"),
        (
            _script(*_FIRST, MakeKek(by="ida", label="ca")),
            "there is an object called 'CA' in that token already",
        ),
        (
            _script(*_FIRST, MakeKek(by="alice", label="Production Alice SIGN")),
            "there is an object called 'production alice sign' in that token already",
        ),
        (
            _script(
                *_FIRST, MakeLogKey(by="alice", origin="log.example.com", folder="AUTHORITY.cer")
            ),
            "the file AUTHORITY.cer is another's already",
        ),
        (
            _script(*_FIRST, Admit(by="ida", files=("transcript.jsonl",))),
            "the file transcript.jsonl is another's already",
        ),
        (
            _script(
                *(*_FIRST, KEK, SPLIT, WRAP, POLICY, TRUST), replace(BACK_UP, file="Policy-1.dsse")
            ),
            "the file Policy-1.dsse is another's already",
        ),
        (
            _script(*(*_FIRST, KEK, SPLIT, WRAP, POLICY, TRUST, BACK_UP, BACK_UP)),
            "the file kek.dsse is another's already",
        ),
        (
            _script(INV, EI, EA, people=("ida", "alice", "a1ice")),
            "alice and a1ice look the same",
        ),
        (
            _holding(),
            "holds lets an object called 'Production ALICE sign' lie in the token of alice",
        ),
        (_called("ida"), "ida and alice would be shown by one name"),
        (_called("IDA"), "ida and alice would be shown by one name"),
        (_host("RSA3072_OAEP_SHA256"), "this one only decrypts"),
    ],
)
def test_a_script_that_cannot_be_held_is_refused(script: Script, why: str) -> None:
    """Who is named is there, and nothing comes before what it needs."""
    reasons = [v.reason for v in judged(script) if v.outcome == "fail"]
    assert any(why in reason for reason in reasons), reasons


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=5),
    st.integers(0, 6),
    st.sampled_from(
        (
            "{k} of ({who})",
            "2 of ({k} of ({who}), z)",
            "2 of ({k} of ({who}), 2 of (u, v), 2 of (x, y))",
            "all({who})",
        )
    ),
)
def test_whoever_a_script_lets_hold_shares_can_rebuild_the_key(
    who: list[str], k: int, form: str
) -> None:
    """Any set of holders: refused, or distinct people of whom none is enough, and none needed."""
    among = form.format(k=k, who=", ".join(who))
    try:
        step = SplitRecovery(by="ida", among=among)
    except ValueError:
        refused = True
    else:
        refused = not passed(judged(_script(*_FIRST, step)))
    groups = len(set(who)) == len(who) and 2 <= k <= len(who)
    good = groups and (k < len(who) if form.startswith("{k}") else "(u, v)" in form)
    assert refused is not good


@given(_SCRIPTS)
def test_any_script_is_judged(script: Script) -> None:
    """Whatever a script says, it is judged and never stumbled over."""
    assert judged(script)


def test_two_people_with_one_token_are_refused_before_anything_is_made() -> None:
    """A serial number that two of a script's tokens have is one token; a reader for all is none."""
    script = _script(*_FIRST)
    one = TokenName(label=None, serial="0a11", manufacturer=None, model=None)
    reasons = [v.reason for v in check_script(script, dict.fromkeys(("ida", "alice"), one))]
    assert "ida and alice bring one token, serial 0a11" in reasons
    reader = TokenName(label=None, serial=None, manufacturer=None, model=None)
    assert passed(check_script(script, dict.fromkeys(("ida", "alice"), reader)))


@pytest.mark.parametrize(
    ("among", "seal_to", "opened", "words"),
    [
        ("2 of (ida, alice, ivan)", (), (), True),
        ("2 of (ida, alice, ivan)", ("alice",), ("alice",), True),
        ("2 of (ida, alice, ivan)", ("ida", "alice", "ivan"), ("ida", "alice"), False),
        ("2 of (ida, alice, x)", ("ida", "alice"), ("ida", "alice"), True),
    ],
)
def test_it_is_known_before_whether_anybody_sees_or_types_words(
    *, among: str, seal_to: tuple[str, ...], opened: tuple[str, ...], words: bool
) -> None:
    """Words on paper take a terminal; shares in tokens alone take none."""
    split = SplitRecovery(by="ida", among=among, seal_to=seal_to)
    people = ("ida", "alice", "ivan")
    enrolled = (Enrol(who=name, suite="P256") for name in ("ida", "ivan"))
    made = (CA, Admit(by="ida", who=people), split, replace(WRAP, opened=opened))
    script = _script(INV, *enrolled, EA, *made, people=people)
    assert passed(judged(script))
    assert words is has_words(script)


def test_a_host_without_a_tpm_may_enrol() -> None:
    """A host's key that agrees is made at a table as anybody's is."""
    assert passed(judged(_host(None)))
    assert passed(judged(_host("P384")))


def test_a_script_with_backups_can_be_held() -> None:
    """Shares, wrapping key, policy, trust, backup: in this order."""
    script = _script(*_FIRST, KEK, SPLIT, WRAP, POLICY, TRUST, BACK_UP)
    assert passed(judged(script))
    assert ("alice", "ida") == WRAP.hands
    assert ("ida",) == BackUp(who="ida", by="ida", file="a.dsse").hands


def test_a_trusted_key_and_its_carrier_are_expected_by_their_ids() -> None:
    """What a token trusts is as the transcript has it; another under the same label is not."""
    spki = b"spki of a wrapping key"
    wrapping = MadeKey("alice", "wrapping", WRAPPING_LABEL, wrapping_id(spki).hex(), spki, None)
    progress = Progress(done=3, keys=[wrapping])
    script = _script(INV, EI, EA, CA)
    trusted = FoundObject("alice", "public", WRAPPING_LABEL, wrapping.id)
    carrier = FoundObject("alice", "secret", CARRIER_LABEL, carrier_id(spki).hex())
    other = FoundObject("alice", "public", WRAPPING_LABEL, wrapping_id(b"another").hex())
    twice = FoundObject("alice", "secret", CARRIER_LABEL, carrier_id(b"another").hex())
    found = (trusted, carrier, other, twice)
    assert (other, twice) == unexpected(script, progress, found)
    assert not missing_keys(progress, "alice", found)
    assert (wrapping,) == missing_keys(progress, "alice", (carrier, other))


def test_the_example_script_can_be_held() -> None:
    """The script of the document passes."""
    assert passed(judged(example.script()))
