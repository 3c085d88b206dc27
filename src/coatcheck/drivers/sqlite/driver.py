"""The two SQLite drivers: on connections of its own, and on one that the application lends."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Concatenate, Final, ParamSpec, TypedDict, TypeVar

from coatcheck.drivers._files import FILE_OPTIONS, FILE_TIMEOUT, SYNCHRONOUS
from coatcheck.drivers._lent import Lent, lent
from coatcheck.drivers._rules import new_version
from coatcheck.drivers._urls import parsed_file
from coatcheck.drivers.base import Capability, Driver
from coatcheck.drivers.sqlite.common import SQLiteBase, despite_text, is_of_text
from coatcheck.drivers.sqlite.connect import Connections
from coatcheck.drivers.sqlite.connection import Settings
from coatcheck.drivers.sqlite.fast import OneStatement, single
from coatcheck.drivers.sqlite.rows import record_in
from coatcheck.drivers.sqlite.schema import SQLiteStatements, check_prefix, is_complete, migrate, migrated
from coatcheck.drivers.sqlite.trouble import NAME, translated
from coatcheck.drivers.sqlite.work import Run, SQLiteWork
from coatcheck.errors import ConfigurationError, UnsupportedCapability
from coatcheck.record import Answer, Committed, Conflict, Delta, Gone, Missing, Record

__all__ = ["SQLiteDriver"]

P = ParamSpec("P")
T = TypeVar("T")

_FORM: Final = "sqlite:///relative.db or sqlite:////absolute/path.db"


class _Ways(TypedDict):
    """How a database is opened, besides its path, prefix and timeout."""

    synchronous: str
    network_filesystem: bool


class SQLiteDriver(SQLiteBase):
    """Sessions in an SQLite file, for the processes of one host.

    Nothing is opened before the first use, which makes the file (readable for its owner alone) and its tables.

    Args:
        path: The database. The folder has to exist. A relative path is taken from the present working directory.
        prefix: What the names of the tables start with.
        timeout: Seconds to wait for another writer, at most.
        synchronous: `"normal"`: what was acknowledged survives the death of the process; `"full"`: and a loss of power,
            for one fsync a commit.
        network_filesystem: True to allow a path on a network file system. Only one host may open it, even so.

    Attributes:
        path: The database, as an absolute path.
        timeout: As above.

    Raises:
        ConfigurationError: An argument is out of range. From the first use, where the database cannot be what it has
            to be (another schema version, another file in its place).
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.SCOPE_HOST,
            Capability.DURABLE,
            Capability.COUNTERS,
            Capability.USER_INDEX,
            Capability.ATOMIC_REVOKE,
            Capability.SIZE_FOLLOWS_CHANGE,
            Capability.BORROWED_CONNECTION,
        }
    )
    _is_hasty: ClassVar[bool] = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        prefix: str = "",
        timeout: float = FILE_TIMEOUT,
        synchronous: str = "normal",
        network_filesystem: bool = False,
    ) -> None:
        place = os.fspath(path)
        if not place or place == ":memory:" or "\0" in place:
            raise ConfigurationError(
                f"{place!r} names no file, and every thread would have a database of its own: "
                "name a file, or use the URL memory: for sessions that live as long as the process"
            )
        if not (math.isfinite(timeout) and timeout >= 0):
            raise ConfigurationError(f"timeout must be a number of seconds, not {timeout!r}")
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(f"synchronous must be one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        self.path: Final = os.path.abspath(place)  # noqa: PTH100 (pathlib would look at the file system)
        self.timeout: Final = timeout
        self._work = SQLiteWork(SQLiteStatements(check_prefix(prefix)))
        self._ways: Final[_Ways] = {"synchronous": synchronous, "network_filesystem": network_filesystem}
        settings = Settings(self.path, timeout, synchronous, network_allowed=network_filesystem, hasty=self._is_hasty)
        self._connections: Final = Connections(settings, partial(_see_to_tables, self._work.sql, self.path))

    @classmethod
    def from_url(cls, url: str) -> SQLiteDriver:
        """Make a driver from a URL: `sqlite:///relative.db`, `sqlite:////absolute/path.db`.

        Options are those of the constructor: `?timeout=2&prefix=x_&synchronous=full&network_filesystem=allow`.

        Raises:
            ConfigurationError: The URL has no path, an unknown option, or one with a bad value.
        """
        path, options = parsed_file(url, "SQLite", _FORM, FILE_OPTIONS)
        return cls(path, **options)

    def hasty(self) -> SQLiteDriver:
        """Return a driver of the same database that waits for no lock, and opens no other file in its place."""
        return _HastyDriver(self.path, prefix=self._work.sql.prefix, timeout=0.0, **self._ways)

    def _read(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with self._connections.held() as connection:
                return despite_text(connection, partial(work, connection.execute, *args, **kwargs))
        except (sqlite3.Error, OSError) as error:
            raise translated(error, operation, self.path, self.timeout) from error

    def _write(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        committing = False

        def transaction() -> T:
            nonlocal committing
            run = connection.execute
            run("BEGIN IMMEDIATE")
            try:
                answer = work(run, *args, **kwargs)
                if isinstance(answer, (Conflict, Gone)):
                    run("ROLLBACK")
                else:
                    committing = True
                    run("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            return answer

        try:
            with self._connections.held() as connection, self._connections.writing:
                return despite_text(connection, transaction)
        except (sqlite3.Error, OSError) as error:
            raise translated(error, operation, self.path, self.timeout, committing=committing) from error

    def load(self, digest: bytes, now: float) -> Record | Missing:
        # What nearly every request does, and as few calls as it takes. The general way knows all other cases.
        try:
            with self._connections.held() as connection:
                rows = connection.execute(self._work.sql.load, (digest,)).fetchall()
        except (sqlite3.Error, OSError) as error:
            if not is_of_text(error):
                raise translated(error, "load", self.path, self.timeout) from error
            rows = []
        return record_in(rows, digest, now, stale=False) if rows else super().load(digest, now)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        version = new_version()
        statement = single(self._work.sql, digest, delta, now, version)
        if statement is not None:
            done = self._try_single(statement, version)
            if done is not None:
                return done
        return super().commit(digest, delta, now)

    def _try_single(self, statement: OneStatement, version: int) -> Committed | None:
        """Run *statement*; return None if it found nothing to change."""
        try:
            with self._connections.held() as connection, self._connections.writing:
                cursor = connection.execute(statement.text, statement.parameters)
                if statement.counter is None:
                    return Committed(version) if cursor.rowcount == 1 else None
                rows = cursor.fetchall()  # to the end: that is when it commits
                return Committed(version, {statement.counter: rows[0][0]}) if rows else None
        except (sqlite3.Error, OSError) as error:
            raise translated(error, "commit", self.path, self.timeout, committing=True) from error

    def setup(self) -> None:
        """Create file and tables where they are missing, and bring those of an older coatcheck up to date.

        Leaves no connection open, so that a server may call it and fork afterwards by whatever means.
        """
        held = self._connections.held()
        held.close(0)  # tables are seen to when a connection opens, and somebody may have removed them since
        self._read("setup", _nothing)
        if not self.is_set_up():
            self._write("setup", migrate, self._work.sql)
        held.close(0)

    def is_set_up(self) -> bool:
        """Return whether file and tables are there and up to date, without making any."""
        if not os.path.exists(self.path):  # noqa: PTH110 (as it was given)
            return False
        try:
            with closing(sqlite3.connect(f"{Path(self.path).as_uri()}?mode=ro", uri=True)) as connection:
                return is_complete(connection, self._work.sql, self.path)
        except (sqlite3.Error, OSError) as error:
            raise translated(error, "is_set_up", self.path, self.timeout) from error

    def close(self) -> None:
        """Close the connections of all threads. Using the driver again opens new ones."""
        self._connections.close()

    def borrow(self, connection: object) -> Driver:
        """Return a driver on *connection*, with the same table prefix.

        It may be a `sqlite3.Connection`, SQLAlchemy's `Connection` or `Session`, or Django's connection, which
        takes writes inside `atomic()` only.

        Raises:
            ConfigurationError: It is something else.
        """
        return _BorrowedDriver(lent(connection, NAME, (sqlite3.Connection,), _commits_alone), self._work)


class _HastyDriver(SQLiteDriver):
    """One that fails where it would have to wait, for a lock or for a file to be made."""

    _is_hasty: ClassVar[bool] = True


def _commits_alone(connection: sqlite3.Connection) -> bool:
    mode = getattr(connection, "autocommit", -1)  # Python 3.12 and later; -1 stands for isolation_level
    return (connection.isolation_level is None if mode == -1 else bool(mode)) and not connection.in_transaction


def _see_to_tables(sql: SQLiteStatements, path: str, connection: sqlite3.Connection) -> None:
    """Create the tables, or bring them up to date, on a new connection where nobody did so before."""
    if migrated(connection, sql, path) >= len(sql.migrations):
        return
    connection.execute("BEGIN IMMEDIATE")  # all others wait here, and find it done
    try:
        done = migrated(connection, sql, path)
        if done < len(sql.migrations):
            migrate(connection.execute, sql, done)
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _nothing(run: Run) -> None:
    """Do nothing, on a connection that is open by then."""


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # the first error is the one to tell; the connection is dropped if this fails
            connection.execute("ROLLBACK")


class _BorrowedDriver(SQLiteBase):
    """Sessions inside the transaction of a connection that belongs to the application."""

    capabilities: ClassVar[frozenset[Capability]] = SQLiteDriver.capabilities

    def __init__(self, connection: Lent, work: SQLiteWork) -> None:
        self._lent: Final = connection
        self._work = work

    @contextmanager
    def _running(self, operation: str, *, to_write: bool) -> Iterator[tuple[sqlite3.Connection, Run]]:
        """Return the means to run statements, whatever factories the application has on its connection."""
        connection: sqlite3.Connection = self._lent.open(operation, to_write=to_write)
        factory = connection.text_factory
        connection.text_factory = str

        def run(text: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
            return sqlite3.Cursor(connection).execute(text, parameters)  # a bare cursor takes on no row factory

        try:
            yield connection, run
        except sqlite3.Error as error:
            raise translated(error, operation, "the application's database", None) from error
        finally:
            connection.text_factory = factory

    def _read(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._running(operation, to_write=False) as (connection, run):
            return despite_text(connection, partial(work, run, *args, **kwargs))

    def _write(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def savepoint() -> T:
            run("SAVEPOINT coatcheck")
            refused = True
            try:
                answer = work(run, *args, **kwargs)
                refused = isinstance(answer, (Conflict, Gone))
            finally:
                if connection.in_transaction:  # some failures end the whole transaction
                    if refused:
                        run("ROLLBACK TO coatcheck")
                    run("RELEASE coatcheck")
            return answer

        with self._running(operation, to_write=True) as (connection, run):
            if not connection.in_transaction:
                run("BEGIN IMMEDIATE")
            return despite_text(connection, savepoint)

    def setup(self) -> None:
        """Create the tables that are missing in this connection's database, or bring them up to date.

        That is part of the transaction that is open on it.
        """
        if not self.is_set_up():
            self._write("setup", migrate, self._work.sql)

    def is_set_up(self) -> bool:
        """Return whether the tables are there and up to date."""
        with self._running("is_set_up", to_write=False) as (connection, _):
            return is_complete(connection, self._work.sql, "this database")

    def close(self) -> None:
        """Do nothing: the connection is not ours."""

    def borrow(self, connection: object) -> Driver:  # noqa: ARG002 (a lent connection is not lent on)
        raise UnsupportedCapability(self.name, Capability.BORROWED_CONNECTION, "borrow from the driver itself")
