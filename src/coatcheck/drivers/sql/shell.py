"""Drivers on connections of our own to a SQL server: one for synchronous programs, one for asynchronous ones."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers._pool import AsyncPool, PerLoop, PerProcess, Pool, PoolBusy
from coatcheck.drivers._steps import AsyncSteppedDriver, SteppedDriver, Steps, drive, drive_async
from coatcheck.drivers.base import Capability
from coatcheck.drivers.sql.attempt import Attempt, TablesMissing, trouble_of
from coatcheck.drivers.sql.client import AsyncClient, Client, SQLLink
from coatcheck.drivers.sql.dialect import Dialect, Trouble
from coatcheck.drivers.sql.statement import (
    ROLLBACK,
    Again,
    Messages,
    Reply,
    Row,
    Statement,
    Wants,
    in_transaction,
)
from coatcheck.drivers.sql.writing import SQLOperations
from coatcheck.errors import CoatcheckError, ConfigurationError

__all__ = ["CAPABILITIES", "AsyncSQLDriver", "SQLDriver", "check_bounds"]

C = TypeVar("C")
T = TypeVar("T")

CAPABILITIES: Final = frozenset(
    {
        Capability.SCOPE_SHARED,
        Capability.DURABLE,
        Capability.SURVIVES_SERVER_CRASH,
        Capability.COUNTERS,
        Capability.USER_INDEX,
        Capability.ATOMIC_REVOKE,
        Capability.SIZE_FOLLOWS_CHANGE,
        Capability.BORROWED_CONNECTION,
    }
)


HANDING_OUT: Final = 0.01
"""Seconds for an event loop to hand out what has arrived."""


def check_bounds(timeout: float, max_connections: int) -> None:
    """Check what every driver on a server takes.

    Raises:
        ConfigurationError: One is out of range.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise ConfigurationError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    if max_connections < 1:
        raise ConfigurationError(f"max_connections must be at least 1, not {max_connections!r}")


def settings_of(dialect: Dialect) -> Steps[list[Row]]:
    """Ask for the settings of the server."""
    if dialect.settings is None:
        return []
    rows: list[Row] = yield dialect.settings._replace(wants=Wants.ROWS)
    return rows


def _may_go_on(error: BaseException, dialect: Dialect) -> bool:
    """Return whether the connection can still be used after a ROLLBACK."""
    if isinstance(error, (Again, CoatcheckError)):
        return True
    return isinstance(error, dialect.errors) and trouble_of(error, dialect) is not Trouble.LOST


class SQLDriver(SteppedDriver, Generic[C]):
    """A synchronous driver on a SQL server.

    A subclass has a name and capabilities, and makes a dialect and a client.

    Args:
        dialect: The server, and the prefix of the tables.
        client: The client library.
        place: What names the server, without a password.
        timeout: Seconds that an operation may take in all.
        max_connections: How many connections a process uses at the same time, at most.
    """

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, dialect: Dialect, client: Client[C], place: str, timeout: float, max_connections: int) -> None:
        check_bounds(timeout, max_connections)
        self._dialect: Final = dialect
        self._operations: SQLOperations = SQLOperations(dialect)
        self._client: Final = client
        self._place: Final = place
        self._timeout: Final = timeout

        def opened(deadline: float) -> SQLLink[C]:
            return SQLLink(client, client.connect(deadline))

        self._pools: Final = PerProcess(lambda: Pool(opened, max_connections))
        self._breaker: Final = Breaker(dialect.name, place)
        self._failures: Final[tuple[type[Exception], ...]] = (Again, PoolBusy, OSError, *dialect.errors)
        self._was_reached = False

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        attempt = Attempt(operation, self._dialect, self._breaker, self._place, self._timeout)
        while True:
            attempt.begins()
            try:
                answer = self._attempt(attempt, begin)
            except self._failures as error:
                try:
                    pause = attempt.failed(error)
                except TablesMissing:
                    if operation != "is_set_up":
                        self.is_set_up()  # which tells of another schema version
                    raise attempt.without_tables() from error
            else:
                self._breaker.worked()
                return answer
            time.sleep(pause)

    def _attempt(self, attempt: Attempt, begin: Callable[[], Steps[T]]) -> T:
        pool = self._pools.here()
        pool.enter(attempt.deadline)
        try:
            attempt.entered()
            link = pool.get(attempt.deadline)
            attempt.is_reused = link.is_reused
            try:
                if not self._was_reached:
                    self._look_at(link.connection, attempt)
                return self._drive(link.connection, in_transaction(begin(), self._dialect.begin), attempt)
            except BaseException as error:
                if attempt.casts_doubt(error):
                    pool.forget(link)
                raise
            finally:
                pool.push(link)
        finally:
            pool.leave()

    def _look_at(self, connection: C, attempt: Attempt) -> None:
        messages = in_transaction(settings_of(self._dialect), self._dialect.begin)
        for row in self._drive(connection, messages, attempt):
            self.at_risk = self._dialect.risk(row)
        self._was_reached = True

    def _drive(self, connection: C, steps: Messages[T], attempt: Attempt) -> T:
        client, run, deadline = self._client, self._client.run, attempt.deadline

        def perform(statements: Sequence[Statement]) -> list[Reply]:
            attempt.sends(statements)
            replies = run(connection, statements, deadline)
            attempt.answered()
            if statements[-1].is_final and len(replies) == len(statements):
                attempt.check_over(is_clean=client.is_clean(connection))
            return replies

        try:
            return drive(steps, perform)
        except BaseException as error:
            attempt.failed_with(client.patience(connection, is_inside=attempt.is_inside))
            if _may_go_on(error, self._dialect) and not client.is_clean(connection):
                with contextlib.suppress(Exception):  # the first error is the one to tell; the pool looks anyway
                    run(connection, (ROLLBACK,), deadline)
            raise

    def advice(self) -> list[str]:
        """See `Driver.advice`."""
        rows = self._carry_out("advice", lambda: settings_of(self._dialect))
        return [sentence for row in rows for sentence in self._dialect.advice(row)]

    def close(self) -> None:
        """Close the connections of this process: idle ones now, others when they come back. It may be used again."""
        self._pools.close()


