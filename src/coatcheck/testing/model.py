"""A plain model of the contract: what a driver has to answer, worked out in the simplest way.

It stores nothing, locks nothing and shares no code with a driver. To each question it gives the set of right answers:
more than one where the contract leaves it open, as for the reason once a tombstone is past its time.
"""

# ruff: noqa: S101 (asserts are what tests are made of)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from coatcheck.errors import CounterOverflow, NotACounter
from coatcheck.record import (
    ABSENT,
    COUNTER_MAX,
    COUNTER_MIN,
    NEVER,
    TOMBSTONE,
    USER_FENCE,
    Committed,
    Conflict,
    Delta,
    Gone,
    Reason,
    Record,
    Value,
    ValueKey,
    is_spared,
)

__all__ = ["Model", "ModelSession", "Refusal"]

Refusal = Conflict | Gone | type[NotACounter] | type[CounterOverflow]
"""A right answer to a write that is not done."""


@dataclass
class ModelSession:
    """One session of the model.

    Attributes:
        record: The session as its current token loads it.
        prior: The token before that, while it still works.
        prior_until: The end of its grace; `NEVER` while the current one was not presented.
        grace: The length of that grace.
        is_over: True once somebody ended the session on purpose.
        may_be_swept: True if a driver may have removed what is left of it.
        versions: Every version that a write of a name ever had.
    """

    record: Record
    prior: bytes | None = None
    prior_until: float = 0.0
    grace: float = 0.0
    is_over: bool = False
    may_be_swept: bool = False
    versions: dict[ValueKey, set[int]] = field(default_factory=dict)

    def is_live(self, now: float) -> bool:
        """Return whether the session is there."""
        return not self.is_over and self.record.expires > now


@dataclass
class _Fate:
    """What became of a token that opens nothing any more.

    Attributes:
        until: For each reason, how long storage has to remember it.
        open: Reasons that are as good, at any time.
    """

    until: dict[Reason, float] = field(default_factory=dict)
    open: set[Reason] = field(default_factory=set)


