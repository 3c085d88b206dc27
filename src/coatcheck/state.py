"""What is known of one request's session: shared by the application's `Session` and the plan that saves it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import ref

from coatcheck.changes import Changes
from coatcheck.errors import SessionNotLoaded, SessionUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.record import Reason
from coatcheck.revoked import Revocation, Revocations
from coatcheck.token import Token, new_sid

if TYPE_CHECKING:
    from coatcheck.codec import Codec
    from coatcheck.cookie import Channel
    from coatcheck.drivers.base import AsyncDriver, Driver
    from coatcheck.policy import Policy
    from coatcheck.record import Record, Value, ValueKey
    from coatcheck.snapshot import Settled

__all__ = ["MOST_DRAWS", "LentSave", "Mark", "State"]

MOST_DRAWS: Final = 64
"""How many tokens are drawn at most until one belongs to a server that is not known to be down."""

Mark = dict[str, Any]
"""A `State` to go back to."""

_SAVED: Final = (
    "candidates",
    "changes",
    "dead",
    "deadline",
    "ended",
    "ended_unread",
    "loaded",
    "login",
    "reason",
    "record",
    "rotate",
    "token",
    "tombstones",
    "unsettled",
    "wanted",
)
"""What a save changes in a `State`."""

_WISHES: Final = ("deadline", "login", "rotate", "wanted")
"""What a session asks of its next save, besides its values."""


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


class State:
    """One request's session.

    Attributes:
        policy: The settings.
        channel: How the request came.
        opened: When the request came; a log-in in it is dated so, and so is a session made in it.
        candidates: The tokens of the request that may open its session: none, one, or several under a name that others
            can set. Once a save gave it a new token, that one.
        rivals: Where several cookies of the name came, the well-formed tokens of all of them.
        unsettled: Those of them of which the session could be any. Nobody knows which, so the request has none of them.
        doubled: True where several cookies of the name came, or would from now on: a new one must be the only one left.
        place: The host and the path that the request asked for, as far as they are known.
        token: The token in force: the client's, or the one that replaced it.
        record: The session as loaded or as last written, or None.
        reason: Why the load found none.
        heir: What the client's token opened before it was rotated away; see `Missing.heir`.
        loaded: True once the question whether there is a session is answered.
        failure: What went wrong with the load.
        raised: True once a use of the session raised an error because of that.
        changes: The values and what was done to them.
        used: True once the application read, probed or wrote; the response then varies with the cookie.
        dead: True once it is known that the session or its token ended after the request began: nothing more is
            written or sent.
        tombstones: The request's tokens that open nothing, and why. Storage is asked about them once more before a new
            session's cookie goes out: a log-in of the same browser may have been faster.
        reserved: The token and the sid of the session that is still to be made, if either was needed before.
        refused: True if the request's log-in was refused because the user was revoked meanwhile.
        ended: The tokens of the session that this request destroyed and that are still to be revoked: of several that
            the client sent, all.
        ended_info: The sid and user of that session, where they are known.
        was_ended: True if this request ended its session by a revocation of the user, and the cookie is to be deleted.
        ended_unread: True where nobody looked whether there was one.
        login: The user to log in and the moment, still to be written.
        rotate: True where a new token is due, whatever the policy says.
        deadline: A new deadline that is still to be written.
        wanted: True where a new session is to be stored even without a value in it.
        closed_headers: True once the response's headers are out, so that no cookie can be set any more.
        wrote: True once something was written to storage.
        lent: The saves on connections of the application's that may be undone; see `lending`.
        over: True once nothing of the application runs any more, so that nothing is saved after the present save.
        emit: Where events go.
        clock: Returns the present moment.
        revocations: What this thread or task has revoked. Each manager has one, so it says whose session this is.
        revocations_seen: How many revocations there were when this request last looked at them.
        revocation: The one that this request made before it used the session, if any.
        spared: The last revocation that was told to keep this session, and was given the session itself.
        rotation_bits: How many leading bits the digests and the sid of a session share; see `Driver.rotation_bits`.
    """

    # Defaults stand in the class, so that making a State costs no more than what is known of the request.
    revocation: Revocation | None = None
    spared: Revocation | None = None
    revocations_seen = 0
    loader: Callable[[Any, State], None] | None = None
    driver: Driver | AsyncDriver | None = None
    record: Record | None = None
    reason: Reason | None = None
    heir: Record | None = None
    rivals: tuple[Token, ...] = ()
    unsettled: tuple[Token, ...] = ()
    doubled = False
    place = ("", "")
    failure: Exception | None = None
    raised = False
    used = False
    dead = False
    tombstones: tuple[tuple[Token, Reason], ...] = ()
    reserved: tuple[Token, str] | None = None
    refused = False
    ended: tuple[Token, ...] = ()
    ended_info: tuple[str | None, str | None] = (None, None)
    ended_unread = False
    was_ended = False
    login: tuple[str, float] | None = None
    rotate = False
    deadline: float | None = None
    wanted = False
    closed_headers = False
    wrote = False
    lent: tuple[LentSave, ...] = ()
    over = False
    clock: Callable[[], float] = time.time
    revocations = Revocations()
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

    def load(self) -> None:
        """Make sure that it is known whether there is a session.

        Raises:
            SessionUnavailable: An earlier attempt in this request failed.
            SessionNotLoaded: Only ``await session.load()`` can load here.
            DriverUnavailable: Storage failed.
        """
        self.check()
        if not self.loaded:
            if self.loader is None:
                raise SessionNotLoaded
            self.loader(self.driver, self)

    def check(self) -> None:
        """Note a use of the session.

        Raises:
            SessionUnavailable: The session could not be loaded.
        """
        self.used = True
        if self.failure is not None:
            self.raised = True
            raise SessionUnavailable(was_saved=self.over) from self.failure
        if self.revocations.count != self.revocations_seen:
            self._look_at_revocations()

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

    def adopt(self, token: Token | None, record: Record | None, reason: Reason | None) -> None:
        """Take the answer of a load."""
        self.loaded = True
        self.token = token
        self.record = record
        self.reason = reason
        self.changes.values = {} if record is None else record.values

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
        self.record = self.token = self.reserved = self.login = self.reason = None
        self.candidates, self.loaded, self.rotate = [], True, False
        self.changes = self._no_changes()
        self.token = Token.new() if self.dead else self.reserve()[0]
        self.used, self.wanted, self.deadline = True, not self.dead, deadline

    @property
    def sid(self) -> str | None:
        """The public name of the session, also of one that a log-in is going to make; None if there is none."""
        if self.record is not None:
            return self.record.sid
        return self.reserve()[1] if self.login is not None and self.loaded else None

    def end(self) -> None:
        """Note that the session is to be destroyed, and go on as a request without one."""
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
        self.token = self.record = self.login = self.deadline = self.reserved = None
        self.rotate = self.wanted = False
        self.changes = self._no_changes()

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
        since = {name: getattr(self, name) for name in ("changes", *_WISHES)}
        for name, value in mark.items():
            setattr(self, name, value)
        if since["changes"] is not changes:  # destroyed since
            self.end()
            self.changes = since["changes"]
        for name in _WISHES:
            if since[name] is not None and since[name] is not False:
                setattr(self, name, since[name])

    def begin_anew(self, *, keep: bool) -> None:
        """Make of the changes those of a session that is still to be made: the one that they were for has ended.

        Args:
            keep: True takes along the values that the log-in was to keep.
        """
        if self.heir is not None and self.login is not None and self.heir.user == self.login[0]:
            # The same user logged in a moment ago, and the answer with the new token is still on its way.
            self.changes.values, keep = self.heir.values, True
        self.changes.begin_anew(keep=keep)
        self.record = self.token = self.reason = None
        self.loaded = True
        self.dead = False

    def drop_changes(self) -> None:
        """Give up what was to be written."""
        self.changes = self._no_changes()
        self.login = self.deadline = None
        self.rotate = self.wanted = False

    def _no_changes(self) -> Changes:
        return Changes(self._codec, self.policy.max_value_bytes, ref(self), {})

    def fetch(self) -> Mapping[ValueKey, Value]:
        """Load the snapshot that the changes stand on, and give it."""
        self.load()
        if self.changes.values is None:  # written unread, or new
            self.changes.values = {}
        return self.changes.values

    def unreadable(self, name: ValueKey) -> None:
        """Tell of a value that no longer decodes."""
        sid = None if self.record is None else self.record.sid
        self.emit(Event(kind=EventKind.UNREADABLE, sid=sid, keys=(name,)))
