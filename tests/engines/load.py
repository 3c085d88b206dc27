"""Writers at work while servers die, and the account of what was acknowledged to them and is not there."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Final, Self

from testservers import wait_until
from testservers.base import PATIENCE

from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Delta, Missing, Put, ValueKey
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START

__all__ = ["Load", "Losses"]

A: Final[ValueKey] = ("", "a")
N: Final[ValueKey] = ("", "n")
WRITERS: Final = 4
KEPT: Final = 3  # sessions that a writer does not end
PAUSE: Final = 0.002  # between two writes; longer after a failure


@dataclass
class _Tally:
    """What was acknowledged to one session.

    Attributes:
        digest: The session's digest.
        acknowledged: How many increments were.
        unknown: How many may have been done.
        last: The last number that was put.
    """

    digest: bytes
    acknowledged: int = 0
    unknown: int = 0
    last: int = 0


@dataclass
class _Notes:
    """What one writer knows.

    Attributes:
        tallies: Its sessions, one after the other: a new one begins where the last was lost.
        begun: Other sessions that it made.
        ended: Sessions that it ended, some time after they were made.
        vanished: How many of those that it made were not there when it wanted to end them.
        turns: How many of its turns were acknowledged.
        began: When the last turn began that was acknowledged.
        worked: When that was.
    """

    tallies: list[_Tally] = field(default_factory=list)
    begun: list[bytes] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    vanished: int = 0
    turns: int = 0
    began: float = 0.0
    worked: float = 0.0


@dataclass
class Losses:
    """What is not as it was acknowledged.

    Attributes:
        acknowledged: How many writes were acknowledged, of all kinds.
        writes: How many of them are lost, at least.
        logouts: How many sessions that were ended are alive.
        doubled: How many increments were done more often than they were asked for.
    """

    acknowledged: int = 0
    writes: int = 0
    logouts: int = 0
    doubled: int = 0

    def __str__(self) -> str:
        return f"{self.writes} writes and {self.logouts} logouts lost of {self.acknowledged} acknowledged"


class Load:
    """Threads that count, write, begin sessions and end them, until the block is over.

    Args:
        driver: The driver that they share.
        first: How the digests of their sessions begin, so that a cluster has all of them on one server.
    """

    def __init__(self, driver: Driver, first: bytes = b"") -> None:
        self._driver: Final = driver
        self._first: Final = first
        self._over = threading.Event()
        self._notes: Final = [_Notes() for _ in range(WRITERS)]
        self._threads: Final = [threading.Thread(target=self._write, args=(notes,)) for notes in self._notes]
        self._problems: Final[list[BaseException]] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._problems:
            raise self._problems[0]

    def go_on(self, turns: int = 30) -> None:
        """Let each of the writers be acknowledged some more turns."""
        goals = [notes.turns + turns for notes in self._notes]
        wait_until(
            lambda: self._problems or all(n.turns >= goal for n, goal in zip(self._notes, goals, strict=True)), "writes"
        )

    def recovered(self, since: float, patience: float = PATIENCE) -> float:
        """Wait until every writer was acknowledged what it began after the moment *since*; give the seconds it took."""
        wait_until(lambda: self._problems or all(notes.began > since for notes in self._notes), "all writers", patience)
        return max(notes.worked for notes in self._notes) - since

    def losses(self, driver: Driver) -> Losses:
        """Compare what was acknowledged with what is stored, after the end."""
        found = Losses()
        for notes in self._notes:
            for tally in notes.tallies:
                self._compare(driver, tally, found)
            found.writes += sum(isinstance(driver.load(digest, START), Missing) for digest in notes.begun)
            found.logouts += sum(not isinstance(driver.load(digest, START), Missing) for digest in notes.ended)
            found.writes += notes.vanished
            found.acknowledged += len(notes.begun) + 2 * len(notes.ended) + notes.vanished
        return found

    def _compare(self, driver: Driver, tally: _Tally, found: Losses) -> None:
        found.acknowledged += tally.acknowledged
        record = driver.load(tally.digest, START)
        if isinstance(record, Missing):
            found.writes += tally.acknowledged
            return
        counted, written = int(record.values[N].data), int(record.values[A].data)
        found.writes += max(0, tally.acknowledged - counted, written < tally.last)
        found.doubled += max(0, counted - tally.acknowledged - tally.unknown)

    def _write(self, notes: _Notes) -> None:
        turn = 0
        try:
            while not self._over.wait(PAUSE):
                turn += 1
                began = time.monotonic()
                try:
                    self._turn(notes, turn)
                except DriverUnavailable:
                    self._over.wait(5 * PAUSE)
                else:
                    notes.turns += 1
                    notes.began, notes.worked = began, time.monotonic()
        except BaseException as error:  # noqa: BLE001 (the test raises it)
            self._problems.append(error)

    def _turn(self, notes: _Notes, turn: int) -> None:
        if turn % 8 == 0:
            notes.begun.append(self._begin())
            return
        if turn % 8 == 4 and len(notes.begun) > KEPT:
            digest = notes.begun.pop(0)
            if self._driver.revoke(digest, START):
                notes.ended.append(digest)
            else:
                notes.vanished += 1
            return
        if not notes.tallies:
            notes.tallies.append(_Tally(self._begin()))
        tally = notes.tallies[-1]
        try:
            answer = self._driver.commit(tally.digest, Delta(increments={N: 1}, puts={A: Put(b"%d" % turn)}), START)
        except DriverUnavailable as error:
            tally.unknown += error.outcome_unknown
            raise
        if isinstance(answer, Committed):
            tally.acknowledged += 1
            tally.last = turn
        else:
            notes.tallies.append(_Tally(self._begin()))

    def _begin(self) -> bytes:
        """Store a new session; give its digest."""
        digest = self._first + secrets.token_bytes(32 - len(self._first))
        answer = self._driver.create(make_record(digest_=digest, values={A: b"0", N: 0}), START)
        assert isinstance(answer, Committed)
        return digest
