from __future__ import annotations

import copy
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from custody.crypto.notekeys import LogSigner
from custody.encoding import encode
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.logstate import Pending
from custody.formats.note import NoteSignature
from custody.log.tree import Tree
from custody.log.writer import Writer, create_log
from custody.transports.store import DirectoryStore
from tests.sim.store import Killed, MemoryLedger, MemoryStore, Steps
from tests.unit.log.logs import ORIGIN, entries, grown, head, new_log, signer


def rows_of(store: MemoryStore | DirectoryStore) -> list[bytes]:
    """Read a whole log back, every entry checked."""
    data = store.read("checkpoint", max_bytes=1 << 20)
    assert data is not None
    checkpoint = decode_checkpoint(data).checkpoint
    tree = Tree(store, size=checkpoint.size, head=checkpoint.root)
    return [entry for _, entry in tree.entries(0, tree.size)]


@given(st.lists(st.integers(0, 700), max_size=6))
@settings(deadline=None, max_examples=30)
def test_any_batches_give_the_tree_of_the_rfc(sizes: list[int]) -> None:
    """However entries are cut into batches, the head is that of the definition over all."""
    store, ledger = new_log()
    rows: list[bytes] = []
    for n, size in enumerate(sizes):
        writer = Writer(store, signer(), ledger)
        batch = entries(0, size, salt=f"{n}/")
        done = writer.append(batch)
        assert (len(rows), size) == (done.start, done.count)
        rows += batch
        assert head(rows) == done.signed.checkpoint
    assert rows == rows_of(store)


def test_the_objects_of_a_log_are_those_of_the_specification() -> None:
    """70,000 entries make exactly the tiles that tlog-tiles counts out for them."""
    store, _ = grown(70_000, batch=65_536)
    last = {path for path in store.objects if path.startswith("tile/")}
    assert 273 == len({p for p in last if p.startswith("tile/0/") and ".p/" not in p})
    assert {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} <= last
    assert "tile/entries/273.p/112" in last


def _writes_of_one_append() -> list[str]:
    store, ledger = grown(300)
    steps = Steps()
    store.steps = ledger.steps = steps
    Writer(store, signer(), ledger).append(entries(300, 900))
    return steps.names


WRITES = _writes_of_one_append()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, len(WRITES) + 1), ids=lambda at: WRITES[at - 1])
@pytest.mark.parametrize("error", [Killed, Unavailable])
def test_killed_at_any_write_the_log_goes_on(
    at: int, when: str, error: type[BaseException]
) -> None:
    """Ended before or after any write, what was published holds, and a retry adds nothing twice."""
    store, ledger = grown(300)
    store.steps = ledger.steps = Steps(at=at, when=when, error=error)
    with pytest.raises(error):
        Writer(store, signer(), ledger).append(entries(300, 900))
    store.steps = ledger.steps = Steps()
    assert rows_of(store) in (entries(0, 300), entries(0, 900))
    done = Writer(store, signer(), ledger).append(entries(300, 900))
    assert (300, 600) == (done.start, done.count)
    assert entries(0, 900) == rows_of(store)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, len(WRITES) + 1), ids=lambda at: WRITES[at - 1])
def test_killed_at_any_write_others_go_on(at: int, when: str) -> None:
    """Another batch after the kill finds a whole log: the dead writer's batch is in it or not."""
    store, ledger = grown(300)
    store.steps = ledger.steps = Steps(at=at, when=when)
    with pytest.raises(Killed):
        Writer(store, signer(), ledger).append(entries(300, 900))
    store.steps = ledger.steps = Steps()
    other = entries(0, 5, salt="other")
    Writer(store, signer(), ledger).append(other)
    rows = rows_of(store)
    assert rows in ([*entries(0, 300), *other], [*entries(0, 900), *other])
    # The intent is the first write: what was written down is carried out.
    assert (at, when) == (1, "before") or len(rows) == 905


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2])
def test_killed_while_it_begins(at: int, when: str) -> None:
    """A log whose beginning was cut short is begun again, or was begun."""
    store, ledger = MemoryStore(), MemoryLedger()
    store.steps = ledger.steps = Steps(at=at, when=when)
    with pytest.raises(Killed):
        create_log(store, signer(), ledger)
    store.steps = ledger.steps = Steps()
    if "checkpoint" not in store.objects:
        create_log(store, signer(), ledger)
    assert 0 == Writer(store, signer(), ledger).latest().checkpoint.size


def test_a_log_is_begun_once() -> None:
    """Neither the place of a log nor a key that has signed one is used for a second."""
    store, ledger = grown(3)
    for other_store, other_ledger in ((store, MemoryLedger()), (MemoryStore(), ledger)):
        with pytest.raises(Refused) as refused:
            create_log(other_store, signer(), other_ledger)
        assert "log.exists" == refused.value.check


def test_no_log_is_there() -> None:
    """Appending to nothing says what is missing."""
    with pytest.raises(Incomplete, match="no log"):
        Writer(MemoryStore(), signer(), MemoryLedger()).append(entries(0, 1))


def test_the_same_batch_again_is_the_same_batch() -> None:
    """A caller who does not know whether he was heard repeats himself without harm."""
    store, ledger = grown(10)
    again = [Writer(store, signer(), ledger).append(entries(10, 14)) for _ in range(3)]
    assert {(10, 4)} == {(done.start, done.count) for done in again}
    assert entries(0, 14) == rows_of(store)


