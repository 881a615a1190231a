"""What a log's home remembers of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from custody.errors import Refused
from custody.ops.home import Home
from custody.ops.logs import advance_clock

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
