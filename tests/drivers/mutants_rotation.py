"""Drivers that are broken on purpose: how tokens are replaced."""

from __future__ import annotations

from dataclasses import replace

from coatcheck.drivers._rules import prior_state
from coatcheck.drivers.memory import MemoryDriver, _StoredSession
from coatcheck.record import (
    NEVER,
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Record,
    Value,
)

# -- rule 6


class RotationKeepsTheOldToken(MemoryDriver):
    """Gives every rotation a grace."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, delta, grace or 30.0, now)


class RotationHasNoGrace(MemoryDriver):
    """Kills the old token at once, always."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, delta, 0, now)


class RotationIsANewSession(MemoryDriver):
    """Copies the session to a new one."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        answer = super().rotate(old, new, delta, grace, now)
        if isinstance(answer, Committed):
            held = self._digests[new]
            del self._sessions[held.info.sid]
            held.info = replace(held.info, sid=new.hex()[:32], created=now)
            self._sessions[held.info.sid] = held
        return answer


class RotationRewritesValues(MemoryDriver):
    """Writes all values again, under new versions."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        answer = super().rotate(old, new, delta, grace, now)
        if isinstance(answer, Committed):
            held = self._digests[new]
            held.values = {name: Value(value.data, answer.version) for name, value in held.values.items()}
        return answer


class RotationForgetsItsChange(MemoryDriver):
    """Rotates, and leaves the change to a second step that never comes."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, Delta(), grace, now)


class RotatesBeforeAConflict(MemoryDriver):
    """Rotates first, and commits in a second step."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        answer = super().rotate(old, new, Delta(), grace, now)
        return super().commit(new, delta, now) if isinstance(answer, Committed) and delta else answer


class GraceFromTheRotation(MemoryDriver):
    """Lets the old token's time run before anybody has the new one."""

    def _move(self, held: _StoredSession, old: bytes, new: bytes, grace: float, now: float) -> None:
        super()._move(held, old, new, grace, now)
        if held.prior is not None:
            held.prior_until = now + grace


class GraceStartsAgain(MemoryDriver):
    """Lengthens the grace with every commit under the new token."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        answer = super().commit(digest, delta, now)
        held = self._digests.get(digest)
        if isinstance(answer, Committed) and held is not None and held.prior and digest == held.digest:
            held.prior_until = now + held.grace
        return answer


class GraceNeverEnds(MemoryDriver):
    """Keeps the old token for as long as the session lives."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        answer = super().commit(digest, delta, now)
        held = self._digests.get(digest)
        if held is not None and held.prior is not None and held.prior_until < NEVER:
            held.prior_until = NEVER - 1
        return answer


class TheOldTokenConfirms(MemoryDriver):
    """Takes any commit for the client's having the new token."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        held = self._digests.get(digest)
        answer = super().commit(digest, delta, now)
        if isinstance(answer, Committed) and held is not None and held.prior_until == NEVER:
            held.prior_until = now + held.grace
        return answer


class AnEmptyCommitConfirmsNothing(MemoryDriver):
    """Skips a change of nothing."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        found = self.load(digest, now)
        return Committed(1) if isinstance(found, Record) and not delta else super().commit(digest, delta, now)


class ARefusedCommitConfirms(MemoryDriver):
    """Confirms before it looks at the versions."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        if held.prior_until == NEVER and delta:
            held.prior_until = now + held.grace
        return super()._refusal(held, delta, now)


class EveryRotationIssues(MemoryDriver):
    """Gives each of twenty requests a successor of its own."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        held = self._digests.get(old)
        if held is not None and held.prior == old:
            held.rotated = -NEVER
            held.prior_until = NEVER
        return super().rotate(old, new, delta, grace, now)


class NeverReplacesALostSuccessor(MemoryDriver):
    """Leaves whoever lost a reply with a token that is never renewed."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        held = self._digests.get(old)
        if held is not None and held.prior == old and prior_state(held.prior_until, now) is None:
            return Conflict()
        return super().rotate(old, new, delta, grace, now)


class ALogInLeavesTheOtherToken(MemoryDriver):
    """Kills the token that it came by and forgets the session's second one."""

    def _move(self, held: _StoredSession, old: bytes, new: bytes, grace: float, now: float) -> None:
        other = held.digest if old == held.prior else held.prior
        super()._move(held, old, new, grace, now)
        if grace <= 0 and other is not None:
            self._digests[other] = held
            held.prior, held.prior_until = other, NEVER


class RotatesToATokenInUse(MemoryDriver):
    """Does not look whether the new digest is taken."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        if new != old:
            self._ended.pop(new, None)
            self._digests.pop(new, None)
        return super().rotate(old, new, delta, grace, now)


class RotationIsActivity(MemoryDriver):
    """Lengthens a session by rotating its token."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, replace(delta, touch=now), grace, now)
