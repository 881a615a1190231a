"""Eight threads of mixed token operations, as a process: ``python -m tests.device.threads``.

Arguments: URI, operations per thread, and ``locked`` or ``unlocked``.  Prints one line, the number
of operations done and of errors.
"""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from threading import Barrier, Thread

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto import signature
from custody.keys import pkcs11_module
from custody.keys.api import KeyRole, parse_key_uri
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.uri import Pkcs11Uri

THREADS = 8


class Worker:
    """One thread's tokens and keys, and the operations it may do."""

    def __init__(self, uri: Pkcs11Uri, seed: int) -> None:
        self.uri = uri
        self.choice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.token: Pkcs11Token = open_token(uri)
        listed = self.token.keys()
        self.ids = {info.role: info.id for info in listed}
        self.signer = self.token.find(KeyRole.SIGN, id=self.ids[KeyRole.SIGN])
        self.share = self.token.find(KeyRole.SHARE, id=self.ids[KeyRole.SHARE])
        self.peer = ec.generate_private_key(ec.SECP256R1()).public_key()

    def run(self, operations: int) -> None:
        """Do that many operations, in a random order of its own."""
        kinds: list[Callable[[], object]] = [
            self.reopen,
            self.login,
            self.find,
            self.sign,
            self.derive,
            self.draw,
            self.several,
        ]
        for _ in range(operations):
            kind = self.choice.choice(kinds)
            try:
                kind()
                self.done[kind.__name__] += 1
            except Exception as error:  # noqa: BLE001 - every kind of failure is counted
                self.errors[repr(error)] += 1

    def reopen(self) -> None:
        """Close the token, which forgets its PIN, and open it again."""
        self.token.__exit__(None, None, None)
        self.token = open_token(self.uri)
        self.signer = self.token.find(KeyRole.SIGN, id=self.ids[KeyRole.SIGN])
        self.share = self.token.find(KeyRole.SHARE, id=self.ids[KeyRole.SHARE])

    def login(self) -> None:
        """Log in and out."""
        with self.token.session():
            pass

    def find(self) -> None:
        """Find a key."""
        self.token.find(KeyRole.SIGN, id=self.ids[KeyRole.SIGN])

    def sign(self) -> None:
        """Sign, verify."""
        signature.sign(self.signer, b"statement")

    def derive(self) -> None:
        """Agree on a secret."""
        self.share.exchange(ec.ECDH(), self.peer)

    def draw(self) -> None:
        """Draw random bytes."""
        self.token.random(32)

    def several(self) -> None:
        """Do two operations under one login."""
        with self.token.session():
            self.sign()
            self.derive()


def main(text: str, operations: str, mode: str) -> None:
    """Run the threads."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    uri = parse_key_uri(text)
    assert isinstance(uri, Pkcs11Uri)
    workers = [Worker(uri, seed) for seed in range(THREADS)]
    if mode == "unlocked":
        pkcs11_module.LOCK = nullcontext()
    gate = Barrier(THREADS)

    def start(worker: Worker) -> None:
        gate.wait()
        worker.run(int(operations))

    threads = [Thread(target=start, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = sum((worker.done for worker in workers), Counter[str]())
    errors = sum((worker.errors for worker in workers), Counter[str]())
    sys.stdout.write(f"{done.total()} {errors.total()} {dict(done)} {errors.most_common(5)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
