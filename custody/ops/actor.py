"""An actor's own keys: made in his token when he enrols, found in it again for every command."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, mlkem

from custody.crypto.keyslots import MLKEM_SEED_BYTES, SlotKey, is_oaep
from custody.crypto.oaepslots import parameters_of
from custody.crypto.secret import fresh_secret, wipe
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Malformed
from custody.formats.policy import Role, SuiteName
from custody.formats.state import Identity, ShareIdentity
from custody.keys.api import KeyRole, Token
from custody.ops.folders import read_file
from custody.ops.home import Home
from custody.ops.keys import ShareOpener, Signer
from custody.ops.landing import write_new_file

_SEEDS = "mlkem"


@dataclass(frozen=True, slots=True)
class ShareKeyPair:
    """A share key in a token, and how the actor's home remembers it."""

    identity: ShareIdentity
    key: SlotKey = field(repr=False)


def signer_of(identity: Identity, token: Token) -> Signer:
    """Find the actor's signing key in his token; it must be the very key he enrolled."""
    return Signer(token.find(KeyRole.SIGN, key_id=key_id(identity.signing_spki)))


def openers_of(home: Home, identity: Identity, token: Token) -> tuple[ShareOpener, ...]:
    """Find the actor's share keys in his token, with their ML-KEM seeds from his home."""
    return tuple(
        ShareOpener(
            find_share_key(token, identity.role, share),
            mlkem_public=share.mlkem,
            mlkem_seed=_read_seed(home, share),
        )
        for share in identity.shares
    )


def share_role(role: Role) -> KeyRole:
    """Return what a share key of somebody in ``role`` is made for in his token."""
    return KeyRole.SITE if role == "site" else KeyRole.SHARE


def find_share_key(token: Token, role: Role, share: ShareIdentity) -> SlotKey:
    """Find a share key in its token; it must be the very key that is remembered."""
    wanted = key_id(share.spki)
    if is_oaep(share.suite):
        return token.decrypting().find(wanted)
    return token.find(share_role(role), key_id=wanted)


def make_share_key(
    home: Home, token: Token, suite: SuiteName, *, role: Role, label: str
) -> ShareKeyPair:
    """Make a share key in the token, and for a hybrid suite an ML-KEM seed in the home."""
    parameters = parameters_of(suite)
    if parameters is not None:
        opener = token.decrypting().make(label, parameters)
        spki = public_bytes(opener.public_key())
        made = ShareIdentity(suite=suite, spki=spki, mlkem=None, mlkem_seed_file=None)
        return ShareKeyPair(made, opener)
    curve = ec.SECP256R1() if suite == "P256" else ec.SECP384R1()
    key = token.make(share_role(role), label, curve)
    spki = public_bytes(key.public_key())
    public, name = None, None
    if suite == "MLKEM1024_P384":
        name = f"{key_id(spki)[:16]}.seed"
        public = _make_seed(home, token, name)
    return ShareKeyPair(
        identity=ShareIdentity(suite=suite, spki=spki, mlkem=public, mlkem_seed_file=name), key=key
    )


def _make_seed(home: Home, token: Token, name: str) -> bytes:
    # FIPS 203 wants d ‖ z, 32 bytes each.  It stays in software: no token of today holds ML-KEM
    # keys, and it is needed together with the token's P-384 key, never instead of it.
    halves = fresh_secret(32, token.random), fresh_secret(32, token.random)
    seed = b"".join(halves)
    wipe(*halves)
    write_new_file(home.folder(_SEEDS) / name, seed, mode=0o600)
    return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def _read_seed(home: Home, share: ShareIdentity) -> bytes | None:
    if share.mlkem_seed_file is None:
        return None
    path = home.folder(_SEEDS) / share.mlkem_seed_file
    seed = read_file(path, max_bytes=MLKEM_SEED_BYTES)
    if len(seed) != MLKEM_SEED_BYTES:
        raise Malformed("not an ML-KEM seed", where=str(path))
    return seed
