"""From a key URI to an opened device: the one place where devices are chosen.

Adapters are imported when their scheme is met, so that who needs no device needs no library.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from custody.cli._ui import read_pin, say
from custody.errors import Unavailable
from custody.keys.api import PinReader, Pkcs11Uri, Token, TpmUri, parse_key_uri
from custody.keys.pin import read_pin_source

if TYPE_CHECKING:  # what a host needs is a fifth of the start-up of whoever is no host
    from custody.keys.api import SeenToken
    from custody.keys.audit import AuditReport, HeldObject
    from custody.keys.hostapi import HostTpm
    from custody.keys.probe import ProbeReport
    from custody.ops.challenges import CredentialMaker


def pin_reader(pin_fd: int | None) -> PinReader:
    """Return how a PIN is come by: from a descriptor that was named, or from the terminal."""
    if pin_fd is None:
        return read_pin
    return lambda _prompt, /: read_pin_source(f"fd:{pin_fd}")


def open_token(uri: str, *, pin_fd: int | None = None) -> Token:
    """Open the token a URI names, to be used in a ``with`` block; its PIN is asked when needed."""
    parsed = parse_key_uri(uri)
    if isinstance(parsed, Pkcs11Uri):
        opened = _adapter("pkcs11", "open_token", library="python-pkcs11")
        return cast("Token", opened(parsed, pin=pin_reader(pin_fd), notice=say))
    opened = _adapter("tpm", "open_token", library="tpm2-pytss")
    return cast("Token", opened(parsed, pin=pin_reader(pin_fd)))


def list_tokens(uri: str | None) -> tuple[tuple[SeenToken, ...], tuple[str, ...]]:
    """List the tokens that can be seen, and the libraries that did not answer."""
    parsed = None if uri is None else parse_key_uri(uri)
    if isinstance(parsed, TpmUri):
        seen = _adapter("tpm_audit", "list_tokens", library="tpm2-pytss", extra="tpm")
        return cast("tuple[SeenToken, ...]", seen(parsed)), ()
    listed = _adapter("pkcs11_audit", "list_tokens", library="python-pkcs11", extra="pkcs11")
    return cast(
        "tuple[tuple[SeenToken, ...], tuple[str, ...]]",
        listed(parsed),
    )


def probe_token(uri: str, *, pin_fd: int | None, begun: Callable[[], None]) -> ProbeReport:
    """Measure the token a URI names; ``begun`` is called when it is found and has taken the PIN."""
    parsed = parse_key_uri(uri)
    if isinstance(parsed, TpmUri):
        looked = _adapter("tpm_probe", "probe", library="tpm2-pytss", extra="tpm")
        return cast("ProbeReport", looked(parsed, begun=begun))
    measured = _adapter("pkcs11_probe", "probe", library="python-pkcs11", extra="pkcs11")
    return cast("ProbeReport", measured(parsed, pin=pin_reader(pin_fd), notice=say, begun=begun))


def audit_token(uri: str, *, pin_fd: int | None) -> AuditReport:
    """Read what the token a URI names holds, and judge it."""
    parsed = parse_key_uri(uri)
    if isinstance(parsed, TpmUri):
        judged = _adapter("tpm_audit", "audit_token", library="tpm2-pytss", extra="tpm")
        return cast("AuditReport", judged(parsed))
    read = _adapter("pkcs11_audit", "audit_token", library="python-pkcs11", extra="pkcs11")
    return cast("AuditReport", read(parsed, pin=pin_reader(pin_fd), notice=say))


def scratch_token() -> AbstractContextManager[Token]:
    """Make a throw-away token, gone after the ``with`` block."""
    made = _adapter("pkcs11_scratch", "scratch_token", library="python-pkcs11", extra="pkcs11")
    return cast("AbstractContextManager[Token]", made())


def list_objects(uri: str, token: Token) -> tuple[HeldObject, ...]:
    """List all that an open token holds, which a URI names."""
    if isinstance(parse_key_uri(uri), TpmUri):
        from custody.keys.objects import objects_of

        return objects_of(token.keys())
    listed = _adapter("pkcs11_audit", "held_objects", library="python-pkcs11", extra="pkcs11")
    return cast("tuple[HeldObject, ...]", listed(token))


def open_tpm(uri: str) -> HostTpm:
    """Open the TPM a ``tpm:`` URI names, as a host uses it."""
    parsed = parse_key_uri(uri)
    if not isinstance(parsed, TpmUri):
        raise Unavailable("a host needs a TPM: a URI that begins with tpm:", where=uri)
    return cast("HostTpm", _adapter("tpm", "open_host", library="tpm2-pytss")(parsed))


def credential_maker() -> CredentialMaker:
    """Return the making of credential challenges, which needs tpm2-tss but no TPM."""
    made = _adapter("tpm_credential", "make_credential", library="tpm2-pytss", extra="tpm")
    return cast("CredentialMaker", made)


# Any: an adapter's opening function; the casts above say what it gives.
def _adapter(
    name: str, function: str, *, library: str, extra: str | None = None
) -> Callable[..., Any]:
    try:
        module = import_module(f"custody.keys.{name}")
    except ImportError as error:
        raise Unavailable(
            f"{library} is not installed here", hint=f"pip install 'custody[{extra or name}]'"
        ) from error
    return cast("Callable[..., Any]", getattr(module, function))
