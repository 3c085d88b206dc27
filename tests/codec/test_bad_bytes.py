"""The codec: bad bytes are undecodable, and do no harm."""

import random
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from codec_values import CODEC, EXAMPLES, FROZEN, Color, back, ext, identical, values
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext
from msgspec.msgpack import encode as pack

from coatcheck.codec import Codec, Undecodable

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
