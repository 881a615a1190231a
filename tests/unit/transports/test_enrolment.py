"""Enrolment over HTTPS: what a stranger can cost, and whom a host talks to."""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from custody.crypto.certificates import issue_authority
from custody.crypto.host_certificates import Term, issue_server_certificate
from custody.crypto.signature import public_bytes
from custody.encoding import Digest, decode, encode, key_id
from custody.errors import CustodyError, Incomplete, Malformed, Refused, Unavailable
from custody.formats.enrolling import Refusal, Waiting
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import decode_statement
from custody.ops.enroll import ask, ek_digest
from custody.ops.enroll_online import enroll_at
from custody.ops.pem import certificate_pem
from custody.transports import enrolment_server
from custody.transports.enrolment_client import EnrolmentClient, ServerTrust
from custody.transports.enrolment_server import (
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    Desk,
    EnrolmentServer,
    Rate,
    server_context,
)
from tests.unit.machine import EkCertificate, SoftTpm
from tests.unit.ops.test_desk import Served
from tests.unit.ops.test_enroll import Enroller

REQUEST = ask(SoftTpm(), host="gpu-1")
DIGEST = REQUEST.digest()
PATH = "/v1/enrolments"


class Identity:
    """A server's key and certificate, and the authority above it."""

    def __init__(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        authority = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        start, end = now - timedelta(minutes=5), now + timedelta(days=1)
        ca = issue_authority(authority, name="desk authority", not_before=start, not_after=end)
        spki = public_bytes(self.key.public_key())
        der = issue_server_certificate(
            authority,
            ca,
            spki=spki,
            names=["127.0.0.1"],
            term=Term(not_before=start, not_after=end),
        )
        self.ca_pem, self.pem = certificate_pem(ca), certificate_pem(der)
        self.key_id = key_id(spki)

    def key_pem(self, encryption: KeySerializationEncryption | None = None) -> bytes:
        how = encryption or NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)

    def trust(self) -> ServerTrust:
        return ServerTrust(key=self.key_id)


IDENTITY = Identity()
CHALLENGE = Challenge(
    kind="custody/enrolment-challenge/v1",
    request=DIGEST,
    enroller="0" * 64,
    credential_blob=b"b",
    encrypted_secret=b"s",
)
ANSWER = Answer(
    kind="custody/enrolment-answer/v1", request=DIGEST, enroller="0" * 64, proof="0" * 64
)


@dataclass
class Clerk:
    """A desk that says what it is told to."""

    says: CustodyError | Exception | None = None
    record: bytes | None = b"record"
    heard: list[tuple[str, Digest, bytes]] = field(default_factory=list)

    def receive(self, body: bytes, /) -> bytes:
        self._hear("receive", decode(EnrolmentRequest, body).digest(), b"")
        return encode(CHALLENGE)

    def attach(self, request: Digest, body: bytes, /) -> None:
        self._hear("attach", request, body)

    def answer(self, request: Digest, body: bytes, /) -> bytes | None:
        self._hear("answer", request, body)
        return self.record

    def fetch(self, request: Digest, /) -> bytes | None:
        self._hear("fetch", request, b"")
        return self.record

    def _hear(self, what: str, request: Digest, body: bytes) -> None:
        self.heard.append((what, request, body))
        if self.says is not None:
            raise self.says


