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


class SyncLine(Line):
    """A connection of a thread's, and a cheap way to see whether anything arrived unasked: that can only be its end."""

    __slots__ = ("_poll", "_socket", "_timeout")

    def __init__(self, connection: Any, *, asks_role: bool) -> None:
        connection.connect()
        super().__init__(connection, asks_role=asks_role)
        self._socket: Final[socket.socket] = connection._get_socket()  # noqa: SLF001 (redis-py offers no other way)
        self._timeout: Final[float] = connection.socket_timeout
        self._socket.settimeout(self._timeout)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        self._poll: Final[Callable[[int], list[Any]]] = poller.poll

    def is_quiet(self) -> bool:
        if not self._poll(0):
            return True
        try:
            return not self.connection.can_read(0)  # with TLS, what arrived may be no data
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        self.connection.disconnect()

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

    async def exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """Send commands and return the replies."""
        reader, writer = self.connection._reader, self.connection._writer  # noqa: SLF001 (redis-py offers no other way)
        writer.write(self.begin(packed))
        await writer.drain()
        while not self.feed(await reader.read(CHUNK)):
            pass
        return self.end()


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
