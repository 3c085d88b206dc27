"""What differs between the SQL servers, and every statement that they have in common.

The schema is that of SQLite: a session is one row and a value is one row, so that a write's size follows the change
and a rotation touches no value. `ends` is computed by the server whenever the row changes, so expiry and the liveness
of a write are one comparison in the statement that does the work. `prior` is the digest that a rotation replaced: it
works until `prior_until`, which is `NEVER` for as long as nobody presented its successor. A value is bytes in `data`
or a counter in `number`. Columns are not called `user` and `key`, which are words of one dialect or the other.
"""

# ruff: noqa: S608 (values are always parameters, and a prefix is letters, digits and underscores)

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import ClassVar, Final, Literal, NamedTuple

from coatcheck.drivers._migrations import Migration
from coatcheck.drivers.sql.statement import Row, Statement
from coatcheck.errors import ConfigurationError
from coatcheck.record import CLOCK_SKEW, Delta, ValueKey

__all__ = [
    "BY",
    "FIND_COLUMNS",
    "LOAD_COLUMNS",
    "By",
    "Dialect",
    "Single",
    "Statements",
    "Trouble",
    "check_prefix",
    "marks",
]

_LONGEST_PREFIX: Final = 40  # the servers cut names of tables and indexes at 63 or 64, and ours take 23
_TABLE: Final = re.compile(r"\bcoatcheck_\w+")


LOAD_COLUMNS: Final = (
    "s.sid, s.created, s.seen, s.deadline, s.idle, s.absolute, s.username, s.auth_time, s.rotated, s.prior_until,"
    " s.ends, s.note, v.app, v.name, v.version, v.data, v.number"
)
FIND_COLUMNS: Final = (
    "id, sid, created, seen, deadline, idle, absolute, username, auth_time, rotated, prior_until, ends, note, grace,"
    " digest, prior"
)


class Trouble(Enum):
    """What an error of the client library means to us."""

    LOST = "the server cannot be reached, gave no answer in time, or ended the connection: the outcome is unknown"
    CLASH = "the transaction was chosen as the victim of a deadlock and rolled back: it may be begun again"
    READ_ONLY = (
        "the server is not the primary and accepts no writes: nothing was done, and another server may accept them"
    )
    MISSING = "a table or a column does not exist"
    OTHER = "the server refused, and nothing was done"


class Single(NamedTuple):
    """One statement that does all of a Delta in a transaction of its own, or nothing.

    It gives one row where it did it, and none where it found nothing to change.

    Attributes:
        statement: The statement.
        counter: If set, the first column of the row is its new value.
    """

    statement: Statement
    counter: ValueKey | None = None