def test_two_writers_share_a_log() -> None:
    """A writer that was overtaken counts the other's entries in and loses none of its own."""
    store, ledger = grown(10)
    slow = Writer(store, signer(), ledger)
    slow.append(entries(10, 20))
    Writer(store, signer(), ledger).append(entries(20, 300))
    done = slow.append(entries(300, 301))
    assert 300 == done.start
    assert entries(0, 301) == rows_of(store)


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    """Four writers on one directory: every batch is in the log, whole and in one piece."""
    store = DirectoryStore(tmp_path / "log")
    ledger = MemoryLedger()
    create_log(store, signer(), ledger)
    lock = threading.Lock()
    promise = ledger.promise

    def locked(head: object) -> None:
        with lock:
            promise(head)  # type: ignore[arg-type]

    ledger.promise = locked  # type: ignore[method-assign]
    failures: list[BaseException] = []

    def work(name: int) -> None:
        for n in range(5):
            while True:
                try:
                    writer = Writer(DirectoryStore(tmp_path / "log"), signer(), ledger)
                    writer.append(entries(0, 7, salt=f"{name}/{n}/"))
                    break
                except Refused as error:
                    if error.check != "log.busy":
                        failures.append(error)
                        return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    rows = rows_of(store)
    for name in range(4):
        for n in range(5):
            batch = entries(0, 7, salt=f"{name}/{n}/")
            at = rows.index(batch[0])
            assert batch == rows[at : at + 7]


def test_a_restored_backup_is_refused() -> None:
    """A store put back to an earlier state would get a second history: nothing is written."""
    store, ledger = grown(10)
    backup = copy.deepcopy(store)
    Writer(store, signer(), ledger).append(entries(10, 20))
    before = dict(backup.objects)
    with pytest.raises(Refused) as refused:
        Writer(backup, signer(), ledger).append(entries(0, 5, salt="other"))
    assert "log.rewound" == refused.value.check
    assert before == backup.objects


def test_a_checkpoint_that_was_put_back_is_published_again() -> None:
    """With its pending batch still there, the promised head is the only one that is signed."""
    store, ledger = grown(10)
    old = store.objects["checkpoint"]
    new = Writer(store, signer(), ledger).append(entries(10, 20)).signed.checkpoint
    store.objects["checkpoint"] = old
    assert new == Writer(store, signer(), ledger).latest().checkpoint


def test_another_history_is_refused() -> None:
    """A log that does not continue what this home has promised is not appended to."""
    _, ledger = grown(10)
    other, _ = grown(20, salt="other")
    with pytest.raises(Refused) as refused:
        Writer(other, signer(), ledger).append(entries(0, 1))
    assert "log.rewound" == refused.value.check


def test_a_promise_is_kept() -> None:
    """A pending batch is carried out only if it gives the head that was promised for it."""
    store, ledger = grown(10)
    checkpoint = head(entries(0, 10))
    pending = Pending(
        kind="custody/log-pending/v1",
        origin=ORIGIN,
        size=10,
        root=checkpoint.root,
        entries=tuple(entries(10, 12)),
    )
    store.objects["pending"] = encode(pending)
    assert ledger.head is not None
    for root, works in ((bytes(32), False), (head(entries(0, 12)).root, True)):
        promised = MemoryLedger(head=structs.replace(ledger.head, size=12, root=root))
        writer = Writer(copy.deepcopy(store), signer(), promised)
        if works:
            assert 12 == writer.latest().checkpoint.size
            continue
        with pytest.raises(Refused) as refused:
            writer.latest()
        assert "log.rewound" == refused.value.check


def test_another_log_is_not_appended_to() -> None:
    """The checkpoint must be this log's, signed by this log's key."""
    store, ledger = grown(3)
    stranger = LogSigner(ORIGIN, signer("elsewhere").key)
    for other, check in ((stranger, "log.signature"), (signer("elsewhere"), "log.origin")):
        with pytest.raises(Refused) as refused:
            Writer(store, other, ledger).latest()
        assert check == refused.value.check


def test_cosignatures_come_before_publication() -> None:
    """Where witnesses are asked, nothing is published without them, and nothing is lost."""
    store, ledger = grown(10)

    def nobody(*_: object) -> list[NoteSignature]:
        raise Unavailable("no witness answers")

    with pytest.raises(Unavailable):
        Writer(store, signer(), ledger, cosigning=nobody).append(entries(10, 20))
    assert entries(0, 10) == rows_of(store)
    line = NoteSignature("w", b"abcd", bytes(72))
    done = Writer(store, signer(), ledger, cosigning=lambda *_: [line]).append(entries(10, 20))
    assert line in done.signed.note.signatures
    assert entries(0, 20) == rows_of(store)


def test_limits() -> None:
    """An entry that no bundle holds, and a batch that is no batch, are refused before any write."""
    store, ledger = grown(1)
    before = dict(store.objects)
    for batch in ([bytes(65_536)], [b""] * 65_537):
        with pytest.raises(Malformed):
            Writer(store, signer(), ledger).append(batch)
    assert before == store.objects
    assert 1 == Writer(store, signer(), ledger).append([bytes(65_535)]).count
