"""When what may be removed: an empty file for each such thing, in a folder for each hour.

So a sweep looks only at what is due, however many sessions there are. An entry is made before the thing that it is
about, or before that thing gets its new end, and removed after it: what a crash leaves is an entry too many.
"""

# ruff: noqa: PTH106 (a Path takes longer to make than the call, and paths are made for every operation)

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Final, NamedTuple

from coatcheck.drivers.filesystem.tree import Tree

__all__ = ["Due", "Entry", "EntryKind"]

_HOUR: Final = 3600.0
_FAR: Final = 1e11  # the year 5138: whatever ends later is not swept


class EntryKind(StrEnum):
    """What an entry is about."""

    SESSION = "s"
    ENDED = "e"
    DIGEST = "d"
    FENCE = "f"


class Entry(NamedTuple):
    """One thing that is due."""

    at: float
    kind: EntryKind
    name: str


class Due:
    """The entries below one folder.

    Args:
        tree: The folder.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree: Final = tree
        self._folder: Final = f"{tree.root}/due"

    def file(self, entry: Entry) -> None:
        """Make an entry."""
        if entry.at < _FAR:
            self._tree.mark(self._path(entry), may_be_lost=True)

    def drop(self, entry: Entry) -> None:
        """Remove an entry, if there is one."""
        if entry.at < _FAR:
            self._tree.remove(self._path(entry))

    def entries(self, now: float) -> Iterator[Entry]:
        """Return what is due at the moment *now*, the earlier hours first."""
        for hour in sorted(int(name) for name in self._tree.names(self._folder) if name.lstrip("-").isdigit()):
            if hour * _HOUR > now:
                return
            folder = f"{self._folder}/{hour}"
            for name in self._tree.names(folder):
                entry = _entry_in(name)
                if entry is not None and entry.at <= now:
                    yield entry
            with suppress(OSError):  # not empty, or somebody else removed it
                os.rmdir(folder)

    def _path(self, entry: Entry) -> str:
        return f"{self._folder}/{int(entry.at // _HOUR)}/{entry.at!r}_{entry.kind}_{entry.name}"


def _entry_in(name: str) -> Entry | None:
    at, _, rest = name.partition("_")
    kind, _, what = rest.partition("_")
    try:
        return Entry(float(at), EntryKind(kind), what)
    except ValueError:
        return None
