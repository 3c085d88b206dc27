"""What one request knows of the values of its session: plain data, which `Changes` works on. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from coatcheck.merge import MISSING
from coatcheck.record import ABSENT, Delta, Value, ValueKey, is_spared

__all__ = [
    "DELETED",
    "NOT_STORED",
    "UNCHANGED",
    "UNCLEARED",
    "Assigned",
    "Cleared",
    "Deleted",
    "First",
    "Merged",
    "Owner",
    "Parted",
    "Rerun",
    "Settled",
    "Unchanged",
    "Updated",
    "ValueChange",
    "ValueEntry",
    "undone_change",
]

NOT_STORED: Final = Value(b"", ABSENT)
"""What a request saw that looked for a value and found none."""

Rerun = tuple[Callable[[Any], Any], Any]
"""A function given to `update_with`, and the default for a missing key."""


class Owner(Protocol):
    """The object that knows where a session is stored."""

    def fetch(self) -> Mapping[ValueKey, Value]:
        """Return what is stored, and fill it in as the `values` of the `Changes`; or raise."""

    def unreadable(self, name: ValueKey) -> None:
        """Record that a value no longer decodes."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Which stored values a request has deleted without naming them.

    Attributes:
        apps: Apps whose values are all deleted. Empty if everything is.
        everything: True if the values of every app are deleted, but those in `spare`.
        spare: What is left alone, as in `Delta.spare`. Empty if not everything is deleted.
    """

    apps: frozenset[str] = frozenset()
    everything: bool = False
    spare: frozenset[ValueKey] = frozenset()

    @classmethod
    def of(cls, delta: Delta) -> Cleared:
        """Return what a Delta clears."""
        return cls(everything=True, spare=delta.spare) if delta.clear_all else cls(delta.clears)

    def hides(self, name: ValueKey) -> bool:
        """Check whether a value is deleted."""
        return name[0] in self.apps or (self.everything and not is_spared(name, self.spare))

    def hides_app(self, app: str) -> bool:
        """Check whether all values of an app are deleted."""
        return app in self.apps or (self.everything and not any(name[0] == app for name in self.spare))

    def since(self, before: Cleared) -> Cleared:
        """Return what was deleted in addition to *before*."""
        if self == before:
            return UNCLEARED
        return self if self.everything else Cleared(self.apps - before.apps)

    def __or__(self, other: Cleared) -> Cleared:
        """Return what one of both deletes."""
        if not (self.everything or other.everything):
            return Cleared(self.apps | other.apps)
        spare = (name for name in self.spare | other.spare if not self.hides(name) and not other.hides(name))
        return Cleared(everything=True, spare=frozenset(spare))


UNCLEARED: Final = Cleared()


class Unchanged(NamedTuple):
    """The application has read the value, and maybe changed it in place.

    Attributes:
        origin: The encoding of a value that can change in place, as it was read or last written; None for others.
    """

    origin: bytes | None


class Assigned(NamedTuple):
    """The application has assigned the value.

    Attributes:
        data: Its encoding, if it cannot change in place; otherwise None.
        start: The encoding, as it was assigned, of a value that can change in place, to a key that was seen to be
            missing; otherwise None.
    """

    data: bytes | int | None
    start: bytes | None


class Updated(NamedTuple):
    """The value is the result of `update_with`.

    Attributes:
        reruns: What runs again if another request has changed the value meanwhile, in this order.
        result: The encoding of the result, by which a later change in place is found; None if there can be none.
    """

    reruns: tuple[Rerun, ...]
    result: bytes | None


class Deleted(NamedTuple):
    """The application has deleted the value."""


class First(NamedTuple):
    """A change as it was before it was merged with what others wrote: each further merge begins from it.

    Beginning from the result of the last merge would count twice what that result has kept of the base.

    Attributes:
        seen: What the change was based on, as in `ValueEntry.seen`.
        mine: The encoding of the changed value, or None if it was deleted.
        merged: The encoding of what the last merge made of it, or None likewise. What the application changes after
            a save that failed is the difference to this.
        start: As in `Assigned`.
    """

    seen: Value | None
    mine: bytes | None
    merged: bytes | None
    start: bytes | None


class Merged(NamedTuple):
    """The value is the merge of the application's change with another request's, and is still to be written.

    Attributes:
        first: The application's change.
    """

    first: First


ValueChange = Unchanged | Assigned | Updated | Deleted | Merged
"""What the application did to a value since it was read or last written."""

UNCHANGED: Final = Unchanged(None)
DELETED: Final = Deleted()


def undone_change(before: ValueChange, since: ValueChange) -> ValueChange:
    """Return a change that was written, and undone, together with what was done to the value since."""
    if isinstance(since, Unchanged):
        return Updated(before.reruns, since.origin) if isinstance(before, Updated) else before
    if isinstance(since, Updated):  # what ran before runs again too; if it was an assignment, neither does
        return (
            Updated((*before.reruns, *since.reruns), since.result)
            if isinstance(before, Updated)
            else Assigned(None, None)
        )
    return since


class Parted(NamedTuple):
    """An object that the application may still hold, but that its session holds no more since a save merged.

    Attributes:
        held: The object.
        data: Its encoding as of then.
        is_whole: True if it was the whole value, so that later changes of it can be merged into the present one.
    """

    held: Any
    data: bytes
    is_whole: bool


class ValueEntry:
    """What a request knows of one value.

    Attributes:
        value: The value as the request sees it, or `MISSING`.
        seen: What is stored, as the request saw it; `NOT_STORED` if nothing was; None if it did not look.
        change: What the application did to it.
        own: The containers of the value that the session has made, by decoding.
        parted: Objects that an earlier merge took out of the session.
    """

    # One is made for every value that is touched, and defaults that stand in the class cost nothing.
    own: Sequence[Any] = ()
    parted: tuple[Parted, ...] = ()

    def __init__(self, value: Any, seen: Value | None, change: ValueChange) -> None:
        self.value = value
        self.seen = seen
        self.change = change

    @property
    def base(self) -> int | None:
        """The version that a change is based on, as in `Put.base`."""
        return None if self.seen is None else self.seen.version

    def settle(self, written: Value | None, is_mutable: Callable[[Any], bool]) -> None:
        """Record that the value was written, or deleted, or found to be stored already.

        Args:
            written: What is stored now, if the value was written.
            is_mutable: Returns whether a value can change in place.
        """
        if written is not None:
            self.seen = written
        elif isinstance(self.change, Unchanged):
            return
        self.change = UNCHANGED
        if self.value is MISSING:
            self.seen = None if self.seen is None else NOT_STORED
        elif self.seen is not None and isinstance(self.seen.data, bytes) and is_mutable(self.value):
            self.change = Unchanged(self.seen.data)


class Settled(NamedTuple):
    """What was written in a transaction that may not last, and what `settle` forgot on that occasion.

    Attributes:
        delta: What was written.
        values: What was stored before, as far as it was known.
        before: Of each value that was known: `ValueEntry.seen` and `ValueEntry.change`, as they were.
        version: The version that everything written has.
    """

    delta: Delta
    values: Mapping[ValueKey, Value] | None
    before: Mapping[ValueKey, tuple[Value | None, ValueChange]]
    version: int
