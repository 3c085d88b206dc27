"""Rows of the SQL engines as records. A row that another program spoilt is recognized, and never raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from coatcheck.drivers._rules import prior_state
from coatcheck.record import NEVER, Missing, Reason, Record, SessionInfo, Value, ValueKey

__all__ = ["Found", "Rotation", "Row", "found_in", "planned", "record_of"]

Row = Sequence[Any]


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
        """True if the digest asked for is a successor that nobody presented yet."""
        return not self.by_prior and self.prior_until == NEVER


def _is_sound(row: Row) -> bool:
    """Check whether the columns from `sid` to `note` have the types that coatcheck writes."""
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until, ends, note = row
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
        and (note is None or type(note) is bytes)
    )


def record_of(
    head: Row, values: Mapping[ValueKey, Value], digest: bytes, now: float, *, stale: bool
) -> Record | Missing:
    """Return the session of a row, or why it is none.

    Args:
        head: The columns from `sid` to `note`.
        values: Its values.
        digest: The digest that was asked for.
        now: The present moment.
        stale: True if the digest was found as one that has a successor.
    """
    if not _is_sound(head):
        return Missing(Reason.UNREADABLE)
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until, ends, note = head
    if ends <= now:
        return Missing(Reason.EXPIRED)
    if stale and (reason := prior_state(until, now)) is not None:
        return Missing(reason, ended=until)
    return Record(
        sid=sid,
        created=created,
        seen=seen,
        deadline=deadline,
        idle=idle,
        absolute=absolute,
        user=user,
        auth_time=auth_time,
        note=note or b"",
        digest=digest,
        values=values,
        rotated=rotated,
        fresh=not stale and until == NEVER,
        stale=stale,
    )


def found_in(row: Row, *, by_prior: bool) -> Found | None:
    """Return the session in a row of the statement `find`, or None if the row makes no sense."""
    ident, grace, digest, prior = row[0], row[13], row[14], row[15]
    if not _is_sound(row[1:13]) or type(grace) is not float or type(digest) is not bytes:
        return None
    if prior is not None and type(prior) is not bytes:
        return None
    sid, created, seen, deadline, idle, absolute, user, auth_time, rotated, until, _, note = row[1:13]
    info = SessionInfo(
        sid=sid,
        created=created,
        seen=seen,
        deadline=deadline,
        idle=idle,
        absolute=absolute,
        user=user,
        auth_time=auth_time,
        note=note or b"",
    )
    return Found(ident, info, digest, rotated, prior, until, grace, by_prior)


class Rotation(NamedTuple):
    """What a rotation writes, besides the new digest."""

    prior: bytes | None
    until: float
    dead: tuple[tuple[bytes, float], ...]  # digests that end, with the moment


def planned(found: Found, old: bytes, grace: float, now: float) -> Rotation:
    """Decide what becomes of the session's digests when *old* gets a (new) successor."""
    other = found.digest if found.by_prior else found.prior
    other_end = now
    if not found.by_prior and found.prior_until < now:
        other_end = found.prior_until  # it was dead already
    dead = [] if other is None else [(other, other_end)]
    if grace > 0:
        return Rotation(old, NEVER, tuple(dead))
    return Rotation(None, 0.0, ((old, now), *dead))
