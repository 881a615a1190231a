"""Which public keys are one key of a token: a key, and its negative.

Whoever has the private key d has n − d.  A token that holds d agrees by ECDH as n − d would, since
only the x-coordinate is used, and its signatures turn into those of n − d: (r, n − s) over the
digest n − z.  The two have other SPKIs, so comparing those would let one token be two people's.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from custody.crypto.signature import load_ec_public
from custody.encoding import key_id
from custody.errors import Malformed


@lru_cache(maxsize=1024)
def token_key(spki: bytes) -> str:
    """Name the key in a token that a public key (DER SPKI) is of: by its curve and x-coordinate.

    What is no EC key is named by its SPKI: RSA keys here have one form and one exponent.
    """
    try:
        public = load_ec_public(spki)
    except Malformed:
        return key_id(spki)
    # SEC 1 section 2.3.3: 02 or 03, by the parity of y, and x.
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return f"{public.curve.name} {point[1:].hex()}"
