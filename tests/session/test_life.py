"""The life of a session: log-in, log-out, rotation, destruction, and what a request learns about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import CoatcheckError, EventKind, Policy, SessionInfo
from coatcheck.record import ValueKey
from coatcheck.session import state_of

if TYPE_CHECKING:
    from tests.conftest import Client, House

Keep = Iterable[str | ValueKey]


def _filled(house: House, user: str | None = None) -> Client:
    """A client with three values in two stores, logged in or not."""
    client = house.client()
    with client.request() as session:
        if user is not None:
            session.login(user)
        session["cart"] = ["hat"]
        session["draft"] = "text"
        session.store("shop")["basket"] = 1
    house.forget()
    return client


def _all(client: Client) -> dict[ValueKey, Any]:
    with client.request() as session:
        return {(store.app, key): value for store in (session, session.store("shop")) for key, value in store.items()}


CART, DRAFT, BASKET = {("", "cart"): ["hat"]}, {("", "draft"): "text"}, {("shop", "basket"): 1}

KEEPS: dict[str, tuple[Keep, dict[ValueKey, Any]]] = {
    "nothing": ((), {}),
    "a key": (["cart"], CART),
    "a pair": ([("", "cart")], CART),
    "of a store": ([("shop", "basket")], BASKET),
    "both": (["cart", ("shop", "basket")], CART | BASKET),
    "of the wrong store": (["basket", ("shop", "cart")], {}),
    "what is not there": (["nothing"], {}),
    "a generator": ((key for key in ["draft"]), DRAFT),
}


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_a_log_in_keeps_what_it_is_told_to_and_drops_the_rest(house: House, name: str, read_first: bool) -> None:  # noqa: FBT001
    keep, kept = KEEPS[name]
    keep = list(keep) or ["draft"] * (name == "a generator")
    client = _filled(house)
    with client.request() as session:
        assert not read_first or dict(session)
        session.login("ann", keep=keep)
        session["after"] = 1
    assert _all(client) == {**kept, ("", "after"): 1}


WHO: dict[str, tuple[str | None, bool]] = {"nobody": (None, True), "the same": ("ann", True), "another": ("bob", False)}


@pytest.mark.parametrize(("before", "keeps"), WHO.values(), ids=WHO)
@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_keep_counts_for_a_visitor_and_for_the_same_user_and_never_for_another(
    house: House,
    before: str | None,
    keeps: bool,  # noqa: FBT001
    read_first: bool,  # noqa: FBT001
) -> None:
    client = _filled(house, before)
    with client.request() as session:
        assert not read_first or dict(session)
        session.login("ann", keep=["cart"])
        assert session.user == "ann"
        assert ("cart" in session) == keeps
        assert "draft" not in session
    assert _all(client) == (CART if keeps else {})


def test_one_user_after_another_within_one_request_keeps_nothing(house: House) -> None:
    client = _filled(house)
    with client.request() as session:
        session.login("ann", keep=["cart"])
        session.login("bob", keep=["cart"])
    assert _all(client) == {}
    with client.request() as session:
        assert session.user == "bob"


CLEARS: dict[str, tuple[Callable[[Any], object], dict[ValueKey, Any]]] = {
    "log-in, then written": (lambda s: [s.login("ann"), s.update(a=1)], {("", "a"): 1}),
    "written, then log-in": (lambda s: [s.update(a=1), s.login("ann")], {}),
    "written, then log-in with keep": (lambda s: [s.update(a=1), s.login("ann", ["a"])], {("", "a"): 1}),
    "incremented, then log-in with keep": (lambda s: [s.increment("n"), s.login("ann", ["n"])], {("", "n"): 1}),
    "changed in place, then kept": (
        lambda s: [s["cart"].append("x"), s.login("ann", ["cart"])], {("", "cart"): ["hat", "x"]},
    ),
    "kept, then changed in place": (
        lambda s: [s.login("ann", ["cart"]), s["cart"].append("x")], {("", "cart"): ["hat", "x"]},
    ),
    "kept, then deleted": (lambda s: [s.login("ann", ["cart", "draft"]), s.pop("cart")], DRAFT),
    "deleted, then kept": (lambda s: [s.pop("cart"), s.login("ann", ["cart", "draft"])], DRAFT),
    "kept, then written over": (lambda s: [s.login("ann", ["cart"]), s.update(cart=1)], {("", "cart"): 1}),
    "kept, then cleared": (lambda s: [s.login("ann", ["cart", ("shop", "basket")]), s.clear()], BASKET),
    "cleared, then kept": (lambda s: [s.clear(), s.login("ann", ["cart", ("shop", "basket")])], BASKET),
    "cleared, written, kept": (lambda s: [s.clear(), s.update(cart=2), s.login("ann", ["cart"])], {("", "cart"): 2}),
    "a store cleared, then written": (
        lambda s: [s.store("shop").clear(), s.store("shop").update(b=2)], CART | DRAFT | {("shop", "b"): 2},
    ),
    "a store cleared": (lambda s: s.store("shop").clear(), CART | DRAFT),
    "the default store cleared": (lambda s: s.clear(), BASKET),
    "both cleared": (lambda s: [s.clear(), s.store("shop").clear()], {}),
    "twice, keep and none": (lambda s: [s.login("ann", ["cart"]), s.login("ann")], {}),
    "twice, none and keep": (lambda s: [s.login("ann"), s.login("ann", ["cart"])], {}),
    "twice, keep less": (lambda s: [s.login("ann", ["cart", "draft"]), s.login("ann", ["draft"])], DRAFT),
    "log-out": (lambda s: s.logout(), {}),
    "log-out, then log-in": (lambda s: [s.logout(), s.login("ann", ["cart"])], {}),
    "log-in, then log-out": (lambda s: [s.login("ann", ["cart"]), s.logout()], {}),
    "log-out, then written": (lambda s: [s.logout(), s.update(a=1)], {("", "a"): 1}),
}  # fmt: skip


@pytest.mark.parametrize(("act", "after"), CLEARS.values(), ids=CLEARS)
@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_clears_of_every_kind_leave_exactly_this(
    house: House,
    act: Callable[[Any], object],
    after: dict[ValueKey, Any],
    read_first: bool,  # noqa: FBT001
) -> None:
    client = _filled(house)
    with client.request() as session:
        assert not read_first or list(session) + list(session.store("shop"))
        act(session)
        seen = {(store.app, key): value for store in (session, session.store("shop")) for key, value in store.items()}
    assert seen == after
    assert _all(client) == after


def test_a_log_in_gives_a_new_token_at_once_and_stamps_the_moment(house: House) -> None:
    client = _filled(house)
    old = client.twin()
    house.clock.advance(60)
    with client.request() as session:
        sid = session.sid
        session.login("ann")
        assert (session.user, session.auth_time) == ("ann", house.clock.now)
    assert client.cookie != old.cookie
    assert client.replies[-1] is not None
    house.clock.advance(60)
    assert house.kinds() == {EventKind.RENEWED: 1, EventKind.PRIVILEGE_CHANGED: 1}
    with client.request() as session:
        assert session.sid == sid
        assert (session.user, session.auth_time) == ("ann", house.clock.now - 60)
    with old.request() as session:
        assert session.user is None
        assert dict(session) == {}
    assert house.driver.stored == 1


def test_a_log_in_of_a_new_client_makes_the_session(house: House) -> None:
    client = house.client()
    with client.request() as session:
        session.login("ann")
    assert house.driver.asked == ["create"]
    with client.request() as session:
        assert session.user == "ann"
    (info,) = house.manager.sessions_of("ann")
    assert isinstance(info, SessionInfo)


def test_a_log_in_is_dated_when_its_request_came(house: House) -> None:
    # A revocation during the request must not be outrun by a log-in that began before it.
    client = house.client()
    session = client.open()
    began = house.clock.now
    house.clock.advance(5)
    session.login("ann")
    house.clock.advance(5)
    client.answer(session)
    with client.request() as again:
        assert again.auth_time == began


def test_a_log_in_that_a_revocation_overtook_does_not_slip_through(house: House) -> None:
    client = house.client()
    session = client.open()
    session.login("ann")
    house.clock.advance(1)
    house.manager.revoke_user("ann")
    assert client.answer(session).set_cookie is None
    assert house.driver.stored == 0
    house.clock.advance(1)
    with client.request() as session:
        session.login("ann")
    assert len(house.manager.sessions_of("ann")) == 1


@pytest.mark.parametrize("order", ["revoke, log in", "revoke and keep, log in", "log in, revoke and keep"])
@pytest.mark.parametrize("known", [False, True])
def test_a_request_that_ends_all_sessions_and_logs_in_is_logged_in(house: House, order: str, known: bool) -> None:  # noqa: FBT001
    """As after a new password: the other devices are out, and this one is in."""
    thief, client = _filled(house, "ada"), _filled(house, "ada") if known else house.client()
    house.clock.advance(1)
    session = client.open()
    house.clock.advance(1)
    if order == "log in, revoke and keep":
        session.login("ada")
    house.manager.revoke_user("ada", keep=session.sid if "keep" in order else None)
    if order != "log in, revoke and keep":
        session.login("ada")
    client.answer(session)
    assert client.open().user == "ada"
    assert thief.open().user is None


def test_another_request_that_ends_all_sessions_refuses_a_log_in_under_way(house: House) -> None:
    """Also where the same thread serves both."""
    late = house.client()
    session = late.open()
    assert session.user is None
    session.login("ada")
    house.clock.advance(1)
    house.manager.revoke_user("ada")
    late.answer(session)
    assert late.open().user is None
    house.clock.advance(1)
    with late.request() as session:
        session.login("ada")
    assert late.open().user == "ada"


def test_keep_is_no_single_string(house: House) -> None:
    session = _filled(house).open()
    with pytest.raises(CoatcheckError, match=r"pass keep=\['cart'\]"):
        session.login("ada", keep="cart")
    assert session["cart"] == ["hat"]


@pytest.mark.parametrize("read_first", [False, True])
def test_a_log_out_ends_every_session_whose_cookie_came_along(build: Callable[..., House], read_first: bool) -> None:  # noqa: FBT001
    """A neighbour's cookie that was planted beside one's own does not keep the log-out from happening."""
    house = build(Policy(domain="example.org"))
    victim, planted = _filled(house, "victim"), _filled(house)
    browser = house.client()
    browser.cookie = f"{planted.cookie}; {victim.cookie}"
    with browser.request() as session:
        if read_first:
            assert session.user is None
        session.logout()
    assert "Max-Age=0" in (browser.replies[-1] or "")
    assert victim.open().user is None
    assert _all(planted) == {}


@pytest.mark.parametrize("user", ["", "x" * 256, None, 5, b"ann", "a\0b", "\ud800"])
def test_a_user_is_a_str_of_1_to_255_characters(house: House, user: Any) -> None:
    client = _filled(house)
    with client.request() as session, pytest.raises(CoatcheckError, match=r"such as str\(user.id\)"):
        session.login(user)
    assert len(_all(client)) == 3


@pytest.mark.parametrize("act", ["login", "rotate"])
def test_after_the_headers_a_new_token_is_an_error_and_changes_nothing(house: House, act: str) -> None:
    client = _filled(house)
    session = client.open()
    state = state_of(session)
    assert session["draft"] == "text"
    state = state_of(session)
    assert state is not None
    state.closed_headers = True
    with pytest.raises(CoatcheckError, match=rf"{act}\(\) needs a cookie, and the response has started"):
        getattr(session, act)(*(["ann"] if act == "login" else []))
    assert house.manager.save(session).set_cookie is None
    assert len(_all(client)) == 3


# -- log-out, rotation, deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("end", ["logout", "destroy"])
def test_a_log_out_ends_the_session_and_deletes_the_cookie(house: House, end: str, read_first: bool) -> None:  # noqa: FBT001
    client = _filled(house, "ann")
    replay = client.twin()
    with client.request() as session:
        assert not read_first or session.user == "ann"
        getattr(session, end)()
        assert (dict(session), session.user, session.sid, session.is_new) == ({}, None, None, True)
    assert client.cookie is None
    assert "Max-Age=0" in (client.replies[-1] or "")
    assert house.driver.stored == 0
    assert house.kinds() == {EventKind.DESTROYED: 1}
    assert _all(replay) == {}
    with replay.request() as session:
        session["late"] = 1
    assert house.driver.stored == 0
    assert replay.replies == [None, None]


@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_what_is_written_after_a_log_out_goes_to_a_new_session(house: House, read_first: bool) -> None:  # noqa: FBT001
    client = _filled(house, "ann")
    old = client.twin()
    with old.request() as session:
        before = session.sid
    with client.request() as session:
        assert not read_first or session.user == "ann"
        session.logout()
        session["notice"] = "bye"
        session.increment("n")
    assert client.cookie not in (None, old.cookie)
    with client.request() as session:
        assert session.sid not in (None, before)
        assert session.user is None
        assert dict(session) == {"notice": "bye", "n": 1}
    assert _all(old) == {}
    assert house.driver.stored == 1


def test_a_log_out_without_a_session_does_nothing(house: House) -> None:
    client = house.client()
    with client.request() as session:
        session.logout()
        session.logout()
    assert house.driver.asked == []
    assert client.replies == [None]


@pytest.mark.parametrize("state", ["unknown", "expired"])
def test_a_log_out_under_a_dead_cookie_stores_nothing_and_what_follows_it_is_saved(house: House, state: str) -> None:
    client = house.client() if state == "unknown" else _filled(house)
    client.cookie = client.cookie or "__Host-sid=" + "A" * 32
    house.clock.advance(8 * 86400)
    late = client.twin()
    with client.request() as session:
        session.logout()
    assert client.replies[-1] is None
    assert house.driver.asked == ["load"]  # no tombstone under what the client sent
    assert house.kinds() == {EventKind.UNKNOWN_ID if state == "unknown" else EventKind.EXPIRED: 1}
    with late.request() as session:
        session.logout()
        session["notice"] = "bye"
    assert late.cookie != client.cookie
    assert late.read() == {"notice": "bye"}


def test_of_two_log_outs_at_once_one_deletes_the_cookie_and_both_succeed(house: House) -> None:
    client = _filled(house)
    one, two = client.twin(), client.twin()
    first, second = one.open(), two.open()
    first.logout()
    second.logout()
    one.answer(first)
    two.answer(second)
    assert one.cookie is None
    assert two.replies == [None]


def test_a_log_out_then_a_log_in_is_a_new_session_of_the_new_user(house: House) -> None:
    client = _filled(house, "ann")
    with client.request() as session:
        before = session.sid
        session.logout()
        session.login("bob", keep=["cart"])
    with client.request() as session:
        assert (session.user, session.sid != before, dict(session)) == ("bob", True, {})
    assert house.manager.sessions_of("ann") == []


@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_a_rotation_gives_a_new_token_and_keeps_all_else(house: House, read_first: bool) -> None:  # noqa: FBT001
    client = _filled(house, "ann")
    old = client.twin()
    with client.request() as session:
        sid, logged_in = (session.sid, session.auth_time) if read_first else (None, None)
        session.rotate()
        session["more"] = 1
    assert client.cookie != old.cookie
    with client.request() as session:
        assert sid in (None, session.sid)
        assert logged_in in (None, session.auth_time)
        assert session.user == "ann"
        assert dict(session) == {"cart": ["hat"], "draft": "text", "more": 1}
    assert _all(old) == {}
    assert house.driver.stored == 1
    assert house.kinds()[EventKind.RENEWED] == 1


def test_a_rotation_without_a_session_makes_none(house: House) -> None:
    for cookie in (None, "__Host-sid=" + "A" * 32):
        client = house.client()
        client.cookie = cookie
        with client.request() as session:
            session.rotate()
        assert client.replies == [None]
    assert house.driver.stored == 0


def test_a_request_that_lost_its_session_meanwhile_writes_and_sends_nothing(house: House) -> None:
    client = _filled(house, "ann")
    late = client.twin()
    session = late.open()
    session["draft"] = session["draft"] + " more"
    with client.request() as other:
        other.logout()
    house.forget()
    saved = late.answer(session)
    assert saved.set_cookie is None
    assert house.driver.stored == 0
    assert house.kinds() == {EventKind.GONE: 1}
    (event,) = house.events
    assert event.reason == "revoked"


def test_all_sessions_of_a_user_can_be_ended_but_one(house: House) -> None:
    devices = [_filled(house, "ann") for _ in range(3)]
    other = _filled(house, "bob")
    with devices[0].request() as session:
        sid = session.sid
    assert {info.sid for info in house.manager.sessions_of("ann")} >= {sid}
    assert house.manager.revoke_user("ann", keep=sid) == 2
    assert [bool(_all(client)) for client in (*devices, other)] == [True, False, False, True]
