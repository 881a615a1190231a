"""Requests of an enrolled host whose owner runs what he likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from custody.errors import Refused
from custody.formats.case import sort_documents
from custody.formats.request import Request
from custody.ops.approve import review_requests
from tests.release.cast import Cast
from tests.release.conftest import fresh
from tests.release.expect import (
    refused,
    requoted,
)

LIES: dict[str, tuple[Callable[[Request], dict[str, object]], str]] = {
    "another manifest": (
        lambda r: {"terms": msgspec.structs.replace(r.terms, manifest="ab" * 32)},
        "request.manifest",
    ),
    "another policy": (
        lambda r: {"terms": msgspec.structs.replace(r.terms, policy="ab" * 32)},
        "request.policy",
    ),
    "another environment": (lambda _: {"environment": "ab" * 32}, "request.environment"),
    "a mode that is not allowed": (
        lambda r: {"terms": msgspec.structs.replace(r.terms, mode="sealed")},
        "request.mode",
    ),
    "the future": (
        lambda r: {"requested_at": r.requested_at + timedelta(hours=1)},
        "request.time",
    ),
    "another counter value": (
        lambda r: {"terms": msgspec.structs.replace(r.terms, counter=r.terms.counter + 1)},
        "attestation.V24",
    ),
    "another deadline": (
        lambda r: {"terms": msgspec.structs.replace(r.terms, deadline_ms=r.terms.deadline_ms - 1)},
        "attestation.V24",
    ),
    "a checkpoint that nobody asked for": (lambda _: {"checkpoint": b"x"}, "request.checkpoint"),
    "another host's name": (lambda _: {"host": "gpu-2"}, "enrolment.host"),
    "an unknown enrolment record": (lambda _: {"enrolment": "ab" * 32}, "request.vouched"),
    "an unknown golden set": (lambda _: {"golden": "ab" * 32}, "request.vouched"),
    "another H": (
        lambda r: {"key": msgspec.structs.replace(r.key, public=r.ak_public)},
        "attestation.V30",
    ),
    "another counter index": (
        lambda r: {"nv_public": r.nv_public[:3] + b"\x01" + r.nv_public[4:]},
        "attestation.V40",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_request_gets_no_approval(cast: Cast, name: str) -> None:
    """An enrolled host that owns its software cannot quote its way round the terms."""
    change, check = LIES[name]
    bundle = cast.seal()
    request = cast.request(bundle)
    lie = requoted(cast, request, **change(request.predicate))
    before = cast.home("sec1").memory()
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, lie, "sec1")
    assert check == caught.value.check
    assert before == cast.home("sec1").memory()


def test_memory_moves_only_by_approvals(cast: Cast) -> None:
    """Looking at a request, or refusing it, moves no boot count: a forgery locks no host out."""
    bundle = cast.seal()
    request = cast.request(bundle)
    before = cast.home("sec1").memory()
    terms = msgspec.structs.replace(request.predicate.terms, reset_count=2**31)
    lie = requoted(cast, request, terms=terms)
    review_requests(bundle, [lie], situation=cast.situation("sec1"))
    with pytest.raises(Refused):
        cast.approve(bundle, lie, "sec1")
    cast.deny(bundle, lie, "sec1")
    assert before == cast.home("sec1").memory()
    cast.approve(bundle, request, "sec1")
    (host,) = cast.home("sec1").memory().hosts
    assert request.predicate.terms.reset_count == host.reset_count


def test_a_key_is_good_for_one_request(cast: Cast) -> None:
    """An officer who has sealed to H once does not seal to it again for another request."""
    bundle = cast.seal()
    request = cast.request(bundle)
    cast.approve(bundle, request, "sec1")
    cast.approve(bundle, request, "sec1")
    again = requoted(cast, request, requested_at=request.predicate.requested_at - timedelta(1))
    with refused(cast, "attestation.V39"):
        cast.approve(bundle, again, "sec1")


def test_a_boot_that_went_back_is_seen(cast: Cast) -> None:
    """A request of an earlier boot than one an officer has seen is refused."""
    bundle = cast.seal()
    old = cast.request(bundle)
    cast.machine.reboot()
    cast.boot()
    cast.approve(bundle, cast.request(bundle), "sec1")
    with refused(cast, "attestation.V26"):
        cast.approve(bundle, old, "sec1")


def test_another_tpms_quote_is_refused(cast: Cast) -> None:
    """A request relayed to another TPM, in the same boot state, is not the enrolled host's."""
    from custody.keys.tpm import open_host
    from custody.keys.uri import TpmUri
    from custody.lab import bootlog

    bundle = cast.seal()
    request = cast.request(bundle)
    with fresh(cast.machine.vendor) as other:
        bootlog.extend(other, bootlog.record(bootlog.BootState()))
        own, cast.tpm = cast.tpm, open_host(TpmUri(tcti=other.tcti))
        relayed = requoted(cast, request)
        foreign = requoted(cast, request, ak_public=cast.tpm.ak_public())
        cast.tpm = own
    with refused(cast, "attestation.V20"):
        cast.approve(bundle, relayed, "sec1")
    with refused(cast, "attestation.V10"):
        cast.approve(bundle, foreign, "sec1")


def test_a_record_signed_by_one_enroller_is_none(cast: Cast) -> None:
    """One enroller alone admits no host and no boot state."""
    bundle = cast.seal()
    request = cast.request(bundle)
    documents = cast.documents
    record, golden = documents.enrolments[0].predicate, documents.golden_sets[0].predicate
    one = sort_documents([("e.dsse", cast.sign(record, "enr1"))])
    cast.documents = replace(documents, enrolments=one.enrolments)
    with refused(cast, "enrolment.threshold"):
        cast.approve(bundle, request, "sec1")
    with refused(cast, "host.enrolled"):
        cast.request(bundle)
    one = sort_documents([("g.dsse", cast.sign(golden, "enr1", "sec1"))])
    cast.documents = replace(documents, golden_sets=one.golden_sets)
    with refused(cast, "golden.threshold"):
        cast.approve(bundle, request, "sec1")
