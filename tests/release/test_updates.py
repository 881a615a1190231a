"""Updates: a bundle that carries only what differs from a model the host has, on a real swtpm."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from custody.encoding import Digest
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.keys.tpm import open_host
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from custody.ops.bundle import Bundle
from custody.ops.check import check_bundle
from custody.ops.delta import known_base
from custody.ops.open import Opened, open_release
from custody.ops.seal import Sealed, SealOrder, seal_model
from custody.ops.unlock import InMemory, unlock_release
from custody.rules.verdicts import passed
from tests.release.cast import NOW, Cast
from tests.release.test_release import same_tree

OFFICERS = ("sec1", "sec2", "lead1")


@pytest.fixture
def cast(machine: Swtpm, tmp_path: Path) -> Cast:
    """Give a cast whose host has booted and is enrolled."""
    cast = Cast(tmp_path, machine, open_host(TpmUri(tcti=machine.tcti)))
    cast.boot()
    cast.enrol()
    return cast


class Update:
    """A first release that was opened, and a second that is a delta to it."""

    def __init__(self, cast: Cast, folder: Path) -> None:
        self.cast = cast
        self.folder = folder
        self.memory = cast.home("pub").folder("sealed")
        first = cast.model("first")
        (first / "frozen.bin").write_bytes(os.urandom(1 << 20))
        self.sealed = self.seal(first, "first.bundle")
        self.base = folder / "base"
        self.open(self.bundle("first.bundle"), self.base)
        self.model = folder / "second"
        shutil.copytree(first, self.model)
        (self.model / "model.safetensors").write_bytes(os.urandom(210_000))
        (self.model / "adapter.bin").write_bytes(os.urandom(1000))
        known = known_base(folder / "first.bundle", self.model, memory=self.memory)
        self.delta = self.seal(self.model, "second.bundle", base=known)

    def seal(self, model: Path, name: str, **changes: object) -> Sealed:
        """Seal as the publisher, and remember it in his home."""
        order = SealOrder(name="tiny", version="1.0", not_after=NOW + timedelta(days=30))
        sealed = seal_model(
            model,
            self.folder / name,
            replace(order, part_size_bytes=1 << 16, **changes),  # type: ignore[arg-type]
            situation=self.cast.situation("pub"),
            signer=self.cast.people["pub"].signer,
        )
        assert sealed.remembered is not None
        sealed.remembered.remember(self.memory)
        return sealed

    def bundle(self, name: str = "second.bundle") -> Bundle:
        """Read a bundle."""
        return Bundle.at(self.folder / name)

    def open(
        self,
        bundle: Bundle,
        target: Path,
        *,
        base: Path | None = None,
        request: Statement[Request] | None = None,
    ) -> Opened:
        """Open as the host, with everybody's approval."""
        request = request or self.cast.request(bundle)
        answers = [self.cast.approve(bundle, request, who) for who in OFFICERS]
        return open_release(
            bundle,
            request,
            target,
            situation=self.cast.situation("host", *answers),
            tpm=self.cast.tpm,
            place=self.cast.place,
            base=base,
        )


def test_an_update_is_released_and_opened_with_its_base(cast: Cast, tmp_path: Path) -> None:
    """An update carries what is new, is checked with no key, and gives the new model whole."""
    update = Update(cast, tmp_path)
    bundle = update.bundle()
    assert 1 << 20 <= update.delta.taken_bytes
    assert update.delta.payload_bytes < update.sealed.payload_bytes // 2
    assert passed(check_bundle(bundle, situation=cast.situation("pub")))

    opened = update.open(bundle, tmp_path / "opened", base=update.base)
    assert same_tree(update.model, tmp_path / "opened")
    base = opened.contents.base
    assert base is not None
    assert (update.sealed.statement.digest, update.delta.taken_bytes) == (
        base.manifest,
        base.size_bytes,
    )


def test_an_update_to_an_update_opens(cast: Cast, tmp_path: Path) -> None:
    """What an update made serves as the base of the next."""
    update = Update(cast, tmp_path)
    update.open(update.bundle(), tmp_path / "opened", base=update.base)
    (update.model / "adapter.bin").write_bytes(b"third")
    known = known_base(tmp_path / "second.bundle", update.model, memory=update.memory)
    third = update.seal(update.model, "third.bundle", base=known)
    update.open(update.bundle("third.bundle"), tmp_path / "third", base=tmp_path / "opened")
    assert same_tree(update.model, tmp_path / "third")
    assert 1 << 16 == third.payload_bytes


def test_what_nobody_remembers_needs_the_files(cast: Cast, tmp_path: Path) -> None:
    """A base may be named by its manifest alone; in another home only its files say what it was."""
    update = Update(cast, tmp_path)
    manifest = tmp_path / "first.bundle" / "manifest.dsse"
    digest = update.sealed.statement.digest
    assert digest == known_base(manifest, update.model, memory=update.memory).manifest
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(Incomplete) as incomplete:
        known_base(manifest, update.model, memory=elsewhere)
    assert "--base-model" in (incomplete.value.hint or "")
    known = known_base(manifest, update.model, memory=elsewhere, base_model=tmp_path / "first")
    sealed = update.seal(update.model, "again.bundle", base=known)
    update.open(update.bundle("again.bundle"), tmp_path / "again", base=update.base)
    assert same_tree(update.model, tmp_path / "again")
    assert sealed.payload_bytes <= update.delta.payload_bytes


def test_a_wrong_base_spends_no_approval(cast: Cast, tmp_path: Path) -> None:
    """No base, or another one, is refused with nothing burnt: the right one still opens."""
    update = Update(cast, tmp_path)
    bundle = update.bundle()
    request = cast.request(bundle)
    wrong = tmp_path / "wrong"
    shutil.copytree(update.base, wrong)
    data = bytearray((wrong / "frozen.bin").read_bytes())
    data[99] ^= 1
    (wrong / "frozen.bin").write_bytes(data)

    def check(base: Path | None) -> str:
        with pytest.raises(Refused) as refused:
            update.open(bundle, tmp_path / "opened", base=base, request=request)
        return refused.value.check

    assert "base.missing" == check(None)
    assert "base.different" == check(wrong)
    assert not (tmp_path / "opened").exists()
    update.open(bundle, tmp_path / "opened", base=update.base, request=request)
    assert same_tree(update.model, tmp_path / "opened")


def test_an_update_is_read_in_memory_through_its_base(cast: Cast, tmp_path: Path) -> None:
    """Without the base it is refused before anything is spent; with it every file is there."""
    update = Update(cast, tmp_path)
    bundle = update.bundle()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in OFFICERS]

    def unlocked(base: Path | None) -> AbstractContextManager[InMemory]:
        return unlock_release(
            bundle,
            request,
            situation=cast.situation("host", *answers),
            tpm=cast.tpm,
            place=cast.place,
            base=base,
        )

    with pytest.raises(Refused) as refused, unlocked(None):
        pass
    assert "base.missing" == refused.value.check
    with unlocked(update.base) as model:
        for file in model.reader.files():
            assert (update.model / file.name).read_bytes() == model.reader.read(file.name)


def test_an_update_shows_storage_no_more_than_a_model(cast: Cast, tmp_path: Path) -> None:
    """No public byte of an update names its base, its files or its size."""
    update = Update(cast, tmp_path)
    public = b"".join(p.read_bytes() for p in sorted((tmp_path / "second.bundle").iterdir()))
    digest: Digest = update.sealed.statement.digest
    for secret in (digest.encode(), bytes.fromhex(digest), b"frozen", b"adapter"):
        assert secret not in public
