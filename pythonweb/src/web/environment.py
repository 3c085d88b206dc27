"""Environments: groups of applications that share users and sessions, by a common name.

What an environment needs of a storage is made here as a whole, the sessions' part included.
"""

# ruff: noqa: N802, N803 -- the names are those of the 2005 reference

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from web.database import Cursor

if TYPE_CHECKING:
    from web.session import Driver as SessionDriver

__all__ = ["DatabaseDriver", "Driver", "EnvironmentNameError", "checkName", "driver"]

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_]{1,32}")
_VERSION = 1


class EnvironmentNameError(ValueError):
    """The name of an environment cannot be used. The message lists valid characters."""


def checkName(name: object) -> str:
    """Check the name of an environment: it becomes part of the names of tables, keys and cookies.

    Args:
        name: The name.

    Returns:
        The name.

    Raises:
        EnvironmentNameError: It is not 1 to 32 characters of ``A-Z``, ``a-z``, ``0-9`` and ``_``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise EnvironmentNameError(
            f"{name!r} cannot name an environment: use 1 to 32 letters of A-Z and a-z, digits and underscores, "
            "for example name='shop'"
        )
    return name


def driver(storage: str, name: str = "", **params: Any) -> Driver:
    """Return the driver that sets up an environment in a storage.

    Args:
        storage: The storage: ``'database'``, or the name of another one, such as ``'redis'``.
        name: The name of the environment; ``'database'`` needs one, and so does ``url``.
        **params: For ``'database'``, ``cursor``: a cursor of `web.database`. For others, ``url``: where the sessions
            are, as for `web.session.driver`; without it there is nothing to set up.

    Returns:
        The driver.

    Raises:
        EnvironmentNameError: The name cannot be used.
        SessionError: ``url`` does not fit the storage.
        TypeError: ``cursor`` is missing, is no cursor, or stands beside a parameter that is not known.
        ValueError: *storage* is no name.
    """
    from web.session import driver as session_driver  # noqa: PLC0415 -- which imports checkName

    if not isinstance(storage, str) or not storage:
        raise ValueError(f"storage={storage!r} names no storage: use for example storage='database'")
    if storage == "database":
        cursor = params.pop("cursor", None)
        if not isinstance(cursor, Cursor):
            raise TypeError(
                "environment storage 'database' needs cursor=, a cursor of web.database: for example "
                "cursor=web.database.connect('sqlite', 'shop.db', autoCreate=True).cursor()"
            )
        if params:
            raise TypeError(f"environment storage 'database' knows no parameter {min(params)!r}: it takes cursor=")
        return DatabaseDriver(storage, checkName(name), session_driver(storage, checkName(name), cursor=cursor), cursor)
    url = params.get("url")
    sessions = None if url is None else session_driver(storage, checkName(name), url=url)
    return Driver(storage, checkName(name) if name else "", sessions)


class Driver:
    """Sets an environment up in a storage.

    Attributes:
        storage: The name of the storage.
        name: The name of the environment.
        sessions: The `web.session.Driver` of its sessions, or None if the storage needs no setting up.
    """

    def __init__(self, storage: str, name: str, sessions: SessionDriver | None = None) -> None:
        self.storage = storage
        self.name = name
        self.sessions = sessions

    def completeEnvironment(self) -> bool:
        """Return whether all that the environment needs is there, for its sessions too."""
        return self.sessions is None or self.sessions.completeSessionEnvironment()

    def createEnvironment(self) -> list[str]:
        """Make what is missing, for the sessions too, and drop nothing.

        Returns:
            What went wrong, each as one sentence; empty if the environment is complete.
        """
        return [] if self.sessions is None else self.sessions.createSessionEnvironment()

    def removeEnvironment(self, ignoreErrors: bool = False) -> list[str]:  # noqa: FBT001, FBT002 -- contract
        """Remove what `createEnvironment` made, the sessions with it, and nothing else.

        Args:
            ignoreErrors: Whether to return no errors.

        Returns:
            What went wrong, each as one sentence.
        """
        return [] if self.sessions is None else self.sessions.removeSessionEnvironment(ignoreErrors)

    def __repr__(self) -> str:
        return f"<web.environment.{type(self).__name__} {self.name!r} in {self.storage}>"


class _PartFailed(Exception):
    """The sessions' part could not be made; the arguments say why."""


