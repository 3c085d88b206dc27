"""What the tests of the codec encode: values of every kind that is stored, and types of an application."""

import datetime as dt
import struct
import uuid
from collections import Counter, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from msgspec.msgpack import Ext
from msgspec.msgpack import encode as pack

from coatcheck.codec import Codec

CODEC = Codec()
BERLIN = ZoneInfo("Europe/Berlin")
EAST = dt.timezone(dt.timedelta(hours=5, minutes=45))
NAMED = dt.timezone(-dt.timedelta(seconds=1), "just west")


def spelling(value: Any) -> Any:
    """What tells equal values of one type apart: signs of zero, spellings, folds, zones."""
    match value:
        case float():
            return struct.pack(">d", value)
        case complex():
            return struct.pack(">dd", value.real, value.imag)
        case Decimal():
            return value.as_tuple()
        case range():
            return value.start, value.stop, value.step
        case dt.datetime() | dt.time():
            return value.replace(tzinfo=None), value.fold, type(value.tzinfo), spelling(value.tzinfo)
        case dt.timezone():
            return value, value.tzname(None)
    return value


def identical(a: Any, b: Any) -> bool:
    """Equality that sees types, spellings and order, at every depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(identical, a.items(), b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, set | frozenset):
        left = list(b)
        return len(a) == len(b) and all(any(identical(item, other) for other in left) for item in a)
    return bool(spelling(a) == spelling(b))


def back(value: Any, codec: Codec = CODEC) -> Any:
    return codec.decode(codec.encode(value))


# Stored bytes outlive every release: what is in this table may be added to, never changed.
FROZEN: list[tuple[Any, str]] = [
    (None, "c0"),
    (True, "c3"),
    (0, "00"),
    (-1, "ff"),
    (300, "cd012c"),
    (2**64, "c70901010000000000000000"),
    (-(2**63) - 1, "c70901ff7fffffffffffffff"),
    (1.5, "cb3ff8000000000000"),
    (-0.0, "cb8000000000000000"),
    ("hé", "a368c3a9"),
    (b"\x00\xff", "c40200ff"),
    (bytearray(b"ab"), "d5066162"),
    ([1, [2]], "92019102"),
    ({"a": 1, "b": {"c": []}}, "82a16101a16281a16390"),
    ({1: "a", None: 2.0}, "8201a161c0cb4000000000000000"),
    ((1, "a"), "d6029201a161"),
    ((), "d40290"),
    ({3, 1, "a"}, "c70503930103a161"),
    (frozenset({b"x"}), "d60491c40178"),
    ({(1, 2): "p"}, "c7090592c70302920102a170"),
    ({2**70: 1}, "c70e0592c7090140000000000000000001"),
    (Decimal("-1.50E+3"), "d7072d312e3530452b33"),
    (Fraction(-1, 3), "c7030892ff03"),
    (complex(1, -2), "d8093ff0000000000000c000000000000000"),
    (range(0, 10, 2), "d61093000a02"),
    (uuid.UUID("12345678-1234-5678-1234-567812345678"), "d80a12345678123456781234567812345678"),
    (dt.datetime(2025, 3, 30, 12, 34, 56, 789, tzinfo=dt.UTC).replace(tzinfo=None), "c70b0b07e9031e0c223800000315"),
    (dt.datetime(2025, 3, 30, tzinfo=dt.UTC), "c70c0b07e9031e0000000000000055"),
    (
        dt.datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=BERLIN),
        "c7190b07e90a1a021e00800000005a4575726f70652f4265726c696e",
    ),
    (dt.datetime(2025, 3, 30, tzinfo=EAST), "c7140b07e9031e000000000000004f00000004d1d0ef00"),
    (dt.date(2025, 3, 30), "d60c07e9031e"),
    (dt.time(12, 34, 56, 7, tzinfo=NAMED, fold=1), "c7190d0c2238800000074efffffffffff0bdc06a7573742077657374"),
    (dt.timedelta(days=-1, seconds=5, microseconds=6), "c70c0effffffff0000000500000006"),
    (dt.UTC, "d40f55"),
    (BERLIN, "c70e0f5a4575726f70652f4265726c696e"),
    (Counter(hat=2, scarf=-1), "c70d1194a368617402a57363617266ff"),
    (Counter(), "d41190"),
    (NAMED, "c7120f4efffffffffff0bdc06a7573742077657374"),
]


EXAMPLES: list[Any] = [
    2**64 - 1,
    -(2**63),
    10**5000,
    -(10**5000),
    float("inf"),
    float("-inf"),
    float("nan"),
    5e-324,
    "",
    "\x00 ünï \U0001f9e5",
    "x" * 70000,
    bytes(70000),
    list(range(70000)),
    {str(n): n for n in range(70000)},
    Decimal("NaN"),
    Decimal("-sNaN123"),
    Decimal("-Infinity"),
    Decimal("1.00"),
    Decimal("-0E-7"),
    Decimal("1E+999999999999999999"),
    dt.timedelta.max,
    dt.timedelta.min,
    dt.datetime.max.replace(tzinfo=dt.UTC),
    dt.datetime(1, 1, 1, tzinfo=EAST),
    dt.datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(2025, 10, 26, 2, 30, tzinfo=dt.UTC, fold=1).replace(tzinfo=None),
    dt.time(1, fold=1),
    dt.time(23, 59, 59, 999999, tzinfo=NAMED),
    dt.timezone(dt.timedelta(0), "UTC"),
    dt.timezone(dt.timedelta(0), ""),
    dt.timezone(dt.timedelta(hours=1), "UTC+01:00 or so é"),
    dt.timezone.max,
    dt.timezone.min,
    ZoneInfo("UTC"),
    range(0, 10**30, 7),
    range(5, 0, -1),
    complex(-0.0, float("nan")),
    {1: "int"},
    {True: "bool"},
    {1.0: "float"},
    {None: 1, b"b": 2, (1, (2.0, frozenset({3}))): 3, 2**70: 4, dt.date(2025, 1, 1): 5},
    {"z": 1, "a": 2, "m": 3},
    {"plain": [1, 2], "odd": ({"deep": [Decimal(1)]},), "last": None},
    {frozenset({(1, "a")}): {b"x"}},
    Counter({"b": 0, "a": 2**70, (1, "x"): -3, None: 1.5, "d": Decimal("1.0"), "f": Fraction(1, 3)}),
    {"cart": [Counter({"hat": 1}), Counter()]},
    [[], {}, (), set(), frozenset(), "", b"", bytearray()],
]


zones = st.one_of(
    st.none(),
    st.sampled_from([dt.UTC, BERLIN, ZoneInfo("America/Port-au-Prince"), ZoneInfo("Etc/GMT+9"), EAST, NAMED]),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
)
hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashable_leaves | st.floats() | st.decimals() | st.binary(max_size=6).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=3),
        st.sets(hashables, max_size=3),
        st.frozensets(hashables, max_size=3),
        st.dictionaries(hashables, st.integers() | st.fractions(), max_size=3).map(Counter),
    ),
    max_leaves=8,
)


class Color(Enum):
    RED = 1
    BLUE = "b"
    CRIMSON = 1  # noqa: PIE796 - an alias


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any = 0


Old = namedtuple("Old", "a b")  # noqa: PYI024 - the untyped kind has to work too


@dataclass
class Line:
    product: str
    amount: int = 1
    tags: list[str] = field(default_factory=list)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = self.amount * 10

    @cached_property
    def heavy(self) -> str:
        return self.product * 2


@dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any = None


class Text(str):  # the base of things like Markup
    __slots__ = ()


class Opaque:
    pass


def ext(tag: int, payload: Any) -> bytes:
    return pack(Ext(tag, payload if isinstance(payload, bytes) else pack(payload)))
