"""What a release costs besides its bytes: time to the first one, and devices asked."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.bench import Bench
from benchmarks.cast import QUORUM, Words
from benchmarks.counting import CountedKey, counted_tpm
from benchmarks.model import make_model
from benchmarks.rows import Row, alone
from benchmarks.timing import run_process
from custody.encoding import utc_now
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import open_token
from custody.keys.uri import TpmUri
from custody.ops.approve import approve_requests
from custody.ops.bundle import Bundle
from custody.ops.keys import ShareOpener, Signer
from custody.ops.seal import SealOrder, seal_model

_MODEL_BYTES = 64 << 20
_LOOK_SECONDS = 0.002


def rows(bench: Bench) -> Iterator[Row]:
    """Release a small model several times."""
    place = bench.room.path / "small"
    place.mkdir()
    model = make_model(place, _MODEL_BYTES).path
    bundle = place / "bundle"
    run_process(bench.actors.seal(model, bundle))
    yield _first_byte(bench, bundle, place)
    yield from _tpm_commands(bench, bundle, place)
    yield from _token_operations(bench, model, bundle, place)


def _first_byte(bench: Bench, bundle: Path, place: Path) -> Row:
    """Time from starting `custody host open` until the first plaintext lies in staging."""
    first, whole = [], []
    for turn in range(bench.rounds + 1):
        target = place / f"opened-{turn}"
        bench.actors.approve(bundle)
        begun = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in bench.actors.open(bundle, target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        seen = 0.0
        while child.poll() is None:
            if not seen and any(place.glob(".opened-*/output/model-*")):
                seen = time.perf_counter() - begun
            time.sleep(_LOOK_SECONDS)
        _, said = child.communicate()
        if child.returncode or not seen:
            raise SystemExit(f"bench: custody host open failed:\n{said}")
        if turn:
            first.append(seen)
            whole.append(time.perf_counter() - begun)
    return alone(
        "first_byte_ms",
        "ms",
        statistics.median(first) * 1e3,
        "from the last approval: start of `custody host open` to its first plaintext on disk "
        f"(swtpm); all of {_MODEL_BYTES >> 20} MiB after {statistics.median(whole) * 1e3:.0f} ms",
    )


def _tpm_commands(bench: Bench, bundle: Path, place: Path) -> Iterator[Row]:
    """Count what the host's two commands send to its TPM."""
    machine = bench.actors.cast.machine
    way = machine.directory / "counted.sock"
    tpm = str(TpmUri(tcti=f"swtpm:path={way}"))
    with counted_tpm(machine.socket_path, way) as counts:
        request, target = place / "request.dsse", place / "counted"
        yield _counted("request", bench.actors.ask(bundle, request, tpm=tpm), counts)
        bench.actors.approve(bundle)
        yield _counted("open", bench.actors.open(bundle, target, tpm=tpm), counts)


def _counted(what: str, command: Words, counts: Counter[str]) -> Row:
    counts.clear()
    run_process(command)
    most = ", ".join(f"{count} {name}" for name, count in counts.most_common(5))
    return alone(
        f"tpm_commands_{what}",
        "commands",
        counts.total(),
        f"custody host {what}, {len(QUORUM)} approvals; most: {most}",
    )


def _token_operations(bench: Bench, model: Path, bundle: Path, place: Path) -> Iterator[Row]:
    """Count what publisher and officer ask of their tokens, whatever token that is."""
    cast, now = bench.actors.cast, utc_now()
    counts: Counter[str] = Counter()

    def drawn(size: int) -> bytes:
        counts["random"] += 1
        return os.urandom(size)

    publisher = cast.people["pub"].signing[0]
    with open_token(cast.token) as token, token.session():
        key = token.find(KeyRole.SIGN, key_id=Signer(publisher).key_id)
        seal_model(
            model,
            place / "again",
            SealOrder(name="bench", version="1", not_after=now + timedelta(days=1)),
            situation=cast.situation("pub", now=now),
            signer=Signer(CountedKey(key, counts)),
            token_random=drawn,
        )
    yield _operations("seal", counts)
    counts.clear()
    request = bench.actors.approve(bundle)
    officer = cast.people[QUORUM[0]]
    sharing = officer.sharing[0]
    if not isinstance(sharing, ec.EllipticCurvePrivateKey):
        raise SystemExit("bench: the cast's share keys are on curves")
    approve_requests(
        Bundle.at(bundle),
        [request],
        situation=cast.situation(officer.name, now=utc_now()),
        home=cast.home(officer.name),
        signer=Signer(CountedKey(officer.signing[0], counts)),
        opener=ShareOpener(CountedKey(sharing, counts)),
    )
    yield _operations("approve", counts)


def _operations(what: str, counts: Counter[str]) -> Row:
    each = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return alone(f"token_operations_{what}", "operations", counts.total(), f"{each}; one login")
