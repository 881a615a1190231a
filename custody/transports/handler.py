"""One way to answer HTTP: whole bodies of known and bounded length, and nothing kept or guessed."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any

#: A client that sends nothing for so long is let go.
PATIENCE_SECONDS = 30
#: A length of more digits is too large for anybody, or written so as to be read in two ways.
_LENGTH_DIGITS = 12
_BODY_HEADERS = {"content-length", "transfer-encoding"}

TEXT = "text/plain; charset=utf-8"


class StrictHandler(BaseHTTPRequestHandler):
    """Reads bodies by their length and answers with one; a refusal ends the connection."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_SECONDS

    def parse_request(self) -> bool:
        """Read the line and headers; see http.server."""
        parsed = super().parse_request()
        # A body that nobody reads would be taken for the next request, and its answer by a proxy
        # for that to somebody else's.
        if parsed and self.command in ("GET", "HEAD"):
            self.close_connection |= bool(_BODY_HEADERS & {name.lower() for name in self.headers})
        return parsed

    def read_body(self, *, max_bytes: int) -> bytes | None:
        """Return the body, or refuse before a byte of it is read and return None."""
        lengths = self.headers.get_all("Content-Length", [])
        # Two lengths, or a length and chunks, are two bodies to two readers.
        if len(lengths) != 1 or "Transfer-Encoding" in self.headers:
            self.refuse(411, "length", "how long is it?")
            return None
        (length,) = lengths
        if not (length.isascii() and length.isdigit()):
            self.refuse(411, "length", "how long is it?")
            return None
        if len(length) > _LENGTH_DIGITS or int(length) > max_bytes:
            self.refuse(413, "size", "too large")
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None

    def refuse(self, status: int, check: str, reason: str) -> None:
        """Answer no, in words; ``check`` is for servers that answer programs."""
        # What was sent with the request is not read, so nothing more can come this way.
        self.close_connection = True
        self.answer(status, f"{reason}\n".encode(), TEXT)

    def answer(
        self, status: int, body: bytes, media_type: str, *, caching: str = "no-store"
    ) -> None:
        """Answer with a body."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", caching)
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Say what answers, and of which version nothing."""
        return "custody"

    # Any: what http.server formats.
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Keep no log of who asked."""
