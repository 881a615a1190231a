"""The way back when every officer's token is lost, and what nobody gets by it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import HpkeSuite, slot_info
from custody.crypto.quorum import Person, Threshold
from custody.encoding import decode, encode
from custody.errors import Incomplete, Malformed
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import Manifest
from custody.formats.policy_text import parse_quorum
from custody.formats.recovery import BreakGlass, RecoveryRecord, Rewrapped
from custody.ops.break_glass import Broken, break_glass
from custody.ops.bundle import Bundle
from custody.ops.home import Home
from custody.ops.recovery import MadeRecovery, RecoveryOrder, make_recovery, rebuilt_key
from custody.ops.rewrap import sign_rewrapped
from custody.ops.trust import current, pin
from custody.rules.manifest import check_manifest
from tests.release.cast import NOW, Cast, person, spki
from tests.release.expect import QUORUM, refused
from tests.release.test_release import same_tree

AMONG = "2 of (2 of (cus1, cus2, cus3), 2 of (enr1, enr2, enr3), lead1)"


def found(
    cast: Cast,
    among: str = AMONG,
    *,
    epoch: int = 1,
    suite: HpkeSuite = "P256",
    passphrase: bytes = b"",
) -> MadeRecovery:
    """Make a recovery key, and put a policy in force that names it."""
    order = RecoveryOrder(
        environment="production",
        epoch=epoch,
        suite=suite,
        among=parse_quorum(among),
        passphrase=passphrase,
    )
    signer = cast.people["cus1"].signer
    made = make_recovery(order, signer=signer, token_random=None, now=NOW)
    cast.next_policy(recovery=made.record.predicate.in_policy(made.record.digest))
    return made


def words(made: MadeRecovery, *holders: str) -> list[str]:
    """Return what some people hold."""
    held = {handed.share.holder: handed.words for handed in made.shares}
    return [held[holder] for holder in holders]


def lose_every_officer(cast: Cast) -> None:
    """Put a policy in force whose officers are all new; nobody has the old tokens."""
    new = [person(f"new{n}", "officer") for n in (1, 2)]
    for someone in new:
        cast.people[someone.name] = someone
        cast.certify(someone)
    gone = {name for name, who in cast.people.items() if "officer" in who.roles} - {"new1", "new2"}
    lead = cast.people.pop("lead1").principal()
    for name in gone - {"lead1"}:
        del cast.people[name]
    people = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    # lead1 is no officer any more, but keeps his words.
    kept = msgspec.structs.replace(lead, roles=("auditor",))
    cast.tree = Threshold(k=2, of=(Person(principal="new1"), Person(principal="new2")))
    everybody = tuple(sorted((*people, kept), key=lambda p: p.id))
    cast.next_policy(principals=everybody, quorum=cast.tree)


def broken(
    cast: Cast, bundle: Bundle, made: MadeRecovery, shares: Sequence[str], passphrase: bytes = b""
) -> Broken:
    """Break the glass as ``cus2``."""
    return break_glass(
        bundle.statement,
        shares,
        passphrase,
        record=made.record,
        reason="every officer's token burnt with the office",
        situation=cast.situation("cus2"),
        signer=cast.people["cus2"].signer,
        token_random=None,
    )


def signed(cast: Cast, bundle: Bundle, done: Broken, target: Path) -> Bundle:
    """Sign as the publisher."""
    sign_rewrapped(
        bundle,
        decode(Rewrapped, done.rewrapped),
        decode_statement(BreakGlass, done.statement),
        target,
        situation=cast.situation("pub"),
        signer=cast.people["pub"].signer,
    )
    return Bundle.at(target)


@pytest.mark.parametrize("suite", get_args(HpkeSuite))
def test_the_glass_is_broken_when_every_officer_is_gone(
    cast: Cast, tmp_path: Path, suite: HpkeSuite
) -> None:
    """With every officer's token lost, shares and publisher bring a bundle to new officers."""
    made = found(cast, suite=suite)
    bundle = cast.seal()
    lose_every_officer(cast)
    done = broken(cast, bundle, made, words(made, "cus3", "enr1", "cus1", "enr3"))
    again = signed(cast, bundle, done, tmp_path / "again")

    assert bundle.statement.digest == again.core.replaces
    assert bundle.core.payload_id == again.core.payload_id
    request = cast.request(again)
    answers = [cast.approve(again, request, who) for who in ("new1", "new2")]
    cast.open(again, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_what_was_done_is_stated(cast: Cast) -> None:
    """The statement says who, by which shares, which bundle and why, and is signed."""
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus3", "lead1", "cus1"))
    said = decode_statement(BreakGlass, done.statement)
    assert cast.people["cus2"].signer.key_id == said.envelope.signatures[0].keyid
    assert bundle.statement.digest == said.predicate.manifest
    assert made.record.digest == said.predicate.record
    assert [(0, 0, "cus1"), (0, 2, "cus3"), (2, 0, "lead1")] == [
        (share.group, share.member, share.holder) for share in said.predicate.shares
    ]
    assert "every officer's token burnt with the office" == said.predicate.reason


def test_breaking_the_glass_outputs_no_secret(cast: Cast) -> None:
    """Neither the envelope nor the statement holds the content key, the seed or a share."""
    made = found(cast)
    bundle = cast.seal()
    shares = words(made, "cus1", "cus2", "lead1")
    done = broken(cast, bundle, made, shares)
    core = bundle.core
    slot = next(s for s in bundle.statement.predicate.envelope.slots if s.purpose == "recovery")
    with rebuilt_key(made.record, shares, b"") as key:
        info = slot_info(core.binding(), "recovery", "", key.key_id)
        cek = key.open(slot.sealed, info=info)
    for output in (done.rewrapped, done.statement, repr(done).encode(), repr(made).encode()):
        assert cek.hex().encode() not in output
        assert bytes(cek) not in output
        assert not any(text.split()[5].encode() in output.split() for text in shares)


def test_a_share_set_opens_no_bundle_of_another_recovery_key(cast: Cast) -> None:
    """Shares of the first key open nothing that was sealed to the second, by record and by slot."""
    first = found(cast)
    second = found(cast, epoch=2)
    bundle = cast.seal()
    with refused(cast, "recovery.record"):
        broken(cast, bundle, first, words(first, "cus1", "cus2", "lead1"))
    with refused(cast, "recovery.set"):
        broken(cast, bundle, second, words(first, "cus1", "cus2", "lead1"))


@pytest.mark.parametrize("without", range(3))
def test_one_share_too_few_opens_nothing(cast: Cast, without: int) -> None:
    """Each share of a minimal set is needed."""
    made = found(cast)
    bundle = cast.seal()
    shares = words(made, "cus1", "cus2", "lead1")
    del shares[without]
    with pytest.raises(Incomplete) as caught:
        broken(cast, bundle, made, shares)
    assert caught.value.missing


@pytest.mark.parametrize(
    ("holders", "check"),
    [
        (("cus1", "cus2", "cus3", "lead1"), "recovery.too-many"),
        (("cus1", "cus2", "enr1", "enr2", "lead1"), "recovery.too-many"),
        (("cus1", "cus1", "lead1"), "recovery.duplicate"),
    ],
)
def test_a_share_too_many_and_one_twice_are_refused(
    cast: Cast, holders: tuple[str, ...], check: str
) -> None:
    """One share more than needed, a group more than needed, and one share twice."""
    made = found(cast)
    bundle = cast.seal()
    with refused(cast, check):
        broken(cast, bundle, made, words(made, *holders))


def test_a_wrong_passphrase_is_caught(cast: Cast) -> None:
    """SLIP-0039 gives another secret for another passphrase, silently: the public key tells."""
    made = found(cast, passphrase=b"correct horse")
    bundle = cast.seal()
    shares = words(made, "cus1", "cus2", "lead1")
    with refused(cast, "recovery.key"):
        broken(cast, bundle, made, shares, b"correct house")
    with pytest.raises(Malformed, match="has a passphrase"):
        broken(cast, bundle, made, shares)
    assert broken(cast, bundle, made, shares, b"correct horse").statement


def test_a_withdrawn_bundle_does_not_come_back(cast: Cast) -> None:
    """Breaking the glass is no way round `withdrawn`."""
    made = found(cast)
    bundle = cast.seal()
    cast.next_policy(withdrawn=(bundle.statement.digest,))
    with refused(cast, "manifest.withdrawn"):
        broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))


