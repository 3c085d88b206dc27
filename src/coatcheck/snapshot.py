"""The values of one request's session as it sees them: what is stored, and over it what the request did.

No I/O: whoever makes a `Snapshot` is asked for what is stored when a value is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from weakref import ReferenceType

from coatcheck.codec import Codec, Undecodable, Unencodable
from coatcheck.errors import CounterOverflow, NotACounter, UnstorableValue, ValueTooLarge
from coatcheck.inplace import containers
from coatcheck.merge import MISSING
from coatcheck.record import ABSENT, COUNTER_MAX, COUNTER_MIN, Delta, Value, ValueKey, is_spared

__all__ = ["Entry", "First", "Owner", "Parted", "Rerun", "Settled", "Snapshot"]

Rerun = tuple[Callable[[Any], Any], Any]
"""A function given to `update_with`, and the default for a missing key."""


class First(NamedTuple):
    """A change as it was before it was merged with what others wrote: each further merge begins from it.

    Beginning from the result of the last merge would count twice what that result has kept of the base.

    Attributes:
        raw: What the change was based on, as stored.
        mine: The encoding of the changed value, or None where it was deleted.
        merged: The encoding of what the last merge made of it, or None likewise. What the application changes after
            a save that failed is the difference to this.
    """

    raw: Value | None
    mine: bytes | None
    merged: bytes | None


class Parted(NamedTuple):
    """An object that the application may still hold, but that its session holds no more since a save merged.

    Attributes:
        held: The object.
        data: Its encoding as of then.
    """

    held: Any
    data: bytes


class Settled(NamedTuple):
    """What was written in a transaction that may not last, and what `settle` forgets on that occasion."""

    delta: Delta
    values: Mapping[ValueKey, Value] | None
    reruns: Mapping[ValueKey, tuple[Rerun, ...]]
    version: int


class Owner(Protocol):
    """Whoever knows where a session is stored."""

    def fetch(self) -> Mapping[ValueKey, Value]:
        """Give what is stored, and fill it in as the snapshot's `values`; or raise."""

    def unreadable(self, name: ValueKey) -> None:
        """Take note that a value no longer decodes."""


class Entry:
    """What a request knows of one value: as stored when it was read, and as it is now."""

    # As in State: one is made for every value that is touched, and defaults that stand in the class cost nothing.
    dirty = False  # assigned or deleted; a change in place is found by comparing
    data: bytes | int | None = None  # the encoding of an assigned value that cannot change any more
    reruns: tuple[Rerun, ...] = ()
    assigned: bytes | None = None  # what a mutable value was when it was assigned to a key seen to be missing
    first: First | None = None  # while a save merges
    own: Sequence[Any] = ()  # the containers of a value that was decoded here; those of an assigned one are not ours
    parted: tuple[Parted, ...] = ()
    detached: Parted | None = None

    def __init__(self, value: Any, raw: Value | None, base: int | None, origin: bytes | None = None) -> None:
        self.value = value
        self.raw = raw
        self.base = base  # as in Put.base
        self.origin = origin  # the encoding of a mutable value as it was when read


class Snapshot:
    """A session's values, read at first use. `Changes` adds what can be done to them.

    Args:
        codec: Turns values into bytes and back.
        max_bytes: The largest encoded value.
        owner: Asked when a stored value is needed and `values` is None. By weak reference: it holds the snapshot, and
            a cycle would leave every request's values to the garbage collector.
        values: The snapshot, where it is known already.

    Attributes:
        values: The snapshot, or None where nothing was read yet.
        journal: Where it is a list, every `settle` is noted in it, for `undo`.
    """

    # One is made for every request, and hardly any changes these.
    journal: list[Settled] | None = None
    _hides = False  # True once anything was cleared: before that, all that is stored counts
    _cleared: frozenset[str] = frozenset()
    _cleared_all = False
    _spare: frozenset[ValueKey] = frozenset()
    _scanned: frozenset[str] = frozenset()  # apps whose keys were listed, so that a key not there was seen not to be
    _blank: frozenset[str] = frozenset()  # apps cleared by an earlier commit of a request that never read them
    _blank_all = False

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
        self._entries: dict[ValueKey, Entry] = {}
        self._adds: dict[ValueKey, int] = {}

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, name: ValueKey) -> Any:
        """Give the value as this request sees it, or `MISSING`."""
        entry = self._entries.get(name) or self._open(name)
        if name in self._adds:
            return self._sum(name, entry.value, self._adds[name])
        return entry.value

    def keys(self, app: str) -> list[str]:
        """Give the keys of *app*: the stored ones first, then the new ones."""
        if not self._is_blank_app(app):
            for name in self._snapshot():
                if name[0] == app and name not in self._entries and not self._is_blank(name):
                    self._open(name)
            self._scanned |= {app}
        present = {
            name[1]: None for name, entry in self._entries.items() if name[0] == app and entry.value is not MISSING
        }
        present.update({name[1]: None for name in self._adds if name[0] == app})
        return list(present)

    def _snapshot(self) -> Mapping[ValueKey, Value]:
        return self._asked().fetch() if self.values is None else self.values

    def _asked(self) -> Owner:
        owner = self._owner()
        assert owner is not None  # noqa: S101 (whoever holds its values holds it)
        return owner

    def _is_blank(self, name: ValueKey) -> bool:
        """Tell whether nothing of what is stored under *name* counts for this request any more."""
        return (
            self._is_cleared(name) or name[0] in self._blank or (self._blank_all and not is_spared(name, self._spare))
        )

    def _is_cleared(self, name: ValueKey) -> bool:
        """Tell whether a clear that is still to be written deletes what is stored under *name*."""
        return name[0] in self._cleared or (self._cleared_all and not is_spared(name, self._spare))

    def _is_blank_app(self, app: str) -> bool:
        if app in self._cleared or app in self._blank:
            return True
        return (self._cleared_all or self._blank_all) and not any(name[0] == app for name in self._spare)

    def _open(self, name: ValueKey) -> Entry:
        """Note that this request read the value, and as what."""
        if self._hides and self._is_blank(name):
            entry = Entry(MISSING, None, None)
        elif (raw := (self._snapshot() if self.values is None else self.values).get(name)) is None:
            entry = Entry(MISSING, None, ABSENT)
        else:
            value, origin = self._decode(name, raw)
            entry = Entry(value, raw, raw.version, origin)
            if origin is not None:
                entry.own = containers([value])
        self._entries[name] = entry
        return entry

    def _decode(self, name: ValueKey, raw: Value | None) -> tuple[Any, bytes | None]:
        """Give a stored value and, where it can change in place, its encoding as of now."""
        if raw is None:
            return MISSING, None
        if isinstance(raw.data, int):
            return raw.data, None
        try:
            value = self._codec.decode(raw.data)
            # Encoded again rather than compared with what is stored: another release of this library, or another
            # program, may have written the same value with other bytes.
            return value, self._codec.encode(value) if self._codec.is_mutable(value) else None
        except (Undecodable, Unencodable):  # the latter where a registered decode function gave something unstorable
            self._asked().unreadable(name)
            return MISSING, None

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

    @staticmethod
    def _sum(name: ValueKey, value: Any, amount: int) -> int:
        if value is MISSING:
            value = 0
        if type(value) is not int or not COUNTER_MIN <= value <= COUNTER_MAX:  # a larger one is stored as bytes
            raise NotACounter(*name)
        if not COUNTER_MIN <= value + amount <= COUNTER_MAX:
            raise CounterOverflow(*name)
        return int(value + amount)
