"""Drivers that are broken on purpose: how sessions begin, end and are listed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from coatcheck.drivers.memory import MemoryDriver, _StoredSession
from coatcheck.record import (
    CLOCK_SKEW,
    NEVER,
    USER_FENCE,
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Put,
    Reason,
    Record,
    SessionInfo,
)

# -- rules 1 and 2


class ErrsOnUnknown(MemoryDriver):
    """Raises where there is no session."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        found = super().load(digest, now)
        if found == Missing(Reason.UNKNOWN):
            raise KeyError(digest)
        return found


class ForgetsReasons(MemoryDriver):
    """Deletes without a tombstone."""

    def _end(self, digest: bytes, reason: Reason, end: float, sid: str | None = None) -> None:
        pass


class LoadIsActivity(MemoryDriver):
    """Counts a look as activity."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        self.commit(digest, Delta(touch=now), now)
        return super().load(digest, now)


class SharesValues(MemoryDriver):
    """Gives its own dict away."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        found = super().load(digest, now)
        if isinstance(found, Record):
            return replace(found, values=self._digests[digest].values)
        return found

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        shared = held.values
        done = super()._apply(held, delta)
        shared.update(held.values)
        held.values = shared
        return done


class CreateOverwrites(MemoryDriver):
    """Puts a new session over the old one."""

    def create(self, record: Record, now: float) -> Answer:
        held = self._digests.get(record.digest)
        if held is not None:
            self._remove(held)
        return super().create(record, now)


class CreateTakesAnySid(MemoryDriver):
    """Does not look whether the sid is in use."""

    def create(self, record: Record, now: float) -> Answer:
        held = self._sessions.pop(record.sid, None)
        answer = super().create(record, now)
        if held is not None and not isinstance(answer, Committed):
            self._sessions[record.sid] = held
        return answer


class CreateRevives(MemoryDriver):
    """Creates over a tombstone."""

    def create(self, record: Record, now: float) -> Answer:
        self._ended.pop(record.digest, None)
        return super().create(record, now)


class RevokeForgetsTheUnknown(MemoryDriver):
    """Leaves a tombstone only for what it found."""

    def revoke(self, digest: bytes, now: float) -> bool:
        return digest in self._digests and super().revoke(digest, now)


class RacyCreate(MemoryDriver):
    """Looks first and writes later."""

    def create(self, record: Record, now: float) -> Answer:
        if isinstance(self.load(record.digest, now), Record):
            return Conflict()
        time.sleep(0.001)
        held = self._digests.get(record.digest)
        if held is not None:
            self._remove(held)
        return super().create(record, now)


# -- rules 4, 7 and 8


class Revives(MemoryDriver):
    """Writes to what has ended by making it again, as an upsert does."""

    def __init__(self) -> None:
        super().__init__()
        self._graves: dict[bytes, _StoredSession] = {}

    def _remove(self, held: _StoredSession) -> None:
        super()._remove(held)
        self._graves[held.digest] = held

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        held = self._graves.get(digest)
        if held is not None and delta.puts:
            held.prior = None
            self._sessions[held.info.sid] = self._digests[digest] = held
        return super().commit(digest, delta, now)


class RevivesTheExpired(MemoryDriver):
    """Lets a late touch or deadline save a session."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        held = self._digests.get(digest)
        if held is not None and (delta.touch is not None or delta.deadline is not None):
            self._apply(held, Delta(touch=delta.touch, deadline=delta.deadline))
        return super().commit(digest, delta, now)


class ConflictBeforeGone(MemoryDriver):
    """Says Conflict for a value that went with its session."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        answer = super().commit(digest, delta, now)
        bases = [name for name, put in delta.puts.items() if put.base]
        return Conflict(tuple(bases)) if isinstance(answer, Gone) and bases else answer


class SilentlyDropsLateWrites(MemoryDriver):
    """Says Committed to a session that has ended."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        answer = super().commit(digest, delta, now)
        return Committed(1) if isinstance(answer, Gone) else answer


class CommitCreates(MemoryDriver):
    """Makes a session for any digest that somebody writes to: session fixation."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        if self.load(digest, now) == Missing(Reason.UNKNOWN):
            self.create(Record(sid=digest.hex()[:32], digest=digest, created=now, seen=now), now)
        return super().commit(digest, delta, now)


class ExpiresWhenSwept(MemoryDriver):
    """Leaves expiry to the sweeper."""

    def _find(self, digest: bytes, now: float) -> _StoredSession | Reason:
        return super()._find(digest, -NEVER if digest in self._digests else now)


class ExpiresLate(MemoryDriver):
    """Takes the last moment for a live one."""

    def _find(self, digest: bytes, now: float) -> _StoredSession | Reason:
        return super()._find(digest, now - 0.0005 if digest in self._digests else now)


