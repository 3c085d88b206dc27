"""Connections of our own to a SQL server: a bounded number for each process, and for each event loop where it is async.

There are no threads and no tasks behind it. A connection is opened by whoever needs it, who so learns at once that the
server cannot be reached; a process can fork with nothing but the connections to think of; and an event loop can end
whenever it likes. One pool serves the client libraries that have none and those that have.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from coatcheck.drivers import _lifetimes
from coatcheck.drivers._process import Process, this_process
from coatcheck.drivers.sql.statement import Reply, Statement

__all__ = ["AsyncClient", "AsyncPool", "AsyncPools", "Client", "Held", "Pool", "PoolBusy", "Pools"]

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)

_inherited: list[object] = []  # connections of a parent process: kept so that nothing finalizes them


class PoolBusy(Exception):
    """No connection came free in time."""


class _Manners(Protocol[C_contra]):
    """What a pool asks about a connection, without I/O."""

    def is_clean(self, connection: C_contra, /) -> bool:
        """Tell whether it is open, in no transaction, and not in the middle of anything."""

    def is_alive(self, connection: C_contra, /) -> bool:
        """Tell whether an idle one is good as far as can be seen: nothing has arrived on it, its end least of all."""

    def close(self, connection: C_contra, /) -> None:
        """Close it at once, whatever state it is in, without waiting for the server. It raises nothing."""

    def limit(self, connection: C_contra, deadline: float, /) -> Statement | None:
        """Return what has to be sent first for the server to give up waiting for a lock before *deadline*, or None."""

    def patience(self, connection: C_contra, /, *, is_inside: bool) -> float:
        """Return the seconds after which the server gives up waiting for a lock: until then silence may mean that.

        Args:
            connection: A connection, in whatever state.
            is_inside: True inside a transaction, False for a statement that stands alone.
        """


class Client(_Manners[C], Protocol[C]):
    """A synchronous client library."""

    def connect(self, deadline: float, /) -> C:
        """Open a connection in autocommit mode, until the moment *deadline* of the monotonic clock."""

    def run(self, connection: C, statement: Statement, deadline: float, /) -> Reply:
        """Have one statement done. After an error the connection is clean, or not clean by `is_clean`."""


class AsyncClient(_Manners[C], Protocol[C]):
    """An asynchronous client library. Its caller bounds the time; cancelling leaves a connection that is not clean."""

    async def connect(self, deadline: float, /) -> C:
        """Open a connection in autocommit mode."""

    async def run(self, connection: C, statement: Statement, deadline: float, /) -> Reply:
        """Have one statement done."""


@dataclass(slots=True)
class Held(Generic[C]):
    """A connection of a pool's.

    Attributes:
        connection: The connection.
        opened: When it was opened, by the monotonic clock.
        trust: The pool's `trust` at that moment.
        since: When it last came back, or 0 where it is used for the first time.
    """

    connection: C
    opened: float
    trust: int
    since: float = 0.0


class _Idle(Generic[C]):
    """The connections that nobody uses, the last one used first.

    Attributes:
        trust: How often all connections were given up. One that was opened before the last time is not used again.
    """

    def __init__(self, client: _Manners[C]) -> None:
        self._client: Final = client
        self._idle: Final[deque[Held[C]]] = deque()
        self._is_closed = False
        self.trust = 0
        weakref.finalize(self, _finalized, client, self._idle, this_process())

    def _pop(self) -> Held[C] | None:
        """Return an idle connection that seems good, or None."""
        while self._idle:
            try:
                held = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            is_worn = _lifetimes.is_worn(held.opened, held.since, time.monotonic())
            if held.trust == self.trust and not is_worn and self._client.is_alive(held.connection):
                return held
            self._client.close(held.connection)
        return None

    def push(self, held: Held[C]) -> None:
        """Take a connection back, or close it unless it is clean."""
        if held.trust == self.trust and self._client.is_clean(held.connection):
            held.since = time.monotonic()
            self._idle.append(held)
        else:
            self._client.close(held.connection)
        if self._is_closed:
            _close_all(self._client, self._idle)

    def distrust(self, held: Held[C]) -> None:
        """Give up all connections as old as *held*: the idle ones now, others when they come back.

        What this one met, each of them would meet, one request after the other.
        """
        if held.trust == self.trust:
            self.trust += 1
            _close_all(self._client, self._idle)

    def close(self) -> None:
        """Close the idle connections now and those in use when they come back."""
        self._is_closed = True
        _close_all(self._client, self._idle)


def _close_all(client: _Manners[C], idle: deque[Held[C]]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            client.close(idle.pop().connection)


def _finalized(client: _Manners[C], idle: deque[Held[C]], home: Process) -> None:
    if home.is_this():
        _close_all(client, idle)
    else:
        _inherited.append(idle)


class Pool(_Idle[C]):
    """The connections of one process.

    Args:
        client: The client library.
        most: How many connections are used at the same time, at most.
    """

    def __init__(self, client: Client[C], most: int) -> None:
        super().__init__(client)
        self._opens: Final = client.connect
        self._free: Final = threading.Semaphore(most)

    def enter(self, deadline: float) -> None:
        """Wait until a connection may be used; `leave` has to follow.

        Raises:
            PoolBusy: It took too long.
        """
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise PoolBusy

    def leave(self) -> None:
        """Let another one use a connection."""
        self._free.release()

    def get(self, deadline: float) -> Held[C]:
        """Return an idle connection or a new one; `push` has to follow."""
        held = self._pop()
        if held is None:
            trust, now = self.trust, time.monotonic()
            held = Held(self._opens(deadline), now, trust)
        return held


class AsyncPool(_Idle[C]):
    """The connections of one event loop. It must not lead to the loop, or the loop would never be collected."""

    def __init__(self, client: AsyncClient[C], most: int) -> None:
        super().__init__(client)
        self._opens: Final = client.connect
        self._free = most
        self._waiting: Final[deque[asyncio.Future[None]]] = deque()

    async def enter(self) -> None:
        """Wait until a connection may be used; `leave` has to follow."""
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was our turn in that very moment
            raise

    def leave(self) -> None:
        """Let another one use a connection."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def get(self, deadline: float) -> Held[C]:
        """Return an idle connection or a new one; `push` has to follow."""
        held = self._pop()
        if held is None:
            trust, now = self.trust, time.monotonic()
            held = Held(await self._opens(deadline), now, trust)
        return held


