"""Three-way merge of one value that two requests changed at the same time.

Both started from the same base. If their changes can both be kept, they are; if they cannot, the caller's own
change wins and it is told, so that losing the other one is never silent. Nothing here knows of sessions or storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import chain
from typing import Any, Final

__all__ = ["MISSING", "merge"]


class _Missing(Enum):
    """The type of `MISSING`; an enum, so that type checkers narrow on ``is MISSING`` and copies stay identical."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""Stands for a value that is not there: a key that was never set, or that was deleted."""

_Same = Callable[[Any, Any], bool]


_GROWING: Final = frozenset({Counter, dict, int, list})
"""Types of which two equal changes may be two: counts and appends, or a dict that holds such."""


def merge(base: Any, mine: Any, theirs: Any, same: _Same) -> tuple[Any, bool]:
    """Merge two changes of one value.

    A side that changed nothing yields to the other. Dicts merge key by key, at every depth (the order is theirs, then
    my new keys). Sets keep what either side added, without what either removed. Lists merge if at least one side
    only appended: its additions follow the other side's list, equal ones too, since two requests that put the same
    thing into a cart meant two. Counters merge by adding what each side added and subtracting what it took, equal
    changes too; a key that one side removed goes, unless the other side added to it. A base that is missing counts as
    empty. A side that deleted such a value has removed all that was in it, so that what the other side added stays.
    Otherwise identical changes agree, but for integers: two requests that both count from 1 to 2 lost a count.
    Everything else clashes, and then mine wins.

    Args:
        base: What both sides started from, or `MISSING`.
        mine: The caller's value, or `MISSING` if it deleted the value.
        theirs: The other side's value, or `MISSING` likewise.
        same: Returns whether two values are exactly equal, types included, at every depth. Never called with `MISSING`.

    Returns:
        The merged value (`MISSING` if the result is a deletion), and whether any part of their change was lost.
        The arguments are not changed, but the result may share parts with them.
    """
    if _equal(base, theirs, same):
        return mine, False
    if _equal(base, mine, same):
        return theirs, False
    if _agrees(base, type(mine)) and _equal(mine, theirs, same):
        return mine, False
    kind = type(theirs if mine is MISSING else mine)
    if kind not in _MERGES or not _are_of(kind, (base, mine, theirs)):
        return mine, True
    sides = (kind() if side is MISSING else side for side in (base, mine, theirs))
    value, lost = _MERGES[kind](*sides, same)
    return (MISSING if mine is MISSING and not value else value), lost


def _agrees(base: Any, kind: type) -> bool:
    """Check whether two equal changes of *base* to a value of a type may be one."""
    if base is MISSING:
        return kind is not Counter
    return type(base) is not kind or kind not in _GROWING


def _are_of(kind: type, sides: tuple[Any, ...]) -> bool:
    """Check whether each side is of a type, or missing."""
    return all(side is MISSING or type(side) is kind for side in sides)


def _equal(a: Any, b: Any, same: _Same) -> bool:
    if a is MISSING or b is MISSING:
        return a is b
    return same(a, b)


def _respelled(members: Iterable[Any], same: _Same) -> bool:
    """Check whether equal members differ in type, as 1 and True do.

    A dict or a set holds only one of them, so merging member by member would silently choose between the spellings.
    """
    spelled: dict[Any, Any] = {}
    for member in members:
        known = spelled.setdefault(member, member)
        if known is not member and not (type(known) is type(member) is str) and not same(known, member):
            return True
    return False


def _merge_dicts(
    base: Mapping[Any, Any], mine: Mapping[Any, Any], theirs: Mapping[Any, Any], same: _Same
) -> tuple[Any, bool]:
    if _respelled(chain(base, theirs, mine), same):
        return mine, True
    merged: dict[Any, Any] = {}
    clash = False
    for key in dict.fromkeys(chain(theirs, mine)):
        value, lost = merge(base.get(key, MISSING), mine.get(key, MISSING), theirs.get(key, MISSING), same)
        clash = clash or lost
        if value is not MISSING:
            merged[key] = value
    return merged, clash


def _merge_counters(base: Counter[Any], mine: Counter[Any], theirs: Counter[Any], same: _Same) -> tuple[Any, bool]:
    if _respelled(chain(base, theirs, mine), same):
        return mine, True
    merged: Counter[Any] = Counter()
    clash = False
    for key in dict.fromkeys(chain(theirs, mine)):
        removed = key in base and (key not in mine or key not in theirs)
        try:
            count = theirs[key] + (mine[key] - base[key])
            removed = removed and count <= 0
        except (TypeError, ArithmeticError):  # a float and a Decimal, say
            count, lost = merge(base.get(key, MISSING), mine.get(key, MISSING), theirs.get(key, MISSING), same)
            clash = clash or lost
            removed = count is MISSING
        if not removed:
            merged[key] = count
    return merged, clash


def _merge_sets(base: Any, mine: Any, theirs: Any, same: _Same) -> tuple[Any, bool]:
    if _respelled(chain(base, theirs, mine), same):
        return mine, True
    # An element that one side removed goes even if the other still has it, for the other did nothing about it.
    return (theirs | (mine - base)) - (base - mine), False


def _merge_lists(base: list[Any], mine: list[Any], theirs: list[Any], same: _Same) -> tuple[Any, bool]:
    start = len(base)
    if len(mine) >= start and same(mine[:start], base):
        return theirs + mine[start:], False
    if len(theirs) >= start and same(theirs[:start], base):
        return mine + theirs[start:], False
    return mine, not same(mine, theirs)


_MERGES: Final[dict[type, Callable[..., tuple[Any, bool]]]] = {
    dict: _merge_dicts,
    set: _merge_sets,
    frozenset: _merge_sets,
    Counter: _merge_counters,
    list: _merge_lists,
}
"""How each type merges. What is missing counts as empty."""
