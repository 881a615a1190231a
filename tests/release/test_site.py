"""The site's HSM as second factor: what it adds to the quorum, and who notices its absence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import seal, slot_info, unwrap, wrap
from custody.crypto.parts import check_cek
from custody.crypto.quorum import combine, leaves
from custody.encoding import KeyId
from custody.errors import Refused, Unavailable
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import KeySlot, Manifest, Wrap
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.keys import ShareOpener
from custody.ops.open import Opened, open_release
from custody.ops.unseal import unseal_release
from custody.rules.manifest import check_manifest
from custody.rules.policy import check_policy
from tests.release.cast import Cast, PersonKeys
from tests.release.expect import QUORUM, listing, refused
from tests.release.test_recovery import broken, found, signed, words
from tests.release.test_release import same_tree
from tests.release.unruly import take_everything


def add_sites(cast: Cast, *names: str, keys: int = 1) -> None:
    """Put a policy in force that lists these sites besides everybody else."""
    for name in names:
        fresh = [ec.generate_private_key(ec.SECP256R1()) for _ in range(keys + 1)]
        cast.people[name] = PersonKeys(name, ("site",), fresh[:1], fresh[1:])
        cast.certify(cast.people[name])
    put_in_force(cast)


def put_in_force(cast: Cast) -> None:
    """Put a policy in force that lists everybody who is in the cast now."""
    people = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    cast.next_policy(principals=tuple(people))


@pytest.fixture
def sited(cast: Cast) -> Cast:
    """Give a cast whose policy demands the HSM of one site."""
    add_sites(cast, "fra1")
    return cast


def open_at(
    cast: Cast, bundle: Bundle, site: Sequence[ShareOpener], target: Path, who: Sequence[str] = ()
) -> tuple[list[bytes], Opened]:
    """Ask, approve and open with these keys of a site's HSM."""
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, name) for name in who or QUORUM]
    opened = open_release(
        bundle,
        request,
        target,
        situation=cast.situation("host", *answers),
        tpm=cast.tpm,
        place=replace(cast.place, site=tuple(site)),
    )
    return answers, opened


@contextmanager
def stays_shut(check: str, target: Path) -> Iterator[None]:
    """Expect an opening to be refused with that check, and nothing to appear."""
    with pytest.raises(Refused) as caught:
        yield
    assert check == caught.value.check, caught.value
    assert [] == [path for path in target.parent.iterdir() if target.name in path.name]


def resigned(cast: Cast, bundle: Bundle, manifest: Manifest) -> Bundle:
    """Sign another manifest over the same payload as the publisher."""
    data = cast.people["pub"].signer.statement(manifest)
    return Bundle(path=bundle.path, statement=decode_statement(Manifest, data))


def failures(cast: Cast, statement: Statement[Manifest]) -> set[str]:
    """Name the checks of a manifest that fail."""
    verdicts = check_manifest(statement, cast.situation("sec1"))
    return {verdict.check for verdict in verdicts if verdict.outcome == "fail"}


def everything(cast: Cast, manifest: Manifest) -> bytearray:
    """Return R as all officers colluding rebuild it, each opening his own slot."""
    binding, shares = manifest.core.binding(), {}
    for leaf in leaves(cast.tree):
        opener = cast.people[leaf.principal].opener
        (slot,) = (s for s in manifest.slots_for(opener.recipient) if s.purpose == "share")
        info = slot_info(binding, "share", leaf.path, slot.recipient)
        shares[leaf.path] = open_slot(slot.suite, opener.key, None, slot.sealed, info=info)[:32]
    return combine(cast.tree, shares)


