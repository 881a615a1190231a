from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec.structs import replace

from custody.crypto import keyslots
from custody.crypto.certificates import crl_number, read_certificate, read_crl, revocations_of
from custody.crypto.oaepslots import OaepParameters
from custody.encoding import decode, encode, key_id
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.admission import Admission, Invitation
from custody.formats.envelope import decode_statement, encode_statement
from custody.formats.policy import Role, SigningKey, SuiteName
from custody.formats.possession import ShareAnswer, ShareChallenge
from custody.keys.api import KeyRole
from custody.ops import admit, authority
from custody.ops.actor import openers_of, signer_of
from custody.ops.home import Home
from custody.rules.certificates import check_certificate
from custody.rules.verdicts import passed
from tests.sim.softtoken import SoftOaepKeys, SoftToken
from tests.unit.people import NOW


class Custodian:
    """A custodian with an authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "ida")
        self.token = SoftToken()
        self.invitation = admit.invite(self.home, environment="production", custodian="ida")
        authority.found_authority(self.home, self.token, name="production authority", now=NOW)

    @property
    def authority(self) -> authority.Authority:
        return authority.open_authority(self.home, self.token)

    def check(self, data: bytes) -> admit.CheckedAdmission:
        """Check an admission that came as a file."""
        path = self.folder / "offered.dsse"
        path.write_bytes(data)
        return admit.check(self.home, path)


class Person:
    """Somebody with a home and a token."""

    def __init__(self, folder: Path, name: str = "alice", role: Role = "officer") -> None:
        self.name, self.role = name, role
        self.home, self.token = Home(folder / name), SoftToken()

    def enroll(
        self,
        invitation: Invitation,
        *,
        suite: SuiteName | Literal["strongest"] | None = "P256",
        name: str = "",
        display: str = "",
        uri: str = "pkcs11:token=alice",
    ) -> bytes:
        """Make keys and offer them."""
        return admit.enroll(
            self.home,
            self.token,
            token_uri=uri,
            principal=name or self.name,
            display=display,
            role=self.role,
            invitation=invitation,
            suite=suite,
        )


@pytest.fixture
def ida(tmp_path: Path) -> Custodian:
    """A custodian who keeps the authority."""
    return Custodian(tmp_path)


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    """An officer to be."""
    return Person(tmp_path)


@pytest.mark.parametrize("suite", ["P256", "P384", "MLKEM1024_P384"])
def test_what_is_admitted_is_what_the_token_holds(
    ida: Custodian, alice: Person, suite: SuiteName
) -> None:
    """The keys a policy will list are found again in the token and home of who offered them."""
    person = ida.check(alice.enroll(ida.invitation, suite=suite)).principal
    identity = alice.home.identity()
    signing, share = person.keys
    assert signing.key_id == signer_of(identity, alice.token).key_id
    (opener,) = openers_of(alice.home, identity, alice.token)
    assert share.key_id == opener.recipient
    assert (suite == "MLKEM1024_P384") == (opener.mlkem_seed is not None)


class PoorToken(SoftToken):
    """A token without P-384, as some smart cards are."""

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve
    ) -> ec.EllipticCurvePrivateKey:
        """Make a key, if it is on P-256."""
        if curve.name != "secp256r1":
            raise Unavailable("the token has no such curve")
        return super().make(role, label, curve)


@pytest.mark.parametrize(
    ("token", "suite"), [(SoftToken(), "MLKEM1024_P384"), (PoorToken(), "P256")]
)
def test_the_strongest_suite_is_the_tokens(
    ida: Custodian, alice: Person, token: SoftToken, suite: SuiteName
) -> None:
    """Who says nothing gets a post-quantum share key where his token can, else P-256."""
    alice.token = token
    person = ida.check(alice.enroll(ida.invitation, suite="strongest")).principal
    _, share = person.keys
    assert suite == getattr(share, "suite", None)


def test_an_upgrade_offers_the_hybrid_and_keeps_the_old_key(ida: Custodian, alice: Person) -> None:
    """Done twice it is the same key; what was sealed to the first opens by the first."""
    first = ida.check(alice.enroll(ida.invitation)).principal
    second = ida.check(admit.upgrade(alice.home, alice.token, invitation=ida.invitation)).principal
    again = ida.check(admit.upgrade(alice.home, alice.token, invitation=ida.invitation)).principal
    assert second == again
    assert first.keys[0] == second.keys[0]
    assert "MLKEM1024_P384" == getattr(second.keys[1], "suite", None)
    openers = openers_of(alice.home, alice.home.identity(), alice.token)
    assert [first.keys[1].key_id, second.keys[1].key_id] == [o.recipient for o in openers]


def test_who_shares_nothing_upgrades_nothing(ida: Custodian, tmp_path: Path) -> None:
    """A custodian has no share key to upgrade."""
    someone = Person(tmp_path, "bob", "custodian")
    someone.enroll(ida.invitation, suite=None)
    with pytest.raises(Refused) as caught:
        admit.upgrade(someone.home, someone.token, invitation=ida.invitation)
    assert "upgrade.role" == caught.value.check


def test_everything_is_made_in_one_login(ida: Custodian, alice: Person) -> None:
    """A person is asked for his PIN once."""
    alice.enroll(ida.invitation)
    assert 1 == alice.token.logins


@pytest.mark.parametrize("role", ["custodian", "enroller"])
def test_who_opens_no_shares_gets_no_share_key(ida: Custodian, tmp_path: Path, role: Role) -> None:
    """Without a suite only a signing key is made."""
    someone = Person(tmp_path, "bob", role)
    someone.enroll(ida.invitation, suite=None)
    assert [KeyRole.SIGN] == [made_for for made_for, _, _ in someone.token.made]


def test_publisher_keeps_his_share_key(ida: Custodian, tmp_path: Path) -> None:
    """A publisher gets a key for his own unfinished work, and offers nobody but the other one."""
    someone = Person(tmp_path, "bob", "publisher")
    for _ in range(2):
        offered = ida.check(someone.enroll(ida.invitation, suite=None)).principal.keys
        assert ["SigningKey"] == [type(key).__name__ for key in offered]
    assert [KeyRole.SHARE, KeyRole.SIGN] == [made_for for made_for, _, _ in someone.token.made]


def test_enrolling_again_offers_the_same_keys(ida: Custodian, alice: Person) -> None:
    """A lost admission file, or a new invitation, makes no new keys."""
    first = ida.check(alice.enroll(ida.invitation)).principal
    again = admit.invite(ida.home, environment="production", custodian="ida")
    assert first == ida.check(alice.enroll(again)).principal
    assert 2 == len(alice.token.made)


@pytest.mark.parametrize("change", [{"name": "bob"}, {"uri": "pkcs11:token=other"}])
def test_a_home_is_for_one_person_with_one_token(
    ida: Custodian, alice: Person, change: dict[str, str]
) -> None:
    """Another name or token needs another home."""
    alice.enroll(ida.invitation)
    with pytest.raises(Refused) as refused:
        alice.enroll(ida.invitation, suite="P256", **change)
    assert "home.taken" == refused.value.check


@pytest.mark.parametrize(
    "words", [{"name": "Alice!"}, {"name": "a/b"}, {"display": "a\nb"}, {"display": "x" * 201}]
)
def test_a_bad_name_makes_no_keys(ida: Custodian, alice: Person, words: dict[str, str]) -> None:
    """What could not be read back is refused before the token is touched."""
    with pytest.raises(Malformed):
        alice.enroll(ida.invitation, suite="P256", **words)
    assert [] == alice.token.made
    assert not alice.home.has_identity()


def test_an_answer_to_another_invitation_is_refused(ida: Custodian, alice: Person) -> None:
    """Only who made an invitation can check the proofs that answer it."""
    other = Custodian(alice.home.path.parent / "other")
    with pytest.raises(Refused) as refused:
        ida.check(alice.enroll(other.invitation))
    assert "admission.invitation" == refused.value.check


def test_a_changed_admission_is_refused(ida: Custodian, alice: Person) -> None:
    """A role changed on the way is found by the signature."""
    data = alice.enroll(ida.invitation)
    statement = decode_statement(Admission, data)
    promoted = replace(statement.predicate, role="custodian")
    with pytest.raises(Refused) as refused:
        ida.check(encode_statement(promoted, statement.envelope.signatures))
    assert "admission.signature" == refused.value.check


def test_every_key_gets_a_good_certificate(ida: Custodian, alice: Person) -> None:
    """What is issued for an admission passes the rule that judges certificates."""
    admission = ida.check(alice.enroll(ida.invitation, suite="P384"))
    issued = authority.issue(ida.authority, admission, now=NOW)
    for key, certificate in zip(admission.principal.keys, issued, strict=True):
        verdicts = check_certificate(
            key.spki,
            use="sign" if isinstance(key, SigningKey) else "share",
            principal="alice",
            certificates=[c.der for c in issued],
            authorities=[ida.authority.certificate],
            crls=[authority.newest_crl(ida.home)],
            crl_floor={},
            crl_max_age_seconds=86400,
            moment=NOW,
        )
        assert passed(verdicts)
        assert certificate.name.startswith("alice.")
        assert (certificate.der,) == authority.certificates_of(ida.home, key_id(key.spki))


def test_a_certificate_ends_with_its_authority(ida: Custodian, alice: Person) -> None:
    """Near the end of an authority's life a certificate is cut short, not refused."""
    admission = ida.check(alice.enroll(ida.invitation))
    late = NOW + authority.AUTHORITY_LIFE - timedelta(days=30)
    (first, *_) = authority.issue(ida.authority, admission, now=late)
    ends = read_certificate(ida.authority.certificate).not_valid_after_utc
    assert ends == read_certificate(first.der).not_valid_after_utc


