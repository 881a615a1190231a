"""Whether a kept key may be used: each condition by itself, whatever the caller has looked at."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest
from msgspec.structs import replace

from custody.crypto.tpmretained import EPOCHS, Line
from custody.formats.case import Documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Signature, Statement, decode_statement, encode_statement
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.policy import Mode
from custody.formats.request import Request
from custody.formats.state import Memory
from custody.rules.retained import LaterState, check_kept, followers, later_states
from custody.rules.situation import Situation
from custody.rules.trust import trust_chain
from tests.unit.formats import spec_examples as examples
from tests.unit.people import NOW, policy, signed, signed_policy

MODES = ("once", "sealed", "sealed-updatable")
POLICY = signed_policy(policy(modes=MODES))
LINE = Line(environment=bytes.fromhex(POLICY.digest), name="lab", epoch=3)
GOLDEN = GoldenSet(
    environment=POLICY.digest,
    name="lab",
    notes="",
    epoch=4,
    oldest=3,
    bank="sha256",
    pcrs=tuple(PcrValue(pcr=pcr, value=f"{pcr:064x}") for pcr in (0, 2, 4, 7)),
    issued_at=NOW,
)
LATER = LaterState(line=LINE, needed=2, among=("erik", "esme", "ewan"), enrollers=("erik", "ewan"))


def situation(*goldens: Statement[GoldenSet], **changes: object) -> Situation:
    """Judge with those golden sets at hand, by a policy with any field changed."""
    made = signed_policy(policy(**{"modes": MODES, **changes})) if changes else POLICY
    memory = Memory(
        kind="custody/memory/v1",
        pin=made.digest,
        environment=made.digest,
        policy=made.digest,
        policy_version=1,
        crls=(),
        golden_sets=(),
        hosts=(),
        enrolments=(),
    )
    trusted = trust_chain([made], pin=made.digest, floor=1, now=NOW)
    documents = Documents(golden_sets=goldens)
    return Situation(trusted=trusted, documents=documents, memory=memory, now=NOW)


def golden(*who: str, **changes: object) -> Statement[GoldenSet]:
    """Return a golden set of the line, signed by two or those named."""
    return decode_statement(
        GoldenSet, signed(replace(GOLDEN, **changes), *(who or ("erik", "esme")))
    )


def asked(mode: Mode = "sealed-updatable", **changes: object) -> Statement[Request]:
    """Return a request with those terms; nobody looks at its signature here."""
    request = examples.request()
    terms = replace(request.terms, mode=mode, **changes)
    data = encode_statement(replace(request, terms=terms), [Signature(keyid="ab" * 32, sig=b"1")])
    return decode_statement(Request, data)


def failed(
    request: Statement[Request] | None = None,
    found: Statement[GoldenSet] | None = None,
    later: LaterState | None = LATER,
    by: Situation | None = None,
) -> set[str]:
    """Return the checks of the kept key itself that fail; vouchers are judged elsewhere."""
    record = decode_statement(
        EnrolmentRecord, signed(replace(examples.ENROLMENT, trust_class="software"), "erik")
    )
    verdicts = check_kept(
        request or asked(),
        enrolment=record,
        golden=found or golden(),
        pcr_digest=golden().predicate.pcr_digest(),
        later=later,
        situation=by or situation(),
    )
    return {
        verdict.check
        for verdict in verdicts
        if verdict.outcome == "fail" and verdict.check.startswith(("retained.", "manifest."))
    }


def test_a_later_state_that_enough_authorised() -> None:
    """Nothing of the key itself stands in the way."""
    assert set() == failed()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("once", {"retained.terms", "retained.golden"}), ("sealed", {"retained.golden"})],
)
def test_the_terms_must_allow_it(mode: Mode, expected: set[str]) -> None:
    """Terms of one opening, or of one boot state, allow no later state, whoever authorised it."""
    assert expected == failed(asked(mode))


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "cd" * 32},
        {"name": "other"},
        {"epoch": 3},
        {"epoch": 2, "oldest": 2},
        {"epoch": 3 + EPOCHS},
    ],
    ids=["environment", "name", "its own epoch", "an older one", "out of reach"],
)
def test_it_follows_its_line(changes: dict[str, object]) -> None:
    """A state of another environment, name or reach is none of the line."""
    assert {"retained.line"} == failed(found=golden(**changes))


def test_a_line_is_of_the_environment_in_force() -> None:
    """What the host's own notes say of the line is held against the pin."""
    line = changed(LINE, environment=bytes(32))
    found = golden(environment="00" * 32)
    assert {"retained.line"} == failed(found=found, later=changed(LATER, line=line))


def test_it_is_over_the_policys_registers() -> None:
    """A state over fewer registers would let the rest be anything."""
    assert {"retained.registers"} == failed(found=golden(pcrs=GOLDEN.pcrs[:-1]))


@pytest.mark.parametrize("who", [(), ("erik",), ("erik", "erik")])
def test_enough_enrollers_authorise(who: tuple[str, ...]) -> None:
    """Nobody, one, or one twice are too few."""
    assert {"retained.authorised"} == failed(later=changed(LATER, enrollers=who))


def test_the_policy_takes_back() -> None:
    """A mode that is listed no longer, a class not accepted, a manifest withdrawn."""
    assert {"retained.mode"} == failed(by=_with(modes=("once", "sealed")))
    host = replace(policy().host, trust_classes=("hardware",))
    assert {"retained.trust-class"} == failed(by=_with(host=host))
    withdrawn = (asked().predicate.terms.manifest,)
    assert {"manifest.withdrawn"} == failed(by=_with(withdrawn=withdrawn))


def _with(**changes: object) -> Situation:
    """Judge by another policy, as if it were a later version of the same environment."""
    by = situation(**changes)
    by.trusted.genesis = POLICY.digest
    return by


def test_the_first_state_is_the_requests() -> None:
    """Without a later state, golden set, terms and key are of one boot state."""
    first = golden()
    digest = first.predicate.pcr_digest()
    request = examples.request()
    data = encode_statement(
        replace(
            request,
            golden=first.digest,
            terms=replace(request.terms, mode="sealed", pcr_digest=digest),
        ),
        [Signature(keyid="ab" * 32, sig=b"1")],
    )
    right = decode_statement(Request, data)
    assert set() == failed(right, first, None)
    other = golden(notes="another statement about the same state")
    assert {"retained.golden"} == failed(right, other, None)
    assert {"retained.golden"} == failed(asked("sealed", pcr_digest=digest), first, None)


def test_only_vouched_sets_follow() -> None:
    """Sets that too few signed, of other lines or registers, or not after the first, do not."""
    good, newer = golden(), golden(epoch=5)
    sets = (
        good,
        newer,
        golden("erik", epoch=6),
        golden("erik", "ida", epoch=6),
        golden(name="other", epoch=6),
        golden(environment="cd" * 32, epoch=6),
        golden(epoch=3),
        golden(epoch=6, pcrs=GOLDEN.pcrs[:-1]),
    )
    judged = situation(*sets)
    assert [good, newer] == list(followers(LINE, judged))
    digest = GOLDEN.pcr_digest()
    assert (newer, good) == later_states(LINE, digest, judged)
    assert () == later_states(LINE, "00" * 32, judged)
    far = golden(epoch=3 + EPOCHS)
    assert (newer,) == later_states(LINE, digest, situation(newer, far))
