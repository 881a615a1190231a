"""A whole cast in one process: people with software keys, one host with a real swtpm.

Keys of people are plain `cryptography` keys, which is all that any layer above the devices sees;
the host's TPM is real, because it is what refuses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from custody.crypto.certificates import (
    Revocation,
    Use,
    issue_authority,
    issue_certificate,
    issue_crl,
)
from custody.crypto.keyslots import SlotKey, SuiteName
from custody.crypto.quorum import Node, Person, Threshold, leaves
from custody.crypto.signature import public_bytes, sign
from custody.encoding import Digest, sha256
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Predicate, Statement, decode_statement, encode_statement
from custody.formats.evidence import name, parse_attest
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.manifest import Manifest
from custody.formats.policy import (
    HostRequirements,
    Limits,
    Mode,
    Policy,
    Principal,
    Role,
    ShareKey,
    SigningKey,
    Thresholds,
)
from custody.formats.request import Request
from custody.keys.hostapi import HostTpm
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm
from custody.ops.approve import approve_requests, deny_requests
from custody.ops.bundle import Bundle
from custody.ops.home import Home
from custody.ops.kept import KeptKeys
from custody.ops.keys import ShareOpener, Signer
from custody.ops.open import Opened, open_release
from custody.ops.outstanding import Ledger
from custody.ops.receipts import HostPlace
from custody.ops.request import request_release
from custody.ops.seal import SealOrder, seal_model
from custody.ops.trust import current, pin
from custody.rules.situation import Situation

NOW = datetime(2027, 1, 5, 12, 0, 0, tzinfo=UTC)
PCRS = (0, 2, 4, 7)
_SPKI = PublicFormat.SubjectPublicKeyInfo

#: The protocol's example: two of three from security, and one of two leads.
TREE = Threshold(
    k=2,
    of=(
        Threshold(k=2, of=tuple(Person(principal=f"sec{n}") for n in (1, 2, 3))),
        Threshold(k=1, of=tuple(Person(principal=f"lead{n}") for n in (1, 2))),
    ),
)


@dataclass
class PersonKeys:
    """One person's software keys."""

    name: str
    roles: tuple[Role, ...]
    signing: list[ec.EllipticCurvePrivateKey]
    sharing: Sequence[Any] = ()
    """Keys on P-256, or RSA keys of ``suite``."""
    suite: SuiteName = "P256"

    @property
    def signer(self) -> Signer:
        return Signer(self.signing[0])

    @property
    def opener(self) -> ShareOpener:
        return ShareOpener(self.sharing[0])

    def raw_signature(self, message: bytes) -> bytes:
        """Sign bytes that no format of ours would give to be signed."""
        return sign(self.signing[0], message)

    def principal(self) -> Principal:
        keys: list[SigningKey | ShareKey] = [
            SigningKey(spki=spki(k), token_class="software") for k in self.signing
        ]
        keys += [
            ShareKey(spki=spki(k), suite=self.suite, mlkem=None, token_class="software")
            for k in self.sharing
        ]
        return Principal(id=self.name, name=self.name, roles=self.roles, keys=tuple(keys))


def spki(key: SlotKey) -> bytes:
    """Return the public half of a key, DER."""
    return public_bytes(key.public_key())


def person(name: str, *roles: Role, tokens: int = 1) -> PersonKeys:
    """Make a person; officers get share keys, and as many tokens as asked."""
    new = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2 * tokens)]
    officer = "officer" in roles
    return PersonKeys(name, roles, new[:tokens], new[tokens:] if officer else [])


