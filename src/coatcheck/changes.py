"""The values of one request's session: what is stored, what the request did to them, and the Delta that follows.

No I/O: the owner of a `Changes` is asked for what is stored when a value is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import partial
from typing import Any, Final
from weakref import ReferenceType

from coatcheck.codec import Codec, Undecodable, Unencodable, encode_plain
from coatcheck.errors import NotACounter, StaleValue, UnstorableValue, ValueTooLarge
from coatcheck.exact import applied, incremented
from coatcheck.inplace import containers
from coatcheck.merge import MISSING
from coatcheck.reconcile import Reconciler
from coatcheck.record import COUNTER_MAX, COUNTER_MIN, Committed, Delta, Put, Value, ValueKey, is_spared
from coatcheck.snapshot import (
    DELETED,
    NOT_STORED,
    UNCHANGED,
    UNCLEARED,
    Assigned,
    Cleared,
    Deleted,
    Owner,
    Settled,
    Unchanged,
    Updated,
    ValueEntry,
    undone_change,
)

__all__ = ["Changes"]

_PLAIN_CONTAINERS: Final = frozenset({list, dict})


class Changes:
    """The values of one session as one request sees them, and the changes that it made.

    Args:
        codec: Turns values into bytes and back.
        max_bytes: The largest encoded value.
        owner: Asked when a stored value is needed and `values` is None. By weak reference: it holds this object, and
            a cycle would leave every request's values to the garbage collector.
        values: What is stored, if it is known already.

    Attributes:
        values: What is stored, or None if nothing was read yet.
        journal: If it is a list, every `settle` is noted in it, for `undo`.
    """

    # One is made for every request, and hardly any changes these.
    journal: list[Settled] | None = None
    _pending = UNCLEARED  # to be written
    _blank = UNCLEARED  # written by a request that had read nothing: what is stored there does not count for it
    _scanned: frozenset[str] = frozenset()  # apps whose keys were listed, so that a key not there was seen not to be

    def __init__(
        self,
        codec: Codec,
        max_bytes: int,
        owner: ReferenceType[Owner],
        values: Mapping[ValueKey, Value] | None = None,
    ) -> None:
        self._codec: Final = codec
        self._max_bytes: Final = max_bytes
        self._owner: Final = owner
        self.values = values
        self._entries: dict[ValueKey, ValueEntry] = {}
        self._adds: dict[ValueKey, int] = {}

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, name: ValueKey) -> Any:
        """Return the value as this request sees it, or `MISSING`."""
        entry = self._entries.get(name) or self._open(name)
        if name in self._adds:
            return incremented(name, entry.value, self._adds[name])
        return entry.value

    def keys(self, app: str) -> list[str]:
        """Return the keys of *app*: the stored ones first, then the new ones."""
        if not (self._pending.hides_app(app) or self._blank.hides_app(app)):
            for name in self._stored():
                if name[0] == app and name not in self._entries and not self._is_hidden(name):
                    self._open(name)
            self._scanned |= {app}
        present = {
            name[1]: None for name, entry in self._entries.items() if name[0] == app and entry.value is not MISSING
        }
        present.update({name[1]: None for name in self._adds if name[0] == app})
        return list(present)

    def _stored(self) -> Mapping[ValueKey, Value]:
        return self._asked().fetch() if self.values is None else self.values

    def _asked(self) -> Owner:
        owner = self._owner()
        assert owner is not None  # noqa: S101 (the object that holds these values holds it)
        return owner

    def _is_hidden(self, name: ValueKey) -> bool:
        """Check whether a clear by this request deletes, or has deleted, what is stored under *name*."""
        return self._pending.hides(name) or self._blank.hides(name)

    def _open(self, name: ValueKey) -> ValueEntry:
        """Note that this request read the value, and as what."""
        if (self._pending is not UNCLEARED or self._blank is not UNCLEARED) and self._is_hidden(name):
            entry = ValueEntry(MISSING, None, UNCHANGED)
        elif (raw := (self._stored() if self.values is None else self.values).get(name)) is None:
            entry = ValueEntry(MISSING, NOT_STORED, UNCHANGED)
        else:
            entry = self._entry_of(name, raw)
        self._entries[name] = entry
        return entry

    def _entry_of(self, name: ValueKey, raw: Value | None) -> ValueEntry:
        """Return what there is to know of a value that is stored so."""
        value = self._decode(name, raw)
        # Encoded again rather than compared with what is stored: another release of this library, or another program,
        # may have written the same value with other bytes.
        if (plain := encode_plain(value) if type(value) in _PLAIN_CONTAINERS else None) is not None:
            origin, own = plain
        elif value is MISSING or not self._codec.is_mutable(value):
            return ValueEntry(value, raw, UNCHANGED)
        else:
            try:
                origin, own = self._codec.encode(value), containers([value])
            except Unencodable:  # a registered decode function returned something that cannot be stored
                self._asked().unreadable(name)
                return ValueEntry(MISSING, raw, UNCHANGED)
        entry = ValueEntry(value, raw, Unchanged(origin))
        entry.own = own
        return entry

    def _decode(self, name: ValueKey, raw: Value | None) -> Any:
        """Return a stored value; `MISSING` if there is none, or if it does not decode."""
        if raw is None or raw is NOT_STORED:
            return MISSING
        if isinstance(raw.data, int):
            return raw.data
        try:
            return self._codec.decode(raw.data)
        except Undecodable:
            self._asked().unreadable(name)
            return MISSING

    def _encode(self, name: ValueKey, value: Any) -> bytes | int:
        if type(value) is int and COUNTER_MIN <= value <= COUNTER_MAX:
            return value  # stored as a counter, so that it can be incremented later
        try:
            data = self._codec.encode(value)
        except Unencodable as error:
            raise UnstorableValue(*name, error.type_name, str(error)) from error
        if len(data) > self._max_bytes:
            raise ValueTooLarge(*name, type(value).__qualname__, len(data), self._max_bytes)
        return data

    # -- changing -----------------------------------------------------------------------------------------------

    def write(self, name: ValueKey, value: Any) -> None:
        """Assign a value. One that cannot be stored is refused here and now.

        Raises:
            UnstorableValue: The value cannot be stored; `ValueTooLarge` if it is over the limit.
        """
        data = self._encode(name, value)
        entry = self._entries.get(name)
        if entry is None:
            if name[0] in self._scanned and not self._is_hidden(name):
                entry = self._open(name)
            else:
                entry = self._entries[name] = ValueEntry(value, None, UNCHANGED)
        if entry.value is not value:
            entry.value = value
            entry.own = ()
        entry.parted = ()
        if self._codec.is_mutable(value):
            entry.change = Assigned(None, data if entry.seen is NOT_STORED and isinstance(data, bytes) else None)
        else:
            entry.change = Assigned(data, None)
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
        entry.change = DELETED
        entry.own = entry.parted = ()
        self._adds.pop(name, None)

    def increment(self, name: ValueKey, amount: int) -> int | None:
        """Add to a counter when the changes are written; nothing is read for it. Return the sum if it is known.

        Raises:
            NotACounter: The value is known to be something other than a 64-bit integer.
            CounterOverflow: The sum is known not to fit.
        """
        entry = self._entries.get(name)
        if entry is None and (self.values is not None or self._is_hidden(name)):
            entry = self._open(name)
        if entry is None:
            self._adds[name] = incremented(name, self._adds.get(name, 0), amount)
            return None
        if isinstance(entry.change, Unchanged):
            if entry.value is MISSING and entry.seen not in {None, NOT_STORED}:  # stored, but it does not decode
                raise NotACounter(*name)
            added = incremented(name, self._adds.get(name, 0), amount)
            total = incremented(name, entry.value, added)
            self._adds[name] = added
            return total
        entry.value = total = incremented(name, entry.value, amount)
        match entry.change:
            case Updated(reruns):
                entry.change = Updated((*reruns, (partial(incremented, name, amount=amount), 0)), None)
            case Assigned() | Deleted():
                entry.change = Assigned(total, None)
        return total

    def update_with(self, name: ValueKey, function: Callable[[Any], Any], default: Any) -> Any:
        """Assign *function* of the present value; it runs again if another request changed the value meanwhile."""
        current = self.read(name)
        entry = self._entries[name]
        before, added = entry.change, self._adds.get(name)
        value = applied(name, function, default if current is MISSING else current)
        self.write(name, value)
        if isinstance(before, Unchanged | Updated):  # otherwise nothing of storage is in it
            reruns = before.reruns if isinstance(before, Updated) else ()
            if added is not None:  # becomes a part of what runs again
                reruns = ((partial(incremented, name, amount=added), 0),)
            entry.change = Updated((*reruns, (function, default)), self._codec.encode(value))
        return value

    def clear(self, app: str) -> None:
        """Delete all values of *app*."""
        self._clear(Cleared(frozenset({app})))

    def clear_all(self, spare: Iterable[ValueKey]) -> None:
        """Delete the values of every app but those in *spare*."""
        self._clear(Cleared(everything=True, spare=frozenset(spare)))

    def _clear(self, cleared: Cleared) -> None:
        self._entries = {name: entry for name, entry in self._entries.items() if not cleared.hides(name)}
        self._adds = {name: amount for name, amount in self._adds.items() if not cleared.hides(name)}
        # Of what an earlier clear has deleted nothing is spared, even if other requests have written it again.
        self._pending |= self._blank | cleared if cleared.everything else cleared

    # -- writing down -------------------------------------------------------------------------------------------

    def pending(self) -> Delta | None:
        """Return what changed so far, or None if nothing did; see `Delta`.

        Raises:
            UnstorableValue: A value was changed in place into something that cannot be stored.
            StaleValue: An object was changed in place that the session holds no more.
        """
        puts: dict[ValueKey, Put] = {}
        drops: dict[ValueKey, int | None] = {}
        for name, entry in self._entries.items():
            if entry.parted and not self._reconciler(name).bring_in_parted(entry, self._others(name)):
                raise StaleValue(*name)
            if entry.change is UNCHANGED:
                continue
            if entry.value is not MISSING:
                if (data := self._changed_data(name, entry)) is not None:
                    puts[name] = Put(data, entry.base)
            elif entry.seen is not NOT_STORED and not self._pending.hides(name):
                drops[name] = entry.base
        cleared = self._pending
        if not (puts or drops or self._adds or cleared is not UNCLEARED):
            return None
        return Delta(
            puts=puts,
            drops=drops,
            clears=cleared.apps,
            clear_all=cleared.everything,
            spare=cleared.spare,
            increments=dict(self._adds),
        )

    def _changed_data(self, name: ValueKey, entry: ValueEntry) -> bytes | int | None:
        """Return what is to be written of a value that is there; None if it is as it was."""
        change = entry.change
        if isinstance(change, Unchanged):
            data = self._encode(name, entry.value)
            return None if data == change.origin else data
        if isinstance(change, Assigned) and change.data is not None:
            data = change.data
        else:
            data = self._encode(name, entry.value)
        raw = entry.seen
        is_stored = raw is not None and raw is not NOT_STORED and type(raw.data) is type(data) and raw.data == data
        return None if is_stored and not self._pending.hides(name) else data

    def settle(self, delta: Delta, done: Committed) -> None:
        """Record that *delta* was written, so that only what changed since it was made is written next.

        Another task of the request may have changed something while the write was awaited.
        """
        if self.journal is not None:
            before = {name: (entry.seen, entry.change) for name, entry in self._entries.items()}
            self.journal.append(Settled(delta, self.values, before, done.version))
        stored = {name: Value(put.data, done.version) for name, put in delta.puts.items()}
        stored.update({name: Value(number, done.version) for name, number in done.counters.items()})
        if self.values is None:
            if self._pending is not UNCLEARED:
                self._blank |= self._pending
        else:
            kept = {
                name: raw for name, raw in self.values.items() if name not in delta.drops and not self._is_hidden(name)
            }
            self.values = {**kept, **stored}
        cleared = Cleared.of(delta)
        if self._pending is not UNCLEARED:
            self._pending = self._pending.since(cleared)
        for name, amount in delta.increments.items():
            is_alone = cleared.hides(name) or self._blank.hides(name)
            self._settle_increment(name, amount, stored[name], is_alone=is_alone)
        for name, entry in self._entries.items():
            if not self._is_newer(name, entry, delta, stored.get(name)):
                entry.settle(stored.get(name), self._codec.is_mutable)

    def _settle_increment(self, name: ValueKey, amount: int, stored: Value, *, is_alone: bool) -> None:
        left = self._adds.pop(name, amount) - amount
        if left:
            self._adds[name] = left
        entry = self._entries.get(name)
        if entry is not None and not isinstance(entry.change, Unchanged):
            return  # assigned or deleted while the write was awaited
        if is_alone and not self._pending.hides(name):  # what else is stored does not count for this request
            self._entries[name] = ValueEntry(stored.data, stored, UNCHANGED)
        else:
            self._entries.pop(name, None)

    def _is_newer(self, name: ValueKey, entry: ValueEntry, delta: Delta, written: Value | None) -> bool:
        """Check whether a value was changed after *delta* was made, and base that change on what is stored now."""
        change = entry.change
        if isinstance(change, Unchanged):
            return False  # a change in place shows when it is compared with what was written
        if name in delta.drops:
            is_newer, entry.seen = entry.value is not MISSING, NOT_STORED
            return is_newer
        if written is None:
            if entry.value is MISSING:
                return entry.seen is not NOT_STORED and not self._pending.hides(name)
            return self._changed_data(name, entry) is not None
        if entry.value is MISSING:
            entry.seen = written
            return True
        if self._codec.is_mutable(entry.value):
            return False  # likewise
        data = change.data if isinstance(change, Assigned) and change.data is not None else None
        if (self._encode(name, entry.value) if data is None else data) == written.data:
            return False
        entry.seen = written
        return True

    def undo(self) -> None:
        """Take back each `settle` in the journal: the transaction that was written in did not last."""
        while self.journal:
            self._unsettle(self.journal.pop())
        self.journal = None

    def _unsettle(self, settled: Settled) -> None:
        delta, self.values = settled.delta, settled.values
        self._pending |= Cleared.of(delta)
        for name in (*delta.puts, *delta.drops):
            if (entry := self._entries.get(name)) is not None:
                entry.seen, before = settled.before[name]
                entry.change = undone_change(before, entry.change)
        for name, entry in self._entries.items():
            if self._pending.hides(name):  # what is stored there does not count any more, as when it was cleared first
                entry.seen = None
        for name, amount in delta.increments.items():
            entry = self._entries.pop(name, None)
            if entry is None or isinstance(entry.change, Unchanged):
                self._adds[name] = self._adds.get(name, 0) + amount
            else:  # assigned since, so the increment is no more
                self._entries[name] = entry
                entry.seen = None if self.values is None else self.values.get(name, NOT_STORED)

    # -- when others have written meanwhile ---------------------------------------------------------------------

    def clashes(self, values: Mapping[ValueKey, Value], keys: Iterable[ValueKey]) -> tuple[ValueKey, ...]:
        """Return the values of which `rebase` could not keep both changes. Nothing is merged yet."""
        trial = copy(self)
        found = {name: self._entries[name] for name in keys if not self._is_rerun(self._entries[name])}
        trial._entries = {name: self._copied(entry) for name, entry in found.items()}  # noqa: SLF001 (one class)
        return trial.rebase(values, found)

    def _is_rerun(self, entry: ValueEntry) -> bool:
        """Return whether the change of a value is made by functions that run again, and by nothing else since."""
        change = entry.change
        return isinstance(change, Updated) and change.result in {None, self._codec.encode(entry.value)}

    def _copied(self, entry: ValueEntry) -> ValueEntry:
        """Return what is known of a value, apart from the object that the application holds."""
        other = copy(entry)
        if entry.value is not MISSING:
            other.value = self._codec.decode(self._codec.encode(entry.value))
            other.own = containers([other.value])
        return other

    def rebase(self, values: Mapping[ValueKey, Value], keys: Iterable[ValueKey]) -> tuple[ValueKey, ...]:
        """Merge this request's change of *keys* into what others have written meanwhile.

        Args:
            values: What is stored now.
            keys: The values whose base version no longer holds.

        Returns:
            The values of which both changes could not be kept: there this request's change stands.
        """
        self.values = values
        return tuple(name for name in keys if self._rebase(name, values.get(name, NOT_STORED)))

    def _rebase(self, name: ValueKey, raw: Value) -> bool:
        entry, reconciler = self._entries[name], self._reconciler(name)
        change = entry.change
        if not isinstance(change, Updated) or not self._is_rerun(entry):
            return reconciler.merge(entry, raw, self._others(name))
        value = self._entry_of(name, raw).value
        for function, default in change.reruns:
            value = applied(name, function, default if value is MISSING else value)
        self._encode(name, value)
        reconciler.rerun(entry, change, raw, value, self._others(name))
        return False

    def _reconciler(self, name: ValueKey) -> Reconciler:
        return Reconciler(self._codec, lambda raw: self._entry_of(name, raw).value)

    def _others(self, name: ValueKey) -> list[Any]:
        return [entry.value for other, entry in self._entries.items() if other != name]

    def begin_anew(self, *, keep: bool) -> None:
        """Turn what is to be written into the values of a session that is still to be made.

        Args:
            keep: True takes along what the last `clear_all` spared.
        """
        keep = keep and self.values is not None
        if keep:
            self._read_spared()
        entries = {}
        for name, entry in self._entries.items():
            if entry.value is not MISSING and (keep or self._is_changed(name, entry)):
                data = entry.change.data if isinstance(entry.change, Assigned) else None
                entry.seen, entry.change = None, Assigned(data, None)
                entries[name] = entry
        self._entries = entries
        self.values = {}
        self._pending = self._blank = UNCLEARED

    def _read_spared(self) -> None:
        """Read what the pending clear spares, and turn increments of it into assignments."""
        for name in [name for name in self._stored() if is_spared(name, self._pending.spare)]:
            entry = self._entries.get(name)
            if entry is not None and entry.value is MISSING and isinstance(entry.change, Unchanged):
                del self._entries[name]  # read before it was known whose values these are
            self.read(name)
        for name in self._adds.keys() & self._entries.keys():
            entry = self._entries[name]
            entry.value = total = incremented(name, entry.value, self._adds.pop(name))
            entry.change = Assigned(total, None)

    def _is_changed(self, name: ValueKey, entry: ValueEntry) -> bool:
        """Check whether the application has assigned a value, or changed it in place."""
        if isinstance(entry.change, Unchanged):
            return entry.change.origin is not None and self._encode(name, entry.value) != entry.change.origin
        return True
