"""Bring what a merge made of a value into the objects that the application holds.

An application may keep a list that it took from its session, and change it again after a save. So the list itself gets
what the save merged into it. Only objects that the session made are changed, by decoding them: what the application put
into its session may be a constant of a module, which every visitor shares. Nothing here knows of sessions or storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from coatcheck.codec import Codec

__all__ = ["containers", "update_in_place"]

_CHANGEABLE: Final = frozenset({list, dict, set, Counter, bytearray})
_CONTAINERS: Final = _CHANGEABLE | {tuple}
_FLAT: Final = frozenset({set, Counter, bytearray})  # no container that can change stands in one of these


def containers(values: Iterable[Any]) -> list[Any]:
    """Return the containers among *values* and inside them."""
    found = [value for value in values if type(value) in _CONTAINERS]
    disjoint = _CONTAINERS.isdisjoint
    for holder in found:  # which grows meanwhile
        if type(holder) not in _FLAT:
            members = holder.values() if type(holder) is dict else holder
            if not disjoint(map(type, members)):
                found += [member for member in members if type(member) in _CONTAINERS]
    return found


def update_in_place(
    held: Any, merged: Any, own: Iterable[Any], others: Iterable[Any], codec: Codec
) -> tuple[Any, list[Any]]:
    """Change the containers of *held* so that they hold what *merged* holds.

    Args:
        held: The value that the application has.
        merged: What is to become of it. It may share parts with *held*, which stay as they are.
        own: The containers that may be changed.
        others: Values that may share parts with *held* and stay as they are.
        codec: Compares values, types included, and knows which can change.

    Returns:
        The value to go on with, which is *held* itself if that may be changed; and the objects that can change and
        were parts of *held*, but are not parts of that value.
    """
    update = _Update(merged, own, others, codec)
    value = update.bring(held, merged)
    return value, update.left()


class _Update:
    """One update, which uses each object once."""

    def __init__(self, merged: Any, own: Iterable[Any], others: Iterable[Any], codec: Codec) -> None:
        self._codec = codec
        self._own = {id(holder) for holder in own}
        self._taken = {id(holder) for holder in containers([merged, *others])}
        self._left: list[Any] = []

    def bring(self, held: Any, merged: Any) -> Any:
        """Return the object that stands for *merged* from now on."""
        if held is merged:
            return held
        kind = type(merged)
        if type(held) is kind:
            if kind is tuple and len(held) == len(merged):
                return self._tuple(held, merged)
            if kind in _CHANGES and self._takes(held):
                _CHANGES[kind](self, held, merged)
                return held
            if kind not in _CONTAINERS and self._codec.encode(held) == self._codec.encode(merged):
                return held  # of a registered type
        self._leave(held)
        return merged

    def left(self) -> list[Any]:
        """Return what can change, was left behind and is not used elsewhere."""
        return [part for part in self._left if id(part) not in self._taken]

    def _takes(self, held: Any) -> bool:
        if id(held) not in self._own or id(held) in self._taken:
            return False
        self._taken.add(id(held))
        return True

    def _leave(self, held: Any) -> None:
        for part in held if type(held) is tuple else (held,):
            if type(part) is tuple:
                self._leave(part)
            elif self._codec.is_mutable(part):
                self._left.append(part)

    def _tuple(self, held: tuple[Any, ...], merged: tuple[Any, ...]) -> tuple[Any, ...]:
        parts = tuple(map(self.bring, held, merged))
        return held if all(part is old for part, old in zip(parts, held, strict=True)) else parts

    def _dict(self, held: dict[Any, Any], merged: dict[Any, Any]) -> None:
        items = {key: self.bring(held[key], value) if key in held else value for key, value in merged.items()}
        for key in held.keys() - merged.keys():
            self._leave(held[key])
        dict.clear(held)
        dict.update(held, items)

    def _list(self, held: list[Any], merged: list[Any]) -> None:
        """Change a list. A member of it is known again by being the same, or else equal, or else at its place."""
        kept = {id(member) for member in merged}
        free = {place: member for place, member in enumerate(held) if id(member) not in kept}
        places: dict[bytes, list[int]] = {}
        for place, member in free.items():
            if self._codec.is_mutable(member):
                places.setdefault(self._codec.encode(member), []).append(place)
        known = {id(member) for member in held}
        result = list(merged)
        rest = []
        for place, member in enumerate(merged):
            if id(member) in known or not self._codec.is_mutable(member):
                continue
            if equal := places.get(self._codec.encode(member)):
                result[place] = self.bring(free.pop(equal.pop(0)), member)
            else:
                rest.append(place)
        for place in rest:
            if place in free:
                result[place] = self.bring(free.pop(place), merged[place])
        for member in free.values():
            self._leave(member)
        held[:] = result

    def _set(self, held: set[Any], merged: set[Any]) -> None:
        held.clear()
        held.update(merged)

    def _bytearray(self, held: bytearray, merged: bytearray) -> None:
        held[:] = merged


_CHANGES: Final[dict[type, Callable[[_Update, Any, Any], None]]] = {
    dict: _Update._dict,  # noqa: SLF001
    Counter: _Update._dict,  # noqa: SLF001
    list: _Update._list,  # noqa: SLF001
    set: _Update._set,  # noqa: SLF001
    bytearray: _Update._bytearray,  # noqa: SLF001
}