def test_only_publishers_sign_code(ida: Custodian, tmp_path: Path) -> None:
    """The extended use that model signing looks for is in a publisher's certificate alone."""
    found = {}
    for role in ("publisher", "officer"):
        someone = Person(tmp_path, role, role)
        offered = ida.check(someone.enroll(ida.invitation, suite=None))
        (issued,) = authority.issue(ida.authority, offered, now=NOW)
        extensions = read_certificate(issued.der).extensions
        found[role] = any("2.5.29.37" == e.oid.dotted_string for e in extensions)
    assert {"publisher": True, "officer": False} == found


def test_a_revocation_list_grows(ida: Custodian, alice: Person) -> None:
    """Each list has the next number and every entry of the one before."""
    admission = ida.check(alice.enroll(ida.invitation))
    one, two = authority.issue(ida.authority, admission, now=NOW)

    def revoke(der: bytes) -> bytes:
        return authority.revoke(ida.authority, [der], reason="keyCompromise", since=NOW, now=NOW)

    revoke(one.der)
    third = read_crl(revoke(two.der))
    renewed = read_crl(authority.renew(ida.authority, now=NOW + timedelta(days=20)))
    serials = {read_certificate(c.der).serial_number for c in (one, two)}
    assert (3, 4) == (crl_number(third), crl_number(renewed))
    assert serials == {entry.serial for entry in revocations_of(renewed)}


