"""Drivers that are broken on purpose, each in the way that one rule forbids: how values are written.

The conformance kit has to find every one of them; `test_mutants.py` says by which tests.
"""

from __future__ import annotations

import time
from dataclasses import replace

from coatcheck.drivers.memory import MemoryDriver, _StoredSession
from coatcheck.record import (
    ABSENT,
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Put,
    Record,
    Value,
    ValueKey,
)

# -- rules 3 and 5


class WholeRecord(MemoryDriver):
    """Writes back all that was loaded, as most session stores do."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        found = super().load(digest, now)
        return replace(found, basis=found.values) if isinstance(found, Record) else found

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        found = self.load(digest, now)
        if isinstance(found, Record):
            rest = {name: Put(value.data) for name, value in found.values.items()}
            for name in (*delta.puts, *delta.drops, *delta.increments):
                rest.pop(name, None)
            time.sleep(0.0005)
            delta = replace(delta, puts={**({} if delta.clears or delta.clear_all else rest), **delta.puts})
        return super().commit(digest, delta, now)


class IgnoresBases(MemoryDriver):
    """Lets the last writer win, always."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        puts = {name: Put(put.data) for name, put in delta.puts.items()}
        return super()._refusal(held, replace(delta, puts=puts, drops=dict.fromkeys(delta.drops)), now)


class AbsentIsAnything(MemoryDriver):
    """Takes a base of ABSENT for no base."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        puts = {name: Put(put.data, put.base or None) for name, put in delta.puts.items()}
        return super()._refusal(held, replace(delta, puts=puts), now)


class DropsIgnoreBases(MemoryDriver):
    """Looks at the base of puts only."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        return super()._refusal(held, replace(delta, drops={}), now)


class NamesOneConflict(MemoryDriver):
    """Stops at the first key that fails."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        refusal = super()._refusal(held, delta, now)
        return Conflict(refusal.keys[:1]) if isinstance(refusal, Conflict) else refusal


class WritesHalfOfAConflict(MemoryDriver):
    """Writes what did not conflict, and says Conflict."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        refusal = super()._refusal(held, delta, now)
        if isinstance(refusal, Conflict):
            fine = {name: put for name, put in delta.puts.items() if name not in refusal.keys}
            self._apply(held, Delta(puts=fine))
        return refusal


class TouchesOnConflict(MemoryDriver):
    """Records the activity of a change that it refuses."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        refusal = super()._refusal(held, delta, now)
        if isinstance(refusal, Conflict):
            self._apply(held, Delta(touch=delta.touch))
        return refusal


class WritesBeforeAnError(MemoryDriver):
    """Puts first, and finds out about the counter afterwards."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        super()._apply(held, replace(delta, increments={}))
        return super()._apply(held, delta)


class VersionsStartAgain(MemoryDriver):
    """Counts the versions of each value, from 1 after it was dropped."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        before = held.values
        done = super()._apply(held, delta)
        for name, value in held.values.items():
            if value.version == done.version:
                held.values[name] = Value(value.data, before[name].version + 1 if name in before else 1)
        written = [held.values[name].version for name in (*delta.puts, *delta.increments)]
        return Committed(max(written, default=1), done.counters)


class VersionOfContent(MemoryDriver):
    """Takes the content for the version, so that A, B, A passes for A."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        done = super()._apply(held, delta)
        version = done.version
        for name, value in held.values.items():
            if value.version == done.version:
                version = abs(hash(value.data)) + 1
                held.values[name] = Value(value.data, version)
        return Committed(version, done.counters)


