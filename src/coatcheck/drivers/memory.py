"""Sessions in the memory of one process: for tests, development, and programs that are one process for good.

The plainest form of the contract: one lock, a few dicts, every rule in as few lines as it takes. A child process keeps
a copy of what was there when it was forked.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import ClassVar, TypeVar

from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers._rules import (
    added,
    checked,
    cleared,
    ended_at,
    failed_bases,
    is_fenced,
    prior_state,
    raised_fence,
    rotation_refused,
)
from coatcheck.drivers.base import Capability, Driver
from coatcheck.errors import ConfigurationError
from coatcheck.record import (
    ABSENT,
    NEVER,
    TOMBSTONE,
    USER_FENCE,
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

__all__ = ["AsyncMemoryDriver", "MemoryDriver"]

T = TypeVar("T")

_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
"""What a fork waits for, so that no child inherits half a change."""


class _StoredSession:
    """One stored session."""

    __slots__ = ("digest", "grace", "info", "prior", "prior_until", "rotated", "values")

    def __init__(self, record: Record, values: dict[ValueKey, Value]) -> None:
        self.info = _info(record)
        self.digest = record.digest
        self.rotated = record.rotated
        self.values = values
        self.prior: bytes | None = None
        self.prior_until = 0.0
        self.grace = 0.0

    def is_unpresented(self, digest: bytes) -> bool:
        """Check whether *digest* is a successor that nobody presented yet."""
        return digest == self.digest and self.prior_until == NEVER


class MemoryDriver(Driver):
    """Sessions in this process's memory."""

    name: ClassVar[str] = "memory"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.SCOPE_PROCESS,
            Capability.COUNTERS,
            Capability.USER_INDEX,
            Capability.ATOMIC_REVOKE,
            Capability.SIZE_FOLLOWS_CHANGE,
        }
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self._lock)
        self._versions = itertools.count(1)  # one sequence for all, so no version is given twice
        self._sessions: dict[str, _StoredSession] = {}  # by sid
        self._digests: dict[bytes, _StoredSession] = {}  # by digest, current or prior
        self._ended: dict[bytes, tuple[Reason, float, str | None]] = {}
        self._fences: dict[str, float] = {}

    @classmethod
    def from_url(cls, url: str) -> MemoryDriver:
        """Make a driver from the URL `memory:`.

        Raises:
            ConfigurationError: The URL says more than that.
        """
        if url not in ("memory:", "memory://"):
            raise ConfigurationError("the URL for sessions in memory is memory: and takes no path and no options")
        return cls()

    def load(self, digest: bytes, now: float) -> Record | Missing:
        with self._lock:
            held = self._find(digest, now)
            if held is Reason.ROTATED:
                current = self._digests.get(digest)
                heir = current or self._sessions.get(self._ended[digest][2] or "")
                is_alive = heir is not None and heir.info.expires > now
                ended = ended_at(self._ended[digest][1]) if current is None else current.prior_until
                return Missing(held, _record(heir, b"") if heir is not None and is_alive else None, ended)
            if held is Reason.REVOKED:
                return Missing(held, ended=ended_at(self._ended[digest][1]))
            return Missing(held) if isinstance(held, Reason) else _record(held, digest)

    def create(self, record: Record, now: float) -> Answer:
        with self._lock:
            taken = self._taken(record.digest, now)
            if taken is not None:
                return taken
            if record.sid in self._sessions:
                return Conflict()
            if record.expires <= now:
                return Gone(Reason.EXPIRED)
            login = record.created if record.auth_time is None else record.auth_time
            if record.user is not None and is_fenced(self._fences.get(record.user), login, now):
                return Gone(Reason.REVOKED)
            version = next(self._versions)
            values = {name: Value(value.data, version) for name, value in record.values.items()}
            held = _StoredSession(record, values)
            self._sessions[record.sid] = self._digests[record.digest] = held
            return Committed(version)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        with self._lock:
            held = self._find(digest, now)
            if isinstance(held, Reason):
                return Gone(held)
            refusal = self._refusal(held, delta, now)
            if refusal is not None:
                return refusal
            done = self._apply(held, delta)
            if held.is_unpresented(digest):
                held.prior_until = now + held.grace  # the client has the new token: the old one's time starts to run
            return done

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        with self._lock:
            held = self._find(old, now)
            if isinstance(held, Reason):
                return Gone(held)
            if rotation_refused(held.prior_until, held.rotated, grace, now, by_prior=old != held.digest):
                return Conflict()
            if self._taken(new, now) is not None:
                return Conflict()
            refusal = self._refusal(held, delta, now)
            if refusal is not None:
                return refusal
            done = self._apply(held, delta)
            self._move(held, old, new, grace, now)
            return done

    def _move(self, held: _StoredSession, old: bytes, new: bytes, grace: float, now: float) -> None:
        for digest in (held.digest, held.prior):
            if digest is not None and (digest != old or grace <= 0):
                del self._digests[digest]
                was_over = digest == held.prior and held.prior_until < now
                self._end(digest, Reason.ROTATED, held.prior_until if was_over else now, held.info.sid)
        held.prior, held.prior_until = (old, NEVER) if grace > 0 else (None, 0.0)
        held.digest, held.grace, held.rotated = new, grace, now
        self._digests[new] = held

    def revoke(self, digest: bytes, now: float) -> bool:
        with self._lock:
            found = self._find(digest, now)
            held = self._digests.get(digest)
            if found is Reason.ROTATED:
                held = held or self._sessions.get(self._ended[digest][2] or "")
                is_live = held is not None and held.info.expires > now
            else:
                is_live = not isinstance(found, Reason)
            self._end(digest, Reason.REVOKED, now)  # also for a `create` that is still on its way
            if held is not None and (is_live or digest == held.digest):
                self._bury(held, now)
            return is_live

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        with self._lock:
            self._fences[user] = raised_fence(self._fences.get(user), now)
            ended = [held for held in self._sessions.values() if held.info.user == user and held.info.sid != keep]
            for held in ended:
                self._bury(held, now)
            return sum(held.info.expires > now for held in ended)

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        with self._lock:
            found = [self._sessions[sid] for sid in set(sids) if sid in self._sessions]
            ended = [held for held in found if user is None or held.info.user == user]
            for held in ended:
                self._bury(held, now)
            return sum(held.info.expires > now for held in ended)

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        with self._lock:
            found = [held.info for held in self._sessions.values() if held.info.user == user]
        return sorted((info for info in found if info.expires > now), key=lambda info: info.created)

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        with self._lock:
            return {sid for sid in sids if sid not in self._sessions or self._sessions[sid].info.expires <= now}

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        with self._lock:
            over = (held for held in self._sessions.values() if since <= held.info.expires <= now)
            expired = list(itertools.islice(over, max(limit, 0)))
            for held in expired:
                self._remove(held)
            self._ended = {digest: ended for digest, ended in self._ended.items() if ended[1] > now}
            self._fences = {user: at for user, at in self._fences.items() if at + USER_FENCE > now}
            return len(expired)

    def setup(self) -> None:
        """Do nothing: there is nothing to create."""

    def is_set_up(self) -> bool:
        """Return True: there is nothing to create."""
        return True

    def tear_down(self) -> None:
        """Forget all sessions."""
        with self._lock:
            for held in list(self._sessions.values()):
                self._remove(held)
            self._ended.clear()
            self._fences.clear()

    def close(self) -> None:
        """Do nothing: the sessions live as long as the driver."""

    # -- under the lock

    def _find(self, digest: bytes, now: float) -> _StoredSession | Reason:
        held = self._digests.get(digest)
        if held is None:
            reason, until, _ = self._ended.get(digest, (Reason.UNKNOWN, now, None))
            return reason if until > now else Reason.UNKNOWN
        if held.info.expires <= now:
            return Reason.EXPIRED
        over = None if digest == held.digest else prior_state(held.prior_until, now)
        return held if over is None else over

    def _taken(self, digest: bytes, now: float) -> Conflict | Gone | None:
        """Return what stands in the way of a new session or token under *digest*, or None."""
        found = self._find(digest, now)
        if isinstance(found, Reason) and found.is_tombstone:
            return Gone(found)
        return Conflict() if digest in self._digests else None

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        if delta.user is not None or delta.auth_time is not None:
            info = _changed(held.info, delta)
            login = info.created if info.auth_time is None else info.auth_time
            if info.user is not None and is_fenced(self._fences.get(info.user), login, now):
                return Gone(Reason.REVOKED)

        def version_of(name: ValueKey) -> int:
            value = held.values.get(name)
            return ABSENT if value is None else value.version

        failed = failed_bases(delta, version_of)
        return Conflict(failed) if failed else None

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        version = next(self._versions)
        values = dict(held.values)  # a refusal half-way leaves the session as it was
        for name in cleared(delta, list(values)):
            del values[name]
        for name, put in delta.puts.items():
            values[name] = Value(checked(name, put), version)
        for name in delta.drops:
            values.pop(name, None)
        counters: dict[ValueKey, int] = {}
        for name, amount in delta.increments.items():
            value = values.get(name)
            counters[name] = added(name, None if value is None else value.data, amount)
            values[name] = Value(counters[name], version)
        held.values = values
        if any(part is not None for part in (delta.touch, delta.deadline, delta.user, delta.auth_time, delta.note)):
            held.info = _changed(held.info, delta)
        return Committed(version, counters)

    def _end(self, digest: bytes, reason: Reason, end: float, sid: str | None = None) -> None:
        self._ended[digest] = (reason, end + TOMBSTONE, sid)

    def _bury(self, held: _StoredSession, now: float) -> None:
        self._end(held.digest, Reason.REVOKED, now)
        if held.prior is not None and prior_state(held.prior_until, now) is not Reason.UNKNOWN:
            self._end(held.prior, Reason.REVOKED, now)
        self._remove(held)

    def _remove(self, held: _StoredSession) -> None:
        del self._sessions[held.info.sid], self._digests[held.digest]
        if held.prior is not None:
            del self._digests[held.prior]


