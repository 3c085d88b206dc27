"""Values that cannot be kept: refused where they are assigned, never half saved; and those that no longer decode."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Codec, EventKind, Policy, UnstorableValue, ValueTooLarge
from coatcheck.record import Value

if TYPE_CHECKING:
    from tests.conftest import Client, House


class Colour(Enum):
    RED = 1


@dataclass
class Point:
    x: Any


class Text(str):
    __slots__ = ()


REFUSED: dict[str, tuple[Any, str, str]] = {
    "object": (object(), "object", "codec.register(object, name, encode, decode)"),
    "function": (len, "builtin_function_or_method", "codec.register"),
    "open file": (io.BytesIO(), "_io.BytesIO", "codec.register"),
    "subclass of str": (Text("x"), "Text", "turn it into a plain str"),
    "subclass of dict": (OrderedDict(a=1), "OrderedDict", "turn it into a plain dict"),
    "enum": (Colour.RED, "Colour", "codec.register("),
    "dataclass": (Point(1), "Point", "codec.register("),
    "deep inside": ({"a": [1, (2, {object()})]}, "object", "['a'][1][1]"),
    "lone surrogate": ("\ud800", "str", "store bytes instead"),
    "exception": (ValueError("x"), "ValueError", "codec.register"),
    "generator": ((n for n in range(2)), "generator", "codec.register"),
}

ASSIGNMENTS: dict[str, Callable[[Any, Any], object]] = {
    "setitem": lambda values, value: values.__setitem__("bad", value),
    "update": lambda values, value: values.update(good=1, bad=value),
    "setdefault": lambda values, value: values.setdefault("bad", value),
    "in-place or": lambda values, value: values.__ior__({"bad": value}),
    "update_with": lambda values, value: values.update_with("bad", lambda _: value),
}


@pytest.mark.parametrize(("value", "kind", "remedy"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("assign", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
@pytest.mark.parametrize("app", ["", "shop"])
def test_an_unstorable_value_is_refused_at_the_assignment_with_key_type_and_remedy(
    house: House, value: Any, kind: str, remedy: str, assign: Callable[[Any, Any], object], app: str
) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        values = session.store(app) if app else session
        with pytest.raises(UnstorableValue) as caught:
            assign(values, value)
        error = caught.value
        assert (error.app, error.key) == (app, "bad")
        assert error.type_name.endswith(kind)
        assert "key 'bad'" in str(error)
        assert (f"of store {app!r}" in str(error)) == bool(app)
        assert kind in str(error) or kind == "str"
        assert remedy in str(error)
        assert isinstance(error, TypeError)
        assert "bad" not in values
        session["after"] = 1
    read = client.read()
    assert read.pop("good", 1) == 1
    assert read == {"a": 1, "after": 1}


def test_a_refused_assignment_leaves_the_value_that_was_there(house: House) -> None:
    client = house.visitor(a=[1])
    with client.request() as session:
        with pytest.raises(UnstorableValue):
            session["a"] = object()
        assert session["a"] == [1]
        session["a"].append(2)
    assert client.read() == {"a": [1, 2]}


def test_registered_types_are_kept(build: Callable[..., House]) -> None:
    codec = Codec()
    codec.register(Colour)
    codec.register(Point)
    client = build(codec=codec).visitor(colour=Colour.RED, point=Point([1]))
    with client.request() as session:
        assert session["colour"] is Colour.RED
        session["point"].x.append(2)
    assert client.read() == {"colour": Colour.RED, "point": Point([1, 2])}


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["list"].append(object()),
        lambda session: session["map"].update(deep=[Text("x")]),
        lambda session: session.update(late=[]) or session["late"].append(object()),
        lambda session: session.update_with("list", lambda held: held).append(object()),
    ],
    ids=["append", "at depth", "assigned then changed", "update_with then changed"],
)
def test_a_change_in_place_into_something_unstorable_is_refused_when_saved_and_nothing_is_written(
    house: House, change: Callable[[Any], object]
) -> None:
    client = house.visitor(list=[1], map={})
    session = client.open()
    session["other"] = 2
    change(session)
    with pytest.raises(UnstorableValue) as caught:
        house.manager.save(session)
    assert caught.value.key in ("list", "map", "late")
    assert client.read() == {"list": [1], "map": {}}
    assert set(house.driver.asked) <= {"load"}


def test_a_value_over_the_limit_is_refused_with_its_size(build: Callable[..., House]) -> None:
    house = build(Policy(max_value_bytes=100))
    client = house.visitor(a=1, list=["x" * 90])
    with client.request() as session:
        with pytest.raises(ValueTooLarge) as caught:
            session["big"] = "x" * 101
        error = caught.value
        assert (error.key, error.type_name, error.limit) == ("big", "str", 100)
        assert error.size > 100
        assert "Policy(max_value_bytes=...)" in str(error)
        assert "xxx" not in str(error)
        assert isinstance(error, UnstorableValue)
        session["fits"] = "x" * 98
    session = client.open()
    session["list"].append("y" * 20)
    with pytest.raises(ValueTooLarge, match="key 'list'"):
        house.manager.save(session)
    assert client.read() == {"a": 1, "list": ["x" * 90], "fits": "x" * 98}


def test_the_limit_is_for_a_value_and_not_for_their_sum(build: Callable[..., House]) -> None:
    house = build(Policy(max_value_bytes=100))
    values = {str(n): "x" * 90 for n in range(50)}
    assert house.visitor(**values).read() == values


# -- values that no longer decode -----------------------------------------------------------------------------------


def _spoil(house: House, key: str, data: bytes) -> None:
    values = house.driver.values()
    values["", key] = Value(data, values["", key].version)


def _undecodable(house: House) -> Client:
    client = house.visitor(a=1, bad=["x"])
    _spoil(house, "bad", b"\xc1 no MessagePack")
    return client


def test_an_undecodable_value_is_an_event_and_missing(house: House) -> None:
    client = _undecodable(house)
    with client.request() as session:
        sid = session.sid
        assert session.get("bad") is None
        assert "bad" not in session
        assert list(session) == ["a"]
        assert len(session) == 1
        with pytest.raises(KeyError):
            session["bad"]
        with pytest.raises(KeyError):
            del session["bad"]
        assert dict(session) == {"a": 1}
    (event,) = house.events
    assert (event.kind, event.sid, event.keys) == (EventKind.UNREADABLE, sid, (("", "bad"),))


def test_the_bytes_of_an_undecodable_value_stay_until_they_are_overwritten(house: House) -> None:
    client = _undecodable(house)
    with client.request() as session:
        assert session.get("bad") is None
        assert session.pop("bad", None) is None
        session["other"] = 1
    assert house.driver.values()["", "bad"].data == b"\xc1 no MessagePack"
    with client.request() as session:
        session["bad"] = "good"
    assert client.read() == {"a": 1, "other": 1, "bad": "good"}


@pytest.mark.parametrize("read_first", [True, False])
def test_an_undecodable_value_can_be_overwritten_and_cleared(house: House, read_first: bool) -> None:  # noqa: FBT001
    changes: list[Callable[[Any], None]] = [lambda values: values.clear(), lambda values: values.update(bad=[1])]
    for change in changes:
        client = _undecodable(house)
        with client.request() as session:
            assert not read_first or session.get("bad") is None
            change(session)
        assert house.driver.values().get(("", "bad"), Value(b"", 0)).data != b"\xc1 no MessagePack"
        with client.request() as session:
            session.destroy()


class Later:
    """A type whose decode function gives something that cannot be stored."""


def test_a_value_that_decodes_to_something_unstorable_counts_as_undecodable(build: Callable[..., House]) -> None:
    codec = Codec()
    codec.register(Later, "later", lambda _: 1, lambda _: object())
    house = build(codec=codec)
    client = house.visitor(a=1, bad=Later(), nested=[Later()])
    stored = dict(house.driver.values())
    with client.request() as session:
        assert session.get("bad") is None
        assert dict(session) == {"a": 1}
        session["b"] = 2
    assert {event.keys for event in house.events} == {((("", "bad")),), ((("", "nested")),)}
    assert house.kinds() == {EventKind.UNREADABLE: 2}
    assert house.driver.values()["", "bad"] == stored["", "bad"]
    with client.request() as session:
        session["bad"] = session["nested"] = 3
    assert client.read() == {"a": 1, "b": 2, "bad": 3, "nested": 3}


def test_a_conflict_over_a_value_that_became_undecodable_is_a_clash_and_no_crash(build: Callable[..., House]) -> None:
    codec = Codec()
    codec.register(Later, "later", lambda _: 1, lambda _: object())
    house = build(codec=codec)
    client = house.visitor(a=[1])
    session = client.open()
    session["a"].append(2)
    with client.twin().request() as other:
        other["a"] = Later()
    client.answer(session)
    assert client.read() == {"a": [1, 2]}
    assert house.kinds()[EventKind.UNREADABLE] == 1
    assert house.kinds()[EventKind.CONFLICT] == 1


def test_a_value_registered_no_longer_is_undecodable_and_comes_back_with_its_type(build: Callable[..., House]) -> None:
    knowing = Codec()
    knowing.register(Point)
    before = build(codec=knowing)
    client = before.visitor(a=1, point=Point(5))
    after = build(driver=before.driver, clock=before.clock)
    stranger = after.client()
    stranger.cookie = client.cookie
    assert stranger.read() == {"a": 1}
    assert after.kinds()[EventKind.UNREADABLE] == 1
    assert client.read() == {"a": 1, "point": Point(5)}
