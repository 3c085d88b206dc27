"""The files of a session: the document, its values where they are large, pointers, and the lists of a user's sessions.

The caller of what writes here holds the lock of the session.
"""

# ruff: noqa: PTH106 (a Path takes longer to make than the call, and paths are made for every operation)

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec.structs import replace

from coatcheck.drivers._document import (
    Change,
    Document,
    Ended,
    Pointer,
    encoded,
    encoded_values,
    ended,
    pointer_in,
    session_in,
    values_in,
)
from coatcheck.drivers._rules import raised_fence
from coatcheck.drivers.filesystem.due import Due, Entry, EntryKind
from coatcheck.drivers.filesystem.locks import Locks
from coatcheck.drivers.filesystem.tree import Tree
from coatcheck.record import USER_FENCE, Value, ValueKey

__all__ = ["SESSION", "Moved", "Sessions", "Spoilt", "digest_name", "session_name", "user_name"]

SESSION: Final = "session-"
"""The kind of a session's lock."""
INLINE: Final = 4096
"""Bytes of values that are kept in the document itself. Others have a file of their own, which a rotation leaves be."""

_NUMBER: Final = struct.Struct(">Q")


class Spoilt(Exception):
    """What is in a file makes no sense."""


class Moved(Exception):
    """The values were replaced after the document was read: read it again."""


def session_name(sid: str) -> str:
    """Return the name of a session's files: whatever somebody puts into a sid, it leads nowhere else."""
    return hashlib.blake2b(sid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def user_name(user: str) -> str:
    """Return the name of a user's files."""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16, person=b"user").hexdigest()


def digest_name(digest: bytes) -> str:
    """Return the name of a digest's file."""
    return digest.hex()


