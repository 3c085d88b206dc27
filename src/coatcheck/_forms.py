"""The encodings of values in stored bytes: the tag of every extension, its writer and its reader.

The input of a reader may be anything, so each reader accepts exactly what its writer produces and raises on the rest.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = [
    "COUNTER", "COUNTS", "FRACTION", "FRACTION_BITS", "FROZENSET", "INT", "LEAF_READERS", "LEAVES", "NEST_READERS",
    "PAIRS", "RANGE", "REGISTERED", "SET", "TUPLE", "RefusedError", "ensure", "full_name", "is_text", "write_int",
]  # fmt: skip

FRACTION_BITS: Final = 1 << 14
"""Larger fractions are refused: reducing one to lowest terms takes time that grows with the square of its size."""

# The tags of the stored format. A released tag never changes its meaning.
INT, TUPLE, SET, FROZENSET, PAIRS, _BYTEARRAY, _DECIMAL, FRACTION, _COMPLEX = range(1, 10)
_UUID, _DATETIME, _DATE, _TIME, _TIMEDELTA, _ZONE, RANGE, COUNTER = range(10, 18)
REGISTERED: Final = 32

COUNTS: Final = frozenset({int, float, Decimal, Fraction})
"""The types of a Counter's counts: additions of two requests can be summed."""

_DATETIME_HEAD: Final = struct.Struct(">HBBBBBI")
_DATE_FORM: Final = struct.Struct(">HBB")
_TIME_HEAD: Final = struct.Struct(">BBBI")
_TIMEDELTA_FORM: Final = struct.Struct(">iII")
_COMPLEX_FORM: Final = struct.Struct(">dd")
_OFFSET_FORM: Final = struct.Struct(">q")
_FOLD: Final = 1 << 31
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_MICROSECOND: Final = timedelta(microseconds=1)