@dataclass
class Running:
    """A server at work."""

    port: int
    told: list[str]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"

    def client(self, trust: ServerTrust | None = None) -> EnrolmentClient:
        return EnrolmentClient(self.url, trust or IDENTITY.trust())

    def plain(self) -> http.client.HTTPSConnection:
        """Talk as any program may."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)


@contextmanager
def running(clerk: Desk) -> Iterator[Running]:
    """Serve for a while."""
    told: list[str] = []
    context = server_context(IDENTITY.pem, IDENTITY.key_pem())
    with EnrolmentServer(("127.0.0.1", 0), clerk, context, tell=told.append) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Running(server.server_port, told)
        finally:
            server.shutdown()
            thread.join()


def refusal(reply: http.client.HTTPResponse) -> tuple[int, str]:
    """Read a refusal: its status and the check."""
    return reply.status, decode(Refusal, reply.read()).check


def test_the_whole_ceremony() -> None:
    """A host shows itself, attaches, answers and fetches; the desk hears exactly that."""
    clerk = Clerk()
    with running(clerk) as server:
        client = server.client()
        assert CHALLENGE == client.enrol(REQUEST)
        client.attach(DIGEST, b"half")
        assert b"record" == client.answer(ANSWER)
        clerk.record = None
        assert client.fetch(DIGEST) is None
    heard = [("receive", DIGEST, b""), ("attach", DIGEST, b"half")]
    assert [*heard, ("answer", DIGEST, encode(ANSWER)), ("fetch", DIGEST, b"")] == clerk.heard


def test_waiting_is_said_in_a_document() -> None:
    """202, and which request waits."""
    with running(Clerk(record=None)) as server, closing(server.plain()) as connection:
        connection.request("GET", f"{PATH}/{DIGEST}/record")
        reply = connection.getresponse()
        assert (202, DIGEST) == (reply.status, decode(Waiting, reply.read()).request)


@pytest.mark.parametrize(
    ("said", "status", "check"),
    [
        (Refused("no", check="endorsement.inventory"), 403, "endorsement.inventory"),
        (Malformed("not one"), 400, "malformed"),
        (Incomplete("not yet"), 409, "incomplete"),
        (Unavailable("disk full: /home/erik"), 503, "unavailable"),
    ],
    ids=["refused", "malformed", "incomplete", "unavailable"],
)
def test_a_refusal_names_its_check(said: CustodyError, status: int, check: str) -> None:
    """As a document; the client raises the same kind of error, and no path of ours is told."""
    said.where = "/home/erik"
    with running(Clerk(says=said)) as server:
        with closing(server.plain()) as connection:
            connection.request("POST", PATH, encode(REQUEST))
            reply = connection.getresponse()
            body = reply.read()
            assert (status, check) == (reply.status, decode(Refusal, body).check)
            assert b"/home/erik" not in body
        with pytest.raises(type(said)) as raised:
            server.client().enrol(REQUEST)
        if isinstance(raised.value, Refused):
            assert check == raised.value.check


def test_a_fault_of_ours_ends_one_connection() -> None:
    """The enroller is told its kind, nobody else anything, and the next host is served."""
    clerk = Clerk(says=KeyError("secret"))
    with running(clerk) as server:
        with pytest.raises(Unavailable):
            server.client().enrol(REQUEST)
        clerk.says = None
        assert CHALLENGE == server.client().enrol(REQUEST)
        assert ["a request was not answered: KeyError"] == server.told


@pytest.mark.parametrize(
    ("headers", "status", "check"),
    [
        ({"Content-Length": str(MAX_BODY_BYTES + 1)}, 413, "size"),
        ({"Content-Length": "9" * 40}, 413, "size"),
        ({"Content-Length": "0" * 12 + str(8 << 30)}, 413, "size"),
        ({"Content-Length": "-1"}, 411, "length"),
        ({"Content-Length": "\u0661"}, 411, "length"),
        ({}, 411, "length"),
        ({"Transfer-Encoding": "chunked"}, 411, "length"),
        ({"Transfer-Encoding": "chunked", "Content-Length": "2"}, 411, "length"),
    ],
    ids=[
        "too large",
        "absurd",
        "behind zeros",
        "negative",
        "no digit",
        "none",
        "chunks",
        "chunks and a length",
    ],
)
def test_a_body_is_bounded_before_it_is_read(
    headers: dict[str, str], status: int, check: str
) -> None:
    """What has no length, two, or too much of one is not read, and the desk hears nothing."""
    clerk = Clerk()
    with running(clerk) as server, closing(server.plain()) as connection:
        connection.putrequest("POST", PATH)
        for name, value in headers.items():
            connection.putheader(name, value.encode())
        connection.endheaders()
        assert (status, check) == refusal(connection.getresponse())
    assert [] == clerk.heard


def test_two_lengths_are_none() -> None:
    """What two readers could read as two bodies is not read."""
    clerk = Clerk()
    with running(clerk) as server, closing(server.plain()) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Length", "2")
        connection.putheader("Content-Length", "3")
        connection.endheaders(b"{}x")
        assert (411, "length") == refusal(connection.getresponse())
    assert [] == clerk.heard


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", PATH),
        ("PUT", PATH),
        ("POST", f"{PATH}/"),
        ("POST", f"{PATH}/{'5a' * 32}"),
        ("POST", f"{PATH}/{'5a' * 32}/record"),
        ("GET", f"{PATH}/{'5a' * 32}/answer"),
        ("GET", f"{PATH}/{'5A' * 32}/record"),
        ("GET", f"{PATH}/../../etc/passwd"),
        ("GET", f"{PATH}/{'5a' * 32}/record?x"),
        ("GET", f"{PATH}/{'0' * 63}%30/record"),
    ],
)
def test_only_four_things_can_be_asked(method: str, path: str) -> None:
    """Every other path is no such thing, as a document."""
    clerk = Clerk()
    with running(clerk) as server, closing(server.plain()) as connection:
        connection.request(method, path, b"{}" if method != "GET" else None)
        assert (404, "path") == refusal(connection.getresponse())
    assert [] == clerk.heard


def test_other_methods_are_refused_as_a_document() -> None:
    """Nothing is echoed."""
    with running(Clerk()) as server, closing(server.plain()) as connection:
        connection.request("DELETE", f"{PATH}/{DIGEST}/record")
        assert (501, "path") == refusal(connection.getresponse())


def test_who_asks_too_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a check of its own, before its body is read."""
    monkeypatch.setattr(enrolment_server, "REQUESTS_A_MINUTE", 3)
    clerk = Clerk()
    with running(clerk) as server:
        for _ in range(3):
            server.client().enrol(REQUEST)
        with pytest.raises(Unavailable, match="too many requests"):
            server.client().enrol(REQUEST)
    assert 3 == len(clerk.heard)