class Pools(Generic[C]):
    """The pool of each process that a driver comes to be in."""

    def __init__(self, client: Client[C], most: int) -> None:
        self._client: Final = client
        self._most: Final = most
        self._pools: Final[dict[Process, Pool[C]]] = {}

    def here(self) -> Pool[C]:
        """Give the pool of this process. A parent's is kept as it is, and never used."""
        home = this_process()
        pool = self._pools.get(home)
        # no lock: one could be held, by a thread that is not there in the child, while the process forks
        return pool or self._pools.setdefault(home, Pool(self._client, self._most))

    def close(self) -> None:
        """Close the pool of this process; using it again makes a new one."""
        pool = self._pools.pop(this_process(), None)
        if pool is not None:
            pool.close()


class AsyncPools(Generic[C]):
    """The pool of each event loop, held for as long as the loop is there."""

    def __init__(self, client: AsyncClient[C], most: int) -> None:
        self._client: Final = client
        self._most: Final = most
        self._pools: Final[dict[Process, weakref.WeakKeyDictionary[Any, AsyncPool[C]]]] = {}

    def here(self) -> AsyncPool[C]:
        """Give the pool of the running loop."""
        pools = self._pools.get(home := this_process())
        if pools is None:
            pools = self._pools.setdefault(home, weakref.WeakKeyDictionary())
        loop = asyncio.get_running_loop()
        pool = pools.get(loop)
        if pool is None:
            for other in [other for other in pools if other.is_closed()]:
                pools.pop(other).close()  # some client libraries keep a loop from being collected
            pool = pools.setdefault(loop, AsyncPool(self._client, self._most))
        return pool

    def close(self) -> None:
        """Close the pool of the running loop; using it again makes a new one."""
        pools = self._pools.get(this_process())
        pool = None if pools is None else pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            pool.close()
