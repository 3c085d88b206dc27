"""The SQL of MariaDB and MySQL, and what their errors mean.

All text is kept as UTF-8 in columns of bytes: so names that differ in case, in an accent or in a space at the end are
different names, whatever collation the server, the database or the application's connection has.
"""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar, Final, cast

from pymysql.err import Error as PyMySQLError
from pymysql.err import OperationalError

from coatcheck.drivers._migrations import AddColumn, Migration, renamed
from coatcheck.drivers.mariadb import packed
from coatcheck.drivers.mariadb.fast import Fast
from coatcheck.drivers.sql.dialect import Dialect, Single, Trouble
from coatcheck.drivers.sql.statement import Row, Statement, Wants
from coatcheck.record import Delta

try:
    from MySQLdb import Error as MySQLdbError  # type: ignore[import-untyped]  # of mysqlclient, which may be lent
except ImportError:
    MySQLdbError = PyMySQLError

__all__ = ["LOST", "NAME", "REFUSED", "MariaDBDialect", "MySQLdbError", "TooLong", "Unsuited", "number_of"]

NAME: Final = "mariadb"

_TO_THE_SYSTEM: Final = 2  # innodb_flush_log_at_trx_commit: each commit reaches the operating system
_ROOMY: Final = 4 << 20

_OLD: Final = re.compile(r"\bold\.")
_NEW: Final = re.compile(r"\bnew\.(\w+)")

