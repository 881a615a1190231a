"""Write the policy vectors: ``python -m tests.vectors.tpmpolicy.make``.

The digests come from the calculator; tests/device/tpm/test_policy.py has a TPM compute each again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.quorum import Person, Threshold, leaves
from custody.crypto.signature import public_bytes
from custody.crypto.tpmpolicy import Conditions, host_policy, key_names, quorum_policy
from custody.encoding import encode, sha256
from custody.formats.evidence import counter_public, nv_name

_SEC = tuple(Person(principal=f"sec{n}") for n in range(1, 10))
_LEAD = tuple(Person(principal=f"lead{n}") for n in range(1, 4))
TREES: tuple[tuple[str, Person | Threshold], ...] = (
    ("one person", _SEC[0]),
    ("1 of 2", Threshold(k=1, of=_SEC[:2])),
    ("all of 3: no PolicyOR", Threshold(k=3, of=_SEC[:3])),
    ("2 of 3", Threshold(k=2, of=_SEC[:3])),
    (
        "all of (2 of 3, 1 of 2)",
        Threshold(k=2, of=(Threshold(k=2, of=_SEC[:3]), Threshold(k=1, of=_LEAD[:2]))),
    ),
    ("8 of 8 branches: one full PolicyOR", Threshold(k=1, of=_SEC[:8])),
    ("9 branches: a left-over passes up", Threshold(k=1, of=_SEC[:9])),
    ("2 of 5: 10 branches, two PolicyORs and one above", Threshold(k=2, of=_SEC[:5])),
    ("4 of 9: 126 branches, three levels", Threshold(k=4, of=_SEC[:9])),
    (
        "2 of (2 of 3, 1 of 2, a person)",
        Threshold(k=2, of=(Threshold(k=2, of=_SEC[:3]), Threshold(k=1, of=_LEAD[:2]), _SEC[8])),
    ),
)


def _blocks() -> Iterator[str]:
    for number, (comment, tree) in enumerate(TREES, start=1):
        # Private keys 1, 2, 3 …: anybody can make the same officers.
        officers = {
            leaf.path: public_bytes(ec.derive_private_key(n, ec.SECP256R1()).public_key())
            for n, leaf in enumerate(leaves(tree), start=1)
        }
        terms = sha256(b"terms %d" % number)
        conditions = Conditions(
            pcrs=(0, 2, 4, 7),
            pcr_digest=sha256(b"registers %d" % number),
            nv_name=nv_name(counter_public(0x01800C00).pack()),
            counter=number,
            deadline_ms=1_000_000 + number,
            reset_count=7,
            restart_count=number,
        )
        rows = (
            ("comment", comment),
            ("tree", encode(tree).decode()),
            ("terms", terms.hex()),
            ("pcr-digest", conditions.pcr_digest.hex()),
            ("counter", str(conditions.counter)),
            ("deadline-ms", str(conditions.deadline_ms)),
            ("reset-count", str(conditions.reset_count)),
            ("restart-count", str(conditions.restart_count)),
            ("quorum", quorum_policy(tree, key_names(officers), ref=terms).hex()),
            ("policy", host_policy(tree, officers, terms=terms, conditions=conditions).hex()),
        )
        yield "".join(f"{name}: {value}\n" for name, value in rows)


if __name__ == "__main__":
    head = (
        "# authPolicy digests.  The n-th leaf's officer has the P-256 private key n (1, 2, …);\n"
        "# registers 0, 2, 4, 7 of the SHA-256 bank; the counter is NV index 01800c00.\n\n"
    )
    Path(__file__).with_name("policies.txt").write_text(
        head + "\n".join(_blocks()), encoding="utf-8"
    )