def test_revoking_twice_keeps_the_first_moment(ida: Custodian, alice: Person) -> None:
    """A second revocation cannot move the first to a later time."""
    admission = ida.check(alice.enroll(ida.invitation))
    (one, *_) = authority.issue(ida.authority, admission, now=NOW)
    later = NOW + timedelta(hours=5)
    for since in (NOW, later):
        crl = authority.revoke(
            ida.authority, [one.der], reason="superseded", since=since, now=later
        )
    assert [NOW] == [entry.revoked_at for entry in revocations_of(read_crl(crl))]


def test_a_newer_list_from_elsewhere_is_continued(ida: Custodian, alice: Person) -> None:
    """When the authority's token was used at another machine, its newer list is the base."""
    kept = authority.newest_crl(ida.home)
    newer = authority.renew(ida.authority, now=NOW)
    (ida.home.path / "authority.crl").write_bytes(kept)
    assert 3 == crl_number(read_crl(authority.renew(ida.authority, now=NOW, current=newer)))


def test_only_our_own_certificates_are_revoked(ida: Custodian, tmp_path: Path) -> None:
    """A certificate or list of another authority is refused."""
    other = Custodian(tmp_path / "other")
    with pytest.raises(Refused) as certificate:
        authority.revoke(
            ida.authority,
            [other.authority.certificate],
            reason="unspecified",
            since=NOW,
            now=NOW,
        )
    with pytest.raises(Refused) as crl:
        authority.renew(ida.authority, now=NOW, current=authority.newest_crl(other.home))
    assert ["revoke.issuer"] * 2 == [certificate.value.check, crl.value.check]


