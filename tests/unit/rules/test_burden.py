"""How much an auditor takes on at once: each limit, at it and above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from custody.errors import Refused
from custody.formats.case import Documents, EntryProof, sort_documents
from custody.formats.envelope import Predicate, Statement
from custody.formats.logentry import entry_of
from custody.formats.logproof import decode_proof
from custody.ops.audit import audit_case
from custody.rules.burden import burden_of, check_burden

VECTORS = Path(__file__).parents[2] / "vectors"
FILES = (
    *("request/example.dsse", "approval/alice.dsse", "approval/denial.dsse", "logged/example.dsse"),
    *("receipt/example.dsse", "burn/example.dsse", "manifest/example.dsse", "formats/policy.dsse"),
    *("formats/enrolment.dsse", "timestamp/denial.tsr"),
    "checkpoint/example.add-checkpoint",
)


@pytest.fixture(scope="module")
def one() -> Documents:
    """Give one of everything."""
    renamed = ((name, name.replace(".add-checkpoint", ".tlog-consistency")) for name in FILES)
    found = sort_documents((to, (VECTORS / name).read_bytes()) for name, to in renamed)
    assert () == found.unreadable
    (denial,) = found.denials
    proof = decode_proof((VECTORS / "checkpoint" / "example.denial.tlog-proof").read_bytes())
    return replace(found, proofs=(EntryProof(entry=entry_of(denial.envelope), proof=proof),))


def signed(statement: Statement[Predicate], count: int) -> Statement[Predicate]:
    """Put so many signatures around a statement."""
    envelope = statement.envelope
    more = envelope.signatures[:1] * count
    return msgspec.structs.replace(
        statement, envelope=msgspec.structs.replace(envelope, signatures=more)
    )


# What is filled, how often it may be there, and how a case is given so much of it.
Fill = Callable[[Documents, int], Documents]
LIMITS: dict[str, tuple[int, Fill]] = {
    "policies": (128, lambda d, n: replace(d, policies=d.policies * n)),
    "requests": (1024, lambda d, n: replace(d, requests=d.requests * n)),
    "signatures of one statement": (
        32,
        lambda d, n: replace(d, policies=(signed(d.policies[0], n),)),  # type: ignore[arg-type]
    ),
    "signatures that vouch for hosts, by requests": (
        1000,
        lambda d, n: replace(
            d,
            requests=d.requests * n,
            enrolments=(signed(d.enrolments[0], 30),) * 10,  # type: ignore[arg-type]
        ),
    ),
    "answers to one request": (
        1024,
        lambda d, n: replace(d, approvals=d.approvals * n, denials=()),
    ),
    "certificates and lists, by answers": (
        1000,
        lambda d, n: replace(d, approvals=d.approvals * 998, denials=(), certificates=(b"x",) * n),
    ),
    "ends of one request": (64, lambda d, n: replace(d, receipts=d.receipts * n, burns=())),
    "words of logs on one request": (16, lambda d, n: replace(d, logged=d.logged * n)),
    "proofs of logs": (4096, lambda d, n: replace(d, proofs=spread(d, n))),
    "proofs of one entry": (8, lambda d, n: replace(d, proofs=d.proofs * n)),
    "heads of logs, by requests": (
        250,
        lambda d, n: replace(
            d, requests=d.requests * 1000, logged=(), consistencies=d.consistencies * n
        ),
    ),
    "proofs of consistency": (1024, lambda d, n: replace(d, consistencies=d.consistencies * n)),
    "timestamps": (1024, lambda d, n: replace(d, tokens=d.tokens * n)),
}


def spread(documents: Documents, count: int) -> tuple[EntryProof, ...]:
    """Prove so many entries, each once."""
    (proof,) = documents.proofs
    return tuple(
        replace(proof, entry=msgspec.structs.replace(proof.entry, digest=f"{n:064x}"))
        for n in range(count)
    )


@pytest.mark.parametrize("what", LIMITS)
def test_more_than_anybody_would_wait_for_is_refused_by_name(one: Documents, what: str) -> None:
    """As much as is allowed is taken on; one more is refused, and said what it is of."""
    most, fill = LIMITS[what]
    check_burden(fill(one, most))
    with pytest.raises(Refused, match=f"^{what}: ") as error:
        audit_case(fill(one, most + 1), pin="ab" * 32)
    assert "case.burden" == error.value.check


def test_a_denial_of_the_same_terms_is_an_answer_to_each_request(one: Documents) -> None:
    """A thousand denials that name other requests are still held against the one they are about."""
    (denial,) = one.denials
    stray = msgspec.structs.replace(
        denial, predicate=msgspec.structs.replace(denial.predicate, request="ab" * 32)
    )
    with pytest.raises(Refused, match=r"^answers to one request: "):
        check_burden(replace(one, denials=(stray,) * 1024))


def test_lists_and_manifests_weigh_by_their_size(one: Documents) -> None:
    """One list of many bytes is as much work as many; a large manifest for each of its requests."""
    long = bytes(64 << 20)
    with pytest.raises(Refused, match=r"^certificates and lists, by answers: "):
        check_burden(replace(one, approvals=one.approvals * 1000, denials=(), crls=(long,)))
    (manifest,) = one.manifests
    size = len(manifest.envelope.payload)
    request = msgspec.structs.replace(
        one.requests[0],
        predicate=msgspec.structs.replace(
            one.requests[0].predicate,
            terms=msgspec.structs.replace(
                one.requests[0].predicate.terms, manifest=manifest.digest
            ),
        ),
    )
    copies = (1 << 30) // (size * 512)
    heavy = replace(one, requests=(request,) * 512, manifests=one.manifests * copies)
    check_burden(heavy)
    with pytest.raises(Refused, match=r"^bytes of manifests, by requests: "):
        check_burden(replace(heavy, manifests=one.manifests * (copies + 1)))


def test_entries_of_words_are_counted_over_all_copies(one: Documents) -> None:
    """A word with many entries is judged anew for each copy of its request."""
    (word,) = one.logged
    first = word.predicate.entries[0]
    entries = tuple(
        msgspec.structs.replace(first, statement=f"{n:064x}", index=n) for n in range(1024)
    )
    long = msgspec.structs.replace(
        word, predicate=msgspec.structs.replace(word.predicate, entries=entries)
    )
    check_burden(replace(one, logged=(long,), requests=one.requests * 64))
    with pytest.raises(Refused, match=r"^entries of logs' words: "):
        check_burden(replace(one, logged=(long,), requests=one.requests * 65))


def test_every_limit_is_tried(one: Documents) -> None:
    """Nothing is bounded here that no test has gone over."""
    more = {"bytes of manifests, by requests", "entries of logs' words"}
    assert {share.what for share in burden_of(one)} == LIMITS.keys() | more
