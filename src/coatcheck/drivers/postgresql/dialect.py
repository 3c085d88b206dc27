"""What PostgreSQL says differently from other SQL servers."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Final

import psycopg

from coatcheck.drivers._migrations import AddColumn, Migration, renamed
from coatcheck.drivers.postgresql.fast import INTO, PATIENCE, ROW, Fast, bound_in_transaction
from coatcheck.drivers.sql.dialect import Dialect, Single, Trouble
from coatcheck.drivers.sql.statement import Row, Statement, Wants
from coatcheck.record import Delta

__all__ = ["PostgreSQL"]

OLDEST: Final = 12  # generated columns
_SETUP_KEY: Final = 0x636F6174636865  # "coatche": any number that nobody else locks

# Names and users are compared byte by byte ("C"), which is exact, and which no update of the system's collations makes
# an index forget. Floats take 8 bytes and come back as they were.
_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS coatcheck_session (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        sid text COLLATE "C" NOT NULL UNIQUE,
        digest bytea NOT NULL UNIQUE,
        created double precision NOT NULL,
        seen double precision NOT NULL,
        deadline double precision NOT NULL,
        idle double precision NOT NULL,
        absolute double precision NOT NULL,
        username text COLLATE "C",
        auth_time double precision,
        rotated double precision NOT NULL,
        prior bytea,
        prior_until double precision NOT NULL,
        grace double precision NOT NULL,
        ends double precision NOT NULL GENERATED ALWAYS
            AS (LEAST(deadline, seen + idle, COALESCE(auth_time, created) + absolute)) STORED
    )
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_session_ends ON coatcheck_session (ends)",
    "CREATE INDEX IF NOT EXISTS coatcheck_session_user ON coatcheck_session (username) WHERE username IS NOT NULL",
    "CREATE UNIQUE INDEX IF NOT EXISTS coatcheck_session_prior ON coatcheck_session (prior) WHERE prior IS NOT NULL",
    # room in each page, so that a new version of a value stays in its page and no index has to be told
    """
    CREATE TABLE IF NOT EXISTS coatcheck_value (
        session bigint NOT NULL,
        app text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        data bytea,
        number bigint,
        PRIMARY KEY (session, app, name)
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_ended (
        digest bytea PRIMARY KEY,
        reason text NOT NULL,
        expires double precision NOT NULL,
        sid text COLLATE "C"
    )
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_ended_expires ON coatcheck_ended (expires)",
    """
    CREATE TABLE IF NOT EXISTS coatcheck_fence (
        username text COLLATE "C" PRIMARY KEY,
        moment double precision NOT NULL,
        expires double precision NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_fence_expires ON coatcheck_fence (expires)",
    "CREATE TABLE IF NOT EXISTS coatcheck_meta (name text PRIMARY KEY, content text NOT NULL)",
)

_MIGRATIONS: Final[tuple[Migration, ...]] = (_TABLES, (AddColumn("coatcheck_session", "note", "bytea"),))

_CLASH: Final = ("40001", "40P01")  # serialization failure, deadlock
_READ_ONLY: Final = "25006"
_MISSING: Final = ("42P01", "42703", "3F000")  # no such table, column, schema
_UNSURE: Final = (
    "08",
    "57P",
    "58",
    "XX",
)  # the connection, a shutdown, the system, the server itself: also PgBouncer's

_REMEDIES: Final = {
    "22021": "another program wrote what is no UTF-8: keep sessions in a database with the encoding UTF8",
    "25006": (
        "it is read-only (a standby, or a role or database that may only read): name the primary in the URL, or all"
        " hosts and target_session_attrs=read-write; or set default_transaction_read_only = off for that role or"
        " database"
    ),
    "25P03": "the transaction was idle for too long and is undone",
    "42501": "grant this user SELECT, INSERT, UPDATE and DELETE on the session tables",
    "53100": "the disk is full",
    "53300": "raise the server's max_connections, or lower max_connections= in the URL",
    "55P03": "another transaction held a lock for too long: keep transactions that write to a session short",
    "57014": "another transaction held a lock for too long: keep transactions that write to a session short",
}


class PostgreSQL(Dialect):
    """PostgreSQL 12 or later.

    Args:
        prefix: What the names of the tables start with.
        timeout: Seconds that an operation may take in all; None on a connection of the application's.
    """

    name: ClassVar[str] = "postgresql"
    title: ClassVar[str] = "PostgreSQL"
    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)
    current: ClassVar[str] = ""  # each statement at READ COMMITTED sees what is committed when it begins
    ddl_is_transactional: ClassVar[bool] = True
    begin: ClassVar[Statement] = Statement("BEGIN ISOLATION LEVEL READ COMMITTED", begins=True)
    setup_lock: ClassVar[Statement | None] = Statement(f"SELECT pg_advisory_xact_lock({_SETUP_KEY})", (), Wants.ROWS)
    settings: ClassVar[Statement | None] = Statement(
        "SELECT current_setting('server_version_num')::int, current_setting('fsync'),"
        " current_setting('synchronous_commit'), current_setting('full_page_writes'),"
        " current_setting('server_encoding')"
    )

    def __init__(self, prefix: str, timeout: float | None) -> None:
        # A little less than ours: the server can say that nothing was done, and we could not know.
        limit = None if timeout is None else max(1, int(timeout * PATIENCE * 1000))
        if limit is None:
            self.snapshot = Statement("SELECT current_setting('transaction_isolation')", (), Wants.ROWS)
        else:
            self.bound = bound_in_transaction(limit)
        super().__init__(prefix)
        self._fast: Final = Fast(self.named, limit)
        self._put_new: Final = cache(self._put_new_text)

    @property
    def migrations(self) -> tuple[Migration, ...]:
        return renamed(_MIGRATIONS, self.named)

    def quoted(self, name: str) -> str:
        return f'"{name}"'

    def insert_new(self, into: str, *, returning_id: bool = False) -> str:
        return f"INSERT INTO {into} ON CONFLICT DO NOTHING" + (" RETURNING id" if returning_id else "")

    def upsert(self, into: str, key: str, *updates: str) -> str:
        table, _, rest = into.partition(" ")
        assignments = ", ".join(updates).replace("new.", "excluded.")
        return f"INSERT INTO {table} AS old {rest} ON CONFLICT ({key}) DO UPDATE SET {assignments}"

    def put_new(self, digest: bytes, count: int, values: tuple[object, ...]) -> Statement:
        return Statement(self._put_new(count), (*values, digest))

    def _put_new_text(self, count: int) -> str:
        rows = ", ".join([ROW] * count)
        source = f"coatcheck_session AS s, (VALUES {rows}) AS g WHERE s.digest = %s"
        return self.named(f"{INTO} SELECT s.id, g.* FROM {source}")  # noqa: S608 (values are parameters)

    def table_exists(self, table: str) -> Statement:
        found = "SELECT 1 WHERE to_regclass(%s) IS NOT NULL"
        return Statement(found, (self.named(table),), Wants.ROWS)

    def column_exists(self, table: str, column: str) -> Statement:
        found = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped"
        return Statement(found, (self.named(table), column), Wants.ROWS)

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:
        return self._fast.single(digest, delta, now, version)

    def risk(self, settings: Row) -> str | None:
        _, fsync, commits, pages, _ = settings
        if fsync == "off" or pages == "off":
            return "fsync or full_page_writes is off: a crash of the server's machine may lose or damage its database"
        if commits == "off":
            return "synchronous_commit is off: a crash of the server loses what it acknowledged in the last moments"
        return None

    def advice(self, settings: Row) -> list[str]:
        number, fsync, commits, pages, encoding = settings
        sentences = [
            f"{name} is {found}: set {name} = on, or a crash may lose sessions and logouts that were acknowledged"
            for name, found in (("fsync", fsync), ("full_page_writes", pages), ("synchronous_commit", commits))
            if found == "off"
        ]
        if encoding != "UTF8":
            sentences.append(f"the database's encoding is {encoding}: keep sessions in one with the encoding UTF8")
        if isinstance(number, int) and number < OLDEST * 10_000:
            sentences.append(f"the server is version {number // 10_000}: sessions need PostgreSQL {OLDEST} or later")
        return sentences

    def trouble(self, error: Exception) -> Trouble:
        state = getattr(error, "sqlstate", None)
        if state is None:
            is_lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
            return Trouble.LOST if is_lost else Trouble.OTHER
        if state in _CLASH:
            return Trouble.CLASH
        if state == _READ_ONLY:
            return Trouble.READ_ONLY
        if state in _MISSING:
            return Trouble.MISSING
        return Trouble.LOST if state.startswith(_UNSURE) else Trouble.OTHER

    def said(self, error: Exception) -> str:
        # the details of an error may repeat a row, its first line never does
        text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error).partition("\n")[0]
        remedy = _REMEDIES.get(getattr(error, "sqlstate", None) or "")
        return text if remedy is None else f"{text}: {remedy}"