def test_an_interrupted_start_can_be_made_again(ida: Custodian) -> None:
    """Founding an authority twice keeps the first; another environment's is refused."""
    again = authority.found_authority(ida.home, ida.token, name="production authority", now=NOW)
    assert again == ida.authority.certificate
    with pytest.raises(Refused) as refused:
        authority.found_authority(ida.home, ida.token, name="staging authority", now=NOW)
    assert "home.taken" == refused.value.check


def test_what_was_admitted_is_kept(ida: Custodian, alice: Person) -> None:
    """The custodian's home holds the admission as it came, byte for byte."""
    data = alice.enroll(ida.invitation)
    admit.keep(ida.home, ida.check(data))
    (kept,) = ida.home.folder("admitted").iterdir()
    assert data == kept.read_bytes()


def test_a_home_without_an_authority_says_so(alice: Person) -> None:
    """Who keeps no authority is told where to look."""
    with pytest.raises(Incomplete):
        authority.open_authority(alice.home, alice.token)


def test_an_authority_cannot_revoke_itself(ida: Custodian) -> None:
    """A list that names its own issuer would change nothing: the next policy must drop it."""
    before = authority.newest_crl(ida.home)
    with pytest.raises(Refused) as caught:
        authority.revoke(
            ida.authority, [ida.authority.certificate], reason="keyCompromise", since=NOW, now=NOW
        )
    assert "revoke.authority" == caught.value.check
    assert "next policy" in (caught.value.hint or "")
    assert before == authority.newest_crl(ida.home)


# ── share keys that only decrypt ─────────────────────────────────────────────────────────────────
class RsaToken(SoftToken):
    """A token that agrees on no curve."""

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve
    ) -> ec.EllipticCurvePrivateKey:
        """Make a key, if it signs."""
        if role.derives:
            raise Unavailable("the token does not offer ECDH1_DERIVE")
        return super().make(role, label, curve)


class Sha1Keys(SoftOaepKeys):
    """RSA keys of a token that has no other hash."""

    def make(self, label: str, parameters: OaepParameters) -> rsa.RSAPrivateKey:
        """Make a key pair, if it is for SHA-1."""
        if parameters.digest.name != "sha1":
            raise Unavailable("the token cannot do this operation")
        return super().make(label, parameters)


class OldToken(RsaToken):
    """A token that decrypts by SHA-1 alone."""

    def decrypting(self) -> SoftOaepKeys:
        """Return its keys."""
        return Sha1Keys(self)


@pytest.mark.parametrize(
    ("token", "suite"),
    [(RsaToken(), "RSA3072_OAEP_SHA256"), (OldToken(), "RSA3072_OAEP_SHA1")],
)
def test_a_token_that_does_not_agree_decrypts(
    ida: Custodian, alice: Person, token: SoftToken, suite: SuiteName
) -> None:
    """Who has only RSA gets the best suite that his token does, and opens by the key it made."""
    alice.token = token
    offered = decode_statement(Admission, alice.enroll(ida.invitation, suite="strongest")).predicate
    (claim,) = offered.shares
    assert (suite, None) == (claim.suite, claim.proof)
    (opener,) = openers_of(alice.home, alice.home.identity(), alice.token)
    assert key_id(claim.spki) == opener.recipient


