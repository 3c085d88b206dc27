"""Connections of PyMySQL's and aiomysql's that know a limit for all of an exchange, and when they are broken."""

from __future__ import annotations

import contextlib
import io
import math
import select
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import aiomysql  # type: ignore[import-untyped]
from pymysql.connections import Connection
from pymysql.cursors import Cursor
from pymysql.err import Error, OperationalError

from coatcheck.drivers.mariadb.dialect import LOST, number_of

if TYPE_CHECKING:
    _PyMySQLBase = Connection[Cursor]
else:
    _PyMySQLBase = Connection

__all__ = ["IN_TRANSACTION", "LEAST", "NO_TLS", "AioMySQLConnection", "PyMySQLConnection", "QuietCursor", "left_until"]

IN_TRANSACTION: Final = 1
"""The server's flag for a transaction that is open."""

LEAST: Final = 0.001
"""Seconds: a wait that is shorter is over."""

NO_TLS: Final = 2026
"""The client libraries' number of the error that there is no TLS."""

_TLS_FLAG: Final = 2048  # the server's flag for TLS


class _ExchangeState:
    """What is known of the exchange with the server.

    Attributes:
        is_busy: Whether an answer was not read to its end.
        most: The server's max_allowed_packet, once it was asked.
        patience: The seconds for which the server waits for a lock.
    """

    is_busy = False
    most: float = math.inf
    patience = 1

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Count the connection as broken unless what happens inside ends with an answer, if only a refusal."""
        self.is_busy = True
        try:
            yield
        except Error as error:
            self.is_busy = number_of(error) is None or number_of(error) in LOST
            raise
        else:
            self.is_busy = False


class _BoundedFile(io.RawIOBase):
    """What a connection's socket gives. PyMySQL's own limit is for each piece of an answer, however many there are.

    Args:
        file: The socket's, without a buffer.
        connection: Whose socket it is.
    """

    def __init__(self, file: io.RawIOBase, connection: PyMySQLConnection) -> None:
        self._file: Final = file
        self._connection: Final = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.bound()
        count: int | None = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class PyMySQLConnection(_PyMySQLBase, _ExchangeState):
    """A connection of PyMySQL's."""

    _read_timeout: float | None
    _write_timeout: float | None
    server_status: int
    _sock: Any
    _deadline = math.inf
    _reader: io.BufferedReader | None = None

    @property
    def _rfile(self) -> io.BufferedReader | None:
        return self._reader

    @_rfile.setter
    def _rfile(self, file: io.BufferedReader | None) -> None:
        self._reader = None if file is None else io.BufferedReader(_BoundedFile(file.detach(), self))

    def bound(self) -> None:
        """Let the socket wait no longer than is left; what has arrived by then is read."""
        if self._deadline is not math.inf:
            self._sock.settimeout(max(LEAST, self._deadline - time.monotonic()))

    def limit(self, deadline: float) -> None:
        """Let nothing be waited for any longer than until *deadline*, by the monotonic clock.

        Raises:
            TimeoutError: It is over.
        """
        self._read_timeout = self._write_timeout = left_until(deadline)
        self._deadline = deadline

    @property
    def endpoint(self) -> socket.socket:
        """Its socket."""
        found: socket.socket = self._sock
        return found

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Do nothing: it is set with all else."""

    @property
    def is_clean(self) -> bool:
        """Whether it is open, in no transaction, and not in the middle of an exchange."""
        return self.open and not self.is_busy and not self.server_status & IN_TRANSACTION

    @property
    def is_alive(self) -> bool:
        """Whether nothing has arrived on it, such as its end."""
        if not self.open:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def discard(self) -> None:
        """Close it without telling the server, which may not listen."""
        self._force_close()  # type: ignore[attr-defined]  # the stubs leave it out


class QuietCursor(aiomysql.Cursor):  # type: ignore[misc]  # aiomysql has no types
    """A cursor that does not ask the server for its warnings, which may repeat values, to print them."""

    async def _show_warnings(self, conn: Any) -> None:
        """Do nothing."""


class AioMySQLConnection(aiomysql.Connection, _ExchangeState):  # type: ignore[misc]  # aiomysql has no types
    """A connection of aiomysql's."""

    server_status: int
    _loop: Any
    _reader: Any
    _writer: Any

    async def _get_server_information(self) -> None:
        await super()._get_server_information()
        if self._ssl_context is not None and not self.server_capabilities & _TLS_FLAG:
            # aiomysql would silently go on without encryption
            raise OperationalError(NO_TLS, "TLS is required, but the server does not offer it")

    @property
    def endpoint(self) -> socket.socket:
        """Its socket."""
        found: socket.socket = self._writer.get_extra_info("socket")
        return found

    @property
    def is_clean(self) -> bool:
        """Whether it is open, in no transaction, and not in the middle of an exchange."""
        return not self.closed and not self.is_busy and not self.server_status & IN_TRANSACTION

    @property
    def is_alive(self) -> bool:
        """Whether nothing has arrived on it, such as its end."""
        if self.closed or self._writer.transport.is_closing() or self._loop.is_closed():
            return False
        reader = self._reader
        return not (reader.at_eof() or reader.eof_received or reader.exception() or reader._buffer)  # noqa: SLF001 (see above)

    def discard(self) -> None:
        """Close it without telling the server, whether or not its loop is still there."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            return
        try:
            writer.transport.abort()
        except RuntimeError:  # the loop is closed, and with it everything that could close a transport
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        self.discard()


def left_until(deadline: float) -> float:
    """Return the seconds that are left.

    Raises:
        TimeoutError: None are.
    """
    left = deadline - time.monotonic()
    if left < LEAST:
        raise TimeoutError("there was no time left to query the server")
    return left
