"""A host that runs what it likes, for `make`: every step of a request can differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_RH, TPM2_ST
from tpm2_pytss.types import (
    TPM2B_NV_PUBLIC,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMT_SIG_SCHEME,
    TPMT_TK_CREATION,
    TPMT_TK_HASHCHECK,
)

from custody.crypto.bind import bind
from custody.crypto.tpmpolicy import host_policy
from custody.encoding import key_id, sha256
from custody.formats.enrolment import EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import (
    Signature,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.eventlog import parse_event_log
from custody.formats.evidence import (
    HOST_PARENT_TEMPLATE,
    RH_ENDORSEMENT,
    Alg,
    Attributes,
    Created,
    Curve,
    EccPublic,
    NvPublic,
    PcrBank,
    Quoted,
    counter_public,
    host_key_template,
    name,
    nv_name,
    pack_quote,
    pack_selection,
    parse_attest,
    qualified_name,
    spki,
)
from custody.formats.goldenset import GoldenSet, PcrEvents
from custody.formats.policy import Policy
from custody.formats.request import Creation, Request, Terms
from custody.formats.tpmwire import sized
from custody.keys.hostapi import Attested, HostKey
from custody.keys.tpm_host import AK_HANDLE, TpmHost, _attested
from custody.keys.tpm_session import Connection, Tpm, certificate_spki, unmarshal
from custody.lab import bootlog, firmware
from custody.lab.swtpm import Swtpm
from custody.ops.enroll import ask
from custody.rules.attestation import conditions_of
from custody.rules.eventlog import replay
from custody.rules.quorum import signing_tree
from tests.unit.people import NOW, following, signed, signed_policy
from tests.unit.people import policy as sound_policy

#: Two registers only, because a program can reset no more than two: 16 and 23.
PCRS = (0, 7)
BANKS = (PcrBank(Alg.SHA256, PCRS),)
MANIFEST = "cd" * 32
_H_CURVE = Curve.P256
_SCHEME = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
#: A hierarchy and a template: which key attests.
Signer = tuple[Any, EccPublic]
Change = Callable[[Terms], bytes]


@dataclass(frozen=True, kw_only=True)
class Made:
    """One vector."""

    name: str
    headers: tuple[tuple[str, str], ...]

    def write(self, folder: Path) -> None:
        """Write it to a file of its own."""
        lines = "".join(f"{header}: {value}\n" for header, value in self.headers if value)
        (folder / f"{self.name}.txt").write_text(lines, encoding="utf-8")


@dataclass
class Maker:
    """One machine, and the documents its evidence is judged by."""

    machine: Swtpm
    policy: Policy
    policy_digest: str
    golden: GoldenSet
    golden_data: bytes
    record_data: bytes
    common: dict[str, bytes]
    log: bytes

    @classmethod
    def enrolled(cls, machine: Swtpm) -> Maker:
        """Boot a machine, write the policy, and enrol it."""
        log = bootlog.record(bootlog.BootState())
        bootlog.extend(machine, log)
        sound = sound_policy()
        host = msgspec.structs.replace(sound.host, pcrs=PCRS, event_log="optional")
        limits = msgspec.structs.replace(sound.limits, request_window_seconds=6 * 3600)
        first = signed_policy(sound_policy(host=host, limits=limits))
        replayed = replay(parse_event_log(log))
        golden = GoldenSet(
            environment=first.digest,
            name="lab-6.1",
            notes="",
            epoch=1,
            oldest=1,
            bank="sha256",
            pcrs=tuple(
                PcrEvents(pcr=pcr, locality=0, components=replayed.components(pcr)) for pcr in PCRS
            ),
            issued_at=NOW - timedelta(hours=2),
        )
        staging = msgspec.structs.replace(first.predicate, environment="staging")
        common = {
            "policy.dsse": signed(first.predicate, "ida", "cas"),
            "policy-2.dsse": signed(following(first), "ida", "cas"),
            "policy-staging.dsse": signed(staging, "ida", "cas"),
        }
        made = cls(
            machine=machine,
            policy=first.predicate,
            policy_digest=first.digest,
            golden=golden,
            golden_data=signed(golden, "erik", "esme"),
            record_data=b"",
            common=common,
            log=log,
        )
        made.record_data = made.record()
        return made

    @classmethod
    def of(cls, machine: Swtpm, enrolled: Maker) -> Maker:
        """Give another machine the documents of an enrolled one."""
        return replace(enrolled, machine=machine)

    def write_common(self, folder: Path) -> None:
        """Write the documents that all vectors share."""
        for file, data in (
            *self.common.items(),
            ("enrolment.dsse", self.record_data),
            ("golden.dsse", self.golden_data),
        ):
            (folder / file).write_bytes(data)

    # ── the machine ────────────────────────────────────────────────────────────────────────────

    @property
    def host(self) -> TpmHost:
        """Its TPM as an honest host uses it."""
        return TpmHost(self.machine.tcti)

    @property
    def window_ms(self) -> int:
        """How far off a deadline may be."""
        return self.policy.limits.request_window_seconds * 1000

    def link(self, doing: str) -> Any:
        """Talk to the TPM past every verb of ours."""
        return Tpm(self.machine.tcti).connect(doing)

    def counts(self) -> tuple[int, int]:
        """Return reset and restart count now."""
        clock = self.host.clock()
        return clock.reset_count, clock.restart_count

    def boot(self, state: bootlog.BootState) -> None:
        """Reboot into another state."""
        self.machine.reboot()
        self.log = bootlog.record(state)
        bootlog.extend(self.machine, self.log)

    def relabel(self) -> None:
        """Extend the golden boot's registers into those a program can reset."""
        golden = bootlog.record(bootlog.BootState())
        for event in bootlog._events(golden):
            if event.pcr in PCRS:
                place = dict(zip(PCRS, (16, 23), strict=True))[event.pcr]
                self.machine.transmit(firmware.pcr_extend(place, event.digest))

    def forward(self, milliseconds: int) -> None:
        """Set the clock on, as its owner can."""
        now = self.host.clock().clock_ms
        with self.link("set its clock") as link:
            link.esys.clock_set(now + milliseconds)

    def ak_public(self, ak: Signer | None = None) -> bytes:
        """Return an AK's public area."""
        if ak is None:
            return self.host.ak_public()
        with self.link("show a key") as link:
            return bytes(link.public(link.keep(link.create_primary(ak[0], ak[1].pack()))))

    def enrolment_request(self) -> EnrolmentRequest:
        """Ask to be enrolled."""
        return ask(self.host, host="gpu-1")

    def record(self, *, ak: Signer | None = None, firmware: str = "") -> bytes:
        """Write an enrolment record, as the threshold signs it."""
        certificate, public = self.host.ek_certificate(), self.ak_public(ak)
        seen = parse_attest(self.host.quote(b"", (0,)).attest).firmware_version
        return signed(
            EnrolmentRecord(
                environment=self.policy_digest,
                host="gpu-1",
                epoch=1,
                ek_spki=key_id(certificate_spki(certificate)),
                ek_certificate=certificate,
                ak_public=public,
                ak_name=name(public).hex(),
                trust_class="software",
                firmware=firmware or f"{seen:016x}",
                enrolled_at=NOW - timedelta(hours=2),
            ),
            "erik",
            "esme",
        )

    # ── other attestations ─────────────────────────────────────────────────────────────────────

    def plain_quote(self, extra: bytes) -> Attested:
        """Quote."""
        return self.host.quote(extra, PCRS)

    quote_for_another = plain_quote

    def certified_creation(self, extra: bytes) -> Attested:
        """Certify that some key was made."""
        host = self.host
        return host.certify_creation(host.create_host_key(bytes(32), PCRS), extra)

    def certified_key(self, extra: bytes) -> Attested:
        """Certify that the AK itself is loaded."""
        with self.link("certify a key") as link:
            ak = link.esys.tr_from_tpmpublic(AK_HANDLE)
            return _attested(*link.esys.certify(ak, ak, extra, _SCHEME))

    def certified_nv(self, extra: bytes) -> Attested:
        """Certify an index that holds the body of a golden quote."""
        body = pack_selection(BANKS) + sized(bytes.fromhex(self.golden.pcr_digest()))
        index = replace(counter_public(0x01800C30), data_bytes=len(body))
        ordinary = replace(index, attributes=index.attributes & ~0x20000010)
        with self.link("certify an index") as link:
            nv_define(link, ordinary)
            nv_write(link, ordinary.index, body)
            ak = link.esys.tr_from_tpmpublic(AK_HANDLE)
            at = link.esys.tr_from_tpmpublic(ordinary.index)
            certified = link.esys.nv_certify(ak, at, extra, _SCHEME, len(body), 0, auth_handle=at)
            return _attested(*certified)

    def good_key(self) -> HostKey:
        """Make a key that is as it should be, to show what it has."""
        return self.host.create_host_key(bytes(32), PCRS)

    # ── a request ──────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        *,
        ak: Signer | None = None,
        forged: bool = False,
        bent_magic: str = "",
        quote: Callable[[bytes], Attested] | None = None,
        creation: Callable[[bytes], Attested] | None = None,
        selection: bytes | None = None,
        creation_selection: bytes | None = None,
        quote_extra: bytes | None = None,
        creation_extra: bytes | None = None,
        outside_info: bytes = b"",
        flags: tuple[Attributes, Attributes] = (Attributes(0), Attributes(0)),
        hierarchy: Any = ESYS_TR.NULL,
        parent: EccPublic = HOST_PARENT_TEMPLATE,
        shown: HostKey | None = None,
        auth_policy: Change | None = None,
        nv: NvPublic | None = None,
        counter: int = 0,
        window_ms: int = 0,
        body: dict[str, object] | None = None,
        before_certify: Callable[[], None] = lambda: None,
        before_quote: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Make a request; everything not named is as an honest host does it."""
        ak_public = self.ak_public(ak)
        terms, nv_public = self._terms(ak_public, nv, counter, window_ms)
        opens = auth_policy(terms) if auth_policy else self._policy(terms)
        honest = host_key_template(_H_CURVE, opens)
        template = replace(honest, attributes=(honest.attributes | flags[0]) & ~flags[1])
        pcrs = creation_selection or pack_selection(BANKS)
        with self.link("make a key") as link:
            above = link.keep(link.create_primary(hierarchy, parent.pack()))
            private, public, data, digest, ticket = link.esys.create(
                above,
                TPM2B_SENSITIVE_CREATE(),
                unmarshal(TPM2B_PUBLIC, sized(template.pack())),
                outside_info,
                unmarshal(TPML_PCR_SELECTION, pcrs),
            )
            parent_public = link.public(above)
        h = public.publicArea.marshal()
        before_certify()
        extra = terms.digest() if creation_extra is None else creation_extra
        if creation is not None:
            created = creation(extra)
        elif forged:
            born = Created(object_name=name(h), creation_hash=bytes(digest))
            created = self._forge(ak, extra, born, bent=bent_magic == "creation")
        else:
            with self.link("certify a key") as link:
                above = link.keep(link.create_primary(hierarchy, parent.pack()))
                loaded = link.keep(
                    link.esys.load(
                        above,
                        unmarshal(TPM2B_PRIVATE, sized(bytes(private))),
                        unmarshal(TPM2B_PUBLIC, sized(h)),
                    )
                )
                link.drop(above)
                created = _attested(
                    *link.esys.certify_creation(
                        _signer(link, ak),
                        loaded,
                        extra,
                        bytes(digest),
                        _SCHEME,
                        unmarshal(TPMT_TK_CREATION, ticket.marshal()),
                    )
                )
        before_quote()
        request = Request(
            terms=terms,
            environment=self.policy_digest,
            host="gpu-1",
            enrolment=decode_statement(EnrolmentRecord, self.record_data).digest,
            golden=statement_digest(self.golden),
            suite="P256",
            key=Creation(
                public=h,
                parent_public=shown.parent_public if shown else parent_public,
                creation_data=shown.creation_data if shown else data.creationData.marshal(),
                attest=created.attest,
                signature=created.signature,
            ),
            mlkem=None,
            ak_public=ak_public,
            nv_public=nv_public,
            event_log=b"",
            requested_at=NOW,
            checkpoint=None,
            further=(),
        )
        request = msgspec.structs.replace(request, **(body or {}))
        bound = bind("request", bytes.fromhex(statement_digest(request)))
        extra = bound if quote_extra is None else quote_extra
        if quote is not None:
            quoted = quote(extra)
        elif forged:
            golden = Quoted(banks=BANKS, pcr_digest=bytes.fromhex(self.golden.pcr_digest()))
            quoted = self._forge(ak, extra, golden, bent=bent_magic == "quote")
        else:
            wanted = unmarshal(TPML_PCR_SELECTION, selection or pack_selection(BANKS))
            with self.link("quote") as link:
                quoted = _attested(*link.esys.quote(_signer(link, ak), wanted, extra))
        given = Signature(
            keyid=key_id(spki(ak_public)), sig=pack_quote(quoted.attest, quoted.signature)
        )
        return encode_statement(request, [given])

    def _terms(
        self, ak_public: bytes, nv: NvPublic | None, counter: int, window_ms: int
    ) -> tuple[Terms, bytes]:
        nv_public, value = (nv.pack(), counter) if nv else (b"", 0)
        if nv is None:
            given = self.host.allocate_counter(())
            nv_public, value = given.public, given.value
        clock = self.host.clock()
        record = decode_statement(EnrolmentRecord, self.record_data).predicate
        terms = Terms(
            manifest=MANIFEST,
            policy=self.policy_digest,
            mode="once",
            ek_spki=record.ek_spki,
            ak_name=name(ak_public).hex(),
            nv_name=nv_name(nv_public).hex(),
            counter=value,
            reset_count=clock.reset_count,
            restart_count=clock.restart_count,
            deadline_ms=clock.clock_ms + (window_ms or self.window_ms),
            pcr_digest=self.golden.pcr_digest(),
            checkpoint=None,
        )
        return terms, nv_public

    def _policy(self, terms: Terms) -> bytes:
        tree, officers = signing_tree(self.policy)
        conditions = conditions_of(terms, self.golden)
        return host_policy(tree, officers, terms=terms.digest(), conditions=conditions)

    def _forge(
        self, ak: Signer | None, extra: bytes, body: Quoted | Created, *, bent: bool
    ) -> Attested:
        """Write an attestation by hand and have an unrestricted key of the TPM sign it."""
        assert ak is not None
        now = parse_attest(self.host.quote(b"", (0,)).attest)
        signer = qualified_name(RH_ENDORSEMENT, name(self.ak_public(ak)))
        attest = replace(now, signer=signer, extra_data=extra, body=body).pack()
        if bent:
            attest = b"\xfeTCG" + attest[4:]
        ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
        with self.link("sign what it is handed") as link:
            key = _signer(link, ak)
            return _attested(attest, link.esys.sign(key, sha256(attest), _SCHEME, ticket))

    # ── vectors ────────────────────────────────────────────────────────────────────────────────

    def made(
        self,
        label: str,
        comment: str,
        *fails: str,
        data: bytes,
        rule: str = "evidence",
        cve: str = "",
        enrolment: bytes = b"",
        remembered: str = "",
        manifest: str = "",
        policies: tuple[str, ...] = (),
    ) -> Made:
        """Write down a vector about a request."""
        headers = (
            ("expect", "fail " + " ".join(fails) if fails else "pass"),
            ("comment", comment),
            ("cve", cve),
            ("rule", rule),
            ("policies", " ".join(policies)),
            ("manifest", manifest),
            ("remembered", remembered),
            ("enrolment", enrolment.decode()),
            ("request", data.decode()),
        )
        return Made(name=label, headers=headers)

    def binding(self, data: bytes) -> bytes:
        """Return what the quote of a request is over."""
        return bind("request", bytes.fromhex(decode_statement(Request, data).digest))

    def host_key_name(self, data: bytes) -> str:
        """Return H's Name."""
        return name(decode_statement(Request, data).predicate.key.public).hex()

    def renamed(self, data: bytes, **changes: object) -> bytes:
        """Change terms in a request that is quoted already."""
        statement = decode_statement(Request, data)
        terms = msgspec.structs.replace(statement.predicate.terms, **changes)
        body = msgspec.structs.replace(statement.predicate, terms=terms)
        return encode_statement(body, statement.envelope.signatures)


def _signer(link: Connection, ak: Signer | None) -> Any:
    if ak is None:
        return link.esys.tr_from_tpmpublic(AK_HANDLE)
    return link.keep(link.create_primary(ak[0], ak[1].pack()))


def allocate_banks(machine: Swtpm, algs: tuple[Alg, ...]) -> None:
    """Allocate banks of registers; they are there after a reboot."""
    banks = pack_selection(tuple(PcrBank(alg, tuple(range(24))) for alg in algs))
    with Tpm(machine.tcti).connect("allocate banks") as link:
        link.esys.pcr_allocate(unmarshal(TPML_PCR_SELECTION, banks))
    machine.reboot()


def nv_define(link: Connection, public: NvPublic) -> None:
    """Define an NV index."""
    link.esys.nv_define_space(b"", unmarshal(TPM2B_NV_PUBLIC, sized(public.pack())))


def nv_write(link: Connection, index: int, data: bytes) -> None:
    """Write an NV index by its own authorisation."""
    at = link.esys.tr_from_tpmpublic(index)
    link.esys.nv_write(at, data, auth_handle=at)
