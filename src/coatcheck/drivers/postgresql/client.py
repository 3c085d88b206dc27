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
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row

from coatcheck.drivers._lifetimes import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL
from coatcheck.drivers.postgresql.exchange import ADAPTERS, Exchange, Waiting
from coatcheck.drivers.postgresql.fast import PATIENCE, with_limit
from coatcheck.drivers.sql.statement import Reply, Row, Statement, Wants
from coatcheck.errors import ConfigurationError

__all__ = [
    "AsyncPsycopgBorrower",
    "AsyncPsycopgClient",
    "PostgreSQLSettings",
    "PsycopgBorrower",
    "PsycopgClient",
    "commits_alone",
]

T = TypeVar("T")

_INTERVAL: Final = 0.1  # seconds between two looks at the clock
_SHORTEST: Final = 2  # seconds: psycopg waits no shorter for a connection

_LIMITS: Final = (
    "SELECT set_config('lock_timeout', '0', TRUE), set_config('statement_timeout', %s, TRUE),"
    " set_config('idle_in_transaction_session_timeout', %s, TRUE)"
)
"""For a transaction. A client that vanishes does not keep its locks, and one that gave up leaves nothing running."""

_LIMIT: Final = "SELECT set_config('statement_timeout', %s, TRUE)"

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

Parameters = Mapping[str, Any]


class TimedOut(psycopg.OperationalError):
    """The server did not answer in time."""


class PostgreSQLSettings:
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
            "prepare_threshold": None,
        }

    def limits(self, deadline: float) -> tuple[float, float]:
        """Return the seconds for each host, and the moment at which to give up."""
        return max(0.0, deadline - time.monotonic()) / self._hosts, deadline

    def given(self, deadline: float) -> Parameters:
        """Return the parameters for a connection that has to be there at the moment *deadline*."""
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


class _LentCursor(psycopg.Cursor[Any]):
    """A cursor that nothing on its connection, and nothing an application registers, changes."""

    @property
    def adapters(self) -> AdaptersMap:
        return ADAPTERS


class _AsyncLentCursor(psycopg.AsyncCursor[Any]):
    @property
    def adapters(self) -> AdaptersMap:
        return ADAPTERS


class _Hasty(psycopg.BaseConnection[Any]):
    """A connection that takes no longer to open than it may, also where that is less than psycopg's two seconds."""

    @classmethod
    def _connect_gen(cls, *arguments: Any, **more: Any) -> Any:
        # Once for each host. Where psycopg has no such method, its own limit, in whole seconds, is all that holds.
        seconds, deadline = _limits.get()
        until = min(deadline, time.monotonic() + seconds)
        return (yield from _bounded(super()._connect_gen(*arguments, **more), until))


class _Ours:
    """What is known of a connection of our own.

    Attributes:
        pgconn: libpq's connection.
        is_direct: True if the server itself is at the other end.
        patience: The seconds that the server may take for a statement of the transaction that is open.
        bound: The seconds that the server may wait for a lock, from the beginning of a transaction.
    """

    pgconn: PGconn
    is_direct = False
    patience = 0.0
    bound = 0.0

    @cached_property
    def exchange(self) -> Exchange:
        """What sends statements on it."""
        return Exchange(self.pgconn)


