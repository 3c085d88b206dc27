"""A connection to a memcached server: a bare socket, which serves threads and event loops alike."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from coatcheck.drivers import _lifetimes
from coatcheck.drivers._pool import Link
from coatcheck.drivers.memcached.requests import Request
from coatcheck.drivers.memcached.wire import Parser, Refused, feed, put

__all__ = ["LinkLost", "MemcachedLink", "connected", "connected_async"]

_CHUNK: Final = 1 << 16


class LinkLost(Exception):
    """The server closed the connection in the middle of an exchange."""


class MemcachedLink(Link):
    """A connection to one server. It needs no event loop to be closed, and none to stay open.

    Args:
        connected: The socket.
    """

    __slots__ = ("_is_busy", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._socket: Final = connected
        self._is_busy = False

    def ask(self, request: Request, until: float) -> Any:
        """Send *request* and return the reply, by the moment *until* of the monotonic clock.

        Raises:
            Refused: The server said no.
            OSError, LinkLost, Garbled: The connection is of no more use.
        """
        self._is_busy = True
        data, parser = put(request)
        self._wait_until(until)
        self._socket.sendall(data)
        while True:
            self._wait_until(until)
            for reply in self._fed(parser, self._socket.recv(_CHUNK)):
                return reply

    async def ask_async(self, request: Request) -> Any:
        """Send *request* and return the reply; see `ask`."""
        self._is_busy = True
        loop = asyncio.get_running_loop()
        data, parser = put(request)
        await loop.sock_sendall(self._socket, data)
        while True:
            for reply in self._fed(parser, await loop.sock_recv(self._socket, _CHUNK)):
                return reply

    def _wait_until(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _fed(self, parser: Parser[Any], arrived: bytes) -> Sequence[Any]:
        """Return a sequence with the reply in it, or an empty one where there is more to come."""
        if not arrived:
            raise LinkLost
        try:
            found = feed(parser, arrived)
        except Refused:
            self._is_busy = False
            raise
        self._is_busy = not found
        return found

    def is_clean(self) -> bool:
        return not self._is_busy

    def is_quiet(self) -> bool:
        self._socket.settimeout(0)
        with suppress(OSError):
            try:
                self._socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


def connected(host: str, port: int, until: float) -> MemcachedLink:
    """Open a connection, until the moment *until* of the monotonic clock."""
    connection = socket.create_connection((host, port), max(0.001, until - time.monotonic()))
    _prepare(connection)
    return MemcachedLink(connection)


async def connected_async(host: str, port: int) -> MemcachedLink:
    """Open a connection that does not block."""
    loop = asyncio.get_running_loop()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    error: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(0)
            _prepare(connection)
            await loop.sock_connect(connection, address)
        except OSError as refused:
            connection.close()
            error = refused
        except BaseException:
            connection.close()
            raise
        else:
            return MemcachedLink(connection)
    raise error


def _prepare(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _lifetimes.keep_alive(connection)
