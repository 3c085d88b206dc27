"""The last revocation of a user by this very thread or task, for a log-in of the same request.

A log-in is dated when its request came, so that a revocation after that moment refuses it: the user of a request in
progress proved their identity before it. A request that itself revokes a user and then logs that user in is different,
for example when it sets a new password: there the program's own order puts the log-in after the revocation.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["Revocation", "Revocations"]

_ROUNDING: Final = 0.001
"""Seconds by which a moment may differ after storage did sums with it."""


class Revocation(NamedTuple):
    """All sessions of *user* were ended at *moment*, but the one with the sid *keep*."""

    user: str
    moment: float
    keep: str | None

    def is_end(self, ended: float) -> bool:
        """Check whether a session that ended at *ended*, as storage tells it, was ended by this revocation."""
        return abs(self.moment - ended) < _ROUNDING

    @property
    def after(self) -> float:
        """The first moment after it."""
        return math.nextafter(self.moment, math.inf)


class Revocations:
    """The revocations that one manager was asked for.

    Attributes:
        count: How many there were, in all threads. A session that has looked at that count need not look again.
    """

    def __init__(self) -> None:
        self._last: ContextVar[Revocation | None] = ContextVar("coatcheck_revocation", default=None)
        self.count = 0

    def note(self, user: str, moment: float, keep: str | None) -> Revocation:
        """Remember that all sessions of *user* were ended at *moment*, but the one with the sid *keep*; return that."""
        revocation = Revocation(user, moment, keep)
        self._last.set(revocation)
        self.count += 1
        return revocation

    def since(self, opened: float) -> Revocation | None:
        """Return the last revocation by this thread or task, if a request that came at *opened* made it."""
        last = self._last.get()
        return last if last is not None and last.moment >= opened else None

    def login_moment(self, user: str, opened: float) -> float:
        """Return the moment of a log-in that is asked for now, in a request that came at *opened*."""
        last = self._last.get()
        return last.after if last is not None and last.user == user and last.moment >= opened else opened

    def settled_moment(
        self, user: str, moment: float, sid: str | None, opened: float, now: float, spared: Revocation | None
    ) -> float:
        """Return the moment of a log-in as it is to be stored.

        It also stands where this request has revoked the user since, and asked to keep this very session.

        Args:
            user: Who logs in.
            moment: What `login_moment` gave.
            sid: The session's name, or None if it is new.
            opened: When the request came.
            now: The present moment.
            spared: The last revocation that was given this very session to keep, by whatever thread or task.
        """
        last = self._last.get()
        if spared is not None and (last is None or last.user != user or last.moment < spared.moment):
            last = spared
        if last is not None and sid is not None and (last.user, last.keep) == (user, sid) and last.moment >= moment:
            moment = last.after
        # A clock that was set back meanwhile makes an older request's revocation look like one of this request.
        return moment if moment <= math.nextafter(now, math.inf) else opened
