"""How a request ends sessions: its own, those whose cookies came with it, and all others of its user. No I/O."""

from __future__ import annotations

from coatcheck.events import Event, EventKind
from coatcheck.record import Missing, Reason, Record
from coatcheck.state import State
from coatcheck.steps import Call, Steps

__all__ = ["destroy", "end_others", "end_unsettled"]


def destroy(state: State, now: float) -> Steps:
    """End the sessions that the request destroyed; return whether one of them was alive."""
    if not state.ended:
        return False
    was_live, absent, ended = False, [], state.ended
    while state.ended:
        token = state.ended[0]
        missing = yield from _end(state, token.digest, now, unread=state.ended_unread)
        if missing is None:
            was_live = True
        else:
            absent.append((token, missing))
        state.ended = state.ended[1:]
    if was_live:
        state.dead = False  # a renewal elsewhere had taken the token away; now the session itself has ended
        if state.wish.login is not None:
            state.tombstones = tuple((token, Reason.REVOKED) for token in ended)
        return True
    # Another request ended it before, and its response deletes the cookie. Ours must not overwrite a newer one.
    state.not_found(absent, now)
    return False


def _end(state: State, digest: bytes, now: float, *, unread: bool) -> Steps:
    """End one session. The answer is None if it was alive, or what there was instead."""
    answer: Record | Missing | None = None
    if unread:  # asked before the revocation leaves a tombstone under whatever the client sent
        answer = yield Call("load", (digest, now))
    if isinstance(answer, Missing) and answer.reason is not Reason.ROTATED:
        return answer
    if not (yield Call("revoke", (digest, now))):
        return Missing(Reason.REVOKED)
    sid, user = (answer.sid, answer.user) if isinstance(answer, Record) else state.ended_info
    state.emit(Event(kind=EventKind.DESTROYED, sid=sid, user=user))
    return None


def end_unsettled(state: State, now: float) -> Steps:
    """End, after a log-in, the sessions that could as well have been the client's: their cookies may stay in a browser.

    Not before the log-in, since one that is refused ends nothing.
    """
    for token in state.unsettled:
        yield from _end(state, token.digest, now, unread=True)
    state.unsettled = ()


def end_others(state: State, now: float) -> Steps:
    """End all other sessions of the user who is logged in, after what the request writes, a log-in above all.

    In this order a log-in that is refused ends nothing. It is dated when its request came, so that a revocation after
    that moment refuses it; this one spares it by its sid.
    """
    state.ask(end_others=False)
    record = state.record
    if record is None or record.user is None or state.dead:
        return
    try:
        ended = yield Call("revoke_user", (record.user, now), {"keep": record.sid})
    except BaseException:
        state.ask(end_others=True)  # still to be done, if the save is tried again
        raise
    if ended:
        state.emit(Event(kind=EventKind.DESTROYED, user=record.user))
