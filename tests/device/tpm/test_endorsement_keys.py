"""EKs of every template, each with its certificate where the TCG's profile has it.

swtpm brings L-1 and H-3.  The others are made here from the same seed, certified by a vendor of the
test, and put where a vendor would: the TPM's commands are real, the certificate's vendor is not.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ObjectIdentifier

from custody.errors import Malformed, Refused
from custody.formats import evidence
from custody.formats.evidence import Alg, NvAttributes, NvPublic
from custody.formats.tpmek import EK_TEMPLATES, H_1, H_2, L_1, L_2, EkTemplate
from custody.keys import tpm_session
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm
from custody.lab.swtpm import Swtpm
from custody.ops.enroll import ask as ask_to_enrol
from custody.ops.enroll import ek_digest
from custody.rules.endorsement import NO_LISTS, check_attestation_key, check_endorsement
from custody.rules.verdicts import passed
from tests.device.tpm.asking import loaded
from tests.unit.machine import EK_PURPOSE, IDENTITY, Vendor, common_name, rsa_key, usage
from tests.unit.people import NOW

EVERY = pytest.mark.parametrize("template", EK_TEMPLATES, ids=lambda template: template.label)
#: Attributes of an NV index that its owner writes and anybody reads.
READABLE = (
    NvAttributes.OWNER_WRITE | NvAttributes.OWNER_READ | NvAttributes.AUTH_READ | NvAttributes.NO_DA
)


def made_by(machine: Swtpm, template: EkTemplate, creation: bytes = b"") -> bytes:
    """Have the TPM make its EK by a template; return the public area."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("make an EK") as link:
        made = link.create_primary(ESYS_TR.ENDORSEMENT, creation or template.creation)
        return link.public(link.keep(made))


def certificate(spki: bytes) -> bytes:
    """Certify an EK as a vendor does."""
    names = [x509.NameAttribute(ObjectIdentifier(oid), "id:1") for oid in IDENTITY]
    key = load_der_public_key(spki)
    is_rsa = hasattr(key, "public_numbers") and hasattr(key.public_numbers(), "n")
    allowed = usage(encipherment=True) if is_rsa else _agreement()
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name("unknown"))
        .issuer_name(common_name("vendor issuer"))
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(2)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=3000))
        .add_extension(x509.ExtendedKeyUsage([EK_PURPOSE]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(names))]), critical=True
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(allowed, critical=True)
    )
    return builder.sign(rsa_key("vendor issuer"), hashes.SHA256()).public_bytes(Encoding.DER)


def _agreement() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def store(machine: Swtpm, index: int, data: bytes) -> None:
    """Write an NV index, as a vendor has."""
    from tpm2_pytss.constants import ESYS_TR
    from tpm2_pytss.types import TPM2B_NV_PUBLIC

    from custody.formats.tpmwire import sized
    from custody.keys.tpm_session import unmarshal

    public = NvPublic(
        index=index,
        name_alg=Alg.SHA256,
        attributes=READABLE,
        auth_policy=b"",
        data_bytes=len(data),
    )
    with Tpm(machine.tcti).connect("store a certificate") as link:
        link.esys.nv_define_space(b"", unmarshal(TPM2B_NV_PUBLIC, sized(public.pack())))
        handle = link.esys.tr_from_tpmpublic(index)
        for at in range(0, len(data), 1024):
            link.esys.nv_write(handle, data[at : at + 1024], at, auth_handle=ESYS_TR.OWNER)


@EVERY
def test_the_public_area_is_rebuilt_from_the_key_alone(
    machine: Swtpm, template: EkTemplate
) -> None:
    """What a TPM makes by a template is, byte for byte, what certificate and template give."""
    public = made_by(machine, template)
    publics = evidence.ek_publics(evidence.spki(public))
    rebuilt = {known.label: area for known, area in publics}
    assert public == rebuilt[template.label]


@EVERY
def test_a_challenge_opens_with_an_ek_of_every_template(
    machine: Swtpm, host: HostTpm, template: EkTemplate
) -> None:
    """Credential, its policy session and sessions salted to the EK work, and nothing stays loaded.

    The enroller knows the certificate's key only, and not which of two templates the TPM used.
    """
    spki = evidence.spki(made_by(machine, template))
    pinned = TpmHost(machine.tcti, ek_spki=spki)
    secret = os.urandom(32)
    ek = evidence.ek_public(spki)
    blob, encrypted = make_credential(ek, evidence.name(host.ak_public()), secret)
    assert secret == pinned.activate(blob, encrypted)
    assert pinned.create_host_key(bytes(32), (0, 7))
    other, encrypted = make_credential(ek, b"\x00\x0b" + bytes(32), secret)
    with pytest.raises(Refused) as refused:
        pinned.activate(other, encrypted)
    assert "tpm.activate" == refused.value.check
    assert loaded(machine.tcti) == ()


@pytest.mark.parametrize("template", [L_2, H_1, H_2], ids=lambda template: template.label)
def test_a_host_enrols_with_the_certificate_of_any_range(
    machine: Swtpm, template: EkTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate in its template's NV index is found, judged, and its EK used for sessions."""
    spki = evidence.spki(made_by(machine, template))
    store(machine, template.certificate, certificate(spki))
    monkeypatch.setattr(tpm_session, "EK_TEMPLATES", (template,))
    host = TpmHost(machine.tcti)
    asked = ask_to_enrol(host, host="gpu-1", intermediates=[Vendor().issuer])
    verdicts = check_endorsement(
        asked, roots=(Vendor().root,), lists=NO_LISTS, inventory={ek_digest(asked)}, now=NOW
    )
    assert passed(verdicts)
    assert passed(check_attestation_key(asked))
    with Tpm(machine.tcti).connect("salt a session") as link:
        assert link.salted_session()
        assert template is link.endorsement_key.template


@pytest.mark.parametrize("template", [L_1, L_2], ids=lambda template: template.label)
def test_an_ek_with_a_vendors_nonce_is_made_again(machine: Swtpm, template: EkTemplate) -> None:
    """Where a vendor left a nonce, it goes into the derivation; the certificate still decides."""
    nonce = os.urandom(20)
    public = made_by(machine, template, template.creation_with(nonce))
    assert public != made_by(machine, template)
    spki = evidence.spki(public)
    with pytest.raises(Refused) as refused:
        TpmHost(machine.tcti, ek_spki=spki).create_host_key(bytes(32), (0,))
    assert "tpm.ek" == refused.value.check
    assert template.nonce is not None
    store(machine, template.nonce, nonce)
    assert TpmHost(machine.tcti, ek_spki=spki).create_host_key(bytes(32), (0,))


def test_a_nonce_that_does_not_fit_is_malformed(machine: Swtpm) -> None:
    """A nonce longer than the key is no vendor's."""
    assert L_2.nonce is not None
    store(machine, L_2.nonce, bytes(33))
    spki = evidence.spki(made_by(machine, L_2))
    with pytest.raises(Malformed, match="nonce"):
        TpmHost(machine.tcti, ek_spki=spki).create_host_key(bytes(32), (0,))


def test_an_ek_persisted_by_either_template_is_used(machine: Swtpm) -> None:
    """An RSA EK by H-1 at its own handle is taken, though L-1 fits its key as well."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("persist an EK") as link:
        made = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, H_1.creation))
        spki = evidence.spki(link.public(made))
        link.esys.evict_control(ESYS_TR.OWNER, made, H_1.persistent)
    with Tpm(machine.tcti, ek_spki=spki).connect("salt a session") as link:
        assert H_1 is link.endorsement_key.template
        assert link.salted_session()
