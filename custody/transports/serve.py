"""Serving a log over HTTP, read-only, and beside it a witness: C2SP tlog-tiles, tlog-witness."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from custody.errors import CustodyError, Malformed
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.tiles import CHECKPOINT_PATH, MAX_BUNDLE_BYTES, parse_path
from custody.formats.witnessing import MAX_REQUEST_BYTES
from custody.log.storage import Source
from custody.log.witness import Answer

_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"
_ADD_CHECKPOINT = "add-checkpoint"
#: A client that sends nothing for so long is let go.
_PATIENCE_SECONDS = 30

#: Answers the body of one add-checkpoint request.
AddCheckpoint = Callable[[bytes], Answer]


class LogServer(ThreadingHTTPServer):
    """A server of one log, of one witness, or of both; TLS is a proxy's work."""

    daemon_threads = True
    # The address of a server that has just stopped may be taken again at once.
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], source: Source | None, witness: AddCheckpoint | None
    ) -> None:
        """Listen at ``address``; port 0 takes any that is free."""
        super().__init__(address, _Handler)
        self.source = source
        self.witness = witness


class _Handler(BaseHTTPRequestHandler):
    server: LogServer
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(411, "how long is it?")
        elif int(length[:12]) > MAX_REQUEST_BYTES:
            self._refuse(413, "too large")
        elif self.path.strip("/") != _ADD_CHECKPOINT or self.server.witness is None:
            self._refuse(404, "no such thing")
        else:
            self._witness(self.server.witness, self.rfile.read(int(length)))

    def _witness(self, witness: AddCheckpoint, body: bytes) -> None:
        try:
            answer = witness(body)
        except CustodyError:
            self._refuse(503, "not now")
            return
        self._answer(answer.status, answer.body, answer.media_type)

    def _serve(self) -> None:
        path = self.path.removeprefix("/")
        # Only what a log publishes has a name here: neither what is pending nor what lies beside.
        try:
            found = None if self.server.source is None else _read(self.server.source, path)
        except Malformed:
            found = None
        except CustodyError:
            self._refuse(503, "not now")
            return
        if found is None:
            self._refuse(404, "no such thing")
        elif path == CHECKPOINT_PATH:
            self._answer(200, found, _TEXT, caching="no-cache")
        else:
            self._answer(200, found, _BYTES, caching=_FOR_EVER)

    def _refuse(self, status: int, words: str) -> None:
        # What was sent with the request is not read, so nothing more can come this way.
        self.close_connection = True
        self._answer(status, f"{words}\n".encode(), _TEXT)

    def _answer(
        self, status: int, body: bytes, media_type: str, *, caching: str = "no-store"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", caching)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "custody"

    # Any: what http.server formats.
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _read(source: Source, path: str) -> bytes | None:
    if path == CHECKPOINT_PATH:
        return source.read(path, max_bytes=MAX_NOTE_BYTES)
    parse_path(path)
    return source.read(path, max_bytes=MAX_BUNDLE_BYTES)
