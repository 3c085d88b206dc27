"""The names of keys and fields.

On one server, keys of a prefix `coatcheck` begin with `coatcheck:`. In a cluster, those of a session begin with
`coatcheck:{8f}:`, where `8f` is the first byte of its digests: so all keys of a session are in one slot, and a script
may look at them together. The keys of a user are in a slot of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from redis.crc import key_slot

from coatcheck.errors import ConfigurationError
from coatcheck.record import ValueKey

__all__ = ["DEFAULT_PREFIX", "Keys", "app_field", "field_of", "key_in"]

DEFAULT_PREFIX: Final = "coatcheck"

_PREFIX: Final = re.compile(r"[A-Za-z0-9_]+")


class Keys:
    """The keys under one prefix.

    Args:
        prefix: Letters, digits and underscores.
        is_spread: Whether the keys are spread over the slots of a cluster.

    Attributes:
        base: What all keys begin with.
        schema: The key of the schema version.

    Raises:
        ConfigurationError: The prefix has something else in it, or nothing.
    """

    def __init__(self, prefix: str, *, is_spread: bool) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(f"prefix must be letters, digits and underscores, not {prefix!r}")
        self.base: Final = f"{prefix}:".encode()
        self.schema: Final = self.base + b"schema"
        self._is_spread: Final = is_spread
        self._bases: Final = [self.base + b"{%02x}:" % number for number in range(256)] if is_spread else []
        of_session = rb"%b(d:.{32}|s:[0-9a-f]{32})" % (rb"\{[0-9a-f]{2}\}:" if is_spread else b"")
        self._ours: Final = re.compile(rb"%b(schema|\{u:.*\}:[uf]|%b)" % (self.base, of_session), re.DOTALL)
        self._slots: Final = [key_slot(base) for base in self._bases]

    def of_digest(self, digest: bytes) -> tuple[bytes, int]:
        """Return what the keys of a session begin with, and their slot; by any of its digests."""
        if not self._is_spread:
            return self.base, 0
        first = digest[0] if digest else 0
        return self._bases[first], self._slots[first]

    def of_user(self, user: str) -> tuple[bytes, int]:
        """Return what the keys of a user begin with, and their slot."""
        key = self.base + b"{u:%b}:" % user.encode()
        return key, key_slot(key) if self._is_spread else 0

    def is_ours(self, key: bytes) -> bool:
        """Return whether a key is one that we made under this prefix: another program may use the prefix too."""
        return self._ours.fullmatch(key) is not None

    def slot(self, key: bytes) -> int:
        """Return the slot of a key."""
        return key_slot(key) if self._is_spread else 0

    def by_slot(self, sids: Iterable[str]) -> dict[tuple[bytes, int], list[str]]:
        """Sort sids by what the keys of their sessions begin with."""
        if not self._is_spread:
            return {(self.base, 0): list(sids)}
        found: dict[tuple[bytes, int], list[str]] = {}
        for sid in sids:
            try:
                first = int(sid[:2], 16)
            except ValueError:
                first = 0  # names no session
            found.setdefault((self._bases[first], self._slots[first]), []).append(sid)
        return found


def app_field(app: str) -> bytes:
    """Return what the fields of an app's values begin with. No app's beginning is that of another's fields."""
    encoded = app.encode()
    return b"%d:%b" % (len(encoded), encoded)


def field_of(name: ValueKey) -> bytes:
    """Return the field of a value."""
    app, key = name
    return (f"0:{key}" if not app else f"{len(app.encode())}:{app}{key}").encode()


def key_in(field: bytes) -> ValueKey | None:
    """Return the name of the value in a field, or None if the field is of another kind."""
    if field[:2] == b"0:":
        try:
            return "", field[2:].decode()
        except ValueError:
            return None
    length, colon, rest = field.partition(b":")
    if not colon or not length.isdigit():
        return None
    try:
        size = int(length)
        return rest[:size].decode(), rest[size:].decode()
    except ValueError:
        return None
