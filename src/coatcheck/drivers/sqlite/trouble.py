"""SQLite's errors, told so that somebody can do something about them."""

from __future__ import annotations

import sqlite3
from typing import Final

from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable

__all__ = ["translated"]

NAME: Final = "sqlite"

# A COMMIT that failed in another way may be in the log anyway
_SURELY_UNDONE: Final = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB,
})  # fmt: skip


def translated(
    error: Exception, operation: str, place: str, timeout: float | None, *, committing: bool = False
) -> CoatcheckError:
    """Return the error to raise instead of *error*.

    Args:
        error: What SQLite or the file system raised.
        operation: The operation of the contract.
        place: The path of the database, or what else names it.
        timeout: How long a lock was waited for, in seconds; None for as long as a connection of the application's does.
        committing: True if a COMMIT failed, or a statement that commits automatically.
    """
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"{place} is not an SQLite database: name another file, or move that one away")
    unknown = committing and isinstance(error, sqlite3.Error) and primary not in _SURELY_UNDONE and code is not None
    return DriverUnavailable(NAME, operation, _why(error, code, place, timeout), outcome_unknown=unknown)


def _why(error: Exception, code: int | None, place: str, timeout: float | None) -> str:
    if code is None:
        return str(error)
    said = f"{error} ({getattr(error, 'sqlite_errorname', code)}) in {place}"
    if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return f"{said}: the transaction began with a read and another program has written since: use BEGIN IMMEDIATE"
    patience, where = ("the connection's timeout", "of the connection")
    if timeout is not None:
        patience, where = f"{timeout:g} s", "in the URL"
    advice = {
        sqlite3.SQLITE_BUSY: f"another program wrote for longer than {patience}: keep its transactions short,"
        f" or raise timeout= {where}",
        sqlite3.SQLITE_LOCKED: "another statement of this process holds a lock on the table",
        sqlite3.SQLITE_READONLY: "the database, its -wal and -shm files and its folder must be writable for this user",
        sqlite3.SQLITE_CANTOPEN: "the file and its folder must exist and be writable for this user",
        sqlite3.SQLITE_FULL: "the disk is full, or a quota is used up",
        sqlite3.SQLITE_CORRUPT: "the database is damaged: restore it, or move it away to start with no sessions",
    }.get(code & 0xFF)
    if advice is None and "no such table" in str(error):
        advice = "the session tables are missing: call setup()"
    elif advice is None and "no such column" in str(error):
        advice = "the session tables are those of an older coatcheck: call setup(), which keeps what is in them"
    return said if advice is None else f"{said}: {advice}"
