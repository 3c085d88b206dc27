"""What a process knows of a server that is down: a request learns it at once instead of waiting out the limit again.

After a failure to reach the server, calls fail at once for a short while. Then one call at a time is let through; when
one comes back, all are. No clock but a monotonic one decides, and nothing here does I/O.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from coatcheck.errors import DriverUnavailable

__all__ = ["Breaker"]

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks whether the server is back."""

AVOIDED: Final = 30.0
"""Seconds for which what can go to another server does, after the last failure."""


class Breaker:
    """Whether a server is known to be down. Shared by the threads of a process.

    Args:
        driver: The driver's name, for the error.
        place: What names the server, without a password.
        clock: Gives seconds; monotonic.
    """

    def __init__(self, driver: str, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver: Final = driver
        self._place: Final = place
        self._clock: Final = clock
        self._lock = threading.Lock()
        self._pause = 0.0  # 0 while the server is not known to be down
        self._next_look = 0.0
        self._is_looking = False  # True once a call was let through to find out
        self._failed_at = 0.0
        self._answered_at = 0.0  # when the server was found to answer again
        _breakers.add(self)

    @property
    def is_avoided(self) -> bool:
        """True where the server was down when it was last asked, and that is not long ago."""
        return bool(self._pause) and self._clock() < self._failed_at + AVOIDED

    def check(self, operation: str) -> None:
        """Let a call go ahead, or not.

        Raises:
            DriverUnavailable: The server was down a moment ago. Nothing was sent.
        """
        if not self._pause:
            return
        with self._lock:
            now = self._clock()
            if not self._pause or now >= self._next_look:
                self._next_look = now + LONGEST_PAUSE  # the others go on failing while this one looks
                self._is_looking = True
                return
        why = f"{self._place} was down a moment ago and is not tried again yet"
        raise DriverUnavailable(self._driver, operation, why)

    def failed(self, began: float = math.inf) -> None:
        """Record that the server could not be reached or did not answer in time.

        The calls that were under way when it went down are one failure, however many they are.

        Args:
            began: When the call began. One that began before the server was found to answer again says nothing new.
        """
        with self._lock:
            now = self._clock()
            if began < self._answered_at:
                return
            self._failed_at = now
            if self._pause and not self._is_looking and now < self._next_look:
                return
            self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
            self._next_look = now + self._pause
            self._is_looking = False

    def worked(self) -> None:
        """Record that the server answered."""
        if self._pause:
            with self._lock:
                self._pause = 0.0
                self._is_looking = False
                self._answered_at = self._clock()

    def unlock(self) -> None:
        """Forget which thread holds the lock: one that a child process does not have."""
        self._lock = threading.Lock()


_breakers: Final[weakref.WeakSet[Breaker]] = weakref.WeakSet()


def _unlock_all() -> None:
    for breaker in _breakers:
        breaker.unlock()


os.register_at_fork(after_in_child=_unlock_all)
