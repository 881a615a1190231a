"""Serving a log over HTTP, read-only, and beside it a witness: C2SP tlog-tiles, tlog-witness."""

from __future__ import annotations

from collections.abc import Callable
from http.server import ThreadingHTTPServer

from custody.errors import CustodyError, Malformed
from custody.formats.logentry import MAX_ENTRY_BYTES
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.tiles import CHECKPOINT_PATH, MAX_BUNDLE_BYTES, parse_path
from custody.formats.witnessing import MAX_REQUEST_BYTES
from custody.log.offers import OfferStore, put_offers
from custody.log.storage import Source
from custody.log.witness import Answer
from custody.transports.api import ACCEPTED, OFFER_PATH
from custody.transports.handler import TEXT, StrictHandler

_BYTES = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"
_ADD_CHECKPOINT = "add-checkpoint"

#: Answers the body of one add-checkpoint request.
AddCheckpoint = Callable[[bytes], Answer]


class LogServer(ThreadingHTTPServer):
    """A server of one log, of one witness, or of both; TLS is a proxy's work."""

    daemon_threads = True
    # The address of a server that has just stopped may be taken again at once.
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        source: Source | None,
        witness: AddCheckpoint | None,
        offers: OfferStore | None = None,
    ) -> None:
        """Listen at ``address``; port 0 takes any that is free.

        ``offers`` is where entries go that anybody offers; without it none are taken.
        """
        super().__init__(address, _Handler)
        self.source = source
        self.witness = witness
        self.offers = offers


class _Handler(StrictHandler):
    server: LogServer

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        self._serve()

    def do_HEAD(self) -> None:  # noqa: N802
        self._serve()

    def do_POST(self) -> None:  # noqa: N802
        path = self.path.strip("/")
        if path == _ADD_CHECKPOINT and self.server.witness is not None:
            if (body := self.read_body(max_bytes=MAX_REQUEST_BYTES)) is not None:
                self._witness(self.server.witness, body)
        elif path == OFFER_PATH and self.server.offers is not None:
            if (body := self.read_body(max_bytes=MAX_ENTRY_BYTES)) is not None:
                self._offer(self.server.offers, body)
        else:
            self.refuse(404, "path", "no such thing")

    def _offer(self, offers: OfferStore, body: bytes) -> None:
        try:
            put_offers(offers, [body])
        except Malformed:
            self.refuse(400, "malformed", "not an entry")
        except CustodyError:
            self.refuse(503, "unavailable", "not now")
        else:
            self.answer(ACCEPTED, b"", TEXT)

    def _witness(self, witness: AddCheckpoint, body: bytes) -> None:
        try:
            answer = witness(body)
        except CustodyError:
            self.refuse(503, "unavailable", "not now")
            return
        self.answer(answer.status, answer.body, answer.media_type)

    def _serve(self) -> None:
        path = self.path.removeprefix("/")
        # Only what a log publishes has a name here: neither what is pending nor what lies beside.
        try:
            found = None if self.server.source is None else _read(self.server.source, path)
        except Malformed:
            found = None
        except CustodyError:
            self.refuse(503, "unavailable", "not now")
            return
        if found is None:
            self.refuse(404, "path", "no such thing")
        elif path == CHECKPOINT_PATH:
            self.answer(200, found, TEXT, caching="no-cache")
        else:
            self.answer(200, found, _BYTES, caching=_FOR_EVER)


def _read(source: Source, path: str) -> bytes | None:
    if path == CHECKPOINT_PATH:
        return source.read(path, max_bytes=MAX_NOTE_BYTES)
    parse_path(path)
    return source.read(path, max_bytes=MAX_BUNDLE_BYTES)
