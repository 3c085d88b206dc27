"""A session as a mapping: what a dict does it does, every change is saved, and stores keep to themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import ConfigurationError, Session, Store, UnstorableValue

if TYPE_CHECKING:
    from tests.conftest import House

Values = MutableMapping[str, Any]
Start: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731 (fresh objects for each use)
    "a": 1,
    "b": "two",
    "cart": ["umbrella", {"colours": {"red", "blue"}, "sizes": [1, [2, [3]]]}],
    "set": {1, 2},
    "tuple": (1, ["x"]),
    "map": {"deep": {"deeper": {"deepest": []}}},
}


def _in_place_or(values: Any, other: Any) -> None:
    values |= other


def _change(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, list):
            value.append(1)
        elif isinstance(value, set):
            value.add(5)


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "setitem, new": lambda v: v.__setitem__("new", {"x": 1}),
    "setitem, over": lambda v: v.__setitem__("a", [1]),
    "setitem, another type": lambda v: v.__setitem__("a", 1.0),
    "setitem, True over 1": lambda v: v.update(a=True),
    "setitem, Decimal": lambda v: v.__setitem__("a", Decimal("1.10")),
    "setitem, None": lambda v: v.__setitem__("a", None),
    "setitem, the same": lambda v: v.__setitem__("b", "two"),
    "setitem, read before": lambda v: v.__setitem__("a", v["a"] + 1),
    "delitem": lambda v: v.__delitem__("a"),
    "delitem, nested holder": lambda v: v.__delitem__("cart"),
    "del and set again": lambda v: [v.__delitem__("a"), v.__setitem__("a", 9)],
    "set and del again": lambda v: [v.__setitem__("n", 9), v.__delitem__("n")],
    "pop": lambda v: v.pop("b"),
    "pop, default": lambda v: v.pop("nothing", "default"),
    "popitem": lambda v: v.popitem(),
    "popitem, twice": lambda v: [v.popitem(), v.popitem()],
    "popitem, all": lambda v: [v.popitem() for _ in range(len(v))],
    "setdefault, new": lambda v: v.setdefault("list", []),
    "setdefault, there": lambda v: v.setdefault("a", 5),
    "setdefault, then changed": lambda v: v.setdefault("list", []).append(1),
    "setdefault, there, then changed": lambda v: v.setdefault("cart", []).append("hat"),
    "update, mapping": lambda v: v.update({"a": 2, "new": 3}),
    "update, pairs": lambda v: v.update([("a", 2), ("new", 3)]),
    "update, keywords": lambda v: v.update(a=2, new=3),
    "update, both": lambda v: v.update({"a": 2}, new=3),
    "update, nothing": lambda v: v.update(),
    "in-place or, mapping": lambda v: _in_place_or(v, {"a": 2, "new": [1]}),
    "in-place or, pairs": lambda v: _in_place_or(v, [("a", 2)]),
    "or": lambda v: v | {"a": 2, "new": 3},
    "or, from the right": lambda v: {"a": 2, "new": 3} | v,
    "clear": lambda v: v.clear(),
    "clear, then set": lambda v: [v.clear(), v.__setitem__("after", 1)],
    "set, then clear": lambda v: [v.__setitem__("n", 1), v.clear()],
    "clear, then the same again": lambda v: [v.clear(), v.__setitem__("a", 1)],
    "list, append": lambda v: v["cart"].append("hat"),
    "list, setitem": lambda v: v["cart"].__setitem__(0, "coat"),
    "list, del": lambda v: v["cart"].__delitem__(0),
    "list, sort in place": lambda v: v["cart"][1]["sizes"].reverse(),
    "list, at depth": lambda v: v["cart"][1]["sizes"][1][1].append(4),
    "set, add": lambda v: v["set"].add(3),
    "set, discard": lambda v: v["set"].discard(1),
    "set, at depth": lambda v: v["cart"][1]["colours"].add("green"),
    "dict, at depth": lambda v: v["map"]["deep"]["deeper"].__setitem__("new", 1),
    "dict, key deleted at depth": lambda v: v["map"]["deep"].pop("deeper"),
    "dict, list at depth": lambda v: v["map"]["deep"]["deeper"]["deepest"].append(1),
    "dict, order alone": lambda v: v["map"].update(first=v["map"].pop("deep")),
    "list within a tuple": lambda v: v["tuple"][1].append("y"),
    "type of an element alone": lambda v: v["cart"].__setitem__(0, ("umbrella",)),
    "by get": lambda v: v.get("cart").append(1),
    "by values": lambda v: _change(v.values()),
    "by items": lambda v: _change(value for _, value in v.items()),
    "assigned, then changed": lambda v: v.update(late=[1]) or v["late"].append(2),
    "moved, then changed": lambda v: v.__setitem__("moved", v.pop("cart")) or v["moved"].append(1),
    "get": lambda v: v.get("b"),
    "get, none": lambda v: v.get("nothing"),
    "get, default": lambda v: v.get("nothing", 5),
    "getitem": lambda v: v["map"],
    "in": lambda v: ["a" in v, "nothing" in v, 5 in v, None in v],
    "len": len,
    "bool": bool,
    "iter": list,
    "reversed": lambda v: list(reversed(v)),
    "keys": lambda v: list(v.keys()),
    "values": lambda v: list(v.values()),
    "items": lambda v: list(v.items()),
    "copy": lambda v: v.copy(),
    "dict": dict,
    "spread": lambda v: {**v},
    "match": lambda v: [1 for _ in [v] if isinstance(v, MutableMapping | dict)],
    "==": lambda v: [v == Start(), v == {}, v != Start(), Start() == v],
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("app", [None, "shop"], ids=["default store", "store"])
@pytest.mark.parametrize("stored", [True, False], ids=["on a stored session", "on a new session"])
def test_every_operation_does_what_a_dict_does_and_is_saved(
    house: House,
    operation: Callable[[Any], Any],
    app: str | None,
    stored: bool,  # noqa: FBT001
) -> None:
    def values(session: Session) -> Values:
        return session if app is None else session.store(app)

    client = house.client()
    expected = Start()
    if stored:
        with client.request() as session:
            values(session).update(Start())
        session = client.open()
    else:
        session = client.open()
        values(session).update(Start())
    result = operation(values(session))
    assert result == operation(expected)
    assert type(result) is type(operation(Start()))
    assert values(session) == expected
    assert values(session).keys() == expected.keys()
    client.answer(session)
    with client.request() as again:
        read = dict(values(again))
    assert read == expected
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in expected.items()}
    assert list(read.get("map", {})) == list(expected.get("map", {}))


@pytest.mark.parametrize(
    "operation",
    [
        lambda v: v["nothing"],
        lambda v: v.__delitem__("nothing"),
        lambda v: v.pop("nothing"),
        lambda v: (v.pop("a"), v.pop("a")),
        lambda v: (v.clear(), v.popitem()),
        lambda v: (v.clear(), v["a"]),
        lambda v: (v.__delitem__("a"), v.__delitem__("a")),
    ],
)
def test_a_key_that_is_not_there_is_a_key_error(house: House, operation: Callable[[Values], object]) -> None:
    with house.visitor(a=1).request() as session, pytest.raises(KeyError):
        operation(session)


def test_order_within_a_request_is_that_of_a_dict(house: House) -> None:
    with house.client().request() as session:
        session.update(a=1, b=2, c=3)
        session["a"] = 4
        assert list(session) == ["a", "b", "c"]
        assert list(reversed(session)) == ["c", "b", "a"]
        assert session.popitem() == ("c", 3)


def test_a_copy_is_not_live(house: House) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        for copied in (session.copy(), dict(session), session | {}):
            assert type(copied) is dict
            copied["new"] = 1
            del copied["a"]
    assert client.read() == {"a": 1}


def test_or_with_anything_but_a_mapping_is_a_type_error(house: House) -> None:
    with house.visitor(a=1).request() as session:
        with pytest.raises(TypeError):
            session | [("b", 2)]  # type: ignore[operator]
        with pytest.raises(TypeError):
            5 | session  # type: ignore[operator]


def test_a_cleared_session_stays_empty_and_a_late_writer_keeps_its_key(house: House) -> None:
    client = house.visitor(a=1, b=2)
    other = client.twin().open()
    with client.request() as session:
        session.clear()
    assert client.read() == {}
    other["c"] = 3
    house.manager.save(other)
    assert client.read() == {"c": 3}


def test_what_was_never_read_is_saved_all_the_same(house: House) -> None:
    client = house.visitor(a=1, b=[1])
    with client.request() as session:
        session["a"] = 2
        session["c"] = 3
        session.store("shop")["d"] = 4
    with client.request() as session:
        assert dict(session) == {"a": 2, "b": [1], "c": 3}
        assert dict(session.store("shop")) == {"d": 4}


def test_one_request_reads_what_it_wrote_unread(house: House) -> None:
    with house.visitor(a=1).request() as session:
        session["b"] = [2]
        session["b"].append(3)
        assert session["b"] == [2, 3]
        assert session["a"] == 1
        assert dict(session) == {"a": 1, "b": [2, 3]}


def test_two_names_for_one_object_become_two_equal_objects(house: House) -> None:
    client = house.client()
    with client.request() as session:
        shared: list[int] = []
        session["one"] = session["two"] = shared
        shared.append(1)
    with client.request() as session:
        session["one"].append(2)
    assert client.read() == {"one": [1, 2], "two": [1]}


def test_requests_of_one_client_see_what_is_stored_and_not_what_is_under_way(house: House) -> None:
    client = house.visitor(a=[1])
    one, two = client.twin().open(), client.twin().open()
    one["a"].append(2)
    assert two["a"] == [1]
    house.manager.save(one)
    assert two["a"] == [1]
    assert client.read() == {"a": [1, 2]}


# -- stores ---------------------------------------------------------------------------------------------------------


def test_stores_of_one_session_keep_to_themselves(house: House) -> None:
    client = house.client()
    apps = ["", "a", "A", "a.b", "a-b", "_", "x" * 255]

    def stores(session: Session) -> dict[str, Values]:
        return {app: session.store(app) if app else session for app in apps}

    with client.request() as session:
        for app, store in stores(session).items():
            store["key"] = app
            store["only " + app[:9]] = True
    with client.request() as session:
        for app, store in stores(session).items():
            assert dict(store) == {"key": app, "only " + app[:9]: True}
        session.store("a").clear()
        del session.store("A")["key"]
        session.store("a.b").popitem()
    with client.request() as session:
        assert {app: len(store) for app, store in stores(session).items()} == {
            app: {"a": 0, "A": 1, "a.b": 1}.get(app, 2) for app in apps
        }
    assert house.driver.stored == 1


def test_clearing_the_default_store_leaves_the_others(house: House) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        session.store("shop")["b"] = 2
    with client.request() as session:
        session.clear()
        assert session.store("shop")["b"] == 2
    with client.request() as session:
        assert dict(session) == {}
        assert dict(session.store("shop")) == {"b": 2}


def test_two_views_of_one_store_are_one_store(house: House) -> None:
    with house.client().request() as session:
        session.store("shop")["a"] = 1
        assert session.store("shop")["a"] == 1
        assert isinstance(session.store("shop"), Store)
        assert session.store("shop").app == "shop"
        assert session.app == ""


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a/b", "ä", "a\n", "x" * 256, "a:b", "a\0", "../x", None, 5, b"shop", "\u0661"]
)
def test_a_store_is_named_by_letters_digits_and_three_marks(house: House, name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"1 to 255 characters of a-z A-Z 0-9 - _ \."):
        house.client().open().store(name)


# -- keys -----------------------------------------------------------------------------------------------------------


class Text(str):
    """A subclass, which would come back as a plain str."""

    __slots__ = ()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "\ud800", 5, None, b"key", ("a", "b"), True, 1.5, Text("key")])
@pytest.mark.parametrize(
    "write",
    [
        lambda values, key: values.__setitem__(key, 1),
        lambda values, key: values.setdefault(key, 1),
        lambda values, key: values.update({key: 1}),
        lambda values, key: values.increment(key),
        lambda values, key: values.update_with(key, lambda _: 1),
    ],
    ids=["setitem", "setdefault", "update", "increment", "update_with"],
)
def test_a_key_that_storage_cannot_hold_is_refused_at_once(
    house: House, key: Any, write: Callable[[Any, Any], None]
) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        for values in (session, session.store("shop")):
            with pytest.raises(UnstorableValue, match="a key must be") as caught:
                write(values, key)
            assert isinstance(caught.value, TypeError)
        assert key not in session
    assert client.read() == {"a": 1}


@pytest.mark.parametrize("key", ["a", "x" * 255, " ", "a b", "ä", "\U0001f9e5", "a\nb", "a;b", "__class__", "a.b/c"])
def test_any_other_text_is_a_key(house: House, key: str) -> None:
    client = house.visitor(**{key: 1})
    assert client.read() == {key: 1}
