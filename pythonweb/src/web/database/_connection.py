"""Connection and Cursor: DB-API 2.0 over the connection of any adapter."""

# ruff: noqa: N802 -- camelCase, as all names of the 2005 reference

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self
from weakref import WeakSet

from web.database._adapter import Adapter
from web.database._errors import ConnectionClosed, DatabaseError

__all__ = ["CommitHook", "Connection", "Cursor"]


class CommitHook(Protocol):
    """What `Connection.addHook` takes: for middleware that wants its changes to join the application's transaction."""

    def before_commit(self, connection: Connection) -> None:
        """Write through ``connection.baseConnection``; the commit follows. An error here prevents it."""

    def after_commit(self, connection: Connection) -> None:
        """The transaction is durable."""

    def after_rollback(self, connection: Connection) -> None:
        """The transaction is undone, and with it what `before_commit` wrote in it."""


class Connection:
    """A connection to a database, for one thread at a time.

    Args:
        base: The DB-API connection.
        adapter: How to speak to it.
    """

    def __init__(self, base: Any, adapter: Adapter) -> None:
        self._base: Any = base
        self._adapter = adapter
        self._hooks: list[CommitHook] = []
        self._cursors: WeakSet[Cursor] = WeakSet()
        self._committing = False

    @property
    def baseConnection(self) -> Any:
        """The DB-API connection of the adapter's package.

        Raises:
            ConnectionClosed: This connection is closed.
        """
        if self._base is None:
            raise ConnectionClosed(
                "this database connection is closed: one from environ['web.database.connection'] ends with its "
                "request, so take it from environ again in each request"
            )
        return self._base

    @property
    def adapter(self) -> str:
        """The name of the adapter, as it was given to `connect`."""
        return self._adapter.name

    @property
    def closed(self) -> bool:
        """Whether this connection was closed, or its request has ended."""
        return self._base is None

    @property
    def inTransaction(self) -> bool:
        """Whether a transaction is open: something was done that neither a commit nor a rollback has ended."""
        return self._adapter.in_transaction(self.baseConnection)

    @property
    def identity(self) -> object:
        """The identity of this connection's database: equal for two connections to the same one."""
        return self._adapter.identity(self.baseConnection)

    def mark(self) -> object:
        """Mark the open transaction, for `holds`. There is one mark at a time."""
        return self._adapter.mark(self.baseConnection)

    def holds(self, mark: object) -> bool:
        """Return whether the transaction that was marked is still open and can be committed; it takes the mark away.

        A database undoes a transaction if its disk is full, and an application may execute ROLLBACK in SQL:
        another one may be open since.
        """
        return self.inTransaction and self._adapter.holds(self.baseConnection, mark)

    def cursor(self) -> Cursor:
        """Return a new cursor.

        Raises:
            ConnectionClosed: This connection is closed.
        """
        cursor = Cursor(self, self.baseConnection.cursor(), self._adapter)
        self._cursors.add(cursor)
        return cursor

    def hasTable(self, name: str) -> bool:
        """Return whether there is a table of that name in the place where a statement would find it first.

        Args:
            name: The name, without a schema. SQLite takes no notice of case.
        """
        cursor = self.cursor()
        try:
            cursor.execute(self._adapter.table_query, [name])
            return cursor.fetchone() is not None
        finally:
            cursor.close()

    def quoted(self, name: str) -> str:
        """Write the name of a table or column for a statement, in the quotes of this database."""
        mark = self._adapter.quote
        return mark + name.replace(mark, mark * 2) + mark

    def commit(self) -> None:
        """Make the open transaction durable, with what the hooks add to it.

        If a hook's `before_commit` or the database refuses, the transaction may still be open: roll it back, or
        repair it and commit again.

        Raises:
            ConnectionClosed: This connection is closed.
            DatabaseError: It is called by a hook.
        """
        base = self.baseConnection
        if self._committing:
            raise DatabaseError("a hook must not call commit(): the commit follows its before_commit()")
        hooks = tuple(self._hooks)
        self._committing = True
        try:
            for hook in hooks:
                hook.before_commit(self)
            base.commit()
        finally:
            self._committing = False
        with contextlib.ExitStack() as stack:
            # Every hook is called, even if one fails.
            for hook in reversed(hooks):
                stack.callback(hook.after_commit, self)

    def rollback(self) -> None:
        """Undo the open transaction.

        Raises:
            ConnectionClosed: This connection is closed.
        """
        self.baseConnection.rollback()
        with contextlib.ExitStack() as stack:
            for hook in reversed(self._hooks):
                stack.callback(hook.after_rollback, self)

    def close(self) -> None:
        """Close the connection; what was not committed is undone. A second call does nothing."""
        if self._base is not None:
            self.detach().close()

    def detach(self) -> Any:
        """Return the DB-API connection without closing it, as a pool does when a request has ended.

        Its cursors are closed, its hooks are dropped, and this object counts as closed from here on.

        Returns:
            The DB-API connection.

        Raises:
            ConnectionClosed: This connection is closed.
        """
        base = self.baseConnection
        for cursor in list(self._cursors):
            # One that fails to close belongs to a broken connection, which the next use of it will tell.
            with contextlib.suppress(Exception):
                cursor.close()
        self._hooks.clear()
        self._base = None
        return base

    def addHook(self, hook: CommitHook) -> None:
        """Have a hook called at each commit and rollback, until it is removed or this connection ends.

        Adding one a second time changes nothing.
        """
        if not any(each is hook for each in self._hooks):
            self._hooks.append(hook)

    def removeHook(self, hook: CommitHook) -> None:
        """Call a hook no more; one that was not added is no error."""
        self._hooks = [each for each in self._hooks if each is not hook]

    def __repr__(self) -> str:
        return f"<web.database.Connection to {self._adapter}{' (closed)' if self.closed else ''}>"


