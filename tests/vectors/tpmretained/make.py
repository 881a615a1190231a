"""Write the vectors of kept keys' policies: ``python -m tests.vectors.tpmretained.make``.

The digests come from the calculator; tests/device/tpm/test_retained_updates.py has a TPM compute
each again.  ``authorisations.txt`` beside them is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.signature import public_bytes
from custody.crypto.tpmretained import (
    EPOCHS,
    KeptCounters,
    Line,
    authorised_message,
    first_state_policy,
    retained_policy,
    share_policy,
)
from custody.encoding import sha256
from custody.formats.evidence import counter_public, nv_name
from custody.keys.hostapi import EPOCH_INDEX_OFFSET, RETAINED_INDEXES

PCRS = (0, 2, 4, 7)
OWN_INDEX = RETAINED_INDEXES[0]
EPOCH_INDEX = OWN_INDEX + EPOCH_INDEX_OFFSET
#: comment, private keys, name, first epoch, epoch authorised, own counter, epoch counter
CASES = (
    ("one key, the first epoch", (1,), "lab", 1, 1, 7, 3),
    ("one key, the last epoch it can follow to", (1,), "lab", 1, EPOCHS, 7, 3),
    ("two keys: 128 branches, three levels", (1, 2), "lab", 1, 2, 7, 3),
    ("the same keys the other way round: another policy", (2, 1), "lab", 1, 2, 7, 3),
    ("nine keys: a left-over passes up", tuple(range(1, 10)), "lab", 5, 9, 7, 3),
    ("another name", (1,), "lab-2", 1, 2, 7, 3),
    ("another first epoch", (1,), "lab", 2, 3, 7, 3),
    ("counters of a TPM that has counted long", (3,), "kernel-6.12", 20, 27, 4_000_000, 4_000_001),
)


def spki(number: int) -> bytes:
    """Return the SPKI of the P-256 key whose private value is ``number``."""
    return public_bytes(ec.derive_private_key(number, ec.SECP256R1()).public_key())


def _blocks() -> Iterator[str]:
    for comment, keys, name, epoch, at, own, raised in CASES:
        environment, digest = sha256(b"environment"), sha256(comment.encode())
        counters = KeptCounters(
            own_name=nv_name(counter_public(OWN_INDEX).pack()),
            own=own,
            epoch_name=nv_name(counter_public(EPOCH_INDEX).pack()),
            epoch=raised,
        )
        line = Line(environment=environment, name=name, epoch=epoch)
        spkis = [spki(number) for number in keys]
        message = authorised_message(PCRS, digest, environment=environment, name=name, epoch=at)
        rows = (
            ("comment", comment),
            ("keys", " ".join(map(str, keys))),
            ("environment", environment.hex()),
            ("name", name),
            ("epoch", str(epoch)),
            ("authorised-epoch", str(at)),
            ("pcr-digest", digest.hex()),
            ("own-counter", str(own)),
            ("epoch-counter", str(raised)),
            ("approved-policy", message[:32].hex()),
            ("policy-ref", message[32:].hex()),
            ("a-hash", sha256(message).hex()),
            (
                "sealed",
                retained_policy(PCRS, digest, nv_name=counters.own_name, counter=own).hex(),
            ),
            ("first-state", first_state_policy(PCRS, digest, counters).hex()),
            ("share", share_policy(spkis, line=line, counters=counters).hex()),
        )
        yield "".join(f"{key}: {value}\n" for key, value in rows)


if __name__ == "__main__":
    head = (
        "# authPolicy digests of kept keys.  An enroller's keys are the P-256 private keys named;\n"
        "# registers 0, 2, 4, 7 of the SHA-256 bank; the key's own counter is NV index 01800c10,\n"
        "# that of its epoch 01800c18.  approved-policy and policy-ref are what is signed for the\n"
        "# authorised epoch, a-hash is their digest.\n\n"
    )
    Path(__file__).with_name("policies.txt").write_text(
        head + "\n".join(_blocks()), encoding="utf-8"
    )
