"""What the tests of engines store, and how they look at it."""

from __future__ import annotations

from typing import Final

from coatcheck.record import Record, ValueKey
from coatcheck.testing.helpers import START

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
N: Final[ValueKey] = ("", "n")
LARGE: Final = b"x" * 50_000
LATER: Final = START + 10 * 365 * 86400.0


def data_of(record: Record) -> dict[ValueKey, bytes | int]:
    return {name: value.data for name, value in record.values.items()}
