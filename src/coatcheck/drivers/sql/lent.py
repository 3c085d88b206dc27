"""Carries operations out on a connection that belongs to the application, inside its open transaction.

Nothing here commits, rolls back further than to its own savepoint, or closes. A write is never begun anew: what made
it fail (a deadlock, a serialization failure) is for the application to answer, which knows what else its transaction
did. Between two operations of one transaction its locks stay: a session that it wrote, and the fence of a user whom
it logged in, keep other requests waiting until it ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from coatcheck.drivers._lent import Lent
from coatcheck.drivers._steps import AsyncSteppedDriver, SteppedDriver, Steps, drive, drive_async
from coatcheck.drivers.base import AsyncDriver, Capability, Driver
from coatcheck.drivers.sql.attempt import tables_missing, trouble_of
from coatcheck.drivers.sql.dialect import Dialect, Trouble
from coatcheck.drivers.sql.shell import CAPABILITIES
from coatcheck.drivers.sql.statement import RELEASE, SAVEPOINT, TO_SAVEPOINT, Again, Reply, Statement, in_savepoint
from coatcheck.drivers.sql.writing import SQLOperations
from coatcheck.errors import CoatcheckError, DriverUnavailable, UnsupportedCapability

__all__ = ["DDL", "AsyncBorrower", "AsyncLentDriver", "Borrower", "LentDriver"]

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)
T = TypeVar("T")

READS: Final = frozenset({"load", "sessions_of", "missing", "is_set_up"})
DDL: Final = frozenset({"setup", "tear_down"})
MOST_TRIES: Final = 4
PLACE: Final = "the application's database"


class Borrower(Protocol[C_contra]):
    """How a client library's connections are used that are not ours."""

    def run(self, connection: C_contra, statement: Statement, /) -> Reply:
        """Have one statement done, whatever factories and converters the application has set on its connection."""


class AsyncBorrower(Protocol[C_contra]):
    """The same for an asynchronous client library."""

    async def run(self, connection: C_contra, statement: Statement, /) -> Reply:
        """Have one statement done."""


def _is_written(operation: str, dialect: Dialect) -> bool:
    """Return whether somebody has to commit what an operation does."""
    return operation not in READS and (dialect.ddl_is_transactional or operation not in DDL)


def _translated(error: Exception, operation: str, dialect: Dialect) -> CoatcheckError:
    if isinstance(error, Again):
        why = "other requests changed the session again and again: begin the application's transaction again"
        return DriverUnavailable(dialect.name, operation, why)
    trouble = trouble_of(error, dialect)
    if trouble is Trouble.MISSING:
        return tables_missing(dialect, PLACE)
    said = dialect.said(error) if isinstance(error, dialect.errors) else str(error)
    if trouble is Trouble.CLASH:
        said += ": this write is undone, and the application's transaction must be rolled back and begun again"
    elif trouble is Trouble.LOST:
        said += ": the connection is lost, and the application's transaction with it"
    return DriverUnavailable(dialect.name, operation, said)


class LentDriver(SteppedDriver, Generic[C]):
    """Sessions inside the transaction of a connection that belongs to the application.

    Args:
        dialect: The server, and the prefix of the tables.
        borrower: How to use the connection.
        lent: What the application lends.
    """

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, dialect: Dialect, borrower: Borrower[C], lent: Lent) -> None:
        vars(self).update(name=dialect.name)
        self._dialect: Final = dialect
        self._operations: SQLOperations = SQLOperations(dialect)
        self._borrower: Final = borrower
        self._lent: Final = lent
        self._errors: Final[tuple[type[Exception], ...]] = (OSError, *dialect.errors)
        self._failures: Final[tuple[type[Exception], ...]] = (Again, *self._errors)

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        connection: C = self._lent.open(operation, to_write=_is_written(operation, self._dialect))
        try:
            for _ in range(MOST_TRIES - 1):
                with contextlib.suppress(Again):
                    return self._drive(connection, begin)
            return self._drive(connection, begin)
        except self._failures as error:
            raise _translated(error, operation, self._dialect) from error

    def _drive(self, connection: C, begin: Callable[[], Steps[T]]) -> T:
        run = self._borrower.run
        is_inside = False

        def perform(statement: Statement) -> Reply:
            nonlocal is_inside
            is_inside = is_inside or statement is SAVEPOINT
            return run(connection, statement)

        try:
            return drive(in_savepoint(begin()), perform)
        except BaseException:
            if is_inside:
                with contextlib.suppress(*self._errors):  # the first error is the one to tell
                    run(connection, TO_SAVEPOINT)
                    run(connection, RELEASE)
            raise

    def close(self) -> None:
        """Do nothing: the connection is not ours."""

    def borrow(self, connection: object) -> Driver:  # noqa: ARG002 (a lent connection is not lent on)
        raise UnsupportedCapability(self.name, Capability.BORROWED_CONNECTION, "borrow from the driver itself")


class AsyncLentDriver(AsyncSteppedDriver, Generic[C]):
    """Sessions inside the transaction of an asynchronous connection that belongs to the application."""

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, dialect: Dialect, borrower: AsyncBorrower[C], lent: Lent) -> None:
        vars(self).update(name=dialect.name)
        self._dialect: Final = dialect
        self._operations: SQLOperations = SQLOperations(dialect)
        self._borrower: Final = borrower
        self._lent: Final = lent
        self._errors: Final[tuple[type[Exception], ...]] = (OSError, *dialect.errors)
        self._failures: Final[tuple[type[Exception], ...]] = (Again, *self._errors)

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        connection: C = self._lent.open(operation, to_write=_is_written(operation, self._dialect))
        try:
            for _ in range(MOST_TRIES - 1):
                with contextlib.suppress(Again):
                    return await self._drive(connection, begin)
            return await self._drive(connection, begin)
        except self._failures as error:
            raise _translated(error, operation, self._dialect) from error

    async def _drive(self, connection: C, begin: Callable[[], Steps[T]]) -> T:
        run = self._borrower.run
        is_inside = False

        async def perform(statement: Statement) -> Reply:
            nonlocal is_inside
            is_inside = is_inside or statement is SAVEPOINT
            return await run(connection, statement)

        try:
            return await drive_async(in_savepoint(begin()), perform)
        except BaseException:
            if is_inside:
                with contextlib.suppress(*self._errors):  # the first error is the one to tell
                    await run(connection, TO_SAVEPOINT)
                    await run(connection, RELEASE)
            raise

    async def close(self) -> None:
        """Do nothing: the connection is not ours."""

    def borrow(self, connection: object) -> AsyncDriver:  # noqa: ARG002 (a lent connection is not lent on)
        raise UnsupportedCapability(self.name, Capability.BORROWED_CONNECTION, "borrow from the driver itself")
