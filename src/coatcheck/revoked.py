"""The last revocation of a user by this very thread or task, for a log-in of the same request.

A log-in is dated when its request came, so that a revocation after that moment refuses it: whoever is still under way
proved who they are before it. A request that itself revokes a user and logs that user in is another matter (a new
password is set, say): there the log-in comes after the revocation, by the program's own order.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import NamedTuple

__all__ = ["Revocations"]


class _Revocation(NamedTuple):
    user: str
    moment: float
    keep: str | None

    @property
    def after(self) -> float:
        """The first moment after it."""
        return math.nextafter(self.moment, math.inf)


class Revocations:
    """The revocations that one manager was asked for."""

    def __init__(self) -> None:
        self._last: ContextVar[_Revocation | None] = ContextVar("coatcheck_revocation", default=None)

    def note(self, user: str, moment: float, keep: str | None) -> None:
        """Remember that all sessions of *user* were ended at *moment*, but the one with the sid *keep*."""
        self._last.set(_Revocation(user, moment, keep))

    def login_moment(self, user: str, opened: float) -> float:
        """Give the moment of a log-in that is asked for now, in a request that came at *opened*."""
        last = self._last.get()
        return last.after if last is not None and last.user == user and last.moment >= opened else opened

    def settled_moment(self, user: str, moment: float, sid: str | None, opened: float, now: float) -> float:
        """Give the moment of a log-in as it is to be stored.

        It also stands where this request has revoked the user since, and asked to keep this very session.

        Args:
            user: Who logs in.
            moment: What `login_moment` gave.
            sid: The session's name, or None where it is new.
            opened: When the request came.
            now: The present moment.
        """
        last = self._last.get()
        if last is not None and sid is not None and (last.user, last.keep) == (user, sid) and last.moment >= moment:
            moment = last.after
        # A clock that was set back meanwhile makes an older request's revocation look like one of this request.
        return moment if moment <= math.nextafter(now, math.inf) else opened
