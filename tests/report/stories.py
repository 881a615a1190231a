"""Releases as auditors meet them: what went well, and all that can go wrong at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from custody.errors import Incomplete
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.envelope import Statement, decode_envelope
from custody.formats.logentry import entry_of
from custody.formats.logproof import LogProof
from custody.formats.request import Request
from custody.lab import bootlog
from custody.log.tree import Tree
from custody.ops.approve import deny_requests
from custody.ops.bundle import Bundle
from custody.ops.receipts import give_up
from tests.release.cast import NOW, Cast, spki
from tests.release.expect import changed, requoted, spoilt
from tests.release.logged import LoggedCast
from tests.release.test_event_logs import vouch

HOSTILE = "../\u202egpj.\x1b[31m<script>alert(1)</script>&amp;.dsse"

_TWO = ("sec1", "lead2")
_QUORUM = ("sec1", "sec3", "lead2")


def deny(
    cast: Cast, bundle: Bundle, request: Statement[Request], who: str, *, why: str, now: datetime
) -> bytes:
    """Deny as one officer, in his words."""
    return deny_requests(
        bundle.statement,
        [request],
        reason=why,
        situation=cast.situation(who, now=now),
        home=cast.home(who),
        signer=cast.people[who].signer,
    )[0].data


def heap(
    cast: Cast, bundle: Bundle, requests: Sequence[Statement[Request]], *data: bytes
) -> Documents:
    """Put a case together."""
    files = [(f"{n:02}.dsse", each) for n, each in enumerate(data)]
    files.append(("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()))
    return merge(cast.documents, sort_documents(files), Documents(requests=tuple(requests)))


def eventful(cast: Cast) -> Documents:
    """Tell of a request given up after a denial, and of one opened over a bad share and burned."""
    bundle = cast.seal()
    vouch(cast, epoch=2)
    first = cast.request(bundle, now=NOW + timedelta(minutes=4))
    early = [
        cast.approve(bundle, first, "sec2", now=NOW + timedelta(minutes=31)),
        deny(
            cast,
            bundle,
            first,
            "sec1",
            why="the evaluation of 4 January is not signed off",
            now=NOW + timedelta(minutes=47),
        ),
    ]
    (entry,) = cast.place.ledger.all()
    given_up = give_up(entry, cast.tpm, cast.place, now=NOW + timedelta(hours=2))
    failed = cast.place.receipt_path(first.digest).read_bytes()

    second = cast.request(bundle, now=NOW + timedelta(hours=3))
    when = NOW + timedelta(hours=3)
    answers = [
        cast.approve(bundle, second, who, now=when + timedelta(minutes=n))
        for who, n in (("sec1", 6), ("sec2", 9), ("sec3", 41), ("lead2", 72))
    ]
    answers[1] = spoilt(cast, answers[1], "sec2", "another")
    answers.append(
        deny(
            cast,
            bundle,
            second,
            "lead1",
            why="I would wait for the red team's report",
            now=when + timedelta(minutes=55),
        )
    )
    target = cast.folder / "opened"
    done = cast.open(bundle, second, answers, target, now=when + timedelta(minutes=90))
    late = changed(
        cast,
        answers[3],
        "lead2",
        approved_at=when + timedelta(minutes=80),
        expires_at=when + timedelta(minutes=81),
    )
    return heap(
        cast,
        bundle,
        [first, second],
        *early,
        failed,
        given_up.data,
        *answers,
        late,
        done.receipt_data,
        done.burn_data,
    )


def unsound(cast: Cast) -> Documents:
    """Tell of a host that booted another loader, a revoked officer, and files nobody can read."""
    bundle = cast.seal()
    approved = vouch(cast, epoch=2, oldest=1)
    cast.machine.reboot()
    cast.boot(bootlog.BootState(loader="boot <b>loader</b> 2.12"))
    cast.documents = replace(cast.documents, golden_sets=())
    vouch(cast, epoch=3)
    honest = cast.request(bundle)
    answers = [cast.approve(bundle, honest, who) for who in _TWO]
    cast.documents = replace(cast.documents, golden_sets=(approved,))
    lie = requoted(cast, honest, golden=approved.digest)
    said = [changed(cast, a, w, request=lie.digest) for a, w in zip(answers, _TWO, strict=True)]
    cast.crl = cast.make_crl(number=2, revoked=[spki(cast.people["sec1"].signing[0])])
    cast.refresh((HOSTILE, b"{}"), ("notes.txt", b"hello"))
    return heap(cast, bundle, [lie], *said)


def keep_apart(cast: Cast, label: str) -> None:
    """Put a story's folders aside, so that the same cast can play another."""
    for made in ("model", "model.bundle", "opened"):
        if (cast.folder / made).exists():
            (cast.folder / made).rename(cast.folder / f"{label}.{made}")


def logged(cast: LoggedCast) -> Documents:
    """Tell of a request that failed to open and was given up, and of one that was denied by one,
    opened over a bad share and burned: all of it in a log, whose witness tells the time.
    """
    bundle = cast.seal()
    first = cast.ask(bundle, now=NOW + timedelta(minutes=4))
    early = [cast.approve(bundle, first, who, now=NOW + timedelta(minutes=9)) for who in _QUORUM]
    bad = [spoilt(cast, a, w, "another") for a, w in zip(early, _QUORUM, strict=True)]
    cast.log.clock = NOW + timedelta(minutes=20)
    word = cast.countersign(bundle, first, *bad, now=cast.log.clock)
    with pytest.raises(Incomplete):
        cast.open(bundle, first, [*bad, word], cast.folder / "never", now=cast.log.clock)
    (entry,) = cast.place.ledger.all()
    given_up = give_up(entry, cast.tpm, cast.place, now=NOW + timedelta(minutes=40))
    failed = cast.place.receipt_path(first.digest).read_bytes()

    when = NOW + timedelta(hours=3)
    cast.log.clock = when
    second = cast.ask(bundle, now=when)
    answers = [
        cast.approve(bundle, second, who, now=when + timedelta(minutes=n))
        for who, n in (("sec1", 6), ("sec2", 9), ("sec3", 41), ("lead2", 72))
    ]
    answers[1] = spoilt(cast, answers[1], "sec2", "another")
    why = "I would wait for the red team's report"
    answers.append(deny(cast, bundle, second, "lead1", why=why, now=when + timedelta(minutes=55)))
    cast.log.clock = when + timedelta(minutes=80)
    again = cast.countersign(bundle, second, *answers, now=cast.log.clock)
    target = cast.folder / "opened"
    done = cast.open(bundle, second, [*answers, again], target, now=when + timedelta(minutes=90))
    ends = (failed, given_up.data, done.receipt_data, done.burn_data)
    proofs = tuple(_proofs(cast, ends, now=when + timedelta(minutes=95)))
    case = heap(cast, bundle, [first, second], *bad, word, *answers, again, *ends)
    return merge(case, sort_documents(proofs))


def _proofs(
    cast: LoggedCast, ends: Sequence[bytes], *, now: datetime
) -> Iterator[tuple[str, bytes]]:
    """Log how both requests ended, and give the proofs."""
    cast.log.clock = now
    entries = [entry_of(decode_envelope(data)).encode() for data in ends]
    done = cast.log.writer().append(entries)
    head = done.signed.checkpoint
    tree = Tree(cast.log.store, size=head.size, head=head.root)
    for n, entry in enumerate(entries):
        index = done.start + n
        proof = LogProof(index, tree.inclusion(index), done.signed, entry)
        yield f"end-{n}.tlog-proof", proof.encode()
