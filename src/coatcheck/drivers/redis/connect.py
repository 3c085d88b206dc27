"""Connections to servers, for a synchronous program: pools without retries, with a limit to every wait."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

from redis.exceptions import RedisError

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers.redis.lines import CHUNK, ROLE_AGE, Line, connection_failed, is_refused, lost
from coatcheck.drivers.redis.places import Settings
from coatcheck.drivers.redis.requests import Address, Exchange
from coatcheck.drivers.redis.trouble import NAME, NotSent, refused
from coatcheck.errors import DriverUnavailable

__all__ = ["Servers"]


class Servers:
    """The connections of one process to any number of servers.

    Args:
        settings: What the URL says.

    Attributes:
        ears: Those that listen to sentinels.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._lock: Final = threading.Lock()
        self._pools: Final[dict[Address, _Pool]] = {}
        self.ears: Final = settings.ears()

    def exchange(self, request: Exchange) -> list[Any]:
        """Send commands and give their replies, errors among them.

        Raises:
            NotSent: Nothing was sent, or the server refused to read it.
            Lost: Something was sent, and not all replies came.
        """
        pool = self._pools.get(request.address)
        if pool is None:
            with self._lock:
                pool = self._pools.setdefault(request.address, _Pool(self._settings, request.address))
        return pool.exchange(request)

    def listen(self, address: Address) -> None:
        """Listen to a sentinel from now on."""
        if not self.ears.listens_to(address):
            with suppress(OSError):
                self.ears.listen(address, socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))

    def forget(self, address: Address) -> None:
        """Use no connection to a server again that is there now."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.forget()

    def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()
        self.ears.close()


class _Line(Line):
    """A connection, and a cheap way to see whether anything arrived on it unasked: that can only be its end."""

    __slots__ = ("_poll", "_socket", "_timeout")

    def __init__(self, connection: Any, generation: int, *, asks_role: bool) -> None:
        connection.connect()
        super().__init__(connection, generation, asks_role=asks_role)
        self._socket: Final[socket.socket] = connection._get_socket()  # noqa: SLF001 (redis-py offers no other way)
        self._timeout: Final[float] = connection.socket_timeout
        self._socket.settimeout(self._timeout)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        self._poll: Final[Callable[[int], list[Any]]] = poller.poll

    def is_over(self) -> bool:
        """Return whether it is of no more use: the server has closed it, or it is too old."""
        if self.is_worn:
            return True
        if not self._poll(0):
            return False
        try:
            return bool(self.connection.can_read(0))  # with TLS, what arrived may be no data
        except (RedisError, OSError):
            return True

    def exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """Send commands and return the replies, all within one limit of time."""
        until = time.monotonic() + self._timeout
        self._socket.sendall(self.begin(packed))
        if not self.feed(self._socket.recv(CHUNK)):
            self._read_rest(until)
        return self.end()

    def _read_rest(self, until: float) -> None:
        is_whole = False
        while not is_whole:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            is_whole = self.feed(self._socket.recv(CHUNK))
        self._socket.settimeout(self._timeout)


class _Pool:
    """The connections to one server.

    A thread takes the one that was used last. None is shared, and one that was in use when anything went wrong is
    closed, so no reply is ever read by somebody else.
    """

    def __init__(self, settings: Settings, address: Address) -> None:
        self._settings: Final = settings
        self._address: Final = address
        self._breaker: Final = Breaker(NAME, str(address))
        self._why = ""  # it was down the last time
        self._idle: Final[deque[_Line]] = deque()
        self._free: Final = threading.Condition()
        self._generation = 0  # of the connections that are good
        self._forgotten = -ROLE_AGE
        self._made = 0
        self._waiting = 0
        self._is_closed = False

    def exchange(self, request: Exchange) -> list[Any]:
        """See `Servers.exchange`."""
        line = self._taken()
        try:
            replies = line.exchange(request.packed)
        except BaseException as error:
            self._drop(line)
            if not isinstance(error, (RedisError, OSError)):
                raise
            if line.steps_back:
                self._stepped_back()
            if is_refused(error) and not line.is_partly_read:
                raise NotSent(refused(error, str(self._address))) from error
            failure = lost(error, self._address)
            if failure.is_timeout:
                self._went_down(failure, line.began)
            raise failure from error
        self._breaker.worked()
        if line.steps_back:
            self._stepped_back()
        if line.generation == self._generation and not line.steps_back:
            self._idle.append(line)
        else:
            self._drop(line)
        if self._waiting or self._is_closed:
            self._given_back()
        return replies

    def _stepped_back(self) -> None:
        """Forget the connections, unless that was a moment ago: those of now have found the server as it is."""
        if time.monotonic() - self._forgotten >= ROLE_AGE:
            self.forget()

    def forget(self) -> None:
        """Use no connection again that is there now: the address may lead to another server."""
        self._breaker.worked()
        with self._free:
            self._generation += 1
            self._forgotten = time.monotonic()
            self._close_idle()
            self._free.notify_all()

    def _taken(self) -> _Line:
        self._check()
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                found = self._made_or_waited_for()
                if found is None:
                    return self._opened()
                line = found
            if line.generation == self._generation and not line.is_over():  # given back while all were forgotten
                return line
            self._drop(line)

    def _went_down(self, failure: Exception, since: float) -> None:
        self._why = str(failure)
        self._breaker.failed(since)
        with self._free:
            self._close_idle(since)  # their peer may have vanished with that of the one that failed
            self._free.notify_all()

    def _check(self) -> None:
        try:
            self._breaker.check("connect")
        except DriverUnavailable as error:
            raise NotSent(f"a moment ago, and it is not asked again yet: {self._why}") from error

    def _made_or_waited_for(self) -> _Line | None:
        """Wait for a connection that somebody gives back; None where there may be another one."""
        until = time.monotonic() + self._settings.timeout
        with self._free:
            self._waiting += 1
            try:
                while True:
                    with suppress(IndexError):
                        return self._idle.pop()
                    if self._made < self._settings.max_connections:
                        self._made += 1
                        return None
                    if not self._free.wait(until - time.monotonic()):
                        raise NotSent(
                            f"all {self._settings.max_connections} connections to {self._address} were busy for "
                            f"{self._settings.timeout:g} s: raise max_connections= in the URL",
                            is_timeout=True,
                        )
                    self._check()  # whoever had the connection may have found out that the server is down
            finally:
                self._waiting -= 1

    def _opened(self) -> _Line:
        began = time.monotonic()
        try:
            connection = self._settings.connection(self._address)
            return _Line(connection, self._generation, asks_role=self._settings.asks_role(self._address))
        except BaseException as error:
            self._gone()
            if not isinstance(error, (RedisError, OSError, ValueError)):
                raise
            failure = connection_failed(error, self._address)
            if not is_refused(error):
                self._went_down(failure, began)
            raise failure from error

    def _given_back(self) -> None:
        with self._free:
            if self._is_closed:
                self._close_idle()
            self._free.notify()

    def _drop(self, line: _Line) -> None:
        line.connection.disconnect()
        self._gone()

    def _gone(self) -> None:
        with self._free:
            self._made -= 1
            self._free.notify_all()

    def close(self) -> None:
        """Close what is not in use, now and later."""
        with self._free:
            self._is_closed = True
            self._close_idle()

    def _close_idle(self, since: float = inf) -> None:
        """Close the connections that nobody uses and whose server has not answered *since* then."""
        good: list[_Line] = []
        with suppress(IndexError):
            while True:
                line = self._idle.popleft()
                if line.answered >= since:
                    good.append(line)
                else:
                    line.connection.disconnect()
                    self._made -= 1
        self._idle.extendleft(reversed(good))
