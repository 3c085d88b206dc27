"""Open connections to a server, sync and async: how commands are sent, and how an end is noticed."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from coatcheck.drivers.redis.lines import CHUNK, Line

__all__ = ["AsyncLine", "SyncLine", "abort"]

_NEARLY_ALL: Final = 0.9
"""With as much of the time left, an exchange has the whole limit: to set another one takes a call of the system."""


class SyncLine(Line):
    """A connection of a thread's, and a cheap way to see whether anything arrived unasked: that can only be its end."""

    __slots__ = ("_poll", "_socket", "_timeout")

    def __init__(self, connection: Any, timeout: float, *, asks_role: bool) -> None:
        super().__init__(connection, asks_role=asks_role)
        self._socket: Final[socket.socket] = connection._get_socket()  # noqa: SLF001 (redis-py offers no other way)
        self._timeout: Final = timeout
        self._socket.settimeout(timeout)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        self._poll: Final[Callable[[int], list[Any]]] = poller.poll

    def is_quiet(self) -> bool:
        if not self._poll(0):
            return True
        try:
            is_quiet = not self.connection.can_read(0)  # with TLS, what arrived may be no data
            self._socket.settimeout(self._timeout)
        except (RedisError, OSError):
            return False
        return is_quiet

    def close(self) -> None:
        self.connection.disconnect()

    def log_in(self, packed: Sequence[bytes], deadline: float) -> None:
        """Send the commands that log in, before any others.

        Raises:
            RedisError: The server refuses the login.
        """
        self._talk(self.begin_login(packed), deadline)
        self.end_login()

    def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands and return the replies, all until *deadline*, by the monotonic clock."""
        data = self.begin(packed, deadline)
        if deadline - self.began < _NEARLY_ALL * self._timeout or len(data) > CHUNK:
            self._talk(data, deadline)
        else:  # the usual case, in which the socket's own limit will do
            self._socket.sendall(data)
            if not self.feed(self._socket.recv(CHUNK)):
                self._read(deadline)
        return self.end()

    def _talk(self, data: bytes, deadline: float) -> None:
        self._bound(deadline)
        self._socket.sendall(data)
        self._read(deadline)

    def _read(self, deadline: float) -> None:
        is_whole = False
        while not is_whole:
            self._bound(deadline)
            is_whole = self.feed(self._socket.recv(CHUNK))
        self._socket.settimeout(self._timeout)

    def _bound(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class AsyncLine(Line):
    """A connection of an event loop's."""

    __slots__ = ()

    def is_quiet(self) -> bool:
        """See `Link.is_quiet`. The loop may not have had the time to notice its end, so the socket is asked too.

        With TLS, the server may have sent what is no data, and the loop would have taken that: where it did not, the
        connection is given up for nothing.
        """
        reader, writer = self.connection._reader, self.connection._writer  # noqa: SLF001 (redis-py offers no other way)
        if writer is None or writer.is_closing() or reader.at_eof() or reader.exception() is not None:
            return False
        poller = select.poll()
        poller.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
        return not poller.poll(0)

    def close(self) -> None:
        abort(self.connection)

    async def log_in(self, packed: Sequence[bytes]) -> None:
        """See `SyncLine.log_in`; the caller bounds the time."""
        await self._talk(self.begin_login(packed))
        self.end_login()

    async def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands and return the replies; see `SyncLine.exchange`. The caller bounds the time."""
        await self._talk(self.begin(packed, deadline))
        return self.end()

    async def _talk(self, data: bytes) -> None:
        reader, writer = self.connection._reader, self.connection._writer  # noqa: SLF001 (redis-py offers no other way)
        writer.write(data)
        await writer.drain()
        while not self.feed(await reader.read(CHUNK)):
            pass


def abort(connection: Any) -> None:
    """Close an asynchronous connection of redis-py's at once, whether or not its event loop is still there."""
    writer = connection._writer  # noqa: SLF001 (redis-py's own way waits)
    connection._reader = connection._writer = None  # noqa: SLF001
    if writer is None:
        return
    try:
        writer.transport.abort()
    except RuntimeError:  # the loop is closed, and with it everything that could close a transport
        with suppress(OSError):
            writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