def test_a_publisher_without_a_curve_keeps_his_work_by_rsa(ida: Custodian, tmp_path: Path) -> None:
    """His own share key is RSA too; nobody is offered it."""
    bob = Person(tmp_path, "bob", "publisher")
    bob.token = RsaToken()
    assert [] == list(
        decode_statement(Admission, bob.enroll(ida.invitation, suite=None)).predicate.shares
    )
    assert 1 == len(bob.token.decrypts)


def test_a_host_gets_no_key_that_only_decrypts(ida: Custodian, tmp_path: Path) -> None:
    """No policy takes one: he is refused before any key is made, and agrees where he can."""
    host = Person(tmp_path, "mainframe", "host")
    host.token = RsaToken()
    with pytest.raises(Unavailable, match="ECDH1_DERIVE") as caught:
        host.enroll(ida.invitation, suite="strongest")
    assert "agrees on a curve, not by RSA" in (caught.value.hint or "")
    with pytest.raises(Refused, match="this one only decrypts") as refused:
        host.enroll(ida.invitation, suite="RSA3072_OAEP_SHA256")
    assert "enroll.host" == refused.value.check
    assert ([], []) == (list(host.token.made), list(host.token.decrypts))
    host.token = PoorToken()
    (share,) = decode_statement(
        Admission, host.enroll(ida.invitation, suite="strongest")
    ).predicate.shares
    assert "P256" == share.suite


@pytest.fixture
def rsa_alice(alice: Person) -> Person:
    """An officer whose token only has RSA."""
    alice.token = RsaToken()
    return alice


def write(folder: Path, name: str, data: bytes) -> Path:
    """Write a file that somebody was sent."""
    path = folder / name
    path.write_bytes(data)
    return path


def test_an_rsa_key_is_vouched_for_until_it_is_proven(
    ida: Custodian, rsa_alice: Person, tmp_path: Path
) -> None:
    """Without the second round nobody is admitted; with it he is, and again without being asked."""
    data = rsa_alice.enroll(ida.invitation, suite="strongest")
    with pytest.raises(Incomplete) as caught:
        ida.check(data)
    assert "vouched for" in caught.value.reason
    asked = write(tmp_path, "challenge", admit.challenge(ida.home, ida.folder / "offered.dsse"))
    with pytest.raises(Incomplete):
        ida.check(data)
    said = write(tmp_path, "answer", admit.answer(rsa_alice.home, rsa_alice.token, asked))
    digest = admit.take_answer(ida.home, said)
    assert decode_statement(Admission, data).digest == digest
    for _ in range(2):
        (key,) = (k for k in ida.check(data).principal.keys if not isinstance(k, SigningKey))
        assert "RSA3072_OAEP_SHA256" == key.suite


def test_certificates_of_rsa_share_keys_hold(
    ida: Custodian, rsa_alice: Person, tmp_path: Path
) -> None:
    """A share key that decrypts gets a certificate that says so, and passes for nothing else."""
    data = rsa_alice.enroll(ida.invitation, suite="strongest")
    admission = prove(ida, rsa_alice, data, tmp_path)
    issued = authority.issue(ida.authority, admission, now=NOW)
    share = admission.principal.keys[1]
    for use, holds in (("share", True), ("sign", False)):
        verdicts = check_certificate(
            share.spki,
            use=use,  # type: ignore[arg-type]
            principal="alice",
            certificates=[c.der for c in issued],
            authorities=[ida.authority.certificate],
            crls=[authority.newest_crl(ida.home)],
            crl_floor={},
            crl_max_age_seconds=86400,
            moment=NOW,
        )
        assert holds == passed(verdicts)


def prove(ida: Custodian, who: Person, data: bytes, folder: Path) -> admit.CheckedAdmission:
    """Have somebody answer a challenge to his admission."""
    offered = write(folder, "proven.dsse", data)
    asked = write(folder, "challenge", admit.challenge(ida.home, offered))
    admit.take_answer(ida.home, write(folder, "answer", admit.answer(who.home, who.token, asked)))
    return ida.check(data)


