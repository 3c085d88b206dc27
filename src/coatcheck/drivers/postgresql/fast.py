"""Ordinary changes as one statement, which checks that the session lives and does the work in one round trip.

A statement of PostgreSQL's sees what was committed when it began. A row that another transaction changed since is
waited for when it is locked or written, and judged again as it is then; but a row that is only read is not. So each
statement here locks the session's row first (in the part named `s`), from which all else follows, and compares a
version nowhere but in the row that it writes. Several base versions could not be compared so without writing some and
not others: those take the general path, as does what a statement here found nothing to do for.

Such a statement is not to wait for a lock without end, which the limit of a transaction does not cover, and what a
client sets when it connects does not pass PgBouncer. So it sets its own limit, in the condition that finds the row.
"""

# ruff: noqa: S608 (values are always parameters, and a prefix is letters, digits and underscores)

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from coatcheck.drivers._rules import checked
from coatcheck.drivers.sql.dialect import Single
from coatcheck.drivers.sql.statement import Statement
from coatcheck.record import (
    ABSENT,
    COUNTER_MAX,
    COUNTER_MIN,
    MAX_TOUCH_INTERVAL,
    NEVER,
    TOUCHES_PER_IDLE,
    Delta,
    Put,
    ValueKey,
)

__all__ = ["INTO", "PATIENCE", "ROW", "Fast", "bound_in_transaction", "with_limit"]

MOST: Final = 100
"""Values of one statement."""

PATIENCE: Final = 0.8
"""The part of the time that is left after which the server gives up: it can say that nothing was done, we could not."""

# A token that comes from a rotation and is not confirmed takes the general path, which confirms it.
_LIVE: Final = f"digest = %s AND ends > %s AND prior_until < {NEVER!r}/*limit*/"
_LIMIT: Final = " AND set_config('lock_timeout', (/*ms*/{})::text, TRUE) <> ''"
_LIMITED: Final = re.compile(r"(?<=/\*ms\*/)\d+")
_PASSED: Final = "(EXTRACT(EPOCH FROM clock_timestamp() - transaction_timestamp()) * 1000)::int"
# So does activity that is due to be recorded with a change. If it is not, the session's row is left as it is, which
# spares the server a new version of it and of the index by its end.
_TOUCHED: Final = f"seen + LEAST({MAX_TOUCH_INTERVAL!r}, idle / {TOUCHES_PER_IDLE}) > %s"
_NO_TOUCH: Final = -1.0  # the moment of no activity at all: it is never due
_LOCK: Final = f"WITH s AS (SELECT id FROM coatcheck_session WHERE {_LIVE} AND {_TOUCHED} FOR UPDATE)"
_SEEN: Final = "seen = GREATEST(seen, COALESCE(%s::float8, seen)), deadline = COALESCE(%s::float8, deadline)"
_TOUCH: Final = f"UPDATE coatcheck_session SET {_SEEN} WHERE {_LIVE} RETURNING id"
INTO: Final = "INSERT INTO coatcheck_value AS v (session, app, name, version, data, number)"
ROW: Final = "(%s::text, %s::text, %s::bigint, %s::bytea, %s::bigint)"
"""A value: app, name, version, data, number."""

_ONE: Final = f"{INTO} SELECT s.id, g.* FROM s, (VALUES {ROW}) AS g"
_KEY: Final = "ON CONFLICT (session, app, name)"
_NEW: Final = "SET version = excluded.version, data = excluded.data, number = excluded.number"
_WHERE: Final = "WHERE v.session = s.id AND v.app = %s AND v.name = %s AND v.version = %s"

_PUT_ABSENT: Final = f"{_ONE} {_KEY} DO NOTHING RETURNING v.session, v.number"
_SET: Final = "SET version = %s, data = %s, number = %s"
_PUT_BASED: Final = f"UPDATE coatcheck_value AS v {_SET} FROM s {_WHERE} RETURNING v.session, v.number"
_DROP: Final = f"DELETE FROM coatcheck_value AS v USING s {_WHERE} RETURNING v.session, v.number"
_INCREMENT: Final = f"""{_ONE} {_KEY} DO UPDATE SET version = excluded.version, number = v.number + excluded.number
    WHERE v.version > 0 AND v.number BETWEEN %s AND %s RETURNING v.session, v.number"""


def bound_in_transaction(milliseconds: int) -> str:
    """Return a condition that bounds the wait for a lock by what is left of *milliseconds* since the transaction began.

    Statements that are sent together may wait for one lock after another, and the client cannot set a new limit for
    each of them.
    """
    return f" AND set_config('lock_timeout', GREATEST(1, /*ms*/{milliseconds} - {_PASSED})::text, TRUE) <> ''"


