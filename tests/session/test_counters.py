"""The exact tools: increments, which read nothing, and update_with, which runs again after a conflict."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import ConflictError, CounterOverflow, EventKind, NotACounter, Policy, UnstorableValue
from coatcheck.record import COUNTER_MAX, COUNTER_MIN

if TYPE_CHECKING:
    from tests.conftest import Client, House

Act = Callable[[Any], object]

# What is stored before, what a request does, and what is there afterwards.
SUMS: dict[str, tuple[dict[str, Any], Act, dict[str, Any]]] = {
    "blind, missing": ({"a": 1}, lambda s: s.increment("n"), {"a": 1, "n": 1}),
    "blind, there": ({"n": 5}, lambda s: s.increment("n"), {"n": 6}),
    "blind, several": ({"n": 5}, lambda s: [s.increment("n", k) for k in (1, 2, -10)], {"n": -2}),
    "by nothing": ({"n": 5}, lambda s: s.increment("n", 0), {"n": 5}),
    "by nothing, missing": ({"a": 1}, lambda s: s.increment("n", 0), {"a": 1, "n": 0}),
    "after a read": ({"n": 5}, lambda s: (s["n"], s.increment("n", 2)), {"n": 7}),
    "after a read of nothing": ({"a": 1}, lambda s: (s.get("n"), s.increment("n", 2)), {"a": 1, "n": 2}),
    "before a read": ({"n": 5}, lambda s: (s.increment("n", 2), s["n"]), {"n": 7}),
    "after a listing": ({"n": 5}, lambda s: (list(s), s.increment("n")), {"n": 6}),
    "after a write": ({"n": 5}, lambda s: (s.update(n=100), s.increment("n")), {"n": 101}),
    "before a write": ({"n": 5}, lambda s: (s.increment("n"), s.update(n=100)), {"n": 100}),
    "after a write of a new key": ({"a": 1}, lambda s: (s.update(n=100), s.increment("n")), {"a": 1, "n": 101}),
    "after read and write": ({"n": 5}, lambda s: (s.update(n=s["n"] + 1), s.increment("n")), {"n": 7}),
    "after del": ({"n": 5}, lambda s: (s.pop("n"), s.increment("n", 3)), {"n": 3}),
    "before del": ({"n": 5, "a": 1}, lambda s: (s.increment("n", 3), s.pop("n")), {"a": 1}),
    "new, before del": ({"a": 1}, lambda s: (s.increment("n", 3), s.pop("n")), {"a": 1}),
    "del and set and increment": ({"n": 5}, lambda s: (s.pop("n"), s.update(n=1), s.increment("n")), {"n": 2}),
    "increment, del, increment": ({"n": 5}, lambda s: (s.increment("n"), s.pop("n"), s.increment("n", 9)), {"n": 9}),
    "after clear": ({"n": 5}, lambda s: (s.clear(), s.increment("n")), {"n": 1}),
    "before clear": ({"n": 5}, lambda s: (s.increment("n"), s.clear()), {}),
    "after clear, not an integer": ({"n": "text"}, lambda s: (s.clear(), s.increment("n")), {"n": 1}),
    "over text, overwritten unread": ({"n": "text"}, lambda s: (s.update(n=1), s.increment("n")), {"n": 2}),
    "after update_with": ({"n": 5}, lambda s: (s.update_with("n", lambda n: n * 2), s.increment("n")), {"n": 11}),
    "before update_with": ({"n": 5}, lambda s: (s.increment("n"), s.update_with("n", lambda n: n * 2)), {"n": 12}),
    "to the top": ({"n": COUNTER_MAX - 1}, lambda s: s.increment("n"), {"n": COUNTER_MAX}),
    "to the bottom": ({"n": COUNTER_MIN + 1}, lambda s: s.increment("n", -1), {"n": COUNTER_MIN}),
    "in a store": ({"n": 5}, lambda s: s.store("shop").increment("n"), {"n": 5}),
}


@pytest.mark.parametrize(("before", "act", "after"), SUMS.values(), ids=SUMS)
def test_increments_add_up(house: House, before: dict[str, Any], act: Act, after: dict[str, Any]) -> None:
    client = house.visitor(**before)
    session = client.open()
    act(session)
    client.answer(session)
    assert dict(session) == after  # the request goes on to see what it did
    assert client.read() == after
    assert all(type(value) is type(after[key]) for key, value in client.read().items())


@pytest.mark.parametrize(("before", "act", "after"), SUMS.values(), ids=SUMS)
def test_increments_are_seen_by_the_request_itself(
    house: House, before: dict[str, Any], act: Act, after: dict[str, Any]
) -> None:
    session = house.visitor(**before).open()
    act(session)
    assert session.copy() == after
    assert set(session) == after.keys()
    assert len(session) == len(after)
    assert ("n" in session) == ("n" in after)
    assert session.get("n") == after.get("n")


def test_a_blind_increment_reads_nothing_and_two_requests_both_count(house: House) -> None:
    client = house.visitor(n=5)
    one, two = client.twin().open(), client.twin().open()
    one.increment("n")
    two.increment("n", 10)
    house.manager.save(one)
    house.manager.save(two)
    assert house.driver.asked == ["commit", "commit"]
    assert client.read() == {"n": 16}


def test_an_increment_after_a_read_counts_though_another_request_came_first(house: House) -> None:
    client = house.visitor(n=5)
    session = client.open()
    assert session["n"] == 5
    session.increment("n")
    with client.twin().request() as other:
        other.increment("n", 100)
    client.answer(session)
    assert client.read() == {"n": 106}
    assert house.events == []


KINDS: dict[str, Any] = {
    "text": "5", "float": 5.0, "bool": True, "None": None, "list": [5], "big": 2**63, "small": -(2**63) - 1,
}  # fmt: skip


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("known", [True, False], ids=["read before", "unread"])
def test_what_is_no_counter_cannot_be_incremented_and_nothing_is_written(
    house: House,
    value: object,
    known: bool,  # noqa: FBT001
) -> None:
    client = house.visitor(n=value)
    session = client.open()
    session["other"] = 1
    if known:
        assert session["n"] == value
        with pytest.raises(NotACounter, match="key 'n'"):
            session.increment("n")
        assert session["n"] == value
        client.answer(session)
        assert client.read() == {"n": value, "other": 1}
    else:
        session.increment("n")
        with pytest.raises(NotACounter, match="key 'n' is not a 64-bit integer") as caught:
            house.manager.save(session)
        assert (caught.value.app, caught.value.key) == ("", "n")
        assert client.read() == {"n": value}


@pytest.mark.parametrize(
    ("start", "amount"), [(COUNTER_MAX, 1), (COUNTER_MIN, -1), (1, COUNTER_MAX), (-1, COUNTER_MIN)]
)
@pytest.mark.parametrize("known", ["read", "unread", "assigned"])
def test_an_overflow_is_an_error_and_nothing_is_written(house: House, start: int, amount: int, known: str) -> None:
    client = house.visitor(n=start)
    session = client.open()
    session["other"] = 1
    if known == "unread":
        session.increment("n", amount)
        with pytest.raises(CounterOverflow, match="key 'n'"):
            house.manager.save(session)
    else:
        session["n"] = session["n"] if known == "assigned" else start
        with pytest.raises(CounterOverflow, match="key 'n'"):
            session.increment("n", amount)
    assert client.read() == {"n": start}


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 2**200])
def test_an_amount_beyond_64_bits_is_an_overflow_at_once(house: House, amount: int) -> None:
    with house.visitor(n=0).request() as session, pytest.raises(CounterOverflow):
        session.increment("n", amount)


@pytest.mark.parametrize("amount", [1.0, "1", None, True, [1]])
def test_an_amount_is_an_int(house: House, amount: Any) -> None:
    with house.visitor(n=0).request() as session, pytest.raises(UnstorableValue, match="increment takes an int"):
        session.increment("n", amount)


# -- update_with ----------------------------------------------------------------------------------------------------


def _interrupted(house: House, client: Client, other: Act, act: Act) -> None:
    """Let *other* be saved between the read and the write of a request that does *act*."""

    def between() -> None:
        with client.twin().request() as session:
            other(session)

    with client.request() as session:
        act(session)
        house.driver.before["commit"] = between


def test_update_with_gives_the_new_value_and_saves_it(house: House) -> None:
    client = house.visitor(n=5)
    with client.request() as session:
        assert session.update_with("n", lambda n: n + 1) == 6
        assert session.update_with("new", lambda n: n + 1, 10) == 11
        assert session.update_with("none", lambda n: n is None) is True
        assert session.store("shop").update_with("n", lambda n: [n], "default") == ["default"]
    assert client.read() == {"n": 6, "new": 11, "none": True}


UPDATES: dict[str, tuple[Act, Act, Any]] = {
    "once": (lambda s: s.update(n=100), lambda s: s.update_with("n", lambda n: n * 2), 200),
    "twice": (
        lambda s: s.update(n=100),
        lambda s: [s.update_with("n", lambda n: n * 2), s.update_with("n", lambda n: n + 1)],
        201,
    ),
    "then incremented": (
        lambda s: s.update(n=100), lambda s: [s.update_with("n", lambda n: n * 2), s.increment("n", 5)], 205,
    ),
    "incremented, then": (
        lambda s: s.update(n=100), lambda s: [s.increment("n", 5), s.update_with("n", lambda n: n * 2)], 210,
    ),
    "read before": (lambda s: s.update(n=100), lambda s: [s["n"], s.update_with("n", lambda n: n * 2)], 200),
    "deleted meanwhile": (lambda s: s.pop("n"), lambda s: s.update_with("n", lambda n: n + 1, 1000), 1001),
    "cleared meanwhile": (lambda s: s.clear(), lambda s: s.update_with("n", lambda n: n + 1, 1000), 1001),
    "incremented meanwhile": (lambda s: s.increment("n"), lambda s: s.update_with("n", lambda n: n * 2), 12),
    "another type meanwhile": (lambda s: s.update(n=[1]), lambda s: s.update_with("n", lambda n: (n, n)), ([1], [1])),
    "the other did the same": (
        lambda s: s.update_with("n", lambda n: n + 1), lambda s: s.update_with("n", lambda n: n + 1), 7,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("other", "act", "after"), UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("on_conflict", ["last", "error"])
def test_update_with_runs_again_on_what_another_request_wrote(
    build: Callable[..., House], other: Act, act: Act, after: object, on_conflict: Any
) -> None:
    house = build(Policy(on_conflict=on_conflict))
    client = house.visitor(n=5)
    _interrupted(house, client, other, act)
    assert client.read() == {"n": after}
    assert house.kinds()[EventKind.CONFLICT] == 0


def test_update_with_runs_again_as_often_as_it_takes(build: Callable[..., House]) -> None:
    house = build(Policy(on_conflict="error"))
    client = house.visitor(n=0)
    runs: list[int] = []
    left = [100, 200, 300, 400]

    def between() -> None:
        with client.twin().request() as session:
            session["n"] = left.pop(0)
        if left:
            house.driver.before["commit"] = between

    def function(n: int) -> int:
        runs.append(n)
        return n + 1

    with client.request() as session:
        session.update_with("n", function)
        house.driver.before["commit"] = between
    assert runs == [0, 100, 200, 300, 400]
    assert client.read() == {"n": 401}


def test_a_change_in_place_after_update_with_is_merged_and_not_lost(house: House) -> None:
    client = house.visitor(cart=["a"])
    _interrupted(
        house,
        client,
        lambda s: s["cart"].append("theirs"),
        lambda s: [s.update_with("cart", lambda cart: [*cart, "mine"]), s["cart"].append("in place")],
    )
    assert sorted(client.read()["cart"]) == ["a", "in place", "mine", "theirs"]


def test_an_increment_after_update_with_and_a_change_in_place_after_it_are_both_kept(house: House) -> None:
    client = house.visitor(n=5)
    with client.request() as session:
        session.update_with("n", lambda n: n + 1)
        session.increment("n")
        session.update_with("n", lambda n: n * 10)
    assert client.read() == {"n": 70}


@pytest.mark.parametrize("function", [lambda cart: cart.append("x"), lambda _: None, lambda cart: cart.sort()])
@pytest.mark.parametrize("key", ["cart", "missing"])
def test_a_function_that_returns_none_by_accident_is_refused(house: House, function: Act, key: str) -> None:
    client = house.visitor(cart=["hat"])
    with pytest.raises(UnstorableValue, match=f"key '{key}': the function of update_with returned None"):
        client.open().update_with(key, function, [])
    assert client.read() == {"cart": ["hat"]}


def test_none_on_its_second_run_is_refused_and_nothing_is_written(house: House) -> None:
    client = house.visitor(n=5)
    with pytest.raises(UnstorableValue, match="returned None"):
        _interrupted(
            house, client, lambda s: s.update(n=6), lambda s: s.update_with("n", lambda n: n + 1 if n == 5 else None)
        )
    assert client.read() == {"n": 6}


# What a request does, and what its increment then returns.
KNOWN: dict[str, tuple[Act, int | None]] = {
    "unread": (lambda s: s.increment("n"), None),
    "unread, twice": (lambda s: [s.increment("n"), s.increment("n")][-1], None),
    "read": (lambda s: [s["n"], s.increment("n", 2)][-1], 7),
    "another key read": (lambda s: [s["a"], s.increment("n", -2)][-1], 3),
    "a fact read": (lambda s: [s.user, s.increment("n")][-1], 6),
    "read, twice": (lambda s: [s["n"], s.increment("n"), s.increment("n")][-1], 7),
    "assigned": (lambda s: [s.update(n=1), s.increment("n")][-1], 2),
    "cleared": (lambda s: [s.clear(), s.increment("n")][-1], 1),
    "deleted": (lambda s: [s.pop("n"), s.increment("n")][-1], 1),
    "missing": (lambda s: [s["a"], s.increment("new")][-1], 1),
    "in a store": (lambda s: [s["a"], s.store("shop").increment("n")][-1], 1),
    "of a dict": (lambda s: [s["a"], s.increment("n"), s["n"]][-1], 6),
    "logged out": (lambda s: [s.logout(), s.increment("n")][-1], 1),
    "logged in": (lambda s: [s.login("ada"), s.increment("n")][-1], 1),
    "logged in, kept": (lambda s: [s.login("ada", ["n"]), s.increment("n")][-1], 6),
    "after update_with": (lambda s: [s.update_with("n", lambda n: n * 2), s.increment("n")][-1], 11),
}


@pytest.mark.parametrize(("act", "total"), KNOWN.values(), ids=KNOWN)
def test_increment_returns_the_sum_where_it_is_known(house: House, act: Act, total: int | None) -> None:
    found = act(house.visitor(n=5, a=1).open())
    assert found == total
    assert type(found) is type(total)


def test_a_newcomers_increment_returns_the_sum(house: House) -> None:
    assert house.client().open().increment("n", 3) == 3


def test_a_function_that_raises_changes_nothing(house: House) -> None:
    client = house.visitor(n=5)
    with client.request() as session:
        with pytest.raises(ZeroDivisionError):
            session.update_with("n", lambda n: n / 0)
        assert session["n"] == 5
    assert client.read() == {"n": 5}
    assert "commit" not in house.driver.asked


def test_a_function_that_gives_something_unstorable_on_its_second_run_is_refused(house: House) -> None:
    client = house.visitor(n=5)
    with pytest.raises(UnstorableValue, match="key 'n'"):
        _interrupted(
            house,
            client,
            lambda s: s.update(n=6),
            lambda s: s.update_with("n", lambda n: n + 1 if n == 5 else object()),
        )
    assert client.read() == {"n": 6}


def test_after_an_assignment_update_with_is_part_of_the_assignment(build: Callable[..., House]) -> None:
    house = build(Policy(on_conflict="error"))
    client = house.visitor(n=5)
    with pytest.raises(ConflictError):
        _interrupted(
            house,
            client,
            lambda s: s.update(n=100),
            lambda s: [s["n"], s.update(n=6), s.update_with("n", lambda n: n * 2)],
        )
    assert client.read() == {"n": 100}
    _interrupted(house, client, lambda s: s.update(n=7), lambda s: [s.update(n=6), s.update_with("n", lambda n: n * 2)])
    assert client.read() == {"n": 12}


def test_an_undecodable_value_is_no_counter_as_soon_as_that_is_known(house: House) -> None:
    client = house.visitor(n=["text"])
    values = house.driver.values()
    values["", "n"] = values["", "n"]._replace(data=b"\xc1")
    with client.request() as session:
        assert session.get("n") is None
        with pytest.raises(NotACounter):
            session.increment("n")
    session = client.open()
    session.increment("n")
    with pytest.raises(NotACounter):
        house.manager.save(session)
    assert house.driver.values()["", "n"].data == b"\xc1"
