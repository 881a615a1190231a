"""One fuzzer for all readers: good input, changed, for a time; what is new is gone on from."""

from __future__ import annotations

import random
import re
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from os import cpu_count

from custody.errors import CustodyError, Malformed
from tests.fuzz.mutate import mutated
from tests.fuzz.parsers import PARSERS, Parser

_NUMBERS = re.compile(r"\d+|'[^']*'|0x[0-9a-f]+")
#: An input that takes a reader longer, in seconds of its processor, is a way to stop it.
SLOWEST_SECONDS = 5.0
_MAX_CORPUS = 2000


@dataclass(frozen=True)
class Found:
    """What became of one reader: how many inputs it was given and took, and what it fell over."""

    name: str
    inputs: int
    taken: int
    answers: int
    crash: str


def fuzz(name: str, seconds: float, seed: int) -> Found:
    """Give a reader changed input for ``seconds``; stop at the first crash."""
    warnings.simplefilter("ignore")  # of libraries, about certificates that nobody would issue
    parser, rng = PARSERS[name], random.Random(f"{name} {seed}")
    corpus = list(parser.seeds())
    known: set[str] = set()
    inputs = taken = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(rng, rng.choice(corpus), corpus)
        inputs += 1
        answer = _answer(parser, data)
        if answer.startswith("crash"):
            return Found(name, inputs, taken, len(known), f"{answer}\ninput {data.hex()}")
        taken += answer == "taken"
        # An answer that was not given before means that the reader got somewhere new.
        if answer not in known and len(corpus) < _MAX_CORPUS:
            known.add(answer)
            corpus.append(data)
    return Found(name, inputs, taken, len(known), "")


def _answer(parser: Parser, data: bytes) -> str:
    started = time.process_time()
    try:
        value = parser.read(data)
        if parser.write is not None and parser.write(value) != data:
            return "crash: takes another spelling of what it writes"
        answer = "taken"
    except CustodyError as error:
        if not isinstance(error, (Malformed, *parser.also)):
            return f"crash: {type(error).__name__} where only Malformed is meant: {error.reason}"
        answer = _NUMBERS.sub("#", error.reason)[:120]
    except BaseException:  # noqa: BLE001  (whatever it is, it is what is looked for)
        return f"crash: {traceback.format_exc()}"
    if time.process_time() - started > SLOWEST_SECONDS:
        return f"crash: takes more than {SLOWEST_SECONDS} s"
    return answer


def fuzz_all(seconds: float, seed: int) -> dict[str, Found]:
    """Fuzz every reader for so long, as many at a time as there are processors."""
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = {name: pool.submit(fuzz, name, seconds, seed) for name in PARSERS}
        return {name: job.result() for name, job in jobs.items()}