def with_limit(text: str, milliseconds: str) -> str:
    """Return a statement that waits for a lock no longer than that, if there is a limit in it."""
    return _LIMITED.sub(milliseconds, text)


class Fast:
    """The statements for the tables of one prefix.

    Args:
        named: Puts the prefix before the names of the tables.
        limit: The milliseconds that a statement may wait for a lock. None for the application's own limit, in its
            transaction, which ours would change until its end.
    """

    def __init__(self, named: Callable[[str], str], limit: int | None) -> None:
        bound = "" if limit is None else _LIMIT.format(limit)

        def limited(text: str) -> str:
            return named(text.replace("/*limit*/", bound))

        self._named: Final = limited
        self._touch: Final = self._named(_TOUCH)
        self._puts: Final = cache(self._puts_text)
        self._work: Final = cache(self._work_text)

    def _puts_text(self, count: int, *, touches: bool) -> str:
        """Return the statement that writes *count* values whatever was there."""
        head = f"WITH s AS ({_TOUCH})" if touches else _LOCK
        rows = ", ".join([ROW] * count)
        values = f"{INTO} SELECT s.id, g.* FROM s, (VALUES {rows}) AS g {_KEY} DO UPDATE {_NEW}"
        return self._named(f"{head}, w AS ({values}) SELECT id FROM s")

    def _work_text(self, work: str, *, touches: bool) -> str:
        """Return the statement that changes one value, and then records activity; its row begins with the number."""
        tail = "SELECT number FROM w"
        if touches:
            tail = f"UPDATE coatcheck_session SET {_SEEN} FROM w WHERE id = w.session RETURNING w.number"
        return self._named(f"{_LOCK}, w AS ({work}) {tail}")

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:
        """See `Dialect.single`."""
        if (
            delta.clears
            or delta.clear_all
            or delta.user is not None
            or delta.auth_time is not None
            or delta.note is not None
        ):
            return None
        touches = delta.deadline is not None or (delta.touch is not None and not delta.if_due)
        seen = (delta.touch, delta.deadline) if touches else ()
        live = (digest, now)
        lock = (*live, _NO_TOUCH if touches or delta.touch is None else delta.touch)
        kinds = bool(delta.puts) + bool(delta.drops) + bool(delta.increments)
        if kinds == 0:
            return Single(Statement(self._touch, (*seen, *live))) if touches else None
        if kinds > 1 or len(delta.puts) > MOST or len(delta.drops) > 1 or len(delta.increments) > 1:
            return None
        if delta.puts and all(put.base is None for put in delta.puts.values()):
            text = self._puts(len(delta.puts), touches=touches)
            rows = (part for name, put in delta.puts.items() for part in (*name, version, *_columns(name, put)))
            return Single(Statement(text, (*seen, *live, *rows) if touches else (*lock, *rows)))
        if len(delta.puts) > 1:
            return None
        work = _work_of(delta, version)
        if work is None:
            return None
        text = self._work(work.text, touches=touches)
        return Single(Statement(text, (*lock, *work.parameters, *seen)), work.counter)


class _Work(NamedTuple):
    """The part of a statement that changes one value."""

    text: str
    parameters: tuple[object, ...]
    counter: ValueKey | None = None


def _work_of(delta: Delta, version: int) -> _Work | None:
    """Return what changes the one value that *delta* names, or None for the general path."""
    for name, put in delta.puts.items():
        if put.base == ABSENT:
            return _Work(_PUT_ABSENT, (*name, version, *_columns(name, put)))
        return _Work(_PUT_BASED, (version, *_columns(name, put), *name, put.base))
    for name, base in delta.drops.items():
        return _Work(_DROP, (*name, base)) if base else None
    for name, amount in delta.increments.items():
        if COUNTER_MIN <= amount <= COUNTER_MAX:
            # only what cannot overflow is added there, since an overflow would be an error of the statement
            bounds = (max(COUNTER_MIN, COUNTER_MIN - amount), min(COUNTER_MAX, COUNTER_MAX - amount))
            return _Work(_INCREMENT, (*name, version, None, amount, *bounds), name)
    return None


def _columns(name: ValueKey, put: Put) -> tuple[bytes | None, int | None]:
    """Return what the columns `data` and `number` are to hold."""
    data = checked(name, put)
    return (None, data) if isinstance(data, int) else (data, None)
