"""PyMySQL and aiomysql, as the pools and shells of the SQL room want them.

Both speak the protocol in the process, with the same errors. Neither knows a limit for all of an exchange, or keeps the
end of a connection that broke inside it from looking like one that can be used: that is seen to here.
"""

from __future__ import annotations

import contextlib
import io
import math
import select
import socket
import ssl
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import aiomysql  # type: ignore[import-untyped]
from pymysql.connections import Connection
from pymysql.cursors import Cursor
from pymysql.err import Error, OperationalError

from coatcheck.drivers._lifetimes import keep_alive
from coatcheck.drivers._steps import drive, drive_async
from coatcheck.drivers.mariadb.dialect import LOST, number_of
from coatcheck.drivers.mariadb.modes import GRAIN, limited, made_ours, patience_for
from coatcheck.drivers.mariadb.settings import MariaDBSettings
from coatcheck.drivers.mariadb.wire import (
    BETWEEN,
    check_length,
    check_version,
    in_one_packet,
    is_refusal,
    nothing_for,
    rendered,
    reply_of,
    text_of,
)
from coatcheck.drivers.sql.statement import Reply, Statement, Wants

if TYPE_CHECKING:
    _PyMySQLBase = Connection[Cursor]
else:
    _PyMySQLBase = Connection

__all__ = [
    "IN_TRANSACTION",
    "AioMySQLClient",
    "AioMySQLConnection",
    "PyMySQLClient",
    "PyMySQLConnection",
    "QuietCursor",
]

IN_TRANSACTION: Final = 1
"""The server's flag for a transaction that is open."""

_LEAST: Final = 0.001
_TLS_FLAG: Final = 2048  # the server's flag for TLS
# The client libraries' numbers of errors
_CUT_SHORT: Final = 2013
_NO_TLS: Final = 2026
_NO_LOGIN: Final = 2059


_Packet = tuple[Sequence[Statement], str]
"""Statements that are sent together, and their text."""


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
            self._sock.settimeout(max(_LEAST, self._deadline - time.monotonic()))

    def limit(self, deadline: float) -> None:
        """Let nothing be waited for any longer than until *deadline*, by the monotonic clock.

        Raises:
            TimeoutError: It is over.
        """
        self._read_timeout = self._write_timeout = _left_until(deadline)
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
        """Close it without a word to the server, which may not listen."""
        self._force_close()  # type: ignore[attr-defined]  # the stubs leave it out


class _MySQLManners:
    """What is the same in both client libraries.

    Args:
        settings: Where the server is and how to reach it.
    """

    def __init__(self, settings: MariaDBSettings) -> None:
        self._settings: Final = settings
        self._context: ssl.SSLContext | None = None
        self._most_patience: Final = settings.patience

    def is_clean(self, connection: PyMySQLConnection | AioMySQLConnection, /) -> bool:
        return connection.is_clean

    def is_alive(self, connection: PyMySQLConnection | AioMySQLConnection, /) -> bool:
        return connection.is_alive

    def close(self, connection: PyMySQLConnection | AioMySQLConnection, /) -> None:
        connection.discard()

    def _packets(
        self, connection: PyMySQLConnection | AioMySQLConnection, statements: Sequence[Statement], deadline: float
    ) -> Generator[_Packet, list[Reply], list[Reply]]:
        """Send *statements* in as few packets as the server takes: yield each, be sent its replies, return all.

        Each begins with how long the server may wait for a lock, if that has changed.
        """
        texts = list(map(rendered, statements))
        replies: list[Reply] = []
        while (done := len(replies)) < len(statements):
            end = done + in_one_packet(statements[done:], texts[done:], connection.most)
            packet, text = statements[done:end], BETWEEN.join(texts[done:end])
            patience = patience_for(self._most_patience, deadline)
            if patience == connection.patience:
                replies += yield packet, text
            else:
                limit = limited(patience)
                replies += (yield (limit, *packet), f"{limit.text}{BETWEEN}{text}")[1:]
                connection.patience = patience
            if statements[len(replies) - 1].wants is Wants.ID and replies[-1] is None:
                break
        return replies

    def patience(self, connection: PyMySQLConnection | AioMySQLConnection, /, *, is_inside: bool) -> float:  # noqa: ARG002 (it is the same)
        return connection.patience + GRAIN

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.tls != "off" and self._context is None:
            self._context = self._settings.context()
        return self._context


