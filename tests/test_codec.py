"""The codec: exact types survive exactly, all else is refused by name, and bad bytes are only ever Undecodable."""

import datetime as dt
import math
import random
import struct
import subprocess
import sys
import time
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext
from msgspec.msgpack import encode as pack

from coatcheck.codec import MAX_DEPTH, Codec, Undecodable, Unencodable
from coatcheck.errors import CoatcheckError, ConfigurationError

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


@pytest.mark.parametrize(("value", "stored"), FROZEN, ids=[stored[:40] for _, stored in FROZEN])
def test_the_stored_format_does_not_drift(value: Any, stored: str) -> None:
    assert CODEC.encode(value).hex() == stored
    assert identical(CODEC.decode(bytes.fromhex(stored)), value)


@pytest.mark.parametrize("value", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_same_comes_back(value: Any) -> None:
    assert identical(back(value), value)


def test_plain_trees_are_plain_messagepack() -> None:
    tree = {"user": {"id": 7, "tags": ["a", b"b", None, True, 1.5]}, 3: -1}
    assert CODEC.encode(tree) == pack(tree)


def test_utc_comes_back_as_the_one_object_that_it_is() -> None:
    assert back(dt.UTC) is dt.UTC
    assert back(dt.datetime.now(dt.UTC)).tzinfo is dt.UTC
    assert back(dt.datetime.now(BERLIN)).tzinfo is BERLIN


def test_encoding_leaves_the_value_alone() -> None:
    value = {"a": [1, (2,)], "b": {"c": {3}}, "d": (4,)}
    CODEC.encode(value)
    assert identical(value, {"a": [1, (2,)], "b": {"c": {3}}, "d": (4,)})


# --- properties ---

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


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_value_comes_back_exactly(value: Any) -> None:
    stored = CODEC.encode(value)
    again = CODEC.decode(stored)
    assert identical(again, value)
    assert CODEC.encode(again) == stored


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.integers(-(2**66), 2**66) | st.text(max_size=4), max_size=6))
def test_big_integers_do_not_change_what_stands_beside_them(value: dict[str, Any]) -> None:
    stored = CODEC.encode([value, 2**80])
    assert identical(CODEC.decode(stored), [value, 2**80])
    assert stored == b"\x92" + CODEC.encode(value) + CODEC.encode(2**80)


@settings(deadline=None)
@given(st.lists(hashable_leaves, max_size=8, unique_by=lambda value: value), st.randoms(use_true_random=False))
def test_sets_encode_the_same_however_they_were_built(members: list[Any], rng: random.Random) -> None:
    shuffled = rng.sample(members, len(members))
    grown = set(range(1000)) | set(shuffled)
    grown -= set(range(1000)) - set(members)
    if not {type(member) for member in members} & {bool, float, Decimal, Fraction, complex}:
        assert CODEC.encode(grown) == CODEC.encode(set(members))
    assert CODEC.encode(set(shuffled)) == CODEC.encode(set(members))
    assert CODEC.encode(frozenset(shuffled)) == CODEC.encode(frozenset(members))


def test_encoding_is_the_same_in_every_process() -> None:
    program = (
        "from coatcheck.codec import Codec\n"
        "print(Codec().encode([{'a', 'b', 'c', 'd'}, frozenset({b'x', ('y', 1), None})]).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_the_decimal_context_does_not_change_the_bytes() -> None:
    values = [Decimal("1E+50"), Decimal("NaN"), Decimal("1.23456789012345678901234567890123456789")]
    plain = CODEC.encode(values)
    with localcontext(Context(prec=2, capitals=0)):
        assert CODEC.encode(values) == plain
        again = CODEC.decode(plain)
    assert identical(again, values)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ((1,), [1]),
        ({1}, frozenset({1})),
        ("a", b"a"),
        (b"a", bytearray(b"a")),
        (Decimal("1.0"), Decimal("1.00")),
        ({1: 0}, {True: 0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (range(0, 3, 2), range(0, 4, 2)),
        (dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 1, 1, tzinfo=ZoneInfo("UTC"))),
        (dt.time(1), dt.time(1, fold=1)),
    ],
)
def test_what_differs_in_type_or_spelling_differs_in_bytes(a: Any, b: Any) -> None:
    assert CODEC.encode(a) != CODEC.encode(b)