class Cast:
    """An environment, its people, and one host."""

    def __init__(
        self,
        folder: Path,
        machine: Swtpm,
        tpm: HostTpm,
        tree: Node = TREE,
        *,
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        """Gather the cast of ``tree``; ``tokens`` says who has more than one."""
        self.folder = folder
        self.machine = machine
        self.tpm = tpm
        self.tree = tree
        self.ca = ec.generate_private_key(ec.SECP256R1())
        self.authority = issue_authority(
            self.ca,
            name="lab authority",
            not_before=NOW - timedelta(days=30),
            not_after=NOW + timedelta(days=3650),
        )
        self.people: dict[str, PersonKeys] = {}
        for name_, role in (
            *((f"cus{n}", "custodian") for n in (1, 2, 3)),
            *((f"enr{n}", "enroller") for n in (1, 2, 3)),
            *((leaf.principal, "officer") for leaf in leaves(tree)),
            ("pub", "publisher"),
        ):
            self.people[name_] = person(name_, role, tokens=(tokens or {}).get(name_, 1))  # type: ignore[arg-type]
        self.certificates: list[bytes] = []
        for someone in self.people.values():
            self.certify(someone)
        self.crl = self.make_crl(number=1)
        self.policies = [self.sign_policy(self.make_policy())]
        self.documents = Documents()
        self.asked: list[Statement[Request]] = []
        self.event_log = b""
        self.refresh()

    # ── people and policy ──────────────────────────────────────────────────────────────────────

    def certify(self, someone: PersonKeys) -> None:
        """Issue certificates for all keys of a person."""
        keys: list[tuple[Use, SlotKey]] = [("sign", key) for key in someone.signing]
        keys += [("share", key) for key in someone.sharing]
        for use, key in keys:
            self.certificates.append(
                issue_certificate(
                    self.ca,
                    self.authority,
                    spki=spki(key),
                    principal=someone.name,
                    display=someone.name,
                    use=use,
                    not_before=NOW - timedelta(days=20),
                    not_after=NOW + timedelta(days=300),
                )
            )

    def make_crl(
        self, *, number: int, revoked: Sequence[bytes] = (), at: datetime | None = None
    ) -> bytes:
        """Issue a revocation list naming the certificates of those SPKIs."""
        entries = []
        for der in self.certificates:
            certificate = x509.load_der_x509_certificate(der)
            if certificate.public_key().public_bytes(Encoding.DER, _SPKI) in revoked:
                entries.append(
                    Revocation(
                        serial=certificate.serial_number,
                        revoked_at=at or NOW - timedelta(hours=1),
                        reason="keyCompromise",
                    )
                )
        return issue_crl(
            self.ca,
            self.authority,
            entries=entries,
            number=number,
            this_update=NOW - timedelta(minutes=30),
            next_update=NOW + timedelta(days=7),
        )

    def make_policy(self, **changes: object) -> Policy:
        """Write version 1, with any field changed."""
        vendor = x509.load_pem_x509_certificate(self.machine.vendor_root.read_bytes())
        people = sorted((p.principal() for p in self.people.values()), key=lambda p: p.id)
        policy = Policy(
            environment="production",
            genesis=None,
            version=1,
            issued_at=NOW - timedelta(days=1),
            expires_at=NOW + timedelta(days=300),
            principals=tuple(people),
            token_classes=("software",),
            authorities=(self.authority,),
            quorum=self.tree,
            thresholds=Thresholds(root=2, enrolment=2, golden=2),
            host=HostRequirements(
                bank="sha256",
                pcrs=PCRS,
                trust_classes=("software",),
                vendor_roots=(vendor.public_bytes(Encoding.DER),),
                event_log="required",
                vendor_crls=(),
                further=(),
            ),
            limits=Limits(
                request_window_seconds=6 * 3600,
                approval_seconds=24 * 3600,
                crl_max_age_seconds=8 * 86400,
            ),
            modes=("once",),
            part_digest="blake3",
            weakest_suite="P256",
            self_approval=False,
            withdrawn=(),
            logged=None,
            recovery=None,
        )
        return msgspec.structs.replace(policy, **changes)

    def sign(self, predicate: Predicate, *names: str) -> bytes:
        """Sign a many-signer statement."""
        signatures = [self.people[n].signer.signature(predicate) for n in names]
        return encode_statement(predicate, signatures)

    def sign_policy(self, policy: Policy, *names: str) -> bytes:
        """Sign a policy, by two custodians unless others are named."""
        return self.sign(policy, *(names or ("cus1", "cus2")))

    def next_policy(self, *signers: str, **changes: object) -> Statement[Policy]:
        """Put version n+1 in force."""
        old = decode_statement(Policy, self.policies[-1])
        genesis = old.predicate.genesis or old.digest
        version = old.predicate.version + 1
        new = msgspec.structs.replace(old.predicate, genesis=genesis, version=version, **changes)
        self.policies.append(self.sign_policy(new, *signers))
        self.refresh()
        return decode_statement(Policy, self.policies[-1])

    @property
    def pin(self) -> Digest:
        """The digest of version 1."""
        return decode_statement(Policy, self.policies[0]).digest

    def refresh(self, *extra: tuple[str, bytes]) -> None:
        """Sort the public files again."""
        files = [(f"policy-{n}.dsse", data) for n, data in enumerate(self.policies, 1)]
        files += [(f"{n}.cer", der) for n, der in enumerate(self.certificates)]
        files += [("authority.crl", self.crl), *extra]
        kept = Documents(
            enrolments=self.documents.enrolments,
            golden_sets=self.documents.golden_sets,
            authorisations=self.documents.authorisations,
            retirements=self.documents.retirements,
        )
        self.documents = merge(sort_documents(files), kept)

    # ── the host ───────────────────────────────────────────────────────────────────────────────

    def boot(self, state: bootlog.BootState | None = None) -> None:
        """Boot the host: extend a recorded log."""
        self.event_log = bootlog.record(state or bootlog.BootState())
        bootlog.extend(self.machine, self.event_log)

    def enrol(self, host: str = "gpu-1", *, epoch: int = 1) -> None:
        """Write the enrolment record and golden set, each signed by two enrollers."""
        genesis = self.pin
        certificate = self.tpm.ek_certificate()
        ek = x509.load_der_x509_certificate(certificate).public_key()
        ak = self.tpm.ak_public()
        attest = parse_attest(self.tpm.quote(b"enrol", PCRS).attest)
        record = EnrolmentRecord(
            environment=genesis,
            host=host,
            epoch=epoch,
            ek_spki=sha256(ek.public_bytes(Encoding.DER, _SPKI)).hex(),
            ek_certificate=certificate,
            ak_public=ak,
            ak_name=name(ak).hex(),
            trust_class="software",
            firmware=f"{attest.firmware_version:016x}",
            enrolled_at=NOW - timedelta(hours=2),
        )
        golden = GoldenSet(
            environment=genesis,
            name="lab-6.1",
            notes="",
            epoch=1,
            oldest=1,
            bank="sha256",
            pcrs=tuple(
                PcrValue(pcr=pcr, value=value.hex())
                for pcr, value in zip(PCRS, self.tpm.pcr_values(PCRS), strict=True)
            ),
            issued_at=NOW - timedelta(hours=2),
        )
        vouched = sort_documents(
            [
                ("enrolment.dsse", self.sign(record, "enr1", "enr2")),
                ("golden.dsse", self.sign(golden, "enr1", "enr3")),
            ]
        )
        self.documents = replace(
            self.documents, enrolments=vouched.enrolments, golden_sets=vouched.golden_sets
        )

    @contextmanager
    def tpm_link(self, doing: str) -> Iterator[Any]:
        """Talk to the host's TPM past every verb of ours."""
        from custody.keys.tpm_session import Tpm

        with Tpm(self.machine.tcti).connect(doing) as link:
            yield link

    # ── verbs ──────────────────────────────────────────────────────────────────────────────────

    def home(self, who: str) -> Home:
        """Return a person's home, pinned to version 1."""
        home = Home(self.folder / "homes" / who)
        if not home.has_memory():
            pin(home, documents=self.documents, digest=self.pin, now=NOW)
        return home

    def situation(
        self, who: str, *answers: bytes, now: datetime = NOW, documents: Documents | None = None
    ) -> Situation:
        """Return what ``who`` judges by, with answers beside the public files."""
        heap = sort_documents([(f"answer-{n}.dsse", data) for n, data in enumerate(answers)])
        known = merge(documents or self.documents, heap)
        return current(self.home(who), documents=known, now=now)

    def model(self, label: str = "model") -> Path:
        """Write a small model."""
        path = self.folder / label
        path.mkdir()
        (path / "model.safetensors").write_bytes(os.urandom(200_000))
        (path / "config.json").write_bytes(b'{"hidden":384}')
        (path / "tokenizer").mkdir()
        (path / "tokenizer" / "vocab.txt").write_bytes(b"the\nof\n")
        return path

    def seal(self, label: str = "model", **changes: object) -> Bundle:
        """Seal a small model as ``pub``."""
        out = self.folder / f"{label}.bundle"
        self.seal_into(self.model(label), out, **changes)
        return Bundle.at(out)

    def seal_into(self, model: Path, out: Path, **changes: object) -> None:
        """Seal a model as ``pub``."""
        order = SealOrder(name="tiny", version="1.0", not_after=NOW + timedelta(days=30))
        order = replace(order, part_size_bytes=1 << 16, **changes)  # type: ignore[arg-type]
        situation = self.situation("pub")
        seal_model(model, out, order, situation=situation, signer=self.people["pub"].signer)

    @property
    def place(self) -> HostPlace:
        """Where the host keeps its requests."""
        home = self.home("host")
        return HostPlace(
            ledger=Ledger(home.folder("requests")),
            receipts=home.folder("receipts"),
            keys=KeptKeys(home.folder("kept")),
        )

    def request(
        self, bundle: Bundle, *, now: datetime = NOW, mode: Mode = "once"
    ) -> Statement[Request]:
        """Ask for a bundle as the host."""
        statement = request_release(
            bundle.statement,
            situation=self.situation("host", now=now),
            tpm=self.tpm,
            place=self.place,
            event_log=self.event_log,
            mode=mode,
        ).statement
        self.asked.append(statement)
        return statement

    def approve(
        self,
        bundle: Bundle,
        request: Statement[Request],
        who: str,
        *,
        now: datetime = NOW,
        token: int = 0,
        lifetime: timedelta | None = None,
    ) -> bytes:
        """Approve as one officer; ``token`` chooses among his."""
        keys = self.people[who]
        return approve_requests(
            bundle,
            [request],
            situation=self.situation(who, now=now),
            home=self.home(who),
            signer=Signer(keys.signing[token]),
            opener=ShareOpener(keys.sharing[token]),
            lifetime=lifetime,
        )[0].data

    def deny(self, bundle: Bundle, request: Statement[Asking], who: str, *, at: str = "") -> bytes:
        """Deny as one officer, ``at`` his own home or somebody else's."""
        return deny_requests(
            bundle.statement,
            [request],
            reason="not yet",
            situation=self.situation(who),
            home=self.home(at or who),
            signer=self.people[who].signer,
        )[0].data

    def open(
        self,
        bundle: Bundle,
        request: Statement[Request],
        answers: Sequence[bytes],
        target: Path,
        *,
        now: datetime = NOW,
    ) -> Opened:
        """Open as the host."""
        return open_release(
            bundle,
            request,
            target,
            situation=self.situation("host", *answers, now=now),
            tpm=self.tpm,
            place=self.place,
        )


def as_approval(data: bytes) -> Statement[Approval]:
    """Read an approval."""
    return decode_statement(Approval, data)


def as_denial(data: bytes) -> Statement[Denial]:
    """Read a denial."""
    return decode_statement(Denial, data)


def as_manifest(data: bytes) -> Statement[Manifest]:
    """Read a manifest."""
    return decode_statement(Manifest, data)
