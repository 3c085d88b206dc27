"""The properties of a database: how to connect to it, its placeholders, and what a pool needs to know."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Adapter"]

# The savepoint that marks a transaction.
_MARK = "web_session"


class Adapter(ABC):
    """One database, and how to speak to it.

    Attributes:
        name: The adapter's name, as it was given.
        database: The database; for a file its whole path.
        quote: The character that quotes the name of a table or column.
        table_query: A statement with one placeholder, which returns a row if a table of that name exists.
        no_savepoint: The error that the package raises if a savepoint does not exist.
    """

    quote = '"'
    table_query: str
    no_savepoint: type[Exception]

    def __init__(self, name: str, database: str) -> None:
        self.name = name
        self.database = database

    @abstractmethod
    def connect(self) -> Any:
        """Make a DB-API connection, no transaction open.

        Raises:
            ConnectionFailed: The database cannot be opened.
            ParameterError: The adapter has no such parameter.
        """

    @abstractmethod
    def in_transaction(self, base: Any) -> bool:
        """Return whether a transaction is open."""

    def mark(self, base: Any) -> object:
        """Leave a mark in the open transaction, by which `holds` knows it again."""
        with contextlib.closing(base.cursor()) as cursor:
            cursor.execute(f"SAVEPOINT {_MARK}")
        return _MARK

    def holds(self, base: Any, mark: object) -> bool:  # noqa: ARG002 -- a savepoint is its own mark
        """Return whether the transaction of a mark is open, and can still be committed; it takes the mark away."""
        with contextlib.closing(base.cursor()) as cursor:
            try:
                cursor.execute(f"RELEASE SAVEPOINT {_MARK}")
            except self.no_savepoint:
                return False
        return True

    @abstractmethod
    def identity(self, base: Any) -> object:
        """Return which database a connection is to."""

    @abstractmethod
    def usable(self, base: Any, idle: float) -> bool:
        """Return whether a connection that was idle for that many seconds can be used."""

    @abstractmethod
    def reset(self, base: Any) -> None:
        """Undo the settings that a request made on a connection; no transaction is open."""

    @property
    def shareable(self) -> bool:
        """Whether two connections see the same data."""
        return True

    def translated(self, operation: str) -> str:
        """Write a statement, which values go with, for the adapter's package."""
        return operation

    def statement(self, operation: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of the adapter's own ``execute``."""
        return (operation, values)

    def __str__(self) -> str:
        return f"{self.name} database {self.database!r}"
