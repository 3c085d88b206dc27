"""What to ask of a driver to load and to save a session: decided here, once, without I/O.

Each plan is a generator. It yields a `Call` on the driver (or a `Pause`) and is sent the answer; the manager, sync or
async, only carries them out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from coatcheck import rotation
from coatcheck._pause import drawn
from coatcheck.cookie import deletion
from coatcheck.errors import CoatcheckError, ConflictError, DriverUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.outcome import (
    Saved,
    committed,
    failed,
    fulfilled,
    is_late,
    issue,
    login_refused,
    lost,
    not_found,
    reply,
)
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
    touch_interval,
)
from coatcheck.state import State
from coatcheck.token import Token

__all__ = ["Call", "Pause", "Steps", "is_pending", "load", "plain_change", "save"]

_MAX_MERGES: Final = 500
_PATIENCE: Final = 3  # merges without a pause: most conflicts are over by then
_MAX_PAUSE: Final = 0.02
_MAX_DRAWS: Final = 3
_HELD_BACK: Final = frozenset({Reason.REVOKED, Reason.EXPIRED, Reason.UNKNOWN})


class Call(NamedTuple):
    """A method of the driver to call, and its arguments."""

    method: str
    args: tuple[Any, ...]


class Pause(NamedTuple):
    """Seconds to wait before going on."""

    seconds: float


Steps = Generator[Call | Pause, Any, Any]


def load(state: State, now: float) -> Steps:
    """Find out which session, if any, the request belongs to."""
    found: list[tuple[Token, Record]] = []
    absent: list[tuple[Token, Missing]] = []
    for token in state.candidates:
        try:
            answer: Record | Missing = yield Call("load", (token.digest, now))
        except DriverUnavailable as error:
            failed(state, error)
            raise
        if isinstance(answer, Record):
            found.append((token, answer))
        else:
            absent.append((token, answer))
    if state.loaded:  # another task of the request was faster
        return
    if len(state.candidates) > 1:
        state.emit(Event(kind=EventKind.DUPLICATES))
    # The old and the new token of one rotation open the same session; the new one is in force.
    sessions = {record.sid: (token, record) for token, record in sorted(found, key=lambda each: not each[1].stale)}
    if len(sessions) == 1:
        state.adopt(*sessions.popitem()[1], None)
        return
    state.unsettled = tuple(token for token, _ in found)
    not_found(state, absent, now)


def plain_change(state: State, now: float) -> Delta | None:
    """Give the Delta where one commit of it is all that a save has to do, in the ordinary case. Otherwise None.

    Where the commit answers `Committed`, `written` says which cookie goes out. Where it does not, `save` goes on.

    Raises:
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    if state.token is None or state.dead or state.login is not None or state.rotate or rotation.is_due(state, now):
        return None
    if state.record is None and (state.loaded or _needs_record(state)):
        return None
    return _delta(state, now)


