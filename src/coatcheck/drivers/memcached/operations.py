"""The operations of the contract on memcached, without I/O.

A session is one item, replaced by compare-and-swap. A digest is a small item that names the sid and never changes. A
session ends by a swap to a tombstone, never by deleting: so a write in flight finds out, and one that would bring it
back finds its place taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from coatcheck.drivers._document import (
    Change,
    Document,
    Ended,
    Pointer,
    encoded,
    encoded_values,
    ended,
    missing,
    pointer_in,
    reason_of,
    record_of,
    session_in,
    to_commit,
    to_create,
    to_rotate,
    touches_values,
    values_in,
)
from coatcheck.drivers._steps import Operations, Steps
from coatcheck.drivers.base import Capability
from coatcheck.drivers.memcached.requests import Contended, Delete, Get, Item, ItemKeys, Lines, StoreItem, Touch
from coatcheck.errors import ConfigurationError, CounterError, UnsupportedCapability
from coatcheck.record import (
    Answer,
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

__all__ = ["MemcachedOperations"]

NAME: Final = "memcached"
SLACK: Final = 300.0
"""Seconds for which the server keeps an item after its time, since no two clocks agree. Longer than any tombstone."""

LONGEST_TTL: Final = 30 * 86400
"""Seconds. A longer TTL means a moment by the server's own clock, so it is never sent."""

_MANY: Final = 50
"""Sessions fetched in one request."""

LEAST_ITEM: Final = 1 << 20
"""Bytes that an item may have where nobody changed it."""

REMEDY: Final = "use Redis, a SQL engine or the file system where the sessions of a user have to be found"


class _Fetched(NamedTuple):
    """A session as it was read, and the number that its next write has to name."""

    document: Document
    cas: int


_Decide = Callable[[Document, Mapping[ValueKey, Value] | None], Change | Gone | Conflict]


