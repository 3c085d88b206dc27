"""The codec: all other types are refused by name, with the remedy."""

import datetime as dt
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from codec_values import CODEC, Color, Frozen, Level, Line, Old, Opaque, Point, Right, Text, identical
from msgspec.msgpack import Ext

from coatcheck.codec import Unencodable
from coatcheck.errors import CoatcheckError


@dataclass
class MoreThanFields(dict[str, int]):
    a: int = 0


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
