"""Directories and buckets: what a log asks of either."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from custody.errors import Malformed, Refused, Unavailable
from custody.log.offers import OfferStore, drop_offers, put_offers, take_offers
from custody.log.reader import Followed, follow
from custody.log.storage import Store, Stored
from custody.log.writer import Writer, create_log
from custody.transports.api import open_source, open_store
from custody.transports.store import DirectoryStore
from tests.sim.store import Killed, MemoryLedger, MemoryStore, Steps
from tests.unit.log.logs import NOTHING, entries, signer, trust


def bucket() -> OfferStore:
    """A bucket in memory."""
    obstore = pytest.importorskip("obstore")
    from custody.transports.objects import BucketStore

    return BucketStore(obstore.store.MemoryStore(), name="memory://")


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OfferStore:
    """Each kind of store, empty."""
    return bucket() if request.param == "bucket" else DirectoryStore(tmp_path / "log")


def test_a_log_lies_in_any_store(store: Store) -> None:
    """A log is begun, grown by several writers and followed."""
    ledger = MemoryLedger()
    create_log(store, signer(), ledger)
    for at in range(0, 900, 300):
        Writer(store, signer(), ledger).append(entries(at, at + 300))
    found = follow(store, trust(), NOTHING)
    assert isinstance(found, Followed)
    assert entries(0, 900) == [entry for _, entry in found.new_entries()]


@dataclass
class Stepped:
    """A store whose process ends before or after any write; each object is a write of its own."""

    inner: Store
    steps: Steps = field(default_factory=Steps)

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        return self.inner.read(path, max_bytes=max_bytes)

    def look(self, path: str, *, max_bytes: int) -> Stored | None:
        return self.inner.look(path, max_bytes=max_bytes)

    def create(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for path, data in objects:
            self.steps.reach(f"create {path}", "before")
            self.inner.create([(path, data)])
            self.steps.reach(f"create {path}", "after")

    def swap(self, path: str, data: bytes, *, version: str | None) -> str:
        self.steps.reach(f"swap {path}", "before")
        new = self.inner.swap(path, data, version=version)
        self.steps.reach(f"swap {path}", "after")
        return new


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_killed_at_any_write_a_real_store_goes_on(kind: str, when: str, tmp_path: Path) -> None:
    """Directories and buckets keep what was published, and a retry adds nothing twice."""
    for at in range(1, _writes() + 1):
        plain = bucket() if kind == "bucket" else DirectoryStore(tmp_path / f"log-{at}")
        store, ledger = Stepped(plain), MemoryLedger()
        create_log(store, signer(), ledger)
        Writer(store, signer(), ledger).append(entries(0, 300))
        store.steps = Steps(at=at, when=when)
        with pytest.raises(Killed):
            Writer(store, signer(), ledger).append(entries(300, 600))
        whole, store.steps = rows(store), Steps()
        assert whole in (entries(0, 300), entries(0, 600))
        done = Writer(store, signer(), ledger).append(entries(300, 600))
        assert (300, 300) == (done.start, done.count)
        assert entries(0, 600) == rows(plain)


def _writes() -> int:
    """How many writes an append of 300 entries to 300 takes."""
    counted, ledger = Stepped(MemoryStore()), MemoryLedger()
    create_log(counted, signer(), ledger)
    Writer(counted, signer(), ledger).append(entries(0, 300))
    counted.steps = Steps()
    Writer(counted, signer(), ledger).append(entries(300, 600))
    return len(counted.steps.names)


def rows(store: Store) -> list[bytes]:
    """Read a log back as a stranger does who follows it from nothing."""
    found = follow(store, trust(), NOTHING)
    assert isinstance(found, Followed)
    return [entry for _, entry in found.new_entries()]


def test_a_bucket_without_conditional_writes_is_no_place_for_a_log(tmp_path: Path) -> None:
    """A store that cannot compare and swap says so at the first replacement, and loses nothing."""
    obstore = pytest.importorskip("obstore")
    from custody.transports.objects import BucketStore

    store, ledger = BucketStore(obstore.store.LocalStore(tmp_path), name="local"), MemoryLedger()
    create_log(store, signer(), ledger)
    with pytest.raises(Unavailable):
        Writer(store, signer(), ledger).append(entries(0, 1))
    assert [] == rows(store)


def test_objects_are_made_once(store: Store) -> None:
    """The same object again is no matter; another one in its place is refused."""
    store.create([("tile/0/000.p/1", b"one"), ("tile/0/000.p/2", b"two")])
    store.create([("tile/0/000.p/1", b"one"), ("tile/0/000.p/3", b"three")])
    with pytest.raises(Refused) as refused:
        store.create([("tile/0/000.p/2", b"TWO")])
    assert "store.differs" == refused.value.check
    assert b"two" == store.read("tile/0/000.p/2", max_bytes=10)
    assert b"three" == store.read("tile/0/000.p/3", max_bytes=10)


def test_swaps_compare(store: Store) -> None:
    """Only who knows the newest version replaces it."""
    first = store.swap("checkpoint", b"one", version=None)
    second = store.swap("checkpoint", b"two", version=first)
    for version in (None, first, "junk"):
        with pytest.raises(Refused) as refused:
            store.swap("checkpoint", b"three", version=version)
        assert "store.changed" == refused.value.check
    found = store.look("checkpoint", max_bytes=10)
    assert found is not None
    assert (b"two", second) == (found.data, found.version)


def test_offers_wait_in_any_store(store: OfferStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is offered twice waits once, junk is taken away, and a full tray takes no more."""
    assert () == take_offers(store)
    some = entries(0, 3)
    put_offers(store, some)
    put_offers(store, some[:1])
    store.create([("offered/junk", b"junk"), ("offered/" + "0" * 64, some[0])])
    assert sorted(some) == sorted(take_offers(store))
    assert 3 == len(store.names("offered"))
    with pytest.raises(Malformed):
        put_offers(store, [b"no entry"])
    monkeypatch.setattr("custody.log.offers.MAX_OFFERS", 3)
    with pytest.raises(Refused) as refused:
        put_offers(store, entries(3, 4))
    assert "log.offers" == refused.value.check
    drop_offers(store, some)
    drop_offers(store, some)
    assert () == store.names("offered")


