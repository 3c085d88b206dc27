"""One request takes a value out while another adds to it, as with messages to show once: what was added stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from races.conftest import Site

from coatcheck import EventKind, Policy, Session

Act = Callable[[Session], object]

# What is stored first, what one request adds, what is left of it where another deleted the value.
ADDED: dict[str, tuple[Any, Callable[[Any], object], Any]] = {
    "list": (["x"], lambda v: v.append("y"), ["y"]),
    "dict": ({"x": 1}, lambda v: v.update(y=2), {"y": 2}),
    "set": ({"x"}, lambda v: v.add("y"), {"y"}),
    "Counter": (Counter(x=1, z=1), lambda v: v.update("xy"), Counter(x=1, y=1)),
}

REMOVALS: dict[str, Act] = {
    "pop": lambda session: session.pop("v"),
    "del": lambda session: session.__delitem__("v"),
    "popitem": lambda session: session.popitem(),
}

DEEP_REMOVALS: dict[str, Act] = {
    "pop": lambda session: session["v"].pop("part"),
    "pop, and begun again": lambda session: (session["v"].pop("part"), session["v"].setdefault("other", 1)),
}


def at_once(site: Site, start: Any, first: Act, second: Act) -> dict[str, Any]:
    """Have two requests read the session and change it, one saved after the other; return what is stored."""
    browser = site.browser()
    browser.get(lambda session: session.update(v=start))

    def handler(session: Session) -> None:
        assert session["v"] == start
        browser.get(first)
        second(session)

    browser.get(handler)
    return browser.read()


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize(("start", "add", "left"), ADDED.values(), ids=ADDED)
@pytest.mark.parametrize("removed_first", [True, False])
def test_what_was_added_survives_a_removal(
    site: Site,
    start: Any,
    add: Callable[[Any], object],
    left: Any,
    remove: Act,
    removed_first: bool,  # noqa: FBT001
) -> None:
    site = Site(site.driver, Policy(on_conflict="error"))
    acts: list[Act] = [remove, lambda session: add(session["v"])]
    assert at_once(site, start, *(acts if removed_first else acts[::-1])) == {"v": left}


@pytest.mark.parametrize("remove", DEEP_REMOVALS.values(), ids=DEEP_REMOVALS)
@pytest.mark.parametrize(("start", "add", "left"), ADDED.values(), ids=ADDED)
@pytest.mark.parametrize("removed_first", [True, False])
def test_at_depth_too(
    site: Site,
    start: Any,
    add: Callable[[Any], object],
    left: Any,
    remove: Act,
    removed_first: bool,  # noqa: FBT001
) -> None:
    acts: list[Act] = [remove, lambda session: add(session["v"]["part"])]
    found = at_once(site, {"part": start}, *(acts if removed_first else acts[::-1]))
    assert found["v"].pop("other", 1) == 1
    assert found == {"v": {"part": left}}
    assert not [event for event in site.events if event.kind is EventKind.CONFLICT]


@pytest.mark.parametrize("removed_first", [True, False])
def test_what_does_not_merge_is_still_told(site: Site, removed_first: bool) -> None:  # noqa: FBT001
    acts: list[Act] = [lambda session: session.pop("v"), lambda session: session.update(v=["z"])]
    found = at_once(site, ["x"], *(acts if removed_first else acts[::-1]))
    assert found == ({"v": ["z"]} if removed_first else {})
    assert [event.kind for event in site.events if event.kind is EventKind.CONFLICT] == [EventKind.CONFLICT]


def test_a_clear_clears_what_was_saved_before_it(site: Site) -> None:
    assert at_once(site, ["x"], lambda session: session["v"].append("y"), lambda session: session.clear()) == {}


def test_of_what_is_added_to_a_cleared_value_the_addition_is_left(site: Site) -> None:
    found = at_once(site, ["x"], lambda session: session.clear(), lambda session: session["v"].append("y"))
    assert found == {"v": ["y"]}


@pytest.mark.parametrize("end", [Session.logout, lambda session: session.login("ada")], ids=["logout", "login"])
@pytest.mark.parametrize("end_first", [True, False])
def test_a_log_out_and_a_log_in_leave_nothing_of_it(site: Site, end: Act, end_first: bool) -> None:  # noqa: FBT001
    acts: list[Act] = [end, lambda session: session["v"].append("y")]
    browser = site.browser()
    browser.get(lambda session: session.update(v=["x"]))
    old = browser.secret
    first, second = acts if end_first else acts[::-1]

    def handler(session: Session) -> None:
        assert session["v"] == ["x"]
        browser.get(first)
        second(session)

    answer = site.request(handler, old)
    assert answer.status == "200 OK"
    assert browser.read() == {}
    assert old is not None
    assert not site.is_alive(old)