def test_who_relays_a_challenge_gets_no_answer(
    ida: Custodian, rsa_alice: Person, tmp_path: Path
) -> None:
    """Mallory, who offers Alice's RSA key as his own, cannot have her prove it for him."""
    rsa_alice.enroll(ida.invitation, suite="strongest")
    (hers,) = rsa_alice.home.identity().shares
    mallory = Person(tmp_path, "mallory")
    mallory.token = RsaToken(decrypts=rsa_alice.token.decrypts)
    mallory.enroll(ida.invitation, suite=None)
    identity = mallory.home.identity()
    mallory.home.change_identity(replace(identity, shares=(hers,)))
    data = mallory.enroll(ida.invitation, suite="strongest")
    assert hers.spki == decode_statement(Admission, data).predicate.shares[0].spki
    asked = admit.challenge(ida.home, write(tmp_path, "mallory.dsse", data))
    with pytest.raises(Refused) as caught:
        admit.answer(rsa_alice.home, rsa_alice.token, write(tmp_path, "relayed", asked))
    assert "admission.challenge" == caught.value.check


def test_answers_that_prove_nothing(ida: Custodian, rsa_alice: Person, tmp_path: Path) -> None:
    """An answer with another proof, to another challenge, or to none, is refused."""
    data = rsa_alice.enroll(ida.invitation, suite="strongest")
    offered = write(tmp_path, "offered", data)
    asked = write(tmp_path, "challenge", admit.challenge(ida.home, offered))
    said = admit.answer(rsa_alice.home, rsa_alice.token, asked)
    good = decode(ShareAnswer, said)
    proof = good.proofs[0]
    wrong = proof[:-1] + ("0" if proof[-1] != "0" else "1")
    for bad in (
        replace(good, proofs=(wrong,)),
        replace(good, proofs=(proof, proof)),
        replace(good, challenge="00" * 32),
        replace(good, admission="00" * 32),
    ):
        with pytest.raises(Refused) as caught:
            admit.take_answer(ida.home, write(tmp_path, "bad", encode(bad)))
        assert "admission.challenge" == caught.value.check
    # A new challenge makes the old answer worthless.
    admit.challenge(ida.home, offered)
    with pytest.raises(Refused):
        admit.take_answer(ida.home, write(tmp_path, "late", said))


def test_a_challenge_that_hides_a_slot_opens_nothing(
    ida: Custodian, rsa_alice: Person, tmp_path: Path
) -> None:
    """A slot of a bundle, sent as a challenge, is refused in the token's owner's program."""
    data = rsa_alice.enroll(ida.invitation, suite="strongest")
    offered = write(tmp_path, "offered", data)
    asked = decode(ShareChallenge, admit.challenge(ida.home, offered))
    (share,) = rsa_alice.home.identity().shares
    slot = keyslots.seal(share.suite, share.spki, None, bytes(64), info=bytes(32))
    trick = replace(asked, slots=(replace(asked.slots[0], sealed=slot),))
    with pytest.raises(Refused) as caught:
        admit.answer(rsa_alice.home, rsa_alice.token, write(tmp_path, "trick", encode(trick)))
    assert "slot.open" == caught.value.check


def test_there_is_nothing_to_challenge_in_keys_that_agree(
    ida: Custodian, alice: Person, tmp_path: Path
) -> None:
    """Who proved his key in the admission is asked no more."""
    offered = write(tmp_path, "offered", alice.enroll(ida.invitation))
    with pytest.raises(Refused) as caught:
        admit.challenge(ida.home, offered)
    assert "admission.challenge" == caught.value.check


def test_an_rsa_officer_upgrades_by_another_token(ida: Custodian, rsa_alice: Person) -> None:
    """A token that does not agree makes no hybrid; nothing of what he has changes."""
    rsa_alice.enroll(ida.invitation, suite="strongest")
    before = rsa_alice.home.identity()
    with pytest.raises(Unavailable):
        admit.upgrade(rsa_alice.home, rsa_alice.token, invitation=ida.invitation)
    assert before == rsa_alice.home.identity()
