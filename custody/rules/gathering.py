"""What belongs to a release: every file its verdict rests on, and nothing a stranger added.

Format: casefile.md, "Collecting".  A collected file is held against the same rule: collecting from
its members must give it again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import msgspec

from custody.crypto.certificates import spki_of
from custody.crypto.signature import verify
from custody.encoding import Digest, KeyId, encode, key_id
from custody.errors import Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.authorisation import Authorisation
from custody.formats.case import Documents
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.disposal import Disposal
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Predicate, Signature, Statement, of_kind
from custody.formats.goldenset import GoldenSet
from custody.formats.keybackup import KeyBackup, WrappingKey
from custody.formats.keyrequest import Consent, KeyRequest
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy, Role, SigningKey
from custody.formats.recovery import BreakGlass, RecoveryRecord
from custody.formats.request import Request
from custody.formats.retirement import Retirement
from custody.rules.asking import is_by_host
from custody.rules.burn import check_burn
from custody.rules.certificates import read_revocation_lists
from custody.rules.endings import endings_of
from custody.rules.forgotten import check_forgotten
from custody.rules.genuine import (
    is_issued_by,
    is_of,
    is_proven,
    is_signed,
    is_stamped,
    known_lines,
)
from custody.rules.quorum import policy_signed_bytes
from custody.rules.times import imprint_of
from custody.rules.trust import author_of, judge_chain
from custody.rules.verdicts import passed

P = TypeVar("P", bound=Predicate)

_DIGEST = re.compile(rb"[0-9a-f]{64}")
#: Who signs what.  Requests, how they ended and a log's word have rules of their own.
SIGNERS: Mapping[type[Predicate], Role] = {
    Policy: "custodian",
    RecoveryRecord: "custodian",
    BreakGlass: "custodian",
    WrappingKey: "custodian",
    KeyBackup: "custodian",
    Manifest: "publisher",
    Disposal: "publisher",
    EnrolmentRecord: "enroller",
    Retirement: "enroller",
    GoldenSet: "enroller",
    Authorisation: "enroller",
    Approval: "officer",
    Denial: "officer",
    Consent: "officer",
}
#: The fields of `Documents` that have a rule of their own; other statements follow one rule.
_RULED = {
    *("policies", "manifests", "requests", "approvals", "denials", "receipts", "burns"),
    *("enrolments", "golden_sets", "logged", "forgotten"),
    *("key_requests", "consents", "key_receipts"),
}


@dataclass(frozen=True, slots=True, order=True)
class Missing:
    """Something that a file here names by digest, and that is not here."""

    kind: str
    digest: Digest
    named_by: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """The files of some releases, as ``(suffix, bytes)``, and what they name that is not there.

    ``chain`` is empty where no policy here follows from the pin: then nobody is known.
    """

    chain: tuple[Statement[Policy], ...]
    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    missing: tuple[Missing, ...]


def gather(
    documents: Documents,
    *,
    pin: Digest,
    requests: Collection[Digest] | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> Gathered:
    """Choose what belongs to ``requests``, or to every request here, by the policies of ``pin``.

    Where ``tsa_roots`` (DER) are given, only timestamps by authorities under them.
    """
    # No step of a chain depends on the moment; only whether its end is in force does.
    start = next((p.predicate.issued_at for p in documents.policies if p.digest == pin), None)
    if start is None:
        return Gathered((), (), (Missing("policy", pin, "the pin"),))
    chain = judge_chain(documents.policies, pin=pin, floor=0, now=start).statements
    found = _Gathering(documents, chain)
    found.add_policies()
    for request in found.choose_requests(requests):
        found.add_release(request)
    found.add_the_rest()
    found.add_proofs(tsa_roots)
    if requests is None:
        found.miss_requests()
    return Gathered(chain, found.files, tuple(sorted(set(found.missing))))


class _Gathering:
    """A case half gone through."""

    def __init__(self, documents: Documents, chain: tuple[Statement[Policy], ...]) -> None:
        self._documents = documents
        self._chain = chain
        self._keys: Mapping[tuple[KeyId, Role], bytes] = {
            (key.key_id, role): key.spki
            for policy in chain
            for person in policy.predicate.principals
            for key in person.keys
            if isinstance(key, SigningKey)
            for role in person.roles
        }
        self._signed: set[KeyId] = set()
        self._answers: dict[KeyId, str] = {}
        self._mentioned: set[Digest] = set()
        self._copies: dict[tuple[Digest, tuple[KeyId, ...]], bytes] = {}
        self._others: list[tuple[str, bytes]] = []
        self.statements: set[Digest] = set()
        self.missing: list[Missing] = []

    def keep(self, statement: Statement[P]) -> None:
        self.statements.add(statement.digest)
        data = encode(statement.envelope)
        by = tuple(signature.keyid for signature in statement.envelope.signatures)
        # A statement signed twice by one key is one: the copy that sorts first is kept.
        self._copies[statement.digest, by] = min(
            data, self._copies.get((statement.digest, by), data)
        )

    @property
    def files(self) -> tuple[tuple[str, bytes], ...]:
        statements = ((".dsse", data) for data in self._copies.values())
        return (*statements, *dict.fromkeys(self._others))

    def clean(self, statement: Statement[P]) -> Statement[P] | None:
        """Return a statement with only its good signatures, by keys of the policy of who may sign
        such a statement, and this one; None: there is none.
        """
        role = SIGNERS[type(statement.predicate)]
        author = author_of(statement)
        good = {
            s.keyid: s
            # Of two good ones by one key the one that sorts first, whoever collects.
            for s in sorted(statement.envelope.signatures, key=lambda s: s.sig, reverse=True)
            if author in (None, s.keyid) and self._is_good(statement, role, s)
        }
        if not good:
            return None
        signatures = tuple(good[keyid] for keyid in sorted(good))
        envelope = msgspec.structs.replace(statement.envelope, signatures=signatures)
        return msgspec.structs.replace(statement, envelope=envelope)

    def _is_good(self, statement: Statement[P], role: Role, signature: Signature) -> bool:
        spki, said = self._keys.get((signature.keyid, role)), statement.predicate
        if spki is None:
            return False
        try:
            verify(spki, statement.envelope.signed_bytes(), signature.sig)
            if isinstance(said, Approval):
                # What is signed for the TPM says whose it is; around it there could be another.
                verify(spki, policy_signed_bytes(bytes.fromhex(said.terms)), said.terms_signature)
        except Refused:
            return False
        return True

    def add_policies(self) -> None:
        for policy in self._chain:
            self.keep(self.clean(policy) or policy)

    def choose_requests(self, chosen: Collection[Digest] | None) -> Iterator[Statement[Asking]]:
        """Give one copy of each request, the one whose signature is good if any is."""
        copies: dict[Digest, list[Statement[Asking]]] = {}
        for request in self._documents.asked:
            if chosen is None or request.digest in chosen:
                copies.setdefault(request.digest, []).append(request)
        for digest in sorted(copies):
            yield min(copies[digest], key=lambda r: (not is_by_host(r), encode(r.envelope)))

    def add_release(self, request: Statement[Asking]) -> None:
        self.keep(request)
        terms = request.predicate.terms
        where = f"request {request.digest[:16]}"
        self._mentioned |= {request.digest, terms.manifest}
        if all(policy.digest != terms.policy for policy in self._chain):
            self.missing.append(Missing("policy", terms.policy, where))
        self._add_manifest(terms.manifest, where)
        self._add_host(request, where)
        for consent in self._documents.consents:
            if consent.predicate.request == request.digest:
                self._add_answer(consent)
        for approval in self._documents.approvals:
            if approval.predicate.request == request.digest:
                self._add_answer(approval)
        stated = terms.digest().hex()
        for denial in self._documents.denials:
            if denial.predicate.request == request.digest or denial.predicate.terms == stated:
                self._add_answer(denial)
        self._add_endings(request)

    def _add_answer(self, answer: Statement[P]) -> None:
        """Keep an answer of an officer; nobody else's copy of it stands in its place."""
        good = self.clean(answer)
        if good is not None:
            self.keep(good)
            by = good.envelope.signatures[0].keyid
            self._signed.add(by)
            self._answers.setdefault(by, f"{_kind(good)} {good.digest[:16]}")

    def _add_manifest(self, digest: Digest, named_by: str) -> None:
        """Keep a manifest, and those it says that it replaces as far as they are here."""
        copies = [m for m in self._documents.manifests if m.digest == digest]
        if not copies:
            self.missing.append(Missing("manifest", digest, named_by))
        wanted: Digest | None = digest
        while wanted is not None and wanted not in self.statements:
            copies = [m for m in self._documents.manifests if m.digest == wanted]
            if not copies:
                return
            self._keep_one_of(copies)
            core = copies[0].predicate.core
            self._signed.add(core.publisher)
            for broken in self._documents.broken:
                if broken.predicate.replacement == core.binding().hex():
                    self._add_voucher(broken)
            wanted = core.replaces

    def _keep_one_of(self, copies: Iterable[Statement[P]]) -> None:
        """Keep the best copy of what a kept statement names, be it as bad as it is."""
        judged = [self.clean(copy) or copy for copy in copies]
        best = min(judged, key=lambda s: (self.clean(s) is None, encode(s.envelope)))
        self.keep(best)

    def _add_host(self, request: Statement[Asking], where: str) -> None:
        """Keep what vouches for the host: records of a TPM, or certificates of listed keys."""
        by_tpm, by_key = of_kind(Request, request), of_kind(KeyRequest, request)
        if by_tpm is not None:
            self._mentioned.add(by_tpm.predicate.terms.ek_spki)
            self._add_vouchers(by_tpm.predicate, where)
        if by_key is not None:
            asked = by_key.predicate
            self._signed |= {asked.author, key_id(asked.recipient)}

    def _add_vouchers(self, said: Request, where: str) -> None:
        named = self._documents.enrolment(said.enrolment)
        if named is None:
            self.missing.append(Missing("enrolment", said.enrolment, where))
        else:
            self._keep_one_of([named])
        golden = self._documents.golden(said.golden)
        if golden is None:
            self.missing.append(Missing("goldenset", said.golden, where))
        else:
            self._keep_one_of([golden])
        for record in self._documents.enrolments:
            if record.predicate.ek_spki == said.terms.ek_spki:
                self._add_voucher(record)
        for known in self._documents.golden_sets:
            # A later set of the name may have ended the one that is named.
            if golden is not None and known.predicate.name == golden.predicate.name:
                self._add_voucher(known)

    def _add_voucher(self, statement: Statement[P]) -> None:
        if statement.digest in self.statements:
            return
        good = self.clean(statement)
        if good is not None:
            self.keep(good)

    def _add_endings(self, request: Statement[Asking]) -> None:
        receipts = endings_of(self._documents, request)
        for receipt in receipts:
            self.keep(receipt)
            self._mentioned.add(receipt.digest)
            for approval in receipt.predicate.approvals:
                if approval not in self.statements:
                    where = f"receipt {receipt.digest[:16]}"
                    self.missing.append(Missing("approval", approval, where))
        by_tpm = of_kind(Request, request)
        if by_tpm is not None:
            self._add_proofs_of_tpm(by_tpm, {receipt.digest for receipt in receipts})

    def _add_proofs_of_tpm(self, request: Statement[Request], receipts: set[Digest]) -> None:
        for forgotten in self._documents.forgotten:
            about = forgotten.predicate.request == request.digest
            if about and passed(check_forgotten(forgotten, request)):
                self.keep(forgotten)
        for burn in self._documents.burns:
            if burn.predicate.request == request.digest and passed(check_burn(burn, request)):
                self.keep(burn)
                if burn.predicate.receipt not in receipts:
                    where = f"burn {burn.digest[:16]}"
                    self.missing.append(Missing("receipt", burn.predicate.receipt, where))

    def add_the_rest(self) -> None:
        """Keep other statements about these releases, and the certificates of who signed."""
        for each in fields(Documents):
            if each.name not in _RULED:
                for item in getattr(self._documents, each.name):
                    if isinstance(item, Statement) and self._is_about_these(item):
                        good = self.clean(item)
                        if good is not None:
                            self.keep(good)
        authorities = list(dict.fromkeys(a for p in self._chain for a in p.predicate.authorities))
        shown = set()
        for der in self._documents.certificates:
            if is_of(der, self._signed) and is_issued_by(der, authorities):
                self._others.append((".cer", der))
                shown.add(key_id(spki_of(der)))
        # An answer does not count without: whoever takes the certificate out, takes that from it.
        self.missing += [
            Missing("certificate of key", by, where)
            for by, where in self._answers.items()
            if by not in shown
        ]
        roots = [root for p in self._chain for root in p.predicate.host.vendor_roots]
        lists = read_revocation_lists(self._documents.crls, authorities=[*authorities, *roots])
        self._others += [(".crl", known.der) for known in lists]

    def add_proofs(self, tsa_roots: Sequence[bytes]) -> None:
        """Keep what a log or a time-stamping authority says of anything that is kept."""
        logs = [found for p in self._chain if (found := p.predicate.log_policy()) is not None]
        heads = []
        for word in self._documents.logged:
            if word.predicate.request in self._mentioned and is_signed(word, logs):
                self.keep(word)
                # A log signs for good answers only: one that is not here was taken out.
                self.missing += [
                    Missing(entry.kind, entry.statement, f"logged {word.digest[:16]}")
                    for entry in word.predicate.entries
                    if entry.statement not in self.statements
                ]
                heads.append(decode_checkpoint(word.predicate.checkpoint))
        for given in self._documents.proofs:
            signed = known_lines(given.proof.signed, logs)
            if signed is not None and given.entry.digest in self.statements and is_proven(given):
                proof = replace(given.proof, signed=signed)
                self._others.append((".tlog-proof", proof.encode()))
                heads.append(signed)
        for link in self._documents.consistencies:
            signed = known_lines(link.signed, logs)
            if signed is not None:
                self._others.append((".tlog-consistency", replace(link, signed=signed).encode()))
        about = self.statements | {imprint_of(head) for head in heads}
        for token in self._documents.tokens:
            if token.imprint in about and (not tsa_roots or is_stamped(token, tsa_roots)):
                self._others.append((".tsr", token.data))

    def _is_about_these(self, statement: Statement[Predicate]) -> bool:
        named = {found.decode() for found in _DIGEST.findall(encode(statement.predicate))}
        return bool(named & self._mentioned)

    def miss_requests(self) -> None:
        """Miss the requests of answers by people the policy knows, and of hosts' last words."""
        for receipt in self._documents.endings:
            self._miss_request(receipt, receipt.predicate.request)
        for burn in self._documents.burns:
            self._miss_request(burn, burn.predicate.request)
        for approval in self._documents.approvals:
            if self.clean(approval) is not None:
                self._miss_request(approval, approval.predicate.request)
        for consent in self._documents.consents:
            if self.clean(consent) is not None:
                self._miss_request(consent, consent.predicate.request)
        for denial in self._documents.denials:
            if self.clean(denial) is not None:
                self._miss_request(denial, denial.predicate.request)

    def _miss_request(self, statement: Statement[P], request: Digest) -> None:
        if all(known.digest != request for known in self._documents.asked):
            where = f"{_kind(statement)} {statement.digest[:16]}"
            self.missing.append(Missing("request", request, where))


def _kind(statement: Statement[P]) -> str:
    return statement.predicate.PREDICATE_TYPE.split(":")[2]
