"""Processes that load sessions at a steady pace, and how long each load took."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Final, Self

from coatcheck.drivers import open_driver
from coatcheck.record import Record

READERS: Final = 4
PACE: Final = 0.004
"""Seconds that a reader waits between two loads: requests do other things too."""
_KNOWN: Final = 20_000  # sessions that a reader knows of


class Readers:
    """Four processes that load live sessions of a storage. A context manager that ends them.

    Args:
        url: The storage.
        digests: Sessions that are alive the whole time.
        now: The moment that they say it is.
    """

    def __init__(self, url: str, digests: Sequence[bytes], now: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(READERS):
            ours, theirs = context.Pipe()
            some = random.Random(number).choices(digests, k=_KNOWN)  # noqa: S311 (no secret)
            process = context.Process(target=_read_on, args=(url, some, now, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for pipe in self._pipes:
            assert pipe.recv() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send("end")
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.kill()

    def took(self) -> list[float]:
        """Give the seconds that each load has taken since the last call."""
        for pipe in self._pipes:
            pipe.send("tell")
        return [seconds for pipe in self._pipes for seconds in pipe.recv()]


def _read_on(url: str, digests: list[bytes], now: float, pipe: Connection) -> None:
    driver = open_driver(url)
    took: list[float] = []
    told = False
    turn = 0
    while True:
        digest = digests[turn % len(digests)]
        turn += 1
        start = time.perf_counter()
        found = driver.load(digest, now)
        took.append(time.perf_counter() - start)
        assert isinstance(found, Record)
        if not told:
            pipe.send("ready")
            told = True
        if pipe.poll():
            if pipe.recv() == "end":
                driver.close()
                return
            pipe.send(took)
            took = []
        time.sleep(PACE)
