"""Somebody on the bus: a relay before a software TPM that records, and may alter, every answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from custody.lab.swtpm import Swtpm

Alter = Callable[[bytes, bytes], bytes]
Instead = Callable[[bytes], bytes | None]


class Relay:
    """Passes commands to the TPM at ``target`` and answers back, through ``alter``.

    What ``instead`` has an answer to never reaches the TPM.
    """

    def __init__(
        self,
        target: Path,
        at: Path,
        alter: Alter | None = None,
        instead: Instead | None = None,
    ) -> None:
        self.tcti = f"swtpm:path={at}"
        self.traffic = bytearray()
        self._target = str(target)
        self._alter = alter or (lambda _command, answer: answer)
        self._instead = instead or (lambda _command: None)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(at))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tpm:
                tpm.connect(self._target)
                while command := _message(client):
                    answer = self._instead(command)
                    if answer is None:
                        tpm.sendall(command)
                        answer = self._alter(command, _message(tpm))
                    self.traffic += command + answer
                    client.sendall(answer)


def _message(channel: socket.socket) -> bytes:
    data = b""
    while len(data) < 10 or len(data) < int.from_bytes(data[2:6], "big"):
        piece = channel.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


@contextmanager
def bus(
    machine: Swtpm, alter: Alter | None = None, *, instead: Instead | None = None
) -> Iterator[Relay]:
    """Put a relay before the machine's TPM."""
    at = machine.directory / "bus.sock"
    # tss2 also opens the control channel of a software TPM, which carries no commands.
    (machine.directory / "bus.sock.ctrl").symlink_to(f"{machine.socket_path}.ctrl")
    with Relay(machine.socket_path, at, alter, instead) as relay:
        yield relay
