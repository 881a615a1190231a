"""What a share costs by its suite: sealing it, opening it, and its place in the manifest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec, mlkem

from benchmarks.bench import Bench
from benchmarks.rows import Row, compared
from custody.crypto.keyslots import MLKEM_SEED_BYTES, SuiteName, seal, slot_info
from custody.crypto.keyslots import open as open_slot
from custody.crypto.signature import public_bytes
from custody.keys.api import KeyRole, Token
from custody.keys.pkcs11 import open_token

#: Share ‖ salt.
_SECRET = bytes(64)
_TURNS = 20


def rows(bench: Bench) -> Iterator[Row]:
    """Seal and open one share by the hybrid and by P-256, with the EC halves in a token."""
    with open_token(bench.actors.cast.token) as token, token.session():
        hybrid, plain = _measure(token, "MLKEM1024_P384"), _measure(token, "P256")
    yield compared(
        "hybrid_slot_ms",
        "ms",
        hybrid[0],
        plain[0],
        "seal a share to an officer's key and open it, EC half in SoftHSM: MLKEM1024_P384 against"
        " P256 as peer",
    )
    yield compared(
        "hybrid_slot_bytes",
        "bytes",
        hybrid[1],
        plain[1],
        "one sealed share in a manifest: MLKEM1024_P384 against P256 as peer",
    )


def _measure(token: Token, suite: SuiteName) -> tuple[float, float]:
    """Return milliseconds of sealing and opening, and the sealed bytes, of one suite."""
    curve = ec.SECP256R1() if suite == "P256" else ec.SECP384R1()
    key = token.make(KeyRole.SHARE, f"bench {suite}", curve)
    spki = public_bytes(key.public_key())
    seed, public = None, None
    if suite == "MLKEM1024_P384":
        seed = token.random(MLKEM_SEED_BYTES)
        public = mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    info = slot_info(bytes(32), "share", "0", "00" * 32)
    taken, size = [], 0
    for _ in range(_TURNS):
        begun = time.perf_counter()
        sealed = seal(suite, spki, public, _SECRET, info=info)
        opened = open_slot(suite, key, seed, sealed, info=info)
        taken.append(time.perf_counter() - begun)
        if opened != _SECRET:
            raise SystemExit("bench: a share did not come out as it went in")
        size = len(sealed)
    return statistics.median(taken) * 1e3, size
