"""One request's session: what is known of it, what the application did to it, and what it asks of the next save.

Everything that changes this is a method here or in `known`; the plans in `loading` and `saving` say which, and when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import ref

from coatcheck.changes import Changes
from coatcheck.errors import DriverUnavailable, SessionNotLoaded, SessionUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.known import Known
from coatcheck.record import Committed, Delta, Reason, Record
from coatcheck.revoked import Revocation, Revocations
from coatcheck.token import Token, new_sid

if TYPE_CHECKING:
    from coatcheck.codec import Codec
    from coatcheck.cookie import Channel
    from coatcheck.policy import Policy
    from coatcheck.record import Value, ValueKey
    from coatcheck.snapshot import Settled

__all__ = ["MOST_DRAWS", "NOTHING", "LentSave", "Mark", "State", "Wish"]

MOST_DRAWS: Final = 64
"""How many tokens are drawn at most until one belongs to a server that is not known to be down."""

Mark = dict[str, Any]
"""A `State` to go back to."""


class Wish(NamedTuple):
    """What a request asks of its next save, besides the values.

    Attributes:
        login: The user to log in and the moment.
        rotate: True if a new token is due, whatever the policy says.
        deadline: A new deadline, in seconds since the epoch.
        stored: True if a new session is to be stored even without a value in it.
        note: The new note.
        end_others: True if all other sessions of the user are to be ended.
    """

    login: tuple[str, float] | None = None
    rotate: bool = False
    deadline: float | None = None
    stored: bool = False
    note: bytes | None = None
    end_others: bool = False

    def since(self, before: Wish) -> Wish:
        """Return what was asked in addition to *before*."""
        if self == before:
            return NOTHING
        return NOTHING._replace(
            **{name: asked for name, asked in self._asdict().items() if asked != getattr(before, name)}
        )

    def over(self, before: Wish) -> Wish:
        """Return this wish with those of *before* where it asks for nothing."""
        asked = {name: wish for name, wish in self._asdict().items() if wish is not None and wish is not False}
        return before._replace(**asked)


NOTHING: Final = Wish()
"""A request that asks for nothing."""

_SAVED: Final = (
    "candidates",
    "changes",
    "dead",
    "ended",
    "ended_unread",
    "loaded",
    "reason",
    "record",
    "token",
    "tombstones",
    "unsettled",
    "wish",
)
"""What a save changes in a `State`."""


class LentSave(NamedTuple):
    """A save on a connection that the application lends; see `lending`.

    Attributes:
        mark: The session as it was before.
        journal: What was written.
        token: The token that the session had afterwards.
    """

    mark: Mark
    journal: list[Settled]
    token: Token | None


class State(Known):
    """One request's session; what it shares with `Known` is said there.

    Attributes:
        driver: The driver that the session was opened with.
        loader: Loads the session when it is first read; None if a load has to be awaited.
        wish: What the next save is to do, besides the values.
        asked: What the save that is under way does of that.
        used: True once the application read, probed or wrote; the response then varies with the cookie.
        reserved: The token and the sid of the session that is still to be made, if either was needed before.
        refused: True if the request's log-in was refused because the user was revoked meanwhile.
        ended: The tokens of the session that this request destroyed and that are still to be revoked: of several that
            the client sent, all.
        ended_info: The sid and user of that session, if they are known.
        ended_unread: True if nobody looked whether there was one.
        was_ended: True if this request ended its session by a revocation of the user, and the cookie is to be deleted.
        closed_headers: True once the response's headers are out, so that no cookie can be set any more.
        wrote: True once something was written to storage.
        lent: The saves on connections of the application's that may be undone; see `lending`.
        finished: True once the session was saved for the last time: nothing of the application runs any more, or the
            outcome of a save is not known.
        turn: While a save is under way, the tasks that wait for its end; otherwise missing.
        clock: Returns the present moment.
        revocations: What this thread or task has revoked.
        revocations_seen: How many revocations there were when this request last looked at them.
        spared: The last revocation that was told to keep this session, and was given the session itself.
        rotation_bits: How many leading bits the digests and the sid of a session share; see `Driver.rotation_bits`.
    """

    driver: Any = None
    loader: Callable[[State], None] | None = None
    wish = asked = NOTHING
    turn: Any
    used = False
    reserved: tuple[Token, str] | None = None
    refused = False
    ended: tuple[Token, ...] = ()
    ended_info: tuple[str | None, str | None] = (None, None)
    ended_unread = False
    was_ended = False
    closed_headers = False
    wrote = False
    lent: tuple[LentSave, ...] = ()
    finished = False
    clock: Callable[[], float] = time.time
    revocations = Revocations()
    revocations_seen = 0
    spared: Revocation | None = None
    rotation_bits = 0

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        channel: Channel,
        opened: float,
        candidates: list[Token],
        emit: Callable[[Event], None],
    ) -> None:
        self._codec = codec
        self.policy = policy
        self.channel = channel
        self.opened = opened
        self.candidates = candidates
        self.emit = emit
        self.token = candidates[0] if len(candidates) == 1 else None
        self.loaded = not candidates
        self.changes = Changes(codec, policy.max_value_bytes, ref(self), None if candidates else {})

    # -- its use ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Record a use of the session.

        Raises:
            SessionUnavailable: The session could not be loaded.
        """
        self.used = True
        if self.failure is not None:
            self.raised = True
            raise SessionUnavailable(was_saved=self.finished) from self.failure
        if self.revocations.count != self.revocations_seen:
            self._look_at_revocations()

    def load(self) -> None:
        """Make sure that it is known whether there is a session.

        Raises:
            SessionUnavailable: An earlier attempt in this request failed.
            SessionNotLoaded: Only ``await session.load()`` can load here.
            DriverUnavailable: Storage failed.
        """
        self.check()
        if not self.loaded:
            self._load()

    def _load(self) -> None:
        if self.loader is None:
            raise SessionNotLoaded
        self.loader(self)

    def fetch(self) -> Mapping[ValueKey, Value]:
        """Load the snapshot that the changes stand on, and return it. The use was recorded before, by `check`."""
        if not self.loaded:
            self._load()
        if self.changes.values is None:  # written unread, or new
            self.changes.values = {}
        return self.changes.values

    def unreadable(self, name: ValueKey) -> None:
        """Emit the event of a value that no longer decodes."""
        self.tell(EventKind.UNREADABLE, keys=(name,))

    def _look_at_revocations(self) -> None:
        """Go on as after a log-out, if this very request has revoked its session's user since it was last used."""
        self.revocations_seen = self.revocations.count
        self.revocation = last = self.revocations.since(self.opened)
        record, token = self.record, self.token
        if last is None or record is None or token is None or record.user != last.user or record.sid == last.keep:
            return
        self.end()
        self.ended = ()  # storage has ended it already
        self.was_ended, self.tombstones = True, ((token, Reason.REVOKED),)

    # -- what it asks for ---------------------------------------------------------------------------------------

    def ask(self, **wishes: Any) -> None:
        """Ask something of the next save; see `Wish`."""
        self.wish = self.wish._replace(**wishes)

    @property
    def user(self) -> str | None:
        """Who is logged in, or is going to be."""
        if self.wish.login is not None:
            return self.wish.login[0]
        return None if self.record is None else self.record.user

    @property
    def sid(self) -> str | None:
        """The public name of the session, also of one that a log-in is going to make; None if there is none."""
        if self.record is not None:
            return self.record.sid
        return self.reserve()[1] if self.wish.login is not None and self.loaded else None

    def reserve(self) -> tuple[Token, str]:
        """Return the token and the sid of the session that this request is going to make; drawn once."""
        if self.reserved is None:
            for _ in range(MOST_DRAWS):
                token = self.token or Token.new()
                self.reserved = token, new_sid(token.digest, self.rotation_bits)
                if self.driver is None or self.driver.takes(token.digest, self.reserved[1]):
                    break
        assert self.reserved is not None  # noqa: S101 (it was drawn once at least)
        return self.reserved

    def begin(self, deadline: float | None) -> None:
        """Go on with a new session that is stored in any case, unless the one before ended meanwhile."""
        self.record = self.token = self.reserved = self.reason = None
        self.candidates, self.loaded = [], True
        self.changes = self._no_changes()
        self.token = Token.new() if self.dead else self.reserve()[0]
        self.used = True
        self.wish = Wish(deadline=deadline, stored=not self.dead)

    def end(self) -> None:
        """Record that the session is to be destroyed, and go on as a request without one."""
        self.check()
        if self.record is not None:
            self.ended_info = (self.record.sid, self.record.user)
        if self.rivals:
            # Whichever is the client's own and whichever was planted: none of them logs it in again.
            tokens = self.rivals if self.token is None else (self.token, *self.rivals)
            self.ended = tuple({token.digest: token for token in tokens}.values())
            self.ended_unread, self.unsettled = True, ()
        elif self.reason is Reason.ROTATED:
            self.ended = tuple(self.candidates)  # the session goes on under a token that this client may yet receive
        elif self.token is not None and (self.record is not None or not self.loaded):
            self.ended, self.ended_unread = (self.token,), not self.loaded
        self.loaded = True
        self.token = self.record = self.reserved = None
        self.drop_changes()

    def begin_anew(self, *, keep: bool) -> None:
        """Make of the changes those of a session that is still to be made: the one that they were for has ended.

        Args:
            keep: True takes along the values that the log-in was to keep.
        """
        login = self.wish.login
        if self.heir is not None and login is not None and self.heir.user == login[0]:
            # The same user logged in a moment ago, and the answer with the new token is still on its way.
            self.changes.values, keep = self.heir.values, True
        self.changes.begin_anew(keep=keep)
        self.record = self.token = self.reason = None
        self.loaded = True
        self.dead = False

    def drop_changes(self) -> None:
        """Discard what was to be written."""
        self.changes = self._no_changes()
        self.wish = NOTHING

    def _no_changes(self) -> Changes:
        return Changes(self._codec, self.policy.max_value_bytes, ref(self), {})

    # -- what storage answered to a write -----------------------------------------------------------------------

    def settle(self, delta: Delta, done: Committed, successor: Token | None, grace: float, now: float) -> None:
        """Bring what is known up to what was written.

        Args:
            delta: What was written.
            done: The driver's answer.
            successor: The new token, if one was issued with it.
            grace: Seconds for which the old token goes on working beside it.
            now: The present moment.
        """
        if not self.finished:
            self.changes.settle(delta, done)
        self.wrote, self.wish = True, self.wish.since(self.asked)
        record = self.record
        if successor is not None and (grace == 0 or record is None):
            # With a grace the request goes on under the old token: one that writes under the new one has received it.
            self.token, self.candidates = successor, [successor]  # a load after this save looks there
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
        if delta.note is not None:
            record.note = delta.note
        if successor is not None:
            record.digest = successor.digest
            record.rotated = now
            record.stale = grace > 0

    def created(self, record: Record, token: Token, delta: Delta, done: Committed) -> None:
        """Record that a new session was stored."""
        self.changes.values = {}
        self.changes.settle(delta, Committed(done.version, delta.increments))
        self.record, self.token, self.loaded, self.reserved = record, token, True, None
        self.wrote, self.wish = True, self.wish.since(self.asked)
        self.tell(EventKind.CREATED, user=record.user)

    def lost(self, reason: Reason) -> None:
        """Record that a write found no session any more, or that there never was one."""
        if self.record is None and not self.loaded:
            # Written without being read, under an identifier that opens nothing: as if it had been read before.
            self.tell_missing(reason)
            if self.token is not None:
                self.tombstones = ((self.token, reason),)
            self.adopt(None, None, reason)
            return
        if self.token is not None:
            self.tombstones = ((self.token, reason),)
        self.tell(EventKind.GONE, reason=reason)
        if self.wish.login is not None and self.record is not None and not self.closed_headers:
            # The user proved who they are, so they get a session: a new one. Two clicks on "log in" are the usual case,
            # and there the values to keep come along; those of a session that was ended on purpose do not.
            self.begin_anew(keep=reason is Reason.ROTATED)
            return
        self.drop_changes()
        self.reason = reason
        self.dead = True

    def login_refused(self) -> None:
        """Record that the request's log-in is not stored: the user was revoked after the request began."""
        login = self.wish.login
        self.emit(Event(kind=EventKind.LOGIN_REFUSED, user=None if login is None else login[0], reason=Reason.REVOKED))
        self.drop_changes()
        self.reason, self.dead, self.refused = Reason.REVOKED, True, True

    def save_failed(self, error: DriverUnavailable) -> None:
        """Record that a save failed. A load in the course of it has told so already."""
        if self.failure is not error:
            self.tell(EventKind.UNAVAILABLE)
        if error.outcome_unknown:  # it may have been done, so nothing of it is ever sent again
            self.failure = error
            self.finished = True

    def interrupted(self, error: BaseException) -> None:
        """Record that a save was cut short from outside, by a task's cancellation or the end of the process."""
        if not isinstance(error, Exception):
            why = f"it was interrupted by {type(error).__name__}"
            self.failure = DriverUnavailable(self.driver.name, "save", why, outcome_unknown=True)
            self.finished = True

    # -- saves that may not last --------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Remember everything that a save changes, before a save in a transaction that may not last."""
        self.changes.journal = []
        mark = {name: getattr(self, name) for name in _SAVED}
        if self.record is not None:
            mark["record"] = replace(self.record)  # a save changes the one in use
        return mark

    def release(self) -> None:
        """Forget the mark: the transaction lasts."""
        self.changes.journal = None

    def restore(self, mark: Mark) -> None:
        """Go back to *mark*: the transaction did not last. What the application did since then stays."""
        if self.dead and not mark["dead"]:
            return  # it was ended elsewhere, which our transaction does not undo
        changes: Changes = mark["changes"]
        changes.undo()
        since, wish = self.changes, self.wish
        for name, value in mark.items():
            setattr(self, name, value)
        if since is not changes:  # destroyed since
            self.end()
            self.changes = since
        self.wish = wish.over(self.wish)
