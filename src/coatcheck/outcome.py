"""What the answers of a driver mean for a session and for the response. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from coatcheck.cookie import MAX_AGE, deletions_of_others, set_cookie
from coatcheck.errors import DriverUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.record import (
    CLOCK_SKEW,
    NEVER,
    REPLY_TIME,
    Committed,
    Delta,
    Missing,
    Reason,
    Record,
    SessionInfo,
)
from coatcheck.state import State
from coatcheck.token import Token

__all__ = [
    "READ",
    "Saved",
    "committed",
    "failed",
    "fulfilled",
    "interrupted",
    "is_late",
    "issue",
    "loaded",
    "login_refused",
    "lost",
    "missing",
    "not_found",
    "reply",
    "unsaved",
    "written",
]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save means for the response.

    Attributes:
        set_cookie: The value of the Set-Cookie header that brings the cookie or deletes it, or None for none at all.
        vary: True where the response depends on the session, so that caches have to tell users apart.
        deletions: The values of further Set-Cookie headers, to be sent before it: where the client sent several cookies
            of the name, they delete those that *set_cookie* does not replace.
        login_refused: True if the request's log-in was not stored, because the user's sessions were revoked after the
            request began. Nobody is logged in; the user has to log in again.
    """

    set_cookie: str | None = field(default=None, repr=False)
    vary: bool = False
    deletions: tuple[str, ...] = field(default=(), repr=False)
    login_refused: bool = False


READ: Final = Saved(vary=True)
"""A session that was used, and no cookie to send."""


def loaded(state: State, answer: Record | Missing, now: float) -> None:
    """Take the answer to the load of a request's only token: the ordinary case of `load`."""
    token = state.candidates[0]
    if isinstance(answer, Record):
        state.adopt(token, answer, None)
    else:
        not_found(state, [(token, answer)], now)
        state.heir = answer.heir


def not_found(state: State, answers: Sequence[tuple[Token, Missing]], now: float) -> None:
    """Record that no token of the request opens a session.

    A request that began before its session ended is late: nothing of it is kept. One that began afterwards is a
    stranger's, and may begin a new session.
    """
    ended = [(token, answer) for token, answer in answers if answer.reason.is_tombstone]
    late = [(token, answer) for token, answer in ended if is_late(state, answer, now)]
    reasons = [answer.reason for _, answer in (late or ended or answers)]
    reason = reasons[0] if reasons else Reason.UNKNOWN
    missing(state, reason)
    state.adopt(None, None, reason)
    state.dead = bool(late)
    state.tombstones = tuple((token, answer.reason) for token, answer in answers)


def is_late(state: State, answer: Missing, now: float) -> bool:
    """Check whether the request began before its session, or its token, was ended on purpose.

    After a log-in or a rotation the browser may still have sent the old token when the response with the new one was on
    its way; so there the request counts as late for `REPLY_TIME` longer. The moments are compared as the hosts' clocks
    gave them, without a margin. A moment over `CLOCK_SKEW` ahead was given by a wrong clock, and holds nobody up.
    """
    if not answer.reason.is_tombstone:
        return False
    ended = answer.ended
    if ended is None:
        return True  # the driver does not say when
    own = state.revocation
    if ended > now + CLOCK_SKEW or (own is not None and own.is_end(ended)):
        return False
    return state.opened <= (ended + REPLY_TIME if answer.reason is Reason.ROTATED else ended)


def failed(state: State, error: DriverUnavailable) -> None:
    """Take note that a load failed: the session is unavailable to the whole request."""
    state.failure = error
    state.raised = True
    state.emit(Event(kind=EventKind.UNAVAILABLE))


def unsaved(state: State, error: DriverUnavailable) -> None:
    """Take note that a save failed. A load in the course of it has told so already."""
    if state.failure is not error:
        sid = None if state.record is None else state.record.sid
        state.emit(Event(kind=EventKind.UNAVAILABLE, sid=sid))
    if error.outcome_unknown:  # it may have been done, so nothing of it is ever sent again
        state.failure = error
        state.over = True


def interrupted(state: State, driver: str, error: BaseException) -> None:
    """Take note that a save was cut short from outside, by a task's cancellation or the end of the process."""
    if not isinstance(error, Exception):
        why = f"it was interrupted by {type(error).__name__}"
        state.failure = DriverUnavailable(driver, "save", why, outcome_unknown=True)
        state.over = True


def missing(state: State, reason: Reason) -> None:
    """Tell of a token that opens no session."""
    kinds = {
        Reason.EXPIRED: EventKind.EXPIRED,
        Reason.UNREADABLE: EventKind.UNREADABLE,
        Reason.UNKNOWN: EventKind.UNKNOWN_ID,
    }
    state.emit(Event(kind=kinds.get(reason, EventKind.GONE), reason=reason))


def written(state: State, delta: Delta, done: Committed, now: float) -> Saved:
    """Take note that a `plain_change` was committed."""
    if not state.policy.persistent:  # then no cookie tells when the session ends
        _note(state, delta, done, None, now)
        return READ
    cookie = committed(state, delta, done, None, now)
    return reply(state, cookie)