class MemcachedOperations(Operations):
    """The operations on the items with one prefix.

    Args:
        keys: The keys.
        names: The servers' names, for messages.
    """

    def __init__(self, keys: ItemKeys, names: tuple[str, ...]) -> None:
        self._keys: Final = keys
        self._names: Final = names

    # -- reading

    def load(self, digest: bytes, now: float) -> Steps[Record | Missing]:
        """See `Driver.load`."""
        sid = yield from self._sid(digest, now)
        if isinstance(sid, Missing):
            return sid
        item = yield from self._get(self._keys.of_session(sid))
        session = None if item is None else session_in(item.data)
        if item is None or session is None:
            return Missing(Reason.UNKNOWN if item is None else Reason.UNREADABLE)
        reason = reason_of(session, digest, now)
        if isinstance(session, Ended) or reason not in (None, Reason.ROTATED):
            return missing(session, digest, now)
        values = _values(session)
        if reason is not None:
            return missing(session, digest, now, values)
        if values is None:
            return Missing(Reason.UNREADABLE)
        return record_of(session, values, digest, _Fetched(session, item.cas))

    def missing(self, sids: Iterable[str], now: float) -> Steps[set[str]]:
        """See `Driver.missing`."""
        wanted = {self._keys.of_session(sid): sid for sid in sids}
        found = set(wanted.values())
        by_server: dict[int, list[str]] = {}
        for key in wanted:
            by_server.setdefault(self._keys.server(key), []).append(key)
        for server, keys in by_server.items():
            for start in range(0, len(keys), _MANY):
                items: dict[str, Item] = yield Get(server, tuple(keys[start : start + _MANY]))
                for key, item in items.items():
                    session = session_in(item.data)
                    if isinstance(session, Document) and session.expires > now:
                        found.discard(wanted[key])
        return found

    def _get(self, key: str) -> Steps[Item | None]:
        items: dict[str, Item] = yield Get(self._keys.server(key), (key,))
        return items.get(key)

    def _sid(self, digest: bytes, now: float) -> Steps[str | Missing]:
        """Return the sid that *digest* names, or why it names none."""
        item = yield from self._get(self._keys.of_digest(digest))
        if item is None:
            return Missing(Reason.UNKNOWN)
        pointer = pointer_in(item.data)
        if isinstance(pointer, Pointer):
            return pointer.sid
        return Missing(Reason.UNREADABLE) if pointer is None else missing(pointer, digest, now)

    # -- writing

    def create(self, record: Record, now: float) -> Steps[Answer]:
        """See `Driver.create`. The pointer comes first: alone it opens nothing, and nobody else can have the digest."""
        if record.expires <= now:
            return Gone(Reason.EXPIRED)
        session, values = to_create(record)
        if not (yield from self._point(record.digest, session)):
            return (yield from self._taken(record.digest, now))
        session = replace(session, values=encoded_values(values))
        key = self._keys.of_session(session.sid)
        if (yield from self._store(key, session, now, None)):
            return Committed(session.version)
        item = yield from self._get(key)
        found = None if item is None else session_in(item.data)
        return Gone(Reason.REVOKED) if isinstance(found, Ended) else Conflict()

    def _taken(self, digest: bytes, now: float) -> Steps[Answer]:
        """Return what stands under a digest that is not free."""
        sid = yield from self._sid(digest, now)
        if isinstance(sid, Missing):
            return Gone(sid.reason) if sid.reason.is_tombstone else Conflict()
        item = yield from self._get(self._keys.of_session(sid))
        found = None if item is None else session_in(item.data)
        reason = None if found is None else reason_of(found, digest, now)
        return Gone(reason) if reason is not None and reason.is_tombstone else Conflict()

    def commit(self, digest: bytes, delta: Delta, now: float) -> Steps[Answer]:
        """See `Driver.commit`."""

        def decide(session: Document, values: Mapping[ValueKey, Value] | None) -> Change | Gone | Conflict:
            return to_commit(session, values, digest, delta, now)

        return self._change(digest, delta, now, decide)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        """See `Driver.rotate`. The pointer comes first: alone it opens nothing."""

        def decide(session: Document, values: Mapping[ValueKey, Value] | None) -> Change | Gone | Conflict:
            return to_rotate(session, values, old, new, delta, grace=grace, now=now)

        return self._change(old, delta, now, decide, new)

    def _change(
        self, digest: bytes, delta: Delta, now: float, decide: _Decide, new: bytes | None = None
    ) -> Steps[Answer]:
        """Change a session as *decide* says; *new* is a digest to point at it first."""
        held = delta.basis if isinstance(delta.basis, _Fetched) else None
        sid: str | None = None
        while True:
            # What was loaded will do for a write, since the server refuses it if anybody wrote meanwhile. A refusal
            # has to be based on what is there now.
            is_current = held is None
            if held is None:
                found = yield from self._read(digest, sid, now)
                if isinstance(found, Reason):
                    return Gone(found)
                held = found
            decision = _decided(decide, held.document, delta, is_current=is_current)
            if isinstance(decision, Change):
                sid = held.document.sid
                if new is not None:
                    if not (yield from self._point(new, held.document)):
                        return Conflict()
                    new = None
                if (yield from self._swap(held, decision, now)):
                    return decision.done
                if is_current:
                    yield Contended()
            elif decision is not None:
                return decision
            held = None

    def _read(self, digest: bytes, sid: str | None, now: float) -> Steps[_Fetched | Reason]:
        """Return the session under *digest*, whose sid may be known, or why there is none."""
        if sid is None:
            named = yield from self._sid(digest, now)
            if isinstance(named, Missing):
                return named.reason
            sid = named
        item = yield from self._get(self._keys.of_session(sid))
        if item is None:
            return Reason.UNKNOWN
        session = session_in(item.data)
        if isinstance(session, Document):
            return _Fetched(session, item.cas)
        return Reason.UNREADABLE if session is None else reason_of(session, digest, now) or Reason.UNKNOWN

    def _swap(self, held: _Fetched, change: Change, now: float) -> Steps[bool]:
        """Write *change* in the place of *held*; False where somebody else wrote first."""
        document = change.document
        if change.values is not None:
            document = replace(document, values=encoded_values(change.values))
        ttl = _ttl(document.idle)
        if ttl and document.seen > held.document.seen:
            for digest in document.digests[: 1 if document.prior is None else 2]:
                key = self._keys.of_digest(digest)
                yield Touch(self._keys.server(key), key, ttl)
        return (yield from self._store(self._keys.of_session(document.sid), document, now, held.cas))

    def _store(self, key: str, what: Document | Ended, now: float, cas: int | None) -> Steps[bool]:
        end = what.until if isinstance(what, Ended) else what.expires
        return bool((yield StoreItem(self._keys.server(key), key, encoded(what), _ttl(end - now), cas)))

    def _point(self, digest: bytes, session: Document) -> Steps[bool]:
        """Make the pointer of *digest*; False where something is there.

        However long the session lives, this is the most that it can live after its last activity. Nothing shorter would
        do: of two writers one may give it less time after the other gave it more.
        """
        key = self._keys.of_digest(digest)
        pointer = encoded(Pointer(session.sid))
        return bool((yield StoreItem(self._keys.server(key), key, pointer, _ttl(session.idle), None)))

    # -- ending

    def revoke(self, digest: bytes, now: float) -> Steps[bool]:
        """See `Driver.revoke`. The tombstone takes the place of what is not there yet, too."""
        key = self._keys.of_digest(digest)
        while True:
            item = yield from self._get(key)
            pointer = None if item is None else pointer_in(item.data)
            if isinstance(pointer, Pointer):
                was_live = yield from self._end(pointer.sid, digest, now)
                if was_live is not None:
                    return was_live
            elif (yield from self._store(key, ended(None, now), now, None if item is None else item.cas)):
                return False
            yield Contended()

    def _end(self, sid: str, digest: bytes, now: float) -> Steps[bool | None]:
        """End the session that *digest* names; tell whether it was live, None where somebody else wrote first."""
        key = self._keys.of_session(sid)
        item = yield from self._get(key)
        session = None if item is None else session_in(item.data)
        was_live = False
        document = session if isinstance(session, Document) else None
        if document is not None:
            reason = reason_of(document, digest, now)
            if reason is Reason.UNKNOWN:
                return False  # rotated away too long ago
            was_live = document.expires > now
        done = yield from self._store(key, ended(document, now), now, None if item is None else item.cas)
        return was_live if done else None

    def revoke_user(self, user: str, now: float, keep: str | None) -> Steps[int]:  # noqa: ARG002 (cannot be done)
        """Raise `UnsupportedCapability`: nothing leads from a user to the sessions."""
        raise UnsupportedCapability(NAME, Capability.USER_INDEX, REMEDY)

    def end(self, sids: Iterable[str], now: float, user: str | None) -> Steps[int]:
        """See `Driver.end`."""
        count = 0
        for sid in set(sids):
            while True:
                key = self._keys.of_session(sid)
                item = yield from self._get(key)
                session = None if item is None else session_in(item.data)
                if item is None or not isinstance(session, Document) or user not in (None, session.user):
                    break
                if (yield from self._store(key, ended(session, now), now, item.cas)):
                    count += session.expires > now
                    break
                yield Contended()
        return count

    def sessions_of(self, user: str, now: float) -> Steps[list[SessionInfo]]:  # noqa: ARG002 (cannot be done)
        """Raise `UnsupportedCapability`: nothing leads from a user to the sessions."""
        raise UnsupportedCapability(NAME, Capability.USER_INDEX, REMEDY)

    def sweep(self, now: float, limit: int, since: float) -> Steps[int]:  # noqa: ARG002 (nothing to do)
        """Return 0: memcached forgets by itself."""
        yield from ()
        return 0

    # -- the servers

    def setup(self) -> Steps[None]:
        """Check that every server can be reached and does compare-and-swap."""
        for number, name in enumerate(self._names):
            settings = yield from self._statistics(number, "stats settings")
            if settings.get("cas_enabled", "yes") != "yes":
                raise ConfigurationError(f"memcached at {name} runs without compare-and-swap: start it without -C")

    def is_set_up(self) -> Steps[bool]:
        """Return True where every server can be reached: there is nothing to create."""
        for number in range(len(self._names)):
            yield from self._statistics(number, "stats settings")
        return True

    def tear_down(self) -> Steps[None]:
        """Delete every item that has one of our keys, and nothing else. A write in flight finds its item gone."""
        for number in range(len(self._names)):
            lines: list[str] = yield Lines(number, "lru_crawler metadump all")
            for line in lines:
                key = line.partition(" ")[0].removeprefix("key=")
                if self._keys.is_ours(key):
                    yield Delete(number, key)

    def advice(self) -> Steps[list[str]]:
        """See `Driver.advice`."""
        advice: list[str] = []
        for number, name in enumerate(self._names):
            settings = yield from self._statistics(number, "stats settings")
            counts = yield from self._statistics(number, "stats")
            if int(counts.get("evictions", "0")):
                advice.append(
                    f"memcached at {name} has evicted {counts['evictions']} items for want of memory, sessions perhaps"
                    " among them: give it more (-m), or a server of its own to the sessions"
                )
            if int(settings.get("item_size_max", LEAST_ITEM)) < LEAST_ITEM:
                advice.append(
                    f"memcached at {name} takes items of {settings['item_size_max']} bytes at most, and a session is"
                    " one item: start it with -I 1m"
                )
        return advice

    def _statistics(self, server: int, command: str) -> Steps[dict[str, str]]:
        lines: list[str] = yield Lines(server, command)
        said = (line.removeprefix("STAT ").partition(" ") for line in lines)
        return {name: value for name, _, value in said}


def _decided(decide: _Decide, session: Document, delta: Delta, *, is_current: bool) -> Change | Gone | Conflict | None:
    """Return what *decide* says; None for a refusal that what is there now may not deserve."""
    values = _values(session) if touches_values(delta) else None
    if values is None and touches_values(delta):
        return Gone(Reason.UNREADABLE)
    try:
        decision = decide(session, values)
    except CounterError:
        if is_current:
            raise
        return None
    return decision if is_current or isinstance(decision, Change) else None


def _values(session: Document) -> dict[ValueKey, Value] | None:
    return values_in(session.values) if isinstance(session.values, bytes) else None


def _ttl(seconds: float) -> int:
    """Return the TTL of something that has that long to live; 0 for never."""
    ttl = math.ceil(max(seconds, 0.0) + SLACK)
    return ttl if ttl <= LONGEST_TTL else 0
