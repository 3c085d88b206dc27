"""A change that is merged more than once: what each request added is there exactly once, whatever came in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from races.conftest import Site

from coatcheck import Session, SessionManager
from coatcheck.drivers import open_driver
from coatcheck.testing import Interleaving

Edit = Callable[[Any], object]
Remove = Callable[[Session], object]

REMOVALS: dict[str, Remove] = {
    "del": lambda session: session.__delitem__("v"),
    "pop": lambda session: session.pop("v"),
    "clear": lambda session: session.clear(),
    "emptied": lambda session: session["v"].clear(),
    "replaced": lambda session: session.update(v=type(session["v"])()),
    "another type": lambda session: session.update(v="text"),
}

# What is stored first, how a request adds something of its own, and all that was added, as a list.
KINDS: dict[str, tuple[Any, Callable[[Any, str], object], Callable[[Any], Iterable[str]]]] = {
    "list": (["hat", "scarf"], lambda v, name: v.append(name), lambda v: v),
    "list, several": (["hat", "scarf"], lambda v, name: v.extend([name, name + "2"]), lambda v: v),
    "set": ({"hat", "scarf"}, lambda v, name: v.add(name), lambda v: v),
    "dict": ({"hat": 1}, lambda v, name: v.update({name: 1}), lambda v: v),
    "Counter": (Counter(hat=1), lambda v, name: v.update([name]), lambda v: v.elements()),
    "list in a dict": ({"cart": ["hat"]}, lambda v, name: v["cart"].append(name), lambda v: v["cart"]),
    "list in dicts": (
        {"a": {"b": {"cart": ["hat"]}}},
        lambda v, name: v["a"]["b"]["cart"].append(name),
        lambda v: v["a"]["b"]["cart"],
    ),
}


class Race:
    """A request that is about to be saved, with others that get in before its first, second, third ... commit."""

    def __init__(self, site: Site, value: Any) -> None:
        self.driver = Interleaving(site.driver)
        self.manager = SessionManager(self.driver, site.policy, clock=lambda: site.now)
        first = self.manager.open([])
        first["v"] = value
        self.cookie = str(self.manager.save(first).set_cookie).partition(";")[0]

    def request(self, edit: Callable[[Session], object]) -> Session:
        session = self.manager.open([self.cookie])
        session.get("v")
        edit(session)
        return session

    def save(self, session: Session, *meanwhile: Session | Callable[[Session], object]) -> None:
        for call, other in enumerate(meanwhile, 1):

            def run(other: Any = other) -> None:
                self.manager.save(other if isinstance(other, Session) else self.request(other))

            self.driver.before("commit", run, call=call)
        self.manager.save(session)
        assert self.driver.pending == 0

    def value(self) -> Any:
        return self.manager.open([self.cookie]).get("v")


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", [1, 2])
def test_what_each_request_added_is_there_once(site: Site, kind: str, remove: Remove, others: int) -> None:
    start, add, held = KINDS[kind]
    race = Race(site, start)
    names = ["one", "two", "three"][: others + 1]
    requests = [race.request(lambda session, name=name: add(session["v"], name)) for name in names]
    race.save(requests[0], remove, *requests[1:])
    found = list(held(race.value()))
    assert len(found) == len(set(found)), "doubled"
    assert set(names) <= set(found)


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
def test_equal_counts_are_each_counted_once(site: Site, remove: Remove) -> None:
    race = Race(site, Counter(hat=5))
    one, two, three = (race.request(lambda session: session["v"].update(hat=1)) for _ in range(3))
    race.save(one, remove, two, three)
    assert race.value() in (Counter(hat=8), Counter(hat=3))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_there_once_after_two_removals_too(site: Site, kind: str) -> None:
    start, add, held = KINDS[kind]
    race = Race(site, start)
    one, two = (race.request(lambda session, name=name: add(session["v"], name)) for name in ("one", "two"))
    race.save(one, REMOVALS["del"], two, REMOVALS["del"], lambda session: session.update(other=1))
    found = list(held(race.value()))
    assert len(found) == len(set(found))
    assert "one" in found


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_does_not_merge_does_not_double_the_rest(site: Site, kind: str) -> None:
    """A dict of which one key clashes and the other merges, merged twice."""
    start, add, held = KINDS[kind]
    race = Race(site, {"text": "old", "part": start})

    def edit(name: str) -> Callable[[Session], object]:
        return lambda session: (session["v"].update(text=name), add(session["v"]["part"], name))

    one, two, three = (race.request(edit(name)) for name in ("one", "two", "three"))
    race.save(one, two, three)
    found = list(held(race.value()["part"]))
    assert len(found) == len(set(found))
    assert {"one", "two", "three"} <= set(found)
    assert race.value()["text"] == "one"


def test_what_is_changed_after_a_save_that_failed_is_merged_too(site: Site) -> None:
    """The merge was done, the commit after it was not; the request goes on and saves again."""
    race = Race(site, ["hat"])
    session = race.request(lambda session: session["v"].append("one"))

    def removed() -> None:
        race.manager.save(race.request(REMOVALS["del"]))

    def fail() -> None:
        raise KeyError("on purpose")

    race.driver.before("commit", removed, call=1)
    race.driver.before("commit", fail, call=2)
    with pytest.raises(KeyError, match="on purpose"):
        race.manager.save(session)
    session["v"].append("more")
    race.save(session, lambda other: other.setdefault("v", []).append("two"))
    assert race.value() == ["two", "one", "more"]


FIRST: dict[str, tuple[Callable[[Session], object], Any]] = {
    "setdefault and append": (lambda session: session.setdefault("v", []).append("hat"), ["hat", "hat"]),
    "assigned, then appended": (lambda session: (session.update(v=[]), session["v"].append("hat")), ["hat", "hat"]),
    "assigned whole": (lambda session: session.update(v=["hat"]), ["hat"]),
    "a default that nobody changes": (lambda session: session.setdefault("v", ["a", "b"]), ["a", "b"]),
    "a default and an append": (lambda session: session.setdefault("v", ["a"]).append("hat"), ["a", "hat", "hat"]),
    "set": (lambda session: session.setdefault("v", set()).add("hat"), {"hat"}),
    "Counter": (lambda session: session.setdefault("v", Counter()).update(hat=1), Counter(hat=2)),
    "Counter, assigned whole": (lambda session: session.update(v=Counter(hat=1)), Counter(hat=2)),
    "list in a dict": (lambda session: session.setdefault("v", {"c": []})["c"].append("hat"), {"c": ["hat", "hat"]}),
    "list in a dict, later": (
        lambda session: session.setdefault("v", {}).setdefault("c", []).append("hat"),
        {"c": ["hat"]},  # nobody knows that it began empty: two equal defaults would look the same
    ),
}


@pytest.mark.parametrize(("edit", "merged"), FIRST.values(), ids=FIRST)
def test_two_equal_first_changes(site: Site, edit: Callable[[Session], object], merged: Any) -> None:
    race = Race(site, 0)
    race.manager.save(race.request(lambda session: session.clear()))
    one, two = race.request(edit), race.request(edit)
    race.save(one, two)
    assert race.value() == merged


def _add(session: Session, name: str) -> None:
    session.setdefault("v", []).append(name)
    session.setdefault("count", Counter())["hat"] += 1
    session.setdefault("deep", {}).setdefault("list", []).append(name)
    session["deep"].setdefault("count", Counter())["hat"] += 1


OTHERS: list[Callable[[Session], object]] = [
    lambda session: [session.pop(key, None) for key in ("v", "count", "deep")],
    lambda session: session.clear(),
    lambda session: [session["v"].clear(), session["count"].clear(), session["deep"]["list"].clear()],
    lambda session: session.update(v=["new"], count=Counter(scarf=1), deep={}),
    lambda session: session["deep"].update(other=1),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.none(), st.none(), st.sampled_from(OTHERS)), min_size=2, max_size=5))
def test_in_any_order_nothing_is_there_twice(others: list[Callable[[Session], object] | None]) -> None:
    """One request, and before each of its commits another: some add, some remove, and all have read the same."""
    race = Race(Site(open_driver("memory:")), ["hat"])
    race.manager.save(race.request(lambda s: s.update(count=Counter(hat=2), deep={"list": [], "count": Counter()})))
    requests = [
        race.request(other or (lambda session, name=f"{number}": _add(session, name)))
        for number, other in enumerate(others)
    ]
    for call, session in enumerate(requests[1:], 1):
        race.driver.before("commit", lambda session=session: race.manager.save(session), call=call)
    race.manager.save(requests[0])
    found = dict(race.manager.open([race.cookie]))
    for names in (found.get("v", []), found.get("deep", {}).get("list", [])):
        assert len(names) == len(set(names))
    adds = others.count(None)
    assert found.get("count", Counter())["hat"] <= 2 + adds
    assert found.get("deep", {}).get("count", Counter())["hat"] <= adds
    if race.driver.pending == 0 and others[0] is None and adds == len(others):
        assert found["count"]["hat"] == 2 + adds == len(found["v"]) + 1
