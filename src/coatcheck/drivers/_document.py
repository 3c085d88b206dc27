"""A session as one document, for engines that keep it in one piece: an item of a cache, a file.

The document of a session is filed under its sid and holds everything that can change, so that one atomic replacement of
it is one atomic change. Under each digest is a pointer to the sid, which never changes: whether a digest opens the
session is for the document to say. What is left of a session that was ended on purpose is an `Ended`.

Pure functions over plain values: the drivers see to it that nobody replaces what they decided upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from coatcheck.drivers._rules import added, checked, cleared, ended_at, failed_bases, prior_state, rotation_refused
from coatcheck.record import (
    ABSENT,
    NEVER,
    TOMBSTONE,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Reason,
    Record,
    SessionInfo,
    Value,
    ValueKey,
)

__all__ = [
    "Change",
    "Document",
    "Ended",
    "Pointer",
    "encoded",
    "encoded_values",
    "ended",
    "login_of",
    "missing",
    "pointer_in",
    "reason_of",
    "record_of",
    "session_in",
    "to_commit",
    "to_create",
    "to_rotate",
    "touches_values",
    "values_in",
]

_NO_VALUES: Final = b"\x90"  # an empty list


class Document(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A session.

    Attributes:
        sid: As in `SessionInfo`, and so the ones that follow.
        digest: The digest of the present token.
        rotated: When the present token was issued.
        prior: The digest before that, where it may still be good.
        prior_until: The end of its grace; `NEVER` while the present token was not presented.
        grace: The length of that grace.
        version: The version of the last write. Counted, so none is given twice in the life of a session.
        past: Digests that were rotated away, each with the end of its tombstone.
        values: The values, encoded; or the number under which the driver keeps them elsewhere.
        note: As in `SessionInfo`. Last, since a document is a list and one from an older coatcheck ends before it.
    """

    sid: str
    created: float
    seen: float
    deadline: float
    idle: float
    absolute: float
    user: str | None
    auth_time: float | None
    digest: bytes
    rotated: float
    prior: bytes | None = None
    prior_until: float = 0.0
    grace: float = 0.0
    version: int = 1
    past: tuple[tuple[bytes, float], ...] = ()
    values: bytes | int = _NO_VALUES
    note: bytes = b""

    @property
    def info(self) -> SessionInfo:
        """The session as a list shows it."""
        return SessionInfo(
            sid=self.sid,
            created=self.created,
            seen=self.seen,
            deadline=self.deadline,
            idle=self.idle,
            absolute=self.absolute,
            user=self.user,
            auth_time=self.auth_time,
            note=self.note,
        )

    @property
    def expires(self) -> float:
        """See `SessionInfo.expires`."""
        return self.info.expires

    @property
    def digests(self) -> tuple[bytes, ...]:
        """All digests that the document knows of."""
        known = (self.digest,) if self.prior is None else (self.digest, self.prior)
        return (*known, *(digest for digest, _ in self.past))

    def is_fresh(self, digest: bytes) -> bool:
        """Return whether *digest* is a successor that nobody presented yet."""
        return digest == self.digest and self.prior_until == NEVER