# --- refusals ---


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


@dataclass
class MoreThanFields(dict[str, int]):
    a: int = 0


class Text(str):  # the base of things like Markup
    __slots__ = ()


class Opaque:
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, _when: object) -> dt.timedelta:
        return dt.timedelta(0)

    dst = utcoffset

    def tzname(self, _when: object) -> str:
        return "odd"


def odd_zone() -> ZoneInfo:
    import io  # noqa: PLC0415
    from zoneinfo import TZPATH  # noqa: PLC0415

    for folder in TZPATH:
        try:
            with open(f"{folder}/UTC", "rb") as file:  # noqa: PTH123
                return ZoneInfo.from_file(io.BytesIO(file.read()))
        except FileNotFoundError:
            continue
    return pytest.skip("no zone files")


REFUSED: list[tuple[Callable[[], Any], str, str]] = [
    (Opaque, "Opaque", "encode, decode)"),
    (lambda: Text("x"), "Text", "plain str"),
    (lambda: Color.RED, "Color", "codec.register("),
    (lambda: Level.LOW, "Level", "codec.register("),
    (lambda: Right.READ, "Right", "codec.register("),
    (lambda: Point(1), "Point", "codec.register("),
    (lambda: Old(1, 2), "Old", "codec.register("),
    (lambda: Line("x"), "Line", "codec.register("),
    (lambda: Frozen(1), "Frozen", "codec.register("),
    (OrderedDict, "collections.OrderedDict", "plain dict"),
    (lambda: defaultdict(list), "collections.defaultdict", "plain dict"),
    (deque, "collections.deque", "codec.register("),
    (lambda: memoryview(b"x"), "memoryview", "codec.register("),
    (lambda: Ext(1, b"x"), "Ext", "codec.register("),
    ({}.keys, "dict_keys", "codec.register("),
    (lambda: identical, "function", "codec.register("),
    (lambda: int, "type", "codec.register("),
    (lambda: iter([]), "list_iterator", "codec.register("),
    (lambda: "\ud800", "str", "surrogate"),
    (lambda: dt.datetime(2025, 1, 1, tzinfo=Zone()), "Zone", "zoneinfo.ZoneInfo"),
    (odd_zone, "ZoneInfo", "made by its key"),
    (lambda: Fraction(1, 2**20000), "fractions.Fraction", "16384 bits"),
]


@pytest.mark.parametrize(("make", "type_name", "says"), REFUSED, ids=[name for _, name, _ in REFUSED])
def test_other_types_are_refused_with_the_remedy(make: Callable[[], Any], type_name: str, says: str) -> None:
    value = make()
    for nest, path in ((value, ""), ({"cart": [1, "x", value]}, "['cart'][2]"), ([({0: value},)], "[0][0][0]")):
        with pytest.raises(Unencodable, match="cannot be stored") as caught:
            CODEC.encode(nest)
        assert caught.value.type_name.endswith(type_name)
        assert caught.value.path == path
        assert says in str(caught.value)
        assert path in str(caught.value)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, CoatcheckError)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({Text("k"): 1}, "['k']".replace("'k'", "<Text>")),
        ({"a": {Color.RED: 1}}, "['a'][<Color>]"),
        ({"a\ud800": 1}, r"['a\ud800']"),
        ([{1, Color.RED}], None),
        ({(1, Text("x")): 1}, "[<tuple>][1]"),
        ({(1, 2): [Opaque()]}, "[<tuple>][0]"),
        ({"k" * 100: Opaque()}, "['" + "k" * 39 + "]"),
        ([2**70, {"b": Opaque()}], "[1]['b']"),
    ],
)
def test_refusals_name_the_place(value: Any, path: str | None) -> None:
    with pytest.raises(Unencodable) as caught:
        CODEC.encode(value)
    if path is not None:
        assert caught.value.path == path


def test_text_that_is_no_unicode_is_refused_beside_anything() -> None:
    for value in (["\udfff"], {"a": {"b": ("\ud800",)}}, {"\ud800": 1}, dt.timezone(dt.timedelta(0), "\ud800")):
        with pytest.raises(Unencodable):
            CODEC.encode(value)


# --- depth ---


