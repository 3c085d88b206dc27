"""The asynchronous driver, and its connections: each is lent to one task at a time, and belongs to one event loop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

from coatcheck.drivers import _lifetimes
from coatcheck.drivers._process import this_process
from coatcheck.drivers._steps import AsyncSteppedDriver, Steps
from coatcheck.drivers.base import Capability
from coatcheck.drivers.memcached.common import (
    AT_RISK,
    CAPABILITIES,
    DEFAULT_TIMEOUT,
    Attempt,
    Lost,
    Patience,
    Server,
    Setup,
    arguments_in,
)
from coatcheck.drivers.memcached.operations import NAME, MemcachedOperations
from coatcheck.drivers.memcached.requests import Pause, Request
from coatcheck.drivers.memcached.wire import Garbled, Refused, feed, put

__all__ = ["AsyncMemcachedDriver"]

T = TypeVar("T")

_MOST: Final = 32
"""Connections to one server. More tasks than that wait for each other."""

_CHUNK: Final = 1 << 16


class _Connection:
    """A connection. It is a bare socket: it needs no loop to be closed, and none to be open meanwhile."""

    __slots__ = ("_opened", "_used", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket: Final = connected
        self._opened: Final = time.monotonic()
        self._used = self._opened

    async def ask(self, request: Request) -> Any:
        """Send *request* and give the reply; see `_Connection.ask` in `driver`."""
        loop = asyncio.get_running_loop()
        data, parser = put(request)
        self._used = time.monotonic()
        await loop.sock_sendall(self.socket, data)
        while True:
            arrived = await loop.sock_recv(self.socket, _CHUNK)
            if not arrived:
                raise Lost
            for reply in feed(parser, arrived):
                return reply

    def is_good(self) -> bool:
        """Return whether the connection is open, not too old, and nothing has come that nobody asked for."""
        if _lifetimes.is_worn(self._opened, self._used, time.monotonic()):
            return False
        with suppress(OSError):
            try:
                self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return True
        return False

    def close(self) -> None:
        self.socket.close()


async def _connected(server: Server) -> _Connection:
    """Open a connection."""
    loop = asyncio.get_running_loop()
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    error: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _lifetimes.keep_alive(connection)
            await loop.sock_connect(connection, address)
        except OSError as refused:
            connection.close()
            error = refused
        except BaseException:
            connection.close()
            raise
        else:
            return _Connection(connection)
    raise error


class _Pool:
    """The idle connections of one loop to one server."""

    __slots__ = ("idle", "turns")

    def __init__(self) -> None:
        self.idle: Final[deque[_Connection]] = deque()
        self.turns: Final = asyncio.Semaphore(_MOST)

    def take(self) -> _Connection | None:
        """Give an idle connection that works, or None."""
        while self.idle:
            connection = self.idle.pop()
            if connection.is_good():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()

    def __del__(self) -> None:
        self.close()  # of a loop that ended without saying so


_Loops = WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Pool, ...]]


class AsyncMemcachedDriver(AsyncSteppedDriver):
    """Sessions in memcached, for an asynchronous program; see `MemcachedDriver`, which shares them.

    Args:
        servers: As for `MemcachedDriver`, and so the ones that follow.
        prefix: What all keys start with.
        timeout: Seconds for each exchange with a server.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES
    at_risk = AT_RISK

    def __init__(self, servers: str, *, prefix: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        self._setup: Final = Setup(servers, prefix, timeout)
        self._operations: MemcachedOperations = self._setup.operations
        self._servers: Final = self._setup.servers
        self._timeout: Final = self._setup.timeout
        self._process = this_process()
        self._loops: _Loops = WeakKeyDictionary()

    @classmethod
    def from_url(cls, url: str) -> AsyncMemcachedDriver:
        """Make a driver from a URL; see `MemcachedDriver.from_url`.

        Raises:
            ConfigurationError: The URL has another form, or an option that is unknown or bad.
        """
        servers, options = arguments_in(url)
        return cls(servers, **options)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self._setup.takes(digest, sid)

    async def close(self) -> None:
        """Close the idle connections of the running loop. Using the driver again opens new ones."""
        for pool in self._of_this_loop():
            pool.close()

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        steps = begin()
        patience = Patience(operation, self._timeout)
        reply: Any = None
        while True:
            try:
                request = steps.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the operation returned
            if isinstance(request, Pause):
                await asyncio.sleep(patience.pause())
                reply = None
            else:
                reply = await self._ask(operation, request)

    async def _ask(self, operation: str, request: Request) -> Any:
        server = self._servers[request.server]
        server.breaker.check(operation)
        pool = self._of_this_loop()[request.server]
        attempt = Attempt(operation, server, request)
        try:
            async with asyncio.timeout(self._timeout), pool.turns:
                reply = await self._exchange(pool, server, request, attempt)
        except Refused as error:
            server.breaker.worked()
            raise attempt.refused(error) from error
        except (OSError, Lost, Garbled) as error:
            if isinstance(error, TimeoutError):
                pool.close()
            raise attempt.failed(error, self._timeout) from error
        server.breaker.worked()
        return reply

    async def _exchange(self, pool: _Pool, server: Server, request: Request, attempt: Attempt) -> Any:
        """Ask on a connection, which is kept only where the reply came whole: a cancelled task leaves none behind."""
        connection = pool.take()
        if connection is not None and attempt.may_be_repeated:
            with suppress(OSError, Lost, Garbled):  # it may have been closed by now: the next one is new
                return await self._exchange_on(connection, pool, request, attempt)
            connection = None
        attempt.was_sent = False
        return await self._exchange_on(connection or await _connected(server), pool, request, attempt)

    async def _exchange_on(self, connection: _Connection, pool: _Pool, request: Request, attempt: Attempt) -> Any:
        try:
            attempt.was_sent = True
            reply = await connection.ask(request)
        except Refused:
            pool.idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        pool.idle.append(connection)
        return reply

    def _of_this_loop(self) -> tuple[_Pool, ...]:
        if (
            not self._process.is_this()
        ):  # the parent's connections are its own: closing them here leaves them open there
            self._process, self._loops = this_process(), WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        pools = self._loops.get(loop)
        if pools is None:
            pools = self._loops[loop] = tuple(_Pool() for _ in self._servers)
        return pools
