"""What to ask of a driver to save a session: decided here, once, for both managers. No I/O: see `steps`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coatcheck import lending, rotation
from coatcheck._pause import drawn
from coatcheck.cookie import deletion
from coatcheck.creating import create
from coatcheck.ending import destroy, end_others, end_unsettled
from coatcheck.errors import ConflictError, DriverUnavailable, SessionUnavailable
from coatcheck.events import EventKind
from coatcheck.loading import load
from coatcheck.record import NEVER, Committed, Conflict, Delta, Gone, Missing, Reason, Record, ValueKey, touch_interval
from coatcheck.saved import READ, UNTOUCHED, Saved, cookie_end, is_due_again, reply, token_cookie
from coatcheck.state import NOTHING, State
from coatcheck.steps import Call, Pause, Steps

if TYPE_CHECKING:
    from coatcheck.token import Token

__all__ = ["first_look", "is_pending", "save"]

_MAX_MERGES: Final = 500
_PATIENCE: Final = 3  # merges without a pause: most conflicts are over by then
_MAX_PAUSE: Final = 0.02


def is_pending(state: State, now: float) -> bool:
    """Return whether a save would have something to write.

    Raises:
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    if state.finished or state.failure is not None:
        return False
    return bool(state.ended) or state.was_ended or _pending(state, now) is not None


def first_look(state: State, now: float, *, is_lent: bool, final: bool) -> Saved | Delta | None:
    """Look whether there is anything to save, without a plan, since most requests only read.

    Returns:
        What the save means for the response, if there is nothing to write; what there is to write; or None if only
        `save` can tell.

    Raises:
        SessionUnavailable: An earlier save failed with its outcome unknown.
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    if state.failure is not None and state.finished:
        raise SessionUnavailable(was_saved=True) from state.failure
    if state.failure is None and not state.finished:
        if state.lent and is_lent:
            return None
        delta = _pending(state, now)
        if delta is not None or state.ended or state.was_ended:
            return delta
    state.finished = state.finished or final
    return READ if state.used else UNTOUCHED


def save(state: State, now: float, pending: Delta | None, *, is_lent: bool, final: bool, on_conflict: str) -> Steps:
    """Write what the request changed, all of it or nothing, and return what that means for the response.

    Args:
        state: The session.
        now: The present moment.
        pending: What `first_look` returned.
        is_lent: True if the driver works on a connection of the application's.
        final: True if nothing is saved after this.
        on_conflict: As in `Policy`.

    Raises:
        DriverUnavailable: Storage failed.
        SessionUnavailable: An earlier save on a lent connection cannot be found out about.
        ConflictError: Two changes do not merge, and *on_conflict* is "error".
        CounterError: An increment cannot be done.
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    try:
        if is_lent:
            saved = yield from _save_lent(state, now, final=final, on_conflict=on_conflict)
            state.finished = state.finished or final
            return saved
        state.lent = ()
        token, refused = state.token, None
        if pending is not None and token is not None and _is_plain(state, now):
            # The ordinary case: one commit is all there is to do.
            refused = yield Call("commit", (token.digest, pending, now))
            if isinstance(refused, Committed):
                state.finished = final
                return reply(state, _committed(state, pending, refused, None, 0.0, now))
        saved = yield from _all(state, now, refused, on_conflict)
        state.finished = final
    except DriverUnavailable as error:
        state.save_failed(error)
        raise
    except BaseException as error:
        state.interrupted(error)
        raise
    return saved


def _save_lent(state: State, now: float, *, final: bool, on_conflict: str) -> Steps:
    """Save on a connection of the application's, after a look at what became of the save before."""
    if state.lent:
        yield from lending.look(state, now)
        found = first_look(state, now, is_lent=False, final=final)
        if isinstance(found, Saved):
            return found
    with lending.saving(state):
        return (yield from _all(state, now, None, on_conflict))


def _pending(state: State, now: float) -> Delta | None:
    """Return what a save has to write; None if the request changed nothing and asks for nothing."""
    wish, record = state.wish, state.record
    state.asked = wish
    delta = state.changes.pending()
    if record is None:
        is_due = True  # of a session that was not read it is not known; see `Delta.if_due`
        if delta is None and wish == NOTHING:
            return None
    else:
        is_due = state.used and (record.fresh or now - record.seen >= touch_interval(record.idle))
        if delta is None and not is_due and wish == NOTHING and not rotation.is_due(state, now):
            return None
    if delta is None:
        delta = Delta()
    if is_due:
        delta.touch, delta.if_due = now, record is None
    if record is not None:
        delta.basis = record.basis
    delta.deadline, delta.note = wish.deadline, wish.note
    if wish.login is not None:
        delta.user, delta.auth_time = wish.login
    return delta


def _is_plain(state: State, now: float) -> bool:
    """Check whether one commit under the token in force is all that a save has to do, if storage lets it."""
    wish = state.wish
    if state.dead or wish.login is not None or wish.rotate or wish.end_others or rotation.is_due(state, now):
        return False
    return state.record is not None or not (state.loaded or _needs_record(state))


def _needs_record(state: State) -> bool:
    """Check whether a write needs to know the session first, also if the application did not read it."""
    policy = state.policy
    return len(state.candidates) > 1 or policy.persistent or policy.rotate_after != "never" or state.wish.end_others


