"""Pictures with a lane for everybody: where lanes lie, and what is written beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from custody.report.words import clipped

#: CSS pixels: the width of the names, the height of what is above the first lane, and of a lane.
LEFT, TOP, ROW = 150, 26, 34
_RIGHT, _FOOT, _WIDTH = 24, 34, 960
_TICKS = 6
#: How far apart signs of one lane are, where there is room.
_APART = 25
_LANE_CHARS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A word somewhere in a picture."""

    x: int
    y: int
    text: str


def lane_heights(names: Sequence[str]) -> Mapping[str, int]:
    """Give everybody a lane, from the top down."""
    return {name: TOP + ROW * place for place, name in enumerate(names)}


def lane_captions(heights: Mapping[str, int], *, longest: int) -> tuple[Caption, ...]:
    """Write the name beside each lane, cut to ``longest`` characters."""
    return tuple(Caption(x=0, y=y, text=clipped(name, longest)) for name, y in heights.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that happened in a lane."""

    lane: str
    at: datetime
    sign: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One sign in a picture."""

    x: int
    y: int
    sign: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePicture:
    """Lanes, time from left to right; lengths are CSS pixels.  ``left_out``: lanes not drawn."""

    marks: tuple[Mark, ...]
    lanes: tuple[Caption, ...]
    ticks: tuple[Caption, ...]
    left_out: int
    width: int
    height: int


def draw_times(
    acts: Sequence[Act], lanes: Sequence[str], *, since: datetime, until: datetime, most: int
) -> TimePicture:
    """Draw acts in their lanes, of which ``most`` fit.

    Signs that would lie on each other are moved apart: their order is that of time.
    """
    heights = lane_heights(lanes[:most])
    span = max((until - since).total_seconds(), 1.0)
    wide = _WIDTH - LEFT - _RIGHT

    def across(at: datetime) -> int:
        part = min(max((at - since).total_seconds() / span, 0.0), 1.0)
        return LEFT + 12 + int(part * (wide - 24))

    bottom = TOP + ROW * max(len(heights), 1) - 6
    marks = []
    for lane, y in heights.items():
        own = sorted((act for act in acts if act.lane == lane), key=lambda act: act.at)
        places = _apart([across(act.at) for act in own], first=across(since), last=across(until))
        marks += [
            Mark(x=x, y=y, sign=act.sign, title=act.title)
            for x, act in zip(places, own, strict=True)
        ]
    return TimePicture(
        marks=tuple(marks),
        lanes=lane_captions(heights, longest=_LANE_CHARS),
        ticks=tuple(_ticks(since, until, bottom, across)),
        left_out=len(lanes) - len(heights),
        width=_WIDTH,
        height=bottom + _FOOT,
    )


def _apart(places: Sequence[int], *, first: int, last: int) -> Sequence[int]:
    """Move places apart, as far as there is room between the first and the last."""
    step = min(_APART, (last - first) // max(len(places) - 1, 1))
    found: list[int] = []
    for place in places:
        found.append(max(place, found[-1] + step) if found else place)
    end = last
    for at in reversed(range(len(found))):
        found[at] = min(found[at], end)
        end = found[at] - step
    return found


def _ticks(
    since: datetime, until: datetime, y: int, across: Callable[[datetime], int]
) -> Iterator[Caption]:
    """Write dates along the foot of a picture."""
    step = (until - since) / (_TICKS - 1)
    long = until - since
    form = "%d %b" if long >= timedelta(days=_TICKS) else "%d %b %H:%M"
    if (since.year, since.month) != (until.year, until.month) and long >= timedelta(days=90):
        form = "%d %b %Y"
    for n in range(_TICKS):
        at = since + step * n
        yield Caption(x=across(at), y=y + 18, text=f"{at:{form}}")
