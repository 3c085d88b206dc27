"""What a log-in keeps: whole stores, as other requests leave them; and what cannot be kept is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import CoatcheckError, Session, SessionManager
from coatcheck.record import ValueKey
from coatcheck.testing import Interleaving

CART, DRAFT, BASKET = {("", "cart"): ["hat"]}, {("", "draft"): "text"}, {("shop", "basket"): 1}


class Shop:
    """A manager, and the one visitor who has been there."""

    def __init__(self, url: str) -> None:
        self.driver = Interleaving(SessionManager(url).driver)
        self.driver.setup()
        self.manager = SessionManager(self.driver)
        self.cookie = ""
        self.save(self.open(), lambda s: [s.update(cart=["hat"], draft="text"), s.store("shop").update(basket=1)])

    def open(self) -> Session:
        return self.manager.open([self.cookie])

    def save(self, session: Session, act: Callable[[Any], object] = lambda _: None, *, cookie: bool = True) -> None:
        act(session)
        saved = self.manager.save(session)
        if saved.set_cookie is not None and cookie:
            self.cookie = saved.set_cookie.partition(";")[0]

    def all(self) -> dict[ValueKey, Any]:
        session = self.open()
        return {(store.app, key): value for store in (session, session.store("shop")) for key, value in store.items()}


@pytest.fixture(params=["memory", "sqlite"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/s.db")
    yield shop
    shop.manager.close()


KEPT: dict[str, tuple[Callable[[Any], object], dict[ValueKey, Any]]] = {
    "a whole store": (lambda s: s.login("ann", [s.store("shop")]), BASKET),
    "the default store": (lambda s: s.login("ann", [s]), CART | DRAFT),
    "both": (lambda s: s.login("ann", [s, s.store("shop")]), CART | DRAFT | BASKET),
    "a whole store and a key": (lambda s: s.login("ann", ["cart", s.store("shop")]), CART | BASKET),
    "a store with nothing in it": (lambda s: s.login("ann", [s.store("forum")]), {}),
    "a generator": (lambda s: s.login("ann", (store for store in [s.store("shop")])), BASKET),
    "twice, a store and less": (
        lambda s: [s.login("ann", [s, s.store("shop")]), s.login("ann", ["draft"])], DRAFT,
    ),
    "twice, less and a store": (lambda s: [s.login("ann", ["draft"]), s.login("ann", [s])], DRAFT),
    "twice, a store and another": (lambda s: [s.login("ann", [s]), s.login("ann", [s.store("shop")])], {}),
    "a store, then cleared": (lambda s: [s.login("ann", [s, s.store("shop")]), s.clear()], BASKET),
    "a store, then written": (
        lambda s: [s.login("ann", [s.store("shop")]), s.store("shop").update(new=1)], BASKET | {("shop", "new"): 1},
    ),
    "a store, then read and deleted": (lambda s: [s.login("ann", [s]), s.pop("cart")], DRAFT),
    "a store, then changed in place": (
        lambda s: [s.login("ann", [s]), s["cart"].append("scarf")], {("", "cart"): ["hat", "scarf"]} | DRAFT,
    ),
    "written, then a store": (lambda s: [s.update(a=1), s.login("ann", [s])], CART | DRAFT | {("", "a"): 1}),
    "by another user": (lambda s: [s.login("bob", [s]), s.login("ann", [s])], {}),
}  # fmt: skip


@pytest.mark.parametrize(("act", "kept"), KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_a_log_in_keeps_a_whole_store(
    shop: Shop,
    act: Callable[[Any], object],
    kept: dict[ValueKey, Any],
    read_first: bool,  # noqa: FBT001
) -> None:
    session = shop.open()
    assert not read_first or dict(session)
    act(session)
    seen = {(store.app, key): value for store in (session, session.store("shop")) for key, value in store.items()}
    assert seen == kept
    shop.save(session)
    assert shop.all() == kept


@pytest.mark.parametrize("read_first", [True, False])
def test_a_store_is_kept_as_other_requests_leave_it(shop: Shop, *, read_first: bool) -> None:
    """A key that another request adds to it meanwhile is kept too, and one that is deleted does not come back."""
    session = shop.open()
    assert not read_first or session.store("shop")["basket"] == 1
    session.login("ann", keep=[session.store("shop")])
    shop.save(
        shop.open(),
        lambda s: [s.store("shop").update(new=[1]), s.store("shop").pop("basket"), s.update(own="visitor's")],
    )
    shop.save(session)
    assert shop.all() == {("shop", "new"): [1]}


def test_the_second_click_on_log_in_keeps_the_store(shop: Shop) -> None:
    one, two = shop.open(), shop.open()
    for session in (one, two):
        assert session.user is None
        session.login("ann", keep=[session.store("shop")])
        session.store("shop").increment("basket")
    shop.save(one, cookie=False)
    shop.save(two)
    assert shop.all() == {("shop", "basket"): 2}


def test_a_count_in_a_session_that_was_ended_begins_anew(shop: Shop) -> None:
    session = shop.open()
    assert session.store("shop")["basket"] == 1
    session.login("ann", keep=[session.store("shop")])
    session.store("shop").increment("basket", 5)
    shop.driver.before("rotate", lambda: shop.save(shop.open(), lambda s: s.logout(), cookie=False))
    shop.save(session)
    assert shop.all() == {("shop", "basket"): 5}


WRONG: list[Any] = [
    [1], [None], [("cart",)], [("a", "b", "c")], [("shop", 1)], [b"cart"], b"cart", 5, None,
    [("not a name", "cart")], [("shop", "")], [""], [{"cart": 1}],
]  # fmt: skip


@pytest.mark.parametrize("keep", WRONG, ids=repr)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(shop: Shop, keep: Iterable[Any]) -> None:
    before = shop.all()
    session = shop.open()
    with pytest.raises(CoatcheckError, match=r"login\(keep=\[\.\.\.\]\) takes keys|a key must be 1 to 255"):
        session.login("ada", keep=keep)
    assert session.user is None
    shop.save(session)
    assert shop.all() == before


def test_a_store_is_kept_in_a_list(shop: Shop) -> None:
    session = shop.open()
    for keep in (session.store("shop"), session):
        with pytest.raises(CoatcheckError, match=r"pass keep=\[store\]"):
            session.login("ada", keep=keep)
