"""PyMySQL and aiomysql, as the pools and drivers in `coatcheck.drivers.sql` want them.

Both speak the protocol in the process, with the same errors. Neither knows a limit for all of an exchange, and a
connection that broke inside one can look as if it could be used: `connections` mends that.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from pymysql.cursors import Cursor
from pymysql.err import Error, OperationalError

from coatcheck.drivers._lifetimes import keep_alive
from coatcheck.drivers._steps import drive, drive_async
from coatcheck.drivers.mariadb.connections import (
    LEAST,
    NO_TLS,
    AioMySQLConnection,
    PyMySQLConnection,
    QuietCursor,
    left_until,
)
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

__all__ = ["AioMySQLClient", "PyMySQLClient"]

# The client libraries' numbers of errors
_CUT_SHORT: Final = 2013
_NO_LOGIN: Final = 2059


_Packet = tuple[Sequence[Statement], str]
"""Statements that are sent together, and their text."""


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
        left = max(LEAST, deadline - time.monotonic())
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
        left_until(deadline)
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


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raise what goes wrong with a new connection by the numbers of errors that the server and its clients have."""
    try:
        yield
    except RuntimeError as error:  # how PyMySQL says that a package is missing which some logins need
        raise OperationalError(_NO_LOGIN, str(error)) from error
    except OperationalError as error:
        if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
            raise OperationalError(NO_TLS, "no TLS connection was established") from error
        raise