def test_a_rate_is_an_addresss_and_comes_back() -> None:
    """One address's hurry costs no other; an IPv6 network of one owner is one address."""
    now = [0.0]
    rate = Rate(a_minute=2, now=lambda: now[0])
    assert [True, True, False] == [rate.allows("192.0.2.1") for _ in range(3)]
    assert rate.allows("192.0.2.2")
    v6 = ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
    assert [True, True, False, True] == [rate.allows(address) for address in v6]
    now[0] = 29.0
    assert not rate.allows("192.0.2.1")
    now[0] = 31.0
    assert [True, False] == [rate.allows("192.0.2.1") for _ in range(2)]


def test_who_says_nothing_holds_nobody_up() -> None:
    """A client that never shakes hands takes a place, and the next is served meanwhile."""
    with running(Clerk()) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        assert CHALLENGE == server.client().enrol(REQUEST)
        for one in silent:
            one.close()


def test_there_are_only_so_many_places() -> None:
    """A full server hangs up at once, and serves again when a place is free."""
    with running(Clerk()) as server:
        silent = [
            socket.create_connection(("127.0.0.1", server.port)) for _ in range(MAX_CONNECTIONS)
        ]
        _until(lambda: _is_refused(server))
        for one in silent:
            one.close()
        _until(lambda: not _is_refused(server))


def _is_refused(server: Running) -> bool:
    try:
        server.client().fetch(DIGEST)
    except Unavailable as error:
        return "too many requests" not in error.reason
    return False