def save(state: State, now: float, refused: Conflict | Gone | None = None) -> Steps:
    """Write what the request changed and say which cookie goes out.

    Args:
        state: What is known of the session.
        now: The present moment.
        refused: The answer to the commit of a `plain_change`, where that was tried.

    Raises:
        DriverUnavailable: Storage failed.
        ConflictError: Two changes do not merge and the policy says "error".
        CounterError: An increment cannot be done.
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    if state.failure is not None:
        return Saved(vary=state.used)
    logs_in = state.login is not None
    if state.login is not None:
        user, moment = state.login
        settled = state.revocations.settled_moment(user, moment, state.sid, state.opened, now, state.spared)
        state.login = user, settled
    removed = (yield from _destroy(state, now)) or state.was_ended
    cookie = yield from _write(state, now, refused)
    state.was_ended = False
    if cookie is None and removed:
        cookie = deletion(state.policy, state.channel)
    elif cookie is not None and logs_in:
        yield from _end_unsettled(state, now)
    return reply(state, cookie)


def is_pending(state: State, now: float) -> bool:
    """Tell whether a save would have something to write.

    Raises:
        UnstorableValue: A value was changed in place into something that cannot be stored.
    """
    if state.over or state.failure is not None:
        return False
    if state.ended or state.was_ended or _wants_write(state):
        return True
    return state.record is not None and (_touch_due(state.record, state, now) or rotation.is_due(state, now))


def _destroy(state: State, now: float) -> Steps:
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
        if state.login is not None:
            state.tombstones = tuple((token, Reason.REVOKED) for token in ended)
        return True
    # Another request ended it before, and its response deletes the cookie. Ours must not overwrite a newer one.
    not_found(state, absent, now)
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


def _end_unsettled(state: State, now: float) -> Steps:
    """End, after a log-in, the sessions that could as well have been the client's: their cookies may stay in a browser.

    Not before the log-in, since one that is refused ends nothing.
    """
    for token in state.unsettled:
        yield from _end(state, token.digest, now, unread=True)
    state.unsettled = ()


def _write(state: State, now: float, refused: Conflict | Gone | None) -> Steps:
    tries = _Tries()
    if refused is not None:
        yield from _prepare_again(state, refused, tries, 0.0, now)
    while True:
        if (state.dead or state.heir is not None) and not _revived_by_login(state):
            return None
        if not state.loaded and _needs_record(state) and _wants_write(state):
            yield from load(state, now)
            continue
        delta = _delta(state, now)
        if state.loaded and state.record is None:
            return (yield from _create(state, delta, now))
        assert state.token is not None  # noqa: S101 (a session that is there, or may be, has a token)
        successor, grace = rotation.rotation(state, now)
        if successor is not None:
            answer = yield Call("rotate", (state.token.digest, successor.digest, delta, grace, now))
        elif delta:
            answer = yield Call("commit", (state.token.digest, delta, now))
        else:
            return None
        if isinstance(answer, Committed):
            return committed(state, delta, answer, successor, now, grace)
        yield from _prepare_again(state, answer, tries, grace, now)


@dataclass(slots=True)
class _Tries:
    """How often a write had to be done again."""

    merges: int = 0
    draws: int = 0


def _prepare_again(state: State, answer: Conflict | Gone, tries: _Tries, grace: float, now: float) -> Steps:
    """Make of a refusal what can be made of it, so that the next round of the write has a chance."""
    if isinstance(answer, Gone):
        if answer.reason.is_tombstone and not state.loaded and state.token is not None:
            yield from load(state, now)  # which says when it ended
        elif (yield from _is_login_refused(state, answer, now)):
            login_refused(state)
        else:
            lost(state, answer.reason)
    elif answer.keys:
        tries.merges += 1
        if tries.merges > _MAX_MERGES:
            raise ConflictError(answer.keys)
        if tries.merges > _PATIENCE:
            yield Pause(drawn(min(_MAX_PAUSE, 0.0005 * tries.merges)))
        yield from _merge(state, answer.keys, now)
    elif grace > 0:  # another request just renewed the token: its response brings the successor
        if state.record is not None:
            state.record.rotated = now
    else:
        tries.draws += 1
        _check_draws(tries.draws)


def _is_login_refused(state: State, answer: Gone, now: float) -> Steps:
    """Check whether it is the log-in that a revocation of the user refused, and the session is there as it was."""
    if state.login is None or state.token is None or answer.reason is not Reason.REVOKED:
        return False
    found: Record | Missing = yield Call("load", (state.token.digest, now))
    return isinstance(found, Record)


def _revived_by_login(state: State) -> bool:
    """Drop the changes of a request that came too late, unless it asks for a new session by a log-in."""
    if state.login is not None and not state.closed_headers:
        state.begin_anew(keep=False)
        state.heir = None
        return True
    if state.dead:
        state.drop_changes()
    return not state.dead


def _needs_record(state: State) -> bool:
    """Tell whether a write needs to know the session first, also where the application did not read it."""
    policy = state.policy
    return len(state.candidates) > 1 or policy.persistent or policy.rotate_after != "never"


def _wants_write(state: State) -> bool:
    if state.wanted or state.rotate or state.login is not None or state.deadline is not None:
        return True
    return not state.changes.is_clean()


def _delta(state: State, now: float) -> Delta:
    record = state.record
    # Of a session that was not read it is not known when activity was last recorded.
    due = _wants_write(state) if record is None else _touch_due(record, state, now)
    basis = None if record is None else record.basis
    delta = state.changes.delta(now if due else None, state.deadline, state.login, basis)
    delta.if_due = due and record is None
    return delta


def _touch_due(record: Record, state: State, now: float) -> bool:
    return state.used and (record.fresh or now - record.seen >= touch_interval(record.idle))


def _create(state: State, delta: Delta, now: float) -> Steps:
    if not (delta.puts or delta.increments or state.wanted or state.login is not None):
        return None
    if state.closed_headers and state.token is None:  # the client cannot be told of a new session any more
        state.emit(Event(kind=EventKind.GONE, keys=(*delta.puts, *delta.increments)))
        state.drop_changes()
        return None
    user = None
    if state.login is not None:
        user = state.login[0]
        yield from _hold_others_back(state, now)
    record, token, answer = yield from _store(state, delta, now)
    if isinstance(answer, Gone):  # its user was revoked, or its deadline is over
        if user is not None and answer.reason is Reason.REVOKED:
            login_refused(state)
        else:
            lost(state, answer.reason)
        return None
    if user is None and (yield from _is_overtaken(state, token, now)):
        return None
    assert isinstance(answer, Committed)  # noqa: S101 (`_store` ends on something else than Conflict)
    state.changes.values = {}
    state.changes.settle(delta, Committed(answer.version, delta.increments))
    state.record, state.token, state.loaded, state.reserved = record, token, True, None
    fulfilled(state)
    state.emit(Event(kind=EventKind.CREATED, sid=record.sid, user=user))
    if user is not None:
        state.emit(Event(kind=EventKind.PRIVILEGE_CHANGED, sid=record.sid, user=user))
    return issue(state, token, record, now)


def _store(state: State, delta: Delta, now: float) -> Steps:
    """Store a new session; return its Record, its Token and the driver's answer."""
    values: dict[ValueKey, Value] = {name: Value(put.data, 0) for name, put in delta.puts.items()}
    values.update({name: Value(number, 0) for name, number in delta.increments.items()})
    user, auth_time = state.login or (None, None)
    is_told = state.token is not None  # to the application, by an adapter: then another token is no help
    for draw in range(_MAX_DRAWS + 1):
        _check_draws(draw)
        if draw > 0:
            state.token = state.reserved = None
        token, sid = state.reserve()
        record = Record(
            sid=sid,
            digest=token.digest,
            created=state.opened,
            seen=max(now, state.opened),
            deadline=NEVER if state.deadline is None else state.deadline,
            idle=state.policy.idle_seconds,
            absolute=state.policy.absolute_seconds,
            user=user,
            auth_time=auth_time,
            values=values,
            rotated=state.opened,
        )
        try:
            answer: Answer = yield Call("create", (record, now))
        except DriverUnavailable:
            is_elsewhere = state.driver is not None and not state.driver.takes(record.digest, record.sid)
            if is_told or not is_elsewhere or draw + 1 == _MAX_DRAWS:
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
        if isinstance(answer, Missing) and is_late(state, answer, now):
            yield Call("revoke", (token.digest, now))
            lost(state, answer.reason)
            return True
    return False


def _merge(state: State, keys: tuple[ValueKey, ...], now: float) -> Steps:
    assert state.token is not None  # noqa: S101 (only a session that is there can conflict)
    answer: Record | Missing = yield Call("load", (state.token.digest, now))
    if isinstance(answer, Missing):
        lost(state, answer.reason)
        return
    state.record = answer
    clashes = state.changes.rebase(answer.values, keys)
    if clashes:
        if state.policy.on_conflict == "error":
            raise ConflictError(clashes)
        state.emit(Event(kind=EventKind.CONFLICT, sid=answer.sid, keys=clashes))


def _check_draws(draws: int) -> None:
    if draws >= _MAX_DRAWS:
        raise CoatcheckError(
            f"{_MAX_DRAWS} newly drawn tokens in a row were taken: the system's random generator is broken"
        )