def _all(state: State, now: float, refused: Conflict | Gone | None, on_conflict: str) -> Steps:
    """Do all that a save may have to do.

    Args:
        state: The session.
        now: The present moment.
        refused: The answer to the commit of the ordinary case, if that was tried.
        on_conflict: As in `Policy`.
    """
    login, others = state.wish.login, state.wish.end_others
    if login is not None:
        moment = state.revocations.settled_moment(*login, state.sid, state.opened, now, state.spared)
        state.ask(login=(login[0], moment))
    removed = yield from destroy(state, now)
    cookie = yield from _write(state, now, refused, on_conflict)
    if state.was_ended and not state.dead:  # if it is dead, a log-in may have been faster, and its cookie stays
        removed = True
    state.was_ended = False
    if cookie is None and removed:
        cookie = deletion(state.policy, state.channel)
    elif cookie is not None and login is not None:
        yield from end_unsettled(state, now)
    if others:
        yield from end_others(state, now)
    return reply(state, cookie)


def _write(state: State, now: float, refused: Conflict | Gone | None, on_conflict: str) -> Steps:
    """Write what is pending until storage has it, or there is nothing left to write; return the cookie to send."""
    tries = _Tries(on_conflict)
    if refused is not None:
        yield from _prepare_again(state, refused, tries, 0.0, now)
    while True:
        if (state.dead or state.heir is not None) and not _revived_by_login(state):
            return None
        if not state.loaded and _needs_record(state) and _pending(state, now) is not None:
            yield from load(state, now)
            continue
        delta = _pending(state, now) or Delta()
        if state.loaded and state.record is None:
            return (yield from create(state, delta, now))
        assert state.token is not None  # noqa: S101 (a session that is there, or may be, has a token)
        successor, grace = rotation.rotation(state, now)
        if successor is not None:
            answer = yield Call("rotate", (state.token.digest, successor.digest, delta, grace, now))
        elif delta:
            answer = yield Call("commit", (state.token.digest, delta, now))
        else:
            return None
        if isinstance(answer, Committed):
            return _committed(state, delta, answer, successor, grace, now)
        yield from _prepare_again(state, answer, tries, grace, now)


def _committed(
    state: State, delta: Delta, done: Committed, successor: Token | None, grace: float, now: float
) -> str | None:
    """Record what was written; return the cookie to send."""
    was_stale = state.record is not None and state.record.stale  # then the client may have the successor by now
    state.settle(delta, done, successor, grace, now)
    record, token = state.record, successor or state.token
    assert token is not None  # noqa: S101 (it was just written under)
    if successor is not None:
        state.tell(EventKind.RENEWED)
        if delta.user is not None:
            state.tell(EventKind.PRIVILEGE_CHANGED, user=delta.user)
    elif was_stale or record is None or not is_due_again(state, record, delta, now):
        return None
    # Of a session that was not read the cookie says nothing of lifetimes: see `_needs_record`.
    return token_cookie(state, token, NEVER if record is None else cookie_end(record), now)


@dataclass(slots=True)
class _Tries:
    """How often a write had to be done again, and what to do about a conflict."""

    on_conflict: str
    merges: int = 0
    draws: int = 0


def _prepare_again(state: State, answer: Conflict | Gone, tries: _Tries, grace: float, now: float) -> Steps:
    """Make of a refusal what can be made of it, so that the next round of the write has a chance."""
    if isinstance(answer, Gone):
        if answer.reason.is_tombstone and not state.loaded and state.token is not None:
            yield from load(state, now)  # which says when it ended
        elif (yield from _is_login_refused(state, answer, now)):
            state.login_refused()
        else:
            state.lost(answer.reason)
    elif answer.keys:
        tries.merges += 1
        if tries.merges > _MAX_MERGES:
            raise ConflictError(answer.keys)
        if tries.merges > _PATIENCE:
            yield Pause(drawn(min(_MAX_PAUSE, 0.0005 * tries.merges)))
        yield from _merge(state, answer.keys, tries.on_conflict, now)
    elif grace > 0:  # another request just renewed the token: its response brings the successor
        if state.record is not None:
            state.record.rotated = now
    else:
        tries.draws += 1
        rotation.check_draws(tries.draws)


def _is_login_refused(state: State, answer: Gone, now: float) -> Steps:
    """Check whether it is the log-in that a revocation of the user refused, and the session is there as it was."""
    if state.wish.login is None or state.token is None or answer.reason is not Reason.REVOKED:
        return False
    found: Record | Missing = yield Call("load", (state.token.digest, now))
    # A token that was rotated away meanwhile was not revoked either: its session goes on.
    return isinstance(found, Record) or found.reason is not Reason.REVOKED


def _revived_by_login(state: State) -> bool:
    """Drop the changes of a request that came too late, unless it asks for a new session by a log-in."""
    if state.wish.login is not None and not state.closed_headers:
        state.begin_anew(keep=False)
        state.heir = None
        return True
    if state.dead:
        state.drop_changes()
    return not state.dead


def _merge(state: State, keys: tuple[ValueKey, ...], on_conflict: str, now: float) -> Steps:
    assert state.token is not None  # noqa: S101 (only a session that is there can conflict)
    answer: Record | Missing = yield Call("load", (state.token.digest, now))
    if isinstance(answer, Missing):
        state.lost(answer.reason)
        return
    if on_conflict == "error" and (lost := state.changes.clashes(answer.values, keys)):
        raise ConflictError(lost)  # and nothing is merged, so that the next save meets the same conflict
    state.record = answer
    if clashes := state.changes.rebase(answer.values, keys):
        state.tell(EventKind.CONFLICT, keys=clashes)
