"""What commands import: each what it needs, because somebody waits for it, and no more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from custody.cli._stage import Brief
from custody.errors import Unavailable
from custody.lab import swtpm
from custody.lab.actors import Actor
from custody.lab.cast import Lab
from custody.lab.founding import set_up
from custody.lab.release import Model, Release, answers_to
from custody.lab.softhsm import find_library
from tests.release.loaded import LEAD

Loaded = Mapping[str, frozenset[str]]

#: Nobody of these commands shows a table, talks to a store, or makes a page.
_NEVER = ("pydantic", "rich", "jinja2", "obstore", "fsspec", "numpy", "http", "custody.lab")
_TPM = (
    *("tpm2_pytss", "custody.keys.tpm", "custody.keys.hostapi"),
    *("custody.crypto.tpmpolicy", "custody.formats.evidence", "custody.rules.attestation"),
)
_PKCS11 = ("pkcs11", "custody.keys.pkcs11")
_CERTIFICATES = ("pyhanko_certvalidator", "asn1crypto", "asyncio", "ssl", "cryptography.x509")
_OTHER_COMMANDS = ("custody.cli._enroll", "custody.cli._trust", "custody.cli._model")
_OPENING = ("custody.ops.open", "custody.ops.payload_open", "custody.ops.kept")
_SEALING = ("custody.ops.seal", "custody.ops.payload_seal", "custody.ops.delta")
_LOG = ("custody.log", "custody.ops.heads")


def loaded(actor: Actor, *words: str | Path) -> frozenset[str]:
    """Run a command as an actor and return the names of the modules it imported."""
    ran = actor.run_module("tests.release.loaded", [str(word) for word in words])
    (line,) = (line for line in ran.talk.splitlines() if line.startswith(LEAD))
    return frozenset(line.removeprefix(LEAD).split())


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """Bring up a lab with a small model to release."""
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        model = Path(folder) / "model"
        model.mkdir()
        (model / "weights").write_bytes(bytes(100_000))
        lab = Lab(Path(folder) / "lab")
        try:
            set_up(lab, Brief())
            made = Model(directory=model, name="tiny")
            yield Release(lab=lab, stage=Brief(), model=made, number=1)
        finally:
            lab.remove()


@pytest.fixture(scope="module")
def commands(release: Release) -> Loaded:
    """Run the commands of a release, and what verifies a model alone; say what each imported."""
    lab, model = release.lab, release.model.directory
    publisher, host, officer = release.publisher, lab.actor("host1"), lab.actor("sec1")
    found: dict[str, frozenset[str]] = {}
    release.made_by(publisher)
    found["seal"] = loaded(
        publisher,
        *("publisher", "seal", model, "--name", "tiny", "--release", "1"),
        *("--out", release.bundle),
    )
    release.carry(release.bundle, host, *lab.actors("officer"))
    request = release.made_by(host) / "request.dsse"
    found["request"] = loaded(
        host,
        *("host", "request", release.at(host) / "bundle"),
        *("--event-log", host.directory / "boot.log", "--out", request),
    )
    release.carry(request, *lab.actors("officer"))
    answers = release.made_by(officer)
    found["approve"] = loaded(
        officer,
        *("officer", "approve", release.at(officer) / "bundle", release.at(officer) / request.name),
        *("--yes", "--out", answers),
    )
    for answer in answers.iterdir():
        release.carry(answer, host, under=answers_to(request))
    for name in ("sec2", "lead1"):
        release.approve(lab.actor(name), request, host)
    release.opened(host).parent.mkdir(exist_ok=True)
    found["open"] = loaded(
        host,
        *("host", "open", release.at(host) / "bundle", request),
        *("--answers", release.at(host) / answers_to(request), "--out", release.opened(host)),
    )
    signature, public = publisher.outbox / "model.sig", publisher.outbox / "key.pem"
    found["sign-model"] = loaded(
        publisher,
        *("publisher", "sign-model", model, "--out", signature, "--public", public),
    )
    found["verify-model"] = loaded(
        release.auditor,
        *("auditor", "verify-model", model, "--signature", signature, "--key", public),
    )
    return found


@pytest.mark.parametrize(
    ("command", "needless"),
    {
        # The lab's policy takes sealed-updatable: what TPMs must be able to check is checked.
        "seal": (*_TPM[:3], *_TPM[4:], *_OTHER_COMMANDS, *_OPENING, *_LOG, "custody.ops.delta"),
        # It ends requests that died, and what they may have kept.
        "request": (*_PKCS11, *_OTHER_COMMANDS, *_OPENING[:2], *_SEALING, *_LOG),
        "approve": (*_TPM[:2], *_OTHER_COMMANDS, *_OPENING, *_SEALING, *_LOG),
        "open": (*_PKCS11, *_OTHER_COMMANDS, *_SEALING, *_LOG, "custody.ops.request"),
        "sign-model": (*_TPM, *_CERTIFICATES[:1], *_OPENING, *_SEALING, *_LOG),
        "verify-model": (*_TPM, *_PKCS11, *_CERTIFICATES, *_OPENING, *_SEALING, *_LOG),
    }.items(),
)
def test_a_command_imports_what_it_needs(
    commands: Loaded, command: str, needless: tuple[str, ...]
) -> None:
    """Of what others need it imports nothing."""
    there = commands[command]
    assert "custody.errors" in there
    roots = {".".join(name.split(".")[:n]) for name in there for n in range(1, 4)}
    assert set() == roots & {*_NEVER, *needless}