def test_only_custodians_break_the_glass(cast: Cast) -> None:
    """An officer with enough words is no custodian."""
    made = found(cast)
    bundle = cast.seal()
    with refused(cast, "recovery.signer"):
        break_glass(
            bundle.statement,
            words(made, "cus1", "cus2", "lead1"),
            b"",
            record=made.record,
            reason="curious",
            situation=cast.situation("sec1"),
            signer=cast.people["sec1"].signer,
            token_random=None,
        )


def test_the_publisher_signs_no_other_payload(cast: Cast, tmp_path: Path) -> None:
    """A custodian who swaps anything but the people is refused before the publisher signs."""
    made = found(cast)
    bundle, other = cast.seal(), cast.seal("other")
    shares = words(made, "cus1", "cus2", "lead1")
    done = broken(cast, bundle, made, shares)
    with refused(cast, "recovery.other"):
        signed(cast, other, done, tmp_path / "again")
    new = decode(Rewrapped, done.rewrapped)
    later = msgspec.structs.replace(
        new.core, not_after=new.core.not_after.replace(year=new.core.not_after.year + 1)
    )
    said = decode_statement(BreakGlass, done.statement).predicate
    by = cast.people["cus2"].signer
    said = msgspec.structs.replace(said, author=by.key_id, replacement=later.binding().hex())
    bent = Broken(
        rewrapped=encode(msgspec.structs.replace(new, core=later)),
        statement=by.statement(said),
        digest="",
    )
    with refused(cast, "recovery.core"):
        signed(cast, bundle, bent, tmp_path / "again")
    stated = decode_statement(BreakGlass, done.statement)
    # Not by an officer, and not by a custodian who takes another's words for his own.
    others = [n for n in ("sec1", "cus1", "cus2", "cus3") if not did(cast, n, stated)]
    assert 3 == len(others)
    for name in others:
        statement = cast.people[name].signer.statement(stated.predicate)
        forged = Broken(rewrapped=done.rewrapped, statement=statement, digest="")
        with refused(cast, "recovery.author"):
            signed(cast, bundle, forged, tmp_path / "again")


