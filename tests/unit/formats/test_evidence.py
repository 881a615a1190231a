from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.tpmpolicy import officer_key_name, officer_key_public, pcr_selection
from custody.encoding import sha256
from custody.errors import Malformed, Refused
from custody.formats import evidence
from custody.formats.evidence import (
    Alg,
    Attest,
    Attributes,
    Certified,
    ClockInfo,
    Created,
    CreationData,
    Curve,
    EccPublic,
    EcdsaSignature,
    NvAttributes,
    NvCertified,
    NvPublic,
    PcrBank,
    Quoted,
    RsaPublic,
    RsaSignature,
)
from custody.formats.tpmek import H_3, L_1
from custody.formats.tpmwire import digest_bytes, sized
from tests.unit.crypto.vectors import Vector, each, read

HEADERS = ("kind", "bytes")
RECORDED = {
    v["comment"]: bytes.fromhex(v["bytes"]) for v in read("evidence/recorded.txt", *HEADERS)
}
PARSERS: dict[str, Callable[[bytes], object]] = {
    "public": evidence.parse_public,
    "attest": evidence.parse_attest,
    "creation-data": evidence.parse_creation_data,
    "nv-public": evidence.parse_nv_public,
    "signature": evidence.parse_signature,
    "quote": evidence.unpack_quote,
}

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)

names = st.binary(min_size=32, max_size=32).map(lambda d: b"\x00\x0b" + d)
digests = st.sampled_from((32, 48, 64)).flatmap(lambda n: st.binary(min_size=n, max_size=n))
outside = st.binary(max_size=66)
u16s, u32s, u64s = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
banks = st.builds(
    PcrBank,
    st.sampled_from((Alg.SHA1, Alg.SHA256, Alg.SHA384, Alg.SHA512)),
    st.sets(st.integers(0, 23)).map(lambda pcrs: tuple(sorted(pcrs))),
)
selections = st.lists(banks, max_size=4).map(tuple)
clocks = st.builds(
    ClockInfo, clock_ms=u64s, reset_count=u32s, restart_count=u32s, safe=st.booleans()
)
bodies = st.one_of(
    st.builds(Quoted, banks=selections, pcr_digest=digests),
    st.builds(Created, object_name=names, creation_hash=digests),
    st.builds(Certified, object_name=names, qualified_name=names),
    st.builds(NvCertified, index_name=names, offset=u16s, contents=st.binary(max_size=1024)),
)
attests = st.builds(
    Attest, signer=names, extra_data=outside, clock=clocks, firmware_version=u64s, body=bodies
)
creations = st.builds(
    CreationData,
    banks=selections,
    pcr_digest=digests,
    locality=st.integers(0, 255),
    parent_name_alg=st.sampled_from((Alg.SHA256, Alg.SHA384)),
    parent_name=names,
    parent_qualified_name=names,
    outside_info=outside,
)
attributes = st.lists(st.sampled_from(list(Attributes))).map(
    lambda flags: Attributes(sum(set(flags)))
)
hash_algs = st.sampled_from((Alg.SHA256, Alg.SHA384, Alg.SHA512))


def _ecc(key: ec.EllipticCurvePrivateKey, curve: Curve) -> st.SearchStrategy[EccPublic]:
    numbers = key.public_key().public_numbers()
    size = curve.coordinate_bytes
    return hash_algs.flatmap(
        lambda alg: st.builds(
            EccPublic,
            name_alg=st.just(alg),
            attributes=attributes,
            auth_policy=st.sampled_from((b"", bytes(digest_bytes(alg)))),
            symmetric_bits=st.sampled_from((None, 128, 192, 256)),
            signing_hash=st.none() | hash_algs,
            curve=st.just(curve),
            x=st.just(numbers.x.to_bytes(size, "big")),
            y=st.just(numbers.y.to_bytes(size, "big")),
        )
    )


rsa_publics = st.builds(
    RsaPublic,
    name_alg=st.just(Alg.SHA256),
    attributes=attributes,
    auth_policy=st.sampled_from((b"", bytes(32))),
    symmetric_bits=st.sampled_from((None, 128)),
    signing_hash=st.none() | hash_algs,
    bits=st.just(2048),
    modulus=st.just(RSA.public_key().public_numbers().n.to_bytes(256, "big")),
)
publics = st.one_of(_ecc(P256, Curve.P256), _ecc(P384, Curve.P384), rsa_publics)
nv_publics = st.builds(
    NvPublic,
    index=st.integers(0x01000000, 0x01FFFFFF),
    name_alg=st.just(Alg.SHA256),
    attributes=st.lists(st.sampled_from(list(NvAttributes))).map(
        lambda flags: NvAttributes(sum(set(flags)))
    ),
    auth_policy=st.sampled_from((b"", bytes(32))),
    data_bytes=u16s,
)
signatures = st.one_of(
    st.sampled_from((32, 48)).flatmap(
        lambda n: st.builds(
            EcdsaSignature,
            hash_alg=hash_algs,
            r=st.binary(min_size=n, max_size=n),
            s=st.binary(min_size=n, max_size=n),
        )
    ),
    st.builds(RsaSignature, hash_alg=hash_algs, value=st.binary(min_size=256, max_size=256)),
)


