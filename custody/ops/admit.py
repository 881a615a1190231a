"""People: their keys are made in their own tokens, and a custodian admits them.  admission.md."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.certificates import make_csr, read_csr
from custody.crypto.keyslots import STRENGTH, is_oaep
from custody.encoding import Digest, KeyId, Record, decode, encode, key_id
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.admission import Admission, Invitation, InvitationKeys, claim_share
from custody.formats.envelope import Statement, decode_statement, encode_statement
from custody.formats.policy import Principal, Role, ShareKey, SigningKey, SuiteName, TokenClass
from custody.formats.possession import KeptChallenge, ShareAnswer, ShareChallenge
from custody.formats.state import Identity, ShareIdentity
from custody.formats.vendor import KeptAttestations, KeyAttestation
from custody.keys.api import KeyRole, Token
from custody.ops.actor import ShareKeyPair, find_share_key, make_share_key, signer_of
from custody.ops.folders import read_file, reading
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.ops.landing import replace_file, write_new_file
from custody.ops.wellformed import check_name, well_formed
from custody.rules.admission import CHALLENGE, check_admission
from custody.rules.vendor import check_attestation, check_offered
from custody.rules.verdicts import Verdict, require

_INVITATIONS = "invitations"
_ADMITTED = "admitted"
_CHALLENGES = "share-challenges"
_OFFERED = "offered"
_ATTESTED = "attested"
_MAX_BYTES = 1 << 20
HOST = "enroll.host"
_HYBRID: SuiteName = "MLKEM1024_P384"
_OAEP: tuple[SuiteName, ...] = tuple(reversed([s for s in STRENGTH if is_oaep(s)]))
MAX_DISPLAY_CHARS = 200


class OfferedKey(Record, frozen=True, kw_only=True):
    """One key of an admission, for people to compare."""

    use: str
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAdmission:
    """An admission whose every proof holds.  Whose it is, a person has to say."""

    statement: Statement[Admission]
    verdicts: tuple[Verdict, ...]
    attested: tuple[KeyAttestation, ...] = ()
    """Which of its keys a vendor says are in a token of its own, as this home verified."""

    @property
    def principal(self) -> Principal:
        """What a policy says about its sender."""
        admission = self.statement.predicate
        signing = read_csr(admission.csr).spki
        keys: list[SigningKey | ShareKey] = [
            SigningKey(spki=signing, token_class=self._class_of(signing))
        ]
        keys += [
            ShareKey(
                spki=share.spki,
                suite=share.suite,
                mlkem=share.mlkem,
                token_class=self._class_of(share.spki),
            )
            for share in admission.shares
        ]
        return Principal(
            id=admission.principal,
            name=admission.display,
            roles=(admission.role,),
            keys=tuple(keys),
        )

    def standing(self, key: KeyId) -> str:
        """Say what a vendor's certificates show of where a key is; "" where there are none."""
        # They are for what is in the token: of a hybrid key, for its half.
        halves = {key_id(each.spki) for each in self.principal.keys if each.key_id == key}
        for attested in self.attested:
            if attested.key in halves:
                return f"attested by its vendor: {attested.words()}"
        if self.statement.predicate.attestation and not self.attested:
            return "not verified: its vendor's certificates, by --attestation-root"
        return ""

    def _class_of(self, spki: bytes) -> TokenClass:
        attested = {key.key for key in self.attested}
        return (
            "vendor-attested" if key_id(spki) in attested else self.statement.predicate.token_class
        )

    @property
    def offered(self) -> tuple[OfferedKey, ...]:
        """Its keys, as policy and certificates will name them."""
        return tuple(
            OfferedKey(
                use="sign" if isinstance(key, SigningKey) else f"share, {key.suite}",
                key_id=key.key_id,
            )
            for key in self.principal.keys
        )


def invite(home: Home, *, environment: str, custodian: str) -> Invitation:
    """Make an invitation; its private halves stay in the custodian's home."""
    keys = InvitationKeys.generate(
        environment=check_name(environment), custodian=check_name(custodian)
    )
    path = home.folder(_INVITATIONS) / f"{keys.invitation.digest()}.json"
    write_new_file(path, encode(keys), mode=0o600)
    return keys.invitation


def read_invitation(path: Path) -> Invitation:
    """Read an invitation file."""
    with reading(path):
        return decode(Invitation, read_file(path, max_bytes=_MAX_BYTES))


