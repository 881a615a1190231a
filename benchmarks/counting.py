"""Wrappers that count: a socket in front of a TPM, and a key in front of a key."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import TPM2_CC

_HEADER_BYTES = 10


@contextmanager
def counted_tpm(tpm: Path, place: Path) -> Iterator[Counter[str]]:
    """Listen at ``place`` for who wants ``tpm``, pass everything on, and count the commands.

    Both are paths of UNIX sockets; beside each lies its control channel, ``.ctrl``.
    """
    counts: Counter[str] = Counter()
    listeners = [_listen(place, tpm, counts), _listen(_control(place), _control(tpm), None)]
    try:
        yield counts
    finally:
        for listener in listeners:
            # Closing alone would not wake the thread that waits in accept.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for path in (place, _control(place)):
            path.unlink(missing_ok=True)


def _control(path: Path) -> Path:
    return path.with_name(path.name + ".ctrl")


def _listen(place: Path, target: Path, counts: Counter[str] | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(target))
            for source, sink, seen in ((client, server, counts), (server, client, None)):
                threading.Thread(target=_pass_on, args=(source, sink, seen), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def _pass_on(source: socket.socket, sink: socket.socket, counts: Counter[str] | None) -> None:
    waiting = b""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
            if counts is not None:
                waiting = _count(waiting + data, counts)
    # Both ways: of a half-closed connection swtpm takes no notice, and waits on.
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _count(data: bytes, counts: Counter[str]) -> bytes:
    """Count whole commands (tag, u32 size, u32 code, …: part 1 section 18); return the rest."""
    while len(data) >= _HEADER_BYTES and len(data) >= (size := int.from_bytes(data[2:6], "big")):
        name = TPM2_CC.to_string(int.from_bytes(data[6:10], "big"))
        counts[name.removeprefix("TPM2_CC.")] += 1
        data = data[size:]
    return data


class CountedKey(ec.EllipticCurvePrivateKey):
    """A private key that counts what its token would be asked."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, counts: Counter[str]) -> None:
        self._key = key
        self._counts = counts

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        self._counts["sign"] += 1
        return self._key.sign(data, signature_algorithm)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        self._counts["derive"] += 1
        return self._key.exchange(algorithm, peer_public_key)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise TypeError("a token's key stays in it")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - cryptography names it
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        raise TypeError("a token's key stays in it")

    def __copy__(self) -> CountedKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> CountedKey:
        return self
