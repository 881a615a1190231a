"""Measure, print a table, and write ``latest.json``, ``machine.json`` and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from compileall import compile_dir
from contextlib import ExitStack, contextmanager
from pathlib import Path

import custody
from benchmarks import (
    attestation,
    compression,
    disk,
    engine,
    log,
    machine,
    memory,
    open,
    release,
    seal,
    slots,
    startup,
    verify_model,
)
from benchmarks.bench import Bench
from benchmarks.cast import actors
from benchmarks.document import markdown
from benchmarks.model import make_model
from benchmarks.peers import Age, ModelSigning
from benchmarks.room import SHARED_MEMORY, room
from benchmarks.rows import Row, load, save, table

_HERE = Path(__file__).parent
_LATEST = _HERE / "latest.json"
_MACHINE = _HERE / "machine.json"
_STREAM = _HERE / "stream.json"
_PAGE = _HERE.parent / "docs" / "benchmarks.md"

#: Each gives rows; in this order, because opening needs what sealing made.
BENCHMARKS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "seal": seal.rows,
    "open": open.rows,
    "verify": verify_model.rows,
    "memory": memory.rows,
    "engine": engine.rows,
    "disk": disk.rows,
    "compression": compression.rows,
    "release": release.rows,
    "slots": slots.rows,
    "attestation": attestation.rows,
    "log": log.rows,
    "startup": startup.rows,
}


def main() -> None:
    """Run what was asked for."""
    asked = _arguments()
    if asked.only == ["document"]:
        _write_page(load(_LATEST), json.loads(_MACHINE.read_text()))
        return
    with _bench(asked) as bench:
        say(f"{bench.size_words()} in {bench.room.path.parent} {bench.room.note}".rstrip())
        found = list(_measure(bench, asked.only or list(BENCHMARKS)))
        about = machine.describe(bench)
    print(table(found))
    if not asked.only:
        save(_LATEST, found)
        _MACHINE.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        _write_page(found, about)
        say(f"written: {_LATEST.name}, {_MACHINE.name}, docs/{_PAGE.name}")


def _write_page(rows: Sequence[Row], about: Mapping[str, str]) -> None:
    _PAGE.write_text(markdown(rows, about, json.loads(_STREAM.read_text())))


def _measure(bench: Bench, names: list[str]) -> Iterator[Row]:
    for name in names:
        begun = time.monotonic()
        yield from BENCHMARKS[name](bench)
        say(f"{name}: {time.monotonic() - begun:.0f} s")


@contextmanager
def _bench(asked: argparse.Namespace) -> Iterator[Bench]:
    # As every installation comes: a checkout under PYTHONDONTWRITEBYTECODE has none, and would be
    # compiled anew by each command that is measured.
    compile_dir(Path(custody.__file__).parent, quiet=1)
    with ExitStack() as stack:
        place = stack.enter_context(room(int(asked.gib * (1 << 30)), asked.room))
        yield Bench(
            room=place,
            actors=stack.enter_context(actors()),
            model=make_model(place.path, place.model_bytes),
            age=Age.make(place.path),
            model_signing=ModelSigning.make(place.path),
            rounds=asked.rounds,
        )


def say(words: str) -> None:
    """Tell whoever waits; the table alone goes to stdout."""
    print(f"bench: {words}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "only",
        nargs="*",
        metavar="NAME",
        help=f"only some: {', '.join(BENCHMARKS)}; or document, to write the page again",
    )
    parser.add_argument("--gib", type=float, default=2, help="size of the model")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each tool")
    parser.add_argument("--room", type=Path, default=SHARED_MEMORY, help="where to work")
    return parser.parse_args()


if __name__ == "__main__":
    main()