def enroll(
    home: Home,
    token: Token,
    *,
    token_uri: str,
    principal: str,
    display: str,
    role: Role,
    invitation: Invitation,
    suite: SuiteName | Literal["strongest"] | None,
    attestation: Sequence[bytes] = (),
) -> bytes:
    """Make a person's keys in his token and offer them; returns the admission (``.dsse``).

    ``attestation`` are certificates (DER) by which the token's vendor attests keys that were made
    before; of other keys than are offered: `Refused` (``admission.attestation``).

    ``suite`` "strongest" is the hybrid where the token has the curve for it, else P256, else the
    best of RSA that it does; None makes no share key, but for a publisher, who keeps it to himself.
    Done again in the same home it offers the same keys, for a new invitation; another person or
    token needs a home of its own: `Refused` (``home.taken``).  An RSA key for a host is
    `Refused` (``enroll.host``), and in a token that agrees on no curve none is made for him.
    """
    check_name(principal)
    if not display.isprintable() or len(display) > MAX_DISPLAY_CHARS:
        raise Malformed("a name for people is one printable line", where=principal)
    with token.session():
        if home.has_identity():
            identity = home.identity()
            _check_same(home, identity, principal=principal, role=role, token_uri=token_uri)
            signer = signer_of(identity, token)
            pairs = tuple(
                ShareKeyPair(share, find_share_key(token, role, share)) for share in identity.shares
            )
        else:
            suites = _suites_for(suite, role)
            if suites:
                _check_apart(token, role)
            # Before there are keys that only it would know of.
            home.begin()
            label = f"{invitation.environment} {principal}"
            # First the key that a token may be unable to make: else a signing key is left in it.
            pairs = (
                (_share_key(home, token, suites, role=role, label=f"{label} share"),)
                if suites
                else ()
            )
            signer = Signer(token.make(KeyRole.SIGN, f"{label} sign", ec.SECP256R1()))
            identity = Identity(
                kind="custody/identity/v1",
                principal=principal,
                display=display or principal,
                role=role,
                token=token_uri,
                signing_spki=signer.spki,
                shares=tuple(pair.identity for pair in pairs),
            )
            home.save_identity(identity)
        # A publisher's share key keeps what he has not finished sealing; nobody else seals to it.
        offered = () if role == "publisher" else pairs
        return _offer(
            home,
            identity,
            signer,
            offered,
            invitation=invitation,
            token_class=token.info.token_class,
            attestation=attestation,
        )


def _suites_for(
    suite: SuiteName | Literal["strongest"] | None, role: Role
) -> tuple[SuiteName, ...]:
    """List the suites to try for a share key, the best first; none where none is wanted."""
    if role == "host":
        return _host_suites(suite)
    if suite == "strongest":
        return (_HYBRID, "P256", *_OAEP)
    if suite is not None:
        return (suite,)
    return ("P256", *_OAEP) if role == "publisher" else ()


def _host_suites(
    suite: SuiteName | Literal["strongest"] | None,
) -> tuple[SuiteName, ...]:
    """List the suites to try for a host without a TPM; no policy takes one that only decrypts."""
    if suite is None or suite == "strongest":
        return () if suite is None else (_HYBRID, "P256")
    if is_oaep(suite):
        raise Refused("a host opens by a key that agrees, and this one only decrypts", check=HOST)
    return (suite,)


def _share_key(
    home: Home, token: Token, suites: Sequence[SuiteName], *, role: Role, label: str
) -> ShareKeyPair:
    # Not every token has P-384, and some agree on no curve at all.  What is made is tried, and
    # destroyed if it fails: a token is asked by deeds which hash it does.
    for suite in suites[:-1]:
        with suppress(Refused, Unavailable):
            return make_share_key(home, token, suite, role=role, label=label)
    try:
        return make_share_key(home, token, suites[-1], role=role, label=label)
    except Unavailable as error:
        if role == "host":
            why = "a host opens by a key that agrees on a curve, not by RSA"
            error.hint = f"{why}; {error.hint}" if error.hint else why
        raise


def upgrade(home: Home, token: Token, *, invitation: Invitation) -> bytes:
    """Make a hybrid share key beside those somebody has, and offer it; returns the admission.

    Done again it offers the same key, for a new invitation.  His other share keys stay: what was
    sealed to them opens by them.  Raises as `check_upgradable`.
    """
    check_upgradable(home)
    with home.lock(), token.session():
        identity = home.identity()
        signer = signer_of(identity, token)
        known = hybrid_of(identity)
        if known is not None:
            pair = ShareKeyPair(known, find_share_key(token, identity.role, known))
        else:
            label = f"{invitation.environment} {identity.principal} share hybrid"
            pair = make_share_key(home, token, _HYBRID, role=identity.role, label=label)
            home.change_identity(
                msgspec.structs.replace(identity, shares=(*identity.shares, pair.identity))
            )
        return _offer(
            home,
            identity,
            signer,
            (pair,),
            invitation=invitation,
            token_class=token.info.token_class,
        )


