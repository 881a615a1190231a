"""No reader does anything but read, or say that its input is malformed, whatever it is given.

`make test` gives all readers together ``WALL_SECONDS``, on as many processors as there are: of some
80 readers each has 120 s x 2 / 80, three seconds on two processors, and 20 s from fourteen
processors on.  `make soak` gives each ten minutes.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Mapping
from os import cpu_count

import pytest

from custody.errors import CustodyError
from tests.fuzz.fuzzing import Found, fuzz_all
from tests.fuzz.parsers import PARSERS
from tests.unit.crypto.vectors import ROOT

WALL_SECONDS = 120.0
EACH_SECONDS = min(20.0, WALL_SECONDS * (cpu_count() or 1) / len(PARSERS))
SOAK_SECONDS = 600.0
SEED = 1
_PREFIXES = ("parse_", "decode_", "read_", "unpack_", "cut_")
_ROOMS = ("custody/formats", "custody/crypto")
#: Readers of text that are part of another that is here, or of something that nobody else writes.
_ELSEWHERE = {
    "checkpoint.parse_size",
    "certificate_reader.read_certificate",
}


@pytest.fixture(scope="module")
def found() -> Mapping[str, Found]:
    """Fuzz every reader once, all at a time, always from the same seed.

    As with Hypothesis (tests/conftest.py): searching is what a soak is for.
    """
    return fuzz_all(EACH_SECONDS, SEED)


@pytest.mark.parametrize("name", PARSERS)
def test_good_input_is_read(name: str) -> None:
    """A reader begins from input that it takes: from junk alone it would never get far."""
    parser, taken = PARSERS[name], 0
    for seed in parser.seeds():
        try:
            parser.read(seed)
            taken += 1
        except CustodyError:
            continue
    # The root of a table is its manifest's to say: rows alone are read and refused.
    assert taken or name == "parts.decode_parts"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PARSERS)
def test_a_reader_reads_or_says_malformed(name: str, found: Mapping[str, Found]) -> None:
    """No changed input makes a reader crash, hang, or take two spellings of one thing."""
    assert "" == found[name].crash
    assert found[name].inputs > 50


@pytest.mark.soak
def test_every_reader_for_ten_minutes() -> None:
    """The same for ten minutes each."""
    crashes = {f.name: f.crash for f in fuzz_all(SOAK_SECONDS, random.randrange(2**32)).values()}
    assert {} == {name: crash for name, crash in crashes.items() if crash}


def readers() -> set[str]:
    """List the functions that read bytes or text, as module and name."""
    names = set()
    for room in _ROOMS:
        for path in (ROOT / room).glob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if (
                    isinstance(node, ast.FunctionDef)
                    and node.name.startswith(_PREFIXES)
                    and node.args.args
                    and ast.unparse(node.args.args[0].annotation or ast.Constant(0))
                    in {"bytes", "str"}
                ):
                    names.add(f"{path.stem}.{node.name}")
    return names


def test_no_reader_is_left_out() -> None:
    """Whatever reads bytes or text in formats and crypto is fuzzed."""
    assert set() == readers() - {name.partition("[")[0] for name in PARSERS}
