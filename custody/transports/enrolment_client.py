"""Enrolment over HTTPS, as a host asks for it.  Format: formats/enrolling.md.

The server is known by an authority or by its own key, each told by a person.  The certificates of
the system are never asked: anybody's authority could then pass for the enroller.
"""

from __future__ import annotations

import hmac
import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, KeyId, Record, decode, encode, key_id
from custody.errors import CustodyError, Incomplete, Malformed, Refused, Unavailable
from custody.formats.enrolling import Refusal, Waiting
from custody.formats.enrolment import Answer, Challenge, EnrolmentRequest

R = TypeVar("R", bound=Record)

_TIMEOUT_SECONDS = 30
_MAX_REPLY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTrust:
    """How the server is known: exactly one of a file of authorities and its own key's digest."""

    ca_file: Path | None = None
    key: KeyId | None = None

    def __post_init__(self) -> None:
        if (self.ca_file is None) == (self.key is None):
            raise ValueError("a server is known by its authority or by its key")

    def context(self) -> ssl.SSLContext:
        """Return TLS 1.3 that trusts this authority, or nobody."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.ca_file is None:
            # Its key is compared before anything is said, instead.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        try:
            context.load_verify_locations(self.ca_file)
        except (OSError, ValueError) as error:
            raise Malformed("not certificates of authorities (PEM)", where=str(self.ca_file)) from (
                error
            )
        return context


class _Connection(http.client.HTTPSConnection):
    def __init__(self, place: SplitResult, trust: ServerTrust) -> None:
        super().__init__(
            place.hostname or "", place.port, timeout=_TIMEOUT_SECONDS, context=trust.context()
        )
        self._key = trust.key

    def connect(self) -> None:
        super().connect()
        if self._key is None:
            return
        shown = self.sock.getpeercert(binary_form=True)
        if not hmac.compare_digest(key_id(spki_of(shown)), self._key):
            self.close()
            raise Refused(
                f"the server has another key: {key_id(spki_of(shown))}",
                check="server.key",
                hint="ask the enroller; somebody else may be answering in his place",
            )


class EnrolmentClient:
    """An enroller's server.  Nothing it says is believed before it is checked."""

    def __init__(self, url: str, trust: ServerTrust) -> None:
        """Ask the server at ``url`` (https)."""
        try:
            self._place = urlsplit(url)
            named = self._place.hostname and self._place.port != 0
        except ValueError as error:
            raise Malformed("not an https: address", where=url[:80]) from error
        further = self._place.query or self._place.fragment or self._place.username
        if self._place.scheme != "https" or not named or further:
            raise Malformed("not an https: address", where=url[:80])
        self._url = url.rstrip("/")
        self._trust = trust

    def __repr__(self) -> str:
        return f"EnrolmentClient({self._url!r})"

    def enrol(self, request: EnrolmentRequest) -> Challenge:
        """Show a host; return the enroller's challenge for it."""
        _, body = self._ask("POST", "", encode(request), expected=(201,))
        challenge = self._read(Challenge, body)
        if challenge.request != request.digest():
            raise Malformed("the server challenges another host", where=self._url)
        return challenge

    def attach(self, request: Digest, record: bytes) -> None:
        """Give the record that other enrollers have signed, before the answer."""
        self._ask("PUT", f"/{request}/record", record, expected=(204,))

    def answer(self, answer: Answer) -> bytes | None:
        """Answer the challenge; return the signed record, None if it waits for a person."""
        return self._record(
            *self._ask("POST", f"/{answer.request}/answer", encode(answer), expected=(200, 202))
        )

    def fetch(self, request: Digest) -> bytes | None:
        """Return the signed record, None while it waits for a person."""
        return self._record(*self._ask("GET", f"/{request}/record", None, expected=(200, 202)))

    def _record(self, status: int, body: bytes) -> bytes | None:
        if status == 200:
            return body
        self._read(Waiting, body)
        return None

    def _read(self, kind: type[R], body: bytes) -> R:
        try:
            return decode(kind, body)
        except CustodyError as error:
            error.where = self._url
            raise

    def _ask(
        self, method: str, path: str, body: bytes | None, *, expected: tuple[int, ...]
    ) -> tuple[int, bytes]:
        connection = _Connection(self._place, self._trust)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            target = f"{self._place.path.rstrip('/')}/v1/enrolments{path}"
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            data = reply.read(_MAX_REPLY_BYTES + 1)
        except ssl.SSLCertVerificationError as error:
            raise Refused(
                f"the server is not who it should be: {error.verify_message}",
                check="server.certificate",
                where=self._url,
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"does not answer ({type(error).__name__})", where=self._url) from (
                error
            )
        except CustodyError as error:
            error.where = error.where or self._url
            raise
        finally:
            connection.close()
        if len(data) > _MAX_REPLY_BYTES:
            raise Malformed(f"larger than the {_MAX_REPLY_BYTES} bytes allowed", where=self._url)
        if reply.status not in expected:
            raise self._refused(reply.status, data)
        return reply.status, data

    def _refused(self, status: int, body: bytes) -> CustodyError:
        try:
            said = decode(Refusal, body)
        except Malformed:
            return Unavailable(f"the server answers {status}", where=self._url)
        match status:
            case 400:
                return Malformed(said.reason, where=self._url)
            case 409:
                return Incomplete(said.reason, where=self._url, hint=said.hint)
            case 429 | 503:
                return Unavailable(said.reason, where=self._url, hint=said.hint)
            case _:
                return Refused(said.reason, check=said.check, where=self._url, hint=said.hint)
