"""The synchronous driver, and its connections: each is lent to one thread at a time."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar

from coatcheck.drivers import _lifetimes
from coatcheck.drivers._process import this_process
from coatcheck.drivers._steps import SteppedDriver, Steps
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

__all__ = ["MemcachedDriver"]

T = TypeVar("T")

_MOST_IDLE: Final = 32
_CHUNK: Final = 1 << 16


class _Connection:
    """A connection to one server."""

    __slots__ = ("_opened", "_socket", "_used")

    def __init__(self, server: Server, timeout: float) -> None:
        self._socket: Final = socket.create_connection((server.host, server.port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _lifetimes.keep_alive(self._socket)
        self._opened: Final = time.monotonic()
        self._used = self._opened

    def ask(self, request: Request, until: float) -> Any:
        """Send *request* and give the reply, by the moment *until* of the monotonic clock.

        Raises:
            Refused: The server said no.
            OSError, Lost, Garbled: The connection is of no more use.
        """
        data, parser = put(request)
        self._wait_until(until)
        self._socket.sendall(data)
        while True:
            self._wait_until(until)
            arrived = self._socket.recv(_CHUNK)
            if not arrived:
                raise Lost
            for reply in feed(parser, arrived):
                return reply

    def _wait_until(self, until: float) -> None:
        self._used = time.monotonic()
        left = until - self._used
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def is_good(self) -> bool:
        """Return whether the connection is open, not too old, and nothing has come that nobody asked for."""
        if _lifetimes.is_worn(self._opened, self._used, time.monotonic()):
            return False
        self._socket.settimeout(0)
        with suppress(OSError):
            try:
                self._socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


class _Pools:
    """The idle connections of one process, by the number of the server. Threads may share the ends of a deque."""

    __slots__ = ("idle", "process")

    def __init__(self, servers: int) -> None:
        self.process: Final = this_process()
        self.idle: Final[tuple[deque[_Connection], ...]] = tuple(deque() for _ in range(servers))

    def close(self) -> None:
        for number in range(len(self.idle)):
            self.clear(number)

    def clear(self, number: int) -> None:
        """Close the idle connections to one server."""
        idle = self.idle[number]
        while idle:
            with suppress(IndexError):  # another thread took the last one
                idle.pop().close()

    def take(self, number: int) -> _Connection | None:
        """Give an idle connection that works, or None."""
        idle = self.idle[number]
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if connection.is_good():
                return connection
            connection.close()
        return None

    def give(self, number: int, connection: _Connection) -> None:
        """Take a connection back."""
        if len(self.idle[number]) < _MOST_IDLE:
            self.idle[number].append(connection)
        else:
            connection.close()

    def __del__(self) -> None:
        self.close()


class MemcachedDriver(SteppedDriver):
    """Sessions in memcached.

    Nothing is connected to before the first use. Sessions are spread over the servers; a server that is down makes its
    sessions unavailable, and never ends them or has them made anew elsewhere.

    Args:
        servers: The servers, `host:port,host:port`; the port is 11211 where there is none. All programs have to give
            the same ones.
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
        self._pools = _Pools(len(self._servers))

    @classmethod
    def from_url(cls, url: str) -> MemcachedDriver:
        """Make a driver from a URL: `memcached://host:port,host:port?prefix=x&timeout=2`.

        Raises:
            ConfigurationError: The URL has another form, or an option that is unknown or bad.
        """
        servers, options = arguments_in(url)
        return cls(servers, **options)

    def advice(self) -> list[str]:
        return self._carry_out("advice", self._operations.advice)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self._setup.takes(digest, sid)

    def close(self) -> None:
        """Close the idle connections. Using the driver again opens new ones."""
        self._of_this_process().close()

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        steps = begin()
        patience = Patience(operation, self._timeout)
        reply: Any = None
        while True:
            try:
                request = steps.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the operation returned
            if isinstance(request, Pause):
                time.sleep(patience.pause())
                reply = None
            else:
                reply = self._ask(operation, request)

    def _ask(self, operation: str, request: Request) -> Any:
        number = request.server
        server = self._servers[number]
        server.breaker.check(operation)
        attempt = Attempt(operation, server, request)
        until = time.monotonic() + self._timeout
        pools = self._of_this_process()
        connection = pools.take(number)
        is_old = connection is not None
        while True:
            try:
                connection = connection or _Connection(server, self._timeout)
                attempt.was_sent = True
                reply = connection.ask(request, until)
            except Refused as error:
                pools.give(number, connection)  # type: ignore[arg-type]  # it said something
                server.breaker.worked()
                raise attempt.refused(error) from error
            except (OSError, Lost, Garbled) as error:
                if connection is not None:
                    connection.close()
                if is_old and attempt.may_be_repeated and not isinstance(error, TimeoutError):
                    connection, is_old, attempt.was_sent = None, False, False
                    continue
                if isinstance(error, TimeoutError):
                    pools.clear(number)
                raise attempt.failed(error, self._timeout) from error
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            pools.give(number, connection)
            server.breaker.worked()
            return reply

    def _of_this_process(self) -> _Pools:
        pools = self._pools
        if (
            not pools.process.is_this()
        ):  # the parent's connections are its own: closing them here leaves them open there
            pools = self._pools = _Pools(len(self._servers))
        return pools
