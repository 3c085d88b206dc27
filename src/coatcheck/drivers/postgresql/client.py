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

from coatcheck.drivers._lifetimes import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL
from coatcheck.drivers.postgresql.fast import PATIENCE, with_limit
from coatcheck.drivers.sql.statement import Reply, Row, Statement, Wants
from coatcheck.errors import ConfigurationError

__all__ = ["AsyncBorrower", "AsyncClient", "Borrower", "Client", "Settings", "commits_alone"]

T = TypeVar("T")

_INTERVAL: Final = 0.1  # seconds between two looks at the clock
_SHORTEST: Final = 2  # seconds: psycopg waits no shorter for a connection
_OFTEN: Final = 5
"""How often a statement is sent before it is prepared."""

# A pool in between, such as PgBouncer in transaction mode, gives each transaction another connection. There statements
# must not be prepared, and nothing must be set that would stay for the next client. It can be told by the number of the
# server's process: the one that a pool names when a client connects, to be cancelled by, is its own invention.
_WHO: Final = """
    SELECT pg_backend_pid(), (
        SELECT count(set_config(name, value, FALSE))
        FROM (VALUES ('statement_timeout', %s), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', %s),
              ('transaction_timeout', '0'), ('default_transaction_isolation', 'read committed'),
              ('default_transaction_deferrable', 'off')) AS ours (name, value)
        WHERE pg_backend_pid() = %s AND current_setting(name, TRUE) IS NOT NULL)"""

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
        self.patience: Final = timeout * PATIENCE
        self._parameters: Final = {
            **parameters,
            "client_encoding": "utf8",
            "tcp_user_timeout": max(1, int(timeout * 1000)),
            "keepalives_idle": KEEPALIVE_IDLE,
            "keepalives_interval": KEEPALIVE_INTERVAL,
            "keepalives_count": KEEPALIVE_COUNT,
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
    """Do *work*, which waits for a socket, and give up at the moment *until*; what has arrived by then is read."""
    late = math.inf
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if now >= until:
                late = min(late, now)
                if not ready or now - late > _INTERVAL:
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
    """A connection that waits until its `deadline`.

    Attributes:
        is_direct: True where the server itself is at the other end.
        patience: The seconds that the server may take for a statement of the transaction that is open.
        deadline: When to give up, by the monotonic clock.
    """

    is_direct = False
    patience = 0.0
    deadline = math.inf

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer, not past the deadline. An interrupt leaves the connection as it is: it is closed then."""
        interval = max(0.001, min(_INTERVAL, self.deadline - time.monotonic()))
        return waiting.wait(_bounded(gen, self.deadline), self.pgconn.socket, interval=interval)


class AsyncConnection(_Hasty, psycopg.AsyncConnection[Any]):
    """A connection that is closed when the task that waits on it is cancelled; see `Connection`."""

    is_direct = False
    patience = 0.0

    async def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=_INTERVAL)
        except CancelledError:
            self.pgconn.finish()
            raise


class _Manners:
    """What can be said of a connection without I/O."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def _who(self, connection: Connection | AsyncConnection) -> Statement:
        """Return what asks who is at the other end, and sets what can be set there."""
        limit = _milliseconds(self._settings.patience)
        return Statement(_WHO, (limit, limit, connection.pgconn.backend_pid), Wants.ROWS)

    def _meet(self, connection: Connection | AsyncConnection, reply: Reply) -> None:
        """Have statements prepared if the server itself answered, which saves it most of its work."""
        if isinstance(reply, list) and reply[0][0] == connection.pgconn.backend_pid:
            connection.is_direct, connection.prepare_threshold = True, _OFTEN

    def limit(self, connection: Connection | AsyncConnection, deadline: float) -> Statement | None:
        """See `coatcheck.drivers.sql.client.Client`. Outside a transaction a statement has its own limit."""
        if connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            connection.patience = self._settings.patience  # which a transaction begins with
            return None
        left = deadline - time.monotonic()
        if left > connection.patience:
            return None
        connection.patience = left * PATIENCE
        return Statement(f"SET LOCAL statement_timeout = {_milliseconds(connection.patience)}")

    def patience(self, connection: Connection | AsyncConnection, *, is_inside: bool) -> float:
        """See `coatcheck.drivers.sql.client.Client`."""
        if is_inside:
            return connection.patience
        return self._settings.patience if connection.is_direct else math.inf

    def _text(self, statement: Statement, deadline: float) -> str:
        """Return the text of a statement, with the limit in it brought down to what is left."""
        left = deadline - time.monotonic()
        if not statement.alone or left > self._settings.patience:
            return statement.text
        return with_limit(statement.text, _milliseconds(left * PATIENCE))

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


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


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
        """See `coatcheck.drivers.sql.client.Client`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = Connection.connect(**self._settings.given(deadline), cursor_factory=_Cursor)
        finally:
            _limits.reset(before)
        try:
            self._meet(connection, self.run(connection, self._who(connection), deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    def run(self, connection: Connection, statement: Statement, deadline: float) -> Reply:
        """See `coatcheck.drivers.sql.client.Client`."""
        connection.deadline = deadline
        cursor = connection.cursor()
        cursor.execute(self._text(statement, deadline), statement.parameters or None, **_how(statement))
        return _reply(cursor, statement)


class AsyncClient(_Manners):
    """psycopg's asynchronous connections."""

    async def connect(self, deadline: float) -> AsyncConnection:
        """See `coatcheck.drivers.sql.client.AsyncClient`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = await AsyncConnection.connect(**self._settings.given(deadline), cursor_factory=_AsyncCursor)
        finally:
            _limits.reset(before)
        try:
            self._meet(connection, await self.run(connection, self._who(connection), deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    async def run(self, connection: AsyncConnection, statement: Statement, deadline: float) -> Reply:
        """See `coatcheck.drivers.sql.client.AsyncClient`."""
        if time.monotonic() >= deadline:
            raise TimedOut("there was no time left to ask the server")
        cursor = connection.cursor()
        await cursor.execute(self._text(statement, deadline), statement.parameters or None, **_how(statement))
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