def nested(depth: int, wrap: Callable[[Any], Any], inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"a": inner},
    "pairs": lambda inner: {Decimal(1): inner},
    "frozenset": lambda inner: frozenset({inner}),
}


@pytest.mark.parametrize("inner", [1, Decimal(1), 2**70, Fraction(1, 2**70), dt.datetime(2025, 1, 1, tzinfo=BERLIN)])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_depth_is_bounded_and_whatever_encodes_decodes(wrap: Callable[[Any], Any], inner: Any) -> None:
    deepest = nested(MAX_DEPTH, wrap, inner)
    assert identical(back(deepest), deepest)
    with pytest.raises(Unencodable, match="deeper than 64"):
        CODEC.encode(wrap(deepest))


def test_registered_types_count_as_levels() -> None:
    codec = Codec()
    codec.register(Frozen)
    deepest = nested(MAX_DEPTH // 2, Frozen)
    assert identical(back(deepest, codec), deepest)
    with pytest.raises(Unencodable, match="deeper than 64"):
        codec.encode(Frozen(deepest))


def test_values_that_contain_themselves_are_refused_at_once() -> None:
    own: list[Any] = []
    own += [own, own]
    mapping: dict[str, Any] = {}
    mapping["a"] = [mapping, (mapping, mapping)]
    for value in (own, mapping):
        with pytest.raises(Unencodable, match="contains itself"):
            CODEC.encode(value)


def ext_bomb(tag: int, levels: int) -> bytes:
    data = b"\x01"
    for _ in range(levels):
        data = pack(Ext(tag, b"\x91" + data))
    return data


BOMBS = {
    "lists": b"\x91" * 500 + b"\x01",
    "lists without an end": b"\x91" * 1_000_000,
    "just one too deep": b"\x91" * (MAX_DEPTH + 1) + b"\x01",
    "dicts": b"\x81\xa1a" * 100_000 + b"\x01",
    "keys": b"\x81\x91\x91" + b"\x91" * 100_000,
    "keys that end": b"\x81" + b"\x91" * 300 + b"\x01\x01",
    "tuples": ext_bomb(2, 500),
    "tuples by one": ext_bomb(2, MAX_DEPTH + 1),
    "frozensets": ext_bomb(4, 70),
    "mixed": pack(Ext(2, b"\x91" * 60 + pack(Ext(2, b"\x91" * 60 + b"\x01")))),
    "huge counts": b"\xdd\xff\xff\xff\xff",
    "huge counts inside": b"\xdc\xff\xff" * 600,
    "huge dict": b"\xdf\xff\xff\xff\xff\xa1a",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "huge key": b"\x81\xdd\x7f\xff\xff\xff",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_do_not_go_off(data: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(Undecodable):
        CODEC.decode(data)
    assert time.thread_time() - began < 2


def test_depth_behind_a_registered_type_is_bounded() -> None:
    codec = Codec()
    codec.register(Frozen, "f", lambda value: value.a, Frozen)
    for inner in (b"\x91" * 65 + b"\x01", b"\x91" * 500 + b"\x01"):
        with pytest.raises(Undecodable):
            codec.decode(pack(Ext(32, b"\x92\xa1f" + inner)))


# --- bad bytes ---


def ext(tag: int, payload: Any) -> bytes:
    return pack(Ext(tag, payload if isinstance(payload, bytes) else pack(payload)))


BAD: dict[str, bytes] = {
    "empty": b"",
    "truncated": CODEC.encode({"a": [1, 2]})[:-1],
    "trailing": CODEC.encode(1) + b"\x00",
    "no such opcode": b"\xc1",
    "text that is no text": b"\xa1\xff",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "tag 0": ext(0, b""),
    "tag 99": ext(99, [1]),
    "tag -2": ext(-2, [1]),
    "padded int": ext(1, b"\x00\x00\x01"),
    "empty int": ext(1, b""),
    "tuple of nothing": ext(2, b""),
    "tuple of no list": ext(2, 5),
    "tuple of a dict": ext(2, {"a": 1}),
    "tuple with trailing": ext(2, b"\x90\x90"),
    "set of a list": ext(3, [[1]]),
    "set of equals": ext(3, [1, 1]),
    "set of equals of two types": ext(3, [1, True]),
    "set of a set": ext(3, b"\x91" + ext(3, [1])),
    "frozenset of a dict": ext(4, [{}]),
    "pairs without a value": ext(5, [1, 2, 3]),
    "pairs with a list for a key": ext(5, [[1], 2]),
    "pairs with equal keys": ext(5, [1, 2, 1, 3]),
    "counter without a count": ext(17, ["a"]),
    "counter of text": ext(17, ["a", "1"]),
    "counter of bools": ext(17, ["a", True]),
    "counter with equal keys": ext(17, ["a", 1, "a", 2]),
    "counter of lists": ext(17, ["a", [1]]),
    "decimal": ext(7, b"abc"),
    "empty decimal": ext(7, b""),
    "decimal with spaces": ext(7, b" 1 "),
    "decimal with underscores": ext(7, b"1_0"),
    "decimal out of range": ext(7, b"1E+9999999999999999999"),
    "decimal beyond ASCII": ext(7, "\u0661".encode()),
    "fraction by zero": ext(8, [1, 0]),
    "fraction not reduced": ext(8, [2, 4]),
    "fraction below zero": ext(8, [1, -2]),
    "fraction of floats": ext(8, [1.0, 2.0]),
    "fraction of bools": ext(8, [True, True]),
    "fraction of one": ext(8, [1]),
    "fraction too large": ext(8, [1, Ext(1, (2**70000 + 1).to_bytes(9000, "big", signed=True))]),
    "complex": ext(9, b"123"),
    "uuid": ext(10, b"123"),
    "datetime": ext(11, b"123"),
    "datetime in month 13": ext(11, struct.pack(">HBBBBBI", 2025, 13, 1, 0, 0, 0, 0)),
    "datetime with a full second": ext(11, struct.pack(">HBBBBBI", 2025, 1, 1, 0, 0, 0, 1000000)),
    "datetime in no zone": ext(11, struct.pack(">HBBBBBI", 2025, 1, 1, 0, 0, 0, 0) + b"X"),
    "date": ext(12, struct.pack(">HBB", 2025, 2, 30)),
    "date with more": ext(12, struct.pack(">HBB", 2025, 2, 3) + b"x"),
    "time": ext(13, struct.pack(">BBBI", 24, 0, 0, 0)),
    "timedelta not normal": ext(14, struct.pack(">iII", 0, 86400, 0)),
    "timedelta too long": ext(14, struct.pack(">iII", 2**31 - 1, 0, 0)),
    "zone of nothing": ext(15, b""),
    "zone UTC with more": ext(15, b"U1"),
    "zone unknown": ext(15, b"ZNo/Such_Zone"),
    "zone that is a folder": ext(15, b"ZEurope"),
    "zone outside": ext(15, b"Z../../../../etc/passwd"),
    "zone absolute": ext(15, b"Z/etc/passwd"),
    "zone without a key": ext(15, b"Z"),
    "zone a day away": ext(15, b"O" + struct.pack(">q", 86_400_000_000)),
    "zone far away": ext(15, b"O" + struct.pack(">q", 2**62)),
    "zone with half an offset": ext(15, b"O123"),
    "zone with half an offset and a name": ext(15, b"N123"),
    "zone with a name that is no text": ext(15, b"N" + struct.pack(">q", 0) + b"\xff"),
    "range without a step": ext(16, [0, 1, 0]),
    "range of text": ext(16, ["a", 1, 1]),
    "range of two": ext(16, [0, 1]),
    "registered nowhere": ext(32, ["os.system", "true"]),
    "registered by a number": ext(32, [1, 1]),
    "registered by a list": ext(32, [[], 1]),
    "registered without a value": ext(32, ["a"]),
    "timestamp": b"\xd7\xff" + b"\xff" * 8,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_bytes_are_undecodable(data: bytes) -> None:
    for held in (data, b"\x92\x01" + data, b"\x81\xa1k" + data):
        with pytest.raises(Undecodable):
            CODEC.decode(held)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
@example(b"\xd6\xff\x00\x00\x00\x01")
def test_any_bytes_are_a_value_or_undecodable(data: bytes) -> None:
    try:
        value = CODEC.decode(data)
    except Undecodable:
        return
    assert identical(back(value), value)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 40), st.binary(max_size=24) | values.map(CODEC.encode))
def test_any_extension_is_a_value_or_undecodable(tag: int, payload: bytes) -> None:
    try:
        value = CODEC.decode(pack(Ext(tag, payload)))
    except Undecodable:
        return
    assert identical(back(value), value)


def test_mangled_bytes_are_a_value_or_undecodable() -> None:
    rng = random.Random(7)  # noqa: S311
    stored = [bytes.fromhex(form) for _, form in FROZEN] + [CODEC.encode(value) for value in EXAMPLES[-10:]]
    for _ in range(6000):
        data = bytearray(rng.choice(stored))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = rng.randbytes(1)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = rng.randbytes(rng.randint(1, 4))
                case 3:
                    del data[at : at + rng.randint(1, 4)]
        try:
            value = CODEC.decode(bytes(data))
        except Undecodable:
            continue
        CODEC.encode(value)


def test_stored_bytes_do_not_send_zoneinfo_through_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("coatcheck._forms.ZoneInfo", asked.append)
    for key in (b"../../etc/passwd", b"/etc/passwd", b"a/./b", b"a\x00b", b"tzdata.zones", b""):
        with pytest.raises(Undecodable):
            CODEC.decode(ext(15, b"Z" + key))
    assert asked == []


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_other_buffers_decode_too(wrap: Callable[[bytes], Any]) -> None:
    value = {"a": [(1, Decimal(2))] * 40}
    assert identical(CODEC.decode(wrap(CODEC.encode(value))), value)


def test_what_is_no_buffer_is_undecodable() -> None:
    for data in (None, 5, "text", object()):
        with pytest.raises(Undecodable):
            CODEC.decode(data)  # type: ignore[arg-type]


def test_the_error_does_not_quote_what_is_stored() -> None:
    codec = Codec()
    codec.register(Color, "color")
    for data in (ext(32, ["color", "hunter2"]), ext(32, ["hunter2", 1]), ext(15, b"Zhunter2"), ext(7, b"hunter2")):
        with pytest.raises(Undecodable) as caught:
            codec.decode(data)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__


# --- registered types ---


@pytest.fixture
def codec() -> Codec:
    codec = Codec()
    for cls in (Color, Level, Right, Point, Old, Line, Frozen):
        codec.register(cls)
    return codec


def test_enums_namedtuples_and_dataclasses_register_by_themselves(codec: Codec) -> None:
    values = [
        Color.RED,
        Color.BLUE,
        Level.LOW,
        Right.READ | Right.WRITE,
        Right(0),
        Point(1, (2, Decimal(3))),
        Old({1}, [2]),
        Line("shirt", 2, ["red"]),
        Frozen(Point(1), Frozen(Color.RED)),
        {Color.RED: {Point(1): {Level.LOW}}, Frozen(1): 2**70},
    ]
    again = back(values, codec)
    assert again == values
    assert list(map(type, again)) == list(map(type, values))
    assert again[0] is Color.RED
    assert type(again[5].y) is tuple
    assert codec.encode(again) == codec.encode(values)


def test_a_dataclass_comes_back_as_it_was_not_as_init_makes_it(codec: Codec) -> None:
    line = Line("shirt", 2)
    line.total = 99
    assert line.heavy == "shirtshirt"
    again = back(line, codec)
    assert again.total == 99
    assert vars(again) == {"product": "shirt", "amount": 2, "tags": [], "total": 99}


def test_an_attribute_that_is_no_field_is_refused(codec: Codec) -> None:
    line = Line("shirt")
    line.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(Unencodable, match="raised TypeError") as caught:
        codec.encode([line])
    assert caught.value.path == "[0]"
    assert "extra" in str(caught.value.__cause__)


def test_new_fields_get_their_defaults_and_lost_ones_are_undecodable(codec: Codec) -> None:
    name = f"{__name__}.Line"
    line = codec.decode(ext(32, [name, {"product": "x"}]))
    assert (line.product, line.amount, line.tags, line.total) == ("x", 1, [], 0)
    assert line.tags is not codec.decode(ext(32, [name, {"product": "x"}])).tags
    assert codec.decode(ext(32, [f"{__name__}.Point", {"x": 5}])) == Point(5, 0)
    for stored in ({"amount": 1}, {"product": "x", "gone": 1}, ["x"], None, {1: 2}):
        with pytest.raises(Undecodable):
            codec.decode(ext(32, [name, stored]))
    with pytest.raises(Undecodable):
        codec.decode(ext(32, [f"{__name__}.Point", {"y": 5}]))
    with pytest.raises(Undecodable):
        codec.decode(ext(32, [f"{__name__}.Color", "GREEN"]))


def test_functions_may_be_given() -> None:
    codec = Codec()
    codec.register(Text, "text", str, Text)
    codec.register(deque, "deque", lambda value: (list(value), value.maxlen), lambda stored: deque(*stored))
    codec.register(Opaque, "lazy", lambda _: "made", str)
    again = back({"t": Text("<b>"), "d": deque([1, (2,)], 5), "o": [Opaque()]}, codec)
    assert again == {"t": "<b>", "d": deque([1, (2,)]), "o": ["made"]}
    assert type(again["t"]) is Text
    assert again["d"].maxlen == 5


def test_functions_that_fail_do_not_leak_their_errors() -> None:
    def fail(_: Any) -> Any:
        raise OverflowError("hunter2")

    codec = Codec()
    codec.register(Opaque, "o", fail, fail)
    codec.register(Text, "t", lambda value: value, Text)
    with pytest.raises(Unencodable, match="raised OverflowError") as caught:
        codec.encode({"a": Opaque()})
    assert isinstance(caught.value.__cause__, OverflowError)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Undecodable):
        codec.decode(ext(32, ["o", 1]))
    with pytest.raises(Unencodable, match="deeper"):
        codec.encode(Text("encodes to itself for ever"))


@pytest.mark.parametrize(
    "register",
    [
        lambda codec: codec.register(Color),
        lambda codec: codec.register(Color, "another name"),
        lambda codec: codec.register(Opaque, f"{__name__}.Color", str, str),
        lambda codec: codec.register(int, "int", str, int),
        lambda codec: codec.register(dict),
        lambda codec: codec.register(Opaque),
        lambda codec: codec.register(Opaque, "o", str),
        lambda codec: codec.register(Opaque, "o", None, str),
        lambda codec: codec.register(Opaque, "", str, str),
        lambda codec: codec.register(Opaque, "\ud800", str, str),
        lambda codec: codec.register(MoreThanFields),
    ],
)
def test_registrations_that_cannot_work_are_refused(codec: Codec, register: Callable[[Codec], None]) -> None:
    with pytest.raises(ConfigurationError):
        register(codec)


def test_codecs_do_not_know_of_each_others_types(codec: Codec) -> None:
    with pytest.raises(Undecodable):
        CODEC.decode(codec.encode(Color.RED))


# --- what can change in place ---


@pytest.mark.parametrize(
    ("value", "mutable"),
    [
        (None, False),
        (1, False),
        (2**99, False),
        ("x", False),
        (b"x", False),
        (math.pi, False),
        (Decimal(1), False),
        (Fraction(1), False),
        (uuid.UUID(int=1), False),
        (dt.datetime.now(dt.UTC), False),
        (BERLIN, False),
        (range(3), False),
        ((), False),
        ((1, ("a", frozenset({2}))), False),
        ((1, ("a", [])), True),
        ([], True),
        ({}, True),
        (set(), True),
        (bytearray(), True),
        (Color.RED, False),
        (Frozen(1), False),
        ((Frozen(1),), False),
        (Point(1), True),
        (frozenset({Point(1)}), True),
        (Opaque(), True),
    ],
)
def test_is_mutable(value: Any, mutable: bool) -> None:  # noqa: FBT001
    codec = Codec()
    codec.register(Color)
    codec.register(Point)
    codec.register(Frozen, immutable=True)
    assert codec.is_mutable(value) is mutable


# --- threads ---


def test_threads_share_a_codec(codec: Codec) -> None:
    def work(number: int) -> None:
        for turn in range(60):
            value = {"n": number, "t": (turn, Decimal(number)), "s": {number, 2**70 + turn}, "p": Point(number, [turn])}
            assert back(value, codec) == value
            with pytest.raises(Unencodable):
                codec.encode([value, Opaque()])
            with pytest.raises(Undecodable):
                codec.decode(codec.encode(value)[:-1])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
