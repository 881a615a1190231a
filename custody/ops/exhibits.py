"""What an audited release was judged from, as values to show: registers, keys, certificates.

Nothing is decided here.  What is said about a certificate are verdicts of `rules`, and a register's
value is only called proved where the TPM's quote says the same.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

from custody.crypto.certificates import read_certificate, spki_of
from custody.encoding import Digest, KeyId, key_id, sha256
from custody.errors import CustodyError, Malformed
from custody.formats.asking import Asking, Ending
from custody.formats.burn import Burn
from custody.formats.case import Documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Predicate, Statement, of_kind
from custody.formats.eventlog import parse_event_log
from custody.formats.evidence import Quoted, parse_attest, unpack_quote
from custody.formats.goldenset import GoldenSet, PcrEvents, PcrValue
from custody.formats.keyrequest import KeyRequest
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy, Role, TokenClass, TrustClass
from custody.formats.request import Request
from custody.rules.approvals import Tally
from custody.rules.certificates import read_revocation_lists
from custody.rules.eventlog import Difference, Replay, differences, replay
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import count_signers
from custody.rules.verdicts import Verdict

#: How a register's value is known: the log gives what was quoted; the quote is of the golden set,
#: and there is no log; the log says so, and the quote contradicts it; not at all.
Source = Literal["log and quote", "quote", "log only", "unknown"]
_UNKNOWN: Source = "unknown"

P = TypeVar("P", bound=Predicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One register: what the golden set expects, and what the host showed.

    ``components`` are the events the golden set expects, by name, empty where it holds a value
    only.  ``actual`` is hex, "" where nothing tells it.
    """

    pcr: int
    expected: Digest
    actual: str
    source: Source
    components: tuple[str, ...]
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootState:
    """The registers of a request beside the golden set it names."""

    quoted: Digest
    registers: tuple[Register, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificate:
    """One certificate, parsed.  Names in it are its maker's words."""

    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedKey:
    """A key that signed something of a release, its certificates, and every verdict on them."""

    principal: str
    key: KeyId
    acts: tuple[str, ...]
    certificates: tuple[HeldCertificate, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListView:
    """One revocation list of an authority."""

    number: int
    this_update: datetime
    next_update: datetime
    revoked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority of the policy in force, and its lists, oldest first."""

    certificate: HeldCertificate
    key: KeyId
    lists: tuple[ListView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """Who signed a statement of many signers, in the role that counts."""

    digest: Digest
    needed: int
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibits:
    """The files behind the verdicts on one release; ``receipts`` and ``burns`` are the good ones.

    ``policies`` run from the pinned one to the one in force; they are empty where the chain could
    not be followed, and then nobody's role, key or certificate is known either.
    """

    request: Statement[Asking]
    manifest: Statement[Manifest] | None
    policies: tuple[Statement[Policy], ...]
    enrolment: Statement[EnrolmentRecord] | None
    golden: Statement[GoldenSet] | None
    receipts: tuple[Statement[Ending], ...]
    burns: tuple[Statement[Burn], ...]
    vouched: tuple[Vouched, ...]
    boot: BootState | None
    endorsement: HeldCertificate | None
    keys: tuple[JudgedKey, ...]
    authorities: tuple[Authority, ...]

    @property
    def policy(self) -> Policy | None:
        """Return the policy in force."""
        return self.policies[-1].predicate if self.policies else None

    @property
    def trust_class(self) -> TrustClass | None:
        """Return what the host's word rests on: its TPM, by its enrolment record, or an HSM."""
        if not self.request.predicate.BURNS:
            return "hsm-key"
        return self.enrolment.predicate.trust_class if self.enrolment is not None else None

    def token_class(self, key: KeyId) -> TokenClass | None:
        """Return the class of the token a signing key is in, by the policy in force."""
        known = self.policy.signing_key(key) if self.policy is not None else None
        return known.token_class if known is not None else None

    @property
    def sealed_for(self) -> Policy | None:
        """Return the policy version the bundle was sealed for, if the chain reaches back to it."""
        if self.manifest is None:
            return None
        number = self.manifest.predicate.core.policy_version
        return next((p.predicate for p in self.policies if p.predicate.version == number), None)

    def signers(self, digest: Digest) -> Vouched | None:
        """Return who signed the statement of that digest."""
        return next((known for known in self.vouched if known.digest == digest), None)


def gather_exhibits(
    request: Statement[Asking],
    documents: Documents,
    *,
    manifest: Statement[Manifest] | None,
    policies: Sequence[Statement[Policy]],
    receipts: Sequence[Statement[Ending]],
    burns: Sequence[Statement[Burn]],
    situation: Situation | None,
    tally: Tally | None,
) -> Exhibits:
    """Put together what is to be shown of a release; without ``situation`` no key is judged."""
    by_tpm = of_kind(Request, request)
    enrolment = documents.enrolment(by_tpm.predicate.enrolment) if by_tpm else None
    golden = documents.golden(by_tpm.predicate.golden) if by_tpm else None
    in_force = policies[-1].predicate if policies else None
    judged = (
        ()
        if situation is None
        else tuple(_keys(situation, of_kind(KeyRequest, request), manifest, tally))
    )
    return Exhibits(
        request=request,
        manifest=manifest,
        policies=tuple(policies),
        enrolment=enrolment,
        golden=golden,
        receipts=tuple(receipts),
        burns=tuple(burns),
        vouched=tuple(_vouched(policies, enrolment, golden)),
        boot=boot_state(by_tpm, golden.predicate) if by_tpm and golden else None,
        endorsement=_held(enrolment.predicate.ek_certificate) if enrolment else None,
        keys=judged,
        authorities=_authorities(in_force, documents) if in_force else (),
    )


def boot_state(request: Statement[Request], golden: GoldenSet) -> BootState | None:
    """Compare what a request shows of its boot with a golden set, register by register."""
    try:
        quote = unpack_quote(request.envelope.signatures[0].sig)
        body = parse_attest(quote.attest).body
    except CustodyError:
        return None
    quoted = body.pcr_digest if isinstance(body, Quoted) else b""
    replayed = _replayed(request.predicate.event_log)
    proved = hmac.compare_digest(
        replayed.pcr_digest(golden.selection()).hex() if replayed else golden.pcr_digest(),
        quoted.hex(),
    )
    changed = {found.pcr: found for found in differences(replayed, golden)} if replayed else {}
    registers = tuple(
        _register(expected, replayed, changed.get(expected.pcr), proved=proved)
        for expected in golden.pcrs
    )
    return BootState(quoted=quoted.hex(), registers=registers)


def _replayed(log: bytes) -> Replay | None:
    try:
        return replay(parse_event_log(log))
    except Malformed:
        return None


def _register(
    expected: PcrValue | PcrEvents,
    replayed: Replay | None,
    difference: Difference | None,
    *,
    proved: bool,
) -> Register:
    actual, source = "", _UNKNOWN
    if replayed is not None:
        actual = replayed.values[expected.pcr].hex()
        source = "log and quote" if proved else "log only"
    elif proved:
        actual, source = expected.value, "quote"
    events = expected.components if isinstance(expected, PcrEvents) else ()
    return Register(
        pcr=expected.pcr,
        expected=expected.value,
        actual=actual,
        source=source,
        components=tuple(component.label for component in events),
        difference=difference,
    )


def _vouched(
    policies: Sequence[Statement[Policy]],
    enrolment: Statement[EnrolmentRecord] | None,
    golden: Statement[GoldenSet] | None,
) -> Iterator[Vouched]:
    for statement in policies:
        policy = statement.predicate
        yield _signed(statement, policy, "custodian", policy.thresholds.root)
    if policies:
        policy = policies[-1].predicate
        if enrolment is not None:
            yield _signed(enrolment, policy, "enroller", policy.thresholds.enrolment)
        if golden is not None:
            yield _signed(golden, policy, "enroller", policy.thresholds.golden)


def _signed(statement: Statement[P], policy: Policy, role: Role, needed: int) -> Vouched:
    found = count_signers(statement.envelope, policy, role=role, needed=needed)
    return Vouched(digest=statement.digest, needed=needed, signers=found.signers)


def _keys(
    situation: Situation,
    asked: Statement[KeyRequest] | None,
    manifest: Statement[Manifest] | None,
    tally: Tally | None,
) -> Iterator[JudgedKey]:
    """Judge the key of everybody who signed alone: publisher, a host's HSM, whoever answered."""
    acts: dict[KeyId, list[str]] = {}
    if manifest is not None:
        acts[manifest.predicate.core.publisher] = ["sealed the bundle"]
    if asked is not None:
        acts.setdefault(asked.predicate.author, []).append("asked")
    if tally is not None:
        for consent in tally.consents:
            if consent.authentic:
                acts.setdefault(consent.statement.predicate.author, []).append("consented")
        for approval in (*tally.counted, *tally.passed_over):
            if approval.authentic:
                acts.setdefault(approval.key, []).append("approved")
        for denial in tally.denials:
            if denial.authentic:
                author = denial.statement.envelope.signatures[0].keyid
                acts.setdefault(author, []).append("denied")
    policy = situation.trusted.policy
    for keyid, said in acts.items():
        person, key = policy.holder(keyid), policy.signing_key(keyid)
        if person is not None and key is not None:
            ders = (der for der in situation.documents.certificates if _is_of(der, keyid))
            yield JudgedKey(
                principal=person.id,
                key=keyid,
                acts=tuple(dict.fromkeys(said)),
                certificates=tuple(held for der in ders if (held := _held(der)) is not None),
                verdicts=check_key(person, key, situation),
            )


def _is_of(der: bytes, keyid: KeyId) -> bool:
    try:
        return key_id(spki_of(der)) == keyid
    except Malformed:
        return False


def _held(der: bytes) -> HeldCertificate | None:
    try:
        certificate = read_certificate(der)
    except Malformed:
        return None
    return HeldCertificate(
        subject=_common_name(certificate.subject),
        issuer=_common_name(certificate.issuer),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=sha256(der).hex(),
    )


def _common_name(name: x509.Name) -> str:
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else name.rfc4514_string()


def _authorities(policy: Policy, documents: Documents) -> tuple[Authority, ...]:
    found = []
    for der in policy.authorities:
        certificate = _held(der)
        if certificate is None:
            continue
        lists = read_revocation_lists(documents.crls, authorities=[der])
        views = tuple(
            ListView(
                number=known.number,
                this_update=known.this_update,
                next_update=known.next_update,
                revoked=len(known.entries),
            )
            for known in lists
        )
        key = key_id(spki_of(der))
        found.append(Authority(certificate=certificate, key=key, lists=views))
    return tuple(found)