def check_upgradable(home: Home) -> None:
    """Refuse to `upgrade` who shares nothing (``upgrade.role``), and whose only key is hybrid
    (``upgrade.done``).
    """
    identity = home.identity()
    if identity.role not in ("officer", "auditor"):
        raise Refused(
            f"nothing is sealed to the keys of a {identity.role}",
            check="upgrade.role",
            where=str(home.path),
        )
    if identity.shares and all(share.suite == _HYBRID for share in identity.shares):
        raise Refused(
            f"nothing to upgrade: the share key is {_HYBRID}, and no suite is stronger",
            check="upgrade.done",
            where=str(home.path),
        )


def hybrid_of(identity: Identity) -> ShareIdentity | None:
    """Return somebody's hybrid share key, if one was made."""
    return next((share for share in identity.shares if share.suite == _HYBRID), None)


def _check_apart(token: Token, role: Role) -> None:
    """Refuse to make a site's keys beside keys that shares are sealed to, and the other way.

    Whoever has such a token and its PIN has both halves of what opens a bundle.  Two partitions of
    one HSM are two tokens, and RSA keys say nothing of their role: those are not seen.
    """
    listed = token.keys()
    held = {key.role for key in listed}
    if role == "site" and KeyRole.SHARE in held:
        raise Refused(
            "this token holds a key that shares are sealed to: it would be no second factor",
            check="site.token",
            hint="a site's keys are made in a token that nobody else has keys in",
        )
    if role != "site" and KeyRole.SITE in held:
        raise Refused(
            "this token holds a site's key, which is to be a second factor beside yours",
            check="site.token",
            hint="take a token of your own",
        )


def _check_same(
    home: Home, identity: Identity, *, principal: str, role: Role, token_uri: str
) -> None:
    if (identity.principal, identity.role, identity.token) != (principal, role, token_uri):
        raise Refused(
            f"this home is {identity.principal}'s, as {identity.role}, with token {identity.token}",
            check="home.taken",
            where=str(home.path),
            hint="take another --home; a second token of one person has a home of its own",
        )


def _offer(
    home: Home,
    identity: Identity,
    signer: Signer,
    pairs: Sequence[ShareKeyPair],
    *,
    invitation: Invitation,
    token_class: TokenClass,
    attestation: Sequence[bytes] = (),
) -> bytes:
    csr = make_csr(signer.key, name=identity.principal)
    claims = tuple(
        claim_share(
            pair.key,
            invitation=invitation,
            principal=identity.principal,
            csr=csr,
            suite=pair.identity.suite,
            mlkem=pair.identity.mlkem,
        )
        for pair in pairs
    )
    admission = Admission(
        invitation=invitation.digest(),
        principal=identity.principal,
        display=identity.display,
        role=identity.role,
        token_class=token_class,
        csr=csr,
        shares=claims,
        attestation=tuple(sorted(set(attestation))),
    )
    check_offered(admission)
    data = signer.statement(well_formed(admission))
    if any(claim.proof is None for claim in claims):
        digest = decode_statement(Admission, data).digest
        replace_file(home.folder(_OFFERED) / f"{digest}.dsse", data)
    return data


def check(home: Home, path: Path) -> CheckedAdmission:
    """Check an admission file against the invitation it answers, which must be of this home.

    Only who made an invitation can check the share keys' proofs: they are made for his eyes.
    Raises `Refused` with the first check that fails, and `Incomplete` where all that is missing is
    the answer to a challenge (`challenge`).
    """
    with reading(path):
        statement, verdicts = _judged(home, path)
        failed = {verdict.check for verdict in verdicts if verdict.outcome == "fail"}
        if failed == {CHALLENGE}:
            raise Incomplete(
                "its share key only decrypts: it is vouched for by the signing key, not proven",
                missing=(f"{statement.predicate.principal}'s answer to a challenge",),
                hint=f"custody custodian challenge {path}",
            )
        require(verdicts)
    kept = _attested_path(home, statement.digest)
    attested: tuple[KeyAttestation, ...] = ()
    if kept.exists():
        with reading(kept):
            attested = decode(KeptAttestations, read_file(kept, max_bytes=_MAX_BYTES)).keys
    return CheckedAdmission(statement=statement, verdicts=verdicts, attested=attested)