def test_a_revoked_custodians_word_is_not_signed_for(cast: Cast, tmp_path: Path) -> None:
    """Whoever took a custodian's token has no publisher sign what he made."""
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))
    cast.crl = cast.make_crl(number=2, revoked=[cast.people["cus2"].signer.spki])
    cast.refresh()
    with refused(cast, "certificate.revoked"):
        signed(cast, bundle, done, tmp_path / "again")


def did(cast: Cast, name: str, stated: Statement[BreakGlass]) -> bool:
    """Tell whether somebody is the custodian who broke the glass."""
    return cast.people[name].signer.key_id == stated.envelope.signatures[0].keyid


def test_a_custodian_without_the_newest_policy_brings_nobody_back(
    cast: Cast, tmp_path: Path
) -> None:
    """His machine has no newer files, or he says so: the publisher's tool does not sign."""
    made = found(cast)
    bundle = cast.seal()
    known = cast.documents
    lose_every_officer(cast)
    stale = Home(cast.folder / "homes" / "stale")
    pin(stale, documents=known, digest=cast.pin, now=NOW)
    done = break_glass(
        bundle.statement,
        words(made, "cus3", "enr1", "cus1", "enr3"),
        b"",
        record=made.record,
        reason="every officer's token burnt with the office",
        situation=current(stale, documents=known, now=NOW),
        signer=cast.people["cus2"].signer,
        token_random=None,
    )
    with refused(cast, "recovery.policy"):
        signed(cast, bundle, done, tmp_path / "again")


def test_nothing_is_re_wrapped_to_a_key_that_was_revoked(cast: Cast, tmp_path: Path) -> None:
    """The custodian had not seen the list; a stolen token would have a share again."""
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus3", "enr1", "cus1", "enr3"))
    cast.crl = cast.make_crl(number=2, revoked=[spki(cast.people["sec2"].sharing[0])])
    cast.refresh()
    with refused(cast, "certificate.revoked"):
        signed(cast, bundle, done, tmp_path / "again")


