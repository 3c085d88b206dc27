"""The codec: what is encoded comes back exactly, in the same bytes at any time."""

import datetime as dt
import random
import subprocess
import sys
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from codec_values import BERLIN, CODEC, EXAMPLES, FROZEN, back, hashable_leaves, identical, values
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import encode as pack


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
