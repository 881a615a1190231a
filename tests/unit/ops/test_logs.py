"""What the home of a log, or of a witness, remembers; and what becomes of who forgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from custody.encoding import encode
from custody.errors import Refused
from custody.formats.logstate import LogIdentity
from custody.formats.witnessing import CosignRequest
from custody.log.writer import Writer, create_log
from custody.ops.home import Home
from custody.ops.logs import (
    HomeLedger,
    advance_clock,
    answer_as_witness,
    init_witness,
    witness_signer,
)
from tests.sim.store import MemoryStore
from tests.unit.log.logs import ORIGIN, entries, signed, signer, trust

NOW = datetime(2027, 1, 5, 12, 0, tzinfo=UTC)


def test_a_clock_that_is_set_back_stops_the_log(tmp_path: Path) -> None:
    """More than five minutes before the latest write is refused; less is a clock set right."""
    home = Home(tmp_path / "home")
    advance_clock(home, NOW)
    advance_clock(home, NOW + timedelta(hours=2))
    advance_clock(home, NOW + timedelta(hours=2) - timedelta(minutes=5))
    with pytest.raises(Refused) as refused:
        advance_clock(home, NOW + timedelta(hours=2) - timedelta(minutes=5, seconds=1))
    assert "log.clock" == refused.value.check
    assert "2027-01-05T14:00:00Z" in refused.value.reason
    advance_clock(home, NOW + timedelta(hours=3))


def kept(home: Home, store: MemoryStore) -> Writer:
    """Keep a log in a home, with a few entries in it."""
    identity = LogIdentity(
        kind="custody/log/v1", origin=ORIGIN, token="none:", spki=signer().note_key.public
    )
    ledger = HomeLedger(home)
    create_log(store, signer(), ledger)
    (home.path / "log.json").write_bytes(encode(identity))
    writer = Writer(store, signer(), ledger)
    writer.append(entries(0, 3))
    return writer


@pytest.mark.parametrize("place", ["a-new-store", "the-old-one"])
def test_a_log_whose_promises_are_lost_signs_nothing(tmp_path: Path, place: str) -> None:
    """Without head.json a rewound store would look whole, and grow a second history."""
    home, store = Home(tmp_path / "home"), MemoryStore()
    early = dict(store.objects), dict(store.versions)
    writer = kept(home, store)
    (home.path / "head.json").unlink()
    if place == "a-new-store":
        store.objects, store.versions = early
        with pytest.raises(Refused) as refused:
            create_log(store, signer(), HomeLedger(home))
        assert "log.rewound" == refused.value.check
        return
    with pytest.raises(Refused) as refused:
        writer.append(entries(3, 4))
    assert "log.rewound" == refused.value.check
    assert "head.json" in refused.value.reason


def test_a_restored_home_does_not_go_on_with_its_log(tmp_path: Path) -> None:
    """A home that lacks heads which its key has signed cannot tell what else it has signed."""
    home, store = Home(tmp_path / "home"), MemoryStore()
    kept(home, store)
    early = (home.path / "head.json").read_bytes()
    Writer(store, signer(), HomeLedger(home)).append(entries(3, 9))
    (home.path / "head.json").write_bytes(early)
    with pytest.raises(Refused, match="9 entries are signed and published") as refused:
        Writer(store, signer(), HomeLedger(home)).append(entries(9, 10))
    assert "log.rewound" == refused.value.check


def test_a_log_whose_time_is_lost_is_not_written(tmp_path: Path) -> None:
    """Without clock.json a clock could be set back."""
    home, store = Home(tmp_path / "home"), MemoryStore()
    kept(home, store)
    with pytest.raises(Refused) as refused:
        advance_clock(home, NOW)
    assert "log.rewound" == refused.value.check


def test_a_witness_that_forgot_cosigns_nothing(tmp_path: Path) -> None:
    """Without witnessed.json it would cosign any fork, as one that it has never heard of."""
    home = Home(tmp_path / "home")
    init_witness(home, name="w1.example.com")
    mine, fork = signed(entries(0, 3)), signed(entries(0, 3, salt="other"))
    first = answer_as_witness(home, trust(), CosignRequest(0, (), mine).encode(), seconds=1)
    assert 200 == first.status
    (home.path / "witnessed.json").unlink()
    with pytest.raises(Refused) as refused:
        answer_as_witness(home, trust(), CosignRequest(0, (), fork).encode(), seconds=2)
    assert "log.rewound" == refused.value.check
    with pytest.raises(Refused):
        witness_signer(home)
