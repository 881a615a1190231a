"""Threads that work through a list of jobs together with whoever gave it to them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

J = TypeVar("J")

_TELL_SECONDS = 0.1


class Crew:
    """As many threads as there are cores, made when first needed, for all callers together."""

    def __init__(self, workers: int | None = None) -> None:
        """Take how many may work for one caller, himself included."""
        self.workers = max(1, workers or len(os.sched_getaffinity(0)))
        self._pool: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    def run(
        self, jobs: Sequence[J], work: Callable[[J], None], tell: Callable[[], None] | None = None
    ) -> None:
        """Do all jobs, begun in their order, and return when nobody works on them any more.

        After an error no job is begun; the error is raised when those begun have ended.  ``tell``
        is called from the caller's thread, about ten times a second.
        """
        line: _Line[J] = _Line(jobs)
        helpers = min(self.workers, len(jobs)) - 1
        futures = [self._threads().submit(line.work, work) for _ in range(helpers)]
        try:
            line.work(work, tell)
        finally:
            # Also where the caller was interrupted: nobody may still write to his memory then.
            line.stop()
            for future in futures:
                future.cancel()
            wait(futures)
        for future in futures:
            if not future.cancelled():
                future.result()

    def close(self) -> None:
        """End the threads."""
        with self._making:
            if self._pool is not None:
                self._pool.shutdown()

    def _threads(self) -> ThreadPoolExecutor:
        with self._making:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="custody-read")
            return self._pool


class _Line(Generic[J]):
    """Jobs standing in line, for several threads."""

    def __init__(self, jobs: Sequence[J]) -> None:
        self._jobs: Iterator[J] = iter(jobs)
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        with self._lock:
            self._stopped = True

    def work(self, work: Callable[[J], None], tell: Callable[[], None] | None = None) -> None:
        told = time.monotonic()
        try:
            while (job := self._next()) is not None:
                work(job)
                if tell and time.monotonic() - told >= _TELL_SECONDS:
                    told = time.monotonic()
                    tell()
        except BaseException:
            self.stop()
            raise

    def _next(self) -> J | None:
        with self._lock:
            return None if self._stopped else next(self._jobs, None)