class DatabaseDriver(Driver):
    """Sets an environment up in a database: the tables of its sessions, and ``{name}_environment`` with a version.

    The changes become durable with the next commit of the cursor's connection. SQLite, if no transaction is open, and
    MySQL make them durable at once. With MySQL no transaction may be open.

    Attributes:
        cursor: The cursor that it works with.
        sessions: The `web.session.Driver` of its sessions.
        table: The name of the table of its own.
    """

    sessions: SessionDriver

    def __init__(self, storage: str, name: str, sessions: SessionDriver, cursor: Cursor) -> None:
        super().__init__(storage, name, sessions)
        self.cursor = cursor
        self.table = f"{name}_environment"

    def completeEnvironment(self) -> bool:
        """Return whether all tables are there, with the versions that this program knows."""
        with self._looking():
            return self._is_complete()

    def createEnvironment(self) -> list[str]:
        """Create the tables that are missing, and write the version if there is none."""
        try:
            with self._looking():
                complete = self._is_complete()
            if not complete:
                self._in_savepoint(self._create)
            with self._looking():
                versions = self._versions()
        except Exception as error:  # noqa: BLE001 -- each adapter has errors of its own, and the contract wants text
            if self._made_by_another():
                return []
            if isinstance(error, _PartFailed):
                return list(error.args)
            return [f"table {self.table!r} could not be created: {error}"]
        if versions != [_VERSION]:
            found = ", ".join(map(str, versions))
            return [
                f"table {self.table!r} is of version {found}, this program knows {_VERSION}: install the other release"
            ]
        return []

    def removeEnvironment(self, ignoreErrors: bool = False) -> list[str]:  # noqa: FBT001, FBT002 -- contract
        """Drop the tables, and those of the sessions. An error with one of them does not keep the others."""
        errors: list[str] = []
        for what, remove in (
            ("sessions", lambda: self.sessions.removeSessionEnvironment(ignoreErrors)),
            (f"table {self.table!r}", self._drop),
        ):
            try:
                errors += self._in_savepoint(remove)
            except Exception as error:  # noqa: BLE001 -- as above
                errors.append(f"{what} could not be dropped: {error}")
        return [] if ignoreErrors else errors

    def _is_complete(self) -> bool:
        return (
            self.sessions.completeSessionEnvironment()
            and self.cursor.connection.hasTable(self.table)
            and self._versions() == [_VERSION]
        )

    def _drop(self) -> list[str]:
        with self._looking():
            there = self.cursor.connection.hasTable(self.table)
        if not there:
            return [f"table {self.table!r} does not exist"]
        self.cursor.execute(f"DROP TABLE {self._quoted()}")
        return []

    def _create(self) -> None:
        # The sessions first: MySQL commits an open transaction with each table, and a version opens one.
        if errors := self.sessions.createSessionEnvironment():
            raise _PartFailed(*errors)
        table = self._quoted()
        self.cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} (version INTEGER NOT NULL PRIMARY KEY)")
        if not self._versions():
            verb, end = ("INSERT IGNORE", "") if self._is_mysql() else ("INSERT", " ON CONFLICT DO NOTHING")
            self.cursor.execute(f"{verb} INTO {table} (version) VALUES (?){end}", [_VERSION])

    def _versions(self) -> list[int]:
        query = f"SELECT version FROM {self._quoted()}"  # noqa: S608 -- a checked name, in quotes
        return [row[0] for row in self.cursor.execute(query).fetchall()]

    def _made_by_another(self) -> bool:
        try:
            return self.completeEnvironment()
        except Exception:  # noqa: BLE001 -- the first error is the one to report
            return False

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """End the transaction that a query of a server's tables opens, if none was open before."""
        connection = self.cursor.connection
        was_open = connection.inTransaction
        try:
            yield
        finally:
            if not was_open:
                with contextlib.suppress(Exception):  # the next use of a broken connection reports it
                    connection.baseConnection.rollback()  # past the hooks: nothing of theirs is in it

    def _in_savepoint(self, work: Callable[[], T]) -> T:
        """Do something that may fail without the loss of the transaction that is open."""
        if self._is_mysql():
            return work()  # its statements on tables end the transaction, and the savepoint with it
        self.cursor.execute("SAVEPOINT web_environment")
        try:
            return work()
        except BaseException:
            self.cursor.execute("ROLLBACK TO SAVEPOINT web_environment")
            raise
        finally:
            self.cursor.execute("RELEASE SAVEPOINT web_environment")

    def _quoted(self) -> str:
        return self.cursor.connection.quoted(self.table)

    def _is_mysql(self) -> bool:
        return self.cursor.connection.adapter == "mysql"
