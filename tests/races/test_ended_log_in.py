"""A log-in whose session another request ended: what it changed is stored whole, however it was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from races.conftest import Site

from coatcheck import Session, SessionManager
from coatcheck.testing import Interleaving

CHANGES: dict[str, tuple[Callable[[Session], object], dict[str, Any]]] = {
    "assigned": (lambda session: session.update(cart=[*session["cart"], "scarf"]), {"cart": ["hat", "scarf"]}),
    "in place": (lambda session: session["cart"].append("scarf"), {"cart": ["hat", "scarf"]}),
    "in place, deep": (lambda session: session["deep"]["x"].append(1), {"deep": {"x": [1]}}),
    "in place by setdefault": (
        lambda session: session.setdefault("cart", []).append("scarf"),
        {"cart": ["hat", "scarf"]},
    ),
    "by update_with": (
        lambda session: session.update_with("cart", lambda cart: [*cart, "scarf"]),
        {"cart": ["hat", "scarf"]},
    ),
    "read alone": (lambda session: session["cart"], {}),
    "changed and changed back": (lambda session: (session["cart"].append(1), session["cart"].pop()), {}),
    "deleted": (lambda session: session.pop("cart"), {}),
}
ENDS: dict[str, Callable[[Session], None]] = {"logout": Session.logout, "destroy": Session.destroy}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(("change", "kept"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("first", [True, False], ids=["changed before the log-in", "changed after it"])
def test_both_spellings_do_the_same(
    site: Site,
    end: Callable[[Session], None],
    change: Callable[[Session], object],
    kept: dict[str, Any],
    first: bool,  # noqa: FBT001
) -> None:
    driver = Interleaving(site.driver)
    manager = SessionManager(driver, site.policy, clock=lambda: site.now)
    visitor = manager.open([])
    visitor.update(cart=["hat"], deep={"x": []}, left="behind")
    cookie = str(manager.save(visitor).set_cookie).partition(";")[0]

    def leave() -> None:
        session = manager.open([cookie])
        end(session)
        manager.save(session)

    session = manager.open([cookie])
    if first:
        change(session)
    session.login("ada", keep=["cart", "deep"])
    if not first:
        change(session)
    session["flash"] = "welcome"
    driver.before("rotate", leave)
    saved = manager.save(session)
    assert driver.pending == 0
    new = manager.open([str(saved.set_cookie).partition(";")[0]])
    assert (new.user, dict(new)) == ("ada", {**kept, "flash": "welcome"})
    assert dict(manager.open([cookie])) == {}
