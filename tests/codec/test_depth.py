"""The codec: depth is bounded, when it encodes and when it decodes."""

import datetime as dt
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from codec_values import BERLIN, CODEC, Frozen, back, identical
from msgspec.msgpack import Ext
from msgspec.msgpack import encode as pack

from coatcheck.codec import MAX_DEPTH, Codec, Undecodable, Unencodable


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
