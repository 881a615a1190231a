"""The sealed contents: Cobblestone-256 (C2SP chunked-encryption), which commits to its key.

Protocol: docs/protocol.md section 3.4.
"""

from __future__ import annotations

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from custody.crypto.secret import Octets
from custody.errors import Refused

_CONTEXT = b"custody/v1/contents\x00"


def seal_contents(key: Octets, payload_id: bytes, plaintext: Octets) -> bytes:
    """Seal ``plaintext`` under the contents key (32 bytes), bound to its payload."""
    encryptor = Cobblestone256Encryptor(bytes(key), _CONTEXT + payload_id)
    return encryptor.update(plaintext) + encryptor.finalize()


def open_contents(key: Octets, payload_id: bytes, sealed: bytes) -> bytes:
    """Undo `seal_contents`; a wrong key or a changed byte is `Refused`."""
    decryptor = Cobblestone256Decryptor(bytes(key), _CONTEXT + payload_id)
    try:
        return decryptor.update(sealed) + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise Refused("the sealed contents do not open", check="contents.open") from error
