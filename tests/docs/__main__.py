"""``python -m tests.docs`` writes what the commands of the guides print now into the guides.

Digests stay those that are there, so only what really changed shows in a diff; blocks with gaps
(``...``) are for people, who are told which ones no longer agree.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.story import story, world
from tests.docs.terminal import agree


def main() -> None:
    """Play the story, and rewrite the blocks that no longer agree."""
    rewritten: dict[Path, list[tuple[int, str, str]]] = {}
    with world(recording=True) as place:
        for block in story():
            shown = place.play(block)
            if block.is_hidden or block.is_file or agree(block.text, shown):
                continue
            if "\n...\n" in block.text:
                print(f"differs, and has gaps: {block.label}\n{shown}", file=sys.stderr)  # noqa: T201
                continue
            change = (block.start, block.text, place.digests.as_written(shown))
            rewritten.setdefault(block.guide, []).append(change)
    for guide, changes in rewritten.items():
        text = guide.read_text()
        for start, old, new in sorted(changes, reverse=True):
            text = text[:start] + new + text[start + len(old) :]
        guide.write_text(text)
        print(guide)  # noqa: T201


if __name__ == "__main__":
    main()
