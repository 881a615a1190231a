"""A collected release, and ways to change it so that only its contents can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from custody.encoding import Digest, encode
from custody.errors import CustodyError
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.casefile import decode_case_file, encode_case_file, suffix_of
from custody.formats.envelope import decode_envelope
from custody.formats.logentry import entry_of
from custody.formats.logproof import LogProof
from custody.log.tree import Tree
from custody.ops.audit import AuditReport
from custody.ops.collect import Case, audit_files, collect, open_case_file, others_of
from custody.rules.times import imprint_of, statements_of
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, case_of, failed
from tests.release.logged import LoggedCast
from tests.release.tsa import Authority


@dataclass(frozen=True)
class Collection:
    """A collected file and the pin it is judged by."""

    pin: Digest
    data: bytes
    tsa_roots: tuple[bytes, ...] = ()

    @property
    def members(self) -> dict[str, bytes]:
        """Its members by name."""
        return dict(decode_case_file(self.data))

    def named(self, kind: str) -> list[str]:
        """Name the members of one kind."""
        return [name for name in self.members if name.startswith(f"{kind}-")]


def release(cast: Cast) -> Documents:
    """Run one release to its end, under version 2 of a policy, with a denial in it."""
    cast.next_policy()
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    denial = cast.deny(bundle, request, "sec2")
    done = cast.open(bundle, request, answers, cast.folder / "out")
    return case_of(cast, bundle, request, [*answers, denial], done)


def collected(cast: Cast) -> Collection:
    """Collect one release."""
    return Collection(cast.pin, collect(release(cast), pin=cast.pin).data)


def logged_release(cast: LoggedCast) -> Collection:
    """Run one release that is logged and witnessed, with a denial; stamp and collect it."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = [*cast.quorum(bundle, request), cast.deny(bundle, request, "sec3")]
    cast.log.clock = NOW + timedelta(minutes=7)
    word = cast.countersign(bundle, request, *answers, now=NOW + timedelta(minutes=7))
    files = [*answers, word]
    later = NOW + timedelta(minutes=9)
    done = cast.open(bundle, request, files, cast.folder / "out", now=later)
    receipt = entry_of(decode_envelope(done.receipt_data))
    appended = cast.log.writer().append([receipt.encode()])
    tree = Tree(
        cast.log.store,
        size=appended.signed.checkpoint.size,
        head=appended.signed.checkpoint.root,
    )
    way = tree.inclusion(appended.start)
    proof = LogProof(appended.start, way, appended.signed, receipt.encode())
    tsa = Authority()
    more = [
        ("receipt.dsse", done.receipt_data),
        ("burn.dsse", done.burn_data),
        ("receipt.tlog-proof", proof.encode()),
        ("receipt.tsr", tsa.stamp(receipt.digest, NOW + timedelta(hours=1))),
        ("head.tsr", tsa.stamp(imprint_of(appended.signed), NOW + timedelta(hours=2))),
    ]
    case = merge(cast.case(bundle, request, *files), sort_documents(more))
    data = collect(case, pin=cast.pin, tsa_roots=[tsa.root]).data
    return Collection(cast.pin, data, (tsa.root,))


def written(*files: tuple[str, bytes]) -> bytes:
    """Write a case file, every digest in it as it should be."""
    return encode_case_file((suffix_of(name), data) for name, data in files)


def without(collection: Collection, name: str) -> bytes:
    """Take one member out, and write the rest with every digest right."""
    return written(*((n, data) for n, data in collection.members.items() if n != name))


def judged(data: bytes, pin: Digest, *, tsa_roots: Sequence[bytes] = ()) -> AuditReport:
    """Judge a collected file as `auditor verify` does."""
    file = open_case_file("x.case", data)
    case = Case(documents=file.documents, files=(file,))
    return audit_files(case, pin=pin, tsa_roots=tsa_roots)


def faults(data: bytes, pin: Digest, *, tsa_roots: Sequence[bytes] = ()) -> set[str]:
    """List the checks that a collected file fails; the reader's refusal is one."""
    try:
        report = judged(data, pin, tsa_roots=tsa_roots)
    except CustodyError as error:
        return {getattr(error, "check", "malformed")}
    return failed(report)


def reason_of(check: str, data: bytes, pin: Digest) -> str:
    """Return why a check of a collected file failed."""
    report = judged(data, pin)
    return next(v.reason for v in report.verdicts if (v.check, v.outcome) == (check, "fail"))


def files_of(documents: Documents) -> list[tuple[str, bytes]]:
    """Return everything in a case as ``(suffix, bytes)``."""
    statements = [(".dsse", encode(found.envelope)) for found in statements_of(documents)]
    return [*statements, *others_of(documents)]
