from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from custody.errors import Malformed, Unavailable
from custody.formats.logpolicy import LogPolicy, decode_log_policy
from custody.log.reader import Followed, follow
from custody.log.storage import Source
from custody.ops import logs
from custody.ops.home import Home
from custody.transports.serve import AddCheckpoint, LogServer
from custody.transports.web import WebSource, post
from tests.sim.store import MemoryStore
from tests.unit.log.logs import NOTHING, entries, grown, signed, signer, trust

NOW = 1_800_000_000


@contextmanager
def serving(source: Source | None, witness: AddCheckpoint | None = None) -> Iterator[str]:
    """Serve for a while; gives the address."""
    with LogServer(("127.0.0.1", 0), source, witness) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_log_is_followed_over_http() -> None:
    """What is served is what lies in the store; it is checked like anything else."""
    store, _ = grown(600)
    with serving(store) as address:
        found = follow(WebSource(address), trust(), NOTHING)
        assert isinstance(found, Followed)
        assert entries(0, 600) == [entry for _, entry in found.new_entries()]


def test_headers_are_those_of_the_specification() -> None:
    """A checkpoint is text that is not cached, a tile bytes that are for ever."""
    store, _ = grown(300)
    with serving(store) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        for path, kind, caching in (
            ("/checkpoint", "text/plain; charset=utf-8", "no-cache"),
            ("/tile/0/000", "application/octet-stream", "public, max-age=31536000, immutable"),
        ):
            for method in ("HEAD", "GET"):
                connection.request(method, path)
                answer = connection.getresponse()
                body = answer.read()
                assert (200, kind, caching) == (
                    answer.status,
                    answer.headers["Content-Type"],
                    answer.headers["Cache-Control"],
                )
                assert (store.objects[path[1:]] if method == "GET" else b"") == body
        connection.close()


@pytest.mark.parametrize(
    "path",
    ["/", "/pending", "/.lock", "/tile/0/000.p/1", "/tile/../pending", "/checkpoint/", "//x"],
)
def test_only_what_a_log_publishes_is_served(path: str) -> None:
    """Neither what is pending, nor what is not there, nor what lies beside is given out."""
    store, _ = grown(300)
    with serving(store) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        connection.request("GET", path)
        assert 404 == connection.getresponse().status
        connection.close()


def test_nothing_is_written_over_http() -> None:
    """No other method, and no POST to a log that is no witness, has an effect."""
    store, _ = grown(3)
    before = dict(store.objects)
    with serving(store) as address:
        for method, path, status in (
            ("PUT", "/checkpoint", 501),
            ("DELETE", "/checkpoint", 501),
            ("POST", "/checkpoint", 404),
            ("POST", "/add-checkpoint", 404),
        ):
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            connection.request(method, path, body=b"x")
            assert status == connection.getresponse().status
            connection.close()
    assert before == store.objects


@pytest.mark.parametrize("header", ["Content-Length: 33", "Transfer-Encoding: chunked"])
def test_what_follows_a_get_is_no_second_request(header: str) -> None:
    """A proxy that passes a body on would give the answer to it to whoever asks next."""
    smuggled = b"GET /tile/0/000.p/3 HTTP/1.1\r\n\r\n\r\n"
    store, _ = grown(3)
    with serving(store) as address:
        _, _, port = address.rpartition(":")
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as client:
            client.sendall(f"GET /checkpoint HTTP/1.1\r\n{header}\r\n\r\n".encode() + smuggled)
            answered = b"".join(iter(lambda: client.recv(65536), b""))
    assert 1 == answered.count(b"HTTP/1.1 ")
    assert answered.startswith(b"HTTP/1.1 200")


def test_oversize_requests_are_not_read() -> None:
    """A body without a length, or of more than a request, is turned away."""
    with serving(None, lambda _: pytest.fail("asked")) as address:
        lengths = (("99999999999999", 413), ("0" * 12 + "99999999999", 413))
        for length, status in (*lengths, ("x", 411), ("-1", 411), ("", 411)):
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            connection.putrequest("POST", "/add-checkpoint")
            connection.putheader("Content-Length", length)
            connection.endheaders()
            assert status == connection.getresponse().status
            connection.close()


def test_no_server_is_unavailable() -> None:
    """Nobody there is unavailable; an address that is not the web's is malformed."""
    with serving(None) as address:
        assert None is WebSource(address).read("checkpoint", max_bytes=10)
    with pytest.raises(Unavailable):
        WebSource(address).read("checkpoint", max_bytes=10)
    with pytest.raises(Malformed):
        WebSource("file:///etc")
    with pytest.raises(Malformed):
        post("file:///etc", b"")


def test_oversize_answers_are_not_read() -> None:
    """A server that sends more than there can be is stopped."""
    store, _ = grown(3)
    with serving(store) as address, pytest.raises(Malformed):
        WebSource(address).read("checkpoint", max_bytes=10)


class _Broken(MemoryStore):
    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        raise Unavailable("the disk is gone")


def test_a_store_that_fails_is_not_an_absent_log() -> None:
    """A server that cannot read says so, and its reader says unavailable."""
    with serving(_Broken()) as address, pytest.raises(Unavailable, match="503"):
        WebSource(address).read("checkpoint", max_bytes=10)


def witness_policy(home: Home, address: str) -> LogPolicy:
    """Our log, and the one witness of a home, at an address."""
    key = logs.witness_signer(home).note_key.vkey
    lines = f"log {signer().note_key.vkey}\nwitness w1 {key} {address}\nquorum w1\n"
    return decode_log_policy(lines.encode())


def test_a_witness_cosigns_over_http(tmp_path: Path) -> None:
    """A log asks over HTTP and is cosigned; the witness remembers, and keeps evidence of a fork."""
    home = Home(tmp_path / "w1")
    logs.init_witness(home, name="w1.example.com")
    store, _ = grown(5)
    made = signed(entries(0, 5))
    tree = logs.tree_of(store, made)
    known = witness_policy(home, "http://unused")

    def answer(body: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return logs.answer_as_witness(home, known, body, seconds=NOW)

    with serving(None, answer) as address:
        policy = witness_policy(home, address)
        lines = logs.AskAll(policy, post)(made, tree)
        assert NOW == policy.judge(made.with_signatures(*lines)).seconds
        other, _ = grown(5, salt="other")
        forked = signed(entries(0, 5, salt="other"))
        with pytest.raises(Exception, match="too few") as incomplete:
            logs.AskAll(policy, post)(forked, logs.tree_of(other, forked))
    assert ("w1: the witness answers 409",) == getattr(incomplete.value, "missing", None)
    folder = next((home.path / "evidence").iterdir())
    assert made.encode() == (folder / "remembered.checkpoint").read_bytes()
    assert forked.encode() == (folder / "offered.checkpoint").read_bytes()