class PyMySQLClient(_MySQLManners):
    """Opens and uses connections of PyMySQL's."""

    def connect(self, deadline: float, /) -> PyMySQLConnection:
        settings, context = self._settings, self._tls()
        left = max(_LEAST, deadline - time.monotonic())
        connection = PyMySQLConnection(
            **settings.common,
            database=settings.database,
            password=settings.password.encode(),  # text would be written as Latin 1
            ssl=context,
            ssl_disabled=context is None,
            connect_timeout=left,
            read_timeout=left,
            write_timeout=left,
            defer_connect=True,
        )
        try:
            connection.limit(deadline)
            with _told():
                connection.connect()
            check_version(connection.get_server_info())  # type: ignore[no-untyped-call]
            if not settings.socket:
                keep_alive(connection.endpoint)
            patience = patience_for(settings.patience, deadline)
            connection.most = drive(
                made_ours(patience), lambda packet: self._ask(connection, packet, text_of(packet), deadline)
            )
            connection.patience = patience
        except BaseException:
            connection.discard()
            raise
        return connection

    def run(self, connection: PyMySQLConnection, statements: Sequence[Statement], deadline: float, /) -> list[Reply]:
        packets = self._packets(connection, statements, deadline)
        return drive(packets, lambda packet: self._ask(connection, *packet, deadline))

    def _ask(
        self, connection: PyMySQLConnection, packet: Sequence[Statement], text: str, deadline: float
    ) -> list[Reply]:
        """Send one packet; return the replies to its statements, up to the first insertion that was refused."""
        check_length(text, connection.most)
        connection.limit(deadline)
        replies: list[Reply] = []
        try:
            with connection.exchange(), connection.cursor(Cursor) as cursor:
                cursor.execute(text)
                for statement in packet:
                    if replies and not cursor.nextset():
                        raise OperationalError(_CUT_SHORT, "an answer is missing")
                    replies.append(reply_of(statement, cursor, cursor.fetchall() if cursor.description else ()))
        except Error as error:
            refused = packet[len(replies)]
            if not is_refusal(refused, error):
                raise
            replies.append(nothing_for(refused))
        return replies


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
            # aiomysql would go on without a word, and without encryption
            raise OperationalError(_NO_TLS, "TLS is required, but the server does not offer it")

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
        """Close it without a word to the server, whether or not its loop is still there."""
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


class AioMySQLClient(_MySQLManners):
    """Opens and uses connections of aiomysql's."""

    async def connect(self, deadline: float, /) -> AioMySQLConnection:
        settings = self._settings
        connection = AioMySQLConnection(
            **settings.common,
            db=settings.database,
            password=settings.password.encode().decode("latin-1"),  # aiomysql writes text as Latin 1
            ssl=self._tls(),
        )
        try:
            with _told():
                await connection.ping()  # which connects
            check_version(connection.get_server_info())
            if not settings.socket:
                keep_alive(connection.endpoint)
            patience = patience_for(settings.patience, deadline)
            connection.most = await drive_async(
                made_ours(patience), lambda packet: self._ask(connection, packet, text_of(packet), deadline)
            )
            connection.patience = patience
        except BaseException:
            connection.discard()
            raise
        return connection

    async def run(
        self, connection: AioMySQLConnection, statements: Sequence[Statement], deadline: float, /
    ) -> list[Reply]:
        packets = self._packets(connection, statements, deadline)
        return await drive_async(packets, lambda packet: self._ask(connection, *packet, deadline))

    async def _ask(
        self, connection: AioMySQLConnection, packet: Sequence[Statement], text: str, deadline: float
    ) -> list[Reply]:
        """See `PyMySQLClient`."""
        check_length(text, connection.most)
        _left_until(deadline)
        replies: list[Reply] = []
        try:
            with connection.exchange():
                async with connection.cursor(QuietCursor) as cursor:
                    await cursor.execute(text)
                    for statement in packet:
                        if replies and not await cursor.nextset():
                            raise OperationalError(_CUT_SHORT, "an answer is missing")
                        replies.append(
                            reply_of(statement, cursor, await cursor.fetchall() if cursor.description else ())
                        )
        except Error as error:
            refused = packet[len(replies)]
            if not is_refusal(refused, error):
                raise
            replies.append(nothing_for(refused))
        return replies


def _left_until(deadline: float) -> float:
    """Return the seconds that are left.

    Raises:
        TimeoutError: None are.
    """
    left = deadline - time.monotonic()
    if left < _LEAST:
        raise TimeoutError("there was no time left to query the server")
    return left


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raise what goes wrong with a new connection by the numbers of errors that the server and its clients have."""
    try:
        yield
    except RuntimeError as error:  # how PyMySQL says that a package is missing which some logins need
        raise OperationalError(_NO_LOGIN, str(error)) from error
    except OperationalError as error:
        if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
            raise OperationalError(_NO_TLS, "no TLS connection was established") from error
        raise
