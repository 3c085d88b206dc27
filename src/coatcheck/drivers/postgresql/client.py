"""Connections to PostgreSQL whose every wait has an end.

libpq waits for an answer for as long as the connection seems to be there, which may be hours where the network swallows
what is sent. So the synchronous connection watches the clock while it waits, and the asynchronous one is closed when
its task is cancelled (by a time limit, too) rather than asking the server politely and waiting for it once more.
"""

from __future__ import annotations

import math
import select
import time
from asyncio import CancelledError
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from coatcheck.drivers.sql.statement import Reply, Row, Statement, Wants
from coatcheck.errors import ConfigurationError

__all__ = ["AsyncBorrower", "AsyncClient", "Borrower", "Client", "Settings", "commits_alone"]

T = TypeVar("T")

_INTERVAL: Final = 0.1  # seconds between two looks at the clock
_SHORTEST: Final = 2  # seconds: psycopg waits no shorter for a connection
_OFTEN: Final = 5
"""How often a statement is sent before it is prepared."""

_WHO: Final = Statement("SELECT pg_backend_pid()", (), Wants.ROWS)
_ADAPTERS: Final = AdaptersMap(psycopg.adapters)  # as they are now: what an application registers later is not for us

Parameters = Mapping[str, Any]


class TimedOut(psycopg.OperationalError):
    """The server did not answer in time."""


class Settings:
    """How to connect.

    Args:
        parameters: Those of libpq.
        timeout: Seconds that an operation may take in all.
        hosts: How many hosts the parameters name.
    """

    def __init__(self, parameters: Parameters, timeout: float, hosts: int) -> None:
        self._hosts: Final = max(1, hosts)
        self._parameters: Final = {
            **parameters,
            "client_encoding": "utf8",
            "tcp_user_timeout": max(1, int(timeout * 1000)),
            "keepalives_idle": 30,
            "autocommit": True,
            "prepare_threshold": None,  # until it is known who is at the other end
        }

    def limits(self, deadline: float) -> tuple[float, float]:
        """Give the seconds for each host, and the moment at which to give up."""
        return max(0.0, deadline - time.monotonic()) / self._hosts, deadline

    def given(self, deadline: float) -> Parameters:
        """Give the parameters for a connection that has to be there at the moment *deadline*."""
        seconds, _ = self.limits(deadline)
        return {**self._parameters, "connect_timeout": max(_SHORTEST, math.ceil(seconds))}


_limits: Final[ContextVar[tuple[float, float]]] = ContextVar("_limits", default=(math.inf, math.inf))
"""The limits of the connection that is being opened."""


