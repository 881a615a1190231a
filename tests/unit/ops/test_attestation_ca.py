"""An attestation authority in software: what it certifies, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as change
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from custody.crypto.certificates import make_csr, read_certificate, read_crl, revocations_of
from custody.crypto.host_certificates import AK_PURPOSE, vouched_in
from custody.crypto.signature import sign
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.case import Documents
from custody.formats.enrolment import Answer, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement, decode_statement
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    RH_NULL,
    TLS_KEY_TEMPLATE,
    Alg,
    Attest,
    Attributes,
    Certified,
    ClockInfo,
    EccPublic,
    EcdsaSignature,
    name,
    qualified_name,
)
from custody.formats.hostcertificate import TlsRequest
from custody.keys.hostapi import Attested, CertifiedKey
from custody.ops import attestation_ca as ca
from custody.ops.authority import open_authority, renew, revoke
from custody.ops.enroll import answer, ask, ek_digest
from custody.ops.home import Home
from custody.ops.tls import ask_for_file_key, ask_for_tpm_key
from custody.ops.tls_certificates import TLS_LIFE, issue_tls, resting_on
from custody.rules.tls_request import REQUEST_LIFE
from tests.sim.softtoken import SoftToken
from tests.unit.machine import EkCertificate, SoftTpm, Vendor, make_credential
from tests.unit.ops.test_enroll import POLICY, Enroller
from tests.unit.people import NOW, signed

DNS = ("gpu-1.example.com", "gpu-1")


@dataclass
class TlsSoftTpm(SoftTpm):
    """A software TPM that also holds a TLS key."""

    tls: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    tls_template: EccPublic = TLS_KEY_TEMPLATE

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        return self.tls

    def tls_public(self) -> bytes:
        point = self.tls.public_key().public_numbers()
        x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
        return change(self.tls_template, x=x, y=y).pack()

    def certify_tls_key(self, qualifying: bytes) -> CertifiedKey:
        own = name(self.tls_public())
        attest = Attest(
            signer=qualified_name(self.hierarchy, name(self.ak_public())),
            extra_data=qualifying,
            clock=ClockInfo(clock_ms=1000, reset_count=3, restart_count=0, safe=True),
            firmware_version=self.firmware,
            body=Certified(object_name=own, qualified_name=qualified_name(RH_ENDORSEMENT, own)),
        ).pack()
        r, s = decode_dss_signature(sign(self.key, attest))
        signature = EcdsaSignature(
            hash_alg=Alg.SHA256, r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big")
        )
        return CertifiedKey(self.tls_public(), Attested(attest, signature.pack()))


class Ca:
    """An attestation authority with one vendor and an inventory."""

    def __init__(self, folder: Path) -> None:
        self.home, self.token = Home(folder / "ca"), SoftToken()
        self.certificate = ca.found(
            self.home,
            self.token,
            token_uri="pkcs11:token=ca",
            name="rack attestation authority",
            crl_url="http://crl.example.com/rack.crl",
            now=NOW,
        )
        self.authority = open_authority(self.home, self.token)

    def accepted(self, *listed: EnrolmentRequest) -> ca.Accepted:
        """Accept the vendor and these EKs."""
        inventory = {ek_digest(request): None for request in listed}
        return ca.Accepted(roots=(Vendor().root,), inventory=inventory)

    def answered(self, tpm: SoftTpm, request: EnrolmentRequest) -> Answer:
        """Challenge the host and have it answered."""
        made = ca.challenge_host(
            self.home,
            request,
            accepted=self.accepted(request),
            make_credential=make_credential,
            now=NOW,
        )
        return answer(tpm, made)

    def issue_ak(self, tpm: SoftTpm, *, now: datetime = NOW) -> ca.Issued:
        """Take a host's AK through the whole ceremony."""
        request = ask(tpm, host="gpu-1")
        given = self.answered(tpm, request)
        accepted = self.accepted(request)
        return ca.issue_ak(self.authority, request, given, accepted=accepted, now=now)

    def issue_tls(
        self,
        request: TlsRequest,
        ak: bytes,
        *,
        dns: tuple[str, ...] = DNS,
        now: datetime = NOW,
    ) -> ca.Issued:
        """Certify a TLS key."""
        return issue_tls(self.authority, request, ak_certificate=ak, dns=dns, now=now)


