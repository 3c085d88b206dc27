"""Databases with one interface: DB-API 2.0, with ``?`` as the placeholder everywhere.

    connection = web.database.connect('sqlite', 'shop.db', autoCreate=True)
    cursor = connection.cursor()
    cursor.execute('INSERT INTO orders (item) VALUES (?)', ['umbrella'])
    connection.commit()

| adapter | is |
| --- | --- |
| ``sqlite`` | a file, of the SQLite that comes with Python |
| ``snakesql`` | the 2005 name of the embedded database; now the same as ``sqlite`` |
| ``postgresql`` | PostgreSQL, by psycopg 3 |
| ``mysql`` | MySQL or MariaDB, by PyMySQL |

``PySQLite`` and ``MySQLdb`` are older names of ``sqlite`` and ``mysql``.

Errors of this package are `DatabaseError`; what a statement raises is the adapter's own error.
"""

# ruff: noqa: N803 -- the names are those of the 2005 reference

from __future__ import annotations

from typing import Any

from web.database._adapter import Adapter
from web.database._adapters import adapter_for
from web.database._connection import CommitHook, Connection, Cursor
from web.database._errors import (
    ConnectionClosed,
    ConnectionFailed,
    DatabaseError,
    MissingPackage,
    ParameterError,
    UnknownAdapter,
)

__all__ = [
    "Adapter",
    "CommitHook",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "Cursor",
    "DatabaseError",
    "MissingPackage",
    "ParameterError",
    "UnknownAdapter",
    "connect",
]


def connect(  # noqa: PLR0913, PLR0917 -- the signature is the contract's
    adapter: str,
    database: str,
    user: str = "",
    password: str = "",
    host: str = "",
    port: int | None = None,
    socket: str = "",
    autoCreate: object = False,  # noqa: FBT002 -- as above
    **params: Any,
) -> Connection:
    """Connect to a database.

    Args:
        adapter: ``'sqlite'``, ``'snakesql'``, ``'postgresql'`` or ``'mysql'``.
        database: The path of the file, relative to the current folder, or ``':memory:'``; the name of the database
            for a server.
        user: The user of a server's database.
        password: The password of that user.
        host: The server's host name or address.
        port: The server's port.
        socket: The server's Unix socket, instead of host and port: for PostgreSQL the folder it is in.
        autoCreate: Whether to create the file if it is missing; any true value, such as 1. It is readable and
            writable by its owner alone. A server's database is made with the server's own tools.
        **params: Passed to the adapter's own ``connect``. For SQLite: ``timeout`` (seconds to wait for a lock, 5
            unless given), ``detect_types`` and ``cached_statements``.

    Returns:
        The connection. No transaction is open.

    Raises:
        UnknownAdapter: There is no adapter of that name.
        MissingPackage: The adapter needs a package that is not installed.
        ParameterError: A parameter does not fit the adapter.
        ConnectionFailed: The database cannot be opened.
    """
    chosen = adapter_for(
        adapter,
        database,
        user=user,
        password=password,
        host=host,
        port=port,
        socket=socket,
        create=bool(autoCreate),
        params=params,
    )
    return Connection(chosen.connect(), chosen)