def test_what_is_not_there_is_none(store: Store) -> None:
    """Absence is an answer; an oversize object is malformed."""
    assert None is store.read("checkpoint", max_bytes=10)
    assert None is store.look("tile/0/000", max_bytes=10)
    store.swap("checkpoint", bytes(11), version=None)
    with pytest.raises(Malformed):
        store.read("checkpoint", max_bytes=10)


def test_one_of_many_swaps_wins(tmp_path: Path) -> None:
    """Of eight writers at once, one replaces the first version."""
    first = DirectoryStore(tmp_path).swap("checkpoint", b"0", version=None)
    won: list[int] = []

    def work(n: int) -> None:
        try:
            DirectoryStore(tmp_path).swap("checkpoint", b"%d" % n, version=first)
        except Refused:
            return
        won.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % n for n in won] == [DirectoryStore(tmp_path).read("checkpoint", max_bytes=9)]


def test_a_directory_holds_nothing_half_written(tmp_path: Path) -> None:
    """Only objects, the lock and an empty staging folder are left, and links are not followed."""
    store = DirectoryStore(tmp_path / "log")
    store.create([("tile/0/000", b"x")])
    store.swap("checkpoint", b"y", version=None)
    assert {".lock", ".staging", "checkpoint", "tile"} == {
        path.name for path in store.root.iterdir()
    }
    assert [] == list((store.root / ".staging").iterdir())
    (store.root / "secret").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"no")
    with pytest.raises(Unavailable):
        store.read("secret", max_bytes=10)


def test_what_a_killed_write_left_is_swept(tmp_path: Path) -> None:
    """A staging file of the day before yesterday goes with the next swap; a fresh one stays."""
    store = DirectoryStore(tmp_path)
    first = store.swap("checkpoint", b"1", version=None)
    for name in ("old", "new"):
        (tmp_path / ".staging" / name).write_bytes(b"")
    os.utime(tmp_path / ".staging" / "old", (0, 0))
    store.swap("checkpoint", b"2", version=first)
    assert [tmp_path / ".staging" / "new"] == list((tmp_path / ".staging").iterdir())


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", ".lock", "a/../b", "", "A", "a" * 300])
def test_paths_stay_inside(path: str, tmp_path: Path) -> None:
    """No path leads out of a store, or to what lies beside its objects."""
    with pytest.raises(Malformed):
        DirectoryStore(tmp_path).read(path, max_bytes=10)


def test_a_full_or_read_only_place_is_unavailable(tmp_path: Path) -> None:
    """What the disk does not allow is unavailable, named, and nothing of ours crashes."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable) as unavailable:
        DirectoryStore(tmp_path / "file").swap("checkpoint", b"x", version=None)
    assert str(tmp_path / "file") in str(unavailable.value)


def test_places(tmp_path: Path) -> None:
    """A place is told by its address: directories, buckets, and the web only to read."""
    assert isinstance(open_store(str(tmp_path)), DirectoryStore)
    for wrong in ("https://log.example.com", "ftp://log.example.com"):
        with pytest.raises(Malformed):
            open_store(wrong)
    with pytest.raises(Malformed):
        open_source("ftp://log.example.com")
    with pytest.raises(Unavailable):
        open_source(str(tmp_path / "nowhere"))
    assert "WebSource('https://log.example.com')" == repr(open_source("https://log.example.com/"))
