"""Every fault put into rules/tls_request is noticed, or is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.certificates import make_csr
from custody.formats.evidence import RH_NULL, TLS_KEY_TEMPLATE, Attributes
from custody.formats.hostcertificate import TlsRequest
from custody.keys.hostapi import CertifiedKey
from custody.ops.tls import ask_for_file_key, ask_for_tpm_key
from custody.rules import tls_request
from custody.rules.tls_request import REQUEST_LIFE, check_tls_request
from custody.rules.verdicts import passed
from tests.unit.machine import EkCertificate
from tests.unit.ops.test_attestation_ca import TlsSoftTpm
from tests.unit.people import NOW
from tests.unit.rules.mutants import Laboratory, Look

DNS = ("gpu-1.example.com",)
SECOND, AHEAD = timedelta(seconds=1), timedelta(minutes=5)
TPM = TlsSoftTpm()
FILE_KEY = ec.generate_private_key(ec.SECP256R1())


def _ask(tpm: TlsSoftTpm = TPM, *, host: str = "gpu-1", now: datetime = NOW) -> TlsRequest:
    return ask_for_tpm_key(tpm, host=host, dns=DNS, now=now)


def _file(tpm: TlsSoftTpm = TPM, *, name: str = "gpu-1") -> TlsRequest:
    csr = make_csr(FILE_KEY, name=name)
    return ask_for_file_key(tpm, host="gpu-1", dns=DNS, csr=csr, now=NOW)


def _elsewhere() -> TlsSoftTpm:
    return TlsSoftTpm(certificate=TPM.certificate, key=TPM.key)


def _other_name() -> TlsRequest:
    wanted = _elsewhere()
    wanted.certify_tls_key = lambda qualifying: CertifiedKey(  # type: ignore[method-assign]
        wanted.tls_public(), TPM.certify_tls_key(qualifying).attested
    )
    return _ask(wanted)


def _other_csr() -> TlsRequest:
    wanted = _elsewhere()
    wanted.tls_key = lambda: FILE_KEY  # type: ignore[method-assign]
    return _ask(wanted)


def _loose() -> TlsRequest:
    loose = TLS_KEY_TEMPLATE.attributes & ~Attributes.FIXED_TPM
    tpm = _elsewhere()
    tpm.tls_template = tpm.tls_template.__class__(
        name_alg=TLS_KEY_TEMPLATE.name_alg,
        attributes=loose,
        signing_hash=TLS_KEY_TEMPLATE.signing_hash,
        curve=TLS_KEY_TEMPLATE.curve,
    )
    return _ask(tpm)


def _outside(make: Callable[[TlsSoftTpm], TlsRequest]) -> TlsRequest:
    return make(TlsSoftTpm(certificate=TPM.certificate, key=TPM.key, hierarchy=RH_NULL))


def cases() -> Iterator[TlsRequest]:
    """Give requests, most of them wrong in one way."""
    good, file = _ask(), _file()
    other = TlsSoftTpm(certificate=EkCertificate(key="other").issue())
    yield from (good, file, _ask(other), _file(other), _ask(host="gpu-2"), _file(name="gpu-2"))
    yield from (_other_name(), _other_csr(), _loose(), _outside(_ask), _outside(_file))
    yield from (replace(good, proof=file.proof), replace(file, proof=good.proof))
    yield from (replace(good, dns=("gpu-2",)), replace(file, dns=("gpu-2",)))
    yield from (replace(good, csr=b"junk"), replace(good, key_public=b"junk"))
    yield from (replace(good, proof=b"junk"), replace(file, proof=b"junk"))
    for late in (REQUEST_LIFE, REQUEST_LIFE + SECOND, -AHEAD, -AHEAD - SECOND):
        yield _ask(now=NOW - late)


def _look(case: TlsRequest) -> Look:
    def look(names: Mapping[str, Any]) -> object:
        check = names["check_tls_request"]
        return check(case, ak_public=TPM.ak_public(), host="gpu-1", now=NOW)

    return look


def test_what_is_good_is_good() -> None:
    """A key in the TPM, and one in a file, at any time that is not too old or ahead."""
    good = (_ask(), _file(), _ask(now=NOW - REQUEST_LIFE), _ask(now=NOW + AHEAD))
    for request in good:
        verdicts = check_tls_request(request, ak_public=TPM.ak_public(), host="gpu-1", now=NOW)
        assert passed(verdicts)


def test_no_fault_goes_unnoticed() -> None:
    """Of all mutants of the rule none survives."""
    laboratory = Laboratory(tls_request)
    assert 20 < len(list(laboratory.mutants()))
    survivors = laboratory.survivors([_look(case) for case in cases()])
    assert [] == [mutant.name for mutant in survivors]