class AsyncMemoryDriver(AsyncFace):
    """Sessions in this process's memory, for asynchronous programs. There is nothing to wait for.

    Args:
        driver: The synchronous driver that holds the sessions, which threads may use too; one of its own by itself.
    """

    name: ClassVar[str] = MemoryDriver.name
    capabilities: ClassVar[frozenset[Capability]] = MemoryDriver.capabilities

    def __init__(self, driver: MemoryDriver | None = None) -> None:
        self.driver = driver or MemoryDriver()

    @classmethod
    def from_url(cls, url: str) -> AsyncMemoryDriver:
        """Make a driver from the URL `memory:`.

        Raises:
            ConfigurationError: The URL says more than that.
        """
        return cls(MemoryDriver.from_url(url))

    async def _do(self, operation: str, call: Callable[[], T]) -> T:  # noqa: ARG002 (all of them alike)
        return call()


def _record(held: _StoredSession, digest: bytes) -> Record:
    info = held.info
    return Record(
        sid=info.sid,
        created=info.created,
        seen=info.seen,
        deadline=info.deadline,
        idle=info.idle,
        absolute=info.absolute,
        user=info.user,
        auth_time=info.auth_time,
        note=info.note,
        digest=digest,
        values=dict(held.values),
        rotated=held.rotated,
        fresh=held.is_unpresented(digest),
        stale=digest not in (held.digest, b""),
    )


def _info(of: SessionInfo) -> SessionInfo:
    """Return the part of *of* that a list of sessions shows, as an object of its own."""
    return SessionInfo(
        sid=of.sid,
        created=of.created,
        seen=of.seen,
        deadline=of.deadline,
        idle=of.idle,
        absolute=of.absolute,
        user=of.user,
        auth_time=of.auth_time,
        note=of.note,
    )


def _changed(info: SessionInfo, delta: Delta) -> SessionInfo:
    """Return *info* after what *delta* does to it."""
    return SessionInfo(
        sid=info.sid,
        created=info.created,
        seen=info.seen if delta.touch is None else max(info.seen, delta.touch),
        deadline=info.deadline if delta.deadline is None else delta.deadline,
        idle=info.idle,
        absolute=info.absolute,
        user=info.user if delta.user is None else delta.user,
        auth_time=info.auth_time if delta.auth_time is None else delta.auth_time,
        note=info.note if delta.note is None else delta.note,
    )


def _before_fork() -> None:
    held = list(_locks)
    for lock in held:
        lock.acquire()
    _forking.append(held)


def _after_fork() -> None:
    for lock in _forking.pop():
        lock.release()


_forking: list[list[threading.Lock]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
