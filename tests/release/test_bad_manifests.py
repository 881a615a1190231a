"""Manifests nobody may act on: refused by host and officer alike, by one rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from custody.errors import Refused
from custody.formats.manifest import Core, KeySlot, SecretEnvelope
from custody.ops.bundle import Bundle
from custody.ops.check import check_bundle
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, refused, resealed

Change = Callable[[Cast, Bundle], Bundle]
replace = msgspec.structs.replace


def _core(**changes: object) -> Change:
    def change(cast: Cast, bundle: Bundle) -> Bundle:
        def edit(core: Core) -> Core:
            return replace(core, **changes)

        return resealed(cast, bundle, core=edit)

    return change


def _slots(edit: Callable[[tuple[KeySlot, ...]], tuple[KeySlot, ...]]) -> Change:
    def change(cast: Cast, bundle: Bundle) -> Bundle:
        def envelope(old: SecretEnvelope) -> SecretEnvelope:
            return replace(old, slots=edit(old.slots))

        return resealed(cast, bundle, envelope=envelope)

    return change


def _by_officer(cast: Cast, bundle: Bundle) -> Bundle:
    key = cast.people["sec1"].signer.key_id
    return resealed(cast, bundle, by="sec1", core=lambda core: replace(core, publisher=key))


def _signer_not_named(cast: Cast, bundle: Bundle) -> Bundle:
    key = cast.people["sec1"].signer.key_id
    return resealed(cast, bundle, core=lambda core: replace(core, publisher=key))


def _unsigned(cast: Cast, bundle: Bundle) -> Bundle:
    other = resealed(cast, bundle, core=lambda core: replace(core, payload_id="00" * 32))
    envelope = replace(bundle.statement.envelope, signatures=other.statement.envelope.signatures)
    return Bundle(bundle.path, replace(bundle.statement, envelope=envelope))


def _no_commitment(cast: Cast, bundle: Bundle) -> Bundle:
    return resealed(
        cast, bundle, envelope=lambda old: replace(old, commitments=old.commitments[1:])
    )


def _slot_to_a_friend(cast: Cast, bundle: Bundle) -> Bundle:
    """Seal an officer's share to another officer, who then stands for two."""
    friend = cast.people["sec2"].opener.recipient

    def edit(old: SecretEnvelope) -> SecretEnvelope:
        mine = [s for s in old.slots if s.purpose == "share" and s.leaf == "0/0"]
        rest = [s for s in old.slots if s not in mine]
        slots = [*rest, *(replace(slot, recipient=friend) for slot in mine)]
        return replace(
            old, slots=tuple(sorted(slots, key=lambda s: (s.purpose, s.leaf, s.recipient)))
        )

    return resealed(cast, bundle, envelope=edit)


