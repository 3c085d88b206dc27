"""MariaDB's and MySQL's connections that the application lends: of PyMySQL, mysqlclient or aiomysql."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

import aiomysql  # type: ignore[import-untyped]
from pymysql.connections import Connection as PyMySQLConnection
from pymysql.cursors import Cursor

from coatcheck.drivers._lent import Lent
from coatcheck.drivers._steps import Steps
from coatcheck.drivers.mariadb.connections import IN_TRANSACTION, QuietCursor
from coatcheck.drivers.mariadb.dialect import MariaDBDialect, MySQLdbError, number_of
from coatcheck.drivers.mariadb.wire import (
    MOST,
    SHORT,
    check_length,
    check_version,
    is_refusal,
    most_in,
    nothing_for,
    rendered,
    reply_of,
)
from coatcheck.drivers.sql.dialect import FIND_COLUMNS, LOAD_COLUMNS, Single
from coatcheck.drivers.sql.lent import DDL, AsyncLentDriver, LentDriver
from coatcheck.drivers.sql.statement import Reply, Statement
from coatcheck.drivers.sql.writing import SQLOperations
from coatcheck.errors import ConfigurationError
from coatcheck.record import Conflict, Delta

__all__ = ["AsyncLentMariaDBDriver", "LentMariaDBDriver", "async_kinds", "commits_alone", "kinds"]

T = TypeVar("T")

_DEADLOCK: Final = 1213


class LentDialect(MariaDBDialect):
    """For connections whose mode, isolation and flags are the application's.

    Args:
        prefix: What the names of the tables start with.
        newest: True to load what is stored now, and to lock it; False to load what the transaction sees.
    """

    current: ClassVar[str] = " LOCK IN SHARE MODE"
    load_columns: ClassVar[str] = LOAD_COLUMNS
    find_columns: ClassVar[str] = FIND_COLUMNS
    all_rows: ClassVar[str] = " LIMIT 18446744073709551615"  # goes before the connection's sql_select_limit

    def __init__(self, prefix: str, *, newest: bool = False) -> None:
        super().__init__(prefix)
        if newest:
            self.sql.load += self.lock
            self.sql.load_prior += self.lock

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:  # noqa: ARG002
        """Return None: in a mode that is not strict, the server silently truncates a number that is out of range."""
        return None

    def said(self, error: Exception) -> str:
        """See `Dialect.said`."""
        said = super().said(error)
        return f"{said}; at READ COMMITTED it is rare" if number_of(error) == _DEADLOCK else said


def kinds() -> tuple[type, ...]:
    """Return the types of DB-API connections that can be lent; mysqlclient is included only if it was imported."""
    mysqlclient = getattr(sys.modules.get("MySQLdb.connections"), "Connection", None)
    return (PyMySQLConnection,) if mysqlclient is None else (PyMySQLConnection, mysqlclient)


def async_kinds() -> tuple[type, ...]:
    """Return the types of asynchronous connections that can be lent."""
    return (aiomysql.Connection,)


def commits_alone(connection: Any) -> bool:
    """Return whether each statement would be committed at once."""
    return bool(connection.get_autocommit()) and not _is_open(connection)


def _is_open(connection: Any) -> bool:
    # mysqlclient does not tell: in autocommit mode its connections are taken to be in no transaction
    return bool(getattr(connection, "server_status", 0) & IN_TRANSACTION)


def _refusal(connection: Any) -> ConfigurationError | None:
    """Return why tables can be neither created nor removed on *connection*, or None."""
    if not _is_open(connection):
        return None
    return ConfigurationError(
        "MariaDB commits an open transaction before it creates or removes a table, and one of the application's is open"
        " on the connection that was lent: commit it first, or use `coatcheck init URL`"
    )


class DBAPIBorrower:
    """Connections of PyMySQL's or mysqlclient's."""

    def run(self, connection: Any, statement: Statement, /) -> Reply:
        check_version(connection.get_server_info())
        text = rendered(statement)
        if len(text) > SHORT:
            check_length(text, most_in(self.run(connection, MOST)))
        kind = Cursor if isinstance(connection, PyMySQLConnection) else sys.modules["MySQLdb.cursors"].Cursor
        cursor = connection.cursor(kind)  # not the application's own, which may give rows of another form
        try:
            cursor.execute(text)
            rows = cursor.fetchall() if cursor.description else ()
            return reply_of(statement, cursor, rows)
        except MySQLdbError as error:
            if not is_refusal(statement, error):
                raise
            return nothing_for(statement)
        finally:
            cursor.close()


class AioMySQLBorrower:
    """Connections of aiomysql's."""

    async def run(self, connection: Any, statement: Statement, /) -> Reply:
        check_version(connection.get_server_info())
        text = rendered(statement)
        if len(text) > SHORT:
            check_length(text, most_in(await self.run(connection, MOST)))
        try:
            async with connection.cursor(QuietCursor) as cursor:
                await cursor.execute(text)
                rows = await cursor.fetchall() if cursor.description else ()
        except MySQLdbError as error:
            if not is_refusal(statement, error):
                raise
            return nothing_for(statement)
        return reply_of(statement, cursor, rows)


class LentMariaDBDriver(LentDriver[Any]):
    """Sessions inside the transaction of a connection that belongs to the application."""

    def __init__(self, prefix: str, lent: Lent) -> None:
        super().__init__(LentDialect(prefix), DBAPIBorrower(), lent)

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        refusal = _refusal(self._lent.open(operation, to_write=False)) if operation in DDL else None
        if refusal is not None and not (operation == "setup" and self.is_set_up()):
            raise refusal
        answer = super()._carry_out(operation, begin)
        if isinstance(answer, Conflict):
            self._operations = _for_what_is_current(self._dialect.prefix)
        return answer


class AsyncLentMariaDBDriver(AsyncLentDriver[Any]):
    """The same, on an asynchronous connection."""

    def __init__(self, prefix: str, lent: Lent) -> None:
        super().__init__(LentDialect(prefix), AioMySQLBorrower(), lent)

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        refusal = _refusal(self._lent.open(operation, to_write=False)) if operation in DDL else None
        if refusal is not None and not (operation == "setup" and await self.is_set_up()):
            raise refusal
        answer = await super()._carry_out(operation, begin)
        if isinstance(answer, Conflict):
            self._operations = _for_what_is_current(self._dialect.prefix)
        return answer


def _for_what_is_current(prefix: str) -> SQLOperations:
    """Return the operations for a transaction that sees something older than what it is refused for.

    A save that merges loads once more; under REPEATABLE READ, the server's default, the same would be found for ever.
    """
    return SQLOperations(LentDialect(prefix, newest=True))
