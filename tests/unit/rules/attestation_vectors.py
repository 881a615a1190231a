"""Reads tests/vectors/attestation: what each file shows, and by what it must be refused."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from custody.encoding import decode, parse_time
from custody.formats.case import Documents, sort_documents
from custody.formats.enrolment import EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement, decode_statement
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.formats.request import Request
from custody.formats.state import HostMemory, KeyMemory, Memory
from custody.rules.attestation import check_evidence
from custody.rules.endorsement import (
    VendorLists,
    check_attestation_key,
    check_endorsement,
)
from custody.rules.request import check_request
from custody.rules.situation import Situation
from custody.rules.trust import TrustedPolicy, trust_chain
from custody.rules.verdicts import Verdict
from tests.unit.crypto.vectors import VECTORS, Vector, read
from tests.unit.people import NOW

HEADERS = (
    *("expect", "cve", "rule", "policies", "manifest", "remembered", "enrolment", "request"),
    *("inventory", "moment", "enrolment-request", "lists", "list-floor"),
)
#: The manifest every request was made for, unless a vector says that another is judged.
MANIFEST = "cd" * 32


@dataclass(frozen=True)
class _Digested:
    """As much of a manifest's statement as a request is judged by."""

    digest: str


class Folder:
    """A folder of vectors, and the documents they share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, Vector] = {}
        self._chains: dict[str, TrustedPolicy] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """List its vectors."""
        return tuple(sorted(path.stem for path in self._path.glob("*.txt")))

    def vector(self, name: str) -> Vector:
        """Read one vector."""
        if name not in self._read:
            (self._read[name],) = read(str(self._path / f"{name}.txt"), *HEADERS)
        return self._read[name]

    def expected(self, name: str) -> frozenset[str]:
        """Return which checks must fail."""
        word, *fails = self.vector(name)["expect"].split()
        if (word == "fail") != bool(fails) or word not in {"fail", "pass"}:
            raise ValueError(f"{name}: expect: {self.vector(name)['expect']}")
        return frozenset(fails)

    def statement(self, name: str) -> Statement[Request]:
        """Return a vector's request."""
        return decode_statement(Request, self.vector(name)["request"].encode())

    def judged(self, name: str) -> tuple[Verdict, ...]:
        """Judge one vector by the rule it names."""
        held = self.vector(name)
        match held["rule"]:
            case "evidence":
                return self._judged_evidence(held)
            case "request":
                return self._judged_request(held)
            case "enrolment":
                return self.judged_enrolment(held)
        raise ValueError(f"{name}: rule: {held['rule']}")

    def judged_enrolment(self, held: Vector) -> tuple[Verdict, ...]:
        """Judge what an enroller is shown."""
        asked = decode(EnrolmentRequest, held["enrolment-request"].encode())
        policy = self._trusted(held).policy
        floor = dict(entry.split("=") for entry in held.get("list-floor", "").split())
        lists = VendorLists(
            crls=tuple(base64.b64decode(text) for text in held.get("lists", "").split()),
            demanded=policy.host.vendor_crls,
            floor={authority: int(number) for authority, number in floor.items()},
            max_age=timedelta(seconds=policy.limits.crl_max_age_seconds),
        )
        return (
            *check_endorsement(
                asked,
                roots=policy.host.vendor_roots,
                lists=lists,
                inventory=held["inventory"].split(),
                now=parse_time(held["moment"]),
            ),
            *check_attestation_key(asked),
        )

    def _judged_evidence(self, held: Vector) -> tuple[Verdict, ...]:
        enrolment = decode_statement(EnrolmentRecord, self._record(held)).predicate
        return check_evidence(
            decode_statement(Request, held["request"].encode()),
            enrolment=enrolment,
            golden=decode_statement(GoldenSet, self._file("golden.dsse")).predicate,
            policy=self._trusted(held).policy,
            remembered=_remembered(held, enrolment.ek_spki),
        )

    def _judged_request(self, held: Vector) -> tuple[Verdict, ...]:
        documents = sort_documents(
            [("enrolment.dsse", self._record(held)), ("golden.dsse", self._file("golden.dsse"))]
        )
        manifest: Any = _Digested(held.get("manifest", MANIFEST))
        return check_request(
            decode_statement(Request, held["request"].encode()),
            cast("Statement[Manifest]", manifest),
            _situation(self._trusted(held), documents),
        )

    def _record(self, held: Vector) -> bytes:
        if "enrolment" in held:
            return held["enrolment"].encode()
        return self._file("enrolment.dsse")

    def _file(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def _trusted(self, held: Vector) -> TrustedPolicy:
        files = held.get("policies", "policy.dsse")
        if files not in self._chains:
            versions = [decode_statement(Policy, self._file(name)) for name in files.split()]
            self._chains[files] = trust_chain(versions, pin=versions[0].digest, floor=1, now=NOW)
        return self._chains[files]


#: The vectors that are kept in the tree.
KEPT = Folder(VECTORS / "attestation")


def _remembered(held: Vector, ek_spki: str) -> HostMemory | None:
    words: dict[str, str] = dict(w.split("=", 1) for w in held.get("remembered", "").split())
    if not words:
        return None
    keys: Sequence[KeyMemory] = ()
    if "h" in words:
        keys = (KeyMemory(name=words["h"], request=words["request"]),)
    return HostMemory(ek_spki=ek_spki, reset_count=int(words["reset-count"]), keys=tuple(keys))


def _situation(trusted: TrustedPolicy, documents: Documents) -> Situation:
    memory = Memory(
        kind="custody/memory/v1",
        pin=trusted.genesis,
        environment=trusted.genesis,
        policy=trusted.digest,
        policy_version=trusted.policy.version,
        crls=(),
        golden_sets=(),
        hosts=(),
        enrolments=(),
    )
    return Situation(trusted=trusted, documents=documents, memory=memory, now=NOW)