class Ended(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """What is left where somebody ended a session, or forbade one that is still to come.

    Attributes:
        until: The end of the tombstone.
        digests: The digests that the session had.
    """

    until: float
    digests: tuple[bytes, ...] = ()


class Pointer(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """What stands under a digest: the sid of the session that may know it."""

    sid: str


class Change(NamedTuple):
    """A change that may be written.

    Attributes:
        document: The document as it will be, but for its `values`.
        values: The new values, or None if they stay as they are.
        done: The answer.
    """

    document: Document
    values: Mapping[ValueKey, Value] | None
    done: Committed


_Row = tuple[str, str, bytes | int, int]

_encoder: Final = msgspec.msgpack.Encoder()
_session_decoder: Final[msgspec.msgpack.Decoder[Document | Ended]] = msgspec.msgpack.Decoder(Document | Ended)
_pointer_decoder: Final[msgspec.msgpack.Decoder[Pointer | Ended]] = msgspec.msgpack.Decoder(Pointer | Ended)
_values_decoder: Final = msgspec.msgpack.Decoder(list[_Row])
_SPOILT: Final = (msgspec.DecodeError, UnicodeDecodeError)


def encoded(what: Document | Ended | Pointer) -> bytes:
    """Return the bytes to store."""
    return _encoder.encode(what)


def encoded_values(values: Mapping[ValueKey, Value]) -> bytes:
    """Return the values as bytes."""
    return _encoder.encode([(app, key, data, version) for (app, key), (data, version) in values.items()])


def session_in(data: bytes) -> Document | Ended | None:
    """Return what *data*, stored under a sid, says; None if it makes no sense."""
    try:
        return _session_decoder.decode(data)
    except _SPOILT:
        return None


def pointer_in(data: bytes) -> Pointer | Ended | None:
    """Return what *data*, stored under a digest, says; None if it makes no sense."""
    try:
        return _pointer_decoder.decode(data)
    except _SPOILT:
        return None


def values_in(data: bytes) -> dict[ValueKey, Value] | None:
    """Return the values that `encoded_values` made *data* of; None if it makes no sense."""
    try:
        rows = _values_decoder.decode(data)
    except _SPOILT:
        return None
    return {(app, key): Value(held, version) for app, key, held, version in rows}


# -- what a digest opens


def reason_of(session: Document | Ended, digest: bytes, now: float) -> Reason | None:
    """Return why *digest* does not open a session, or None if it does."""
    if isinstance(session, Ended):
        return Reason.REVOKED if session.until > now else Reason.UNKNOWN
    if digest in (session.digest, session.prior):
        if session.expires <= now:
            return Reason.EXPIRED
        return None if digest == session.digest else prior_state(session.prior_until, now)
    until = dict(session.past).get(digest, 0.0)
    return Reason.ROTATED if until > now else Reason.UNKNOWN


def record_of(session: Document, values: Mapping[ValueKey, Value], digest: bytes, basis: object = None) -> Record:
    """Return the session as *digest* loads it; b"" for the heir of one that was rotated away."""
    return Record(
        sid=session.sid,
        created=session.created,
        seen=session.seen,
        deadline=session.deadline,
        idle=session.idle,
        absolute=session.absolute,
        user=session.user,
        auth_time=session.auth_time,
        note=session.note,
        digest=digest,
        values=values,
        rotated=session.rotated,
        fresh=session.is_fresh(digest),
        stale=digest not in (session.digest, b""),
        basis=basis,
    )


def missing(
    session: Document | Ended, digest: bytes, now: float, values: Mapping[ValueKey, Value] | None = None
) -> Missing:
    """Return the answer to a load of a digest that opens no session.

    Args:
        session: What is there.
        digest: The digest.
        now: The present moment.
        values: Its values, for an heir.
    """
    reason = reason_of(session, digest, now) or Reason.UNKNOWN
    if isinstance(session, Ended):
        return Missing(reason, ended=ended_at(session.until) if reason.is_tombstone else None)
    if reason is not Reason.ROTATED:
        return Missing(reason)
    is_alive = values is not None and session.expires > now
    heir = record_of(session, values, b"") if values is not None and is_alive else None
    over = session.prior_until if digest == session.prior else ended_at(dict(session.past)[digest])
    return Missing(reason, heir, over)


# -- changes


def touches_values(delta: Delta) -> bool:
    """Return whether the values are needed in order to apply *delta*."""
    return bool(delta.puts or delta.drops or delta.increments or delta.clears or delta.clear_all)


def to_create(record: Record) -> tuple[Document, dict[ValueKey, Value]]:
    """Return a new session and its values."""
    first = Document(
        sid=record.sid,
        created=record.created,
        seen=record.seen,
        deadline=record.deadline,
        idle=record.idle,
        absolute=record.absolute,
        user=record.user,
        auth_time=record.auth_time,
        digest=record.digest,
        rotated=record.rotated,
        note=record.note,
    )
    return first, {name: Value(value.data, first.version) for name, value in record.values.items()}


def login_of(session: Document, delta: Delta) -> tuple[str, float] | None:
    """Return the user and the moment of the log-in that *delta* is, or None if it is none."""
    if delta.user is None and delta.auth_time is None:
        return None
    user = session.user if delta.user is None else delta.user
    moment = delta.auth_time
    if moment is None:  # a user without a moment: as old as the session
        moment = session.created if session.auth_time is None else session.auth_time
    return None if user is None else (user, moment)


def to_commit(
    session: Document, values: Mapping[ValueKey, Value] | None, digest: bytes, delta: Delta, now: float
) -> Change | Gone | Conflict:
    """Return what a commit writes, or why it is refused.

    Args:
        session: What is stored.
        values: Its values; None if `touches_values` says that they are not needed.
        digest: The digest that the change came under.
        delta: The change.
        now: The present moment.

    Raises:
        CounterError: An increment cannot be done.
    """
    reason = reason_of(session, digest, now)
    if reason is not None:
        return Gone(reason)
    change = _applied(session, values, delta, now)
    if isinstance(change, Conflict) or not session.is_fresh(digest):
        return change
    # the client has the new token: the old one's time starts to run
    until = now + session.grace
    return change._replace(document=msgspec.structs.replace(change.document, prior_until=until))


def to_rotate(
    session: Document,
    values: Mapping[ValueKey, Value] | None,
    old: bytes,
    new: bytes,
    delta: Delta,
    *,
    grace: float,
    now: float,
) -> Change | Gone | Conflict:
    """Return what a rotation writes, or why it is refused; see `to_commit`. *new* is free.

    Raises:
        CounterError: An increment cannot be done.
    """
    reason = reason_of(session, old, now)
    if reason is not None:
        return Gone(reason)
    if rotation_refused(session.prior_until, session.rotated, grace, now, by_prior=old != session.digest):
        return Conflict()
    change = _applied(session, values, delta, now)
    if isinstance(change, Conflict):
        return change
    over = [
        (digest, min(now, session.prior_until) if digest == session.prior else now)
        for digest in (session.digest, session.prior)
        if digest is not None and (digest != old or grace <= 0)
    ]
    document = msgspec.structs.replace(
        change.document,
        digest=new,
        rotated=now,
        prior=old if grace > 0 else None,
        prior_until=NEVER if grace > 0 else 0.0,
        grace=grace,
        past=_remembered((*session.past, *((digest, end + TOMBSTONE) for digest, end in over)), now),
    )
    return change._replace(document=document)


def ended(session: Document | None, now: float) -> Ended:
    """Return what stands in the place of *session* once it is ended; None for one that cannot be read."""
    return Ended(now + TOMBSTONE, () if session is None else session.digests)


def _remembered(past: Iterable[tuple[bytes, float]], now: float) -> tuple[tuple[bytes, float], ...]:
    return tuple((digest, until) for digest, until in past if until > now)


def _applied(session: Document, values: Mapping[ValueKey, Value] | None, delta: Delta, now: float) -> Change | Conflict:
    version = session.version + 1
    after: dict[ValueKey, Value] | None = None
    counters: dict[ValueKey, int] = {}
    if touches_values(delta):
        before = values or {}

        def version_of(name: ValueKey) -> int:
            value = before.get(name)
            return ABSENT if value is None else value.version

        failed = failed_bases(delta, version_of)
        if failed:
            return Conflict(failed)
        after = dict(before)
        for name in cleared(delta, before):
            del after[name]
        for name, put in delta.puts.items():
            after[name] = Value(checked(name, put), version)
        for name in delta.drops:
            after.pop(name, None)
        for name, amount in delta.increments.items():
            held = after.get(name)
            counters[name] = added(name, None if held is None else held.data, amount)
            after[name] = Value(counters[name], version)
    document = msgspec.structs.replace(
        session,
        version=version,
        seen=session.seen if delta.touch is None else max(session.seen, delta.touch),
        deadline=session.deadline if delta.deadline is None else delta.deadline,
        user=session.user if delta.user is None else delta.user,
        auth_time=session.auth_time if delta.auth_time is None else delta.auth_time,
        note=session.note if delta.note is None else delta.note,
        past=_remembered(session.past, now),
    )
    return Change(document, after, Committed(version, counters))
