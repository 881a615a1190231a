"""What somebody tries who sits between a host and its TPM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from custody.crypto.certificates import spki_of
from custody.encoding import key_id
from custody.errors import Refused
from custody.formats.case import sort_documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.evidence import ek_public
from custody.keys import tpm_session
from custody.keys.tpm import open_host
from custody.keys.tpm_host import TpmHost
from custody.keys.uri import TpmUri
from custody.ops.kept import forget, prune
from custody.ops.open import unlocked
from custody.ops.receipts import give_up
from tests.device.tpm.relay import bus
from tests.release.cast import NOW, Cast
from tests.release.conftest import fresh
from tests.release.expect import QUORUM, refused


@pytest.fixture
def stranger(cast: Cast) -> bytes:
    """Give the EK certificate of another TPM of the same vendor."""
    with fresh(cast.machine.vendor) as machine:
        return open_host(TpmUri(tcti=machine.tcti)).ek_certificate()


def test_secrets_are_salted_to_the_enrolled_key(
    cast: Cast, stranger: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever certificate the bus shows, every session is salted to the EK that was enrolled."""
    bundle = cast.seal()
    (record,) = cast.documents.enrolments
    enrolled = ek_public(spki_of(record.predicate.ek_certificate))
    salted: list[bytes] = []
    real = tpm_session.Connection.salted_session

    def watched(link: tpm_session.Connection, **how: Any) -> Any:
        assert link.endorsement_key is not None
        salted.append(link.endorsement_key.public)
        return real(link, **how)

    monkeypatch.setattr(tpm_session, "read_ek_certificate", lambda _link: stranger)
    monkeypatch.setattr(tpm_session.Connection, "salted_session", watched)
    cast.tpm = open_host(TpmUri(tcti=cast.machine.tcti))
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    asked = len(salted)
    entry = cast.place.ledger.find(request.digest)
    assert asked
    assert {enrolled} == set(salted)
    with unlocked(
        bundle, request, entry, situation=cast.situation("host", *answers), tpm=cast.tpm
    ) as key:
        assert 32 == len(key.cek)
    assert len(salted) > asked
    assert {enrolled} == set(salted)


def of_another(cast: Cast, certificate: bytes, **changes: object) -> Statement[EnrolmentRecord]:
    """Have the enrollers vouch for this host's AK beside another TPM's EK."""
    (record,) = cast.documents.enrolments
    changed = msgspec.structs.replace(record.predicate, ek_certificate=certificate, **changes)
    found = sort_documents([("enrolment.dsse", cast.sign(changed, "enr1", "enr2"))])
    return found.enrolments[0]


def test_a_host_speaks_to_the_enrolled_tpm_only(cast: Cast, stranger: bytes) -> None:
    """A host whose record names another TPM's EK sends its own TPM nothing."""
    bundle = cast.seal()
    another = of_another(cast, stranger, ek_spki=key_id(spki_of(stranger)))
    torn = of_another(cast, stranger)
    for lie, check in ((another, "tpm.ek"), (torn, "attestation.V14")):
        cast.documents = replace(cast.documents, enrolments=(lie,))
        with refused(cast, check):
            cast.request(bundle)


def test_another_tpm_on_the_bus_burns_and_forgets_nothing(cast: Cast) -> None:
    """A TPM swapped in shows no use of the owner's password, and cannot answer that it was done."""
    cast.next_policy(modes=("once", "sealed"))
    bundle = cast.seal()
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / "first")
    (kept,) = cast.place.keys.all()
    asked = cast.request(cast.seal("other"))
    entry = cast.place.ledger.find(asked.digest)
    with fresh(cast.machine.vendor) as machine, bus(machine) as relay:
        swapped = TpmHost(relay.tcti, owner_auth=b"the owner's password")
        for attempt, check in (
            (lambda: forget(kept, swapped, cast.place.keys), "retained.tpm"),
            (lambda: swapped.salted_to(kept.endorsement_key).forget_retained(kept.key), "tpm.ek"),
            (lambda: give_up(entry, swapped, cast.place, now=NOW), "tpm.ek"),
        ):
            with pytest.raises(Refused) as caught:
                attempt()
            assert check == caught.value.check
        assert () == prune(swapped, cast.place.keys)
        # What asks for the owner's word (part 3): EvictControl, NV_DefineSpace, and NV_Increment.
        for command in ("00000120", "0000012a", "00000134"):
            assert bytes.fromhex(command) not in relay.traffic
    assert (kept,) == cast.place.keys.all()
    assert entry == cast.place.ledger.find(asked.digest)
    assert kept.key.counter < forget(kept, cast.tpm, cast.place.keys)
    give_up(entry, cast.tpm, cast.place, now=NOW)
    assert () == cast.place.ledger.all()
