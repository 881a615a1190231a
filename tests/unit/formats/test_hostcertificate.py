"""Requests for host certificates: hostcertificate.md, its example and what no reader takes."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.host_certificates import vouched_in
from custody.encoding import decode, encode
from custody.errors import Malformed
from custody.formats.evidence import parse_attest, unpack_key_certified
from custody.formats.hostcertificate import MAX_DNS_NAMES, TlsRequest
from custody.ops import attestation_ca as ca
from custody.ops.tls_certificates import TLS_LIFE
from custody.rules.tls_request import REQUEST_LIFE
from tests.unit.crypto.vectors import Vector, each
from tests.vectors.hostcertificate import make

DATA = (make.HERE / "tls-request.json").read_bytes()
blobs = st.binary(min_size=1, max_size=64)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
requests = st.builds(
    TlsRequest,
    kind=st.just("custody/tls-request/v1"),
    host=names,
    dns=st.lists(st.lists(labels, min_size=1, max_size=4).map(".".join), max_size=4).map(tuple),
    csr=blobs,
    key_public=st.none() | blobs,
    asked_at=st.just(decode(TlsRequest, DATA).asked_at),
    proof=blobs,
)


def test_the_document_shows_what_the_files_hold() -> None:
    """Request, digests and names stand in the document as they are in the vectors."""
    text = make.DOCUMENT.read_text()
    assert text == make.filled(text)
    assert DATA == encode(decode(TlsRequest, DATA))


def test_the_document_has_its_sections_in_order() -> None:
    """The example before any rule."""
    text = make.DOCUMENT.read_text()
    sections = ("Example", "Conventions", "Fields", "Verifying", "What is not auth", "Limits")
    places = [text.find(f"\n## {section}") for section in (*sections, "Rationale")]
    assert -1 not in places
    assert sorted(places) == places


def test_the_limits_are_those_of_the_program() -> None:
    """Every number of the document."""
    text = make.DOCUMENT.read_text()
    for words in (
        f"{MAX_DNS_NAMES} DNS names, {REQUEST_LIFE.days} days for a request",
        f"up to {ca.MAX_LIFE.days} days",
        f"end after {ca.AK_LIFE.days} days",
        f"in the last {REQUEST_LIFE.days} days",
    ):
        assert words in text, words
    assert ca.AK_LIFE == TLS_LIFE


def test_the_examples_proof_is_over_the_example() -> None:
    """The TPM certified the key over the rest of the request."""
    request = decode(TlsRequest, DATA)
    attest = parse_attest(unpack_key_certified(request.proof).attest)
    assert request.qualifying() == attest.extra_data


def test_the_examples_certificates_hold_together() -> None:
    """Both were issued by the authority, and the AK's names the request it was issued for."""
    loaded = {
        name: x509.load_pem_x509_certificate((make.HERE / f"{name}.pem").read_bytes())
        for name in ("authority", "ak", "tls")
    }
    for name in ("ak", "tls"):
        loaded[name].verify_directly_issued_by(loaded["authority"])
    vouched = vouched_in(loaded["ak"].public_bytes(Encoding.DER))
    assert ("gpu-1", "enrolment-request") == (vouched.host, vouched.source)
    with pytest.raises(Malformed, match="not an AK certificate"):
        vouched_in(loaded["tls"].public_bytes(Encoding.DER))


@given(requests)
def test_identity(request: TlsRequest) -> None:
    """Reading what was written gives the same request, and no other has its binding."""
    assert request == decode(TlsRequest, encode(request))


@given(requests, requests)
def test_no_two_requests_share_a_binding(one: TlsRequest, other: TlsRequest) -> None:
    """A proof is good for one request: everything but itself is in what it is over."""
    same = [
        getattr(one, field) == getattr(other, field)
        for field in TlsRequest.__struct_fields__
        if field != "proof"
    ]
    assert all(same) == (one.qualifying() == other.qualifying())


@each("hostcertificate/malformed.txt", "reason", "before", "after")
def test_what_no_reader_takes(vector: Vector) -> None:
    """Each change is refused for its own reason."""
    before, after = vector["before"].encode(), vector["after"].encode()
    assert 1 == DATA.count(before)
    with pytest.raises(Malformed, match=vector["reason"]):
        decode(TlsRequest, DATA.replace(before, after))


def test_any_change_is_malformed_or_another_request() -> None:
    """Whatever bytes come, there is no other error, and none reads as the same request."""
    chance = random.Random(7)
    good = decode(TlsRequest, DATA)
    for _ in range(2000):
        data = bytearray(DATA)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with suppress(Malformed):
            assert (bytes(data) == DATA) == (decode(TlsRequest, bytes(data)) == good)
