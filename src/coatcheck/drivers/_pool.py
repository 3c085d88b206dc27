"""Connections to servers: a bounded number for each process, and for each event loop where the program is asynchronous.

No thread and no task is behind a pool. The request that needs a connection opens it, and so learns at once that the
server cannot be reached. A process can fork with nothing but the connections to think of, and an event loop can end at
any time. One pool serves all engines, whether their client library has one or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from coatcheck.drivers import _lifetimes
from coatcheck.drivers._process import Process, this_process

__all__ = ["AsyncPool", "Link", "PerLoop", "PerProcess", "Pool", "PoolBusy"]


class PoolBusy(Exception):
    """No connection came free in time."""


class Link(ABC):
    """A connection of a pool's.

    Attributes:
        opened: When it was opened, by the monotonic clock.
        used: When the pool last took it back, or when it was opened.
        is_reused: True once the pool has taken it back.
        generation: The pool's `generation` when it was opened.
    """

    __slots__ = ("generation", "is_reused", "opened", "used")

    def __init__(self) -> None:
        self.opened: Final = time.monotonic()
        self.used = self.opened
        self.is_reused = False
        self.generation = 0

    @abstractmethod
    def is_clean(self) -> bool:
        """Return whether it can be used again: it is open, and not in the middle of anything."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Return whether an idle one seems good: nothing has arrived on it, its end least of all."""

    @abstractmethod
    def close(self) -> None:
        """Close it at once, whatever state it is in, without waiting for the server. It raises nothing."""


class _Closing(Protocol):
    def close(self) -> None: ...


L = TypeVar("L", bound=Link)
T = TypeVar("T", bound=_Closing)

_inherited: Final[list[object]] = []  # connections of a parent process: kept so that nothing finalizes them


class _IdleLinks(Generic[L]):
    """The connections that nobody uses. The one that was used last is used first.

    Attributes:
        generation: How often all connections were given up. One that is older than the last time is not used again.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._idle: Final[deque[L]] = deque()
        self._doubted = 0.0
        self._is_closed = False
        weakref.finalize(self, _finalized, self._idle, this_process())

    def _pop(self) -> L | None:
        """Return an idle connection that seems good, or None."""
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            if (
                link.generation == self.generation
                and link.used >= self._doubted
                and not _lifetimes.is_worn(link.opened, link.used, time.monotonic())
                and link.is_quiet()
            ):
                return link
            link.close()
        return None

    def push(self, link: L) -> None:
        """Take a connection back, or close it unless it is clean."""
        if link.generation == self.generation and link.is_clean():
            link.used = time.monotonic()
            link.is_reused = True
            self._idle.append(link)
        else:
            link.close()
        if self._is_closed:
            _close_all(self._idle)

    def forget(self, link: L | None = None) -> None:
        """Drop all connections as old as *link*, or all: the idle ones now, others when they come back.

        What this one met, each of them would meet, one request after the other.
        """
        if link is None or link.generation == self.generation:
            self.generation += 1
            _close_all(self._idle)

    def doubt(self, since: float) -> None:
        """Use no idle connection again that was last used before *since*: its peer may have vanished unseen."""
        self._doubted = max(self._doubted, since)

    def close(self) -> None:
        """Close the idle connections now and those in use when they come back."""
        self._is_closed = True
        _close_all(self._idle)


def _close_all(idle: deque[L]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            idle.pop().close()


def _finalized(idle: deque[L], process: Process) -> None:
    if process.is_this():
        _close_all(idle)
    else:
        _inherited.append(idle)


class Pool(_IdleLinks[L]):
    """The connections of one process to one server.

    Args:
        opens: Opens a connection until a moment of the monotonic clock.
        most: How many connections are used at the same time, at most.
    """

    def __init__(self, opens: Callable[[float], L], most: int) -> None:
        super().__init__()
        self._opens: Final = opens
        self._places: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()  # in C: a tenth of a semaphore's time
        for _ in range(most):
            self._places.put(None)

    def enter(self, deadline: float) -> None:
        """Wait until a connection may be used; `leave` has to follow.

        Raises:
            PoolBusy: It took too long.
        """
        try:
            self._places.get_nowait()
        except queue.Empty:
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        try:
            self._places.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise PoolBusy from None

    def leave(self) -> None:
        """Let another thread use a connection."""
        self._places.put(None)

    def get(self, deadline: float) -> L:
        """Return an idle connection or a new one; `push` has to follow."""
        link = self._pop()
        if link is None:
            generation = self.generation
            link = self._opens(deadline)
            link.generation = generation
        return link


class AsyncPool(_IdleLinks[L]):
    """The connections of one event loop to one server; see `Pool`. The caller bounds the time for opening one.

    It must not lead to the loop, or the loop would never be collected.
    """

    def __init__(self, opens: Callable[[float], Awaitable[L]], most: int) -> None:
        super().__init__()
        self._opens: Final = opens
        self._free = most
        self._waiting: Final[deque[asyncio.Future[None]]] = deque()

    async def enter(self, deadline: float) -> None:
        """Wait until a connection may be used; `leave` has to follow.

        Raises:
            PoolBusy: It took too long.
        """
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was our turn in that very moment
            if isinstance(error, TimeoutError):
                raise PoolBusy from None
            raise

    def leave(self) -> None:
        """Let another task use a connection."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def get(self, deadline: float) -> L:
        """Return an idle connection or a new one; `push` has to follow."""
        link = self._pop()
        if link is None:
            generation = self.generation
            link = await self._opens(deadline)
            link.generation = generation
        return link


class PerProcess(Generic[T]):
    """What a driver has in each process that it comes to be in: a parent's is kept as it is, and never used.

    Args:
        make: Makes it, without I/O.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Final = make
        self._all: Final[dict[Process, T]] = {}
        self._process = this_process()

    def here(self) -> T:
        """Return what belongs to this process."""
        process = self._process
        if not process.is_this():
            process = self._process = this_process()
        found = self._all.get(process)
        # no lock: one could be held, by a thread that is not there in the child, while the process forks
        return self._all.setdefault(process, self._make()) if found is None else found

    def close(self) -> None:
        """Close what belongs to this process; using it again makes a new one."""
        found = self._all.pop(this_process(), None)
        if found is not None:
            found.close()


class PerLoop(Generic[T]):
    """What a driver has in each event loop, held for as long as the loop is there; see `PerProcess`."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Final = make
        self._all: Final[dict[Process, weakref.WeakKeyDictionary[Any, T]]] = {}

    def here(self) -> T:
        """Return what belongs to the running loop."""
        mine = self._all.get(process := this_process())
        if mine is None:
            mine = self._all.setdefault(process, weakref.WeakKeyDictionary())
        loop = asyncio.get_running_loop()
        found = mine.get(loop)
        if found is None:
            for other in [other for other in mine if other.is_closed()]:
                mine.pop(other).close()  # a connection that knows its loop would keep it from being collected
            found = mine.setdefault(loop, self._make())
        return found

    def close(self) -> None:
        """Close what belongs to the running loop; using it again makes a new one."""
        mine = self._all.get(this_process())
        found = None if mine is None else mine.pop(asyncio.get_running_loop(), None)
        if found is not None:
            found.close()
