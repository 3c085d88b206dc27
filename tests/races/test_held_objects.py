"""The objects that an application holds stay the session's own through a save that merged: later changes count too."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from coatcheck import AsyncSession, AsyncSessionManager, Codec, Event, Session, SessionManager, StaleValue

if TYPE_CHECKING:
    from coatcheck.adapter import Saved

Change = Callable[[Any], object]


class Case(NamedTuple):
    """What is stored, what two requests do to it, and what is there after each save of the later one.

    Attributes:
        start: The value that both read.
        mine: The change of the request that is saved last.
        theirs: The other request's change.
        merged: What is stored after both saves.
        later: What the first of them does afterwards to the object that it holds.
        final: What is stored then.
        held: Which part of the value it holds.
    """

    start: Any
    mine: Change
    theirs: Change
    merged: Any
    later: Change
    final: Any
    held: Change = lambda value: value


CASES = {
    "list": Case(
        ["a"],
        lambda v: v.append("m"),
        lambda v: v.append("t"),
        ["a", "t", "m"],
        lambda held: held.append("l"),
        ["a", "t", "m", "l"],
    ),
    "list, emptied by the other": Case(
        ["a"], lambda v: v.append("m"), lambda v: v.clear(), ["m"], lambda held: held.append("l"), ["m", "l"]
    ),
    "dict": Case(
        {"a": 1},
        lambda v: v.update(m=1),
        lambda v: v.update(t=1),
        {"a": 1, "t": 1, "m": 1},
        lambda held: held.update(t=2),
        {"a": 1, "t": 2, "m": 1},
    ),
    "set": Case({1}, lambda v: v.add(2), lambda v: v.add(3), {1, 2, 3}, lambda held: held.discard(3), {1, 2}),
    "Counter": Case(
        Counter(a=1),
        lambda v: v.update("a"),
        lambda v: v.update("ab"),
        Counter(a=3, b=1),
        lambda held: held.update("b"),
        Counter(a=3, b=2),
    ),
    "a list in a dict": Case(
        {"v": ["a"], "n": 1},
        lambda v: v["v"].append("m"),
        lambda v: v.update(v=[*v["v"], "t"], n=2),
        {"v": ["a", "t", "m"], "n": 2},
        lambda held: held.append("l"),
        {"v": ["a", "t", "m", "l"], "n": 2},
        lambda v: v["v"],
    ),
    "a part that only the other changed": Case(
        {"mine": [], "theirs": {"a": {1}}},
        lambda v: v["mine"].append("m"),
        lambda v: v["theirs"]["a"].add(2),
        {"mine": ["m"], "theirs": {"a": {1, 2}}},
        lambda held: held.add(3),
        {"mine": ["m"], "theirs": {"a": {1, 2, 3}}},
        lambda v: v["theirs"]["a"],
    ),
    "a dict in a list": Case(
        [{"n": 1}, {"n": 5}],
        lambda v: v[1].update(m=1),
        lambda v: v.append({"n": 9}),
        [{"n": 1}, {"n": 5, "m": 1}, {"n": 9}],
        lambda held: held.update(m=2),
        [{"n": 1}, {"n": 5, "m": 2}, {"n": 9}],
        lambda v: v[1],
    ),
    "a dict in a list of which the other removed one": Case(
        [{"n": 1}, {"n": 5}],
        lambda v: v.append("m"),
        lambda v: v.pop(0),
        [{"n": 5}, "m"],
        lambda held: held.update(m=2),
        [{"n": 5, "m": 2}, "m"],
        lambda v: v[1],
    ),
    "a dict in a list that the other changed": Case(
        [{"n": 1}, {"n": 5}],
        lambda v: v.append("m"),
        lambda v: v[1].update(n=6),
        [{"n": 1}, {"n": 6}, "m"],
        lambda held: held.update(m=2),
        [{"n": 1}, {"n": 6, "m": 2}, "m"],
        lambda v: v[1],
    ),
    "a list in a tuple": Case(
        {"pair": (1, ["a"]), "n": 1},
        lambda v: v.update(n=2),
        lambda v: v["pair"][1].append("t"),
        {"pair": (1, ["a", "t"]), "n": 2},
        lambda held: held.append("l"),
        {"pair": (1, ["a", "t", "l"]), "n": 2},
        lambda v: v["pair"][1],
    ),
    "a list in a tuple whose other part changed": Case(
        {"pair": (1, ["a"]), "n": 1},
        lambda v: v.update(n=2),
        lambda v: v.update(pair=(5, ["a"])),
        {"pair": (5, ["a"]), "n": 2},
        lambda held: held.append("l"),
        {"pair": (5, ["a", "l"]), "n": 2},
        lambda v: v["pair"][1],
    ),
    "a bytearray in a dict": Case(
        {"data": bytearray(b"a"), "n": 1},
        lambda v: v.update(n=2),
        lambda v: v["data"].extend(b"t"),
        {"data": bytearray(b"at"), "n": 2},
        lambda held: held.extend(b"l"),
        {"data": bytearray(b"atl"), "n": 2},
        lambda v: v["data"],
    ),
    "a registered type in a dict, which nobody changed": Case(
        {"last": deque("a"), "n": 1},
        lambda v: v.update(n=2),
        lambda v: v.update(t=1),
        {"last": deque("a"), "n": 2, "t": 1},
        lambda held: held.append("l"),
        {"last": deque("al"), "n": 2, "t": 1},
        lambda v: v["last"],
    ),
}


class Requests:
    """Requests of one client, through a synchronous manager or an asynchronous one.

    Attributes:
        events: What happened.
    """

    def __init__(self, manager: SessionManager | AsyncSessionManager, events: list[Event]) -> None:
        self.manager = manager
        self.events = events
        self.cookies: list[str] = []

    def begin(self, **values: Any) -> None:
        """Have a session with these values stored."""
        session = self.manager.open([])
        session.update(values)
        self.cookies = [str(self.save(session).set_cookie).partition(";")[0]]
        self.events.clear()

    def open(self) -> Session:
        """Begin a request, and load its session."""
        session = self.manager.open(self.cookies)
        if isinstance(session, AsyncSession):
            asyncio.run(session.load())
        return session

    def save(self, session: Session) -> Saved:
        if isinstance(self.manager, SessionManager):
            return self.manager.save(session)
        return asyncio.run(self.manager.save(session))

    def change(self, act: Callable[[Session], object]) -> None:
        """Do another request from beginning to end."""
        session = self.open()
        act(session)
        self.save(session)

    def stored(self) -> dict[str, Any]:
        return dict(self.open())


@pytest.fixture(params=["memory", "sqlite", "async"])
def requests(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Requests]:
    codec = Codec()
    codec.register(deque, "deque", list, deque)
    events: list[Event] = []
    if request.param == "async":
        yield Requests(AsyncSessionManager("memory:", codec=codec, listeners=[events.append]), events)
        return
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
    with closing(SessionManager(url, codec=codec, listeners=[events.append])) as manager:
        yield Requests(manager, events)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_merged_is_in_the_object_that_the_application_holds(requests: Requests, case: Case) -> None:
    requests.begin(v=case.start)
    session = requests.open()
    value = session["v"]
    held = case.held(value)
    case.mine(value)
    requests.change(lambda other: case.theirs(other["v"]))
    requests.save(session)
    assert requests.stored() == {"v": case.merged}
    assert session["v"] is value
    assert value == case.merged
    case.later(held)
    requests.save(session)
    assert requests.stored() == {"v": case.final}
    assert not requests.events


def test_it_is_so_where_the_value_was_assigned(requests: Requests) -> None:
    requests.begin(v="text")
    requests.change(lambda other: other.pop("v"))
    session = requests.open()
    cart = session.setdefault("v", [])
    cart.append("m")
    requests.change(lambda other: other.update(v=["t"]))
    requests.save(session)
    cart.append("l")
    requests.save(session)
    assert requests.stored() == {"v": ["t", "m", "l"]}


@pytest.mark.parametrize("deep", [False, True])
def test_a_constant_of_the_application_is_left_alone(requests: Requests, deep: bool) -> None:  # noqa: FBT001
    constant = {"size": 10, "tags": ["a"]}
    requests.begin(v={}, other=1)
    requests.change(lambda other: other.pop("v"))

    def put(session: Session, value: dict[str, Any]) -> None:
        if deep:
            session.setdefault("v", {})["deep"] = value
        else:
            session.setdefault("v", value)

    session = requests.open()
    put(session, constant)
    requests.change(lambda other: put(other, {"colour": "red", "tags": ["a", "b"]}))
    requests.save(session)
    assert constant == {"size": 10, "tags": ["a"]}
    put(session, constant)
    session["other"] = 2
    requests.save(session)
    assert constant == {"size": 10, "tags": ["a"]}
    assert requests.stored()["other"] == 2


def test_a_constant_in_a_value_that_was_read_is_left_alone(requests: Requests) -> None:
    constant = {"tags": ["a"]}
    requests.begin(v={"options": {"tags": []}})
    session = requests.open()
    session["v"]["options"] = constant
    requests.change(lambda other: other["v"]["options"]["tags"].append("t"))
    requests.save(session)
    assert constant == {"tags": ["a"]}
    assert requests.stored() == {"v": {"options": {"tags": ["t", "a"]}}}


def test_a_later_change_of_an_assigned_object_that_does_not_merge_is_an_error(requests: Requests) -> None:
    requests.begin(v=1)
    requests.change(lambda other: other.pop("v"))
    session = requests.open()
    cart = session.setdefault("v", [])
    cart.append("m")
    requests.change(lambda other: other.update(v=["t"]))
    requests.save(session)
    session["v"][0] = "one"
    cart[0] = "two"
    with pytest.raises(StaleValue):
        requests.save(session)
    assert requests.stored() == {"v": ["t", "m"]}


def test_it_is_so_after_an_update_that_ran_again(requests: Requests) -> None:
    requests.begin(v=["a"])
    session = requests.open()
    cart = session.update_with("v", lambda value: [*value, "m"])
    requests.change(lambda other: other["v"].append("t"))
    requests.save(session)
    cart.append("l")
    requests.save(session)
    assert requests.stored() == {"v": ["a", "t", "m", "l"]}


def test_it_is_so_after_several_merges(requests: Requests) -> None:
    requests.begin(v={"list": ["a"]})
    session = requests.open()
    held = session["v"]["list"]
    for number in range(3):
        held.append(f"m{number}")
        requests.change(lambda other, number=number: other["v"]["list"].append(f"t{number}"))
        requests.save(session)
    assert requests.stored() == {"v": {"list": ["a", "t0", "m0", "t1", "m1", "t2", "m2"]}}


def test_an_object_under_two_keys_is_not_changed_under_the_one_that_nobody_changed(requests: Requests) -> None:
    requests.begin(one=["a"], n=0)
    session = requests.open()
    session["two"] = session["one"]
    session["one"].append("m")
    requests.change(lambda other: other["one"].append("t"))
    requests.save(session)
    assert requests.stored() == {"one": ["a", "t", "m"], "two": ["a", "m"], "n": 0}


def test_an_object_twice_in_a_value_is_merged_at_each_place_alone(requests: Requests) -> None:
    requests.begin(v={"one": ["a"], "two": ["a"]})
    session = requests.open()
    session["v"]["two"] = session["v"]["one"]
    session["v"]["n"] = 1
    requests.change(lambda other: (other["v"]["one"].append("t"), other["v"]["two"].append("u")))
    requests.save(session)
    assert requests.stored() == {"v": {"one": ["a", "t"], "two": ["a", "u"], "n": 1}}


STALE = {
    "removed by the other": ({"v": [1]}, lambda v: v.pop("v"), lambda held: held.append(2)),
    "replaced by another type": ({"v": [1]}, lambda v: v.update(v="text"), lambda held: held.append(2)),
    "of a registered type, changed by the other": (
        {"v": deque("a")},
        lambda v: v["v"].append("t"),
        lambda held: held.append("l"),
    ),
}


@pytest.mark.parametrize(("start", "theirs", "later"), STALE.values(), ids=STALE)
def test_a_change_of_an_object_that_a_merge_took_out_is_an_error(
    requests: Requests, start: dict[str, Any], theirs: Change, later: Change
) -> None:
    requests.begin(value=start)
    session = requests.open()
    held = session["value"]["v"]
    session["value"]["n"] = 1
    requests.change(lambda other: theirs(other["value"]))
    requests.save(session)
    stored = requests.stored()
    requests.save(session)  # unchanged, so nothing is wrong
    later(held)
    session["more"] = 1
    for _ in range(2):
        with pytest.raises(StaleValue, match="key 'value'") as caught:
            requests.save(session)
    assert (caught.value.app, caught.value.key) == ("", "value")
    assert requests.stored() == stored
    session["value"] = {"v": held}  # which says what is meant
    requests.save(session)
    assert requests.stored() == {"value": {"v": held}, "more": 1}
