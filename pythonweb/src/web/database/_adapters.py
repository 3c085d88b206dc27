"""The adapters by name."""

from __future__ import annotations

import os
from typing import Any

from web.database._adapter import Adapter
from web.database._errors import ParameterError, UnknownAdapter
from web.database._servers import MySQLAdapter, PostgreSQLAdapter, ServerAdapter
from web.database._sqlite import SQLite

__all__ = ["adapter_for"]

_SERVERS: dict[str, type[ServerAdapter]] = {"postgresql": PostgreSQLAdapter, "mysql": MySQLAdapter}
_FILES = ("sqlite", "snakesql")
# Names of 2005, each for the package of that time.
_OLDER = {"pysqlite": "sqlite", "mysqldb": "mysql"}


def adapter_for(name: str, database: Any, *, create: bool, params: dict[str, Any], **server: Any) -> Adapter:
    """Find an adapter by name and give it its database.

    Args:
        name: The name.
        database: The file or the name of the database.
        create: Whether to make a file that is missing.
        params: Parameters of the adapter's own ``connect``.
        **server: ``user``, ``password``, ``host``, ``port`` and ``socket``.

    Raises:
        UnknownAdapter: There is no adapter of that name.
        MissingPackage: The adapter needs a package that is not installed.
        ParameterError: A parameter does not fit the adapter.
    """
    key = str(name).lower()
    key = _OLDER.get(key, key)
    if key not in _FILES and key not in _SERVERS:
        raise UnknownAdapter(f"there is no adapter {name!r}: use one of {', '.join(sorted((*_FILES, *_SERVERS)))}")
    text = os.fspath(database) if isinstance(database, os.PathLike) else database
    if not isinstance(text, str) or not text or "\x00" in text:
        what = "the name of the database" if key in _SERVERS else "the path of a file"
        raise ParameterError(f"adapter {key!r}: database={database!r} is {'not ' if text else 'empty, not '}{what}")
    if key in _SERVERS:
        return _SERVERS[key](key, text, server=server, params=params)
    return SQLite(key, text, create=create, server=server, params=params)