def attest(
    home: Home, admission: CheckedAdmission, *, roots: Sequence[bytes], now: datetime
) -> CheckedAdmission:
    """Verify the vendor's attestations that an admission brings, by pinned roots (DER).

    What they show is kept in the home: from then on `check` says so of this admission.  One that
    does not hold is `Refused` (``admission.attestation``); a key without one stays as it is.
    """
    if not admission.statement.predicate.attestation:
        return admission
    digest = admission.statement.digest
    keys, verdicts = check_attestation(admission.statement.predicate, roots=roots, now=now)
    require(verdicts)
    kept = KeptAttestations(kind="custody/attestations-kept/v1", admission=digest, keys=keys)
    replace_file(_attested_path(home, digest), encode(kept), mode=0o600)
    return replace(admission, verdicts=(*admission.verdicts, *verdicts), attested=keys)


def challenge(home: Home, path: Path) -> bytes:
    """Seal something fresh to every share key of an admission that only decrypts.

    Returns the challenge, for who sent the admission; what it must be answered with stays here.
    Whatever else is wrong with the admission is `Refused`, and so is one with nothing to challenge
    (``admission.challenge``).
    """
    with reading(path):
        statement, verdicts = _judged(home, path)
        require(verdict for verdict in verdicts if verdict.check != CHALLENGE)
        claims = [share for share in statement.predicate.shares if is_oaep(share.suite)]
        if not claims:
            raise Refused("every share key is proven by the admission itself", check=CHALLENGE)
    kept = KeptChallenge.generate(statement.digest, claims)
    replace_file(_challenge_path(home, statement.digest), encode(kept), mode=0o600)
    return encode(kept.challenge)


def answer(home: Home, token: Token, path: Path) -> bytes:
    """Open a custodian's challenge with the share keys it is sealed to; returns the answer."""
    with reading(path):
        asked = decode(ShareChallenge, read_file(path, max_bytes=_MAX_BYTES))
        # Somebody could offer our key as his, and send us what the custodian asks him.
        if not (home.folder(_OFFERED) / f"{asked.admission}.dsse").exists():
            raise Refused(
                "a challenge to an admission that this home did not make", check=CHALLENGE
            )
    identity = home.identity()
    known = {key_id(share.spki): share for share in identity.shares}
    with token.session(), reading(path):
        keys = []
        for slot in asked.slots:
            if slot.recipient not in known:
                raise Refused("a challenge to a key that is not yours", check=CHALLENGE)
            share = known[slot.recipient]
            keys.append((share.suite, find_share_key(token, identity.role, share)))
        return encode(asked.answered(keys))


def take_answer(home: Home, path: Path) -> Digest:
    """Keep a right answer to a challenge of this home; returns the admission's digest."""
    with reading(path):
        given = decode(ShareAnswer, read_file(path, max_bytes=_MAX_BYTES))
        kept = _challenge_kept(home, given.admission)
        if kept is None:
            raise Refused("answers no challenge of this home", check=CHALLENGE)
        kept.check(given)
    answered = msgspec.structs.replace(kept, answer=given)
    replace_file(_challenge_path(home, given.admission), encode(answered), mode=0o600)
    return given.admission


def _judged(home: Home, path: Path) -> tuple[Statement[Admission], tuple[Verdict, ...]]:
    statement = decode_statement(Admission, read_file(path, max_bytes=_MAX_BYTES))
    kept = home.folder(_INVITATIONS) / f"{statement.predicate.invitation}.json"
    if not kept.exists():
        raise Refused(
            "answers no invitation of this home",
            check="admission.invitation",
            hint="the custodian who made the invitation checks what answers it",
        )
    keys = decode(InvitationKeys, read_file(kept, max_bytes=_MAX_BYTES))
    challenged = _challenge_kept(home, statement.digest)
    return statement, check_admission(statement, keys=keys, challenged=challenged)


def _attested_path(home: Home, admission: Digest) -> Path:
    return home.folder(_ATTESTED) / f"{admission}.json"


def _challenge_path(home: Home, admission: Digest) -> Path:
    return home.folder(_CHALLENGES) / f"{admission}.json"


def _challenge_kept(home: Home, admission: Digest) -> KeptChallenge | None:
    path = _challenge_path(home, admission)
    if not path.exists():
        return None
    with reading(path):
        return decode(KeptChallenge, read_file(path, max_bytes=_MAX_BYTES))


def keep(home: Home, admission: CheckedAdmission) -> None:
    """Keep a copy of an admission beside what was issued for it."""
    statement = admission.statement
    data = encode_statement(statement.predicate, statement.envelope.signatures)
    replace_file(home.folder(_ADMITTED) / f"{statement.digest}.dsse", data)


def admitted(home: Home) -> tuple[Statement[Admission], ...]:
    """Return every admission that was kept when certificates were issued for it."""
    paths = sorted((home.path / _ADMITTED).glob("*.dsse"))
    return tuple(
        decode_statement(Admission, read_file(path, max_bytes=_MAX_BYTES)) for path in paths
    )