@pytest.fixture
def rack(tmp_path: Path) -> Ca:
    """An authority."""
    return Ca(tmp_path)


@pytest.fixture
def tpm() -> TlsSoftTpm:
    """A host's TPM."""
    return TlsSoftTpm()


def tls_request(tpm: TlsSoftTpm, **more: object) -> TlsRequest:
    """Ask for a certificate of the key in the TPM."""
    asked = {"host": "gpu-1", "dns": DNS, "now": NOW, **more}
    return ask_for_tpm_key(tpm, **asked)  # type: ignore[arg-type]


def refused_by(raised: pytest.ExceptionInfo[Refused]) -> str:
    """Name the check."""
    return raised.value.check


def test_an_ak_certificate_says_whose_it_is(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Empty subject; a critical name with TPM, host, EK and document; one purpose; no authority."""
    request = ask(tpm, host="gpu-1")
    issued = rack.issue_ak(tpm)
    made = read_certificate(issued.der)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (0, True) == (len(list(made.subject)), names.critical)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert f"urn:custody:ak-name:{name(tpm.ak_public()).hex()}" in uris
    assert any(uri.startswith("urn:custody:enrolment-request:v1:") for uri in uris)
    (directory,) = names.value.get_values_for_type(x509.DirectoryName)
    assert 3 == len(list(directory))
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [AK_PURPOSE] == list(purposes)
    assert issued.vouched == vouched_in(issued.der)
    assert ("gpu-1", ek_digest(request)) == (issued.vouched.host, issued.vouched.ek_spki)
    points = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert "http://crl.example.com/rack.crl" == points[0].full_name[0].value
    assert made.not_valid_after_utc == NOW + ca.AK_LIFE


def test_an_ek_off_the_inventory_is_neither_challenged_nor_certified(
    rack: Ca, tpm: TlsSoftTpm
) -> None:
    """The inventory is asked before the challenge and again before the certificate."""
    request = ask(tpm, host="gpu-1")
    with pytest.raises(Refused) as refused:
        ca.challenge_host(
            rack.home,
            request,
            accepted=rack.accepted(),
            make_credential=make_credential,
            now=NOW,
        )
    assert "endorsement.inventory" == refused_by(refused)
    given = rack.answered(tpm, request)
    with pytest.raises(Refused) as refused:
        ca.issue_ak(rack.authority, request, given, accepted=rack.accepted(), now=NOW)
    assert "endorsement.inventory" == refused_by(refused)


def test_an_expired_ek_certificate_is_refused(rack: Ca) -> None:
    """An EK certificate that is over proves nothing to an authority."""
    old = TlsSoftTpm(certificate=EkCertificate(not_after=NOW - timedelta(days=1)).issue())
    with pytest.raises(Refused) as refused:
        rack.issue_ak(old)
    assert "endorsement.chain" == refused_by(refused)


def test_an_ek_that_its_vendor_revoked_is_refused(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A vendor's list that the authority is given counts."""
    request = ask(tpm, host="gpu-1")
    given = rack.answered(tpm, request)
    listed = Vendor().crl(5, tpm.certificate)
    accepted = change(rack.accepted(request), crls=(listed,))
    with pytest.raises(Refused) as refused:
        ca.issue_ak(rack.authority, request, given, accepted=accepted, now=NOW)
    assert "endorsement.revoked" == refused_by(refused)


def test_another_vendors_ek_is_refused(rack: Ca) -> None:
    """Only the vendors that were named count."""
    stranger = Vendor("stranger")
    tpm = TlsSoftTpm(certificate=EkCertificate(vendor=stranger).issue(), vendor=stranger)
    with pytest.raises(Refused) as refused:
        rack.issue_ak(tpm)
    assert "endorsement.chain" == refused_by(refused)


def test_an_activation_for_another_ak_gives_no_certificate(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A good answer to the challenge of one AK is no answer for another in the same TPM's name."""
    impostor = TlsSoftTpm(certificate=tpm.certificate)
    wanted = ask(impostor, host="gpu-1")
    given = rack.answered(tpm, ask(tpm, host="gpu-1"))
    ca.challenge_host(
        rack.home,
        wanted,
        accepted=rack.accepted(wanted),
        make_credential=make_credential,
        now=NOW,
    )
    accepted = rack.accepted(wanted)
    with pytest.raises(Refused) as refused:
        ca.issue_ak(rack.authority, wanted, given, accepted=accepted, now=NOW)
    assert "enrolment.answer" == refused_by(refused)
    forged = replace(given, request=wanted.digest())
    with pytest.raises(Refused) as refused:
        ca.issue_ak(rack.authority, wanted, forged, accepted=accepted, now=NOW)
    assert "enrolment.activation" == refused_by(refused)


def test_an_answer_is_good_for_one_certificate(rack: Ca, tpm: TlsSoftTpm) -> None:
    """The challenge is forgotten with the first answer."""
    request = ask(tpm, host="gpu-1")
    given, accepted = rack.answered(tpm, request), rack.accepted(request)
    ca.issue_ak(rack.authority, request, given, accepted=accepted, now=NOW)
    with pytest.raises(Incomplete):
        ca.issue_ak(rack.authority, request, given, accepted=accepted, now=NOW)


def test_a_tls_certificate_names_what_was_approved(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Only the names that the operator approves are in it, the class of its key, the document."""
    ak = rack.issue_ak(tpm)
    issued = rack.issue_tls(tls_request(tpm), ak.der, dns=DNS[:1])
    made = read_certificate(issued.der)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(DNS[:1]) == names.get_values_for_type(x509.DNSName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert {"urn:custody:tls-key:tpm", ak.vouched.urn} == set(uris)
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH] == list(purposes)
    assert "tpm" == issued.key_class


def test_a_key_in_a_file_is_said_to_be_one(rack: Ca, tpm: TlsSoftTpm) -> None:
    """By a quote the AK speaks for it, and the certificate says no more than that."""
    ak = rack.issue_ak(tpm).der
    csr = make_csr(ec.generate_private_key(ec.SECP384R1()), name="gpu-1")
    request = ask_for_file_key(tpm, host="gpu-1", dns=DNS, csr=csr, now=NOW)
    issued = rack.issue_tls(request, ak)
    names = read_certificate(issued.der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "urn:custody:tls-key:file" in names.value.get_values_for_type(
        x509.UniformResourceIdentifier
    )


def test_a_name_nobody_asked_for_is_not_certified(rack: Ca, tpm: TlsSoftTpm) -> None:
    """An operator's slip does not give a host another host's name, and none is no certificate."""
    ak, request = rack.issue_ak(tpm).der, tls_request(tpm)
    for dns in (("gpu-2.example.com",), ()):
        with pytest.raises(Refused) as refused:
            rack.issue_tls(request, ak, dns=dns)
        assert "tls.names" == refused_by(refused)


def test_a_tls_request_by_another_ak_is_refused(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A key on another machine is not certified in this one's name."""
    ak = rack.issue_ak(tpm).der
    other = TlsSoftTpm(certificate=EkCertificate(key="other").issue())
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(other), ak)
    assert "tls.proof" == refused_by(refused)


def test_a_certified_key_does_not_vouch_for_another(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A request whose CSR is of another key than the certified one is refused."""
    ak = rack.issue_ak(tpm).der
    elsewhere = TlsSoftTpm(certificate=tpm.certificate, key=tpm.key)
    csr = make_csr(ec.generate_private_key(ec.SECP256R1()), name="gpu-1")
    elsewhere.tls_key = lambda: ec.generate_private_key(ec.SECP256R1())  # type: ignore[method-assign]
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(elsewhere), ak)
    assert "tls.key" == refused_by(refused)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(replace(tls_request(tpm), csr=csr), ak)
    assert "tls.bound" == refused_by(refused)


def test_a_key_whose_name_is_not_attested_is_refused(rack: Ca, tpm: TlsSoftTpm) -> None:
    """The AK's word on one key, beside the public area and the request of another."""
    ak = rack.issue_ak(tpm).der
    wanted = TlsSoftTpm(certificate=tpm.certificate, key=tpm.key)
    attested = tpm.certify_tls_key
    wanted.certify_tls_key = lambda qualifying: CertifiedKey(  # type: ignore[method-assign]
        wanted.tls_public(), attested(qualifying).attested
    )
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(wanted), ak)
    assert "tls.key" == refused_by(refused)


def test_an_ak_elsewhere_speaks_for_no_tls_key(rack: Ca, tpm: TlsSoftTpm) -> None:
    """The same key, loaded outside the endorsement hierarchy, is not the AK that was certified."""
    ak = rack.issue_ak(tpm).der
    outside = TlsSoftTpm(certificate=tpm.certificate, key=tpm.key, hierarchy=RH_NULL)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(outside), ak)
    assert "tls.signer" == refused_by(refused)


@pytest.mark.parametrize("name", ["gpu-2", "GPU-1", "gpu-1.example.com"])
def test_a_certificate_request_in_another_name_is_refused(
    rack: Ca, tpm: TlsSoftTpm, name: str
) -> None:
    """Its key was made for somebody else."""
    ak = rack.issue_ak(tpm).der
    csr = make_csr(ec.generate_private_key(ec.SECP256R1()), name=name)
    request = ask_for_file_key(tpm, host="gpu-1", dns=DNS, csr=csr, now=NOW)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(request, ak)
    assert "tls.csr" == refused_by(refused)


def test_a_certificate_request_that_is_none_is_refused(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Junk, or one whose signature is another's."""
    ak = rack.issue_ak(tpm).der
    good = make_csr(ec.generate_private_key(ec.SECP256R1()), name="gpu-1")
    for csr in (b"junk", good[:-1] + bytes([good[-1] ^ 1])):
        request = ask_for_file_key(tpm, host="gpu-1", dns=DNS, csr=csr, now=NOW)
        with pytest.raises(Refused) as refused:
            rack.issue_tls(request, ak)
        assert "tls.csr" == refused_by(refused)


@pytest.mark.parametrize(
    "attributes",
    [
        TLS_KEY_TEMPLATE.attributes & ~Attributes.FIXED_TPM,
        TLS_KEY_TEMPLATE.attributes & ~Attributes.FIXED_PARENT,
        TLS_KEY_TEMPLATE.attributes & ~Attributes.SENSITIVE_DATA_ORIGIN,
        TLS_KEY_TEMPLATE.attributes | Attributes.DECRYPT,
    ],
)
def test_a_key_that_may_leave_its_tpm_is_no_tpm_key(
    rack: Ca, tpm: TlsSoftTpm, attributes: Attributes
) -> None:
    """The AK's word that a key is loaded is not its word that the key stays."""
    ak = rack.issue_ak(tpm).der
    tpm.tls_template = change(TLS_KEY_TEMPLATE, attributes=attributes)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(tpm), ak)
    assert "tls.key" == refused_by(refused)


def test_a_quote_is_no_certified_key(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A request that calls its key the TPM's needs TPM2_Certify, and the other way round."""
    ak = rack.issue_ak(tpm).der
    good = tls_request(tpm)
    csr = make_csr(tpm.tls, name="gpu-1")
    file = ask_for_file_key(tpm, host="gpu-1", dns=DNS, csr=csr, now=NOW)
    for crossed in (replace(good, proof=file.proof), replace(file, proof=good.proof)):
        with pytest.raises(Refused) as refused:
            rack.issue_tls(crossed, ak)
        assert "tls.proof" == refused_by(refused)


@pytest.mark.parametrize("off", [REQUEST_LIFE + timedelta(seconds=1), -timedelta(hours=1)])
def test_a_tls_request_grows_old(rack: Ca, tpm: TlsSoftTpm, off: timedelta) -> None:
    """A request of last month, or of tomorrow, is not of now."""
    ak = rack.issue_ak(tpm).der
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(tpm, now=NOW - off), ak)
    assert "tls.fresh" == refused_by(refused)


def test_a_tls_request_is_good_once(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Who keeps a copy of a request gets nothing more by it."""
    ak, request = rack.issue_ak(tpm).der, tls_request(tpm)
    rack.issue_tls(request, ak)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(request, ak)
    assert "tls.repeated" == refused_by(refused)


def test_another_host_is_another_name(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A host gets certificates in the name its AK was certified for, and in no other."""
    ak = rack.issue_ak(tpm).der
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(tpm, host="gpu-2"), ak)
    assert "tls.host" == refused_by(refused)


def test_an_ak_certificate_must_be_in_force(rack: Ca, tpm: TlsSoftTpm, tmp_path: Path) -> None:
    """Of this authority, not over, not revoked."""
    other = Ca(tmp_path / "other").issue_ak(tpm).der
    mine, request = rack.issue_ak(tpm).der, tls_request(tpm)
    with pytest.raises(Refused, match="not of this authority"):
        rack.issue_tls(request, other)
    later = NOW + ca.AK_LIFE + timedelta(seconds=1)
    with pytest.raises(Refused, match="expired"):
        rack.issue_tls(tls_request(tpm, now=later), mine, now=later)
    revoke(rack.authority, [mine], reason="superseded", since=NOW, now=NOW)
    with pytest.raises(Refused, match="is revoked"):
        rack.issue_tls(request, mine)


def test_a_tls_certificate_is_no_ak_certificate(rack: Ca, tpm: TlsSoftTpm) -> None:
    """What certifies a TLS key does not vouch for another."""
    ak = rack.issue_ak(tpm).der
    tls = rack.issue_tls(tls_request(tpm), ak).der
    with pytest.raises(Malformed, match="not an AK certificate"):
        rack.issue_tls(tls_request(tpm, dns=DNS[:1]), tls, dns=DNS[:1])


def test_what_was_revoked_is_on_the_list_and_does_not_come_back(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A revoked AK stays on every later list, and is certified again only if it was superseded."""
    first = rack.issue_ak(tpm).der
    revoke(rack.authority, [first], reason="superseded", since=NOW, now=NOW)
    second = rack.issue_ak(tpm).der
    revoke(rack.authority, [second], reason="keyCompromise", since=NOW, now=NOW)
    listed = revocations_of(read_crl(renew(rack.authority, now=NOW + timedelta(days=1))))
    serials = {read_certificate(der).serial_number for der in (first, second)}
    assert serials == {entry.serial for entry in listed}
    with pytest.raises(Refused) as refused:
        rack.issue_ak(tpm)
    assert "certificate.revoked" == refused_by(refused)


def test_a_revoked_ak_speaks_by_none_of_its_certificates(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Of two certificates of one AK one was revoked: what the AK says then counts no more."""
    first, second = rack.issue_ak(tpm).der, rack.issue_ak(tpm).der
    revoke(rack.authority, [first], reason="superseded", since=NOW, now=NOW)
    assert rack.issue_tls(tls_request(tpm), second).der
    third = rack.issue_ak(tpm).der
    revoke(rack.authority, [second], reason="keyCompromise", since=NOW, now=NOW)
    with pytest.raises(Refused) as refused:
        rack.issue_tls(tls_request(tpm), third)
    assert "certificate.revoked" == refused_by(refused)


def test_a_tls_certificate_ends_with_the_ak_that_vouched_for_it(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Asked for late, it ends when its AK's certificate does, not a month from then."""
    ak = rack.issue_ak(tpm).der
    later = NOW + timedelta(days=3)
    tls = rack.issue_tls(tls_request(tpm, now=later), ak, now=later).der
    ends = [read_certificate(der).not_valid_after_utc for der in (ak, tls)]
    assert ends[0] == ends[1]
    assert ends[0] < later + TLS_LIFE


def test_what_rests_on_a_revoked_ak_is_named(rack: Ca, tpm: TlsSoftTpm) -> None:
    """Its TLS certificates, by whichever of its certificates, and no other host's."""
    other_tpm = TlsSoftTpm(certificate=EkCertificate(key="second").issue())
    request = ask(other_tpm, host="gpu-2")
    given = rack.answered(other_tpm, request)
    other = ca.issue_ak(
        rack.authority, request, given, accepted=rack.accepted(request), now=NOW
    ).der
    first, second = rack.issue_ak(tpm).der, rack.issue_ak(tpm).der
    tls = rack.issue_tls(tls_request(tpm), first).der
    more = rack.issue_tls(tls_request(tpm, dns=DNS[:1]), second, dns=DNS[:1]).der
    assert {tls, more} == set(resting_on(rack.home, [first]))
    assert (more,) == resting_on(rack.home, [second, tls])
    assert () == resting_on(rack.home, [other])
    assert () == resting_on(rack.home, [tls])
    revoke(rack.authority, [second, tls], reason="keyCompromise", since=NOW, now=NOW)
    assert (more,) == resting_on(rack.home, [second])


def test_two_tpms_are_not_one_host(rack: Ca, tpm: TlsSoftTpm) -> None:
    """A name is certified for another TPM once what has it was revoked, or has expired."""
    first = rack.issue_ak(tpm).der
    others = [TlsSoftTpm(certificate=EkCertificate(key=key).issue()) for key in ("second", "third")]
    with pytest.raises(Refused) as refused:
        rack.issue_ak(others[0])
    assert "enrolment.name" == refused_by(refused)
    revoke(rack.authority, [first], reason="cessationOfOperation", since=NOW, now=NOW)
    day = timedelta(days=1)
    request = ask(others[0], host="gpu-1")
    given, accepted = rack.answered(others[0], request), rack.accepted(request)
    assert ca.issue_ak(rack.authority, request, given, accepted=accepted, now=NOW, life=day).der
    with pytest.raises(Refused):
        rack.issue_ak(others[1], now=NOW + day)
    assert rack.issue_ak(others[1], now=NOW + day + timedelta(seconds=1)).der


def test_an_ak_is_certified_by_a_record_that_counts(rack: Ca, tmp_path: Path) -> None:
    """One signature is none, a record that was ended is none, and the certificate names its own."""
    erik, esme = Enroller("erik", tmp_path), Enroller("esme", tmp_path)
    half = erik.record(erik.challenge())
    whole = esme.record(esme.challenge(), onto=half)
    newer = replace(whole.predicate, epoch=2)
    following = decode_statement(EnrolmentRecord, signed(newer, "erik", "esme"))

    def issue(record: Statement[EnrolmentRecord], *known: Statement[EnrolmentRecord]) -> ca.Issued:
        documents = Documents(policies=(POLICY,), enrolments=known)
        situation = change(erik.at(timedelta(0)), documents=documents)
        return ca.issue_ak_of_record(rack.authority, record, situation=situation)

    issued = issue(whole, whole)
    assert ("enrolment", whole.digest) == (issued.vouched.source, issued.vouched.digest)
    assert issued.vouched == vouched_in(issued.der)
    for record, known, check in (
        (half, (half,), "enrolment.threshold"),
        (whole, (whole, following), "enrolment.epoch"),
    ):
        with pytest.raises(Refused) as refused:
            issue(record, *known)
        assert check == refused_by(refused)


def test_a_home_keeps_one_authority(rack: Ca) -> None:
    """Made again it is the same; another name is another home's."""
    again = ca.found(
        rack.home,
        rack.token,
        token_uri="pkcs11:token=ca",
        name="rack attestation authority",
        crl_url="http://crl.example.com/rack.crl",
        now=NOW,
    )
    assert rack.certificate == again
    with pytest.raises(Refused) as refused:
        ca.found(
            rack.home,
            rack.token,
            token_uri="pkcs11:token=ca",
            name="other",
            crl_url=None,
            now=NOW,
        )
    assert "home.taken" == refused_by(refused)


def test_a_home_without_an_authority_says_so(tmp_path: Path) -> None:
    """And says how to make one."""
    with pytest.raises(Incomplete, match="no attestation authority"):
        ca.settings_of(Home(tmp_path / "empty"))
