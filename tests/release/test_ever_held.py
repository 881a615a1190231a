"""What an auditor is told of who can open what, where names, envelopes and pins would hide it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec

from custody.encoding import Digest
from custody.formats.envelope import decode_statement
from custody.formats.manifest import SecretEnvelope
from custody.formats.recovery import BreakGlass
from custody.ops.bundle import Bundle
from custody.ops.holdings import ever_held, read_environment, who_can_open
from custody.ops.home import Home
from custody.ops.seal import SealOrder, seal_model
from custody.ops.trust import current, pin
from tests.release import keyhosts
from tests.release import test_recovery as recovery
from tests.release.cast import NOW, Cast, PersonKeys, as_approval, person
from tests.release.expect import QUORUM, refused, resealed
from tests.release.test_holdings import environment, known, one_token_two_names, people


def sealed_unknowing(cast: Cast, model: Path) -> tuple[Bundle, Digest]:
    """Seal as a publisher who pinned the newest version; return its digest too."""
    late = Home(cast.folder / "homes" / "late")
    newer = replace(cast.documents, policies=cast.documents.policies[-2:])
    newest = max(newer.policies, key=lambda s: s.predicate.version)
    pin(late, documents=newer, digest=newest.digest, now=NOW)
    out = cast.folder / "bundle"
    seal_model(
        model,
        out,
        SealOrder(name="tiny", version="1", not_after=NOW + timedelta(days=1)),
        situation=current(late, documents=newer, now=NOW),
        signer=cast.people["pub"].signer,
    )
    return Bundle.at(out), newest.digest


def test_a_late_pin_hides_nobodys_earlier_name(cast: Cast) -> None:
    """Who pinned version 3 believes the first too, which it names; without it he has no answer."""
    one_token_two_names(cast)
    bundle, newest = sealed_unknowing(cast, cast.model())
    found = read_environment(known(cast, bundle), pin=newest, now=NOW)
    assert [1, 2, 3] == [statement.predicate.version for statement in found.versions]
    (key,) = ever_held(found)
    assert ("sec3", "sec9") == key.alone[0].names
    # A first version that does not lead to the pinned one says nothing.
    for gone in (1, 2):
        kept = tuple(s for s in cast.documents.policies if s.predicate.version != gone)
        short = read_environment(replace(known(cast, bundle), policies=kept), pin=newest, now=NOW)
        assert not short.from_the_first
        assert [3] == [statement.predicate.version for statement in short.versions]


def test_one_person_by_two_names_is_one_who_can_open(cast: Cast) -> None:
    """By the tree it takes two names; one token has both shares."""
    one_token_two_names(cast)
    bundle, _ = sealed_unknowing(cast, cast.model())
    (openers,) = who_can_open(environment(cast, bundle))
    assert (("sec3 alias sec9",),) == openers.able


def test_a_share_sealed_to_another_than_its_holder_is_his_who_has_the_key(cast: Cast) -> None:
    """No judge takes such a manifest, but its publisher signed it, and its shares open it."""
    bundle = cast.seal()
    lead = bundle.statement.predicate.envelope
    mine = next(s for s in lead.slots if s.purpose == "share" and s.leaf == "0/0")

    def crossed(envelope: SecretEnvelope) -> SecretEnvelope:
        """Give sec2's leaf to sec1's key."""
        slots = [
            msgspec.structs.replace(s, recipient=mine.recipient)
            if (s.purpose, s.leaf) == ("share", "0/1")
            else s
            for s in envelope.slots
        ]
        slots.sort(key=lambda s: (s.purpose, s.leaf, s.recipient))
        return msgspec.structs.replace(envelope, slots=tuple(slots))

    (openers,) = who_can_open(environment(cast, resealed(cast, bundle, envelope=crossed)))
    assert ("lead1", "sec1") in (openers.able or ())


def test_one_person_with_a_threshold_of_recovery_shares_is_named(cast: Cast) -> None:
    """cus3's first token came back as cus9's: two of three words are one person's."""
    first = cast.people["cus3"]
    cast.people["cus3"] = person("cus3", "custodian")
    cast.certify(cast.people["cus3"])
    cast.next_policy(principals=people(cast))
    cast.people["cus9"] = PersonKeys("cus9", first.roles, first.signing)
    cast.certify(cast.people["cus9"])
    cast.next_policy(principals=people(cast))
    recovery.found(cast, among="2 of (cus1, cus3, cus9)")
    model = cast.model()
    with refused(cast, "manifest.alone"):
        cast.seal_into(model, cast.folder / "bundle")
    bundle, _ = sealed_unknowing(cast, model)
    (key,) = ever_held(environment(cast, bundle))
    (alone,) = key.alone
    assert (("cus3", "cus9"), "recovery shares") == (alone.names, alone.of)


def test_who_could_open_before_a_re_wrap_still_can(cast: Cast) -> None:
    """The ciphertext is the same and so is its key: those who left are told with either bundle."""
    made = recovery.found(cast)
    bundle = cast.seal()
    recovery.lose_every_officer(cast)
    done = recovery.broken(cast, bundle, made, recovery.words(made, "cus3", "enr1", "cus1", "enr3"))
    again = recovery.signed(cast, bundle, done, cast.folder / "again")
    stated = decode_statement(BreakGlass, done.statement)
    documents = replace(known(cast, bundle, again), broken=(stated,))
    found = read_environment(documents, pin=cast.pin, now=NOW)
    for openers in who_can_open(found):
        assert {("new1", "new2"), ("lead1", "sec1", "sec2")} <= set(openers.able or ())
        assert 1 == len(openers.same)
    # Who broke the glass had the key whole, as its publisher had.
    (key,) = ever_held(found)
    assert ("cus2",) == key.custodians


def test_shares_given_to_several_requests_meet_in_one_hsm(cast: Cast) -> None:
    """No request was granted, and the host's key opens enough: that is told, and by whom."""
    keyhosts.add_host(cast)
    bundle = cast.seal()
    first, second = keyhosts.ask(cast, bundle), keyhosts.ask(cast, bundle)
    given: list[bytes] = []
    for request, who in ((first, ("sec1", "lead2")), (second, ("sec3",))):
        consents = [keyhosts.consent(cast, bundle, request, name) for name in QUORUM]
        given += [keyhosts.approve(cast, bundle, request, name, consents) for name in who]
    documents = replace(
        known(cast, bundle),
        key_requests=(first, second),
        approvals=tuple(map(as_approval, given)),
    )
    found = read_environment(documents, pin=cast.pin, now=NOW)
    (key,) = ever_held(found)
    (alone,) = key.alone
    assert ("shares given to several requests", (keyhosts.HOST,)) == (alone.of, alone.names)
    # A request that was granted gives its host the key by right.
    short = replace(documents, approvals=tuple(map(as_approval, given[:2])))
    assert () == read_environment(short, pin=cast.pin, now=NOW).gathered
    other = keyhosts.ask(cast, bundle)
    answers = keyhosts.both_rounds(cast, bundle, other)[len(QUORUM) :]
    whole = replace(
        documents,
        key_requests=(first, second, other),
        approvals=tuple(map(as_approval, [*given, *answers])),
    )
    assert () == read_environment(whole, pin=cast.pin, now=NOW).gathered
