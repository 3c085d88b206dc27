"""The sessions that fill a store: made from their number alone, so that any process knows them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from coatcheck.codec import Codec
from coatcheck.record import NEVER, Record, Value, ValueKey

CROWD: Final = "user with many devices"
LAST_PAGE: Final[ValueKey] = ("", "last_page")

_IDLE: Final = 7 * 86400.0
_ABSOLUTE: Final = 30 * 86400.0
_LIFE: Final = 3600.0  # after which those with a deadline end
_encode: Final = Codec().encode


def page(number: int) -> bytes:
    """Give a value as it is stored: the address of a page."""
    return _encode(f"/articles/2026/a-page-with-a-name-{number % 100000:05}")


class Population(NamedTuple):
    """Some sessions of one prefix.

    Half of them belong to a user: the first `crowd` of these all to one, each of the others to one of its own. Half
    have a deadline, an hour after they were made: they are the ones that expire in this benchmark.

    Attributes:
        prefix: The prefix of the storage.
        size: How many there are.
        crowd: How many belong to the user with many devices.
        made: When they were made.
    """

    prefix: str
    size: int
    crowd: int
    made: float

    @property
    def later(self) -> float:
        """A moment at which those with a deadline have expired, and the others have not."""
        return self.made + _LIFE + 1

    @property
    def expiring(self) -> int:
        """How many expire."""
        return sum(1 for number in range(min(4, self.size)) if number < 2) * (self.size // 4)

    def digest(self, number: int) -> bytes:
        """Give the digest of a session."""
        return hashlib.sha256(f"{self.prefix} {number}".encode()).digest()

    @staticmethod
    def expires(number: int) -> bool:
        """Tell whether a session is one of those that expire."""
        return number % 4 < 2

    def record(self, number: int) -> Record:
        """Give a session: five small values."""
        digest = self.digest(number)
        user = None
        if number % 2:
            user = CROWD if number < 2 * self.crowd else f"user-{number:08}"
        return Record(
            sid=digest[:16].hex(),
            digest=digest,
            created=self.made,
            seen=self.made,
            deadline=self.made + _LIFE if self.expires(number) else NEVER,
            idle=_IDLE,
            absolute=_ABSOLUTE,
            user=user,
            auth_time=None if user is None else self.made,
            rotated=self.made,
            values={
                ("", "name"): Value(_encode(f"Ada Lovelace {number % 1000}"), 0),
                ("", "theme"): Value(_encode("dark"), 0),
                LAST_PAGE: Value(page(number), 0),
                ("", "cart"): Value(_encode([number % 977, number % 991, number % 997]), 0),
                ("", "visits"): Value(number % 50, 0),
            },
        )

    def records(self) -> Iterator[Record]:
        """Give them all."""
        return map(self.record, range(self.size))


def content() -> int:
    """Give the bytes of names and values of one session, on the average."""
    some = Population("content", 1000, 0, 0.0)
    return round(
        sum(
            len(key.encode()) + (len(value.data) if isinstance(value.data, bytes) else 2)
            for record in some.records()
            for (_, key), value in record.values.items()
        )
        / some.size
    )