class Cursor:
    """A cursor: runs statements and reads their results.

    Attributes:
        connection: The `Connection` it belongs to.
        baseCursor: The DB-API cursor of the adapter's package.
    """

    def __init__(self, connection: Connection, base: Any, adapter: Adapter) -> None:
        self.connection = connection
        self.baseCursor = base
        self._adapter = adapter
        self._closed = False

    def execute(self, sql: str, parameters: Sequence[Any] | None = ()) -> Self:
        """Run a statement.

        Args:
            sql: The statement, with ``?`` for each value. (With a server, ``??`` is a question mark of the
                statement's own.)
            parameters: The values, in order.

        Returns:
            This cursor.

        Raises:
            ConnectionClosed: The cursor or its connection is closed.
            TypeError: The parameters are no sequence.
        """
        values = _values(() if parameters is None else parameters)
        self._open().execute(*self._adapter.statement(sql, values))
        return self

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Run a statement once for each sequence of values.

        Raises:
            ConnectionClosed: The cursor or its connection is closed.
            TypeError: A member of *parameters* is no sequence.
        """
        rows = [_values(each) for each in parameters]
        self._open().executemany(self._adapter.translated(sql), rows)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last one."""
        row: tuple[Any, ...] | None = self._open().fetchone()
        return row

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows, `arraysize` of them unless *size* is given; fewer at the end."""
        return list(self._open().fetchmany(self.arraysize if size is None else size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows that are left."""
        return list(self._open().fetchall())

    def close(self) -> None:
        """Close the cursor. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self.baseCursor.close()

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing, as DB-API allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as DB-API allows."""

    @property
    def description(self) -> Sequence[Any] | None:
        """The columns of the result, each a sequence that begins with its name; None if there is no result."""
        columns: Sequence[Any] | None = self._open().description
        return columns

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed or found; -1 if that is not known."""
        return int(self._open().rowcount)

    @property
    def lastrowid(self) -> Any:
        """The ID of the row inserted last, or None if the adapter has none (PostgreSQL: use ``RETURNING``)."""
        return getattr(self._open(), "lastrowid", None)

    @property
    def arraysize(self) -> int:
        """The default number of rows that `fetchmany` returns."""
        return int(self._open().arraysize)

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._open().arraysize = size

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def _open(self) -> Any:
        _ = self.connection.baseConnection  # reports how the connection ended, if it did
        if self._closed:
            raise ConnectionClosed("this cursor is closed: take a new one from connection.cursor()")
        return self.baseCursor


def _values(parameters: Any) -> tuple[Any, ...]:
    # A string is a sequence of characters, but is never meant as one here.
    if isinstance(parameters, str | bytes) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"the values of a statement are a {type(parameters).__name__}: put them into a list, as in [value]"
        )
    if isinstance(parameters, dict):
        raise TypeError("the values of a statement are a dict: placeholders are ?, so pass the values in a list")
    return tuple(parameters)
