"""Whether the certificate in a ``model.sig`` says who signed.  Format: model.md, "Verifying alone".

There is no policy here that lists keys: who verifies names an authority and, because an authority
certifies many, whom of them he expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from custody.crypto.certificates import read_certificate, spki_of
from custody.crypto.signature import load_ec_public
from custody.encoding import format_time, key_id
from custody.errors import Malformed
from custody.rules.certificate_path import extension, issued_by, walk_chain
from custody.rules.verdicts import Ledger

_MAX_DEPTH: Final = 8
_LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class SignerIdentity:
    """Whom a verifier expects: a key by its digest, a common name, or an alternative name."""

    kind: Literal["key", "CN", "SAN"]
    value: str

    @classmethod
    def read(cls, text: str) -> SignerIdentity:
        """Read 64 hex digits (SHA-256 of the SubjectPublicKeyInfo), ``CN=…`` or ``SAN=…``."""
        kind, equals, value = text.partition("=")
        if equals and value and kind in ("CN", "SAN"):
            return cls("CN" if kind == "CN" else "SAN", value)
        digest = "".join(text.split()).replace(":", "").lower()
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Malformed(
                "not an identity: a key's digest of 64 hex digits, CN=… or SAN=…", where=text[:80]
            )
        return cls("key", digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTrust:
    """Certificates of ``authorities`` (DER) that name ``identity``, judged at ``moment``.

    Where ``crls`` (DER) are given every certificate of the path needs one that is in time; where
    none are, nobody is known to be revoked.
    """

    authorities: tuple[bytes, ...] = field(repr=False)
    identity: SignerIdentity | None
    moment: datetime
    crls: tuple[bytes, ...] = field(default=(), repr=False)


def check_model_certificate(
    certificates: Sequence[bytes], trust: CertificateTrust, ledger: Ledger
) -> bytes | None:
    """Judge a chain, leaf first; return the leaf's key (DER), or None where it has none to use."""
    try:
        leaf = read_certificate(certificates[0])
        spki = spki_of(certificates[0])
        curve = load_ec_public(spki).curve.name
    except Malformed as error:
        # The reference goes by the size of the key alone, and so takes curves nobody named.
        ledger.add("model.curve", False, error.reason)
        return None
    ledger.add("model.curve", True, f"a key on {curve}")
    _check_validity(leaf, trust.moment, ledger)
    _check_usage(leaf, ledger)
    _check_identity(leaf, spki, trust.identity, ledger)
    _check_chain(certificates, trust, ledger)
    return spki


def _check_validity(leaf: x509.Certificate, moment: datetime, ledger: Ledger) -> None:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    span = f"valid from {format_time(start)} to {format_time(end)}"
    # The reference asks only whether the certificate was good on its own first day.
    ledger.add(
        "model.validity",
        start <= moment <= end,
        span,
        otherwise=f"{span}, not at {format_time(moment)}",
    )


def _check_usage(leaf: x509.Certificate, ledger: Ledger) -> None:
    usage = extension(leaf, x509.KeyUsage)
    purposes = extension(leaf, x509.ExtendedKeyUsage)
    fault = ""
    if usage is None or not usage.digital_signature:
        fault = "its key usage is not digital signature"
    elif usage.key_cert_sign or usage.crl_sign:
        fault = "is an authority's, not a signer's"
    elif purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        fault = "is restricted to purposes of which code signing is none"
    ledger.add("model.usage", not fault, "may sign code", otherwise=fault)


def _check_identity(
    leaf: x509.Certificate, spki: bytes, wanted: SignerIdentity | None, ledger: Ledger
) -> None:
    common = [str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    is_said = f"key {key_id(spki)}, CN={'/'.join(common)!r}"
    if wanted is None:
        ledger.add(
            "model.identity",
            False,
            f"no identity was asked for, and the authority certifies more than one ({is_said})",
        )
        return
    if wanted.kind == "key":
        good = wanted.value == key_id(spki)
    elif wanted.kind == "CN":
        good = common == [wanted.value]
    else:
        good = wanted.value in _alternatives(leaf)
    ledger.add(
        "model.identity",
        good,
        f"is {wanted.kind} {wanted.value}",
        otherwise=f"is not {wanted.kind} {wanted.value}, but {is_said}",
    )


def _alternatives(leaf: x509.Certificate) -> set[str]:
    names = extension(leaf, x509.SubjectAlternativeName)
    if names is None:
        return set()
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    return {value for kind in kinds for value in names.get_values_for_type(kind)}


def _check_chain(certificates: Sequence[bytes], trust: CertificateTrust, ledger: Ledger) -> None:
    chain = _find_chain(certificates, trust.authorities)
    fault = _chain_fault(chain, trust.moment) if chain else "no authority you named issued it"
    stop: tuple[str, ...] = ()
    if not fault:
        stop, fault = walk_chain(chain, (), trust.moment, revocation="soft-fail")
    if "certificate.validity" in stop:
        # Only the leaf can be meant, and its validity has a verdict of its own.
        ledger.skip("model.chain", f"the walk ended early: {fault}")
    else:
        ledger.add(
            "model.chain",
            not fault,
            f"a path of {len(chain)} certificates from an authority you named",
            otherwise=fault,
        )
    if fault:
        ledger.skip("model.revoked", "there is no good path")
    elif not trust.crls:
        ledger.skip("model.revoked", "you gave no revocation list")
    else:
        _, fault = walk_chain(chain, trust.crls, trust.moment)
        ledger.add("model.revoked", not fault, "nobody on the path is revoked", otherwise=fault)


def _find_chain(certificates: Sequence[bytes], authorities: Sequence[bytes]) -> tuple[bytes, ...]:
    """Find authority, intermediates and leaf, in that order, each signed by the one before it."""
    chain: tuple[bytes, ...] = (certificates[0],)
    if chain[0] in authorities:
        return ()
    for _ in range(_MAX_DEPTH):
        top = chain[0]
        authority = next((der for der in authorities if issued_by(top, der)), None)
        if authority is not None:
            return (authority, *chain)
        above = (der for der in certificates[1:] if der not in chain and issued_by(top, der))
        if (found := next(above, None)) is None:
            break
        chain = (found, *chain)
    return ()


def _chain_fault(chain: Sequence[bytes], moment: datetime) -> str:
    """Say what the walk of RFC 5280 leaves open about those above the leaf, or nothing."""
    for der in chain[:-1]:
        issuer = read_certificate(der)
        constraints = extension(issuer, x509.BasicConstraints)
        usage = extension(issuer, x509.KeyUsage)
        purposes = extension(issuer, x509.ExtendedKeyUsage)
        if constraints is None or not constraints.ca:
            return "an issuer is no certificate authority"
        if usage is not None and not usage.key_cert_sign:
            return "an issuer may not sign certificates"
        allowed = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
        if purposes is not None and not allowed & set(purposes):
            return "an issuer is restricted to purposes of which code signing is none"
        if not _is_strong(issuer, der):
            return "an issuer's key is neither RSA of 2048 bits nor on P-256, P-384 or P-521"
        # Validators take a trust anchor as it is; an expired one is not ours.
        if not issuer.not_valid_before_utc <= moment <= issuer.not_valid_after_utc:
            return f"an issuer's certificate is not valid at {format_time(moment)}"
    return ""


def _is_strong(issuer: x509.Certificate, der: bytes) -> bool:
    try:
        public = issuer.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            return public.key_size >= _LEAST_RSA_BITS
        load_ec_public(spki_of(der))
    except (Malformed, ValueError, UnsupportedAlgorithm):
        return False
    return True