class Dialect(ABC):
    """One kind of server, and the tables with one prefix on it. Free of state, so that threads and tasks share it.

    Args:
        prefix: What the names of the tables start with.

    Attributes:
        name: The short name of the driver.
        title: The name of the server, for messages.
        errors: What the client library raises.
        lock: Ends a SELECT that locks its rows until the end of the transaction.
        bound: Follows the condition of a SELECT that locks, and keeps it from waiting longer than the transaction may.
        skip: The same, leaving out rows that others have locked.
        current: Ends a SELECT that a write depends on and that reads rows which it has not locked. On a server whose
            plain reads may be older than the transaction's locks it makes them current.
        all_rows: Ends a SELECT of several rows, before its lock, where a setting of the connection may cut them short.
        snapshot: Asks for the isolation level, on a server and a connection on which a DELETE may leave rows that are
            newer than the transaction; None elsewhere.
        migrations: What creates the tables and brings them up to date, step by step.
        load_columns: The columns of a session `s` and of a value `v`, as `_rows` has them or the client unpacks them.
        find_columns: The same of a session that is to be written.
        locks_indexes: Whether a locking read locks the entries of the index by which it finds its rows.
        ddl_is_transactional: Whether that can be part of a transaction.
        setup_lock: Keeps other creators out until the end of the transaction, or None if nobody minds them.
        begin: Begins a transaction of our own.
        sql: The statements.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    lock: ClassVar[str] = " FOR UPDATE"
    bound: str = ""
    skip: ClassVar[str] = " FOR UPDATE SKIP LOCKED"
    current: ClassVar[str]
    all_rows: ClassVar[str] = ""
    snapshot: Statement | None = None
    load_columns: ClassVar[str] = LOAD_COLUMNS
    find_columns: ClassVar[str] = FIND_COLUMNS
    locks_indexes: ClassVar[bool] = False
    ddl_is_transactional: ClassVar[bool]
    setup_lock: ClassVar[Statement | None] = None
    begin: ClassVar[Statement] = Statement("BEGIN", begins=True)

    def __init__(self, prefix: str) -> None:
        self.prefix: Final = check_prefix(prefix)
        self.sql: Final = Statements(self)

    # -- writing SQL

    def named(self, text: str) -> str:
        """Return *text* with the prefix before the names of our tables and indexes, and quotes around them."""
        return _TABLE.sub(lambda found: self.quoted(f"{self.prefix}{found[0]}"), text)

    @abstractmethod
    def quoted(self, name: str) -> str:
        """Return the name of a table with quotes around it."""

    @abstractmethod
    def insert_new(self, into: str, *, returning_id: bool = False) -> str:
        """Return a statement that inserts a row, or nothing if a key of it exists.

        It waits for another transaction that has inserted or deleted the same key until that one has ended.

        Args:
            into: All that follows INSERT INTO.
            returning_id: True if the id of the new row is wanted.
        """

    @abstractmethod
    def upsert(self, into: str, key: str, *updates: str) -> str:
        """Return a statement that inserts rows, and updates those whose *key* exists.

        Args:
            into: All that follows INSERT INTO.
            key: The columns of the key.
            updates: Assignments, where `old.column` is what is stored and `new.column` what would have been inserted.
        """

    @abstractmethod
    def put_new(self, digest: bytes, count: int, values: tuple[object, ...]) -> Statement:
        """Return what writes values of the session that the transaction has inserted just before, if it has.

        Args:
            digest: That of the session.
            count: The number of values.
            values: App, name, version, data and number of each.
        """

    @property
    @abstractmethod
    def migrations(self) -> tuple[Migration, ...]:
        """Return what creates the tables and their indexes and brings them up to date, step by step."""

    @abstractmethod
    def column_exists(self, table: str, column: str) -> Statement:
        """Return a statement that has a row if the table, given without prefix, has the column. It never fails."""

    @abstractmethod
    def table_exists(self, table: str) -> Statement:
        """Return a statement that has a row if the table, given without prefix, is there. It never fails."""

    # -- what a server can do better than the others

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:  # noqa: ARG002 (see below)
        """Return the statement that does all of *delta*, or None if it takes more than one.

        It must check in itself, against what is stored when it has its locks, that the session is alive under that
        very digest, that nobody waits for the digest to be confirmed (`prior_until` is under `NEVER`), and that every
        base version holds.

        Raises:
            CounterOverflow: A counter to put is outside 64 signed bits.
        """
        return None

    # -- the server's settings

    settings: ClassVar[Statement | None] = None
    """Asks for the settings that `risk` and `advice` judge, as one row."""

    def risk(self, settings: Row) -> str | None:  # noqa: ARG002 (for those that have settings)
        """Return why the server may lose sessions that it acknowledged, or None; see `Driver.at_risk`."""
        return None

    def advice(self, settings: Row) -> list[str]:  # noqa: ARG002 (for those that have settings)
        """Return a sentence for each setting that should be mended; see `Driver.advice`."""
        return []

    # -- reading errors

    @abstractmethod
    def trouble(self, error: Exception) -> Trouble:
        """Return what an error of the client library means; `OSError` and `TimeoutError` are `LOST` already."""

    @abstractmethod
    def said(self, error: Exception) -> str:
        """Return what the server said, without parameters, rows or a password, and what to do where that is known."""


By = Literal["digest", "prior"]
"""The column in which a digest is looked for."""

BY: Final[tuple[By, By]] = ("digest", "prior")


@cache
def marks(count: int, columns: int = 1) -> str:
    """Return the marks for *count* parameters, or for as many rows of *columns*."""
    row = "%s" if columns == 1 else f"({', '.join(['%s'] * columns)})"
    return ", ".join([row] * count)


class Statements:
    """The SQL text of what every dialect has in common, for the tables of one prefix."""

    def __init__(self, dialect: Dialect) -> None:
        sql = dialect.named
        skip, current, all_rows = dialect.skip, dialect.current, dialect.all_rows
        bound, lock = dialect.bound, dialect.lock
        self._dialect: Final = dialect
        load = (
            f"SELECT {dialect.load_columns} FROM coatcheck_session AS s LEFT JOIN coatcheck_value AS v"
            " ON v.session = s.id WHERE "
        )
        self._find = find = f"SELECT {dialect.find_columns} FROM coatcheck_session WHERE "

        self.meta = sql("SELECT name, content FROM coatcheck_meta")
        self.set_meta = sql(dialect.insert_new("coatcheck_meta (name, content) VALUES (%s, %s)"))
        self.drop_tables = sql(
            "DROP TABLE IF EXISTS coatcheck_session, coatcheck_value, coatcheck_ended, coatcheck_fence, coatcheck_meta"
        )

        # -- reading
        why_not = "SELECT reason, expires FROM coatcheck_ended WHERE digest = %s"
        by_ended = f"sid = (SELECT sid FROM coatcheck_ended WHERE digest = %s{current})"
        self.load = sql(load + "s.digest = %s" + all_rows)
        self.load_prior = sql(load + "s.prior = %s" + all_rows)
        self.load_heir = sql(load + "s.sid = (SELECT sid FROM coatcheck_ended WHERE digest = %s)" + all_rows)
        self.why_not = sql(why_not)
        self.of_user = sql(find + "username = %s ORDER BY created, id" + all_rows)
        self._alive = sql("SELECT sid FROM coatcheck_session WHERE ends > %s AND sid IN ")
        self.is_dirty = sql("""
            SELECT EXISTS (SELECT 1 FROM coatcheck_session WHERE ends <= %s)
                OR EXISTS (SELECT 1 FROM coatcheck_ended WHERE expires <= %s)
                OR EXISTS (SELECT 1 FROM coatcheck_fence WHERE expires <= %s)""")

        # -- reading inside a transaction, for a write
        self.find = sql(find + "digest = %s" + bound + lock)
        self.find_prior = sql(find + "prior = %s" + bound + lock)
        self.find_successor = sql(find + by_ended + bound + lock)
        self.why_not_now = sql(why_not + current)
        self.lock_user = sql(find + f"username = %s{bound} ORDER BY id" + all_rows + lock)
        self.peek = sql("SELECT username FROM coatcheck_session WHERE digest = %s OR prior = %s")
        # To file a digest the newest rows need not be seen, since unique keys refuse what comes too late; and the gap
        # where nothing is found must not be locked, or sessions that begin at the same moment run into a deadlock.
        self.taken = sql(f"({find}digest = %s) UNION ALL ({find}prior = %s)")
        # not with OR: where that is no use of two indexes, all rows would be locked
        self.filed = sql(f"({find}digest = %s{current}) UNION ALL ({find}prior = %s{current})")
        self.ended = sql("SELECT reason, expires FROM coatcheck_ended WHERE digest = %s" + bound + lock)
        self.fence = sql("SELECT moment FROM coatcheck_fence WHERE username = %s" + lock)
        of_session = f"session = (SELECT id FROM coatcheck_session WHERE {{}} = %s{current})"
        names = f"SELECT app, name FROM coatcheck_value WHERE {of_session}{all_rows}{current}"
        versions = (
            # not those that count as missing, since nothing in them makes sense
            f"SELECT app, name, version, number FROM coatcheck_value WHERE {of_session} AND version > 0"
            " AND (data IS NOT NULL OR number IS NOT NULL) AND (app, name) IN "
        )
        # by a digest, so that they can be sent with what locks the session
        self.names = {by: sql(names.format(by)) for by in BY}
        self._versions = {by: sql(versions.format(by)) for by in BY}
        self._all_rows = all_rows
        self._current = all_rows + current
        self.expired = sql(
            "SELECT id FROM coatcheck_session WHERE ends BETWEEN %s AND %s ORDER BY ends LIMIT %s" + skip
        )
        self.old_ended = sql("SELECT digest FROM coatcheck_ended WHERE expires <= %s ORDER BY expires LIMIT %s" + skip)
        self.old_fences = sql(
            "SELECT username FROM coatcheck_fence WHERE expires <= %s ORDER BY expires LIMIT %s" + skip
        )

        self._prepare_writing(dialect)

    def _prepare_writing(self, dialect: Dialect) -> None:
        sql = dialect.named
        self.create = sql(
            dialect.insert_new(
                "coatcheck_session (sid, digest, created, seen, deadline, idle, absolute, username, auth_time, rotated,"
                f" prior_until, grace, note) VALUES {marks(1, 13)}",
                returning_id=True,
            )
        )
        self.update = sql("""
            UPDATE coatcheck_session SET
                seen = GREATEST(seen, COALESCE(%s, seen)), deadline = COALESCE(%s, deadline),
                username = COALESCE(%s, username), auth_time = COALESCE(%s, auth_time), note = COALESCE(%s, note),
                prior_until = %s
            WHERE id = %s""")
        self.rotate = sql("""
            UPDATE coatcheck_session SET digest = %s, prior = %s, prior_until = %s, grace = %s, rotated = %s
            WHERE id = %s""")
        self._delete = sql("DELETE FROM coatcheck_session WHERE id IN ")
        self._clear = sql("DELETE FROM coatcheck_value WHERE session IN ")
        self._clear_apps = sql("DELETE FROM coatcheck_value WHERE session = %s AND app IN ")
        self._drop = sql("DELETE FROM coatcheck_value WHERE session = %s AND (app, name) IN ")
        self._forget_ended = sql("DELETE FROM coatcheck_ended WHERE digest IN ")
        self._forget_fences = sql("DELETE FROM coatcheck_fence WHERE username IN ")
        self.guard = sql(
            dialect.insert_new("coatcheck_ended (digest, reason, expires, sid) VALUES (%s, 'unknown', 0, NULL)")
        )
        # Not by `expires`, which has an index: a server that chose that one would lock the guards of others with it.
        self.unguard = sql("DELETE FROM coatcheck_ended WHERE digest = %s AND reason = 'unknown'")
        into_fence = "coatcheck_fence (username, moment, expires) VALUES (%s, %s, %s)"
        wrong = (
            f"new.moment > 0 AND old.moment > new.moment + {CLOCK_SKEW}"  # 0 comes from a log-in, and raises nothing
        )
        moment = f"CASE WHEN {wrong} THEN new.moment ELSE GREATEST(old.moment, new.moment) END"
        later = (f"moment = {moment}", "expires = GREATEST(old.expires, new.expires)")
        self.raise_fence = sql(dialect.upsert(into_fence, "username", *later))
        self.end = cache(self._end)
        self.put = cache(self._put)

    # -- those with any number of parameters

    def alive(self, sids: Sequence[str], now: float) -> tuple[str, tuple[object, ...]]:
        """Return the statement that finds the live sessions among *sids*, and its parameters."""
        return f"{self._alive}({marks(len(sids))}){self._all_rows}", (now, *sids)

    def of_sids(self, sids: Sequence[str]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that finds the sessions with some sids, and its parameters."""
        return self._dialect.named(f"{self._find}sid IN ({marks(len(sids))}){self._all_rows}"), tuple(sids)

    def lock_sids(self, sids: Sequence[str]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that locks the sessions with some sids, by rising id, and its parameters."""
        dialect = self._dialect
        text = f"{self._find}sid IN ({marks(len(sids))}){dialect.bound} ORDER BY id{self._all_rows}{dialect.lock}"
        return dialect.named(text), tuple(sids)

    def versions(self, by: By, digest: bytes, names: Sequence[ValueKey]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that finds version and counter of some values, and its parameters.

        Args:
            by: Whether *digest* is the session's current or its prior one.
            digest: Names the session, which is locked.
            names: Those of the values.
        """
        text = f"{self._versions[by]}({marks(len(names), 2)}){self._current}"
        return text, (digest, *(part for name in names for part in name))

    def lock_digests(self, digests: Sequence[bytes]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that locks the sessions under some digests, and its parameters.

        Not with IN, which looks through a range of the index, and may lock the gaps in it.
        """
        return " UNION ALL ".join([f"({self.find})"] * len(digests)), tuple(digests)

    def drop(self, session: object, names: Sequence[ValueKey]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes some values, and its parameters."""
        return f"{self._drop}({marks(len(names), 2)})", (session, *(part for name in names for part in name))

    def clear(self, sessions: Sequence[object]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes all values of some sessions, and its parameters."""
        return f"{self._clear}({marks(len(sessions))})", tuple(sessions)

    def clear_apps(self, session: object, apps: Sequence[str]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes the values of some apps, and its parameters."""
        return f"{self._clear_apps}({marks(len(apps))})", (session, *apps)

    def delete(self, sessions: Sequence[object]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes some sessions, and its parameters."""
        return f"{self._delete}({marks(len(sessions))})", tuple(sessions)

    def forget_ended(self, digests: Sequence[object]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes some tombstones, and its parameters."""
        return f"{self._forget_ended}({marks(len(digests))})", tuple(digests)

    def forget_fences(self, users: Sequence[object]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes some fences, and its parameters."""
        return f"{self._forget_fences}({marks(len(users))})", tuple(users)

    def _end(self, count: int) -> str:
        """Return the statement that leaves *count* tombstones: digest, reason, until, sid of each."""
        into = f"coatcheck_ended (digest, reason, expires, sid) VALUES {marks(count, 4)}"
        updates = ("reason = new.reason", "expires = new.expires", "sid = new.sid")
        return self._dialect.named(self._dialect.upsert(into, "digest", *updates))

    def _put(self, count: int) -> str:
        """Return the statement that writes *count* values: session, app, name, version, data, number of each."""
        into = f"coatcheck_value (session, app, name, version, data, number) VALUES {marks(count, 6)}"
        updates = ("version = new.version", "data = new.data", "number = new.number")
        return self._dialect.named(self._dialect.upsert(into, "session, app, name", *updates))


def check_prefix(prefix: str) -> str:
    """Return *prefix* if it can start the name of a table.

    Raises:
        ConfigurationError: It has other characters than ASCII letters, digits and underscores, or is too long.
    """
    if re.fullmatch(rf"[A-Za-z0-9_]{{0,{_LONGEST_PREFIX}}}", prefix) is None:
        raise ConfigurationError(
            f"the table prefix {prefix!r} may only have ASCII letters, digits and underscores,"
            f" {_LONGEST_PREFIX} of them at most"
        )
    return prefix
