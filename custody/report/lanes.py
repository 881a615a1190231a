"""Pictures with a lane for everybody: where lanes lie, and what is written beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from custody.report.words import clipped

#: CSS pixels: the width of the names, the height of what is above the first lane, and of a lane.
LEFT, TOP, ROW = 150, 26, 34


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