class AbsoluteFromCreation(MemoryDriver):
    """Does not start the absolute limit again at a log-in."""

    def _find(self, digest: bytes, now: float) -> _StoredSession | Reason:
        held = super()._find(digest, now)
        if isinstance(held, _StoredSession) and held.info.created + held.info.absolute <= now:
            return Reason.EXPIRED
        return held


class TouchGoesBackwards(MemoryDriver):
    """Believes whoever comes last."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        done = super()._apply(held, delta)
        if delta.touch is not None:
            held.info = replace(held.info, seen=delta.touch)
        return done


class ActivityIsNeverDue(MemoryDriver):
    """Takes `if_due` for a reason to record nothing."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return super().commit(digest, replace(delta, touch=None) if delta.if_due else delta, now)


class EveryWriteIsActivity(MemoryDriver):
    """Records activity that nobody reported."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return super().commit(digest, replace(delta, touch=now) if delta else delta, now)


class ListsTheExpired(MemoryDriver):
    """Lists whatever was not swept."""

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return super().sessions_of(user, -NEVER)

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return super().missing(sids, -NEVER)


class LateIndex(MemoryDriver):
    """Indexes a user when the session is next loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, str | None] = {}

    def load(self, digest: bytes, now: float) -> Record | Missing:
        found = super().load(digest, now)
        if isinstance(found, Record):
            self._known[found.sid] = found.user
        return found

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return [info for info in super().sessions_of(user, now) if self._known.get(info.sid) == user]


class IndexKeepsTheOldUser(MemoryDriver):
    """Adds to the index and never takes away."""

    def __init__(self) -> None:
        super().__init__()
        self._users: dict[str, set[str]] = {}

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        self._users.setdefault(held.info.user or "", set()).add(held.info.sid)
        return super()._refusal(held, delta, now)

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        sids = self._users.get(user, set())
        old = [held.info for held in self._sessions.values() if held.info.sid in sids and held.info.user != user]
        return super().sessions_of(user, now) + old


class RevokesOneDigest(MemoryDriver):
    """Revokes a token, and leaves the session to its other one."""

    def revoke(self, digest: bytes, now: float) -> bool:
        held = self._digests.get(digest)
        if held is not None and held.prior is not None and digest == held.prior:
            del self._digests[held.prior]
            held.prior = None
            self._end(digest, Reason.REVOKED, now)
            return True
        return super().revoke(digest, now)


class LogoutMissesTheSuccessor(MemoryDriver):
    """Does not follow a token that was just rotated away."""

    def revoke(self, digest: bytes, now: float) -> bool:
        with self._lock:
            found = self._find(digest, now)
        return False if found is Reason.ROTATED else super().revoke(digest, now)


class RevokesTheKept(MemoryDriver):
    """Ends the session of who asked, too."""

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return super().revoke_user(user, now)


class NoFence(MemoryDriver):
    """Lets a log-in that was on its way slip by."""

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        ended = super().revoke_user(user, now, keep=keep)
        self._fences.clear()
        return ended


class FenceForCreateOnly(MemoryDriver):
    """Lets a log-in into a session that exists slip by."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        fences, self._fences = self._fences, {}
        try:
            return super()._refusal(held, delta, now)
        finally:
            self._fences = fences


class FenceForEver(MemoryDriver):
    """Locks a revoked user out."""

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        ended = super().revoke_user(user, now, keep=keep)
        self._fences[user] = now + CLOCK_SKEW
        return ended


class FenceOfAWrongClock(MemoryDriver):
    """Takes a revocation that is dated in the far future at its word."""

    def create(self, record: Record, now: float) -> Answer:
        fence = 0.0 if record.user is None else self._fences.get(record.user, 0.0)
        return Gone(Reason.REVOKED) if fence > now + USER_FENCE else super().create(record, now)


class FenceMovesBack(MemoryDriver):
    """Forgets the later of two revocations."""

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        self._fences.pop(user, None)
        return super().revoke_user(user, now, keep=keep)


# -- rules 9, 10 and 12


class SweepsAll(MemoryDriver):
    """Takes no notice of the limit."""

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return super().sweep(now, 10**9 if limit else 0, since=since)


class SweepsTombstones(MemoryDriver):
    """Removes tombstones and fences that still count."""

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        done = super().sweep(now, limit, since=since)
        self._ended.clear()
        self._fences.clear()
        return done


class SweepForgetsTheFloor(MemoryDriver):
    """Takes no notice of `since`."""

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return super().sweep(now, limit)


class TearDownLeavesSessions(MemoryDriver):
    """Tears nothing down."""

    def tear_down(self) -> None:
        pass


class StripsBytes(MemoryDriver):
    """Stores bytes as a text column does."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        puts = {
            name: Put(put.data.split(b"\0", 1)[0] if isinstance(put.data, bytes) else put.data, put.base)
            for name, put in delta.puts.items()
        }
        return super()._apply(held, replace(delta, puts=puts))
