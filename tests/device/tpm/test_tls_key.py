"""A host's TLS key: in the TPM for good, certified by the AK."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.signature import public_bytes
from custody.errors import Refused
from custody.formats import evidence
from custody.formats.evidence import Certified
from custody.keys.hostapi import HostTpm
from custody.keys.tpm import open_host
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm
from custody.keys.tpm_tlskey import TLS_HANDLE
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import loaded


def test_the_tls_key_signs_and_stays(machine: Swtpm, host: HostTpm) -> None:
    """It is the same after a reboot, signs, and leaves nothing loaded behind."""
    key = host.tls_key()
    key.public_key().verify(
        key.sign(b"hello", ec.ECDSA(hashes.SHA256())), b"hello", ec.ECDSA(hashes.SHA256())
    )
    assert () == loaded(machine.tcti)
    with pytest.raises(Refused, match="does not leave its TPM"):
        key.private_numbers()
    machine.reboot()
    again = TpmHost(machine.tcti).tls_key()
    assert public_bytes(key.public_key()) == public_bytes(again.public_key())


def test_a_certified_key_is_what_it_says(machine: Swtpm, host: HostTpm) -> None:
    """The AK certifies this key's Name, over what it was asked to."""
    qualifying = os.urandom(32)
    certified = host.certify_tls_key(qualifying)
    evidence.verify_attest(host.ak_public(), *certified.attested)
    attest = evidence.parse_attest(certified.attested.attest)
    assert isinstance(attest.body, Certified)
    assert qualifying == attest.extra_data
    assert evidence.name(certified.public) == attest.body.object_name
    public = evidence.parse_public(certified.public)
    assert evidence.matches(public, evidence.TLS_KEY_TEMPLATE)
    assert public_bytes(host.tls_key().public_key()) == evidence.spki(certified.public)
    packed = evidence.pack_quote(*certified.attested)
    assert tuple(certified.attested) == tuple(evidence.unpack_key_certified(packed))
    assert () == loaded(machine.tcti)


def test_an_owner_authorisation_is_used(machine: Swtpm, tmp_path: Path) -> None:
    """With the owner's authorisation set, only a host that has it makes a TLS key."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("set the owner's authorisation") as link:
        link.esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with pytest.raises(Refused):
        TpmHost(machine.tcti).tls_key()
    source = tmp_path / "owner"
    source.write_bytes(b"owner\n")
    source.chmod(0o600)
    host = open_host(TpmUri(tcti=machine.tcti, pin_source=str(source)))
    assert host.certify_tls_key(bytes(32)).public


def test_another_key_in_the_tls_keys_place_is_refused(machine: Swtpm, host: HostTpm) -> None:
    """A key that may do more than sign for TLS is not certified as one."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("be tricked") as link:
        made = link.keep(link.create_primary(ESYS_TR.OWNER, evidence.AK_TEMPLATE.pack()))
        link.esys.evict_control(ESYS_TR.OWNER, made, TLS_HANDLE)
    with pytest.raises(Refused) as refused:
        host.certify_tls_key(bytes(32))
    assert "tpm.tls-key" == refused.value.check
