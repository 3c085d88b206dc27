"""How a request's change of one value goes together with what another request has written meanwhile. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from coatcheck.codec import Codec, Unencodable
from coatcheck.inplace import containers, update_in_place
from coatcheck.merge import MISSING, merge
from coatcheck.record import Value
from coatcheck.snapshot import NOT_STORED, Assigned, First, Merged, Parted, Updated, ValueEntry

__all__ = ["Reconciler"]


class Reconciler:
    """Merges the entries of one session.

    Args:
        codec: Turns values into bytes and back.
        decode: Returns a stored value, or `MISSING` if there is none or it does not decode.
    """

    def __init__(self, codec: Codec, decode: Callable[[Value | None], Any]) -> None:
        self._codec = codec
        self._decode = decode

    def merge(self, entry: ValueEntry, raw: Value, others: Iterable[Any]) -> bool:
        """Merge the change of a value with what is stored now; True if a part of the latter is lost.

        Args:
            entry: The value, as the request has it. It is brought up to the merge.
            raw: What is stored, or `NOT_STORED`.
            others: The other values of the request, with which it may share objects.
        """
        theirs = self._decode(raw)
        mine, first = self._own_change(entry)
        if theirs is MISSING and raw is not NOT_STORED:
            merged, clash = mine, True  # what is there cannot be read, so nothing can be kept of it
        else:
            merged, clash = self._merged(first, mine, theirs)
        entry.seen = raw
        entry.change = Merged(first._replace(merged=self._packed(merged)))
        self._go_on_with(entry, merged, others, is_made_here=True)
        return clash

    def rerun(self, entry: ValueEntry, change: Updated, raw: Value, result: Any, others: Iterable[Any]) -> None:
        """Take what the functions given to `update_with` made of a value that another request has changed.

        Args:
            entry: The value, as the request has it.
            change: Its change.
            raw: What is stored, or `NOT_STORED`.
            result: What the functions made of it.
            others: The other values of the request, with which it may share objects.
        """
        entry.seen = raw
        entry.change = change if change.result is None else Updated(change.reruns, self._codec.encode(result))
        self._go_on_with(entry, result, others, is_made_here=False)

    def _own_change(self, entry: ValueEntry) -> tuple[Any, First]:
        """Return the changed value as it would be without any merge so far, and the change."""
        change, mine = entry.change, entry.value
        if not isinstance(change, Merged):
            start = change.start if isinstance(change, Assigned) else None
            return mine, First(entry.seen, self._packed(mine), None, start)
        first = change.first
        mine, _ = merge(self._unpacked(first.merged), mine, self._unpacked(first.mine), self._same)
        return mine, first._replace(mine=self._packed(mine))

    def _merged(self, first: First, mine: Any, theirs: Any) -> tuple[Any, bool]:
        if first.start is not None:
            # Two steps, so that of two requests that both begin a list and append the same to it, both have appended.
            start = self._codec.decode(first.start)
            if type(start) is type(theirs) is list and self._same(theirs[: len(start)], start):
                begun, is_lost = theirs, False
            else:
                begun, is_lost = merge(MISSING, start, theirs, self._same)
            merged, clash = merge(start, mine, begun, self._same)
            if not (clash or is_lost):
                return merged, False
        return merge(self._decode(first.seen), mine, theirs, self._same)

    def _go_on_with(self, entry: ValueEntry, merged: Any, others: Iterable[Any], *, is_made_here: bool) -> None:
        """Take what a merge made of a value, in the objects that the application holds if the session made those.

        Args:
            entry: The value.
            merged: What the merge made of it.
            others: The other values of the request, with which it may share objects.
            is_made_here: True if the session has made each container in *merged* that is not in the present value.
        """
        held = entry.value
        if held is MISSING:
            entry.value, entry.own = merged, containers([merged])
        elif entry.own or not self._codec.is_mutable(held):
            known = {id(holder) for holder in containers([held])}
            made = [holder for holder in containers([merged]) if id(holder) not in known] if is_made_here else []
            entry.value, parted = update_in_place(held, merged, entry.own, others, self._codec)
            entry.own = [*entry.own, *made]
            entry.parted += tuple(Parted(part, self._codec.encode(part), is_whole=False) for part in parted)
        elif held is not merged and (data := self._packed(merged)) != self._packed(held):
            # It may be a constant of the application's, so the session goes on with objects of its own.
            entry.value = self._unpacked(data)
            entry.own = containers([entry.value])
            entry.parted += (Parted(held, self._codec.encode(held), is_whole=True),)

    def bring_in_parted(self, entry: ValueEntry, others: Iterable[Any]) -> bool:
        """Merge later changes of objects that a merge took out of the session; False if one does not merge."""
        for place, part in enumerate(entry.parted):
            data = self._encoding(part.held)
            if data == part.data:
                continue
            if data is None or not part.is_whole:
                return False
            base, mine = self._codec.decode(part.data), self._codec.decode(data)
            merged, clash = merge(base, mine, entry.value, self._same)
            if clash:
                return False
            entry.parted = (*entry.parted[:place], part._replace(data=data), *entry.parted[place + 1 :])
            self._go_on_with(entry, merged, others, is_made_here=True)
        return True

    def _encoding(self, value: Any) -> bytes | None:
        try:
            return self._codec.encode(value)
        except Unencodable:
            return None

    def _packed(self, value: Any) -> bytes | None:
        return None if value is MISSING else self._codec.encode(value)

    def _unpacked(self, data: bytes | None) -> Any:
        return MISSING if data is None else self._codec.decode(data)

    def _same(self, one: Any, other: Any) -> bool:
        return self._codec.encode(one) == self._codec.encode(other)
