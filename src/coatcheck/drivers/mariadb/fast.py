"""Small changes as one statement, which checks that the session lives and is committed automatically.

What such a statement cannot tell apart (the session is gone, the version is another, the counter is none) it leaves
undone, and the general path says why.
"""

# ruff: noqa: S608 (values are always parameters, and a prefix is letters, digits and underscores)

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from coatcheck.drivers._rules import checked
from coatcheck.drivers.sql.dialect import Single, marks
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

__all__ = ["Fast"]

# A token that comes from a rotation and is not confirmed takes the general path, which confirms it. The session is
# locked, shared with other writers: otherwise READ COMMITTED would look at it without, and a value could be written
# after the session was removed. A change with activity that is due to be recorded takes the general path, too.
_TOUCHED: Final = f"seen + LEAST({MAX_TOUCH_INTERVAL!r}, idle / {TOUCHES_PER_IDLE}) > %s"
_ALIVE: Final = f"digest = %s AND ends > %s AND prior_until < {NEVER!r} AND {_TOUCHED}"
_LIVE: Final = f"FROM coatcheck_session WHERE {_ALIVE} LOCK IN SHARE MODE"
_MOST: Final = 100  # values of one statement
# bytes of each: of a literal of 65536 or more in a UNION, MariaDB keeps what is left after division by that
_LONGEST: Final = 1 << 15
_NO_TOUCH: Final = -1.0  # the moment of no activity at all: it is never due
_INTO: Final = "INSERT INTO coatcheck_value (session, app, name, version, data, number) SELECT id, "
_INSERT: Final = f"{_INTO}{{}} {_LIVE}"
_UPDATE: Final = " ON DUPLICATE KEY UPDATE version = VALUES(version), data = VALUES(data), number = VALUES(number)"
_THE_VALUE: Final = f" WHERE session = (SELECT id {_LIVE}) AND app = %s AND name = %s AND version = %s"


class Fast:
    """The statements for the tables of one prefix.

    Args:
        sql: Puts the prefix before the names of the tables.
    """

    def __init__(self, sql: Callable[[str], str]) -> None:
        insert = _INSERT.format(marks(5))
        self.put: Final = sql(insert + _UPDATE)
        self.puts: Final = cache(lambda count: sql(_puts_text(count)))
        self.put_absent: Final = sql(insert)
        self.put_based: Final = sql("UPDATE coatcheck_value SET version = %s, data = %s, number = %s" + _THE_VALUE)
        self.drop: Final = sql("DELETE FROM coatcheck_value" + _THE_VALUE)
        self.touch: Final = sql(
            "UPDATE coatcheck_session SET seen = GREATEST(seen, %s)"
            f" WHERE digest = %s AND ends > %s AND prior_until < {NEVER!r}"
        )
        # MySQL has no RETURNING: the sum comes back as what the server calls the id of the new row. If the value is
        # no counter, or counts as missing, the version is out of range, and that is an error.
        self.increment: Final = sql(
            _INSERT.format("%s, %s, %s, NULL, CAST(LAST_INSERT_ID(%s) AS SIGNED)")
            + " ON DUPLICATE KEY UPDATE version = IF(number IS NULL OR version = 0, -1, VALUES(version)),"
            " number = CAST(LAST_INSERT_ID(number + VALUES(number)) AS SIGNED)"
        )

    def single(self, digest: bytes, delta: Delta, now: float, version: int) -> Single | None:
        """See `Dialect.single`."""
        if (
            delta.clears
            or delta.clear_all
            or delta.user is not None
            or delta.auth_time is not None
            or delta.deadline is not None
            or delta.note is not None
        ):
            return None
        values = len(delta.puts) + len(delta.drops) + len(delta.increments)
        touches = delta.touch is not None and not delta.if_due
        if touches:
            return None if values else Single(Statement(self.touch, (delta.touch, digest, now)))
        live = (digest, now, _NO_TOUCH if delta.touch is None else delta.touch)
        if values == 1:
            return self._one(live, delta, version)
        return self._many(live, delta, version) if 1 < len(delta.puts) == values <= _MOST else None

    def _one(self, live: tuple[object, ...], delta: Delta, version: int) -> Single | None:
        """Return the statement that changes one value."""
        for name, amount in delta.increments.items():
            if not COUNTER_MIN <= amount <= COUNTER_MAX:
                return None
            return Single(Statement(self.increment, (*name, version, amount, *live)), name)
        for name, base in delta.drops.items():
            return Single(Statement(self.drop, (*live, *name, base))) if base else None
        ((name, put),) = delta.puts.items()
        content = _columns(name, put)
        if put.base is not None and put.base != ABSENT:
            return Single(Statement(self.put_based, (version, *content, *live, *name, put.base)))
        text = self.put if put.base is None else self.put_absent
        return Single(Statement(text, (*name, version, *content, *live)))

    def _many(self, live: tuple[object, ...], delta: Delta, version: int) -> Single | None:
        """Return the statement that writes several values, or None if that depends on what is there."""
        if any(put.base is not None for put in delta.puts.values()):
            return None
        contents = [(name, _columns(name, put)) for name, put in delta.puts.items()]
        if any(len(data or b"") > _LONGEST for _, (data, _) in contents):
            return None
        rows = (part for name, content in contents for part in (*name, version, *content))
        return Single(Statement(self.puts(len(contents)), (*rows, *live)))


def _puts_text(count: int) -> str:
    """Return the statement that writes *count* values. It locks out other writers of the session to avoid deadlocks."""
    first = "SELECT %s AS app, %s AS name, %s AS version, %s AS data, %s AS number"
    rows = " UNION ALL ".join([first, *[f"SELECT {marks(5)}"] * (count - 1)])
    return f"{_INTO}given.* FROM coatcheck_session, ({rows}) AS given WHERE {_ALIVE} FOR UPDATE{_UPDATE}"


def _columns(name: ValueKey, put: Put) -> tuple[bytes | None, int | None]:
    """Return what the columns `data` and `number` are to hold."""
    data = checked(name, put)
    return (None, data) if isinstance(data, int) else (data, None)