# 1020 bytes of a name: the core allows 255 characters, of 4 bytes at most. The longest key, of `value`, has 2048 bytes,
# and the limit of InnoDB is 3072.
_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS coatcheck_session (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
        sid VARBINARY(64) NOT NULL,
        digest BINARY(32) NOT NULL,
        created DOUBLE NOT NULL,
        seen DOUBLE NOT NULL,
        deadline DOUBLE NOT NULL,
        idle DOUBLE NOT NULL,
        absolute DOUBLE NOT NULL,
        username VARBINARY(1020) NULL,
        auth_time DOUBLE NULL,
        rotated DOUBLE NOT NULL,
        prior BINARY(32) NULL,
        prior_until DOUBLE NOT NULL,
        grace DOUBLE NOT NULL,
        ends DOUBLE GENERATED ALWAYS
            AS (LEAST(deadline, seen + idle, COALESCE(auth_time, created) + absolute)) STORED,
        UNIQUE KEY by_sid (sid),
        UNIQUE KEY by_digest (digest),
        UNIQUE KEY by_prior (prior),
        KEY by_ends (ends),
        KEY by_username (username)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_value (
        session BIGINT UNSIGNED NOT NULL,
        app VARBINARY(1020) NOT NULL,
        name VARBINARY(1020) NOT NULL,
        version BIGINT UNSIGNED NOT NULL,
        data LONGBLOB NULL,
        number BIGINT NULL,
        PRIMARY KEY (session, app, name)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_ended (
        digest BINARY(32) NOT NULL PRIMARY KEY,
        reason VARBINARY(20) NOT NULL,
        expires DOUBLE NOT NULL,
        sid VARBINARY(64) NULL,
        KEY by_expires (expires)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_fence (
        username VARBINARY(1020) NOT NULL PRIMARY KEY,
        moment DOUBLE NOT NULL,
        expires DOUBLE NOT NULL,
        KEY by_expires (expires)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
    """,
    """
    CREATE TABLE IF NOT EXISTS coatcheck_meta (
        name VARBINARY(20) NOT NULL PRIMARY KEY,
        content VARBINARY(100) NOT NULL
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
    """,
)

_MIGRATIONS: Final[tuple[Migration, ...]] = (_TABLES, (AddColumn("coatcheck_session", "note", "BLOB NULL"),))

LOST: Final = frozenset({
    0, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2000, 2002, 2003, 2005, 2006, 2013, 2014, 2026,
    2027, 2055, 3169, 4031,
})  # fmt: skip
"""The numbers of errors that end a connection."""

_CLASH: Final = frozenset({1020, 1060, 1213})  # 1060: another setup has just added the column
_READ_ONLY: Final = frozenset({1047, 1290, 1792, 1836})
"""Who says so is no primary: a replica, a node of Galera's outside its cluster, a server that may only be read."""
_TOO_LONG: Final = 1153
_WRONG_VALUE: Final = 1231
_MISSING: Final = frozenset({1054, 1146})

REFUSED: Final = frozenset({1062, 1264, 1690})
"""A key that exists, or a number out of range."""

_SAID: Final = {
    0: "the connection is closed",
    1020: "another transaction changed a row that this one had read: it must be begun again",
    1021: "the disk of the server is full",
    1040: "the server has no free connections: raise its max_connections, or lower max_connections in the URL",
    1044: "the user may not use this database: GRANT ALL on it",
    1045: "the server does not let this user in: check user, password and tls= in the URL",
    1046: "no database is selected: name one in the URL",
    1047: "the server belongs to no cluster at the moment, and accepts no statements",
    1049: "there is no such database: create it, or use another one in the URL",
    1053: "the server is shutting down",
    1054: "a column is missing: bring the session tables up to date with setup() or coatcheck init",
    1060: "another program has just added the column",
    1064: "the server does not understand the statement: sessions need MariaDB 10.6 or MySQL 8.0.13 at least",
    1114: "the table is full: see the server's disk and quotas",
    1129: "the server blocks this host after too many failed connections: FLUSH HOSTS",
    1142: "the user may not do this to the session tables: GRANT SELECT, INSERT, UPDATE, DELETE (and CREATE, DROP)",
    1146: "the session tables are missing: call setup(), or run coatcheck init",
    1153: "a value is too large: raise the server's max_allowed_packet, or store less",
    1203: "the user has as many connections as the server allows: raise max_user_connections",
    1205: "another transaction kept a lock for too long: keep transactions short, or raise timeout= in the URL",
    1213: "a deadlock with another transaction",
    1290: "the server is read-only: name the primary in the URL",
    1317: "the statement was interrupted",
    1665: "the server has binlog_format=STATEMENT, which cannot log READ COMMITTED: set it to ROW or MIXED",
    1698: "the server does not let this user in: check user, password and tls= in the URL",
    1792: "the transaction is read-only",
    1836: "the server is read-only: name the primary in the URL",
    1927: "the connection was killed",
    1969: "the statement took longer than the server's max_statement_time",
    2002: "the server cannot be reached through its socket",
    2003: "the server cannot be reached, or does not answer",
    2005: "the name of the server cannot be resolved",
    2006: "the server has ended the connection",
    2013: "the connection to the server was lost, or no answer came in time",
    2026: "no TLS connection comes about: see the server's certificate, and tls= and ca= in the URL",
    2059: "this kind of login needs pip install 'coatcheck[mysql]', or tls=verified in the URL, or a socket",
    3024: "the statement took longer than the server's max_execution_time",
    4031: "the server has ended a connection that was idle",
}
"""In our own words: the server's may repeat values."""


class TooLong(OperationalError):
    """A statement that the server would not take. It was not sent: the server would have ended the connection.

    Args:
        length: The bytes of its packet.
        most: The server's max_allowed_packet.
    """

    def __init__(self, length: int, most: int) -> None:
        super().__init__(
            _TOO_LONG,
            f"the change takes a statement of {length} bytes, in which values have twice their size, and the server's"
            f" max_allowed_packet is {most}: raise it, or lower Policy(max_value_bytes=)",
        )


class Unsuited(OperationalError):
    """A server that does not keep to what a connection was set to.

    Args:
        name: The setting.
        found: What it is.
        needed: What it must be.
    """

    def __init__(self, name: str, found: str, needed: str) -> None:
        super().__init__(
            _WRONG_VALUE,
            f"{name} is {found} on a connection that was just set to {needed}, so that writes could be lost: see what"
            " is between this program and the server",
        )


class MariaDBDialect(Dialect):
    """MariaDB and MySQL, by PyMySQL, aiomysql or mysqlclient."""

    name: ClassVar[str] = NAME
    title: ClassVar[str] = "MariaDB"
    errors: ClassVar[tuple[type[Exception], ...]] = (PyMySQLError, MySQLdbError)
    current: ClassVar[str] = ""  # READ COMMITTED, which our own connections have, looks again for each statement
    load_columns: ClassVar[str] = packed.LOAD_COLUMNS
    find_columns: ClassVar[str] = packed.FIND_COLUMNS
    locks_indexes: ClassVar[bool] = True
    ddl_is_transactional: ClassVar[bool] = False
    settings: ClassVar[Statement | None] = Statement(
        "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog, @@max_allowed_packet"
    )

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self._fast: Final = Fast(self.named)
        self._put_new: Final = cache(self._put_new_text)

    def quoted(self, name: str) -> str:
        return f"`{name}`"

    def insert_new(self, into: str, *, returning_id: bool = False) -> str:  # noqa: ARG002 (the server tells it anyhow)
        # Not INSERT IGNORE, which would cut what is too long: that the key exists is an error, which is looked for.
        return f"INSERT INTO {into}"

    def upsert(self, into: str, key: str, *updates: str) -> str:  # noqa: ARG002 (any unique key counts)
        done = ", ".join(_NEW.sub(r"VALUES(\1)", _OLD.sub("", update)) for update in updates)
        return f"INSERT INTO {into} ON DUPLICATE KEY UPDATE {done}"

    def put_new(self, digest: bytes, count: int, values: tuple[object, ...]) -> Statement:  # noqa: ARG002 (see below)
        # an insertion that was refused ends the message, so that this is the id of the session
        return Statement(self._put_new(count), values)

    def _put_new_text(self, count: int) -> str:
        rows = ", ".join(["(LAST_INSERT_ID(), %s, %s, %s, %s, %s)"] * count)
        into = "INSERT INTO coatcheck_value (session, app, name, version, data, number)"
        return self.named(f"{into} VALUES {rows}")

    @property
    def migrations(self) -> tuple[Migration, ...]:
        return renamed(_MIGRATIONS, self.named)

    def table_exists(self, table: str) -> Statement:
        name = self.prefix + table
        return Statement(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND (table_name = %s OR (@@lower_case_table_names <> 0 AND LOWER(table_name) = %s))",
            (name, name.lower()),
            Wants.ROWS,
        )

    def column_exists(self, table: str, column: str) -> Statement:
        name = self.prefix + table
        return Statement(
            "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND (table_name = %s OR (@@lower_case_table_names <> 0 AND LOWER(table_name) = %s)) AND column_name = %s",
            (name, name.lower(), column),
            Wants.ROWS,
        )

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:
        return self._fast.single(digest, delta, now, version)

    def risk(self, settings: Row) -> str | None:
        """See `Dialect.risk`."""
        flush = settings[0]
        if flush == 1:
            return None
        when = "its machine crashes" if flush == _TO_THE_SYSTEM else "it crashes"
        return (
            f"innodb_flush_log_at_trx_commit is {flush}: the last second of sessions and logouts is lost where {when}"
        )

    def advice(self, settings: Row) -> list[str]:
        """See `Dialect.advice`."""
        _, log, sync, packet = settings
        found = []
        risk = self.risk(settings)
        if risk is not None:
            found.append(f"{risk}; set it to 1")
        if log and sync != 1:
            found.append(f"sync_binlog is {sync}: after a crash the replicas may have other sessions; set it to 1")
        if cast("int", packet) < _ROOMY:
            found.append(
                f"max_allowed_packet is {packet} bytes, and a value takes twice its size in a statement; set it to at"
                " least 16M"
            )
        return found

    def trouble(self, error: Exception) -> Trouble:
        number = number_of(error)
        if number is None or number in LOST:
            return Trouble.LOST
        if number in _CLASH:
            return Trouble.CLASH
        if number in _READ_ONLY:
            return Trouble.READ_ONLY
        return Trouble.MISSING if number in _MISSING else Trouble.OTHER

    def said(self, error: Exception) -> str:
        if isinstance(error, (TooLong, Unsuited)):
            return str(error.args[1])
        number = number_of(error)
        if number is None:
            return f"{type(error).__name__}: no answer that makes sense"
        return f"{_SAID.get(number, 'the server refused')} (error {number})"


def number_of(error: Exception) -> int | None:
    """Return the number of an error of the server's or the client library's, None if it has none."""
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None