class Sessions:
    """The sessions in one folder.

    Args:
        tree: The folder.
        locks: Its locks.

    Attributes:
        tree: The same.
        due: When what may be removed.
    """

    def __init__(self, tree: Tree, locks: Locks) -> None:
        self.tree: Final = tree
        self._locks: Final = locks
        self.due: Final = Due(tree)

    # -- reading

    def pointer(self, name: str) -> Pointer | Ended | None:
        """Return what stands under a digest.

        Raises:
            Spoilt: It makes no sense.
        """
        data = self.tree.read(self._digest(name))
        if data is None:
            return None
        found = pointer_in(data)
        if found is None:
            raise Spoilt
        return found

    def session(self, name: str) -> Document | Ended | None:
        """Return what stands under a sid.

        Raises:
            Spoilt: It makes no sense.
        """
        data = self.tree.read(self._session(name))
        if data is None:
            return None
        found = session_in(data)
        if found is None:
            raise Spoilt
        return found

    def values(self, name: str, session: Document) -> dict[ValueKey, Value]:
        """Return the values of a session.

        Raises:
            Moved: They belong to a later document.
            Spoilt: They make no sense.
        """
        data = session.values
        if isinstance(data, int):
            number, path = data, self._apart(name, data)
            found = self.tree.read(path)
            if found is None or found[: _NUMBER.size] != _NUMBER.pack(number):
                raise Moved
            data = found[_NUMBER.size :]
        values = values_in(data)
        if values is None:
            raise Spoilt
        return values

    # -- writing a session

    def write(self, name: str, before: Document | None, change: Change) -> None:
        """Write a session; *before* is what is there.

        Whatever leads to the session is there before it, and what leads nowhere any more goes after it. Only the one
        replacement in the middle counts. It is not made in a folder that was put in the place of the one that was read.
        """
        document = change.document
        end = Entry(document.expires, EntryKind.SESSION, name)
        if before is None or before.expires != end.at:
            self.due.file(end)
        if document.user is not None and (before is None or document.user != before.user):
            self.tree.mark(self._of_user(document.user, name))
        if change.values is not None:
            document = replace(document, values=self._placed(name, before, document.version, change))
        self.tree.replace(self._session(name), encoded(document), partial(self._locks.check, SESSION, name))
        with suppress(OSError):  # it is done; what is left behind, a sweep or a reader removes
            self._tidy(name, before, document)

    def _placed(self, name: str, before: Document | None, version: int, change: Change) -> bytes | int:
        data = encoded_values(change.values or {})
        if len(data) <= INLINE:
            return data
        held = 0 if before is None or isinstance(before.values, bytes) else before.values
        number = version << 1 | (held & 1 ^ 1)  # of two files the one that the present document does not use
        self.tree.replace(self._apart(name, number), _NUMBER.pack(number) + data)
        return number

    def _tidy(self, name: str, before: Document | None, after: Document) -> None:
        if before is None:
            return
        if isinstance(before.values, int) and before.values != after.values:
            self.tree.remove(self._apart(name, before.values))
        if before.expires != after.expires:
            self.due.drop(Entry(before.expires, EntryKind.SESSION, name))
        if before.user is not None and before.user != after.user:
            self.forget_user(before.user, name)
        self._remove_digests(set(before.digests) - set(after.digests))

    def point(self, digest: bytes, sid: str, now: float) -> bool:
        """Make a digest's pointer; False if something is there. `pointed` follows once the session knows it."""
        entry = Entry(now, EntryKind.DIGEST, digest_name(digest))
        self.due.file(entry)
        if self.tree.add(self._digest(entry.name), encoded(Pointer(sid))):
            return True
        self.due.drop(entry)
        return False

    def pointed(self, digest: bytes, now: float) -> None:
        """Note that the session of a pointer knows it, so that no sweep must look after it."""
        with suppress(OSError):
            self.due.drop(Entry(now, EntryKind.DIGEST, digest_name(digest)))

    # -- ending one

    def end(self, name: str, session: Document | Ended | None, now: float) -> None:
        """Put a tombstone in the place of a session; None for one that cannot be read."""
        stone = ended(session if isinstance(session, Document) else None, now)
        if isinstance(session, Ended):
            stone = Ended(stone.until, session.digests)
        self.due.file(Entry(stone.until, EntryKind.ENDED, name))
        self.tree.replace(self._session(name), encoded(stone))
        with suppress(OSError):  # it is done
            self._leave(name, session)
            if isinstance(session, Document):
                self.due.drop(Entry(session.expires, EntryKind.SESSION, name))

    def remove(self, name: str, session: Document | Ended | None) -> None:
        """Remove what is left of a session, the session itself last: so a sweep that is cut short comes again.

        If there is none, or one that makes no sense, what a crash may have left of it goes.
        """
        self._remove_digests(() if session is None else session.digests)
        self._leave(name, session)
        self.tree.remove(self._session(name))

    def _leave(self, name: str, session: Document | Ended | None) -> None:
        for bit in (0, 1):  # whatever the document says: a crash may have left the other
            self.tree.remove(self._apart(name, bit))
        if isinstance(session, Document) and session.user is not None:
            self.forget_user(session.user, name)

    def _remove_digests(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            self.tree.remove(self._digest(digest_name(digest)))

    # -- digests that no session knows

    def forbid(self, name: str, now: float) -> bool:
        """Leave a tombstone under a digest that has none; False if something is there."""
        stone = ended(None, now)
        self.due.file(Entry(stone.until, EntryKind.DIGEST, name))
        return self.tree.add(self._digest(name), encoded(stone))

    def forbid_again(self, name: str, now: float) -> None:
        """Put a new tombstone in the place of an old one, or of what makes no sense."""
        stone = ended(None, now)
        self.due.file(Entry(stone.until, EntryKind.DIGEST, name))
        self.tree.replace(self._digest(name), encoded(stone))

    def remove_digest(self, name: str) -> None:
        """Remove what stands under a digest."""
        self.tree.remove(self._digest(name))

    # -- users

    def of_user(self, user: str) -> list[str]:
        """Return the names of the sessions that a user had, some of which may be over, or somebody else's by now."""
        return self.tree.names(self._of_user(user))

    def forget_user(self, user: str, name: str) -> None:
        """Take a session from a user's list."""
        self.tree.remove(self._of_user(user, name))
        with suppress(OSError):  # not empty, or not there
            os.rmdir(self._of_user(user))

    def fence(self, name: str) -> float | None:
        """Return the moment up to which a user's log-ins are refused."""
        data = self.tree.read(self._fence(name))
        try:
            return None if data is None else float(data)
        except ValueError:
            return None

    def set_fence(self, name: str, now: float) -> None:
        """Refuse a user's log-ins up to the moment *now*."""
        at = raised_fence(self.fence(name), now)
        self.due.file(Entry(at + USER_FENCE, EntryKind.FENCE, name))
        self.tree.replace(self._fence(name), repr(at).encode())

    def remove_fence(self, name: str) -> None:
        """Let a user's log-ins be."""
        self.tree.remove(self._fence(name))

    # -- places

    def _digest(self, name: str) -> str:
        return f"{self.tree.root}/digest/{name[:2]}/{name}"

    def _session(self, name: str) -> str:
        return f"{self.tree.root}/session/{name[:2]}/{name}"

    def _apart(self, name: str, number: int) -> str:
        return f"{self.tree.root}/session/{name[:2]}/{name}.{number & 1}"

    def _fence(self, name: str) -> str:
        return f"{self.tree.root}/fence/{name[:2]}/{name}"

    def _of_user(self, user: str, name: str | None = None) -> str:
        folder = f"{self.tree.root}/user/{user_name(user)}"
        return folder if name is None else f"{folder}/{name}"
