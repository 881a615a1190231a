"""Make an attestation of a key in slot 9c, and the two certificates above it, by keys of our own.

Run as ``python -m tests.vectors.pivattestation.make``; every run makes others.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.yubikey import YubiKey

HERE = Path(__file__).parent


def main() -> None:
    """Write ``9c.cer``, ``f9.cer`` and ``root.cer``."""
    made = YubiKey()
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (HERE / "9c.cer").write_bytes(made.attest(key, "9c"))
    (HERE / "f9.cer").write_bytes(made.f9)
    (HERE / "root.cer").write_bytes(made.root)


if __name__ == "__main__":
    main()
