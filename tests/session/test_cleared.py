"""What a request has cleared is gone for it, even if it had read nothing and another request writes there meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import EventKind, Session
from coatcheck.record import WHOLE, Delta, ValueKey
from coatcheck.snapshot import UNCLEARED, Cleared

if TYPE_CHECKING:
    from tests.conftest import House

NAMES: list[ValueKey] = [(app, key) for app in ("", "a", "b") for key in ("x", "y")]


def subsets(*members: Any) -> list[frozenset[Any]]:
    return [frozenset(chosen) for size in range(len(members) + 1) for chosen in combinations(members, size)]


CLEARED = [Cleared(apps) for apps in subsets("", "a")] + [
    Cleared(everything=True, spare=spare) for spare in subsets(("a", "x"), ("a", WHOLE), ("b", "y"))
]


def test_what_two_clears_delete_is_what_either_deletes() -> None:
    for one, two in product(CLEARED, CLEARED):
        both = one | two
        assert both == two | one
        for name in NAMES:
            assert both.hides(name) == (one.hides(name) or two.hides(name))
        for app in ("", "a", "b"):
            assert not both.hides_app(app) or all(both.hides(name) for name in NAMES if name[0] == app)
        assert not (both.everything and both.apps)
        assert both.everything or not both.spare
        assert Cleared.of(Delta(clears=both.apps, clear_all=both.everything, spare=both.spare)) == both
    for one, two, three in product(CLEARED, CLEARED, CLEARED):
        assert (one | two) | three == one | (two | three)
    assert all(one | UNCLEARED == one for one in CLEARED)


def test_a_store_is_cleared_where_all_its_values_are() -> None:
    assert Cleared(frozenset({"a"})).hides_app("a")
    assert not Cleared(frozenset({"a"})).hides_app("b")
    everything = Cleared(everything=True, spare=frozenset({("a", "x"), ("b", WHOLE)}))
    assert [everything.hides_app(app) for app in ("", "a", "b")] == [True, False, False]
    assert everything.hides(("a", "y"))
    assert not everything.hides(("b", "y"))
    assert not UNCLEARED.hides(("", "x"))
    assert not UNCLEARED.hides_app("")


def test_what_a_log_in_kept_is_there_after_a_second_save(house: House) -> None:
    client = house.visitor(cart=["hat"], other=1)
    session = client.open()
    session.login("ada", keep=["cart"])
    client.answer(session)
    assert session.get("other") is None
    session["note"] = 1
    client.answer(session)
    assert session["cart"] == ["hat"]
    session["cart"].append("scarf")
    client.answer(session)
    assert client.read() == {"cart": ["hat", "scarf"], "note": 1}


@pytest.mark.parametrize("read_something", [True, False])
def test_a_cleared_store_stays_empty_for_the_request_that_cleared_it_unread(
    house: House,
    read_something: bool,  # noqa: FBT001
) -> None:
    client = house.visitor(seed=1)
    with client.request() as session:
        session.store("shop").update(a=1, b=2)
    session = client.open()
    session.store("shop").clear()
    client.answer(session)
    with client.twin().request() as other:
        other.store("shop")["a"] = 3
    if read_something:
        assert session["seed"] == 1
    assert session.store("shop").get("a") is None
    assert list(session.store("shop")) == []
    assert session["seed"] == 1


def test_a_log_in_keeps_nothing_of_a_store_that_its_request_has_cleared(house: House) -> None:
    client = house.visitor(seed=1)
    session = client.open()
    session.store("shop").clear()
    client.answer(session)
    with client.twin().request() as other:
        other.store("shop")["a"] = 3
    session.login("ada", keep=[session.store("shop"), "seed"])
    client.answer(session)
    with client.request() as after:
        assert dict(after.store("shop")) == {}
        assert dict(after) == {"seed": 1}


def test_a_log_in_keeps_nothing_that_its_request_has_deleted(house: House) -> None:
    """Not even if the session got a new token meanwhile, so that the log-in makes a new session."""
    client = house.visitor(cart=["hat"], seed=1)
    session = client.open()
    del session["cart"]
    client.answer(session)
    twin = client.twin()
    with twin.request() as other:
        other.rotate()
    session.login("ada", keep=["cart", "seed"])
    client.answer(session)
    assert client.cookie != twin.cookie
    assert client.read() == {"seed": 1}


def test_a_missing_key_of_a_cleared_store_is_written_without_a_conflict(house: House) -> None:
    """The request never looked whether it is there, so the last writer wins."""
    client = house.visitor(seed=1)
    session = client.open()
    session.clear()
    assert session.get("a") is None
    session["b"] = 1
    del session["b"]
    client.answer(session)
    with client.twin().request() as other:
        other["a"] = "theirs"
        other["b"] = "theirs"
    house.forget()
    session["a"] = session["b"] = "mine"
    client.answer(session)
    assert client.read() == {"a": "mine", "b": "mine"}
    assert house.kinds()[EventKind.CONFLICT] == 0
    assert house.driver.asked.count("commit") == 1, "no merge"


def test_a_key_that_was_seen_to_be_missing_is_merged_after_a_save(house: House) -> None:
    client = house.visitor(seed=1)
    session = client.open()
    assert "a" not in session
    session["b"] = 1
    client.answer(session)
    del session["b"]
    client.answer(session)
    with client.twin().request() as other:
        other["a"] = ["theirs"]
        other["b"] = ["theirs"]
    session.setdefault("a", []).append("mine")
    session.setdefault("b", []).append("mine")
    client.answer(session)
    assert client.read() == {"seed": 1, "a": ["theirs", "mine"], "b": ["theirs", "mine"]}


EQUAL: dict[str, tuple[Any, Callable[[Any], object], Any]] = {
    "two appends": ({"v": ["a"]}, lambda v: v["v"].append("b"), {"v": ["a", "b", "b"]}),
    "two counts": ({"v": Counter(a=1)}, lambda v: v["v"].update("a"), {"v": Counter(a=3)}),
    "one new key": ({"v": 1}, lambda v: v.update(new="x"), {"v": 1, "new": "x"}),
    "two appends at depth": ({"v": {"w": [1]}}, lambda v: v["v"]["w"].append(2), {"v": {"w": [1, 2, 2]}}),
}


@pytest.mark.parametrize(("start", "act", "merged"), EQUAL.values(), ids=EQUAL)
def test_two_equal_changes_of_one_dict(
    house: House, start: Any, act: Callable[[Any], object], merged: dict[str, Any]
) -> None:
    client = house.visitor(v=start)
    sessions: list[Session] = [client.twin().open(), client.twin().open()]
    for session in sessions:
        act(session["v"])
    for session in sessions:
        house.manager.save(session)
    assert client.read() == {"v": merged}
    assert house.kinds()[EventKind.CONFLICT] == 0


def test_two_equal_counts_in_one_dict_are_one_lost_and_told(house: House) -> None:
    client = house.visitor(v={"n": 1})
    sessions: list[Session] = [client.twin().open(), client.twin().open()]
    for session in sessions:
        session["v"]["n"] += 1
    for session in sessions:
        house.manager.save(session)
    assert client.read() == {"v": {"n": 2}}
    assert house.kinds()[EventKind.CONFLICT] == 1