def test_a_release_opens_with_the_sites_hsm(sited: Cast, tmp_path: Path) -> None:
    """Quorum and site together open a bundle, and an auditor is told whose HSM it took."""
    bundle = sited.seal()
    site = sited.people["fra1"].opener
    assert (site.recipient,) == bundle.core.site
    answers, opened = open_at(sited, bundle, [site], tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")

    files = [(f"a{n}.dsse", data) for n, data in enumerate(answers)]
    files += [("receipt.dsse", opened.receipt_data), ("burn.dsse", opened.burn_data)]
    files.append(("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()))
    case = replace(merge(sited.documents, sort_documents(files)), requests=tuple(sited.asked))
    (release,) = audit_case(case, pin=sited.pin).releases
    assert "opened-and-burned" == release.outcome
    said = {verdict.check: verdict.reason for verdict in release.verdicts}
    assert "takes the HSM of site fra1" == said["manifest.site"]


def test_all_officers_together_open_nothing_without_the_site(sited: Cast) -> None:
    """By raw cryptography: every officer's share gives R, and R alone does not give the key."""
    manifest = sited.seal().statement.predicate
    binding, kept = manifest.core.binding(), manifest.wrap("cek")
    release = everything(sited, manifest)
    with pytest.raises(Refused) as caught:
        unwrap(release, kept.salt, kept.sealed, C=binding, purpose="cek")
    assert "wrap.open" == caught.value.check
    for guess in (bytes(32), bytes(release)):
        with pytest.raises(Refused):
            unwrap(release + guess, kept.salt, kept.sealed, C=binding, purpose="cek")
    # The same arithmetic with the site's half gives the key, so its failure means something.
    site = sited.people["fra1"].opener
    (slot,) = manifest.slots_for(site.recipient)
    info = slot_info(binding, "site", "", site.recipient)
    half = open_slot(slot.suite, site.key, None, slot.sealed, info=info)
    cek = unwrap(release + half, kept.salt, kept.sealed, C=binding, purpose="cek")
    core = manifest.core
    check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
    # Nor is the site's half of any use by itself.
    with pytest.raises(Refused):
        unwrap(half, kept.salt, kept.sealed, C=binding, purpose="cek")


def test_with_every_rule_deleted_the_site_is_still_needed(
    sited: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that judges nothing, with a full quorum and a key of its own making, opens nothing."""
    bundle = sited.seal()
    forged = ShareOpener(ec.generate_private_key(ec.SECP256R1()))
    take_everything(monkeypatch)
    monkeypatch.setattr("custody.ops.released.check_site_key", lambda *_: None)
    monkeypatch.setattr("custody.ops.released.open_site_half", lambda *_: bytearray(32))
    with pytest.raises(Refused) as caught:
        open_at(sited, bundle, [forged], tmp_path / "out")
    assert "wrap.open" == caught.value.check
    assert not (tmp_path / "out").exists()


def test_without_the_site_nothing_is_spent(sited: Cast, tmp_path: Path) -> None:
    """No HSM at hand: `Unavailable`, nothing is written, and the same approvals open it later."""
    bundle = sited.seal()
    request = sited.request(bundle)
    answers = [sited.approve(bundle, request, who) for who in QUORUM]
    before = listing(sited.folder)
    with pytest.raises(Unavailable, match="HSM of the site"):
        sited.open(bundle, request, answers, tmp_path / "out")
    assert before == listing(sited.folder)
    open_release(
        bundle,
        request,
        tmp_path / "out",
        situation=sited.situation("host", *answers),
        tpm=sited.tpm,
        place=replace(sited.place, site=(sited.people["fra1"].opener,)),
    )
    assert same_tree(tmp_path / "model", tmp_path / "out")


class Pulled:
    """A key whose HSM is unplugged the first time that it is asked."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key, self.asked = key, 0

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def exchange(self, algorithm: ec.ECDH, peer: ec.EllipticCurvePublicKey) -> bytes:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("the token is gone")
        return self._key.exchange(algorithm, peer)


def test_an_hsm_that_is_pulled_out_costs_nothing(sited: Cast, tmp_path: Path) -> None:
    """It is asked once; that it went away is not told as a false slot, and the next run opens."""
    bundle = sited.seal()
    kept = sited.people["fra1"].sharing[0]
    assert isinstance(kept, ec.EllipticCurvePrivateKey)
    key = Pulled(kept)
    place = replace(sited.place, site=(ShareOpener(key),))  # type: ignore[arg-type]
    request = sited.request(bundle)
    answers = [sited.approve(bundle, request, who) for who in QUORUM]

    def run() -> None:
        situation = sited.situation("host", *answers)
        target = tmp_path / "out"
        open_release(bundle, request, target, situation=situation, tpm=sited.tpm, place=place)

    with pytest.raises(Unavailable, match="the token is gone"):
        run()
    assert not (tmp_path / "out").exists()
    run()
    assert 2 == key.asked
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_another_sites_hsm_opens_nothing(sited: Cast, tmp_path: Path) -> None:
    """A bundle for one site is refused at another, though its HSM is as good."""
    add_sites(sited, "ams1")
    bundle = sited.seal(site="fra1")
    with stays_shut("site.key", tmp_path / "out"):
        open_at(sited, bundle, [sited.people["ams1"].opener], tmp_path / "out")


def test_a_publisher_says_for_which_site_he_seals(sited: Cast) -> None:
    """With two sites he must choose one; a site that is none is refused before anything is read."""
    add_sites(sited, "ams1")
    for site in (None, "sec1", "lhr1"):
        with pytest.raises(Refused) as caught:
            sited.seal(f"for-{site}", site=site)
        assert "seal.site" == caught.value.check
    assert (sited.people["ams1"].opener.recipient,) == sited.seal(site="ams1").core.site


def test_every_hsm_of_a_site_opens(cast: Cast, tmp_path: Path) -> None:
    """A site with two HSMs gets its half in both, and either opens."""
    add_sites(cast, "fra1", keys=2)
    bundle = cast.seal()
    for number, key in enumerate(cast.people["fra1"].sharing):
        open_at(cast, bundle, [ShareOpener(key)], tmp_path / f"out-{number}")
        assert same_tree(tmp_path / "model", tmp_path / f"out-{number}")


def test_a_manifest_that_leaves_the_site_out_is_refused(sited: Cast) -> None:
    """A publisher cannot seal past the site: not without it, not to a key of his own."""
    bundle = sited.seal()
    manifest = bundle.statement.predicate
    assert set() == failures(sited, bundle.statement)
    slots = tuple(s for s in manifest.envelope.slots if s.purpose != "site")
    bare = Manifest(
        core=msgspec.structs.replace(manifest.core, site=None),
        envelope=msgspec.structs.replace(manifest.envelope, slots=slots),
    )
    without = {"manifest.site", "manifest.site-in-force"}
    assert without == failures(sited, resigned(sited, bundle, bare).statement)
    officer = sited.people["sec1"].opener.recipient
    for recipient in (officer, "ab" * 32):
        moved = _to(manifest, recipient)
        found_ = failures(sited, resigned(sited, bundle, moved).statement)
        assert {"manifest.slots", *without} == found_
    with pytest.raises(ValueError, match="site key of the core"):
        Manifest(core=manifest.core, envelope=bare.envelope)
    with refused(sited, "manifest.site"):
        sited.request(resigned(sited, bundle, bare))


def _to(manifest: Manifest, recipient: KeyId) -> Manifest:
    """Name another recipient in the site's slot and in the core."""
    slots = [
        msgspec.structs.replace(s, recipient=recipient) if s.purpose == "site" else s
        for s in manifest.envelope.slots
    ]
    return Manifest(
        core=msgspec.structs.replace(manifest.core, site=(recipient,)),
        envelope=msgspec.structs.replace(
            manifest.envelope,
            slots=tuple(sorted(slots, key=lambda s: (s.purpose, s.leaf, s.recipient))),
        ),
    )


def _with_slot(manifest: Manifest, slot: KeySlot, **changes: object) -> Manifest:
    slots = tuple(
        msgspec.structs.replace(s, **changes) if s is slot else s for s in manifest.envelope.slots
    )
    envelope = msgspec.structs.replace(manifest.envelope, slots=slots)
    return Manifest(core=manifest.core, envelope=envelope)


def test_a_tampered_site_slot_does_not_open(sited: Cast, tmp_path: Path) -> None:
    """Changed, copied from another manifest or holding something else: refused, nothing written."""
    bundle, other = sited.seal(), sited.seal("other")
    manifest, core = bundle.statement.predicate, bundle.core
    site = sited.people["fra1"].opener
    (slot,) = (s for s in manifest.envelope.slots if s.purpose == "site")
    (foreign,) = (s for s in other.statement.predicate.envelope.slots if s.purpose == "site")
    flipped = slot.sealed[:-1] + bytes([slot.sealed[-1] ^ 1])
    for sealed in (flipped, foreign.sealed):
        bent = resigned(sited, bundle, _with_slot(manifest, slot, sealed=sealed))
        with stays_shut("slot.open", tmp_path / "out"):
            open_at(sited, bent, [site], tmp_path / "out")
    info = slot_info(core.binding(), "site", "", site.recipient)
    (key,) = (k for k in sited.people["fra1"].principal().keys if k.key_id == site.recipient)
    long = seal("P256", key.spki, None, bytes(33), info=info)
    with stays_shut("site.half", tmp_path / "out"):
        open_at(
            sited,
            resigned(sited, bundle, _with_slot(manifest, slot, sealed=long)),
            [site],
            tmp_path / "out",
        )
    zeros = seal("P256", key.spki, None, bytes(32), info=info)
    with stays_shut("wrap.open", tmp_path / "out"):
        open_at(
            sited,
            resigned(sited, bundle, _with_slot(manifest, slot, sealed=zeros)),
            [site],
            tmp_path / "out",
        )


def test_a_key_wrapped_under_the_release_secret_alone_is_found_out(
    sited: Cast, tmp_path: Path
) -> None:
    """A publisher who fills the slot but wraps under R alone hurts his own bundle."""
    bundle = sited.seal()
    manifest = bundle.statement.predicate
    binding, kept = bundle.core.binding(), manifest.wrap("cek")
    site = sited.people["fra1"].opener
    (slot,) = manifest.slots_for(site.recipient)
    info = slot_info(binding, "site", "", site.recipient)
    release = everything(sited, manifest)
    half = open_slot(slot.suite, site.key, None, slot.sealed, info=info)
    cek = unwrap(release + half, kept.salt, kept.sealed, C=binding, purpose="cek")
    salt, sealed = wrap(release, cek, C=binding, purpose="cek")
    wraps = (Wrap(purpose="cek", salt=salt, sealed=sealed), manifest.wrap("contents"))
    envelope = msgspec.structs.replace(manifest.envelope, wraps=wraps)
    cheating = resigned(sited, bundle, Manifest(core=manifest.core, envelope=envelope))
    with stays_shut("wrap.open", tmp_path / "out"):
        open_at(sited, cheating, [site], tmp_path / "out")


def test_a_site_that_comes_or_goes_ends_what_was_sealed_before(cast: Cast) -> None:
    """The policy in force decides: sealed before the site was demanded, or for one struck off."""
    before = cast.seal("before")
    add_sites(cast, "fra1")
    assert {"manifest.site-in-force"} == failures(cast, before.statement)
    after = cast.seal("after")
    gone = cast.people.pop("fra1")
    add_sites(cast, "ams1")
    assert {"manifest.site-in-force"} == failures(cast, after.statement)
    # Where no site is demanded any more, what takes one still takes it.
    del cast.people["ams1"]
    put_in_force(cast)
    assert set() == failures(cast, after.statement)
    assert (gone.opener.recipient,) == after.core.site


def test_a_site_whose_key_is_revoked_releases_nothing(sited: Cast) -> None:
    """Its certificate revoked, nothing is sealed to it and nothing sealed to it is released."""
    bundle = sited.seal()
    site = sited.people["fra1"]
    (share,) = (k for k in site.principal().keys if k.key_id == site.opener.recipient)
    sited.crl = sited.make_crl(number=2, revoked=[share.spki])
    sited.refresh()
    assert {"manifest.site-in-force"} == failures(sited, bundle.statement)
    with refused(sited, "seal.site"):
        sited.seal_into(sited.folder / "model", sited.folder / "again.bundle")


def test_recovery_re_wraps_for_another_site(cast: Cast, tmp_path: Path) -> None:
    """When a site's HSM is lost, the recovery key brings the bundle to another, by a new half."""
    made = found(cast)
    add_sites(cast, "fra1")
    bundle = cast.seal()
    del cast.people["fra1"]
    add_sites(cast, "ams1")
    with refused(cast, "manifest.site-in-force"):
        cast.request(bundle)
    done = broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))
    again = signed(cast, bundle, done, tmp_path / "again")
    assert (cast.people["ams1"].opener.recipient,) == again.core.site
    open_at(cast, again, [cast.people["ams1"].opener], tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_a_site_is_nothing_else(cast: Cast) -> None:
    """A policy whose site is also an officer, or has no key to seal to, is unsound."""
    add_sites(cast, "fra1")
    policy = cast.situation("sec1").trusted.policy
    assert "fra1" in {site.id for site in policy.sites}
    (site,) = policy.sites
    for changed, said in (
        (msgspec.structs.replace(site, roles=("site", "officer")), "another role"),
        (msgspec.structs.replace(site, keys=site.keys[:1]), "no share key"),
    ):
        others = tuple(p if p is not site else changed for p in policy.principals)
        verdicts = check_policy(msgspec.structs.replace(policy, principals=others))
        assert [said] == [
            said for v in verdicts if v.check == "policy.sites" and said in v.reason
        ], verdicts
    strong = msgspec.structs.replace(policy, weakest_suite="P384")
    (verdict,) = (v for v in check_policy(strong) if v.check == "policy.sites")
    assert "weaker than P384" in verdict.reason


def test_a_kept_key_needs_the_site_once(sited: Cast, tmp_path: Path) -> None:
    """It is unsealed without the HSM; once the policy strikes the site off, never."""
    sited.next_policy(modes=("once", "sealed"))
    bundle = sited.seal()
    request = sited.request(bundle, mode="sealed")
    answers = [sited.approve(bundle, request, who) for who in QUORUM]
    open_release(
        bundle,
        request,
        tmp_path / "first",
        situation=sited.situation("host", *answers),
        tpm=sited.tpm,
        place=replace(sited.place, site=(sited.people["fra1"].opener,)),
    )

    def unseal(target: Path) -> None:
        unseal_release(
            bundle,
            target,
            situation=sited.situation("host"),
            tpm=sited.tpm,
            place=sited.place,
            event_log=sited.event_log,
        )

    unseal(tmp_path / "second")
    assert same_tree(tmp_path / "model", tmp_path / "second")
    del sited.people["fra1"]
    add_sites(sited, "ams1")
    with stays_shut("manifest.site-in-force", tmp_path / "third"):
        unseal(tmp_path / "third")
