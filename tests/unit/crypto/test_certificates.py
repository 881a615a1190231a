from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.certificates import (
    Revocation,
    crl_number,
    crl_signed_by,
    issue_authority,
    issue_certificate,
    issue_crl,
    keeps_expired_since,
    make_csr,
    read_certificate,
    read_crl,
    read_csr,
    revocations_of,
    spki_of,
)
from custody.crypto.der import elements, tlv
from custody.crypto.signature import public_bytes
from custody.errors import CustodyError, Malformed, Refused
from tests.unit.crypto.vectors import Vector, each

START = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CURVES = pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda c: c.name)
READERS: dict[str, Callable[[bytes], object]] = {
    "certificate": read_certificate,
    "crl": read_crl,
    "csr": read_csr,
}


class Issuer:
    """An authority and a key it has not seen yet."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self.key = ec.generate_private_key(curve)
        self.der = issue_authority(
            self.key, name="production authority", not_before=START, not_after=START + 999 * DAY
        )
        self.subject_key = ec.generate_private_key(curve)
        self.spki = public_bytes(self.subject_key.public_key())

    def issue(self, *, days: int = 365, code_signing: bool = False) -> bytes:
        return issue_certificate(
            self.key,
            self.der,
            spki=self.spki,
            principal="alice",
            display="Alice Ångström",
            use="sign",
            not_before=START,
            not_after=START + days * DAY,
            code_signing=code_signing,
        )

    def list(self, *entries: Revocation, number: int = 1, previous: bytes | None = None) -> bytes:
        return issue_crl(
            self.key,
            self.der,
            entries=entries,
            number=number,
            this_update=START,
            next_update=START + 60 * DAY,
            previous=previous,
        )


ISSUER = Issuer(ec.SECP256R1())
CSR = make_csr(ISSUER.subject_key, name="alice")
GOOD = {"certificate": ISSUER.issue(), "crl": ISSUER.list(), "csr": CSR}
ENTRY = Revocation(serial=2**158, revoked_at=START + DAY, reason="keyCompromise")


@CURVES
def test_openssl_accepts_what_we_issue(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """`openssl verify -crl_check -x509_strict` accepts a certificate and refuses a revoked one."""
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    issuer = Issuer(curve)
    leaf = issuer.issue(code_signing=True)
    serial = read_certificate(leaf).serial_number
    revoked = Revocation(serial=serial, revoked_at=START + DAY, reason="superseded")
    _pem(tmp_path / "ca.pem", issuer.der, "CERTIFICATE")
    _pem(tmp_path / "leaf.pem", leaf, "CERTIFICATE")
    for crl, code, word in ((issuer.list(), 0, "OK"), (issuer.list(revoked), 2, "revoked")):
        _pem(tmp_path / "list.pem", crl, "X509 CRL")
        command = (
            f"{tool} verify -x509_strict -crl_check -attime {int((START + 2 * DAY).timestamp())} "
            "-CAfile ca.pem -CRLfile list.pem leaf.pem"
        )
        done = subprocess.run(
            command.split(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (code, True) == (done.returncode, word in done.stdout + done.stderr)


def _pem(path: Path, der: bytes, label: str) -> None:
    body = base64.encodebytes(der).decode()
    path.write_text(f"-----BEGIN {label}-----\n{body}-----END {label}-----\n", encoding="ascii")


@CURVES
def test_an_authority_is_one_and_issues_to_no_other(curve: ec.EllipticCurve) -> None:
    """An authority may sign certificates and lists, critically, and has no authority below it."""
    extensions = read_certificate(Issuer(curve).der).extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (True, True, 0) == (basic.critical, basic.value.ca, basic.value.path_length)
    assert (True, True, True) == (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign)
    assert not usage.value.digital_signature


def test_a_key_is_named_by_its_digest() -> None:
    """Key identifiers are the SHA-256 of the SPKI, and the certificate names its authority's."""
    extensions = read_certificate(ISSUER.issue()).extensions
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    above = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    digest = x509.SubjectKeyIdentifier
    assert own != above.key_identifier
    assert (
        read_certificate(ISSUER.der).extensions.get_extension_for_class(digest).value.digest
        == above.key_identifier
    )
    assert ISSUER.spki == spki_of(ISSUER.issue())


def test_serials_do_not_repeat_or_tell() -> None:
    """Serial numbers are random: eight certificates of one key share none, and all are long."""
    serials = {read_certificate(ISSUER.issue()).serial_number for _ in range(8)}
    assert 8 == len(serials)
    assert max(serials) > 2**140


