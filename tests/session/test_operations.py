"""What a request costs: the storage operations of each case, and their number whatever the number of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.adapter import Incoming

if TYPE_CHECKING:
    from tests.conftest import House

Act = Callable[[Any], object]


def _refused(session: Any) -> None:
    with pytest.raises(TypeError):
        session["a"] = object()


def _many(session: Any) -> Any:
    for number in range(200):
        session[f"key {number}"] = [number]
        session.store(f"app{number % 7}")[f"key {number}"] = number
        session.increment(f"count {number}")


WITHOUT: dict[str, tuple[Act, list[str]]] = {
    "untouched": (lambda _: None, []),
    "read": (lambda s: [s.get("a"), "a" in s, len(s), list(s), s.copy()], []),
    "facts": (lambda s: [s.sid, s.user, s.is_new, s.available, s.expires, s.created], []),
    "written and deleted": (lambda s: [s.update(a=1), s.pop("a")], []),
    "cleared": (lambda s: s.clear(), []),
    "logged out": (lambda s: s.logout(), []),
    "rotated": (lambda s: s.rotate(), []),
    "refused": (_refused, []),
    "written": (lambda s: s.update(a=1), ["create"]),
    "read and written": (lambda s: [s.get("a"), s.update(a=1)], ["create"]),
    "incremented": (lambda s: s.increment("a"), ["create"]),
    "many keys": (_many, ["create"]),
    "logged in": (lambda s: s.login("ann"), ["create"]),
    "logged in and filled": (lambda s: [s.login("ann"), _many(s), s.expire_at(9e9)], ["create"]),
}

WITH: dict[str, tuple[Act, list[str]]] = {
    "untouched": (lambda _: None, []),
    "handed on": (lambda s: [s.store("shop"), repr(s), repr(s.store("shop"))], []),
    "read": (lambda s: s["a"], ["load"]),
    "read much": (lambda s: [s["a"], s["b"], "a" in s, len(s), list(s), s.copy(), s.store("x").copy()], ["load"]),
    "probed": (lambda s: "nothing" in s, ["load"]),
    "facts": (lambda s: [s.sid, s.user, s.is_new, s.available, s.expires, s.created, s.seen], ["load"]),
    "read and changed": (lambda s: s.update(a=s["a"] + 1), ["load", "commit"]),
    "changed in place": (lambda s: s["b"].append(1), ["load", "commit"]),
    "changed and changed back": (lambda s: [s["b"].append(1), s["b"].pop()], ["load"]),
    "written as it was": (lambda s: s.update(a=s["a"]), ["load"]),
    "deleted": (lambda s: s.pop("a"), ["load", "commit"]),
    "deleted what is not there": (lambda s: s.pop("nothing", None), ["load"]),
    "read and cleared": (lambda s: [len(s), s.clear()], ["load", "commit"]),
    "blind write": (lambda s: s.update(a=5), ["commit"]),
    "blind increment": (lambda s: s.increment("a"), ["commit"]),
    "blind clear": (lambda s: s.clear(), ["commit"]),
    "blind write, read back": (lambda s: [s.update(a=5), s["a"]], ["commit"]),
    "many keys, blind": (_many, ["commit"]),
    "many keys, read": (lambda s: [s["a"], _many(s)], ["load", "commit"]),
    "deadline": (lambda s: s.expire_at(9e9), ["commit"]),
    "rotated": (lambda s: s.rotate(), ["rotate"]),
    "rotated and written": (lambda s: [s.rotate(), _many(s), s.expire_at(9e9)], ["rotate"]),
    "logged in": (lambda s: s.login("ann"), ["rotate"]),
    "logged in, something kept": (lambda s: s.login("ann", ["a"]), ["load", "rotate"]),
    "read and logged out": (lambda s: [s["a"], s.logout()], ["load", "revoke"]),
    "logged out": (lambda s: s.logout(), ["load", "revoke"]),
    "logged out and filled": (lambda s: [s["a"], s.logout(), _many(s)], ["load", "revoke", "create"]),
    "refused": (_refused, []),
}


@pytest.mark.parametrize(("act", "asked"), WITHOUT.values(), ids=WITHOUT)
def test_without_a_cookie_it_costs_this(house: House, act: Act, asked: list[str]) -> None:
    client = house.client()
    with client.request() as session:
        act(session)
    assert house.driver.asked == asked
    assert (client.cookie is not None) == bool(asked)


@pytest.mark.parametrize(("act", "asked"), WITH.values(), ids=WITH)
def test_with_a_cookie_it_costs_this(house: House, act: Act, asked: list[str]) -> None:
    client = house.visitor(a=1, b=[])
    with client.request() as session:
        act(session)
    assert house.driver.asked == asked


def test_a_save_without_a_change_since_the_last_one_costs_nothing(house: House) -> None:
    client = house.visitor(a=1, b=[])
    session = client.open()
    session["b"].append(1)
    session.increment("a")
    for _ in range(3):
        client.answer(session)
    assert house.driver.asked == ["load", "commit"]
    session["b"].append(2)
    client.answer(session)
    assert house.driver.asked == ["load", "commit", "commit"]
    assert client.read() == {"a": 2, "b": [1, 2]}


def test_what_a_commit_carries_follows_the_change_and_not_the_session(house: House) -> None:
    client = house.visitor(**{f"key {number}": "x" * 1000 for number in range(100)})
    with client.request() as session:
        assert len(session) == 100
        session["key 5"] = "short"
        session["new"] = 1
        del session["key 6"]
    (_, (_, delta, _)) = house.driver.calls[-1]
    assert {key for _, key in delta.puts} == {"key 5", "new"}
    assert {key for _, key in delta.drops} == {"key 6"}
    assert sum(len(put.data) for put in delta.puts.values() if isinstance(put.data, bytes)) < 20


def test_an_open_session_asks_not_even_for_its_cookie_before_it_is_used(house: House) -> None:
    class Untold(Incoming):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name == "__class__":
                return Incoming
            raise AssertionError(f"asked for {name}")

    session = house.manager.open(Untold(["__Host-sid=" + "A" * 32]))
    repr(session)
    assert house.manager.save(session) == house.manager.save(house.manager.open([]))
    with pytest.raises(AssertionError):
        session.get("a")
