"""Timed actions of two kinds, synchronous and asynchronous ones, measured alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

_WARM_UP: Final = 2
_BATCH: Final = 0.004  # seconds that a batch takes, about
_MOST: Final = 500  # actions in a batch


class Action(NamedTuple):
    """Something to time.

    Attributes:
        run: What is timed.
        prepare: What comes before it each time, and is not timed; None for nothing.
    """

    run: Callable[[], Any]
    prepare: Callable[[], Any] | None = None


class AsyncAction(NamedTuple):
    """Something to time in an event loop; see `Action`."""

    run: Callable[[], Awaitable[Any]]
    prepare: Callable[[], Awaitable[Any]] | None = None


class Timed:
    """One action with the size of its batches.

    Args:
        action: What to time.
        loop: The event loop for an asynchronous one.
    """

    def __init__(self, action: Action | AsyncAction, loop: asyncio.AbstractEventLoop) -> None:
        self._action = action
        self._loop = loop
        self._size = 0

    def batch(self) -> float:
        """Give the seconds that one action took, by the mean of a batch."""
        if not self._size:
            self.repeated(_WARM_UP)
            self._size = max(3, min(_MOST, round(_BATCH / min(self.repeated(3), self.repeated(3)))))
        self.repeated(_WARM_UP)
        return self.repeated(self._size)

    def repeated(self, times: int) -> float:
        """Do it *times* times and give the seconds that one took."""
        action = self._action
        if isinstance(action, AsyncAction):
            return self._loop.run_until_complete(_awaited(action, times)) / times
        return _called(action, times) / times


def _called(action: Action, times: int) -> float:
    run, prepare = action
    clock = time.perf_counter
    total = 0.0
    for _ in range(times):
        if prepare is not None:
            prepare()
        start = clock()
        run()
        total += clock() - start
    return total


async def _awaited(action: AsyncAction, times: int) -> float:
    run, prepare = action
    clock = time.perf_counter
    total = 0.0
    for _ in range(times):
        if prepare is not None:
            await prepare()
        start = clock()
        await run()
        total += clock() - start
    return total
