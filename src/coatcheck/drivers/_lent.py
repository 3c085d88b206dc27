"""Connections that the application lends to a SQL driver: what is inside them, and who owns its transaction.

SQLAlchemy and Django keep account of the transaction that is open on a connection. A write that went past them would
land in a transaction that they do not know of, which their commit does not end. So before a write they are made to
begin one, in the way in which their own statements do. Where a connection is in autocommit mode the write is refused,
whatever it is, because nobody would end a transaction that it opened, and what the application wrote afterwards
would be lost with it. Neither is imported: who lends their connection has done so.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from coatcheck.errors import ConfigurationError, DriverUnavailable

__all__ = ["Lent", "lent"]


class Lent(ABC):
    """A connection of the application's. What is inside it may change between one transaction and the next.

    Args:
        connection: What the application lends.
        engine: The driver's name.
        kinds: The types of the DB-API connections that the driver can work on.
        commits_alone: Tells whether a DB-API connection would commit each statement at once, as it is now.
    """

    def __init__(
        self, connection: Any, engine: str, kinds: tuple[type, ...], commits_alone: Callable[[Any], bool]
    ) -> None:
        self._connection: Final = connection
        self._engine: Final = engine
        self._kinds: Final = kinds
        self._commits_alone: Final = commits_alone

    def open(self, operation: str, *, to_write: bool) -> Any:
        """Return the DB-API connection.

        Args:
            operation: The operation of the contract, for errors.
            to_write: True where its owner must know of a transaction from now on. Whether one is open in the database
                is another question: on the DB-API connection itself, and where a client library begins one with the
                first write, the driver sees to it.

        Raises:
            ConfigurationError: It leads to another kind of database, or nothing would commit the writes.
            DriverUnavailable: Its owner has no underlying connection.
        """
        try:
            inside = self._opened()
        except Exception as error:
            why = f"the {_name(type(self._connection))} that the application lends has no underlying connection"
            raise DriverUnavailable(self._engine, operation, why) from error
        if not isinstance(inside, self._kinds):
            raise ConfigurationError(
                f"the {self._engine} driver works on {_names(self._kinds)}, and the {_name(type(self._connection))} "
                f"that was lent has a {_name(type(inside))} inside: borrow from the driver of that database"
            )
        if to_write and self._commits_alone(inside):
            raise ConfigurationError(
                f"no transaction is open on the {_name(type(self._connection))} lent to the {self._engine} driver, and"
                f" nothing would commit one: {self._remedy}"
            )
        return inside

    @property
    @abstractmethod
    def _remedy(self) -> str:
        """What to do where it is in autocommit mode."""

    @abstractmethod
    def _opened(self) -> Any:
        """Return the DB-API connection, after making its owner begin a transaction where it can."""


class _Plain(Lent):
    """The DB-API connection itself."""

    @property
    def _remedy(self) -> str:
        return "begin one first, or lend a connection that is not in autocommit mode"

    def _opened(self) -> Any:
        return self._connection


class _SQLAlchemy(Lent):
    """A `Connection` or `Session` of SQLAlchemy's. Both begin a transaction with the first statement, a read too."""

    @property
    def _remedy(self) -> str:
        return "lend one whose isolation level is not AUTOCOMMIT"

    def _opened(self) -> Any:
        connection = self._connection
        if not hasattr(connection, "exec_driver_sql"):
            connection = connection.connection()  # of a Session, which is in a transaction from here on
        elif not connection.in_transaction():
            connection.begin()
        return connection.connection.driver_connection


class _Django(Lent):
    """A connection of Django's: outside `atomic()` every statement is committed at once."""

    @property
    def _remedy(self) -> str:
        return "write to the session inside transaction.atomic() (ATOMIC_REQUESTS puts each request there)"

    def _opened(self) -> Any:
        self._connection.ensure_connection()
        return self._connection.connection


def lent(connection: object, engine: str, kinds: tuple[type, ...], commits_alone: Callable[[Any], bool]) -> Lent:
    """Recognize a connection that the application lends.

    Args:
        connection: A DB-API connection, a `Connection` or `Session` of SQLAlchemy's, or a connection of Django's.
        engine: The driver's name.
        kinds: The types of the DB-API connections that the driver can work on.
        commits_alone: Tells whether a DB-API connection would commit each statement at once, as it is now.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(connection, kinds):
        return _Plain(connection, engine, kinds, commits_alone)
    if isinstance(
        connection, _loaded("sqlalchemy.engine", "Connection", "sqlalchemy.orm", "Session", "scoped_session")
    ):
        return _SQLAlchemy(connection, engine, kinds, commits_alone)
    # Django has the same proxy around its caches
    proxies = _loaded("django.utils.connection", "ConnectionProxy")
    wrappers = _loaded("django.db.backends.base.base", "BaseDatabaseWrapper")
    if isinstance(connection, wrappers) or (isinstance(connection, proxies) and hasattr(connection, "in_atomic_block")):
        return _Django(connection, engine, kinds, commits_alone)
    found = _name(type(connection))
    remedy = "hand over the connection inside it"
    if isinstance(connection, _loaded("sqlalchemy.engine", "Engine")):
        remedy = "lend a connection of that engine, engine.connect()"
    elif found.startswith("sqlalchemy.ext.asyncio"):
        remedy = "lend (await connection.get_raw_connection()).driver_connection"
    raise ConfigurationError(
        f"the {engine} driver borrows {_names(kinds)}, a SQLAlchemy Connection or Session or a Django connection,"
        f" not a {found}: {remedy}"
    )


def _loaded(*names: str) -> tuple[type, ...]:
    """Return the classes of these names, each after the module that has it, as far as those are imported."""
    found = []
    module = None
    for name in names:
        if "." in name:
            module = sys.modules.get(name)
        elif module is not None and hasattr(module, name):  # while it is being imported it lacks some
            found.append(getattr(module, name))
    return tuple(found)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(kinds: tuple[type, ...]) -> str:
    return " or ".join(f"a {_name(kind)}" for kind in kinds)
