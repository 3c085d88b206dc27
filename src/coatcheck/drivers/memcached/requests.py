"""What the operations ask of memcached: a handful of requests, and which server each key is on."""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from coatcheck.errors import ConfigurationError

__all__ = [
    "Contended",
    "Delete",
    "Get",
    "Item",
    "ItemKeys",
    "Lines",
    "Request",
    "StoreItem",
    "Touch",
    "check_prefix",
    "is_write",
]


class Item(NamedTuple):
    """An item as it is stored, with the number that its next write has to name."""

    data: bytes
    cas: int


class Get(NamedTuple):
    """Ask for the items under *keys*, all on the server with that number: a dict by key, without those not there."""

    server: int
    keys: tuple[str, ...]


class StoreItem(NamedTuple):
    """Store an item: True where it was done.

    Attributes:
        server: The number of the server.
        key: The key.
        data: What to store.
        ttl: Seconds until the server may forget it; 0 for never.
        cas: The number of the item that it replaces; None where there must be none.
    """

    server: int
    key: str
    data: bytes
    ttl: int
    cas: int | None


class Touch(NamedTuple):
    """Set another *ttl* on an item: True where there is one."""

    server: int
    key: str
    ttl: int


class Delete(NamedTuple):
    """Delete an item: True where there was one."""

    server: int
    key: str


class Lines(NamedTuple):
    """Send a command that answers with lines: a list of them."""

    server: int
    command: str


class Contended(NamedTuple):
    """Wait a moment, because another writer got there first. Too many of them in a row end the operation."""


Request = Get | StoreItem | Touch | Delete | Lines


def is_write(request: Request) -> bool:
    """Return whether *request* must not be sent twice."""
    return isinstance(request, StoreItem | Delete)


def check_prefix(prefix: str) -> str:
    """Return *prefix* if keys can start with it.

    Raises:
        ConfigurationError: It is long, or has other characters than ASCII letters, digits and underscores.
    """
    if re.fullmatch(r"[A-Za-z0-9_]{0,100}", prefix) is None:
        raise ConfigurationError(
            f"the prefix {prefix!r} may only have ASCII letters, digits and underscores, 100 at most"
        )
    return prefix


class ItemKeys:
    """The keys of one prefix, and their servers.

    A key has no more than the prefix and hexadecimal digits, whatever somebody puts into a sid. Each key belongs to the
    server that scores highest for it, so a server that joins or leaves takes only its own share of the keys along.

    Args:
        prefix: What all keys start with.
        servers: The names of the servers. Their order does not matter, but every program has to give the same ones.
    """

    def __init__(self, prefix: str, servers: tuple[str, ...]) -> None:
        self._digest: Final = f"{prefix}coatcheck_d_"
        self._session: Final = f"{prefix}coatcheck_s_"
        self._ours: Final = re.compile(rf"{prefix}coatcheck_[ds]_[0-9a-f]+")
        self._servers: Final = tuple(name.encode() for name in servers)

    @property
    def count(self) -> int:
        """The number of servers."""
        return len(self._servers)

    def of_digest(self, digest: bytes) -> str:
        """Return the key of a digest's pointer."""
        return self._digest + digest.hex()

    def of_session(self, sid: str) -> str:
        """Return the key of a session."""
        return self._session + hashlib.blake2b(sid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def is_ours(self, key: str) -> bool:
        """Return whether *key* is one that we made under this prefix."""
        return self._ours.fullmatch(key) is not None

    def server(self, key: str) -> int:
        """Return the number of the server that has *key*."""
        if len(self._servers) == 1:
            return 0
        return max(range(len(self._servers)), key=lambda number: self._score(number, key))

    def _score(self, number: int, key: str) -> tuple[bytes, bytes]:
        name = self._servers[number]
        return hashlib.blake2b(b"%b %b" % (key.encode(), name), digest_size=8).digest(), name