def reply(state: State, cookie: str | None) -> Saved:
    """Say what goes out with the response, where *cookie* is the one that is to come out of it."""
    if cookie is None or state.closed_headers:
        return Saved(None, state.used, login_refused=state.refused)
    others = deletions_of_others(state.policy, state.channel, *state.place) if state.doubled else ()
    return Saved(cookie, state.used, others, state.refused)


def _cookie_end(record: SessionInfo) -> float:
    """Return the moment at which a persistent cookie may go. The idle limit is not counted in.

    A cookie that followed the idle limit would have to be sent again and again, and one that arrives beside the answer
    to a log-in would take the place of the new token. So it outlives an idle session, which storage ends (ASVS 7.3.1).
    """
    start = record.created if record.auth_time is None else record.auth_time
    return min(record.deadline, start + record.absolute)


def committed(
    state: State, delta: Delta, done: Committed, successor: Token | None, now: float, grace: float = 0.0
) -> str | None:
    """Take note of what was written; give the cookie to send.

    Args:
        state: What is known of the session.
        delta: What was written.
        done: The driver's answer.
        successor: The new token, where one was issued with it.
        now: The present moment.
        grace: For how long the old token works once the new one was used.
    """
    record = state.record
    if record is None:  # then the cookie says nothing of lifetimes: see _needs_record
        _note(state, delta, done, successor, now)
        sid, ends, is_news = None, NEVER, False
    else:
        sid = record.sid
        was_stale = record.stale  # then the client may have the successor by now
        _note(state, delta, done, successor, now)
        ends = _cookie_end(record)
        # Only a session without any other limit outlives its cookie, which browsers drop after 400 days.
        is_old = ends - now > MAX_AGE and now - record.rotated > MAX_AGE / 2
        is_news = (is_old or delta.deadline is not None) and not was_stale
    if successor is not None:
        if grace > 0 and record is not None:
            # The rest of the request goes on under the old one: whoever writes under the new one has received it.
            record.stale = True
        else:
            state.token = successor
            state.candidates = [successor]  # a load after this save looks there
        state.emit(Event(kind=EventKind.RENEWED, sid=sid))
        if delta.user is not None:
            state.emit(Event(kind=EventKind.PRIVILEGE_CHANGED, sid=sid, user=delta.user))
    elif not (state.policy.persistent and is_news):
        return None
    token = successor or state.token
    assert token is not None  # noqa: S101 (it was just written under)
    return _set_cookie(state, token, ends, now)


def _note(state: State, delta: Delta, done: Committed, successor: Token | None, now: float) -> None:
    """Bring what is known up to what was written."""
    if not state.over:
        state.changes.settle(delta, done)
    fulfilled(state)
    record = state.record
    if record is None:
        return
    record.fresh = False
    if delta.touch is not None:
        record.seen = max(record.seen, delta.touch)
    if delta.deadline is not None:
        record.deadline = delta.deadline
    if delta.user is not None:
        record.user = delta.user
    if delta.auth_time is not None:
        record.auth_time = delta.auth_time
    if successor is not None:
        record.digest = successor.digest
        record.rotated = now
        record.stale = False


def issue(state: State, token: Token, record: Record, now: float) -> str:
    """Return the cookie that brings the token of a new session to the client."""
    return _set_cookie(state, token, _cookie_end(record), now)


def _set_cookie(state: State, token: Token, ends: float, now: float) -> str:
    lifetime = ends - now if state.policy.persistent else None
    return set_cookie(state.policy, state.channel, token.secret, lifetime)


def lost(state: State, reason: Reason) -> None:
    """Record that there is no session any more, or never was."""
    if state.record is None and not state.loaded:
        # Written without being read, under an identifier that opens nothing: as if it had been read before.
        missing(state, reason)
        if state.token is not None:
            state.tombstones = ((state.token, reason),)
        state.adopt(None, None, reason)
        return
    if state.token is not None and reason.is_tombstone:
        state.tombstones = ((state.token, reason),)
    state.emit(Event(kind=EventKind.GONE, sid=None if state.record is None else state.record.sid, reason=reason))
    if state.login is not None and state.record is not None and not state.closed_headers:
        # The user proved who they are, so they get a session: a new one. Two clicks on "log in" are the usual case,
        # and there the values to keep come along; those of a session that was ended on purpose do not.
        state.begin_anew(keep=reason is Reason.ROTATED)
        return
    state.drop_changes()
    state.reason = reason
    state.dead = True


def login_refused(state: State) -> None:
    """Record that the request's log-in is not stored: the user was revoked after the request began."""
    user = None if state.login is None else state.login[0]
    state.emit(Event(kind=EventKind.LOGIN_REFUSED, user=user, reason=Reason.REVOKED))
    state.drop_changes()
    state.reason, state.dead, state.refused = Reason.REVOKED, True, True


def fulfilled(state: State) -> None:
    """Take note that what the session asked for was written."""
    state.wrote = True
    state.login = state.deadline = None
    state.rotate = state.wanted = False
