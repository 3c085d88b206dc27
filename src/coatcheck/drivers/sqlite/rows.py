"""Rows of the database as records. A row that another program spoilt is recognized, and never raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coatcheck.drivers._rows import record_of
from coatcheck.record import Missing, Record, Value, ValueKey

__all__ = ["record_in", "value_in"]

Row = tuple[Any, ...]

new_value: Final = tuple.__new__  # a NamedTuple's own constructor takes three times as long


def record_in(rows: Sequence[Row], digest: bytes, now: float, *, stale: bool) -> Record | Missing:
    """Return the session in *rows* of the statement `load`, or why it is none.

    A value of a wrong type is left out: to the application it is missing, and its next write replaces it.
    """
    values: dict[ValueKey, Value] = {}
    for app, key, version, data, _, _ in rows[2:]:
        if (
            (type(data) is bytes or type(data) is int)
            and type(version) is int
            and version > 0
            and type(app) is str
            and type(key) is str
        ):
            values[app, key] = new_value(Value, (data, version))
    return record_of(rows[0] + rows[1], values, digest, now, stale=stale)


def value_in(row: Row | None) -> Value | None:
    """Return the value in a row of (version, data), or None if there is none that makes sense."""
    if row is None:
        return None
    version, data = row
    if type(version) is not int or version <= 0 or (type(data) is not int and type(data) is not bytes):
        return None
    return Value(data, version)