class PsycopgConnection(_Hasty, _Ours, psycopg.Connection[Any]):
    """A connection that waits until its `deadline`, by the monotonic clock."""

    deadline = math.inf

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer, not past the deadline. An interrupt leaves the connection as it is: it is closed then."""
        interval = max(0.001, min(_INTERVAL, self.deadline - time.monotonic()))
        return waiting.wait(_bounded(gen, self.deadline), self.pgconn.socket, interval=interval)


class AsyncPsycopgConnection(_Hasty, _Ours, psycopg.AsyncConnection[Any]):
    """A connection that is closed when the task that waits on it is cancelled; see `PsycopgConnection`."""

    async def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for an answer."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=_INTERVAL)
        except CancelledError:
            self.pgconn.finish()
            raise


class _PsycopgManners:
    """What can be said of a connection without I/O."""

    def __init__(self, settings: PostgreSQLSettings) -> None:
        self._settings: Final = settings

    def _who(self, connection: PsycopgConnection | AsyncPsycopgConnection) -> Statement:
        """Return what asks who is at the other end, and sets what can be set there."""
        limit = _milliseconds(self._settings.patience)
        return Statement(_WHO, (limit, limit, connection.pgconn.backend_pid), Wants.ROWS)

    def _meet(self, connection: PsycopgConnection | AsyncPsycopgConnection, replies: Sequence[Reply]) -> None:
        """Have statements prepared if the server itself answered, which saves it most of its work."""
        (rows,) = replies
        if isinstance(rows, list) and rows[0][0] == connection.pgconn.backend_pid:
            connection.is_direct = connection.exchange.prepares = True

    def patience(self, connection: PsycopgConnection | AsyncPsycopgConnection, *, is_inside: bool) -> float:
        """See `coatcheck.drivers.sql.client.Client`."""
        if is_inside:
            return connection.patience
        return self._settings.patience if connection.is_direct else math.inf

    def _asked(
        self, connection: PsycopgConnection | AsyncPsycopgConnection, statements: Sequence[Statement], deadline: float
    ) -> Waiting:
        """Run *statements*, with limits by which the server gives up a lock before the moment *deadline*."""
        pgconn, most = connection.pgconn, self._settings.patience
        left = deadline - time.monotonic()
        limits: tuple[Statement, ...] = ()
        place = 0
        if statements[0].begins:
            place = 1
            connection.patience = connection.bound = most if left > most else left * PATIENCE
            if not connection.is_direct or connection.bound < most:
                limits = (Statement(_LIMITS, (_milliseconds(connection.bound), _milliseconds(most)), Wants.ROWS),)
        elif pgconn.transaction_status != TransactionStatus.INTRANS:
            connection.patience, connection.bound = most, most if left > most else left * PATIENCE
        elif left <= connection.patience:
            connection.patience = left * PATIENCE
            limits = (Statement(_LIMIT, (_milliseconds(connection.patience),), Wants.ROWS),)
        if connection.bound < most:
            bound = _milliseconds(connection.bound)
            statements = [each._replace(text=with_limit(each.text, bound)) for each in statements]
        replies = yield from connection.exchange.run([*statements[:place], *limits, *statements[place:]])
        del replies[place : place + len(limits)]
        return replies

    def is_clean(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
        """Return whether it is open and idle."""
        pgconn = connection.pgconn
        return pgconn.status == ConnStatus.OK and pgconn.transaction_status == TransactionStatus.IDLE

    def is_alive(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
        """Return whether nothing has arrived on it: all that a server says unasked is good-bye."""
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


class PsycopgClient(_PsycopgManners):
    """psycopg's synchronous connections."""

    def connect(self, deadline: float) -> PsycopgConnection:
        """See `coatcheck.drivers.sql.client.Client`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = PsycopgConnection.connect(**self._settings.given(deadline))
        finally:
            _limits.reset(before)
        try:
            self._meet(connection, self.run(connection, (self._who(connection),), deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    def run(self, connection: PsycopgConnection, statements: Sequence[Statement], deadline: float) -> list[Reply]:
        """See `coatcheck.drivers.sql.client.Client`."""
        connection.deadline = deadline
        replies: list[Reply] = connection.wait(self._asked(connection, statements, deadline))
        return replies


class AsyncPsycopgClient(_PsycopgManners):
    """psycopg's asynchronous connections."""

    async def connect(self, deadline: float) -> AsyncPsycopgConnection:
        """See `coatcheck.drivers.sql.client.AsyncClient`."""
        before = _limits.set(self._settings.limits(deadline))
        try:
            connection = await AsyncPsycopgConnection.connect(**self._settings.given(deadline))
        finally:
            _limits.reset(before)
        try:
            self._meet(connection, await self.run(connection, (self._who(connection),), deadline))
        except BaseException:
            self.close(connection)
            raise
        return connection

    async def run(
        self, connection: AsyncPsycopgConnection, statements: Sequence[Statement], deadline: float
    ) -> list[Reply]:
        """See `coatcheck.drivers.sql.client.AsyncClient`."""
        if time.monotonic() >= deadline:
            raise TimedOut("there was no time left to query the server")
        replies: list[Reply] = await connection.wait(self._asked(connection, statements, deadline))
        return replies


def _how(statement: Statement) -> dict[str, bool | None]:
    """Return how to send a statement: rows come back in binary form, exact and short; without rows, several may go."""
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


def commits_alone(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the next statement on a connection of the application's would be committed by itself."""
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


class PsycopgBorrower:
    """How to use a `psycopg.Connection` of the application's."""

    def run(self, connection: psycopg.Connection[Any], statement: Statement) -> Reply:
        """See `coatcheck.drivers.sql.lent.Borrower`."""
        _check_mode(connection)
        cursor = _LentCursor(connection, row_factory=tuple_row)
        how = {**_how(statement), "prepare": False}  # nobody knows what is between the application and its server
        cursor.execute(statement.text, statement.parameters or None, **how)
        return _reply(cursor, statement)


class AsyncPsycopgBorrower:
    """How to use a `psycopg.AsyncConnection` of the application's."""

    async def run(self, connection: psycopg.AsyncConnection[Any], statement: Statement) -> Reply:
        """See `coatcheck.drivers.sql.lent.Borrower`."""
        _check_mode(connection)
        cursor = _AsyncLentCursor(connection, row_factory=tuple_row)
        how = {**_how(statement), "prepare": False}  # nobody knows what is between the application and its server
        await cursor.execute(statement.text, statement.parameters or None, **how)
        if statement.wants is Wants.COUNT:
            return cursor.rowcount
        return _answer(await cursor.fetchall(), statement)
