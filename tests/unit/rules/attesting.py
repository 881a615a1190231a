"""Evidence made without a TPM, wrong in one thing at a time; and the vectors a TPM made.

`evidence` goes through a host's steps in order.  A change at one step is carried through all that
follow, as an attacker would: only what nobody can mend afterwards is left to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any

import msgspec

from custody.crypto.bind import bind
from custody.crypto.tpmpolicy import host_policy
from custody.encoding import key_id, sha256
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.eventlog import EventType
from custody.formats.evidence import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    RH_ENDORSEMENT,
    RH_NULL,
    Alg,
    Attest,
    ClockInfo,
    Created,
    CreationData,
    Curve,
    EccPublic,
    PcrBank,
    Quoted,
    counter_public,
    host_key_template,
    low_s,
    name,
    nv_name,
    pack_quote,
    qualified_name,
)
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.policy import Policy
from custody.formats.request import Creation, Request, Terms
from custody.formats.state import HostMemory, KeyMemory
from custody.lab import bootlog
from custody.rules.attestation import conditions_of
from custody.rules.eventlog import replay
from custody.rules.quorum import signing_tree
from custody.rules.verdicts import Verdict
from tests.unit import eventlogs
from tests.unit.formats.fixed import key, octets, sign
from tests.unit.formats.fixed import spki as fixed_spki
from tests.unit.people import NOW
from tests.unit.people import policy as sound_policy

#: Changes what one step made; see `evidence`.
Change = Callable[[Any], Any]
#: What `check_evidence` and its mutants are.
Judge = Callable[..., tuple[Verdict, ...]]

PCRS = (0, 2, 4, 7)
BANKS = (PcrBank(Alg.SHA256, PCRS),)
FIRMWARE = 0x2019102300163636
COUNTER_INDEX = 0x01800C00
CREATED_MS, QUOTED_MS = 71_000_000, 71_000_400
LOG = bootlog.record(bootlog.BootState())


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request, what its judge holds it against, and the checks that must fail."""

    name: str
    fails: frozenset[str]
    statement: Statement[Request]
    enrolment: EnrolmentRecord
    golden: GoldenSet
    policy: Policy
    remembered: HostMemory | None = None

    def judged_by(self, judge: Judge) -> tuple[Verdict, ...]:
        """Return how every check came out, in order."""
        return judge(
            self.statement,
            enrolment=self.enrolment,
            golden=self.golden,
            policy=self.policy,
            remembered=self.remembered,
        )


@cache
def policy() -> Policy:
    """Return a policy that asks for no event log: requests without one are smaller."""
    sound = sound_policy()
    return sound_policy(host=msgspec.structs.replace(sound.host, event_log="optional"))


def golden_set(log: bytes = LOG, pcrs: tuple[int, ...] = PCRS) -> GoldenSet:
    """Return the golden set of a boot."""
    values = bootlog.pcrs(log)
    return GoldenSet(
        environment="ab" * 32,
        name="lab-6.1",
        notes="",
        epoch=1,
        oldest=1,
        bank="sha256",
        pcrs=tuple(PcrValue(pcr=pcr, value=values[pcr].hex()) for pcr in pcrs),
        issued_at=NOW - timedelta(days=1),
    )


def public(template: EccPublic, words: str) -> EccPublic:
    """Put the key of these words into a template, on P-256."""
    point = key(words).public_key().public_numbers()
    return replace(template, x=point.x.to_bytes(32, "big"), y=point.y.to_bytes(32, "big"))


def record(ak: bytes, **changes: object) -> EnrolmentRecord:
    """Return the enrolment record of a host with this AK."""
    made = EnrolmentRecord(
        environment="ab" * 32,
        host="gpu-1",
        epoch=1,
        ek_spki=octets("ek").hex(),
        ek_certificate=b"-",
        ak_public=ak,
        ak_name=name(ak).hex(),
        trust_class="software",
        firmware=f"{FIRMWARE:016x}",
        enrolled_at=NOW - timedelta(days=2),
    )
    return msgspec.structs.replace(made, **changes)


def signature(attest: bytes, words: str = "ak") -> bytes:
    """Sign an attestation as a TPM does (TPMT_SIGNATURE)."""
    der = sign(words, attest)
    r, s = der[4 : 4 + der[3]], der[6 + der[3] :]
    return low_s(r, s, hash_alg=Alg.SHA256, curve=key(words).curve).pack()


def attest(ak: bytes, extra: bytes, clock_ms: int, body: Quoted | Created) -> Attest:
    """Return what the AK of an enrolled host attests."""
    return Attest(
        signer=qualified_name(RH_ENDORSEMENT, name(ak)),
        extra_data=extra,
        clock=ClockInfo(clock_ms=clock_ms, reset_count=3, restart_count=1, safe=True),
        firmware_version=FIRMWARE,
        body=body,
    )


def terms(ak: bytes, nv: bytes, golden: GoldenSet) -> Terms:
    """Return what gpu-1 asks for."""
    return Terms(
        manifest="cd" * 32,
        policy="ef" * 32,
        mode="once",
        ek_spki=octets("ek").hex(),
        ak_name=name(ak).hex(),
        nv_name=nv_name(nv).hex(),
        counter=7,
        reset_count=3,
        restart_count=1,
        deadline_ms=CREATED_MS + policy().limits.request_window_seconds * 1000,
        pcr_digest=golden.pcr_digest(),
        checkpoint=None,
    )