def _bounded(work: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
    """Do *work*, which waits for a socket, and give up at the moment *until*."""
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            if time.monotonic() >= until:
                raise TimedOut("the server did not answer in time")
            wanted = work.send(ready)
    except StopIteration as done:
        answer: T = done.value
        return answer
    finally:
        work.close()


class _Cursor(psycopg.Cursor[Any]):
    """A cursor that nothing on its connection, and nothing an application registers, changes."""

    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


class _AsyncCursor(psycopg.AsyncCursor[Any]):
    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


class _Hasty(psycopg.BaseConnection[Any]):
    """A connection that takes no longer to open than it may, also where that is less than psycopg's two seconds."""

    @classmethod
    def _connect_gen(cls, *arguments: Any, **more: Any) -> Any:
        # Once for each host. Where psycopg has no such method, its own limit, in whole seconds, is all that holds.
        seconds, deadline = _limits.get()
        until = min(deadline, time.monotonic() + seconds)
        return (yield from _bounded(super()._connect_gen(*arguments, **more), until))


class Connection(_Hasty, psycopg.Connection[Any]):
    """A connection that waits until its `deadline`."""

    deadline = math.inf

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer, not past the deadline. An interrupt leaves the connection as it is: it is closed then."""
        interval = max(0.001, min(_INTERVAL, self.deadline - time.monotonic()))
        return waiting.wait(_bounded(gen, self.deadline), self.pgconn.socket, interval=interval)


class AsyncConnection(_Hasty, psycopg.AsyncConnection[Any]):
    """A connection that is closed when the task that waits on it is cancelled."""

    async def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=_INTERVAL)
        except CancelledError:
            self.pgconn.finish()
            raise


def _prepare_where_possible(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], reply: Reply) -> None:
    """Have statements prepared if the server itself is at the other end, which saves it most of its work.

    A pool in between, such as PgBouncer in transaction mode, gives each transaction another connection, where what was
    prepared is not known, or is another's of the same name. It can be told by the number of the server's process: the
    one that a pool names when a client connects, to be cancelled by, is its own invention.
    """
    if isinstance(reply, list) and reply[0][0] == connection.pgconn.backend_pid:
        connection.prepare_threshold = _OFTEN


class _Manners:
    """What can be said of a connection without I/O."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def is_clean(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
        """Tell whether it is open and idle."""
        pgconn = connection.pgconn
        return pgconn.status == ConnStatus.OK and pgconn.transaction_status == TransactionStatus.IDLE

    def is_alive(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
        """Tell whether nothing has arrived on it: all that a server says unasked is good-bye."""
        try:
            poll = select.poll()
            poll.register(connection.pgconn.socket, select.POLLIN)
            return not poll.poll(0)
        except (OSError, psycopg.Error):
            return False

    def close(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Close it at once."""
        connection.pgconn.finish()


def _how(statement: Statement) -> dict[str, bool | None]:
    """Say how to send a statement: rows come back in binary form, exact and short; without rows it may be several."""
    return {"binary": statement.wants is not Wants.COUNT, "prepare": False if statement.is_ranged else None}


def _reply(cursor: Any, statement: Statement) -> Reply:
    if statement.wants is Wants.COUNT:
        count: int = cursor.rowcount
        return count
    return _answer(cursor.fetchall(), statement)


def _answer(rows: Any, statement: Statement) -> Reply:
    if statement.wants is Wants.ROWS:
        found: list[Row] = rows
        return found
    ident: int | None = rows[0][0] if rows else None
    return ident


class Client(_Manners):
    """psycopg's synchronous connections."""

    def connect(self, deadline: float) -> Connection:
        """See `coatcheck.drivers.sql.pool.Client`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = Connection.connect(**self._settings.given(deadline), cursor_factory=_Cursor)
        finally:
            _limits.reset(before)
        try:
            _prepare_where_possible(connection, self.run(connection, _WHO, deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    def run(self, connection: Connection, statement: Statement, deadline: float) -> Reply:
        """See `coatcheck.drivers.sql.pool.Client`."""
        connection.deadline = deadline
        cursor = connection.cursor()
        try:
            cursor.execute(statement.text, statement.parameters or None, **_how(statement))
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.close()  # the next one may lead to the primary
            raise
        return _reply(cursor, statement)


class AsyncClient(_Manners):
    """psycopg's asynchronous connections."""

    async def connect(self, deadline: float) -> AsyncConnection:
        """See `coatcheck.drivers.sql.pool.AsyncClient`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = await AsyncConnection.connect(**self._settings.given(deadline), cursor_factory=_AsyncCursor)
        finally:
            _limits.reset(before)
        try:
            _prepare_where_possible(connection, await self.run(connection, _WHO, deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    async def run(self, connection: AsyncConnection, statement: Statement, deadline: float) -> Reply:  # noqa: ARG002 (its caller bounds the time)
        """See `coatcheck.drivers.sql.pool.AsyncClient`."""
        cursor = connection.cursor()
        try:
            await cursor.execute(statement.text, statement.parameters or None, **_how(statement))
        except psycopg.errors.ReadOnlySqlTransaction:
            await connection.close()  # the next one may lead to the primary
            raise
        if statement.wants is Wants.COUNT:
            return cursor.rowcount
        return _answer(await cursor.fetchall(), statement)


def commits_alone(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the next statement on a connection of the application's would be committed by itself."""
    return connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE


def _check_mode(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Look whether each statement is answered before the next.

    Raises:
        ConfigurationError: It is not.
    """
    if connection.pgconn.pipeline_status:
        raise ConfigurationError(
            "the connection that was lent is in pipeline mode, in which it is not known what a statement did before the"
            " next one is sent: open and save sessions outside `with connection.pipeline()`"
        )


class Borrower:
    """How to use a `psycopg.Connection` of the application's."""

    def run(self, connection: psycopg.Connection[Any], statement: Statement) -> Reply:
        """See `coatcheck.drivers.sql.lent.Borrower`."""
        _check_mode(connection)
        cursor = _Cursor(connection, row_factory=tuple_row)
        how = {**_how(statement), "prepare": False}  # nobody knows what is between the application and its server
        cursor.execute(statement.text, statement.parameters or None, **how)
        return _reply(cursor, statement)


class AsyncBorrower:
    """How to use a `psycopg.AsyncConnection` of the application's."""

    async def run(self, connection: psycopg.AsyncConnection[Any], statement: Statement) -> Reply:
        """See `coatcheck.drivers.sql.lent.Borrower`."""
        _check_mode(connection)
        cursor = _AsyncCursor(connection, row_factory=tuple_row)
        how = {**_how(statement), "prepare": False}  # nobody knows what is between the application and its server
        await cursor.execute(statement.text, statement.parameters or None, **how)
        if statement.wants is Wants.COUNT:
            return cursor.rowcount
        return _answer(await cursor.fetchall(), statement)
