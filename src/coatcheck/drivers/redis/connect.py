"""Connections to servers, for a synchronous program: pools without retries, with a limit to every wait."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers.redis.places import Settings
from coatcheck.drivers.redis.requests import Address, Exchange
from coatcheck.drivers.redis.trouble import NAME, Lost, NotSent, refused
from coatcheck.errors import DriverUnavailable

__all__ = ["Servers", "connection_failed", "is_refused", "lost"]


class Servers:
    """The connections of one process to any number of servers.

    Args:
        settings: What the URL says.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._lock: Final = threading.Lock()
        self._pools: Final[dict[Address, _Pool]] = {}

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

    def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()


class _Line:
    """A connection, and a cheap way to see whether anything arrived on it unasked: that can only be its end."""

    __slots__ = ("connection", "poll")

    def __init__(self, connection: Any) -> None:
        connection.connect()
        self.connection: Final[Any] = connection
        poller = select.poll()
        poller.register(connection._get_socket(), select.POLLIN)  # noqa: SLF001 (redis-py offers no other way to it)
        self.poll: Final[Callable[[int], list[Any]]] = poller.poll

    def is_over(self) -> bool:
        """Tell whether the server has closed it."""
        if not self.poll(0):
            return False
        try:
            return bool(self.connection.can_read(0))  # with TLS, what arrived may be no data
        except (RedisError, OSError):
            return True


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
        self._made = 0
        self._waiting = 0
        self._is_closed = False

    def exchange(self, request: Exchange) -> list[Any]:
        """See `Servers.exchange`."""
        line = self._taken()
        connection = line.connection
        try:
            connection.send_packed_command(request.packed, check_health=False)
            read = connection.read_response
            replies: list[Any] = []
            for _ in request.packed:
                try:
                    replies.append(read())
                except ResponseError as error:
                    replies.append(error)
        except BaseException as error:
            self._drop(line)
            if not isinstance(error, (RedisError, OSError)):
                raise
            if is_refused(error) and not replies:
                raise NotSent(refused(error, str(self._address))) from error
            failure = lost(error, self._address)
            if failure.is_timeout:
                self._went_down(failure)
            raise failure from error
        self._breaker.worked()
        self._idle.append(line)
        if self._waiting or self._is_closed:
            self._given_back()
        return replies

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
            if not line.is_over():
                return line
            self._drop(line)

    def _went_down(self, failure: Exception) -> None:
        self._why = str(failure)
        self._breaker.failed()

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
        try:
            return _Line(self._settings.connection(self._address))
        except BaseException as error:
            self._gone()
            if not isinstance(error, (RedisError, OSError, ValueError)):
                raise
            failure = connection_failed(error, self._address)
            if not is_refused(error):
                self._went_down(failure)
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

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().connection.disconnect()
                self._made -= 1


def is_refused(error: Exception) -> bool:
    """Tell whether an error is the server's answer; redis-py takes some of these for the end of the connection."""
    return getattr(error, "status_code", None) is not None or isinstance(error, ResponseError)


def connection_failed(error: Exception, address: Address) -> NotSent:
    """Give the error for a connection that could not be made."""
    if is_refused(error):
        return NotSent(refused(error, str(address)))
    return NotSent(f"{address} cannot be reached: {error}", is_timeout=isinstance(error, (RedisTimeout, TimeoutError)))


def lost(error: Exception, address: Address) -> Lost:
    """Give the error for a connection that failed in the middle of something."""
    if isinstance(error, (RedisTimeout, TimeoutError)):
        return Lost(f"{address} did not answer in time", is_timeout=True)
    return Lost(f"the connection to {address} broke: {error}", is_reset=True)