def evidence(**at: Change) -> Case:
    """Make a request whose evidence is good but for the changes.

    A step is changed by its name: ``ak``, ``nv``, ``golden``, ``terms``, ``auth_policy``, ``h``,
    ``parent``, ``creation``, ``created``, ``created_signature``, ``request``, ``quoted``,
    ``quote``, ``quote_signature``, ``keyid``; and ``enrolment``, ``judged_golden``,
    ``judged_policy`` and ``remembered`` change what the judge holds the request against.
    """
    unknown = set(at)

    def step(which: str, made: Any) -> Any:
        unknown.discard(which)
        return at[which](made) if which in at else made

    golden = step("golden", golden_set())
    ak = step("ak", public(AK_TEMPLATE, "ak")).pack()
    nv = step("nv", counter_public(COUNTER_INDEX)).pack()
    asked = step("terms", terms(ak, nv, golden))
    tree, officers = signing_tree(policy())
    opens = host_policy(
        tree, officers, terms=asked.digest(), conditions=conditions_of(asked, golden)
    )
    template = host_key_template(Curve.P256, step("auth_policy", opens))
    h = step("h", public(template, "h")).pack()
    parent = step("parent", public(HOST_PARENT_TEMPLATE, "parent")).pack()
    pcr_digest = bytes.fromhex(golden.pcr_digest())
    creation = step(
        "creation",
        CreationData(
            banks=BANKS,
            pcr_digest=pcr_digest,
            locality=1,
            parent_name_alg=Alg.SHA256,
            parent_name=name(parent),
            parent_qualified_name=qualified_name(RH_NULL, name(parent)),
            outside_info=b"",
        ),
    ).pack()
    born = Created(object_name=name(h), creation_hash=sha256(creation))
    created = step("created", attest(ak, asked.digest(), CREATED_MS, born)).pack()
    request = step(
        "request",
        Request(
            terms=asked,
            environment="ab" * 32,
            host="gpu-1",
            enrolment="12" * 32,
            golden="34" * 32,
            suite="P256",
            key=Creation(
                public=h,
                parent_public=parent,
                creation_data=creation,
                attest=created,
                signature=step("created_signature", signature)(created),
            ),
            mlkem=None,
            ak_public=ak,
            nv_public=nv,
            event_log=b"",
            requested_at=NOW,
            checkpoint=None,
            further=(),
        ),
    )
    extra = bind("request", bytes.fromhex(statement_digest(request)))
    now = Quoted(banks=BANKS, pcr_digest=pcr_digest)
    quoted = step("quoted", attest(ak, extra, QUOTED_MS, now)).pack()
    sig = step("quote", pack_quote(quoted, step("quote_signature", signature)(quoted)))
    given = Signature(keyid=step("keyid", key_id(fixed_spki("ak"))), sig=sig)
    case = Case(
        name="",
        fails=frozenset(),
        statement=decode_statement(Request, encode_statement(request, [given])),
        enrolment=step("enrolment", record(ak)),
        golden=step("judged_golden", golden),
        policy=step("judged_policy", policy()),
        remembered=step("remembered", None),
    )
    if unknown:
        raise ValueError(f"no such step: {unknown}")
    return case


def evidence_with_log(size_bytes: int) -> Case:
    """Make good evidence with an event log of about that size: a boot, and what GRUB ran."""
    grub = eventlogs.event(8, EventType.IPL, b"grub_cmd: set root=hd0,gpt1\0", b"\x55" * 32)
    boot = eventlogs.boot()
    shortest = len(eventlogs.log(*boot).pack())
    each = len(eventlogs.log(*boot, grub).pack()) - shortest
    log = eventlogs.log(*boot, *[grub] * ((size_bytes - shortest) // each))
    values = replay(log).values
    pcrs = tuple(PcrValue(pcr=pcr, value=values[pcr].hex()) for pcr in PCRS)
    return evidence(golden=on(pcrs=pcrs), request=on(event_log=log.pack()))


# ── changes ──────────────────────────────────────────────────────────────────────────────────────


def on(**changes: object) -> Change:
    """Change fields of a record, or of a dataclass."""

    def change(made: Any) -> Any:
        kind = msgspec.structs.replace if isinstance(made, msgspec.Struct) else replace
        return kind(made, **changes)

    return change


def to(value: object) -> Change:
    """Put something else in the place."""
    return lambda _: value


def clock(**changes: object) -> Change:
    """Change the clock of an attestation."""
    return lambda made: replace(made, clock=replace(made.clock, **changes))


def body(**changes: object) -> Change:
    """Change the body of an attestation."""
    return lambda made: replace(made, body=replace(made.body, **changes))


def key_of(**changes: object) -> Change:
    """Change what a request says of H."""
    return lambda made: msgspec.structs.replace(
        made, key=msgspec.structs.replace(made.key, **changes)
    )


def seen(reset_count: int, **keys: str) -> HostMemory:
    """Remember a host by its boot count, and keys by the requests they came in."""
    known = tuple(KeyMemory(name=own, request=request) for own, request in keys.items())
    return HostMemory(ek_spki=octets("ek").hex(), reset_count=reset_count, keys=known)


@dataclass
class Cases:
    """Cases by name, each with the checks that must fail."""

    all: list[Case] = field(default_factory=list)

    def add(self, what: str, *fails: str, **at: Change) -> None:
        """Add one."""
        wanted = frozenset(fails)
        self.all.append(replace(evidence(**at), name=what, fails=wanted))

    def __iter__(self) -> Iterator[Case]:
        return iter(self.all)
