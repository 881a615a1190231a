"""Measuring a TPM as a person's token, with throw-away keys that never get a place in it.

The keys have an authorisation value of their own, outside dictionary-attack protection: no PIN is
asked, and no wrong one is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CC, TPM2_RH, TPM2_ST, TPMA_SESSION
from tpm2_pytss.types import (
    TPM2B_DATA,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
)

from custody.crypto.tpmpolicy import EMPTY
from custody.encoding import sha256
from custody.formats.tpmpublic import Attributes, EccPublic, matches, parse_public
from custody.keys.api import KeyRole
from custody.keys.probe import MEASURES, Answer, Measured, ProbeReport, differences, fitness
from custody.keys.profiles import UNKNOWN
from custody.keys.tpm import open_token
from custody.keys.tpm_errors import RC_ATTRIBUTES, RC_AUTH_FAIL, RC_BAD_AUTH, RC_TYPE, is_refusal
from custody.keys.tpm_errors import code as code_of
from custody.keys.tpm_key import shared_x, to_point
from custody.keys.tpm_session import Connection, Handle
from custody.keys.tpm_token import create_key, key_template
from custody.keys.uri import TpmUri

_P256, _P384 = ec.SECP256R1(), ec.SECP384R1()
#: The policy of a key that its holder may duplicate (TPM2_PolicyCommandCode, part 3 section 23.11).
_MAY_DUPLICATE = sha256(EMPTY + TPM2_CC.PolicyCommandCode.to_bytes(4, "big")
                        + TPM2_CC.Duplicate.to_bytes(4, "big"))  # fmt: skip
_NOT_ASKED = "not asked of a TPM"


def probe(uri: TpmUri, *, begun: Callable[[], None] | None = None) -> ProbeReport:
    """Measure the one TPM that ``uri`` names.  No PIN is asked, and nothing is left in it.

    ``begun`` is called when the TPM is found.
    """
    with open_token(uri) as token:
        info = token.info
        if begun is not None:
            begun()
        with token.connect("be measured") as link:
            measured = {id_: _measure(link, id_) for id_ in MEASURES}
    return ProbeReport(
        kind="custody/token-probe/v1",
        label=info.label,
        manufacturer=info.manufacturer,
        model=info.model,
        serial=info.serial,
        firmware=info.firmware,
        library=info.library,
        # What a TPM does is in its specification: there is no table of it to be held against.
        profile=UNKNOWN.name,
        token_class=info.token_class,
        mechanisms=(),
        measured=tuple(measured.values()),
        fitness=fitness(measured, UNKNOWN),
        differences=differences(measured, frozenset(), UNKNOWN),
    )


def _measure(link: Connection, id_: str) -> Measured:
    if id_ not in MEASURERS:
        return Measured(id=id_, answer="untested", detail=_NOT_ASKED)
    answer: Answer
    try:
        with link.one_thing():
            answer, detail = ("yes", "") if MEASURERS[id_](link) else ("no", "")
    except TSS2_Exception as error:
        if not is_refusal(error):
            raise
        # Where a refusal would be the good answer, this was none: the permitted case failed.
        answer = "untested" if id_.startswith(("enforces.", "always-")) else "no"
        detail = f"0x{error.rc:x}"
    return Measured(id=id_, answer=answer, detail=detail)


# ── throw-away keys ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def _key(link: Connection, template: EccPublic) -> Iterator[tuple[Handle, EccPublic]]:
    """Make a key that is gone after the block, and read its public area back."""
    secret = os.urandom(16)
    with link.one_thing():
        handle = create_key(link, template, secret)
        link.esys.tr_set_auth(handle, secret)
        public = parse_public(link.public(handle))
        if not isinstance(public, EccPublic):
            raise AssertionError("internal: a TPM made another kind of key than it was asked for")
        yield handle, public


def _throw_away(role: KeyRole, curve: ec.EllipticCurve) -> EccPublic:
    template = key_template(role, curve)
    return replace(template, attributes=template.attributes | Attributes.NO_DA)


def _sign(link: Connection, handle: Handle, digest: bytes) -> bytes:
    ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    made = link.esys.sign(handle, digest, scheme, ticket, session1=ESYS_TR.PASSWORD)
    pair = made.signature.ecdsa
    return encode_dss_signature(
        int.from_bytes(bytes(pair.signatureR), "big"), int.from_bytes(bytes(pair.signatureS), "big")
    )


def _agree(link: Connection, handle: Handle, public: EccPublic) -> bool:
    """Agree on a key with a throw-away one of our own; say whether both have the same."""
    ours = public.key()
    peer = ec.generate_private_key(ours.curve)
    point = to_point(peer.public_key(), ours)
    theirs = shared_x(link.esys.ecdh_zgen(handle, point, session1=ESYS_TR.PASSWORD), ours)
    return theirs == peer.exchange(ec.ECDH(), ours)


# ── measures ─────────────────────────────────────────────────────────────────────────────────────


def _makes(curve: ec.EllipticCurve) -> Callable[[Connection], bool]:
    def measure(link: Connection) -> bool:
        with _key(link, _throw_away(KeyRole.SIGN, curve)) as (_, public):
            return public.key().curve.name == curve.name

    return measure


def _full_template(link: Connection) -> bool:
    template = key_template(KeyRole.SIGN, _P256)
    with _key(link, template) as (_, public):
        return matches(public, template)


def _signs(link: Connection) -> bool:
    digest = os.urandom(32)
    with _key(link, _throw_away(KeyRole.SIGN, _P256)) as (handle, public):
        signature = _sign(link, handle, digest)
    try:
        public.key().verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def _agrees(curve: ec.EllipticCurve) -> Callable[[Connection], bool]:
    def measure(link: Connection) -> bool:
        with _key(link, _throw_away(KeyRole.SHARE, curve)) as (handle, public):
            return _agree(link, handle, public)

    return measure


def _asks_to_sign(link: Connection) -> bool:
    with _key(link, _throw_away(KeyRole.SIGN, _P256)) as (handle, _):
        _sign(link, handle, os.urandom(32))
        link.esys.tr_set_auth(handle, b"")
        return _refuses(lambda: _sign(link, handle, os.urandom(32)), RC_BAD_AUTH, RC_AUTH_FAIL)


def _asks_to_agree(link: Connection) -> bool:
    with _key(link, _throw_away(KeyRole.SHARE, _P256)) as (handle, public):
        _agree(link, handle, public)
        link.esys.tr_set_auth(handle, b"")
        return _refuses(lambda: _agree(link, handle, public), RC_BAD_AUTH, RC_AUTH_FAIL)


def _shows_no_secret(link: Connection) -> bool:
    """TPM2_Unseal is the one command that returns what is sensitive; a key is not for it."""
    with _key(link, _throw_away(KeyRole.SIGN, _P256)) as (handle, _):
        return _refuses(lambda: link.esys.unseal(handle, session1=ESYS_TR.PASSWORD), RC_TYPE)


def _lets_nothing_out(link: Connection) -> bool:
    """A key that may leave does, and one like it that may not is refused for that reason."""
    held = _throw_away(KeyRole.SIGN, _P256)
    fixed = Attributes.FIXED_TPM | Attributes.FIXED_PARENT
    loose = replace(held, attributes=held.attributes & ~fixed, auth_policy=_MAY_DUPLICATE)
    _duplicate(link, loose)
    ours = replace(held, auth_policy=_MAY_DUPLICATE)
    return _refuses(lambda: _duplicate(link, ours), RC_ATTRIBUTES)


def _duplicate(link: Connection, template: EccPublic) -> None:
    """Ask for a key's private part in the clear (TPM2_Duplicate, part 3 section 13.1)."""
    with link.one_thing():
        session = link.salted_session(policy=True)
        link.esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
        link.esys.policy_command_code(session, TPM2_CC.Duplicate)
        with _key(link, template) as (handle, _):
            none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
            link.esys.duplicate(handle, ESYS_TR.NULL, TPM2B_DATA(), none, session1=session)


def _refuses(work: Callable[[], object], *codes: int) -> bool:
    try:
        work()
    except TSS2_Exception as error:
        if code_of(error) not in codes:
            raise
        return True
    return False


MEASURERS: Mapping[str, Callable[[Connection], bool]] = {
    "ec.p256": _makes(_P256),
    "ec.p384": _makes(_P384),
    "template.full": _full_template,
    "ecdsa.digest": _signs,
    "ecdh.raw": _agrees(_P256),
    "ecdh.p384": _agrees(_P384),
    "enforces.sensitive": _shows_no_secret,
    "enforces.extractable": _lets_nothing_out,
    "always-authenticate.sign": _asks_to_sign,
    "always-authenticate.derive": _asks_to_agree,
}