@given(attests)
def test_attest_identity(attest: Attest) -> None:
    """Parsing what was packed gives the same TPMS_ATTEST."""
    assert attest == evidence.parse_attest(attest.pack())


@given(creations)
def test_creation_data_identity(creation: CreationData) -> None:
    """Parsing what was packed gives the same TPMS_CREATION_DATA."""
    assert creation == evidence.parse_creation_data(creation.pack())


@given(publics)
def test_public_identity(public: EccPublic | RsaPublic) -> None:
    """Parsing what was packed gives the same TPMT_PUBLIC."""
    assert public == evidence.parse_public(public.pack())


@given(nv_publics)
def test_nv_public_identity(public: NvPublic) -> None:
    """Parsing what was packed gives the same TPMS_NV_PUBLIC."""
    assert public == evidence.parse_nv_public(public.pack())


@given(signatures)
def test_signature_identity(signature: EcdsaSignature | RsaSignature) -> None:
    """Parsing what was packed gives the same TPMT_SIGNATURE."""
    assert signature == evidence.parse_signature(signature.pack())


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.data())
def test_what_parses_packs_to_the_same_bytes(kind: str, data: st.DataObject) -> None:
    """Any bytes are `Malformed`, or parse to what packs to exactly them."""
    known = [
        bytes.fromhex(v["bytes"])
        for v in read("evidence/recorded.txt", *HEADERS)
        if v["kind"] == kind
    ] or [evidence.pack_quote(RECORDED["quote"], RECORDED["quote signature"])]
    base = bytearray(data.draw(st.sampled_from(known)))
    for _ in range(data.draw(st.integers(0, 3))):
        base[data.draw(st.integers(0, len(base) - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(base)
    try:
        parsed = PARSERS[kind](mutated)
    except Malformed:
        return
    packed = (
        evidence.pack_quote(parsed.attest, parsed.signature)
        if isinstance(parsed, evidence.Quote)
        else parsed.pack()  # type: ignore[attr-defined]
    )
    assert mutated == packed


@pytest.mark.parametrize("kind", PARSERS)
@given(junk=st.binary(max_size=300))
def test_junk_is_malformed(kind: str, junk: bytes) -> None:
    """Random bytes raise `Malformed` and nothing else."""
    with pytest.raises(Malformed):
        PARSERS[kind](junk)


@each("evidence/recorded.txt", *HEADERS)
def test_recorded_structures_keep_their_bytes(vector: Vector) -> None:
    """What a TPM made parses, and packs to the same bytes."""
    raw = bytes.fromhex(vector["bytes"])
    assert raw == PARSERS[vector["kind"]](raw).pack()  # type: ignore[attr-defined]


@each("evidence/recorded.txt", *HEADERS)
def test_every_truncation_is_malformed(vector: Vector) -> None:
    """Each proper prefix of a recorded structure is `Malformed`."""
    raw = bytes.fromhex(vector["bytes"])
    for end in range(len(raw)):
        with pytest.raises(Malformed):
            PARSERS[vector["kind"]](raw[:end])


@each("evidence/recorded.txt", *HEADERS)
def test_trailing_bytes_are_malformed(vector: Vector) -> None:
    """A byte behind a recorded structure makes it `Malformed`."""
    with pytest.raises(Malformed, match=r"trailing bytes|size of"):
        PARSERS[vector["kind"]](bytes.fromhex(vector["bytes"]) + b"\0")


@each("evidence/malformed.txt", "kind", "bytes", "reason")
def test_malformed_vectors(vector: Vector) -> None:
    """Each malformed vector is refused for its own reason."""
    with pytest.raises(Malformed, match=vector["reason"]):
        PARSERS[vector["kind"]](bytes.fromhex(vector["bytes"]))


def test_oversize_is_malformed() -> None:
    """Nothing longer than the cap is looked at."""
    with pytest.raises(Malformed, match="larger than the 4096 bytes"):
        evidence.parse_attest(RECORDED["quote"] + bytes(4096))


def test_recorded_chain_holds_together() -> None:
    """The recorded Names, Qualified Names, hashes and templates are those the TPM reported."""
    creation = evidence.parse_attest(RECORDED["creation"])
    data = evidence.parse_creation_data(RECORDED["creation data"])
    parent = evidence.name(RECORDED["parent"])
    assert isinstance(creation.body, Created)
    assert creation.body.object_name == evidence.name(RECORDED["h"])
    assert creation.body.creation_hash == sha256(RECORDED["creation data"])
    assert data.parent_name == parent
    assert data.parent_qualified_name == evidence.qualified_name(evidence.RH_NULL, parent)
    ak_name = evidence.name(RECORDED["ak"])
    assert creation.signer == evidence.qualified_name(evidence.RH_ENDORSEMENT, ak_name)
    certified = evidence.parse_attest(RECORDED["counter certified"]).body
    assert isinstance(certified, NvCertified)
    assert certified.index_name == evidence.nv_name(RECORDED["counter"])


def test_recorded_templates_match_exactly() -> None:
    """AK, parent, H and EKs of a real TPM are exactly the expected templates."""
    pairs = (
        ("ak", evidence.AK_TEMPLATE),
        ("parent", evidence.HOST_PARENT_TEMPLATE),
        ("h", evidence.host_key_template(Curve.P384, sha256(b"a policy"))),
        ("ek-rsa", L_1.public),
        ("ek-p384", H_3.public),
    )
    for comment, template in pairs:
        assert evidence.matches(evidence.parse_public(RECORDED[comment]), template), comment


@pytest.mark.parametrize("flag", list(Attributes))
def test_one_attribute_more_or_less_matches_no_template(flag: Attributes) -> None:
    """A key whose attributes differ in any one bit is not the template's."""
    ak = evidence.parse_public(RECORDED["ak"])
    assert isinstance(ak, EccPublic)
    changed = EccPublic(
        name_alg=ak.name_alg,
        attributes=ak.attributes ^ flag,
        signing_hash=ak.signing_hash,
        curve=ak.curve,
        x=ak.x,
        y=ak.y,
    )
    assert not evidence.matches(changed, evidence.AK_TEMPLATE)


def test_an_rsa_key_matches_no_ecc_template() -> None:
    """Keys of different kinds never match."""
    assert not evidence.matches(evidence.parse_public(RECORDED["ek-rsa"]), evidence.AK_TEMPLATE)


@pytest.mark.parametrize("comment", ["ek-rsa", "ek-p384"])
def test_ek_public_from_certificate_key_and_template(comment: str) -> None:
    """An EK's public area is rebuilt from its key alone, byte for byte."""
    assert RECORDED[comment] == evidence.ek_public(evidence.spki(RECORDED[comment]))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 3072),
        rsa.generate_private_key(3, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-521", "RSA-3072", "exponent 3", "Ed25519"],
)
def test_an_ek_no_template_knows_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    """A certificate key that fits no template is refused by check id."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Refused) as refused:
        evidence.ek_public(spki)
    assert refused.value.check == "attestation.V14"


def test_an_unreadable_ek_key_is_malformed() -> None:
    """Bytes that are no SubjectPublicKeyInfo are `Malformed`."""
    with pytest.raises(Malformed):
        evidence.ek_public(b"\x30\x00")


def test_the_attestations_signatures_verify() -> None:
    """Both recorded signatures are the AK's."""
    evidence.verify_attest(RECORDED["ak"], RECORDED["creation"], RECORDED["creation signature"])
    evidence.verify_attest(RECORDED["ak"], RECORDED["quote"], RECORDED["quote signature"])


def _refusal(ak: bytes, attest: bytes, signature: bytes) -> str:
    with pytest.raises(Refused) as refused:
        evidence.verify_attest(ak, attest, signature)
    return refused.value.check


def test_every_changed_byte_of_a_quote_is_refused() -> None:
    """No byte of a quote can change under its signature."""
    quote, signature = RECORDED["quote"], RECORDED["quote signature"]
    for at in range(len(quote)):
        changed = quote[:at] + bytes([quote[at] ^ 1]) + quote[at + 1 :]
        assert _refusal(RECORDED["ak"], changed, signature) == "attestation.V20"


def test_every_changed_byte_of_a_signature_is_refused() -> None:
    """No byte of a quote's signature can change: a statement has one encoding."""
    signature = RECORDED["quote signature"]
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        with pytest.raises((Malformed, Refused)):
            evidence.verify_attest(RECORDED["ak"], RECORDED["quote"], changed)


def test_the_other_s_is_refused() -> None:
    """The high-s twin of a right signature is refused."""
    given = evidence.parse_signature(RECORDED["quote signature"])
    assert isinstance(given, EcdsaSignature)
    order = ec.SECP256R1().group_order
    high = order - int.from_bytes(given.s, "big")
    twin = EcdsaSignature(hash_alg=given.hash_alg, r=given.r, s=high.to_bytes(32, "big"))
    assert _refusal(RECORDED["ak"], RECORDED["quote"], twin.pack()) == "attestation.V20"
    back = evidence.low_s(twin.r, twin.s, hash_alg=given.hash_alg, curve=ec.SECP256R1())
    assert given == back


def test_low_s_pads_what_a_tpm_left_out() -> None:
    """A TPM that strips leading zeros gives the same signature as one that does not."""
    padded = evidence.low_s(b"\x01", b"\x02", hash_alg=Alg.SHA256, curve=ec.SECP256R1())
    assert EcdsaSignature(hash_alg=Alg.SHA256, r=bytes(31) + b"\1", s=bytes(31) + b"\2") == padded


def test_another_scheme_or_hash_than_the_aks_is_refused() -> None:
    """A signature by RSASSA, or with another hash, is not by an ECDSA-SHA256 key."""
    foreign = RsaSignature(hash_alg=Alg.SHA256, value=bytes(256)).pack()
    weak = EcdsaSignature(hash_alg=Alg.SHA384, r=bytes(32), s=bytes(32)).pack()
    for signature in (foreign, weak):
        assert _refusal(RECORDED["ak"], RECORDED["quote"], signature) == "attestation.V12"


def test_a_signature_of_another_curves_length_is_refused() -> None:
    """A P-256 key's signature has 32-byte halves."""
    long = EcdsaSignature(hash_alg=Alg.SHA256, r=bytes(48), s=bytes(48)).pack()
    assert _refusal(RECORDED["ak"], RECORDED["quote"], long) == "attestation.V20"


def test_an_rsa_aks_signature_is_checked() -> None:
    """RSASSA attestations verify, and are refused when a byte differs."""
    ak = RsaPublic(
        name_alg=Alg.SHA256,
        attributes=evidence.AK_TEMPLATE.attributes,
        signing_hash=Alg.SHA256,
        bits=2048,
        modulus=RSA.public_key().public_numbers().n.to_bytes(256, "big"),
    ).pack()
    value = RSA.sign(RECORDED["quote"], padding.PKCS1v15(), hashes.SHA256())
    signature = RsaSignature(hash_alg=Alg.SHA256, value=value).pack()
    evidence.verify_attest(ak, RECORDED["quote"], signature)
    assert _refusal(ak, RECORDED["creation"], signature) == "attestation.V20"


def test_a_key_without_a_scheme_attests_nothing() -> None:
    """A key whose public area names no signing hash (H, a parent) is refused as an AK."""
    signature = RECORDED["quote signature"]
    assert _refusal(RECORDED["parent"], RECORDED["quote"], signature) == "attestation.V12"


def test_a_quote_container_round_trips() -> None:
    """What `pack_quote` writes, `unpack_quote` reads."""
    pair = evidence.Quote(RECORDED["quote"], RECORDED["quote signature"])
    assert pair == evidence.unpack_quote(evidence.pack_quote(*pair))


@pytest.mark.parametrize("comment", ["creation", "counter certified"])
def test_another_attestation_is_no_quote(comment: str) -> None:
    """An attestation of another kind does not pass for a quote (GHSA-gwfg-w3jr-xh66)."""
    packed = evidence.pack_quote(RECORDED[comment], RECORDED["quote signature"])
    with pytest.raises(Malformed, match="of another kind"):
        evidence.unpack_quote(packed)


def test_spki_is_the_key() -> None:
    """The SPKI of a public area is the key's own, as anybody writes it."""
    numbers = P256.public_key().public_numbers()
    public = EccPublic(
        name_alg=Alg.SHA256,
        attributes=Attributes.SIGN,
        curve=Curve.P256,
        x=numbers.x.to_bytes(32, "big"),
        y=numbers.y.to_bytes(32, "big"),
    )
    expected = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert expected == evidence.spki(public.pack())


def test_officer_key_is_the_parsers_public() -> None:
    """The calculator's officer key is a public area with exactly SIGN and USER_WITH_AUTH."""
    spki = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    packed = officer_key_public(spki)
    parsed = evidence.parse_public(packed)
    assert parsed.attributes == Attributes.SIGN | Attributes.USER_WITH_AUTH
    assert parsed.signing_hash is None
    assert spki == evidence.spki(packed)
    assert evidence.name(packed) == officer_key_name(spki)


@given(st.sets(st.integers(0, 23)).map(sorted))
def test_the_calculators_selection_is_the_parsers(pcrs: list[int]) -> None:
    """`tpmpolicy.pcr_selection` writes what `pack_selection` writes."""
    assert pcr_selection(pcrs) == evidence.pack_selection((PcrBank(Alg.SHA256, tuple(pcrs)),))


def test_counter_public_is_the_recorded_one() -> None:
    """A request's counter is exactly what a TPM reports after the first increment."""
    assert RECORDED["counter"] == evidence.counter_public(0x01800C00).pack()


def test_names_are_sized() -> None:
    """A Qualified Name is only made of a Name."""
    with pytest.raises(Malformed):
        evidence.qualified_name(evidence.RH_NULL, bytes(34))
    assert sized(b"ab") == b"\x00\x02ab"
