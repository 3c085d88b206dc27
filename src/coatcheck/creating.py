"""How a new session is stored, so that no other request of the same browser undoes it. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coatcheck.errors import DriverUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.record import (
    NEVER,
    REPLY_TIME,
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Reason,
    Record,
    Value,
    ValueKey,
)
from coatcheck.rotation import MAX_DRAWS, check_draws
from coatcheck.saved import cookie_end, token_cookie
from coatcheck.state import State
from coatcheck.steps import Call, Steps

if TYPE_CHECKING:
    from coatcheck.token import Token

__all__ = ["create"]

_HELD_BACK: Final = frozenset({Reason.REVOKED, Reason.EXPIRED, Reason.UNKNOWN})


def create(state: State, delta: Delta, now: float) -> Steps:
    """Store the session that the request began, if there is anything to store; return the cookie to send."""
    wish = state.wish
    if not (delta.puts or delta.increments or wish.stored or wish.login is not None):
        return None
    if state.closed_headers and state.token is None:  # the client cannot be told of a new session any more
        state.emit(Event(kind=EventKind.GONE, keys=(*delta.puts, *delta.increments)))
        state.drop_changes()
        return None
    user = None
    if wish.login is not None:
        user = wish.login[0]
        yield from _hold_others_back(state, now)
    record, token, answer = yield from _store(state, delta, now)
    if isinstance(answer, Gone):  # its user was revoked, or its deadline is over
        if user is not None and answer.reason is Reason.REVOKED:
            state.login_refused()
        else:
            state.lost(answer.reason)
        return None
    if user is None and (yield from _is_overtaken(state, token, now)):
        return None
    assert isinstance(answer, Committed)  # noqa: S101 (`_store` ends on something else than Conflict)
    state.created(record, token, delta, answer)
    if user is not None:
        state.tell(EventKind.PRIVILEGE_CHANGED, user=user)
    return token_cookie(state, token, cookie_end(record), now)


def _store(state: State, delta: Delta, now: float) -> Steps:
    """Store a new session; return its Record, its Token and the driver's answer."""
    values: dict[ValueKey, Value] = {name: Value(put.data, 0) for name, put in delta.puts.items()}
    values.update({name: Value(number, 0) for name, number in delta.increments.items()})
    user, auth_time = state.wish.login or (None, None)
    deadline = state.wish.deadline
    is_told = state.token is not None  # to the application, by an adapter: then another token is no help
    for draw in range(MAX_DRAWS + 1):
        check_draws(draw)
        if draw > 0:
            state.token = state.reserved = None
        token, sid = state.reserve()
        record = Record(
            sid=sid,
            digest=token.digest,
            created=state.opened,
            seen=max(now, state.opened),
            deadline=NEVER if deadline is None else deadline,
            idle=state.policy.idle_seconds,
            absolute=state.policy.absolute_seconds,
            user=user,
            auth_time=auth_time,
            note=state.wish.note or b"",
            values=values,
            rotated=state.opened,
        )
        try:
            answer: Answer = yield Call("create", (record, now))
        except DriverUnavailable:
            is_elsewhere = not state.driver.takes(record.digest, record.sid)
            if is_told or not is_elsewhere or draw + 1 == MAX_DRAWS:
                raise
            continue  # its server is down, as is known by now, and another token may be on another server
        if not isinstance(answer, Conflict):
            break
    return record, token, answer


def _hold_others_back(state: State, now: float) -> Steps:
    """Keep other requests with the browser's old token from beginning a session while a log-in is answered.

    The cookie of theirs might arrive last. It goes before the log-in is stored, so that none slips through. Of a token
    that was rotated away storage says by itself that it is late.
    """
    for ended, reason in state.tombstones:
        if reason in _HELD_BACK:
            yield Call("revoke", (ended.digest, now + REPLY_TIME))


def _is_overtaken(state: State, token: Token, now: float) -> Steps:
    """Check whether a log-in of the same browser was faster than this request's new session, and take that back.

    Asked after the session was stored: a log-in that is stored later is answered later, and its cookie comes last.
    """
    for ended, _ in state.tombstones:
        answer: Record | Missing = yield Call("load", (ended.digest, now))
        if isinstance(answer, Missing) and state.is_late(answer, now):
            yield Call("revoke", (token.digest, now))
            state.lost(answer.reason)
            return True
    return False
