"""Certificates of hosts' keys: what is written is read again, and nothing else is."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.certificates import issue_authority, issue_leaf, read_certificate
from custody.crypto.host_certificates import (
    AK_PURPOSE,
    Term,
    Vouched,
    issue_ak_certificate,
    issue_server_certificate,
    issue_tls_certificate,
    tpm_identity,
    vouched_in,
)
from custody.crypto.signature import public_bytes
from custody.errors import Malformed
from tests.unit.machine import EkCertificate

START = datetime(2027, 1, 1, tzinfo=UTC)
TERM = Term(not_before=START, not_after=START + timedelta(days=30))
KEY = ec.generate_private_key(ec.SECP384R1())
CA = issue_authority(KEY, name="rack", not_before=START, not_after=START + timedelta(days=3650))
SPKI = public_bytes(ec.generate_private_key(ec.SECP256R1()).public_key())
EK = EkCertificate().issue()
GOOD = Vouched(host="gpu-1", ek_spki="a" * 64, source="enrolment", digest="b" * 64)

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
vouchings = st.builds(
    Vouched,
    host=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    ek_spki=digests,
    source=st.sampled_from(("enrolment", "enrolment-request")),
    digest=digests,
)


def ak_certificate(vouched: Vouched = GOOD) -> bytes:
    """Certify an AK."""
    return issue_ak_certificate(
        KEY,
        CA,
        spki=SPKI,
        ak_name=b"\x00\x0b" + bytes(32),
        vouched=vouched,
        ek_certificate=EK,
        term=TERM,
    )


@given(vouchings)
def test_what_is_written_is_read(vouched: Vouched) -> None:
    """Host, EK and document come out of the certificate as they went in."""
    assert vouched == vouched_in(ak_certificate(vouched))


def test_the_tpm_is_named_as_its_vendor_did() -> None:
    """Manufacturer, model and version, and nothing else of the EK's names."""
    assert ["2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"] == [
        attribute.oid.dotted_string for attribute in tpm_identity(EK)
    ]
    assert () == tpm_identity(CA)


def _names(*, uris: list[str], others: list[bytes], oid: str = "1.3.6.1.5.5.7.8.3") -> bytes:
    """Certify an AK with names of the test's own."""
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    held = [x509.OtherName(ObjectIdentifier(oid), value) for value in others]
    return issue_leaf(
        KEY,
        CA,
        spki=SPKI,
        subject=x509.Name([]),
        use="sign",
        extensions=[
            (x509.ExtendedKeyUsage([AK_PURPOSE]), False),
            (x509.SubjectAlternativeName([*held, *names]), True),
        ],
        not_before=TERM.not_before,
        not_after=TERM.not_after,
    )


HOST = bytes.fromhex("30070c056770752d31")
SOURCE, EK_URN = GOOD.urn, GOOD.ek_urn


def test_the_test_names_what_it_changes() -> None:
    """Unchanged, the names below are good."""
    assert GOOD == vouched_in(_names(uris=[EK_URN, SOURCE], others=[HOST]))


@pytest.mark.parametrize(
    ("uris", "others"),
    [
        ([EK_URN], [HOST]),
        ([SOURCE], [HOST]),
        ([EK_URN, SOURCE], []),
        ([EK_URN, SOURCE], [HOST, HOST]),
        ([EK_URN, SOURCE, GOOD.urn.replace("b", "c")], [HOST]),
        ([EK_URN, "urn:ek:sha256:AAAA", SOURCE], [HOST]),
        (["urn:ek:sha256:!", SOURCE], [HOST]),
        ([EK_URN.rstrip("="), SOURCE], [HOST]),
        ([EK_URN, SOURCE.upper()], [HOST]),
        ([EK_URN, SOURCE + "0"], [HOST]),
        ([EK_URN, SOURCE], [bytes.fromhex("3007130567 70752d31".replace(" ", ""))]),
        ([EK_URN, SOURCE], [bytes.fromhex("30090c056770752d310500")]),
        ([EK_URN, SOURCE], [bytes.fromhex("30030c01ff")]),
    ],
    ids=[
        "no document",
        "no EK",
        "no host",
        "two hosts",
        "two documents",
        "two EKs",
        "an EK that is no base64",
        "an EK in another form",
        "a document in another form",
        "a longer digest",
        "a host of another string type",
        "more than a host",
        "a host that is no UTF-8",
    ],
)
def test_names_in_any_other_form_are_malformed(uris: list[str], others: list[bytes]) -> None:
    """What two readers could read differently is read by none."""
    with pytest.raises(Malformed):
        vouched_in(_names(uris=uris, others=others))


def test_other_certificates_are_no_ak_certificates() -> None:
    """Neither a TLS key's, nor a server's, nor an authority's, nor an EK's."""
    tls = issue_tls_certificate(
        KEY, CA, spki=SPKI, vouched=GOOD, dns=["gpu-1"], key_class="tpm", term=TERM
    )
    server = issue_server_certificate(KEY, CA, spki=SPKI, names=["desk", "192.0.2.1"], term=TERM)
    for der in (tls, server, CA, EK):
        with pytest.raises(Malformed):
            vouched_in(der)


def test_a_servers_certificate_is_for_its_names_alone() -> None:
    """DNS names and addresses; it serves and does not ask."""
    der = issue_server_certificate(
        KEY, CA, spki=SPKI, names=["desk", "192.0.2.1", "2001:db8::1"], term=TERM
    )
    extensions = read_certificate(der).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["desk"] == names.get_values_for_type(x509.DNSName)
    assert ["192.0.2.1", "2001:db8::1"] == [
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    ]
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [ExtendedKeyUsageOID.SERVER_AUTH] == list(purposes)


def test_the_ek_is_named_as_others_name_it() -> None:
    """urn:ek:sha256 and the base64 of SHA-256 of its SubjectPublicKeyInfo, padded."""
    expected = base64.b64encode(bytes.fromhex("a" * 64)).decode()
    assert f"urn:ek:sha256:{expected}" == GOOD.ek_urn
