"""A host that enrols at its enroller's server.  formats/enrolling.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import decode_statement
from custody.ops.enroll import EnrollingTpm, answer, ask


class EnrollersServer(Protocol):
    """What answers in an enroller's name: `transports.enrolment_client.EnrolmentClient`."""

    def enrol(self, request: EnrolmentRequest) -> Challenge:
        """Show a host; return a challenge."""
        ...

    def attach(self, request: Digest, record: bytes) -> None:
        """Give what others have signed."""
        ...

    def answer(self, answer: Answer) -> bytes | None:
        """Answer; return the record, None if it waits for a person."""
        ...


def enroll_at(
    server: EnrollersServer,
    tpm: EnrollingTpm,
    *,
    host: str,
    intermediates: Sequence[bytes] = (),
    onto: bytes | None = None,
) -> tuple[Digest, bytes | None]:
    """Go through the whole ceremony; returns the request's digest, and the record if it is signed.

    ``onto`` is the record (``.dsse``) that other enrollers have signed.
    """
    request = ask(tpm, host=host, intermediates=intermediates)
    challenge = server.enrol(request)
    if onto is not None:
        server.attach(request.digest(), onto)
    record = server.answer(answer(tpm, challenge))
    return request.digest(), record if record is None else check_own(record, tpm, host=host)


def check_own(record: bytes, tpm: EnrollingTpm, *, host: str) -> bytes:
    """Return a record that is of this machine; another is `Refused`.

    Whether it counts is for those who judge requests.
    """
    said = decode_statement(EnrolmentRecord, record).predicate
    mine = (host, tpm.ak_public(), tpm.ek_certificate())
    if (said.host, said.ak_public, said.ek_certificate) != mine:
        raise Refused("the server gave the record of another machine", check="enrolment.record")
    return record