class IncrementsKeepTheVersion(MemoryDriver):
    """Does not count an increment as a write."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        before = held.values
        done = super()._apply(held, delta)
        for name in delta.increments:
            if name in before:
                held.values[name] = Value(held.values[name].data, before[name].version)
        return done


class RacyIncrements(MemoryDriver):
    """Reads, adds and writes."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        found = self.load(digest, now)
        if not isinstance(found, Record) or not delta.increments:
            return super().commit(digest, delta, now)
        sums: dict[ValueKey, int] = {}
        for name, amount in delta.increments.items():
            value = found.values.get(name, Value(0, ABSENT)).data
            if not isinstance(value, int) or not -(2**63) <= value + amount < 2**63:
                return super().commit(digest, delta, now)
            sums[name] = value + amount
        time.sleep(0.0001)
        puts = {**delta.puts, **{name: Put(total) for name, total in sums.items()}}
        done = super().commit(digest, replace(delta, puts=puts, increments={}), now)
        return Committed(done.version, sums) if isinstance(done, Committed) else done


class RacyBases(MemoryDriver):
    """Compares the versions first and writes later."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        with self._lock:
            held = self._find(digest, now)
            if isinstance(held, _StoredSession) and (refusal := self._refusal(held, delta, now)) is not None:
                return refusal
        time.sleep(0.0005)
        puts = {name: Put(put.data) for name, put in delta.puts.items()}
        return super().commit(digest, replace(delta, puts=puts), now)


class CountersWrap(MemoryDriver):
    """Starts again at the other end."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        increments = dict(delta.increments)
        for name, amount in increments.items():
            value = held.values.get(name)
            data = 0 if value is None else value.data
            if isinstance(data, int):
                increments[name] = (data + amount + 2**63) % 2**64 - 2**63 - data
        return super()._apply(held, replace(delta, increments=increments))


class CountsDigits(MemoryDriver):
    """Takes bytes that look like a number for one, as Redis does."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        for name in delta.increments:
            value = held.values.get(name)
            if value is not None and isinstance(value.data, bytes) and value.data.isdigit():
                held.values = {**held.values, name: Value(int(value.data), value.version)}
        return super()._apply(held, delta)


class StoresDigits(MemoryDriver):
    """Stores counters as text."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        found = super().load(digest, now)
        if not isinstance(found, Record):
            return found
        texts = {name: Value(str(v.data).encode() if isinstance(v.data, int) else v.data, v.version)
                 for name, v in found.values.items()}  # fmt: skip
        return replace(found, values=texts)


class FoldsCase(MemoryDriver):
    """Compares keys as a database with the wrong collation does."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        known = {(app.lower(), key.lower().rstrip()): (app, key) for app, key in held.values}
        puts: dict[ValueKey, Put] = {}
        for name, put in delta.puts.items():
            folded = (name[0].lower(), name[1].lower().rstrip())
            puts[known.setdefault(folded, name)] = put
        return super()._apply(held, replace(delta, puts=puts))


class JoinsNames(MemoryDriver):
    """Joins app and key with a colon."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        known = {":".join(name): name for name in held.values}
        puts = {known.setdefault(":".join(name), name): put for name, put in delta.puts.items()}
        return super()._apply(held, replace(delta, puts=puts))


class ClearIgnoresSpare(MemoryDriver):
    """Clears what it should spare."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        return super()._apply(held, replace(delta, spare=frozenset()))


class ClearSparesNoWholeApp(MemoryDriver):
    """Takes an app that is to be spared as a whole for a key."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        spare = frozenset(name for name in delta.spare if name[1])
        return super()._apply(held, replace(delta, spare=spare))


class ClearsLast(MemoryDriver):
    """Clears after it wrote."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        done = super()._apply(held, replace(delta, clears=frozenset(), clear_all=False))
        super()._apply(held, Delta(clears=delta.clears, clear_all=delta.clear_all, spare=delta.spare))
        return done


class ClearIsForAll(MemoryDriver):
    """Clears every app."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        return super()._apply(held, replace(delta, clear_all=delta.clear_all or bool(delta.clears)))


class ClearsWhatWasLoaded(MemoryDriver):
    """Judges base versions after its own clear."""

    def _refusal(self, held: _StoredSession, delta: Delta, now: float) -> Conflict | Gone | None:
        if delta.clear_all:
            held = _StoredSession(Record(sid="", digest=b"", created=0, seen=0), {})
        return super()._refusal(held, delta, now)
