"""Environments: groups of applications that share users and sessions, by a common name."""

# ruff: noqa: N802, N803 -- the names are those of the 2005 reference

from __future__ import annotations

import re
from typing import Any

from web.database import Cursor

__all__ = ["DatabaseDriver", "Driver", "EnvironmentNameError", "checkName", "driver"]

_NAME = re.compile(r"[A-Za-z0-9_]{1,32}")
_VERSION = 1


class EnvironmentNameError(ValueError):
    """The name of an environment cannot be used; the message says which names can."""


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
    """Give what sets an environment up in a storage.

    Args:
        storage: The storage: ``'database'``, or the name of another one, in which there is nothing to set up.
        name: The name of the environment; ``'database'`` needs one.
        **params: For ``'database'``, ``cursor``: a cursor of `web.database`. Others take what they are given.

    Returns:
        The driver.

    Raises:
        EnvironmentNameError: The name cannot be used.
        TypeError: ``cursor`` is missing, is no cursor, or stands beside a parameter that is not known.
        ValueError: *storage* is no name.
    """
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
        return DatabaseDriver(storage, checkName(name), cursor)
    return Driver(storage, checkName(name) if name else "")


class Driver:
    """Sets an environment up in a storage that needs no setting up.

    Attributes:
        storage: The name of the storage.
        name: The name of the environment.
    """

    def __init__(self, storage: str, name: str) -> None:
        self.storage = storage
        self.name = name

    def completeEnvironment(self) -> bool:
        """Tell whether all that the environment needs is there."""
        return True

    def createEnvironment(self) -> list[str]:
        """Make what is missing, and drop nothing.

        Returns:
            What went wrong, each as one sentence; empty where the environment is complete.
        """
        return []

    def removeEnvironment(self, ignoreErrors: bool = False) -> list[str]:  # noqa: FBT001, FBT002 -- contract
        """Remove what `createEnvironment` made, and nothing else.

        Args:
            ignoreErrors: Whether to return no errors.

        Returns:
            What went wrong, each as one sentence.
        """
        del ignoreErrors
        return []

    def __repr__(self) -> str:
        return f"<web.environment.{type(self).__name__} {self.name!r} in {self.storage}>"


class DatabaseDriver(Driver):
    """Sets an environment up in a database: one small table, ``{name}_environment``, that holds a version.

    What is made here is durable with the next commit of the cursor's connection. (SQLite, where no transaction is
    open, and MySQL make it durable at once.)

    Attributes:
        cursor: The cursor that it works with.
        table: The name of the table.
    """

    def __init__(self, storage: str, name: str, cursor: Cursor) -> None:
        super().__init__(storage, name)
        self.cursor = cursor
        self.table = f"{name}_environment"

    def completeEnvironment(self) -> bool:
        """Tell whether the table is there, with the version that this program knows."""
        return self.cursor.connection.hasTable(self.table) and self._versions() == [_VERSION]

    def createEnvironment(self) -> list[str]:
        """Make the table where it is missing, and write the version where none is written."""
        try:
            if not self.completeEnvironment():
                self._in_savepoint(self._create)
            versions = self._versions()
        except Exception as error:  # noqa: BLE001 -- each adapter has errors of its own, and the contract wants text
            if self._made_by_another():
                return []
            return [f"table {self.table!r} could not be made: {error}"]
        if versions != [_VERSION]:
            found = ", ".join(map(str, versions))
            return [
                f"table {self.table!r} is of version {found}, this program knows {_VERSION}: install the other release"
            ]
        return []

    def removeEnvironment(self, ignoreErrors: bool = False) -> list[str]:  # noqa: FBT001, FBT002 -- contract
        """Drop the table, and nothing else: the tables of sessions and users stay."""
        errors: list[str] = []
        try:
            if self.cursor.connection.hasTable(self.table):
                self._in_savepoint(lambda: self.cursor.execute(f"DROP TABLE {self._quoted()}"))
            else:
                errors.append(f"table {self.table!r} does not exist")
        except Exception as error:  # noqa: BLE001 -- the same
            errors.append(f"table {self.table!r} could not be dropped: {error}")
        return [] if ignoreErrors else errors

    def _create(self) -> None:
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

    def _in_savepoint(self, work: Any) -> None:
        """Do something that may fail without the loss of the transaction that is open."""
        if self._is_mysql():
            work()  # its statements on tables end the transaction, and the savepoint with it
            return
        self.cursor.execute("SAVEPOINT web_environment")
        try:
            work()
        except BaseException:
            self.cursor.execute("ROLLBACK TO SAVEPOINT web_environment")
            raise
        finally:
            self.cursor.execute("RELEASE SAVEPOINT web_environment")

    def _quoted(self) -> str:
        return self.cursor.connection.quoted(self.table)

    def _is_mysql(self) -> bool:
        return self.cursor.connection.adapter == "mysql"
