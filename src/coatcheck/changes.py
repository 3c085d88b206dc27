"""What a request does to the values of its session, and the Delta that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from coatcheck.codec import Unencodable
from coatcheck.errors import NotACounter, StaleValue, UnstorableValue
from coatcheck.inplace import containers, update_in_place
from coatcheck.merge import MISSING, merge
from coatcheck.record import ABSENT, Committed, Delta, Put, Value, ValueKey, is_spared
from coatcheck.snapshot import Entry, First, Parted, Settled, Snapshot

__all__ = ["Changes"]


class Changes(Snapshot):
    """A snapshot of a session's values and the changes made to them."""

    # -- changing -----------------------------------------------------------------------------------------------

    def write(self, name: ValueKey, value: Any) -> None:
        """Assign a value; what cannot be stored is refused here and now.

        Raises:
            UnstorableValue: The value cannot be stored; `ValueTooLarge` where it is over the limit.
        """
        data = self._encode(name, value)
        entry = self._entries.get(name)
        if entry is None:
            if name[0] in self._scanned and not self._is_blank(name):
                entry = self._open(name)
            else:
                entry = self._entries[name] = Entry(value, None, None)
        if entry.value is not value:
            entry.value = value
            entry.own = ()
        entry.parted = ()
        entry.detached = None
        entry.dirty = True
        entry.first = None
        if self._codec.is_mutable(value):
            entry.data = None
            entry.assigned = data if entry.base == ABSENT and type(data) is bytes else None
        else:
            entry.data = data
            entry.assigned = None
        entry.reruns = ()
        self._adds.pop(name, None)

    def drop(self, name: ValueKey) -> None:
        """Delete a value.

        Raises:
            KeyError: There is none.
        """
        if self.read(name) is MISSING:
            raise KeyError(name[1])
        entry = self._entries[name]
        entry.value = MISSING
        entry.own = entry.parted = ()
        entry.detached = None
        entry.dirty = True
        entry.data = entry.assigned = entry.first = None
        entry.reruns = ()
        self._adds.pop(name, None)

    def increment(self, name: ValueKey, amount: int) -> int | None:
        """Add to a counter when the changes are written; nothing is read for it. Return the sum where it is known.

        Raises:
            NotACounter: The value is known to be something other than a 64-bit integer.
            CounterOverflow: The sum is known not to fit.
        """
        entry = self._entries.get(name)
        if entry is None and (self.values is not None or (self._hides and self._is_blank(name))):
            entry = self._open(name)
        if entry is None:
            self._adds[name] = self._sum(name, self._adds.get(name, 0), amount)
            return None
        if entry.dirty:
            entry.value = self._sum(name, entry.value, amount)
            entry.data = None
            if entry.reruns:
                entry.reruns = (*entry.reruns, (lambda value: self._sum(name, value, amount), 0))
                entry.origin = None
            return int(entry.value)
        added = self._sum(name, self._adds.get(name, 0), amount)
        if entry.value is MISSING and entry.raw is not None:  # stored, but it does not decode
            raise NotACounter(*name)
        total = self._sum(name, entry.value, added)
        self._adds[name] = added
        return total

    def update_with(self, name: ValueKey, function: Callable[[Any], Any], default: Any) -> Any:
        """Assign *function* of the present value; it runs again where another request changed the value meanwhile."""
        current = self.read(name)
        entry = self._entries[name]
        reruns = entry.reruns if entry.dirty and entry.reruns else ()
        if (added := self._adds.get(name)) is not None:  # becomes a part of what runs again
            reruns = ((lambda value: self._sum(name, value, added), 0),)
        exact = not entry.dirty or bool(entry.reruns)
        value = _applied(name, function, default if current is MISSING else current)
        self.write(name, value)
        if exact:
            entry.reruns = (*reruns, (function, default))
            entry.origin = self._codec.encode(value)
        return value

    def clear(self, app: str) -> None:
        """Delete all values of *app*."""
        self._forget(lambda name: name[0] == app)
        self._cleared |= {app}
        self._hides = True
        self._spare = frozenset(name for name in self._spare if name[0] != app)

    def clear_all(self, spare: Iterable[ValueKey]) -> None:
        """Delete the values of every app but those in *spare*."""
        kept = frozenset(spare)
        self._forget(lambda name: not is_spared(name, kept))
        still = {name for name in self._spare if is_spared(name, kept)}  # of what an earlier clear of all has spared
        self._spare = frozenset(still.union(name for name in kept if not self._is_blank(name)))
        self._cleared_all = self._hides = True

    def _forget(self, concerned: Callable[[ValueKey], bool]) -> None:
        self._entries = {name: entry for name, entry in self._entries.items() if not concerned(name)}
        self._adds = {name: amount for name, amount in self._adds.items() if not concerned(name)}

    # -- writing down -------------------------------------------------------------------------------------------

    def is_clean(self) -> bool:
        """Tell whether there is nothing to write.

        Raises:
            UnstorableValue: A value was changed in place into something that cannot be stored.
        """
        if self._adds or self._cleared or self._cleared_all:
            return False
        for name, entry in self._entries.items():
            self._look_at_parted(name, entry)
            if entry.dirty or (entry.origin is not None and self._is_edited(name, entry)):
                return False
        return True

    def _is_edited(self, name: ValueKey, entry: Entry) -> bool:
        """Return whether a value that was read has been changed in place."""
        return entry.origin is not None and self._encode(name, entry.value) != entry.origin

    def delta(
        self,
        touch: float | None = None,
        deadline: float | None = None,
        login: tuple[str, float] | None = None,
        basis: object = None,
    ) -> Delta:
        """Give what changed so far, together with what a save has to say besides values; see `Delta`.

        Raises:
            UnstorableValue: A value was changed in place into something that cannot be stored.
        """
        puts: dict[ValueKey, Put] = {}
        drops: dict[ValueKey, int | None] = {}
        for name, entry in self._entries.items():
            self._look_at_parted(name, entry)
            if not entry.dirty:
                if entry.origin is not None and (data := self._encode(name, entry.value)) != entry.origin:
                    puts[name] = Put(data, entry.base)
            elif entry.value is MISSING:
                if entry.base != ABSENT and not self._is_cleared(name):
                    drops[name] = entry.base
            else:
                data = entry.data if entry.data is not None else self._encode(name, entry.value)
                if entry.raw is None or not _same_data(entry.raw.data, data) or self._is_cleared(name):
                    puts[name] = Put(data, entry.base)
        return Delta(
            puts=puts,
            drops=drops,
            clears=self._cleared,
            clear_all=self._cleared_all,
            spare=self._spare,
            increments=dict(self._adds),
            touch=touch,
            deadline=deadline,
            user=None if login is None else login[0],
            auth_time=None if login is None else login[1],
            basis=basis,
        )

    def settle(self, delta: Delta, done: Committed) -> None:
        """Take note that *delta* was written, so that only what changes from now on is written next."""
        if self.journal is not None:
            reruns = {name: entry.reruns for name, entry in self._entries.items() if entry.reruns}
            self.journal.append(Settled(delta, self.values, reruns, done.version))
        stored = {name: Value(put.data, done.version) for name, put in delta.puts.items()}
        stored.update({name: Value(number, done.version) for name, number in done.counters.items()})
        if self.values is not None:
            self.values = {
                **{
                    name: raw
                    for name, raw in self.values.items()
                    if name not in delta.drops and not self._is_blank(name)
                },
                **stored,
            }
        else:
            self._blank |= self._cleared
            self._blank_all = self._blank_all or self._cleared_all
        for name in delta.increments:
            self._adds.pop(name, None)
            if self._is_blank(name):  # what is stored there does not count for this request, but this does
                self._entries[name] = Entry(done.counters[name], stored[name], done.version)
            else:
                self._entries.pop(name, None)
        for name, entry in self._entries.items():
            entry.dirty = False
            entry.first = None
            entry.reruns = ()
            if name in stored:
                entry.raw = stored[name]
                entry.base = done.version
                data = entry.raw.data
                entry.origin = data if isinstance(data, bytes) and self._codec.is_mutable(entry.value) else None
            elif entry.value is MISSING:
                entry.raw = entry.origin = None
                entry.base = None if entry.base is None else ABSENT
        self._cleared = frozenset()
        self._cleared_all = False
        if self.values is not None:
            self._spare = frozenset()

    def undo(self) -> None:
        """Take back each `settle` in the journal: the transaction that was written in did not last."""
        while self.journal:
            self._unsettle(self.journal.pop())
        self.journal = None

    def _unsettle(self, settled: Settled) -> None:
        delta, values, reruns, _ = settled
        self.values = values
        self._cleared |= delta.clears
        self._cleared_all = self._cleared_all or delta.clear_all
        if delta.clear_all:
            self._spare = delta.spare
        before: dict[ValueKey, int | None] = {name: put.base for name, put in delta.puts.items()}
        before.update(delta.drops)
        for name, base in before.items():
            if (entry := self._entries.get(name)) is not None:
                entry.base = base
                entry.raw = None if values is None else values.get(name)
                before_it = reruns.get(name, ())
                if not entry.dirty:
                    entry.reruns = before_it
                elif entry.reruns:  # updated since: what ran before that runs again too, or neither where it assigned
                    entry.reruns = (*before_it, *entry.reruns) if before_it else ()
                entry.dirty = True
                entry.data = None
        for name, entry in self._entries.items():
            if self._is_cleared(name):  # what is stored there does not count any more, as when it was cleared first
                entry.base = entry.raw = None
        for name, amount in delta.increments.items():
            entry = self._entries.pop(name, None)
            if entry is not None and entry.dirty:  # assigned since, so the increment is no more
                self._entries[name] = entry
                entry.raw = None if values is None else values.get(name)
                entry.base = None if values is None else ABSENT if entry.raw is None else entry.raw.version
            else:
                self._adds[name] = self._adds.get(name, 0) + amount

    def rebase(self, values: Mapping[ValueKey, Value], keys: Iterable[ValueKey]) -> tuple[ValueKey, ...]:
        """Merge this request's change of *keys* into what others have written meanwhile.

        Args:
            values: What is stored now.
            keys: The values whose base version no longer holds.

        Returns:
            The values of which both changes could not be kept: there this request's change stands.
        """
        clashes = []
        self.values = values
        for name in keys:
            entry = self._entries[name]
            raw = values.get(name)
            theirs, origin = self._decode(name, raw)
            if entry.reruns and entry.origin in (None, self._codec.encode(entry.value)):  # not changed in place since
                mine = theirs
                for function, default in entry.reruns:
                    mine = _applied(name, function, default if mine is MISSING else mine)
                self._encode(name, mine)
                self._replace(name, entry, mine, is_made_here=False)
                if entry.origin is not None:
                    entry.origin = self._codec.encode(mine)
            else:
                if self._merge(name, entry, theirs, is_readable=raw is None or theirs is not MISSING):
                    clashes.append(name)
                entry.origin = origin
                entry.reruns = ()
            entry.raw = raw
            entry.base = ABSENT if raw is None else raw.version
            entry.dirty = True
            entry.data = None
        return tuple(clashes)

    def _merge(self, name: ValueKey, entry: Entry, theirs: Any, *, is_readable: bool) -> bool:
        """Merge the change of a value with *theirs*; True where a part of theirs is lost."""
        mine, first = entry.value, entry.first
        if first is not None:
            mine, _ = merge(self._unpacked(first.merged), mine, self._unpacked(first.mine), self._same)
        raw = entry.raw if first is None else first.raw
        base, _ = self._decode(name, raw)
        packed = self._packed(mine)
        clash = True
        if raw is None and entry.assigned is not None:
            # Two steps, so that of two requests that both begin a list and append the same to it, both have appended.
            start = self._codec.decode(entry.assigned)
            if type(start) is type(theirs) is list and self._same(theirs[: len(start)], start):
                begun, lost = theirs, False
            else:
                begun, lost = merge(MISSING, start, theirs, self._same)
            value, clash = merge(start, mine, begun, self._same)
            clash = clash or lost
        if not is_readable:
            value, clash = mine, True
        elif clash:
            value, clash = merge(base, mine, theirs, self._same)
        entry.first = First(raw, packed, self._packed(value))
        self._replace(name, entry, value)
        return clash

    def _replace(self, name: ValueKey, entry: Entry, merged: Any, *, is_made_here: bool = True) -> None:
        """Go on with what a merge made of a value, in the objects that the application holds where those are ours.

        Args:
            name: The name of the value.
            entry: What is known of it.
            merged: What the merge made of it.
            is_made_here: True where every container in *merged* that is none of the present value's is ours.
        """
        held = entry.value
        if held is MISSING:
            entry.value, entry.own = merged, containers([merged])
            return
        if not entry.own and self._codec.is_mutable(held):
            if held is not merged and not self._same(held, merged):
                # It may be a constant of the application's, so the session goes on with objects of its own.
                entry.value = self._codec.decode(self._codec.encode(merged))
                entry.own = containers([entry.value])
                entry.detached = Parted(held, self._codec.encode(held))
            return
        theirs = {id(holder) for holder in containers([held])}
        made = [holder for holder in containers([merged]) if id(holder) not in theirs] if is_made_here else []
        others = [other.value for place, other in self._entries.items() if place != name]
        entry.value, parted = update_in_place(held, merged, entry.own, others, self._codec)
        entry.own = [*entry.own, *made]
        entry.parted += tuple(Parted(part, self._codec.encode(part)) for part in parted)

    def _look_at_parted(self, name: ValueKey, entry: Entry) -> None:
        """Look whether the application changed an object that its session holds no more since a save merged.

        Raises:
            StaleValue: It did, and the change cannot be brought into the session.
        """
        for part in entry.parted:
            if self._is_changed(part):
                raise StaleValue(*name)
        if (detached := entry.detached) is None or not self._is_changed(detached):
            return
        data = self._encode(name, detached.held)
        assert isinstance(data, bytes)  # noqa: S101 (only an int is stored as something else)
        merged, clash = merge(self._codec.decode(detached.data), self._codec.decode(data), entry.value, self._same)
        if clash:
            raise StaleValue(*name)
        self._replace(name, entry, merged)
        entry.detached = Parted(detached.held, data)

    def _is_changed(self, part: Parted) -> bool:
        try:
            return self._codec.encode(part.held) != part.data
        except Unencodable:
            return True

    def _packed(self, value: Any) -> bytes | None:
        return None if value is MISSING else self._codec.encode(value)

    def _unpacked(self, data: bytes | None) -> Any:
        return MISSING if data is None else self._codec.decode(data)

    def begin_anew(self, *, keep: bool) -> None:
        """Turn what is to be written into the values of a session that is still to be made.

        Args:
            keep: True takes along what the last `clear_all` spared.
        """
        if keep and self.values is not None:
            for name in [name for name in self.values if is_spared(name, self._spare)]:
                entry = self._entries.get(name)
                if entry is not None and not entry.dirty and entry.value is MISSING:
                    del self._entries[name]  # read before it was known whose values these are
                self.read(name)
            for name in self._adds.keys() & self._entries.keys():
                entry = self._entries[name]
                entry.value, entry.data = self._sum(name, entry.value, self._adds.pop(name)), None
        else:
            self._entries = {
                name: entry for name, entry in self._entries.items() if entry.dirty or self._is_edited(name, entry)
            }
        for name in list(self._entries):
            entry = self._entries[name]
            if entry.value is MISSING:
                del self._entries[name]
            else:
                entry.raw = entry.base = entry.first = None
                entry.dirty = True
        self.values = {}
        self._cleared = frozenset()
        self._cleared_all = False
        self._spare = frozenset()

    def _same(self, one: Any, other: Any) -> bool:
        return self._codec.encode(one) == self._codec.encode(other)


def _applied(name: ValueKey, function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function given to `update_with` makes of a value.

    Raises:
        UnstorableValue: It returned None, as a function does that changes its argument in place.
    """
    result = function(value)
    if result is None:
        why = "the function of update_with returned None: let it return the new value; to store None, assign it"
        raise UnstorableValue(*name, "NoneType", why)
    return result


def _same_data(one: bytes | int, other: bytes | int) -> bool:
    return type(one) is type(other) and one == other
