"""What proving a host costs: each step on a software TPM, and judgements a second on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from benchmarks.bench import Bench
from benchmarks.cast import QUORUM
from benchmarks.model import make_model
from benchmarks.rows import Row, alone
from benchmarks.timing import run_process
from custody.crypto.certificates import spki_of
from custody.encoding import sha256, utc_now
from custody.formats.envelope import Statement
from custody.formats.evidence import ek_public, name
from custody.formats.request import Request
from custody.keys.tpm_credential import make_credential
from custody.ops.bundle import Bundle
from custody.ops.enroll import ask, ek_digest, judge_request
from custody.ops.open import open_release
from custody.ops.receipts import give_up
from custody.ops.request import request_release
from custody.rules.attestation import check_evidence
from custody.rules.request import check_request
from custody.rules.verdicts import require
from tests.release.cast import Cast
from tests.unit.rules.attesting import evidence_with_log

_MODEL_BYTES = 1 << 20
_LOGS_KIB = (2, 64)
_SECONDS = 1.0
T = TypeVar("T")


def rows(bench: Bench) -> Iterator[Row]:
    """Take one host through every step, several times."""
    place = bench.room.path / "attestation"
    place.mkdir()
    model, path = make_model(place, _MODEL_BYTES).path, place / "bundle"
    run_process(bench.actors.seal(model, path))
    bundle, cast = Bundle.at(path), bench.actors.cast
    yield _median("host_enrol_ms", bench.rounds, lambda: _enrol(cast), _ENROL)
    asked: list[Statement[Request]] = []
    yield _median(
        "host_request_ms",
        bench.rounds,
        lambda: asked.append(_request(cast, bundle)),
        _REQUEST,
        after=lambda: _burn(cast, asked[-1]),
    )
    yield _verify(cast, bundle, bench.rounds)
    yield _open(cast, bundle, bench)
    yield _burnt(cast, bundle, bench.rounds)
    for size in _LOGS_KIB:
        yield _rate(size)


_ENROL = (
    "swtpm; one enroller: EK certificate, AK and quote from the TPM, judged, and one challenge "
    "made and activated"
)
_REQUEST = "swtpm; counter, H, creation and quote, and the host's own judgement of all of it"


def _median(
    label: str,
    rounds: int,
    step: Callable[[], object],
    note: str,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> Row:
    """Time a step; the first turn is not counted."""
    spent = []
    for turn in range(rounds + 1):
        before()
        begun = time.perf_counter()
        step()
        if turn:
            spent.append(time.perf_counter() - begun)
        after()
    return alone(label, "ms", statistics.median(spent) * 1e3, note)


def _enrol(cast: Cast) -> None:
    asked = ask(cast.tpm, host="gpu-1")
    situation = cast.situation("enr1", now=utc_now())
    require(judge_request(asked, situation=situation, inventory={ek_digest(asked): None}))
    ek = ek_public(spki_of(asked.ek_certificate))
    secret = sha256(b"a secret")
    if cast.tpm.activate(*make_credential(ek, name(asked.ak_public), secret)) != secret:
        raise SystemExit("bench: the credential challenge failed")


def _request(cast: Cast, bundle: Bundle) -> Statement[Request]:
    return request_release(
        bundle.statement,
        situation=cast.situation("host", now=utc_now()),
        tpm=cast.tpm,
        place=cast.place,
        event_log=cast.event_log,
    ).statement


def _burn(cast: Cast, request: Statement[Request]) -> None:
    place = cast.place
    give_up(place.ledger.find(request.digest), cast.tpm, place, now=utc_now())


def _verify(cast: Cast, bundle: Bundle, rounds: int) -> Row:
    """Judge one request as an officer's machine does, his policy and memory read."""
    request = _request(cast, bundle)
    situation = cast.situation("sec1", now=utc_now())

    def judge() -> None:
        require(check_request(request, bundle.statement, situation))

    row = _median(
        "host_verify_ms",
        max(rounds, 20),
        judge,
        "without the TPM: evidence, event log, enrolment record, golden set and their signatures",
    )
    _burn(cast, request)
    return row


def _open(cast: Cast, bundle: Bundle, bench: Bench) -> Row:
    """Open with every approval here, TPM, parts, files, receipt and burn included."""
    made: list[tuple[Statement[Request], list[bytes]]] = []
    place = bench.room.path / "attestation"

    def approved() -> None:
        request = _request(cast, bundle)
        now = utc_now()
        made.append((request, [cast.approve(bundle, request, who, now=now) for who in QUORUM]))

    def opened() -> None:
        request, answers = made[-1]
        situation = cast.situation("host", *answers, now=utc_now())
        target = place / f"opened-{len(made)}"
        open_release(bundle, request, target, situation=situation, tpm=cast.tpm, place=cast.place)

    note = f"swtpm; {_MODEL_BYTES >> 20} MiB, {len(QUORUM)} approvals, receipt and burn included"
    return _median("host_open_ms", bench.rounds, opened, note, before=approved)


def _burnt(cast: Cast, bundle: Bundle, rounds: int) -> Row:
    asked: list[Statement[Request]] = []
    return _median(
        "host_burn_ms",
        rounds,
        lambda: _burn(cast, asked[-1]),
        "swtpm; counter up, certified, receipt quoted and written",
        before=lambda: asked.append(_request(cast, bundle)),
    )


def _rate(log_kib: int) -> Row:
    """Count judgements of full evidence on one core."""
    case = evidence_with_log(log_kib << 10)
    case.judged_by(check_evidence)
    done, begun = 0, time.process_time()
    while time.process_time() - begun < _SECONDS:
        require(case.judged_by(check_evidence))
        done += 1
    spent = time.process_time() - begun
    return alone(
        f"evidence_per_second_{log_kib}kib",
        "1/s",
        done / spent,
        f"one core, event log of {log_kib} KiB: {spent / done * 1e3:.2f} ms each",
    )