def _until(holds: object, *, seconds: float = 10) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_connection_is_cut_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly somebody speaks, his place becomes free."""
    monkeypatch.setattr(enrolment_server, "CONNECTION_SECONDS", 0.3)
    with running(Clerk()) as server:
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        begun = time.monotonic()
        assert b"" == slow.recv(1)
        assert 0.2 < time.monotonic() - begun < 5
        slow.close()


def test_junk_in_place_of_tls_and_in_it_ends_one_connection() -> None:
    """Random bytes, in the clear and under TLS, reach no desk and stop no server."""
    clerk, chance = Clerk(), random.Random(11)
    with running(clerk) as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
                raw.sendall(chance.randbytes(chance.randint(1, 600)))
        context = server.client()._trust.context()
        for _ in range(8):
            with (
                socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
                context.wrap_socket(raw) as secured,
            ):
                secured.sendall(chance.randbytes(chance.randint(1, 600)) + b"\r\n\r\n")
        assert [] == clerk.heard
        assert CHALLENGE == server.client().enrol(REQUEST)
    assert [] == server.told


def test_many_hosts_at_once_are_all_enrolled(tmp_path: Path) -> None:
    """Every host gets the record of its own TPM, whoever else is at the desk."""
    tpms = [SoftTpm(certificate=EkCertificate(key=f"ek {n}").issue()) for n in range(6)]
    listed = {ek_digest(ask(tpm, host="any")): f"gpu-{n}" for n, tpm in enumerate(tpms)}
    served = Served(Enroller("erik", tmp_path), inventory=listed, unattended=True)
    with running(served.desk) as server, ThreadPoolExecutor(6) as pool:
        work = [
            pool.submit(enroll_at, server.client(), tpm, host=f"gpu-{n}")
            for n, tpm in enumerate(tpms)
        ]
        records = [done.result()[1] for done in work]
    for n, record in enumerate(records):
        assert record is not None
        said = decode_statement(EnrolmentRecord, record).predicate
        assert (f"gpu-{n}", tpms[n].ak_public()) == (said.host, said.ak_public)


def test_a_server_with_another_key_hears_nothing() -> None:
    """A pinned key is compared before a byte of the request is sent."""
    clerk = Clerk()
    with running(clerk) as server:
        with pytest.raises(Refused) as refused:
            server.client(ServerTrust(key="0" * 64)).enrol(REQUEST)
        assert "server.key" == refused.value.check
    assert [] == clerk.heard


def test_a_server_is_known_by_its_authority(tmp_path: Path) -> None:
    """By the file that was given, for the name that was asked; by no other."""
    (tmp_path / "ca.pem").write_bytes(IDENTITY.ca_pem)
    (tmp_path / "other.pem").write_bytes(Identity().ca_pem)
    clerk = Clerk()
    with running(clerk) as server:
        trust = ServerTrust(ca_file=tmp_path / "ca.pem")
        assert CHALLENGE == server.client(trust).enrol(REQUEST)
        for url, ca_file in (
            (server.url, "other.pem"),
            (server.url.replace("127.0.0.1", "localhost"), "ca.pem"),
        ):
            with pytest.raises(Refused) as refused:
                EnrolmentClient(url, ServerTrust(ca_file=tmp_path / ca_file)).enrol(REQUEST)
            assert "server.certificate" == refused.value.check
    assert 1 == len(clerk.heard)


def test_the_systems_certificates_are_never_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority that the system trusts, and nobody named, vouches for no enroller."""
    (tmp_path / "ca.pem").write_bytes(IDENTITY.ca_pem)
    (tmp_path / "other.pem").write_bytes(Identity().ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with running(Clerk()) as server, pytest.raises(Refused):
        server.client(ServerTrust(ca_file=tmp_path / "other.pem")).enrol(REQUEST)
    with pytest.raises(ValueError, match="by its authority or by its key"):
        ServerTrust()


@pytest.mark.parametrize(
    "url",
    [
        "http://desk.example.com/",
        "file:///etc/passwd",
        "https://",
        "https://desk:99999/",
        "https://erik:pin@desk/",
        "https://desk/?x=1",
        "desk.example.com",
        "https://[::1",
    ],
)
def test_only_https_is_asked(url: str) -> None:
    """Nothing is sent in the clear, or with a password in its address."""
    with pytest.raises(Malformed):
        EnrolmentClient(url, IDENTITY.trust())


def test_a_challenge_for_another_host_is_malformed() -> None:
    """A server that mixes hosts up is not answered."""
    with running(Clerk()) as server:
        other = ask(SoftTpm(), host="gpu-2")
        with pytest.raises(Malformed, match="another host"):
            server.client().enrol(other)


def test_nobody_there_is_unavailable() -> None:
    """A port where nothing listens."""
    with running(Clerk()) as server:
        client = server.client()
    with pytest.raises(Unavailable):
        client.enrol(REQUEST)


def test_a_server_key_is_not_asked_a_password_for() -> None:
    """An encrypted key, one that is another certificate's, and no key are refused at start."""
    locked = IDENTITY.key_pem(BestAvailableEncryption(b"secret"))
    for key in (locked, Identity().key_pem(), b"", b"junk"):
        with pytest.raises(Malformed):
            server_context(IDENTITY.pem, key)
    with pytest.raises(Malformed):
        server_context(b"", IDENTITY.key_pem())


def test_older_tls_is_not_spoken() -> None:
    """TLS 1.3 or nothing, from either side."""
    with running(Clerk()) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
            pytest.raises(OSError, match=r"alert|reset|EOF"),
            context.wrap_socket(raw),
        ):
            pass
    assert ssl.TLSVersion.TLSv1_3 == IDENTITY.trust().context().minimum_version
