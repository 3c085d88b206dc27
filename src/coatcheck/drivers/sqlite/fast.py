"""Small changes as one statement, which checks that the session lives and does the work in a transaction of its own.

One statement needs the database's lock for a fraction of the time that a transaction of five does. What it cannot tell
apart (the session is gone, the version is another, the counter is none) it leaves undone, and the general path says
why.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from coatcheck.drivers._rules import checked
from coatcheck.drivers.sqlite.schema import NO_TOUCH, SQLiteStatements
from coatcheck.record import ABSENT, COUNTER_MAX, COUNTER_MIN, Delta, ValueKey

__all__ = ["OneStatement", "single"]

_HAS_RETURNING: Final = sqlite3.sqlite_version_info >= (3, 35, 0)


class OneStatement(NamedTuple):
    """One statement that does all of a Delta, or nothing."""

    text: str
    parameters: Sequence[object]
    counter: ValueKey | None = None  # where set, the one row that comes back holds its new value


def single(sql: SQLiteStatements, digest: bytes, delta: Delta, now: float, version: int) -> OneStatement | None:
    """Return the statement that does all of *delta*, or None if it takes more than one.

    Raises:
        CounterOverflow: A counter to put is outside 64 signed bits.
    """
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
    if values + (delta.touch is not None and not delta.if_due) != 1:
        return None
    if not values:
        return OneStatement(sql.fast_touch, (delta.touch, digest, now, NO_TOUCH))
    live = (digest, now, NO_TOUCH if delta.touch is None else delta.touch)
    if delta.puts:
        return _put(sql, live, delta, version)
    if delta.increments:
        return _increment(sql, live, delta, version)
    ((name, base),) = delta.drops.items()
    return OneStatement(sql.fast_drop, (*live, *name, base)) if base else None


def _put(sql: SQLiteStatements, live: Sequence[object], delta: Delta, version: int) -> OneStatement:
    ((name, put),) = delta.puts.items()
    data = checked(name, put)
    if put.base is not None and put.base != ABSENT:
        return OneStatement(sql.fast_put_based, (version, data, *live, *name, put.base))
    text = sql.fast_put if put.base is None else sql.fast_put_absent
    return OneStatement(text, (*name, version, data, *live))


def _increment(sql: SQLiteStatements, live: Sequence[object], delta: Delta, version: int) -> OneStatement | None:
    ((name, amount),) = delta.increments.items()
    if not _HAS_RETURNING or not COUNTER_MIN <= amount <= COUNTER_MAX:
        return None
    # SQLite turns a sum that overflows into a float silently: only what cannot overflow is added there
    lowest, highest = max(COUNTER_MIN, COUNTER_MIN - amount), min(COUNTER_MAX, COUNTER_MAX - amount)
    return OneStatement(sql.fast_increment, (*name, version, amount, *live, lowest, highest), name)
