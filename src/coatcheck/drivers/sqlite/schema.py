"""The tables, and every statement that the driver sends.

A session is one row and a value is one row, so that a write's size follows the change and a rotation touches no value.
`ends` is computed by SQLite whenever the row changes, so expiry and the liveness of a write are one comparison in the
statement that does the work. `prior` is the digest that a rotation replaced: it works until `prior_until`, which is
`NEVER` for as long as nobody presented its successor.
"""

# ruff: noqa: S608 (values are always parameters, and a prefix is letters, digits and underscores)

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Final

from coatcheck.drivers._migrations import AddColumn, Migration, last_migration, meta_rows, renamed
from coatcheck.errors import ConfigurationError
from coatcheck.record import CLOCK_SKEW, MAX_TOUCH_INTERVAL, NEVER, TOUCHES_PER_IDLE

__all__ = ["NO_TOUCH", "SQLiteStatements", "check_prefix", "is_complete", "migrate", "migrated"]

NO_TOUCH: Final = -1.0
"""The moment of no activity at all: it is never due to be recorded."""

OLDEST_SQLITE: Final = (3, 31, 0)  # generated columns

_TABLE: Final = re.compile(r"\bcoatcheck_\w+")

_TABLES_OF_OLD: Final = (
    """
    CREATE TABLE IF NOT EXISTS coatcheck_session (
        id INTEGER PRIMARY KEY,
        sid TEXT NOT NULL UNIQUE,
        digest BLOB NOT NULL UNIQUE,
        created REAL NOT NULL,
        seen REAL NOT NULL,
        deadline REAL NOT NULL,
        idle REAL NOT NULL,
        absolute REAL NOT NULL,
        user TEXT,
        auth_time REAL,
        rotated REAL NOT NULL,
        prior BLOB,
        prior_until REAL NOT NULL DEFAULT 0,
        grace REAL NOT NULL DEFAULT 0,
        ends REAL GENERATED ALWAYS
            AS (min(deadline, seen + idle, coalesce(auth_time, created) + absolute)) STORED
    )
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_session_ends ON coatcheck_session (ends)",
    "CREATE INDEX IF NOT EXISTS coatcheck_session_user ON coatcheck_session (user) WHERE user IS NOT NULL",
    "CREATE UNIQUE INDEX IF NOT EXISTS coatcheck_session_prior ON coatcheck_session (prior) WHERE prior IS NOT NULL",
    # `data` has no type, so that SQLite converts nothing: an INTEGER is a counter, a BLOB is bytes
    """
    CREATE TABLE IF NOT EXISTS coatcheck_value (
        session INTEGER NOT NULL,
        app TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        data,
        PRIMARY KEY (session, app, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_ended (
        digest BLOB PRIMARY KEY, reason TEXT NOT NULL, until REAL NOT NULL, sid TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_ended_until ON coatcheck_ended (until)",
    "CREATE TABLE IF NOT EXISTS coatcheck_fence (user TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS coatcheck_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_MIGRATIONS: Final[tuple[Migration, ...]] = (
    _TABLES_OF_OLD,
    (AddColumn("coatcheck_session", "note", "BLOB"),),
)

_TABLES: Final = ("coatcheck_session", "coatcheck_value", "coatcheck_ended", "coatcheck_fence", "coatcheck_meta")

# The unary plus makes an expression of a column, so that converters which an application registered for the declared
# types of its own tables leave ours alone on a connection that it lends.
# The session comes first, in two rows, and its values follow, each in one. A join would give every column of the
# session again with each value, and reading takes its time by the column: Python locks and unlocks for each.
_LOAD: Final = """
    SELECT +sid, +created, +seen, +deadline, +idle, +absolute FROM coatcheck_session WHERE {0}
    UNION ALL
    SELECT +user, +auth_time, +rotated, +prior_until, +ends, +note FROM coatcheck_session WHERE {0}
    UNION ALL
    SELECT +app, +key, +version, +data, NULL, NULL
    FROM coatcheck_value WHERE session = (SELECT id FROM coatcheck_session WHERE {0})"""
_FIND: Final = """
    SELECT +id, +sid, +created, +seen, +deadline, +idle, +absolute, +user, +auth_time, +rotated,
           +prior_until, +ends, +note, +grace, +digest, +prior
    FROM coatcheck_session WHERE """
# A token that comes from a rotation and is not confirmed takes the general path, which confirms it.
# So does a change with activity that is due to be recorded: the last parameter is its moment.
_TOUCHED: Final = f"seen + min({MAX_TOUCH_INTERVAL}, idle / {TOUCHES_PER_IDLE}) > ?"
_LIVE: Final = f"FROM coatcheck_session WHERE digest = ? AND ends > ? AND prior_until < {NEVER!r} AND {_TOUCHED}"
_INSERT_VALUE: Final = "INSERT INTO coatcheck_value (session, app, key, version, data) SELECT id, ?, ?, ?, ? " + _LIVE
_ON_CONFLICT: Final = " ON CONFLICT (session, app, key) DO "
_ONE_VALUE: Final = f" WHERE session = (SELECT id {_LIVE}) AND app = ? AND key = ? AND version = ?"


class SQLiteStatements:
    """The SQL text for tables whose names start with *prefix*."""

    def __init__(self, prefix: str) -> None:
        def sql(text: str) -> str:
            return _TABLE.sub(lambda found: f'"{prefix}{found[0]}"', text)

        self.prefix = prefix
        self.migrations = renamed(_MIGRATIONS, sql)
        self.has_column = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
        self.drop_tables = tuple(sql(f"DROP TABLE IF EXISTS {table}") for table in _TABLES)
        self.tables = tuple(prefix + table for table in _TABLES)
        marks = ", ".join("?" * len(_TABLES))
        self.count_tables = f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ({marks})"
        self.meta = sql("SELECT +key, +value FROM coatcheck_meta")
        self.set_meta = sql("INSERT OR REPLACE INTO coatcheck_meta (key, value) VALUES (?, ?)")

        self.load = sql(_LOAD.format("digest = ?1"))
        self.load_prior = sql(_LOAD.format("prior = ?1"))
        self.load_heir = sql(_LOAD.format("sid = (SELECT +sid FROM coatcheck_ended WHERE digest = ?1)"))
        self.find = sql(_FIND + "digest = ?")
        self.find_prior = sql(_FIND + "prior = ?")
        self.find_sid = sql(_FIND + "sid = ?")
        self.of_user = sql(_FIND + "user = ? ORDER BY created, id")
        self.alive = sql("SELECT +sid FROM coatcheck_session WHERE ends > ? AND sid IN ")
        self.expired = sql("SELECT +id FROM coatcheck_session WHERE ends BETWEEN ? AND ? ORDER BY ends LIMIT ?")

        self.create = sql("""
            INSERT INTO coatcheck_session
                (sid, digest, created, seen, deadline, idle, absolute, user, auth_time, rotated, note)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""")
        self.update = sql("""
            UPDATE coatcheck_session SET
                seen = max(seen, coalesce(?, seen)), deadline = coalesce(?, deadline), user = coalesce(?, user),
                auth_time = coalesce(?, auth_time), note = coalesce(?, note), prior_until = ?
            WHERE id = ?""")
        self.rotate = sql("""
            UPDATE coatcheck_session SET digest = ?, prior = ?, prior_until = ?, grace = ?, rotated = ?
            WHERE id = ?""")
        self.delete = sql("DELETE FROM coatcheck_session WHERE id = ?")

        self.get_value = sql("SELECT +version, +data FROM coatcheck_value WHERE session = ? AND app = ? AND key = ?")
        self.names = sql("SELECT +app, +key FROM coatcheck_value WHERE session = ?")
        self.put = sql("""
            INSERT INTO coatcheck_value (session, app, key, version, data) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (session, app, key) DO UPDATE SET version = excluded.version, data = excluded.data""")
        self.drop = sql("DELETE FROM coatcheck_value WHERE session = ? AND app = ? AND key = ?")
        self.clear_app = sql("DELETE FROM coatcheck_value WHERE session = ? AND app = ?")
        self.clear = sql("DELETE FROM coatcheck_value WHERE session = ?")

        self.ended = sql("SELECT +reason, +until FROM coatcheck_ended WHERE digest = ?")
        self.end = sql("INSERT OR REPLACE INTO coatcheck_ended (digest, reason, until, sid) VALUES (?, ?, ?, ?)")
        self.find_successor = sql(_FIND + "sid = (SELECT +sid FROM coatcheck_ended WHERE digest = ?)")
        self.forget_ended = sql("""
            DELETE FROM coatcheck_ended
            WHERE digest IN (SELECT digest FROM coatcheck_ended WHERE until <= ? ORDER BY until LIMIT ?)""")
        self.fence = sql("SELECT +at FROM coatcheck_fence WHERE user = ?")
        self.set_fence = sql(f"""
            INSERT INTO coatcheck_fence (user, at) VALUES (?, ?)
            ON CONFLICT (user) DO UPDATE SET
                at = CASE WHEN at > excluded.at + {CLOCK_SKEW} THEN excluded.at ELSE max(at, excluded.at) END""")
        self.forget_fences = sql("""
            DELETE FROM coatcheck_fence
            WHERE user IN (SELECT user FROM coatcheck_fence WHERE at <= ? LIMIT ?)""")
        self.is_dirty = sql("""
            SELECT EXISTS (SELECT 1 FROM coatcheck_session WHERE ends <= ?)
                OR EXISTS (SELECT 1 FROM coatcheck_ended WHERE until <= ?)
                OR EXISTS (SELECT 1 FROM coatcheck_fence WHERE at <= ?)""")

        # The small changes in one statement each, with the liveness of the session inside it. Where one changes
        # nothing, the general path finds out why.
        self.fast_put = sql(
            _INSERT_VALUE + _ON_CONFLICT + "UPDATE SET version = excluded.version, data = excluded.data"
        )
        self.fast_put_absent = sql(_INSERT_VALUE + _ON_CONFLICT + "NOTHING")
        self.fast_put_based = sql("UPDATE coatcheck_value SET version = ?, data = ?" + _ONE_VALUE)
        self.fast_drop = sql("DELETE FROM coatcheck_value" + _ONE_VALUE)
        self.fast_increment = sql(
            _INSERT_VALUE
            + _ON_CONFLICT
            + """UPDATE SET version = excluded.version, data = data + excluded.data
                 WHERE typeof(data) = 'integer' AND data BETWEEN ? AND ? RETURNING data"""
        )
        self.fast_touch = sql("UPDATE coatcheck_session SET seen = max(seen, ?) WHERE id = (SELECT id " + _LIVE + ")")


def check_prefix(prefix: str) -> str:
    """Return *prefix* if it can start the name of a table.

    Raises:
        ConfigurationError: It has other characters than ASCII letters, digits and underscores.
    """
    if re.fullmatch(r"[A-Za-z0-9_]*", prefix) is None:
        raise ConfigurationError(f"the table prefix {prefix!r} may only have ASCII letters, digits and underscores")
    return prefix


def migrate(run: Callable[..., sqlite3.Cursor], statements: SQLiteStatements, done: int = 0) -> None:
    """Take the migrations after the one with the number *done*, inside the transaction that is open.

    From 0 on, that creates the tables that are missing and leaves the others as they are.

    Args:
        run: Executes one statement: (text, parameters).
        statements: The tables.
        done: The number of the last migration that was taken.
    """
    for part in (part for migration in statements.migrations[done:] for part in migration):
        if isinstance(part, str):
            run(part)
        elif run(statements.has_column, (statements.prefix + part.table, part.column)).fetchone() is None:
            run(part.text)
    for row in meta_rows(statements.migrations, statements.prefix):
        run(statements.set_meta, row)


def migrated(connection: sqlite3.Connection, statements: SQLiteStatements, place: str) -> int:
    """Return the number of the last migration of the tables, after checking that they are ours; 0 if there are none.

    One of them may have been removed since; see `is_complete`.

    Raises:
        ConfigurationError: They have another schema version, or belong to another prefix.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError(f"the SQLite library is {sqlite3.sqlite_version}; sessions need {oldest} or later")
    try:
        rows = sqlite3.Cursor(connection).execute(statements.meta).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return 0
        raise
    return last_migration(dict(rows), statements.prefix, place, "file or prefix")


def is_complete(connection: sqlite3.Connection, statements: SQLiteStatements, place: str) -> bool:
    """Return whether every table is there and up to date, after checking that they are ours; see `migrated`.

    Only `setup` completes them. A connection that did so by itself would turn sessions that are out of reach, because
    somebody renamed a table, into sessions that do not exist.
    """
    if migrated(connection, statements, place) < len(statements.migrations):
        return False
    (there,) = sqlite3.Cursor(connection).execute(statements.count_tables, statements.tables).fetchone()
    return bool(there == len(statements.tables))