class Model:
    """What is stored, if the driver is right."""

    def __init__(self) -> None:
        self.sessions: dict[str, ModelSession] = {}
        self.owners: dict[bytes, str] = {}
        self.fences: dict[str, float] = {}
        self._fates: dict[bytes, _Fate] = {}

    # -- questions

    def find(self, digest: bytes, now: float) -> ModelSession | set[Reason]:
        """Return the live session under *digest*, or the right reasons for which there is none."""
        self._end_graces(now)
        held = self.sessions.get(self.owners.get(digest, ""))
        if held is not None and digest in (held.record.digest, held.prior):
            if held.is_live(now):
                return held
            if not held.is_over:
                return {Reason.EXPIRED} | ({Reason.UNKNOWN, Reason.REVOKED} if held.may_be_swept else set())
        fate = self._fates.get(digest, _Fate())
        must = {reason for reason, until in fate.until.items() if until > now}
        right = (must or {Reason.UNKNOWN, *fate.until}) | fate.open
        if held is not None and not held.is_over and not held.is_live(now):
            right |= {Reason.EXPIRED, Reason.UNKNOWN}
        return right

    def load(self, digest: bytes, now: float) -> Record | set[Reason]:
        """Return the record that *digest* has to load, or the right reasons for none."""
        held = self.find(digest, now)
        if not isinstance(held, ModelSession):
            return held
        is_current = digest == held.record.digest
        is_fresh = is_current and held.prior is not None and held.prior_until == NEVER
        return replace(held.record, digest=digest, fresh=is_fresh, stale=not is_current)

    def sessions_of(self, user: str, now: float) -> list[str]:
        """Return the sids of the live sessions of *user*, sorted."""
        return sorted(sid for sid, held in self.sessions.items() if held.record.user == user and held.is_live(now))

    def missing(self, now: float) -> set[str]:
        """Return the sids of the sessions that are no more."""
        return {sid for sid, held in self.sessions.items() if not held.is_live(now)}

    def count(self, now: float) -> int:
        """Return the number of live sessions."""
        return len(self.sessions) - len(self.missing(now))

    def remembers(self, digest: bytes, now: float) -> bool:
        """Return whether the contract says what stands under *digest*: a live session or a tombstone."""
        return isinstance(self.find(digest, now), ModelSession) or any(
            until > now for until in self._fates.get(digest, _Fate()).until.values()
        )

    def ends(self) -> set[float]:
        """Return the moments at which sessions expire and at which a rotation is allowed again."""
        found = {held.record.expires for held in self.sessions.values() if not held.is_over}
        return found | {held.record.rotated + held.grace for held in self.sessions.values() if held.prior}

    def open_ends(self) -> set[float]:
        """Return the moments at which a grace, a tombstone or a fence ends: what holds just then is left open."""
        found = {held.prior_until for held in self.sessions.values() if held.prior and held.prior_until < NEVER}
        found |= {until for fate in self._fates.values() for until in fate.until.values()}
        return found | {moment + TOMBSTONE for moment in found} | {at + USER_FENCE for at in self.fences.values()}

    # -- writes: first the right refusals (none: it must be done), then what it does

    def create_refusals(self, record: Record, now: float) -> set[Refusal]:
        """Return the right refusals of a creation."""
        found: set[Refusal] = set()
        there = self.find(record.digest, now)
        if isinstance(there, ModelSession):
            found.add(Conflict())
        elif record.digest in self._fates:
            found |= {Gone(reason) for reason in there}
        if record.sid in self.sessions:
            found.add(Conflict())
        return found | self._fenced(record.user, record.auth_time, now)

    def created(self, record: Record, done: Committed) -> None:
        """Note a creation."""
        values = {name: Value(value.data, done.version) for name, value in record.values.items()}
        held = ModelSession(replace(record, values=values), versions={name: {done.version} for name in values})
        self.sessions[record.sid] = held
        self.owners[record.digest] = record.sid

    def commit_refusals(self, digest: bytes, delta: Delta, now: float) -> set[Refusal]:
        """Return the right refusals of a commit."""
        held = self.find(digest, now)
        if not isinstance(held, ModelSession):
            return {Gone(reason) for reason in held}
        found: set[Refusal] = set()
        record = held.record
        if delta.user is not None or delta.auth_time is not None:
            login = record.auth_time if delta.auth_time is None else delta.auth_time
            found |= self._fenced(delta.user or record.user, login, now)
        bases = {name: put.base for name, put in delta.puts.items()} | dict(delta.drops)
        stored = {name: value.version for name, value in record.values.items()}
        wrong = [name for name, base in bases.items() if base is not None and base != stored.get(name, ABSENT)]
        if wrong:
            found.add(Conflict(tuple(sorted(wrong))))
        after = _without_counts(record, delta)
        for name, amount in delta.increments.items():
            before = after.get(name, 0)
            if isinstance(before, bytes):
                found.add(NotACounter)
            elif not COUNTER_MIN <= before + amount <= COUNTER_MAX:
                found.add(CounterOverflow)
        return found

    def committed(self, digest: bytes, delta: Delta, done: Committed, now: float) -> None:
        """Note a commit: the first one under a new token ends the waiting for it."""
        held = self._held(digest)
        self._change(held, delta, done)
        if held.prior is not None and held.prior_until == NEVER and digest == held.record.digest:
            held.prior_until = now + held.grace

    def rotate_refusals(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> set[Refusal]:
        """Return the right refusals of a rotation."""
        held = self.find(old, now)
        if not isinstance(held, ModelSession):
            return {Gone(reason) for reason in held}
        found = self.commit_refusals(old, delta, now)
        if old == held.prior:
            too_early = held.prior_until < NEVER or held.record.rotated + grace > now
        else:
            too_early = held.prior is not None and held.prior_until > now  # the prior digest would lose its grace
        if grace > 0 and too_early:
            found.add(Conflict())
        if new in self.owners or new in self._fates:
            found.add(Conflict())
        return found

    def rotated(self, old: bytes, new: bytes, delta: Delta, grace: float, done: Committed, now: float) -> None:
        """Note a rotation."""
        held = self._held(old)
        self._change(held, delta, done)
        for digest in (held.record.digest, held.prior):
            if digest is not None and (digest != old or grace <= 0):
                self._fate(digest).until[Reason.ROTATED] = now + TOMBSTONE
        held.prior, held.prior_until, held.grace = (old, NEVER, grace) if grace > 0 else (None, 0.0, 0.0)
        held.record = replace(held.record, digest=new, rotated=now)
        self.owners[new] = held.record.sid

    def revoke(self, digest: bytes, now: float) -> bool:
        """Note that the session of *digest* is ended, and return whether there was a live one."""
        self._end_graces(now)
        held = self.sessions.get(self.owners.get(digest, ""))
        ended = held is not None and held.is_live(now)
        if held is not None:
            self._end(held, now)
        self._fate(digest).until[Reason.REVOKED] = now + TOMBSTONE
        return ended

    def revoke_user(self, user: str, keep: str | None, now: float) -> int:
        """Note that the sessions of *user* are ended, and return the number of live ones."""
        self._end_graces(now)
        self.fences[user] = now
        ended = [held for sid, held in self.sessions.items() if held.record.user == user and sid != keep]
        count = sum(held.is_live(now) for held in ended)
        for held in ended:
            self._end(held, now)
        return count

    def end(self, sids: Iterable[str], user: str | None, now: float) -> int:
        """Record that the sessions with these sids are ended, *user*'s alone if one is given; return how many lived."""
        self._end_graces(now)
        found = [self.sessions[sid] for sid in set(sids) if sid in self.sessions]
        ended = [held for held in found if user is None or held.record.user == user]
        count = sum(held.is_live(now) for held in ended)
        for held in ended:
            self._end(held, now)
        return count

    def swept(self, count: int, limit: int, since: float, now: float) -> None:
        """Check the number that a sweep removed, and note it."""
        over = [held for held in self.sessions.values() if not held.is_over and since <= held.record.expires <= now]
        sure = sum(not held.may_be_swept for held in over)
        assert min(limit, sure) <= count <= min(limit, len(over)), f"{count} removed of {len(over)}, limit {limit}"
        for held in over if count else ():
            held.may_be_swept = True

    # -- the parts

    def _held(self, digest: bytes) -> ModelSession:
        return self.sessions[self.owners[digest]]

    def _fate(self, digest: bytes) -> _Fate:
        return self._fates.setdefault(digest, _Fate())

    def _fenced(self, user: str | None, login: float | None, now: float) -> set[Refusal]:
        fence = None if user is None else self.fences.get(user)
        if fence is None or login is None or login > fence or now >= fence + USER_FENCE:
            return set()
        return {Gone(Reason.REVOKED)}

    def _end_graces(self, now: float) -> None:
        for held in self.sessions.values():
            if held.prior is not None and held.prior_until <= now:
                fate = self._fate(held.prior)
                fate.until[Reason.ROTATED] = held.prior_until + TOMBSTONE
                if held.may_be_swept:
                    fate.open.add(Reason.REVOKED)
                held.prior = None

    def _end(self, held: ModelSession, now: float) -> None:
        if not held.is_live(now):
            held.may_be_swept = True
        elif not held.is_over:
            held.is_over = True
            for digest in (held.record.digest, held.prior):
                if digest is not None:
                    self._fate(digest).until[Reason.REVOKED] = now + TOMBSTONE
            held.prior = None  # its grace has ended with the session
        for digest in self._tokens(held):
            if digest in self._fates:
                self._fates[digest].open.add(Reason.REVOKED)

    def _tokens(self, held: ModelSession) -> Iterable[bytes]:
        return [digest for digest, sid in self.owners.items() if sid == held.record.sid]

    def _change(self, held: ModelSession, delta: Delta, done: Committed) -> None:
        record = held.record
        data = _without_counts(record, delta)
        counters: dict[ValueKey, int] = {}
        for name, amount in delta.increments.items():
            before = data.get(name, 0)
            assert isinstance(before, int)
            data[name] = counters[name] = before + amount
        assert done.counters == counters, f"the counters are {counters}, the driver says {dict(done.counters)}"
        written = {*delta.puts, *delta.increments}
        for name in written:
            used = held.versions.setdefault(name, set())
            assert done.version > ABSENT, f"version {done.version} is not positive"
            assert done.version not in used, f"version {done.version} of {name} was given before"
            used.add(done.version)
        held.record = replace(
            record,
            values={
                name: Value(of, done.version) if name in written else record.values[name] for name, of in data.items()
            },
            seen=record.seen if delta.touch is None else max(record.seen, delta.touch),
            deadline=record.deadline if delta.deadline is None else delta.deadline,
            user=delta.user or record.user,
            auth_time=record.auth_time if delta.auth_time is None else delta.auth_time,
            note=record.note if delta.note is None else delta.note,
        )


def _without_counts(record: Record, delta: Delta) -> dict[ValueKey, bytes | int]:
    """Return the values after the clears, puts and drops of *delta*."""
    data = {
        name: value.data
        for name, value in record.values.items()
        if is_spared(name, delta.spare) or not (delta.clear_all or name[0] in delta.clears)
    }
    data |= {name: put.data for name, put in delta.puts.items()}
    return {name: of for name, of in data.items() if name not in delta.drops}
