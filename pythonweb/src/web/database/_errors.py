"""The errors of web.database.

    DatabaseError
    ├── ConnectionClosed    a connection or cursor is used after its end (a RuntimeError too)
    ├── ConnectionFailed    the database cannot be opened
    ├── MissingPackage      the adapter's package is not installed (an ImportError too)
    ├── ParameterError      a parameter does not fit the adapter (a ValueError too)
    └── UnknownAdapter      no adapter has that name (a ValueError too)

No message holds a password.
"""

from __future__ import annotations


class DatabaseError(Exception):
    """The root of every error that web.database raises on purpose."""


class ConnectionClosed(DatabaseError, RuntimeError):
    """A connection or a cursor is used after it was closed, or after the request that it belonged to."""


class ConnectionFailed(DatabaseError):
    """The database cannot be opened; the message names it and the remedy.

    Attributes:
        adapter: The name of the adapter.
        database: The database as it was given; for a file its whole path.
    """

    def __init__(self, adapter: str, database: str, problem: str) -> None:
        super().__init__(f"{adapter} database {database!r}: {problem}")
        self.adapter = adapter
        self.database = database


class MissingPackage(DatabaseError, ImportError):
    """The adapter needs a package that is not installed; the message holds the command that installs it."""


class ParameterError(DatabaseError, ValueError):
    """A parameter does not fit the adapter; the message names it and the remedy."""


class UnknownAdapter(DatabaseError, ValueError):
    """No adapter has that name; the message lists those that exist."""