BAD_MANIFESTS: dict[str, tuple[Change, str]] = {
    "by a non-publisher": (_by_officer, "manifest.author"),
    "naming another publisher": (_signer_not_named, "manifest.publisher"),
    "with a signature over another": (_unsigned, "manifest.signature"),
    "for another environment": (_core(environment="ab" * 32), "manifest.environment"),
    "past notAfter": (
        _core(sealed_at=NOW - timedelta(days=2), not_after=NOW - timedelta(seconds=1)),
        "manifest.expired",
    ),
    "sealed in the future": (_core(sealed_at=NOW + timedelta(hours=1)), "manifest.expired"),
    "for another tree": (_core(tree="ab" * 32), "manifest.tree"),
    "for an unknown policy version": (_core(policy_version=7), "manifest.tree"),
    "with weaker part digests": (_core(part_digest="sha256"), "manifest.part-digest"),
    "without a commitment": (_no_commitment, "manifest.slots"),
    "without an officer's slot": (
        _slots(lambda slots: tuple(s for s in slots if s.leaf != "0/2")),
        "manifest.slots",
    ),
    "with a share sealed to another officer": (_slot_to_a_friend, "manifest.slots"),
    "hiding its contents from officers": (
        _slots(lambda slots: tuple(s for s in slots if s.purpose == "share")),
        "manifest.slots",
    ),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests_are_refused(cast: Cast, name: str) -> None:
    """Host, officer and the public check refuse the same manifests, by the same check."""
    change, check = BAD_MANIFESTS[name]
    good = cast.seal()
    request = cast.request(good)
    bad = change(cast, good)

    with refused(cast, check):
        cast.request(bad)
    with refused(cast, check):
        cast.approve(bad, request, "sec1")
    verdicts = check_bundle(bad, situation=cast.situation("sec2"))
    assert check in {v.check for v in verdicts if v.outcome == "fail"}


def test_a_withdrawn_manifest_is_refused(cast: Cast, tmp_path: Path) -> None:
    """A manifest that the newest policy withdraws opens nowhere, approved or not."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.next_policy(withdrawn=(bundle.statement.digest,))

    with refused(cast, "manifest.withdrawn"):
        cast.open(bundle, request, answers, tmp_path / "out")
    with refused(cast, "manifest.withdrawn"):
        cast.request(bundle)
    with refused(cast, "manifest.withdrawn"):
        cast.approve(bundle, request, "sec2")


def test_a_revoked_publisher_releases_nothing(cast: Cast, tmp_path: Path) -> None:
    """A publisher's revocation stops the bundles he signed before."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.crl = cast.make_crl(number=2, revoked=[cast.people["pub"].signer.spki])
    cast.refresh()

    with refused(cast, "certificate.revoked"):
        cast.open(bundle, request, answers, tmp_path / "out")
    with pytest.raises(Refused) as caught:
        cast.seal("second")
    assert "certificate.revoked" == caught.value.check
    assert not (tmp_path / "second.bundle").exists()


def test_a_removed_publisher_releases_nothing(cast: Cast) -> None:
    """A publisher that the newest policy no longer lists cannot have his old bundles opened."""
    bundle = cast.seal()
    people = tuple(p for p in cast.make_policy().principals if p.id != "pub")
    cast.next_policy(principals=people)
    with refused(cast, "manifest.author"):
        cast.request(bundle)


# ── copied secrets ───────────────────────────────────────────────────────────────────────────────


def _copied(field: str, pick: Callable[[SecretEnvelope, SecretEnvelope], SecretEnvelope]) -> Change:
    def change(cast: Cast, bundle: Bundle) -> Bundle:
        other = cast.seal(f"other-{field}").statement.predicate.envelope
        return resealed(cast, bundle, envelope=partial(pick, other))

    return change


def _with_slots(other: SecretEnvelope, own: SecretEnvelope) -> SecretEnvelope:
    return replace(own, slots=other.slots)


def _with_commitments(other: SecretEnvelope, own: SecretEnvelope) -> SecretEnvelope:
    return replace(own, commitments=other.commitments)


def _swapped(_: SecretEnvelope, own: SecretEnvelope) -> SecretEnvelope:
    """Exchange the sealed shares of two officers."""
    mine, his = (next(s for s in own.slots if s.leaf == leaf) for leaf in ("0/0", "0/1"))
    swap = {mine: replace(mine, sealed=his.sealed), his: replace(his, sealed=mine.sealed)}
    return replace(own, slots=tuple(swap.get(slot, slot) for slot in own.slots))


COPIES: dict[str, tuple[Change, str]] = {
    "slot": (_copied("slot", _with_slots), "slot.open"),
    "commitment": (_copied("commitment", _with_commitments), "share.commitment"),
    "ciphertexts of two officers": (_copied("swap", _swapped), "slot.open"),
}


@pytest.mark.parametrize("name", COPIES)
def test_copied_slots_open_nothing(cast: Cast, name: str) -> None:
    """A slot or commitment copied from another manifest, or officer, fails at the officer's."""
    change, check = COPIES[name]
    bundle = change(cast, cast.seal())
    request = cast.request(bundle)
    with refused(cast, check):
        cast.approve(bundle, request, "sec1")


@pytest.mark.parametrize("purpose", ["cek", "contents"])
def test_a_copied_wrap_opens_nothing(cast: Cast, tmp_path: Path, purpose: str) -> None:
    """A wrapped key copied from another manifest does not open under this one's quorum."""
    other = cast.seal("other").statement.predicate.envelope

    def edit(own: SecretEnvelope) -> SecretEnvelope:
        wraps = tuple(
            theirs if theirs.purpose == purpose else ours
            for ours, theirs in zip(own.wraps, other.wraps, strict=True)
        )
        return replace(own, wraps=wraps)

    bundle = resealed(cast, cast.seal(), envelope=edit)
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with refused(cast, "wrap.open"):
        cast.open(bundle, request, answers, tmp_path / "out")


def test_another_commitment_to_the_content_key_is_refused(cast: Cast, tmp_path: Path) -> None:
    """AES-GCM commits to no key, so a core that commits to another one is refused first."""
    bundle = resealed(cast, cast.seal(), core=lambda core: replace(core, cek_commitment="00" * 32))
    with pytest.raises(Refused) as caught:
        # The core is what everything is bound to: officers cannot even open their share.
        cast.approve(bundle, cast.request(bundle), "sec1")
    assert "slot.open" == caught.value.check
