"""Enrolment over HTTPS, as an enroller serves it.  Format: formats/enrolling.md.

Whoever reaches the port may ask, so what he can cost is bounded before anything he sends is
believed: connections at a time and for how long, requests a minute, bytes a body.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol

from custody.encoding import Digest, encode
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from custody.formats.enrolling import Refusal, Waiting
from custody.transports.handler import PATIENCE_SECONDS, StrictHandler

#: A request with an EK certificate and 8 intermediates, or a record with it, has some 20 KiB.
MAX_BODY_BYTES = 256 << 10
MAX_CONNECTIONS = 32
#: A connection is cut after so long, however busy it looks.
CONNECTION_SECONDS = 60
#: Of one address; a host needs three.
REQUESTS_A_MINUTE = 30

_JSON = "application/json"
_ROUTE = re.compile(r"/v1/enrolments(?:/(?P<request>[0-9a-f]{64})/(?P<what>record|answer))?")
_MAX_ADDRESSES = 4096


class Desk(Protocol):
    """Who answers: `ops.desk.Desk`.  Every method raises errors of ours."""

    def receive(self, body: bytes, /) -> bytes:
        """Take a host's request; return a challenge."""
        ...

    def attach(self, request: Digest, body: bytes, /) -> None:
        """Take the record that others have signed."""
        ...

    def answer(self, request: Digest, body: bytes, /) -> bytes | None:
        """Take an answer; return the signed record, None if it waits for a person."""
        ...

    def fetch(self, request: Digest, /) -> bytes | None:
        """Return the signed record, None while it waits."""
        ...


class Rate:
    """How often each address may ask."""

    def __init__(self, *, a_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._a_minute = a_minute
        self._now = now
        self._asked: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Count a request of an address; False if it has asked too often."""
        key = _network(address)
        with self._lock:
            now = self._now()
            left, since = self._asked.pop(key, (float(self._a_minute), now))
            left = min(self._a_minute, left + (now - since) * self._a_minute / 60)
            allowed = left >= 1
            self._asked[key] = (left - 1 if allowed else left, now)
            if len(self._asked) > _MAX_ADDRESSES:
                self._asked.popitem(last=False)
            return allowed


def _network(address: str) -> str:
    # Whoever has one IPv6 address has 2^64 of them.
    known = ip_address(address.partition("%")[0])
    return known.exploded[:19] if isinstance(known, IPv6Address) else str(known)


def server_context(chain_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """Return TLS 1.3 with a certificate, those above it, and its key; `Malformed` if not so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The library reads keys from files alone; this one has no name and never reaches a disk.
    with _in_memory(chain_pem) as chain, _in_memory(key_pem) as key:
        try:
            # An encrypted key would ask for its password on whatever terminal there is.
            context.load_cert_chain(chain, key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise Malformed("not a server's certificate and its unencrypted key (PEM)") from error
    return context


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("custody", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


class EnrolmentServer(ThreadingHTTPServer):
    """A server of one desk."""

    daemon_threads = True
    # The address of a server that has just stopped may be taken again at once.
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        desk: Desk,
        context: ssl.SSLContext,
        *,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Listen at ``address``; port 0 takes any that is free.  ``tell`` hears of faults."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.desk = desk
        self.rate = Rate(a_minute=REQUESTS_A_MINUTE)
        self._context = context
        self._tell = tell
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread, if not too many are at work."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self._slots.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then answer; both in the thread, so that nobody else waits."""
        try:
            request.settimeout(PATIENCE_SECONDS)
            secured = self._context.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
            alarm = threading.Timer(CONNECTION_SECONDS, _cut, [secured])
            alarm.daemon = True
            alarm.start()
            try:
                secured.do_handshake()
            except OSError:
                self.shutdown_request(secured)
            else:
                super().process_request_thread(secured, client_address)
            finally:
                alarm.cancel()
        except OSError:
            self.shutdown_request(request)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Go on: a client that hangs up, or a fault of ours, ends one connection."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self._tell(f"a request was not answered: {type(error).__name__}")


def _cut(secured: ssl.SSLSocket) -> None:
    # Not TLS's own goodbye, which would wait for the other side.
    with suppress(OSError):
        socket.socket.shutdown(secured, socket.SHUT_RDWR)


class _Handler(StrictHandler):
    server: EnrolmentServer

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        self._route("GET", "record")

    def do_POST(self) -> None:  # noqa: N802
        self._route("POST", "answer")

    def do_PUT(self) -> None:  # noqa: N802
        self._route("PUT", "record")

    def _route(self, method: str, what: str) -> None:
        if not self.server.rate.allows(self.client_address[0]):
            self.refuse(429, "rate", "too many requests")
            return
        found = _ROUTE.fullmatch(self.path)
        if found is None or (found["what"] or "answer") != what:
            self.refuse(404, "path", "no such thing")
            return
        if found["request"] is None and method != "POST":
            self.refuse(404, "path", "no such thing")
            return
        body = b"" if method == "GET" else self.read_body(max_bytes=MAX_BODY_BYTES)
        if body is None:
            return
        try:
            self._serve(method, found["request"], body)
        except Malformed as error:
            self._no(400, "malformed", error)
        except Refused as error:
            self._no(403, error.check, error)
        except Incomplete as error:
            self._no(409, "incomplete", error)
        except CustodyError:
            self.refuse(503, "unavailable", "not now")

    def _serve(self, method: str, request: Digest | None, body: bytes) -> None:
        desk = self.server.desk
        if request is None:
            self.answer(201, desk.receive(body), _JSON)
            return
        if method == "PUT":
            desk.attach(request, body)
            self.answer(204, b"", _JSON)
            return
        record = desk.fetch(request) if method == "GET" else desk.answer(request, body)
        if record is not None:
            self.answer(200, record, _JSON)
        else:
            waiting = Waiting(kind="custody/enrolment-waiting/v1", request=request)
            self.answer(202, encode(waiting), _JSON)

    def _no(self, status: int, check: str, error: CustodyError) -> None:
        # Where the enroller keeps his files is no business of who asks.
        self._refusal(status, check, error.reason, error.hint)

    def refuse(self, status: int, check: str, reason: str) -> None:
        """Answer no, as a document."""
        self.close_connection = True
        self._refusal(status, check, reason, None)

    def _refusal(self, status: int, check: str, reason: str, hint: str | None) -> None:
        refusal = Refusal(
            kind="custody/enrolment-refusal/v1",
            check=check,
            reason=_one_line(reason),
            hint=None if hint is None else _one_line(hint),
        )
        self.answer(status, encode(refusal), _JSON)

    # What http.server itself refuses, it says in HTML with the request in it.
    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer no to what is no request."""
        self.refuse(code, "path", "no such request")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:1000]
