"""What storage said of one request's session, and what that means for the request. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from coatcheck.errors import DriverUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.record import CLOCK_SKEW, REPLY_TIME, Missing, Reason, Record

if TYPE_CHECKING:
    from coatcheck.changes import Changes
    from coatcheck.cookie import Channel
    from coatcheck.policy import Policy
    from coatcheck.revoked import Revocation
    from coatcheck.token import Token

__all__ = ["Known"]

_KINDS: Final[Mapping[Reason, EventKind]] = {
    Reason.EXPIRED: EventKind.EXPIRED,
    Reason.UNREADABLE: EventKind.UNREADABLE,
    Reason.UNKNOWN: EventKind.UNKNOWN_ID,
}


class Known:
    """What is known of a request and of the session that its cookie opens.

    Attributes:
        policy: The settings.
        channel: How the request came.
        opened: When the request came; a log-in in it is dated so, and so is a session made in it.
        place: The host and the path that the request asked for, as far as they are known.
        emit: Where events go.
        candidates: The tokens of the request that may open its session: none, one, or several under a name that others
            can set. Once a save gave it a new token, that one.
        rivals: If several cookies of the name came, the well-formed tokens of all of them.
        unsettled: Those of them of which the session could be any. Nobody knows which, so the request has none of them.
        doubled: True if several cookies of the name came, or would from now on: a new one must be the only one left.
        token: The token in force: the client's, or the one that replaced it.
        loaded: True once the question whether there is a session is answered.
        record: The session as loaded or as last written, or None.
        reason: Why the load found none.
        heir: What the client's token opened before it was rotated away; see `Missing.heir`.
        tombstones: The request's tokens that open nothing, and why. Storage is asked about them once more before a new
            session's cookie goes out: a log-in of the same browser may have been faster.
        dead: True once it is known that the session or its token ended after the request began: nothing more is
            written or sent.
        failure: What went wrong with a load, or with a save whose outcome is not known.
        raised: True once a use of the session raised an error because of that.
        revocation: The revocation that this request made before it used the session, if any.
        changes: The values and what was done to them.
    """

    # Defaults stand in the class, so that making one costs no more than what is known of the request.
    place = ("", "")
    rivals: tuple[Token, ...] = ()
    unsettled: tuple[Token, ...] = ()
    doubled = False
    record: Record | None = None
    reason: Reason | None = None
    heir: Record | None = None
    tombstones: tuple[tuple[Token, Reason], ...] = ()
    dead = False
    failure: Exception | None = None
    raised = False
    revocation: Revocation | None = None

    policy: Policy
    channel: Channel
    opened: float
    emit: Callable[[Event], None]
    candidates: list[Token]
    token: Token | None
    loaded: bool
    changes: Changes

    def adopt(self, token: Token | None, record: Record | None, reason: Reason | None) -> None:
        """Take the answer of a load."""
        self.loaded = True
        self.token = token
        self.record = record
        self.reason = reason
        self.changes.values = {} if record is None else record.values

    def answered(self, answer: Record | Missing, now: float) -> None:
        """Take the answer to the load of a request's only token: the ordinary case."""
        token = self.candidates[0]
        if isinstance(answer, Record):
            self.loaded, self.record, self.changes.values = True, answer, answer.values
        else:
            self.not_found([(token, answer)], now)
            self.heir = answer.heir

    def not_found(self, answers: Sequence[tuple[Token, Missing]], now: float) -> None:
        """Record that no token of the request opens a session.

        A request that began before its session ended is late: nothing of it is kept. One that began afterwards is a
        stranger's, and may begin a new session.
        """
        ended = [(token, answer) for token, answer in answers if answer.reason.is_tombstone]
        late = [(token, answer) for token, answer in ended if self.is_late(answer, now)]
        reasons = [answer.reason for _, answer in (late or ended or answers)]
        reason = reasons[0] if reasons else Reason.UNKNOWN
        self.tell_missing(reason)
        self.adopt(None, None, reason)
        self.dead = bool(late)
        self.tombstones = tuple((token, answer.reason) for token, answer in answers)

    def is_late(self, answer: Missing, now: float) -> bool:
        """Check whether the request began before its session, or its token, was ended on purpose.

        After a log-in or a rotation the browser may still have sent the old token when the response with the new one
        was on its way; so there the request counts as late for `REPLY_TIME` longer. The moments are compared as the
        hosts' clocks gave them, without a margin. A moment over `CLOCK_SKEW` ahead was given by a wrong clock, and
        holds nobody up.
        """
        if not answer.reason.is_tombstone:
            return False
        ended = answer.ended
        if ended is None:
            return True  # the driver does not say when
        own = self.revocation
        if ended > now + CLOCK_SKEW or (own is not None and own.is_end(ended)):
            return False
        return self.opened <= (ended + REPLY_TIME if answer.reason is Reason.ROTATED else ended)

    def load_failed(self, error: DriverUnavailable) -> None:
        """Record that a load failed: the session is unavailable to the whole request."""
        self.failure = error
        self.raised = True
        self.emit(Event(kind=EventKind.UNAVAILABLE))

    def tell_missing(self, reason: Reason) -> None:
        """Emit the event of a token that opens no session."""
        self.emit(Event(kind=_KINDS.get(reason, EventKind.GONE), reason=reason))

    def tell(self, kind: EventKind, **facts: Any) -> None:
        """Emit an event of the session that is known, if any."""
        self.emit(Event(kind=kind, sid=None if self.record is None else self.record.sid, **facts))
