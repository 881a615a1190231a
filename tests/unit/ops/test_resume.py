"""Sealing, opening and checking that were interrupted, and go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.parts import ROW_BYTES, open_part, row_digest, seal_part
from custody.errors import Refused, Unavailable
from custody.formats.parts import PARTS, PAYLOAD
from custody.ops import payload_seal, payload_source
from custody.ops.keys import ShareOpener
from custody.ops.landing import (
    new_directory,
    resumable_directory,
    unfinished_output,
    unfinished_path,
)
from custody.ops.model_files import plan_layout, scan
from custody.ops.outstanding import Ledger
from custody.ops.payload_open import check_payload, open_into
from custody.ops.payload_seal import SealedPayload, seal_payload
from custody.ops.progress import Progress, silent
from custody.ops.resume import CheckMemory, SealJob, SealKeeper, seal_stage
from tests.unit.ops.bundles import (
    NOBODY,
    PART,
    Sealed,
    contents_of,
    core_of,
    names,
    noise,
    read_model,
    seal_model,
    write_model,
)

FILES = {
    "a": noise(9 * PART + 7, 1),
    "b/one": noise(5 * PART, 2),
    "b/two": noise(400, 3),
    "c": noise(PART - 300, 4),
    "empty": b"",
}
KEY = "0123456789abcdef"


class Publisher:
    """A publisher with a share key, who seals to one target."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.model = room / "model"
        self.target = room / "bundle"
        home = room / "home"
        home.mkdir()
        self.keeper = SealKeeper(home, ShareOpener(ec.generate_private_key(ec.SECP256R1())), "P256")
        self.ceks: list[bytes] = []

    def seal(
        self, *, progress: Progress = silent, environment: str = NOBODY, workers: int = 2
    ) -> tuple[SealedPayload, Sealed]:
        """Seal, or go on."""
        layout = plan_layout(scan(self.model).files, PART)
        job = SealJob(
            target=self.target, layout=layout, environment=environment, part_digest="blake3"
        )
        with seal_stage(job, self.keeper, None) as stage:
            cek = bytes(stage.secrets.cek)
            self.ceks.append(cek)
            sealed = seal_payload(
                self.model,
                layout,
                cek=stage.secrets.cek,
                payload_id=stage.payload_id,
                part_digest="blake3",
                directory=stage.directory,
                progress=progress,
                workers=workers,
            )
            core = core_of(sealed, cek=cek, payload_id=stage.payload_id)
        return sealed, Sealed(self.target, core, contents_of(sealed), cek)

    def interrupt(self, monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
        """Seal until so many parts are sealed, then have somebody press Ctrl-C."""
        with monkeypatch.context() as patch:
            patch.setattr(payload_seal, "seal_part", stopping_after(parts, seal_part))
            with pytest.raises(KeyboardInterrupt):
                self.seal(workers=1)

    @property
    def left(self) -> Path:
        """What the interrupted run left."""
        found = self.keeper.find(self.target)
        assert found is not None
        output = unfinished_output(self.target, found.payload_id.hex()[:16])
        assert output is not None
        return output


def stopping_after(count: int, call: Callable[..., object]) -> Callable[..., object]:
    """Return ``call``, good for ``count`` times."""
    calls = iter(range(count))

    def counted(*args: object, **named: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return call(*args, **named)

    return counted


def counting(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    """Count the calls of a function."""
    calls: list[object] = []
    real = getattr(module, name)

    def counted(*args: object, **named: object) -> object:
        calls.append(args)
        return real(*args, **named)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A publisher with a model."""
    write_model(tmp_path / "model", FILES)
    return Publisher(tmp_path)


# ── sealing ─────────────────────────────────────────────────────────────────────────────────────


def test_seal_goes_on(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted seal goes on with the same key, seals only the rest, and leaves no trace."""
    publisher.interrupt(monkeypatch, 6)
    assert 6 == publisher.keeper.parts_there(publisher.target)
    rows = (publisher.left / PARTS).read_bytes()
    calls = counting(monkeypatch, payload_seal, "seal_part")
    sealed, bundle = publisher.seal()
    assert (6, sealed.part_count - 6) == (sealed.kept_parts, len(calls))
    assert 1 == len(set(publisher.ceks))
    kept = {rows[at : at + ROW_BYTES] for at in range(0, len(rows), ROW_BYTES)} - {bytes(ROW_BYTES)}
    now = (publisher.target / PARTS).read_bytes()
    assert kept <= {now[at : at + ROW_BYTES] for at in range(0, len(now), ROW_BYTES)}
    check_payload(bundle.bundle, bundle.core)
    bundle.open(publisher.room / "opened")
    assert FILES == read_model(publisher.room / "opened")
    assert {"bundle", "home", "model", "opened"} == names(publisher.room)
    assert set() == names(publisher.room / "home")


@pytest.mark.parametrize("name", [PAYLOAD, PARTS])
@pytest.mark.parametrize("offset", [0, 30, 71])
def test_damaged_part_is_sealed_again(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, name: str, offset: int
) -> None:
    """What is there and does not hold is sealed again with a new salt, and opens."""
    publisher.interrupt(monkeypatch, 6)
    before = (publisher.left / PARTS).read_bytes()
    data = bytearray((publisher.left / name).read_bytes())
    data[offset] ^= 1
    (publisher.left / name).write_bytes(data)
    sealed, bundle = publisher.seal()
    assert 5 == sealed.kept_parts
    assert before[:24] != (publisher.target / PARTS).read_bytes()[:24]
    bundle.open(publisher.room / "opened")
    assert FILES == read_model(publisher.room / "opened")


def test_part_of_another_plaintext_is_refused(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that opens to something else than its source holds stops the seal."""
    publisher.interrupt(monkeypatch, 6)
    found = publisher.keeper.find(publisher.target)
    assert found is not None
    other = bytearray(noise(PART, 99) + bytes(16))
    tag = seal_part(publisher.ceks[0], found.payload_id, 0, other, salt=b"s" * 24)
    digest = row_digest("blake3", 0, b"s" * 24, other[:PART], tag)
    for name, size, piece in ((PAYLOAD, PART, other[:PART]), (PARTS, 72, b"s" * 24 + tag + digest)):
        data = bytearray((publisher.left / name).read_bytes())
        data[:size] = piece
        (publisher.left / name).write_bytes(data)
    with pytest.raises(Refused) as refused:
        publisher.seal()
    assert ("model.changed", "a") == (refused.value.check, refused.value.where)
    assert {"home", "model"} == names(publisher.room)


def test_changed_model_does_not_go_on(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that changed since is refused, kept work and all, until it is thrown away."""
    publisher.interrupt(monkeypatch, 3)
    (publisher.model / "b/two").write_bytes(noise(400, 3))
    with pytest.raises(Refused) as refused:
        publisher.seal()
    assert "model.changed" == refused.value.check
    assert publisher.left.is_dir()
    publisher.keeper.forget(publisher.target)
    assert {"home", "model"} == names(publisher.room)
    sealed, _ = publisher.seal()
    assert 0 == sealed.kept_parts
    assert 2 == len(set(publisher.ceks))


def test_other_environment_does_not_go_on(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A content key serves one environment: an unfinished seal for another one is refused."""
    publisher.interrupt(monkeypatch, 3)
    with pytest.raises(Refused) as refused:
        publisher.seal(environment="11" * 32)
    assert "seal.unfinished" == refused.value.check


def test_secrets_need_the_token(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither home nor staging holds a key in the clear, and another token's key opens nothing."""
    publisher.interrupt(monkeypatch, 3)
    (cek,) = publisher.ceks
    kept = [p for p in publisher.room.rglob("*") if p.is_file() and "model" not in p.parts]
    assert not any(cek in p.read_bytes() or cek.hex().encode() in p.read_bytes() for p in kept)
    other = ShareOpener(ec.generate_private_key(ec.SECP256R1()))
    publisher.keeper = SealKeeper(publisher.keeper.folder, other, "P256")
    with pytest.raises(Refused) as refused:
        publisher.seal()
    assert "seal.unfinished" == refused.value.check


def test_refusal_leaves_nothing(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends in a refusal is not gone on with: parts and secrets are gone."""

    def refuse(*_: object, **__: object) -> None:
        raise Refused("no", check="test")

    with monkeypatch.context() as patch:
        patch.setattr(payload_seal, "seal_part", refuse)
        with pytest.raises(Refused):
            publisher.seal()
    assert {"home", "model"} == names(publisher.room)
    assert set() == names(publisher.room / "home")


# ── opening ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """A bundle."""
    return seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")


def _open(sealed: Sealed, target: Path, *, workers: int = 2) -> None:
    with resumable_directory(target, KEY) as directory:
        open_into(
            sealed.bundle,
            directory,
            core=sealed.core,
            contents=sealed.contents,
            cek=sealed.cek,
            workers=workers,
        )


def _interrupt(sealed: Sealed, target: Path, monkeypatch: pytest.MonkeyPatch, parts: int) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(payload_source, "open_part", stopping_after(parts, open_part))
        with pytest.raises(KeyboardInterrupt):
            _open(sealed, target, workers=1)
    output = unfinished_output(target, KEY)
    assert output is not None
    assert 0o700 == output.parent.stat().st_mode & 0o777
    assert not target.exists()
    return output


def test_open_goes_on(sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted opening opens only what it had not, and leaves nothing beside the model."""
    _interrupt(sealed, tmp_path / "opened", monkeypatch, 6)
    calls = counting(monkeypatch, payload_source, "open_part")
    _open(sealed, tmp_path / "opened")
    assert sealed.core.part_count - 6 == len(calls)
    assert FILES == read_model(tmp_path / "opened")
    assert {"bundle", "model", "opened"} == names(tmp_path)


def test_changed_plaintext_is_opened_again(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte changed in what an interrupted opening left never reaches the model."""
    left = _interrupt(sealed, tmp_path / "opened", monkeypatch, 6)
    data = bytearray((left / "a").read_bytes())
    data[PART + 1] ^= 1
    (left / "a").write_bytes(data)
    calls = counting(monkeypatch, payload_source, "open_part")
    _open(sealed, tmp_path / "opened")
    assert sealed.core.part_count - 5 == len(calls)
    assert FILES == read_model(tmp_path / "opened")


@pytest.mark.parametrize("what", ["file", "folder", "link", "hard link", "long", "fifo"])
def test_strangers_in_what_is_left_are_refused(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing that is not the model's own lands with it, and no link is written through."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    left = _interrupt(sealed, tmp_path / "opened", monkeypatch, 6)
    (left / "c").unlink(missing_ok=True)
    make: dict[str, Callable[[], object]] = {
        "file": (left / "stranger").touch,
        "folder": (left / "strange").mkdir,
        "link": lambda: (left / "c").symlink_to(precious),
        "hard link": lambda: os.link(precious, left / "c"),
        "long": lambda: (left / "c").write_bytes(bytes(PART)),
        "fifo": lambda: os.mkfifo(left / "c"),
    }
    make[what]()
    with pytest.raises(Refused) as refused:
        _open(sealed, tmp_path / "opened")
    assert "target.unfinished" == refused.value.check
    assert b"mine" == precious.read_bytes()
    assert not (tmp_path / "opened").exists()


def test_full_disk_can_be_mended(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full disk the opening goes on where it was, once there is room."""
    writes = iter(range(6))
    pwrite = os.pwrite

    def until_full(fd: int, data: memoryview, offset: int) -> int:
        if next(writes, None) is None:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", until_full)
        with pytest.raises(Unavailable, match="disk full"):
            _open(sealed, tmp_path / "opened", workers=1)
    calls = counting(monkeypatch, payload_source, "open_part")
    _open(sealed, tmp_path / "opened")
    assert sealed.core.part_count > len(calls) > 0
    assert FILES == read_model(tmp_path / "opened")


def test_unfinished_work_of_others_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    """A directory of unfinished work that others can reach is not used."""
    place = unfinished_path(tmp_path / "opened", KEY)
    (place / "output").mkdir(parents=True)
    place.chmod(0o755)
    with pytest.raises(Refused) as refused:
        _open(sealed, tmp_path / "opened")
    assert "target.unfinished" == refused.value.check


def test_two_runs_do_not_meet(sealed: Sealed, tmp_path: Path) -> None:
    """A second run of the same work is turned away while the first lives, and spoils nothing."""
    with resumable_directory(tmp_path / "opened", KEY) as directory:
        with pytest.raises(Refused, match="another run"):
            _open(sealed, tmp_path / "opened")
        (directory / "file").write_bytes(b"first")
    assert {"file"} == names(tmp_path / "opened")


def test_unfinished_work_is_not_swept(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another landing beside it leaves unfinished work alone, and removes what is empty of it."""
    left = _interrupt(sealed, tmp_path / "opened", monkeypatch, 6)
    empty = unfinished_path(tmp_path / "other", KEY)
    empty.mkdir(mode=0o700)
    with new_directory(tmp_path / "more"):
        pass
    assert left.is_dir()
    assert not empty.exists()


def test_given_up_request_leaves_no_plaintext(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened half way goes with its request, and when it is opened elsewhere instead."""
    ledger = Ledger(tmp_path / "requests")
    ledger.folder.mkdir()
    request = KEY * 4
    for target in (tmp_path / "opened", tmp_path / "other"):
        ledger.begin(request, target)
        assert set() == {n for n in names(tmp_path) if n.endswith(".unfinished")}
        left = _interrupt(sealed, target, monkeypatch, 6)
        ledger.begin(request, target)
        assert left.is_dir()
    ledger.forget(request)
    assert {"bundle", "model", "requests"} == names(tmp_path)
    assert set() == names(ledger.folder)


# ── checking ────────────────────────────────────────────────────────────────────────────────────


def _check(sealed: Sealed, folder: Path) -> int:
    with CheckMemory(folder, NOBODY, sealed.bundle, sealed.core) as memory:
        before = memory.count
        check_payload(sealed.bundle, sealed.core, checked=memory, workers=1)
    return before


def _interrupt_check(sealed: Sealed, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(payload_source, "row_digest", stopping_after(4, row_digest))
        with pytest.raises(KeyboardInterrupt):
            _check(sealed, folder)


def test_check_goes_on(sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted check reads only what it had not, and afterwards remembers nothing."""
    _interrupt_check(sealed, tmp_path / "home", monkeypatch)
    calls = counting(monkeypatch, payload_source, "row_digest")
    assert 4 == _check(sealed, tmp_path / "home")
    assert sealed.core.part_count - 4 == len(calls)
    assert set() == names(tmp_path / "home")


@pytest.mark.parametrize("name", [PAYLOAD, PARTS])
def test_check_of_changed_files_starts_again(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What was found good counts for the same files only: a changed one is read from the start."""
    _interrupt_check(sealed, tmp_path / "home", monkeypatch)
    path = sealed.bundle / name
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused):
        _check(sealed, tmp_path / "home")


def test_bad_part_is_found_after_an_interruption(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was bad before the interruption is bad after it."""
    payload = sealed.bundle / PAYLOAD
    data = bytearray(payload.read_bytes())
    data[-1] ^= 1
    payload.write_bytes(data)
    _interrupt_check(sealed, tmp_path / "home", monkeypatch)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            _check(sealed, tmp_path / "home")
        assert "part.digest" == refused.value.check
