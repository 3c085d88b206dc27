"""The unit: what the standard library's sqlite3 itself needs for the same session in one row.

A SELECT by primary key, and an UPDATE by primary key that is committed (autocommit), with WAL and synchronous=NORMAL,
on one connection that stays open. A loop of nothing else has SQLite's code in the processor's caches all the time; in a
request other code has run in between. So both are measured: the loop, and the statement after some ordinary work.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import html
import json
import sqlite3
import string
import textwrap
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from rivals.common import SMALL, new_database

_ROWS = 500
_PAGE = string.Template("<title>$title</title><a href='$link'>$text</a> $date $data")


def work() -> object:
    """Do what a small handler does, with the standard library."""
    link = urllib.parse.urlunsplit(urllib.parse.urlsplit("https://bench.example/articles/?page=2&order=date"))
    return _PAGE.substitute(
        title=html.escape("Sessions & cookies"),
        link=urllib.parse.quote(link),
        text=textwrap.shorten("a text that is a little longer than what there is room for", 40),
        date=dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC).isoformat(),
        data=json.dumps({"items": [1, 2, 3], "more": {"total": 3.5}}),
    )


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