class _Bound:
    """Cancels what is not done at *deadline*, after a loop that was held up has handed out what arrived by then."""

    def __init__(self, deadline: float) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._deadline: Final = deadline
        self._timeout: Final = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._due = self._loop.call_later(max(0.0, self._deadline - time.monotonic()), self._is_due)

    def _is_due(self) -> None:
        self._timeout.reschedule(self._loop.time() + HANDING_OUT)

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036 (passed on)
        self._due.cancel()
        await self._timeout.__aexit__(*error)


class AsyncSQLDriver(AsyncSteppedDriver, Generic[C]):
    """An asynchronous driver on a SQL server; see `SQLDriver`. The connections are those of one event loop."""

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(
        self, dialect: Dialect, client: AsyncClient[C], place: str, timeout: float, max_connections: int
    ) -> None:
        check_bounds(timeout, max_connections)
        self._dialect: Final = dialect
        self._operations: SQLOperations = SQLOperations(dialect)
        self._client: Final = client
        self._place: Final = place
        self._timeout: Final = timeout

        async def opened(deadline: float) -> SQLLink[C]:
            return SQLLink(client, await client.connect(deadline))

        self._pools: Final = PerLoop(lambda: AsyncPool(opened, max_connections))
        self._breaker: Final = Breaker(dialect.name, place)
        self._failures: Final[tuple[type[Exception], ...]] = (Again, PoolBusy, OSError, *dialect.errors)
        self._was_reached = False

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        attempt = Attempt(operation, self._dialect, self._breaker, self._place, self._timeout)
        while True:
            attempt.begins()
            try:
                # One bound around everything. What it cancels is closed by the pool, and never waited for.
                async with _Bound(attempt.deadline):
                    answer = await self._attempt(attempt, begin)
            except self._failures as error:
                try:
                    pause = attempt.failed(error)
                except TablesMissing:
                    if operation != "is_set_up":
                        await self.is_set_up()  # which tells of another schema version
                    raise attempt.without_tables() from error
            else:
                self._breaker.worked()
                return answer
            await asyncio.sleep(pause)

    async def _attempt(self, attempt: Attempt, begin: Callable[[], Steps[T]]) -> T:
        pool = self._pools.here()
        await pool.enter(attempt.deadline)
        try:
            attempt.entered()
            link = await pool.get(attempt.deadline)
            attempt.is_reused = link.is_reused
            try:
                if not self._was_reached:
                    await self._look_at(link.connection, attempt)
                return await self._drive(link.connection, in_transaction(begin(), self._dialect.begin), attempt)
            except BaseException as error:
                if attempt.casts_doubt(error):
                    pool.forget(link)
                raise
            finally:
                pool.push(link)
        finally:
            pool.leave()

    async def _look_at(self, connection: C, attempt: Attempt) -> None:
        messages = in_transaction(settings_of(self._dialect), self._dialect.begin)
        for row in await self._drive(connection, messages, attempt):
            self.at_risk = self._dialect.risk(row)
        self._was_reached = True

    async def _drive(self, connection: C, steps: Messages[T], attempt: Attempt) -> T:
        client, run, deadline = self._client, self._client.run, attempt.deadline

        async def perform(statements: Sequence[Statement]) -> list[Reply]:
            attempt.sends(statements)
            replies = await run(connection, statements, deadline)
            attempt.answered()
            if statements[-1].is_final and len(replies) == len(statements):
                attempt.check_over(is_clean=client.is_clean(connection))
            return replies

        try:
            return await drive_async(steps, perform)
        except BaseException as error:
            attempt.failed_with(client.patience(connection, is_inside=attempt.is_inside))
            if _may_go_on(error, self._dialect) and not client.is_clean(connection):
                with contextlib.suppress(Exception):  # the first error is the one to tell; the pool looks anyway
                    await run(connection, (ROLLBACK,), deadline)
            raise

    async def advice(self) -> list[str]:
        """See `Driver.advice`."""
        rows = await self._carry_out("advice", lambda: settings_of(self._dialect))
        return [sentence for row in rows for sentence in self._dialect.advice(row)]

    async def close(self) -> None:
        """Close the connections of the running loop: idle ones now, others when they come back."""
        self._pools.close()
