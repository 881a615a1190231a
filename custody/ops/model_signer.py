"""Find the key that signs a model in whatever token it was made."""

from __future__ import annotations

from custody.encoding import KeyId
from custody.errors import Refused, Unavailable
from custody.keys.api import KeyRole, KeyUri, Token, find_key
from custody.ops.keys import Signer


def find_signer(
    token: Token, uri: KeyUri, *, name: str | None = None, pinned: KeyId | None = None
) -> Signer:
    """Find a signing key: the URI's, that of a certificate (``pinned``), or ``name``.

    ``name`` is the digest of a public key, or a label that one key of the token has.  A label
    is enough here, where it is not elsewhere: the signature names its key, and whoever verifies
    it has his own idea of which key that must be.  Raises as `Token.find`.
    """
    digest = pinned
    if name is not None:
        digest = _digest(token, name)
        if pinned not in (None, digest):
            raise Refused(f"the certificate is not of the key {name!r}", check="model.key")
    return Signer(find_key(token, uri, KeyRole.SIGN, key_id=digest))


def _digest(token: Token, name: str) -> KeyId:
    keys = token.keys()
    found = {key.key_id for key in keys if name in (key.key_id, key.label)}
    if len(found) > 1:
        raise Refused(
            f"several keys are called {name!r}",
            check="key.ambiguous",
            hint="name one by the digest of its public key",
        )
    if not found:
        raise Unavailable(f"no key in the token is called {name!r}")
    return found.pop()
