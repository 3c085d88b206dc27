"""The unit: what the standard library's sqlite3 itself needs for the same session in one row.

A SELECT by primary key, and an UPDATE by primary key that is committed (autocommit), with WAL and synchronous=NORMAL,
on one connection that stays open.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from rivals.common import SMALL, new_database

_ROWS = 500


def statements(folder: Path) -> dict[str, Callable[[], object]]:
    """Give the two statements, ready to be called."""
    connection = sqlite3.connect(new_database(folder), isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE session (digest BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID")
    data = json.dumps(SMALL).encode()
    digests = [hashlib.sha256(str(number).encode()).digest() for number in range(_ROWS)]
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO session VALUES (?, ?)", [(digest, data) for digest in digests])
    connection.execute("COMMIT")
    wanted = digests[_ROWS // 2]
    other = [data, data[::-1]]

    def select() -> object:
        return connection.execute("SELECT data FROM session WHERE digest = ?", (wanted,)).fetchone()

    def update() -> object:
        other.reverse()
        return connection.execute("UPDATE session SET data = ? WHERE digest = ?", (other[0], wanted)).rowcount

    assert select() is not None
    assert update() == 1
    return {"select": select, "update": update}
