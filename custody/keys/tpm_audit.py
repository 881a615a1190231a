"""What a TPM shows of itself, and what keys it holds at the places where ours lie."""

from __future__ import annotations

from custody.keys.api import KeyInfo, KeyRole, PinState, SeenToken, TokenInfo
from custody.keys.audit import AuditReport, Finding, HeldObject, audit
from custody.keys.tpm import open_token
from custody.keys.uri import TpmUri

#: What an object's public area says by fixedTPM, fixedParent and sensitiveDataOrigin (TPM 2.0 part
#: 1 section 25): the key was made in this TPM, leaves it under nothing, and no user changes that.
_MADE_HERE = ("ALWAYS_SENSITIVE", "LOCAL", "NEVER_EXTRACTABLE", "SENSITIVE")


def list_tokens(uri: TpmUri) -> tuple[SeenToken, ...]:
    """Describe the one TPM that ``uri`` names; no PIN is asked."""
    with open_token(uri) as token:
        info = token.info
    return (
        SeenToken(
            uri=str(TpmUri(tcti=uri.tcti)),
            label=info.label,
            manufacturer=info.manufacturer,
            model=info.model,
            serial=info.serial,
            profile=info.profile,
            token_class=info.token_class,
            pinpad=False,
            pin=_pin_state(info),
        ),
    )


def audit_token(uri: TpmUri) -> AuditReport:
    """List the keys where ours lie, and judge them by their public areas; no PIN is asked.

    A key that is not what keys of its place are made as is a weak finding, ``not-its-role``.
    """
    with open_token(uri) as token:
        info, keys = token.info, token.keys()
    objects = tuple(_held(key) for key in keys)
    strange = {item.id for item in objects if not item.role}
    return AuditReport(
        kind="custody/token-audit/v1",
        label=info.label,
        serial=info.serial,
        profile=info.profile,
        objects=objects,
        findings=(
            *audit(tuple(item for item in objects if item.role)),
            *(_strange(item) for item in objects if item.id in strange),
        ),
    )


def _held(key: KeyInfo) -> HeldObject:
    role = key.role
    return HeldObject(
        kind="private",
        type="EC",
        label=key.label,
        id=key.id.hex(),
        role="" if role is None else role.value,
        flags=() if role is None else tuple(sorted((*_MADE_HERE, _use(role)))),
        untold=(),
        mechanisms=() if role is None else ("ECDH" if role.derives else "ECDSA",),
        size_bits=0,
        digest="",
        excused=(),
    )


def _use(role: KeyRole) -> str:
    return "DERIVE" if role.derives else "SIGN"


def _strange(item: HeldObject) -> Finding:
    return Finding(
        name="not-its-role",
        weak=True,
        subject=f"private {item.label!r}",
        says="is not as keys at this handle are made: it may leave the TPM, or do more",
    )


def _pin_state(info: TokenInfo) -> PinState:
    if info.pin_locked:
        return "locked"
    if info.pin_final_try:
        return "final-try"
    return "low" if info.pin_count_low else "right"
