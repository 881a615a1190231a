"""RFC 3161 timestamps: what a time-stamping authority (TSA) says was there by when.

Format: timestamp.md, version 1.  Nothing here is believed: who signed a token, and whether he
counts, is for `rules.times`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from custody.encoding import Digest, sha256
from custody.errors import Malformed

SUFFIX = ".tsr"
#: A response with a few certificates in it.
MAX_TOKEN_BYTES = 64 << 10

#: SignerInfo.signatureAlgorithm is signed by nobody, so each is named that may stand there.
_SIGNED_BY = {
    *("sha256_ecdsa", "sha384_ecdsa", "sha512_ecdsa"),
    *("rsassa_pkcs1v15", "sha256_rsa", "sha384_rsa", "sha512_rsa", "rsassa_pss"),
}
_HASHED_BY = {"sha256", "sha384", "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A response that grants a timestamp over SHA-256 of something.

    ``at`` is the latest moment that it allows: its time and accuracy, in whole seconds upwards.
    ``certificate`` (DER) is the one in it that its signature names and commits to.
    """

    data: bytes = field(repr=False)
    imprint: Digest
    at: datetime
    certificate: bytes = field(repr=False)


def decode_token(data: bytes) -> Token:
    """Read a DER TimeStampResp (RFC 3161 section 2.4.2)."""
    if len(data) > MAX_TOKEN_BYTES:
        raise Malformed(f"larger than the {MAX_TOKEN_BYTES} bytes allowed")
    # Imported here because it costs 0.1 s.
    from asn1crypto import tsp  # noqa: PLC0415
    from rfc3161_client import decode_timestamp_response  # noqa: PLC0415

    try:
        # Two readers: the one that verifies, which takes only DER, and one that shows every field.
        decode_timestamp_response(data)
        return _read(tsp.TimeStampResp.load(data, strict=True), data)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise Malformed("not a timestamp response") from error


# Any: asn1crypto ships no types.
def _read(response: Any, data: bytes) -> Token:
    if response["status"]["status"].native != "granted":
        raise Malformed("the authority granted no timestamp")
    _absent(response["status"], "status_string", "fail_info")
    token = response["time_stamp_token"]
    if token["content_type"].native != "signed_data":
        raise Malformed("not a timestamp response")
    signed = token["content"]
    if signed["version"].native != "v3":
        raise Malformed("not a timestamp response of version 3")
    if signed["encap_content_info"]["content_type"].native != "tst_info":
        raise Malformed("what is signed is no timestamp")
    info = signed["encap_content_info"]["content"].parsed
    imprint = info["message_imprint"]
    if imprint["hash_algorithm"]["algorithm"].native != "sha256":
        raise Malformed("a timestamp over another digest than SHA-256")
    if len(imprint["hashed_message"].native) != 32:
        raise Malformed("a timestamp over no SHA-256 digest")
    return Token(
        data=data,
        imprint=imprint["hashed_message"].native.hex(),
        at=_latest(info),
        certificate=_signer(signed),
    )


def _absent(record: Any, *names: str) -> None:
    """Refuse fields that no signature covers and that tell nothing."""
    for name in names:
        if record[name].native is not None:
            raise Malformed(f"has a {name.replace('_', ' ')}, which nobody signed")


def _signer(signed: Any) -> bytes:
    """Return the certificate that the one signature names, and whose digest it covers."""
    signers = list(signed["signer_infos"])
    if len(signers) != 1:
        raise Malformed("not signed by exactly one")
    (signer,) = signers
    if signer["version"].native != "v1":
        raise Malformed("its signer is not named by issuer and serial number")
    _absent(signed, "crls")
    _absent(signer, "unsigned_attrs")
    hashed = signer["digest_algorithm"]["algorithm"].native
    listed = [known["algorithm"].native for known in signed["digest_algorithms"]]
    if hashed not in _HASHED_BY or listed != [hashed]:
        raise Malformed("signed over another digest than SHA-2")
    by = signer["signature_algorithm"]["algorithm"].native
    if by not in _SIGNED_BY or (by[:6] in _HASHED_BY and by[:6] != hashed):
        raise Malformed("signed by an algorithm that is not taken")
    for held in signed["certificates"]:
        der: bytes = held.chosen.dump()
        if any(hmac.compare_digest(sha256(der), told) for told in _committed(signer)):
            return der
    raise Malformed("without the certificate that its signature commits to")


def _committed(signer: Any) -> list[bytes]:
    """Return the SHA-256 digests of certificates that a signature covers (RFC 5035)."""
    found = []
    for attribute in signer["signed_attrs"]:
        if attribute["type"].native == "signing_certificate_v2":
            first = attribute["values"][0]["certs"][0]
            if first["hash_algorithm"]["algorithm"].native == "sha256":
                found.append(first["cert_hash"].native)
    return found


def _latest(info: Any) -> datetime:
    at: datetime = info["gen_time"].native
    if at.tzinfo is None or at.utcoffset() != timedelta(0):
        raise Malformed("its time is not UTC")
    accuracy = info["accuracy"].native or {}
    at = at.astimezone(UTC) + timedelta(
        seconds=accuracy.get("seconds") or 0,
        milliseconds=accuracy.get("millis") or 0,
        microseconds=accuracy.get("micros") or 0,
    )
    return at if not at.microsecond else at.replace(microsecond=0) + timedelta(seconds=1)


def timestamp_request(message: bytes) -> bytes:
    """Write a DER TimeStampReq over SHA-256 of ``message``, which wants the certificates back.

    It has no nonce: a token is as good whoever asked for it, and the same file asks the same.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # noqa: PLC0415

    builder = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256)
    return bytes(builder.nonce(nonce=False).cert_request(cert_request=True).build().as_bytes())
