from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace as change

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, key_id
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.evidence import RH_NULL, Attributes
from custody.ops.enroll import ask, ek_digest
from custody.rules.endorsement import (
    NO_LISTS,
    VendorLists,
    check_attestation_key,
    check_endorsement,
    firmware_of,
)
from custody.rules.verdicts import Verdict, passed
from tests.unit.machine import EkCertificate, SoftTpm, Vendor, usage
from tests.unit.people import NOW


def request(certificate: EkCertificate | None = None, **more: object) -> EnrolmentRequest:
    """Make a host's request."""
    issued = (certificate or EkCertificate()).issue()
    return ask(replace(SoftTpm(certificate=issued), **more), host="gpu-1")  # type: ignore[arg-type]


def judge(
    asked: EnrolmentRequest,
    *,
    inventory: frozenset[Digest] | None = None,
    root: bytes = b"",
    lists: VendorLists = NO_LISTS,
) -> tuple[Verdict, ...]:
    """Judge an EK by a policy with one vendor root, and an inventory that lists it."""
    listed = frozenset({ek_digest(asked)}) if inventory is None else inventory
    return check_endorsement(
        asked, roots=(root or Vendor().root,), lists=lists, inventory=listed, now=NOW
    )


def failed(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Return which checks failed."""
    return [verdict.check for verdict in verdicts if verdict.outcome == "fail"]


def test_a_vendors_ek_on_the_inventory_is_good() -> None:
    """The good certificate passes every check, root above issuer above EK."""
    assert passed(judge(request()))


def test_the_issuer_itself_may_be_pinned() -> None:
    """A policy may pin the vendor's issuing authority instead of its root."""
    assert passed(judge(request(), root=Vendor().issuer))


@pytest.mark.parametrize(
    ("certificate", "check"),
    [
        (EkCertificate(purpose=None), "endorsement.purpose"),
        (EkCertificate(purpose=ExtendedKeyUsageOID.SERVER_AUTH), "endorsement.purpose"),
        (EkCertificate(identity=()), "endorsement.identity"),
        (EkCertificate(identity=("2.23.133.2.1", "2.23.133.2.3")), "endorsement.identity"),
        (EkCertificate(ca=True), "endorsement.ca"),
        (EkCertificate(ca=None), "endorsement.ca"),
        (EkCertificate(usage=None), "endorsement.usage"),
        (EkCertificate(usage=usage(signs=True)), "endorsement.usage"),
        (EkCertificate(vendor=Vendor("stranger")), "endorsement.chain"),
        (EkCertificate(not_before=NOW + timedelta(days=1)), "endorsement.chain"),
        (EkCertificate(not_after=NOW - timedelta(days=1)), "endorsement.chain"),
    ],
)
def test_what_is_no_ek_certificate_of_the_vendor_is_refused(
    certificate: EkCertificate, check: str
) -> None:
    """Each rule of the EK profile is a check of its own."""
    assert check in failed(judge(request(certificate)))


def test_an_ek_off_the_inventory_is_refused() -> None:
    """A vendor's chain alone is any TPM in the world."""
    assert ["endorsement.inventory"] == failed(judge(request(), inventory=frozenset()))


def test_a_strangers_issuer_does_not_help() -> None:
    """Sending one's own issuer beside the certificate gives no path from the policy's root."""
    stranger = Vendor("stranger")
    asked = request(EkCertificate(vendor=stranger), vendor=stranger)
    assert ["endorsement.chain"] == failed(judge(asked))


def test_an_expired_root_is_no_root() -> None:
    """RFC 5280 leaves the anchor's dates to its user, who judges them."""
    later = NOW + timedelta(days=3001)
    asked = request()
    listed = {ek_digest(asked)}
    verdicts = check_endorsement(
        asked, roots=(Vendor().root,), lists=NO_LISTS, inventory=listed, now=later
    )
    assert ["endorsement.chain"] == failed(verdicts)


def test_garbage_is_a_failed_check() -> None:
    """A certificate that does not parse fails, whatever else the request holds."""
    asked = change(request(), ek_certificate=b"\x30\x03\x02\x01\x01")
    assert ["endorsement.certificate"] == failed(judge(asked, inventory=frozenset()))


def test_the_ak_and_its_quote_are_good() -> None:
    """A restricted AK that quoted this host, EK and AK passes, and its firmware is read."""
    asked = request()
    assert passed(check_attestation_key(asked))
    assert "2019102300163636" == firmware_of(asked)


@pytest.mark.parametrize(
    ("tpm", "check"),
    [
        (
            {
                "template": replace(
                    SoftTpm().template,
                    attributes=SoftTpm().template.attributes & ~Attributes.RESTRICTED,
                )
            },
            "enrolment.ak",
        ),
        (
            {
                "template": replace(
                    SoftTpm().template,
                    attributes=SoftTpm().template.attributes & ~Attributes.FIXED_TPM,
                )
            },
            "enrolment.ak",
        ),
        ({"hierarchy": RH_NULL}, "enrolment.signer"),
    ],
)
def test_an_ak_of_another_kind_is_refused(tpm: dict[str, object], check: str) -> None:
    """An unrestricted key could sign attestations its owner invents; another hierarchy dies."""
    assert [check] == failed(check_attestation_key(request(None, **tpm)))


@pytest.mark.parametrize("field", ["host", "ek_certificate"])
def test_a_quote_over_another_enrolment_is_refused(field: str) -> None:
    """A quote cannot be carried to another host name or EK."""
    other = {"host": "gpu-2", "ek_certificate": EkCertificate(key="other").issue()}
    asked = change(request(), **{field: other[field]})
    assert ["enrolment.bound"] == failed(check_attestation_key(asked))


def test_a_quote_by_another_key_is_refused() -> None:
    """The AK that is offered must be the one that signed."""
    asked = change(request(), ak_public=SoftTpm().ak_public())
    assert "enrolment.quote" in failed(check_attestation_key(asked))


def test_a_quote_that_does_not_parse_is_refused() -> None:
    """Bytes that are no quote fail the check, they do not stop the judge."""
    assert ["enrolment.quote"] == failed(check_attestation_key(change(request(), quote=b"\0\0")))


def lists_of(*crls: bytes, demanded: bool = True, floor: int = 0) -> VendorLists:
    """Return a vendor's lists, by a policy that demands them or does not."""
    root = key_id(spki_of(Vendor().root))
    return VendorLists(
        crls=crls,
        demanded=(root,) if demanded else (),
        floor={key_id(spki_of(Vendor().issuer)): floor},
        max_age=timedelta(days=8),
    )


def revocation(asked: EnrolmentRequest, lists: VendorLists) -> list[str]:
    """Return what fails when an EK is judged with these lists."""
    return failed(judge(asked, lists=lists))


def test_a_vendors_lists_are_judged_as_peoples_are() -> None:
    """With a fresh list of root and issuer an EK is good; what the vendors' lists are is told."""
    asked, vendor = request(), Vendor()
    verdicts = judge(asked, lists=lists_of(vendor.crl(by="root"), vendor.crl(5)))
    assert passed(verdicts)
    found = [(v.subject, v.reason) for v in verdicts if v.check == "crl.found"]
    assert [
        ("issuer of the EK certificate", "revocation list 1"),
        ("EK certificate", "revocation list 5"),
    ] == found


def test_a_revoked_ek_is_refused_by_its_id() -> None:
    """Revoked by its vendor, demanded or not, an EK is enrolled no more."""
    asked, vendor = request(), Vendor()
    revoked = vendor.crl(5, asked.ek_certificate)
    both = (vendor.crl(by="root"), revoked)
    assert ["endorsement.revoked"] == revocation(asked, lists_of(*both))
    assert ["endorsement.revoked"] == revocation(asked, lists_of(revoked, demanded=False))


def test_a_revocation_to_come_is_told_and_is_none_yet() -> None:
    """A vendor's list may date a revocation ahead, as an authority of people's may."""
    asked, vendor = request(), Vendor()
    ahead = vendor.crl(5, asked.ek_certificate, at=timedelta(days=1))
    assert [] == revocation(asked, lists_of(vendor.crl(by="root"), ahead))


@pytest.mark.parametrize(
    ("issued", "lasts"),
    [(timedelta(days=-9), timedelta(days=30)), (timedelta(days=-3), timedelta(days=2))],
    ids=["older than the policy's limit", "due again"],
)
def test_a_stale_list_is_refused_where_lists_are_demanded(
    issued: timedelta, lasts: timedelta
) -> None:
    """An old list proves nothing about today; where none is demanded it stops nobody."""
    asked, vendor = request(), Vendor()
    stale = vendor.crl(5, issued=issued, lasts=lasts)
    assert ["crl.fresh"] == revocation(asked, lists_of(vendor.crl(by="root"), stale))
    assert [] == revocation(asked, lists_of(stale, demanded=False))


def test_a_list_older_than_remembered_is_refused() -> None:
    """Nobody can offer the vendor's list of yesterday."""
    asked, vendor = request(), Vendor()
    both = (vendor.crl(by="root"), vendor.crl(5))
    assert [] == revocation(asked, lists_of(*both, floor=5))
    assert ["crl.number"] == revocation(asked, lists_of(*both, floor=6))


def test_lists_of_strangers_and_of_other_hashes_do_not_count() -> None:
    """A list counts if the issuer's own key signed it, by SHA-2, in its own name."""
    asked, vendor = request(), Vendor()
    root = vendor.crl(by="root")
    assert ["crl.found"] == revocation(asked, lists_of(root, Vendor("stranger").crl(5)))
    assert ["crl.found"] == revocation(asked, lists_of(root, root))