def test_a_recovery_slot_weaker_than_the_policy_takes_is_refused(cast: Cast) -> None:
    """It holds the content key whole, so that officers' stronger slots alone guard nothing."""
    for someone in cast.people.values():
        if "officer" in someone.roles:
            someone.sharing, someone.suite = [ec.generate_private_key(ec.SECP384R1())], "P384"
            cast.certify(someone)
    people = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    cast.next_policy(principals=tuple(people))
    made = found(cast)
    bundle = cast.seal()
    cast.next_policy(weakest_suite="P384", recovery=None)
    with refused(cast, "manifest.slots"):
        cast.request(bundle)
    # Nor is it re-wrapped: what is in the world by the weak suite is sealed anew.
    with refused(cast, "manifest.slots"):
        broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))


def test_a_manifest_without_its_recovery_slot_is_refused(cast: Cast) -> None:
    """A publisher can neither leave the recovery key out nor put another in its place."""
    found(cast)
    bundle = cast.seal()
    manifest = bundle.statement.predicate
    slots = [s for s in manifest.envelope.slots if s.purpose != "recovery"]
    (slot,) = (s for s in manifest.envelope.slots if s.purpose == "recovery")
    bare = msgspec.structs.replace(manifest.envelope, slots=tuple(slots))
    for core, envelope in (
        (msgspec.structs.replace(manifest.core, recovery=None), bare),
        (
            msgspec.structs.replace(manifest.core, recovery="ab" * 32),
            msgspec.structs.replace(
                manifest.envelope,
                slots=tuple(
                    msgspec.structs.replace(s, recipient="ab" * 32) if s is slot else s
                    for s in manifest.envelope.slots
                ),
            ),
        ),
    ):
        data = cast.people["pub"].signer.statement(Manifest(core=core, envelope=envelope))
        verdicts = check_manifest(decode_statement(Manifest, data), cast.situation("sec1"))
        assert "manifest.recovery" in {v.check for v in verdicts if v.outcome == "fail"}
    with pytest.raises(ValueError, match="recovery key of the core"):
        Manifest(core=manifest.core, envelope=bare)


def test_a_publisher_who_seals_nonsense_to_the_recovery_key_is_named(cast: Cast) -> None:
    """What the recovery slot holds is compared with the commitment before it is used."""
    from custody.crypto.keyslots import seal

    made = found(cast)
    bundle = cast.seal()
    manifest = bundle.statement.predicate
    key = made.record.predicate
    info = slot_info(manifest.core.binding(), "recovery", "", key.key_id)
    nonsense = seal(key.suite, key.spki, key.mlkem, bytes(32), info=info)
    slots = tuple(
        msgspec.structs.replace(s, sealed=nonsense) if s.purpose == "recovery" else s
        for s in manifest.envelope.slots
    )
    envelope = msgspec.structs.replace(manifest.envelope, slots=slots)
    data = cast.people["pub"].signer.statement(Manifest(core=manifest.core, envelope=envelope))
    statement: Statement[Manifest] = decode_statement(Manifest, data)
    bad = Bundle(path=bundle.path, statement=statement)
    with refused(cast, "recovery.cek"):
        broken(cast, bad, made, words(made, "cus1", "cus2", "lead1"))


def test_every_minimal_set_of_shares_rebuilds_the_key(cast: Cast) -> None:
    """Any two groups, by any two of their people, rebuild the key that the policy names."""
    made = found(cast)
    assert isinstance(made.record.predicate, RecoveryRecord)
    ways = [
        list(itertools.combinations(group, 2))
        for group in (("cus1", "cus2", "cus3"), ("enr1", "enr2", "enr3"))
    ] + [[("lead1",)]]
    for one, two in itertools.combinations(ways, 2):
        for left, right in itertools.product(one, two):
            with rebuilt_key(made.record, words(made, *left, *right), b"") as key:
                assert made.record.predicate.key_id == key.key_id


def test_old_officers_still_open_a_bundle_that_was_replaced(cast: Cast, tmp_path: Path) -> None:
    """Re-wrapping takes nothing away: until the old manifest is withdrawn its officers open it."""
    made = found(cast)
    bundle = cast.seal()
    again = signed(
        cast,
        bundle,
        broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1")),
        tmp_path / "b",
    )
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, tmp_path / "out")
    cast.next_policy(withdrawn=(bundle.statement.digest,))
    with refused(cast, "manifest.withdrawn"):
        cast.request(bundle)
    assert cast.request(again)
