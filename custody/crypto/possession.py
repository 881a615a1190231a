"""Proof that somebody holds a key that can only derive.

After the static Diffie-Hellman method of RFC 6955: a share key signs nothing, so its holder shows
the Diffie-Hellman secret of his key and one the custodian made for the purpose, as the key of a
MAC.  Format: ``formats/admission.md``.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from custody.crypto.bind import bind
from custody.crypto.signature import load_ec_public, public_bytes
from custody.errors import Malformed, Refused


def possession_statement(
    *, invitation: bytes, csr: bytes, principal: str, suite: str, spki: bytes, mlkem: bytes | None
) -> bytes:
    """Return the 32 bytes a proof is over.  ``invitation`` is the invitation's digest, 32 bytes."""
    return bind(
        "possession", invitation, csr, principal.encode(), suite.encode(), spki, mlkem or b""
    )


def prove_possession(
    key: ec.EllipticCurvePrivateKey, *, invitation_key: bytes, statement: bytes
) -> bytes:
    """Return the 32-byte proof by a share key, which may live in a token.

    ``invitation_key`` is the custodian's public key (DER SPKI) on the same curve.
    """
    share = public_bytes(key.public_key())
    shared = _exchange(key, load_ec_public(invitation_key))
    return _mac(shared, share=share, invitation_key=invitation_key, statement=statement)


def check_possession(
    proof: bytes, *, spki: bytes, invitation_key: ec.EllipticCurvePrivateKey, statement: bytes
) -> None:
    """Refuse unless ``proof`` was made with the private half of ``spki`` over ``statement``."""
    ours = public_bytes(invitation_key.public_key())
    shared = _exchange(invitation_key, load_ec_public(spki))
    expected = _mac(shared, share=spki, invitation_key=ours, statement=statement)
    if not hmac.compare_digest(expected, proof):
        raise Refused("the sender does not hold the share key", check="admission.possession")


def _exchange(key: ec.EllipticCurvePrivateKey, peer: ec.EllipticCurvePublicKey) -> bytes:
    if key.curve.name != peer.curve.name:
        raise Malformed("share key and invitation key are on different curves")
    return key.exchange(ec.ECDH(), peer)


def _mac(shared: bytes, *, share: bytes, invitation_key: bytes, statement: bytes) -> bytes:
    # An invitation whose key is really the ephemeral key of a slot sealed to this share key makes
    # `shared` that slot's secret.  What leaves here is a MAC under a key of our own tag, from
    # which neither `shared` nor what HPKE derives from it can be had.
    info = bind("possession-key", share, invitation_key)
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared)
    return hmac.digest(key, statement, "sha256")
