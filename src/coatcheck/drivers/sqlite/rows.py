"""Rows of the database as records. A row that another program spoilt is recognized, and never raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from coatcheck.drivers._rules import prior_state
from coatcheck.record import NEVER, Missing, Name, Reason, Record, SessionInfo, Value

__all__ = ["Found", "found_in", "record_in", "value_in"]

Row = tuple[Any, ...]


class Found(NamedTuple):
    """A session's row, without its values, as a write needs it."""

    id: int
    info: SessionInfo
    digest: bytes
    rotated: float
    prior: bytes | None
    prior_until: float
    grace: float
    by_prior: bool

    @property
    def is_fresh(self) -> bool:
        """True where the digest asked for is a successor that nobody presented yet."""
        return not self.by_prior and self.prior_until == NEVER


new_value: Final = tuple.__new__  # a NamedTuple's own constructor takes three times as long


def _is_sound(row: Row) -> bool:
    """Tell whether the columns from `sid` to `ends` have the types that we wrote."""
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until, ends = row
    return (
        type(sid) is str
        and (
            float
            is type(created)
            is type(seen)
            is type(deadline)
            is type(idle)
            is type(absolute)
            is type(rotated)
            is type(until)
            is type(ends)
        )
        and (user is None or type(user) is str)
        and (auth_time is None or type(auth_time) is float)
    )


def record_in(rows: Sequence[Row], digest: bytes, now: float, *, stale: bool) -> Record | Missing:
    """Give the session in *rows* of the statement `load`, or why it is none.

    A value of a wrong type is left out: to the application it is missing, and its next write replaces it.
    """
    values: dict[Name, Value] = {}
    for row in rows:
        app, key, version, data = row[11:]
        if (
            (type(data) is bytes or type(data) is int)
            and type(version) is int
            and version > 0
            and type(app) is str
            and type(key) is str
        ):
            values[app, key] = new_value(Value, (data, version))
    head = rows[0][:11]
    if not _is_sound(head):
        return Missing(Reason.UNREADABLE)
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until, ends = head
    if ends <= now:
        return Missing(Reason.EXPIRED)
    if stale and (reason := prior_state(until, now)) is not None:
        return Missing(reason)
    return Record(
        sid=sid,
        created=created,
        seen=seen,
        deadline=deadline,
        idle=idle,
        absolute=absolute,
        user=user,
        auth_time=auth_time,
        digest=digest,
        values=values,
        rotated=rotated,
        fresh=not stale and until == NEVER,
        stale=stale,
    )


def found_in(row: Row, *, by_prior: bool) -> Found | None:
    """Give the session in a row of the statement `find`, or None where the row makes no sense."""
    ident, grace, digest, prior = row[0], row[12], row[13], row[14]
    if not _is_sound(row[1:12]) or type(grace) is not float or type(digest) is not bytes:
        return None
    if prior is not None and type(prior) is not bytes:
        return None
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until = row[1:11]
    info = SessionInfo(
        sid=sid,
        created=created,
        seen=seen,
        deadline=deadline,
        idle=idle,
        absolute=absolute,
        user=user,
        auth_time=auth_time,
    )
    return Found(ident, info, digest, rotated, prior, until, grace, by_prior)


def value_in(row: Row | None) -> Value | None:
    """Give the value in a row of (version, data), or None where there is none that makes sense."""
    if row is None:
        return None
    version, data = row
    if type(version) is not int or version <= 0 or (type(data) is not int and type(data) is not bytes):
        return None
    return Value(data, version)