def test_another_key_issues_nothing_in_an_authority_s_name() -> None:
    """A key that is not the authority's is refused before it signs."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Refused) as refused:
        issue_crl(
            stranger, ISSUER.der, entries=(), number=1, this_update=START, next_update=START + DAY
        )
    assert "certificate.authority" == refused.value.check


def test_no_certificate_outlives_its_authority() -> None:
    """A certificate that ends after its authority is refused."""
    with pytest.raises(Refused) as refused:
        ISSUER.issue(days=1000)
    assert "certificate.validity" == refused.value.check


def test_a_share_key_signs_no_code() -> None:
    """The code signing use cannot be put beside key agreement."""
    with pytest.raises(Refused) as refused:
        issue_certificate(
            ISSUER.key,
            ISSUER.der,
            spki=ISSUER.spki,
            principal="alice",
            display="",
            use="share",
            not_before=START,
            not_after=START + DAY,
            code_signing=True,
        )
    assert "certificate.usage" == refused.value.check


def test_a_list_reads_back() -> None:
    """Number, entries and the promise to keep expired entries are read as they were written."""
    second = Revocation(serial=7, revoked_at=START, reason="unspecified")
    crl = read_crl(ISSUER.list(ENTRY, second, number=2**40))
    assert 2**40 == crl_number(crl)
    assert (second, ENTRY) == revocations_of(crl)
    assert START == keeps_expired_since(crl)
    assert crl_signed_by(crl, ISSUER.der)
    assert not crl_signed_by(crl, Issuer(ec.SECP256R1()).der)


@pytest.mark.parametrize(
    ("entries", "number", "check"),
    [
        ((ENTRY,), 1, "crl.number"),
        ((), 2, "crl.entries"),
        ((msgspec.structs.replace(ENTRY, revoked_at=START + 2 * DAY),), 2, "crl.entries"),
        ((msgspec.structs.replace(ENTRY, revoked_at=START),), 2, ""),
        ((ENTRY,), 2, ""),
    ],
    ids=["number repeats", "entry forgotten", "later date", "earlier date", "grows"],
)
def test_a_list_follows_the_one_before(
    entries: tuple[Revocation, ...], number: int, check: str
) -> None:
    """A list that repeats a number, or forgets or delays an entry, is refused."""
    first = ISSUER.list(ENTRY, number=1)
    if not check:
        assert number == crl_number(read_crl(ISSUER.list(*entries, number=2, previous=first)))
        return
    with pytest.raises(Refused) as refused:
        ISSUER.list(*entries, number=number, previous=first)
    assert refused.value.check == check


def test_a_list_names_nobody_twice() -> None:
    """Two entries for one certificate are malformed: which of the dates would count?"""
    later = Revocation(serial=ENTRY.serial, revoked_at=START + 5 * DAY, reason="superseded")
    with pytest.raises(Malformed, match="twice"):
        ISSUER.list(ENTRY, later)


@CURVES
def test_a_request_reads_back(curve: ec.EllipticCurve) -> None:
    """A request gives the name and the key of whoever signed it."""
    key = ec.generate_private_key(curve)
    request = read_csr(make_csr(key, name="bob"))
    assert ("bob", public_bytes(key.public_key())) == (request.name, request.spki)


@each("certificates/malformed.txt", "kind", "reason", "der")
def test_malformed(vector: Vector) -> None:
    """A strict reader refuses the vector, for the reason it gives."""
    with pytest.raises((Malformed, Refused), match=vector["reason"]):
        READERS[vector["kind"]](base64.b64decode(vector["der"], validate=True))


@pytest.mark.parametrize("kind", sorted(READERS))
@given(data=st.data())
def test_a_changed_byte_is_read_as_another_document_or_not_at_all(
    kind: str, data: st.DataObject
) -> None:
    """A document with one byte changed is refused in kind, or its signed part has changed."""
    good = GOOD[kind]
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        READERS[kind](bytes(changed))
    except CustodyError:
        return
    # What is left is a change inside the signed part, or of the signature itself.
    tbs, algorithm, _ = elements(good)
    changed_tbs, changed_algorithm, _ = elements(bytes(changed))
    assert algorithm == changed_algorithm
    assert kind != "csr"
    assert tbs != changed_tbs or at >= len(good) - 72


@pytest.mark.parametrize("kind", sorted(READERS))
@given(junk=st.binary(max_size=400))
def test_junk_is_malformed(kind: str, junk: bytes) -> None:
    """Arbitrary bytes, bare or as a DER sequence, are malformed and nothing worse."""
    for der in (junk, tlv(0x30, junk), tlv(0x30, tlv(0x30, junk) * 2 + tlv(3, b"\0" + junk))):
        with pytest.raises(Malformed):
            READERS[kind](der)


@pytest.mark.parametrize("kind", sorted(READERS))
def test_what_is_read_is_written_to_the_same_bytes(kind: str) -> None:
    """The library writes what our readers took back to the same bytes."""
    der = GOOD[kind]
    READERS[kind](der)
    if kind == "certificate":
        assert der == x509.load_der_x509_certificate(der).public_bytes(Encoding.DER)
    elif kind == "crl":
        assert der == x509.load_der_x509_crl(der).public_bytes(Encoding.DER)
    else:
        assert der == x509.load_der_x509_csr(der).public_bytes(Encoding.DER)


@given(st.binary(max_size=70_000))
def test_der_elements_read_back(content: bytes) -> None:
    """An element is cut out of a sequence exactly as it was written, at any length."""
    one, two = tlv(4, content), tlv(2, b"\1")
    assert (one, two) == elements(tlv(0x30, one + two))