class RefusedError(Exception):
    """A refusal on its way out of nested containers, each of which adds its step to the path."""

    def __init__(self, kind: type, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why
        self.steps: list[str] = []


def full_name(kind: type) -> str:
    """Return the full name of a type, as used in messages and registrations."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_text(value: str) -> bool:
    """Check that a str is Unicode text, without lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def ensure(held: object, what: str) -> None:
    """Raise ValueError for stored bytes that no writer has produced."""
    if not held:
        raise ValueError(what)


# --- leaves: a value to the payload of its extension, and back ---


def write_int(value: int) -> bytes:
    """Return the shortest big-endian bytes of an integer, sign included."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _read_int(data: bytes) -> int:
    value = int.from_bytes(data, "big", signed=True)
    ensure(write_int(value) == data, "a padded integer")
    return value


def _write_decimal(value: Decimal) -> bytes:
    # The case of str() depends on the current decimal context; the bytes must not.
    return str(value).upper().encode("ascii")


def _read_decimal(data: bytes) -> Decimal:
    value = Decimal(data.decode("ascii"))
    ensure(_write_decimal(value) == data, "another spelling of a Decimal")
    return value


def _write_zone(zone: tzinfo) -> bytes:
    if zone is UTC:
        return b"U"
    if type(zone) is timezone:
        # The only way to distinguish a given name from the one that timezone generates.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        stamp = _OFFSET_FORM.pack(offset // _MICROSECOND)
        return b"N" + stamp + name[0].encode() if name else b"O" + stamp
    if type(zone) is ZoneInfo:
        if not _ZONE_KEY.fullmatch(zone.key or ""):
            raise RefusedError(ZoneInfo, "a ZoneInfo that was not made by its key cannot be stored")
        return b"Z" + zone.key.encode("ascii")
    why = f"the time zone {full_name(type(zone))} cannot be stored: use zoneinfo.ZoneInfo or datetime.timezone"
    raise RefusedError(type(zone), why)


def _read_zone(data: bytes) -> tzinfo:
    form, rest = data[:1], data[1:]
    if form == b"U":
        ensure(not rest, "more than a zone")
        return UTC
    if form == b"Z":
        key = rest.decode("ascii")
        # Checked before zoneinfo uses it in the file system.
        ensure(_ZONE_KEY.fullmatch(key), "not the key of a zone")
        return ZoneInfo(key)
    ensure(form == b"N" or (form == b"O" and len(rest) == _OFFSET_FORM.size), "not a zone")
    offset = timedelta(microseconds=_OFFSET_FORM.unpack_from(rest)[0])
    return timezone(offset) if form == b"O" else timezone(offset, rest[_OFFSET_FORM.size :].decode())


def _write_datetime(value: datetime) -> bytes:
    fine = value.microsecond | _FOLD if value.fold else value.microsecond
    head = _DATETIME_HEAD.pack(value.year, value.month, value.day, value.hour, value.minute, value.second, fine)
    return head if value.tzinfo is None else head + _write_zone(value.tzinfo)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, fine = _DATETIME_HEAD.unpack_from(data)
    zone = _read_zone(data[_DATETIME_HEAD.size :]) if len(data) > _DATETIME_HEAD.size else None
    return datetime(year, month, day, hour, minute, second, fine & ~_FOLD, zone, fold=fine // _FOLD)


def _write_time(value: time) -> bytes:
    fine = value.microsecond | _FOLD if value.fold else value.microsecond
    head = _TIME_HEAD.pack(value.hour, value.minute, value.second, fine)
    return head if value.tzinfo is None else head + _write_zone(value.tzinfo)


def _read_time(data: bytes) -> time:
    hour, minute, second, fine = _TIME_HEAD.unpack_from(data)
    zone = _read_zone(data[_TIME_HEAD.size :]) if len(data) > _TIME_HEAD.size else None
    return time(hour, minute, second, fine & ~_FOLD, zone, fold=fine // _FOLD)


def _read_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA_FORM.unpack(data)
    value = timedelta(days, seconds, microseconds)
    ensure((value.days, value.seconds) == (days, seconds), "another spelling of a timedelta")
    return value


LEAVES: Final[dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    bytearray: (_BYTEARRAY, bytes, bytearray),
    Decimal: (_DECIMAL, _write_decimal, _read_decimal),
    complex: (_COMPLEX, lambda c: _COMPLEX_FORM.pack(c.real, c.imag), lambda b: complex(*_COMPLEX_FORM.unpack(b))),
    UUID: (_UUID, lambda u: u.bytes, lambda b: UUID(bytes=b)),
    datetime: (_DATETIME, _write_datetime, _read_datetime),
    date: (_DATE, lambda d: _DATE_FORM.pack(d.year, d.month, d.day), lambda b: date(*_DATE_FORM.unpack(b))),
    time: (_TIME, _write_time, _read_time),
    timedelta: (
        _TIMEDELTA,
        lambda t: _TIMEDELTA_FORM.pack(t.days, t.seconds, t.microseconds),
        _read_timedelta,
    ),
    timezone: (_ZONE, _write_zone, _read_zone),
    ZoneInfo: (_ZONE, _write_zone, _read_zone),
}
LEAF_READERS: Final = {tag: read for tag, _, read in LEAVES.values()} | {INT: _read_int}

# --- extensions that contain other values: from a list of them to the value ---


def _read_set(members: list[Any]) -> set[Any]:
    value = set(members)
    ensure(len(value) == len(members), "a set with equal members")
    return value


def _read_pairs(flat: list[Any]) -> dict[Any, Any]:
    ends = iter(flat)
    value = dict(zip(ends, ends, strict=False))
    ensure(len(value) * 2 == len(flat), "a dict with equal keys, or without a value")
    return value


def _read_counter(flat: list[Any]) -> Counter[Any]:
    value = Counter(_read_pairs(flat))
    ensure(all(type(count) in COUNTS for count in value.values()), "a count that is no number")
    return value


def _read_fraction(parts: list[Any]) -> Fraction:
    above, below = parts
    ensure(type(above) is type(below) is int and below > 0, "not a Fraction")
    ensure(max(above.bit_length(), below.bit_length()) <= FRACTION_BITS, "a Fraction too large")
    value = Fraction(above, below)
    ensure(value.denominator == below, "a Fraction not in lowest terms")
    return value


def _read_range(parts: list[Any]) -> range:
    start, stop, step = parts
    ensure(type(start) is type(stop) is type(step) is int, "not a range")
    return range(start, stop, step)


NEST_READERS: Final[dict[int, Callable[[list[Any]], Any]]] = {
    TUPLE: tuple,
    SET: _read_set,
    FROZENSET: lambda members: frozenset(_read_set(members)),
    PAIRS: _read_pairs,
    COUNTER: _read_counter,
    FRACTION: _read_fraction,
    RANGE: _read_range,
}
