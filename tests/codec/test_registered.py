"""The codec: types that an application registers."""

import datetime as dt
import math
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from codec_values import (
    BERLIN,
    CODEC,
    Color,
    Frozen,
    Level,
    Line,
    Old,
    Opaque,
    Point,
    Right,
    Text,
    back,
    ext,
)

from coatcheck.codec import Codec, Undecodable, Unencodable
from coatcheck.errors import ConfigurationError


@dataclass
class MoreThanFields(dict[str, int]):
    a: int = 0


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
    name = f"{Line.__module__}.Line"
    line = codec.decode(ext(32, [name, {"product": "x"}]))
    assert (line.product, line.amount, line.tags, line.total) == ("x", 1, [], 0)
    assert line.tags is not codec.decode(ext(32, [name, {"product": "x"}])).tags
    assert codec.decode(ext(32, [f"{Point.__module__}.Point", {"x": 5}])) == Point(5, 0)
    for stored in ({"amount": 1}, {"product": "x", "gone": 1}, ["x"], None, {1: 2}):
        with pytest.raises(Undecodable):
            codec.decode(ext(32, [name, stored]))
    with pytest.raises(Undecodable):
        codec.decode(ext(32, [f"{Point.__module__}.Point", {"y": 5}]))
    with pytest.raises(Undecodable):
        codec.decode(ext(32, [f"{Color.__module__}.Color", "GREEN"]))


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
        lambda codec: codec.register(Opaque, f"{Color.__module__}.Color", str, str),
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
