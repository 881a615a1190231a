"""Reading a log over HTTP, and asking witnesses."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from email.message import Message
from typing import IO

from custody.errors import Malformed, Unavailable
from custody.log.witness import Reply

_TIMEOUT_SECONDS = 20
_MAX_REPLY_BYTES = 256 << 10
_AGENT = {"User-Agent": "custody"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A server that is asked for a tile has no business sending us to another machine.
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class WebSource:
    """A log at a web address.  Nothing it says is believed before it is checked."""

    def __init__(self, prefix: str) -> None:
        """Read below ``prefix``."""
        self.prefix = check_address(prefix).rstrip("/")

    def __repr__(self) -> str:
        return f"WebSource({self.prefix!r})"

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return an object, None if there is none."""
        reply = _ask(f"{self.prefix}/{path}", None, max_bytes=max_bytes)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Unavailable(f"the server answers {reply.status}", where=f"{self.prefix}/{path}")
        return reply.body


def post(address: str, body: bytes) -> Reply:
    """Send ``body``; whatever the status, return the answer."""
    return _ask(check_address(address), body, max_bytes=_MAX_REPLY_BYTES)


def check_address(address: str) -> str:
    """Raise `Malformed` for anything but an HTTP address: no file is read by this way."""
    if not address.startswith(("http://", "https://")):
        raise Malformed("not an http: or https: address", where=address[:80])
    return address


def _ask(address: str, body: bytes | None, *, max_bytes: int) -> Reply:
    try:
        request = urllib.request.Request(address, data=body, headers=_AGENT)  # noqa: S310  checked
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return _reply(answer.status, answer.headers, answer, max_bytes=max_bytes)
    except urllib.error.HTTPError as error:
        with error:
            return _reply(error.code, error.headers, error, max_bytes=_MAX_REPLY_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"does not answer ({type(error).__name__})", where=address) from error


def _reply(status: int, headers: Message[str, str], body: IO[bytes], *, max_bytes: int) -> Reply:
    data = body.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise Malformed(f"larger than the {max_bytes} bytes allowed")
    return Reply(status, headers.get("Content-Type", ""), data)
