from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from custody.cli._reviewed import answer_lifetime

_DAY = 24 * 3600


@pytest.mark.parametrize("hours", [0, -1, 0.09, 25, 1000, 1e99, float("inf"), float("nan")])
def test_hours_the_policy_does_not_allow_are_a_usage_error(hours: float) -> None:
    """Nothing is cut, and nothing is taken for "not given"."""
    with pytest.raises(typer.BadParameter) as caught:
        answer_lifetime(hours, longest=_DAY)
    assert "--hours" == caught.value.param_hint


def test_hours_become_whole_seconds() -> None:
    """A third of an hour is twenty minutes, and no hours are the policy's limit."""
    assert timedelta(seconds=1199) == answer_lifetime(0.3332, longest=_DAY)
    assert answer_lifetime(None, longest=_DAY) is None
