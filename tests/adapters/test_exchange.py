"""What an exchange offers to interfaces that lead their sessions themselves, sync and async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final

import pytest

from coatcheck import AsyncSessionManager, CoatcheckError, Event, EventKind, Policy, SessionManager
from coatcheck.adapter import AsyncExchange, Exchange, Incoming, Reason, Token
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.testing import Clock

COOKIE: Final = "__Host-sid"


class House:
    """Sessions in memory, reached through exchanges of one kind. What has to be awaited is."""

    def __init__(self, *, is_async: bool) -> None:
        self.driver = MemoryDriver()
        self.clock = Clock()
        self.events: list[Event] = []
        self.is_async = is_async
        self.policy = Policy(insecure_http=True)

    def exchange(self, *secrets: str, **more: Any) -> Any:
        cookies = ("; ".join(f"{COOKIE}={secret}" for secret in secrets),) if secrets else ()
        incoming = Incoming(cookies=cookies, scheme=more.pop("scheme", "https"), host="shop.example.com", path="/a/b")
        settings: Any = {"listeners": [self.events.append], "clock": self.clock}
        if self.is_async:
            storage = AsyncMemoryDriver(self.driver)
            return AsyncExchange(AsyncSessionManager(storage, self.policy, **settings), incoming, **more)
        return Exchange(SessionManager(self.driver, self.policy, **settings), incoming, **more)

    def do(self, answer: Any) -> Any:
        async def waited() -> Any:
            return await answer

        return asyncio.run(waited()) if inspect.isawaitable(answer) else answer

    def stored(self, **values: Any) -> str:
        """Store a session, and return its token."""
        exchange = self.exchange()
        exchange.session.update(values)
        self.do(exchange.save())
        assert exchange.token is not None
        return exchange.token.secret

    def values(self, secret: str) -> dict[str, Any]:
        exchange = self.exchange(secret)
        self.do(exchange.load())
        return dict(exchange.session)

    def is_live(self, secret: str) -> bool:
        exchange = self.exchange(secret)
        return bool(self.do(exchange.load()))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def house(request: pytest.FixtureRequest) -> House:
    return House(is_async=request.param)


def test_an_exchange_that_nobody_uses_asks_storage_for_nothing(house: House) -> None:
    exchange = house.exchange("A" * 32)
    assert (exchange.touched, exchange.pending, exchange.token, exchange.info) == (False, False, None, None)
    assert house.do(exchange.save(final=True)) == exchange.saved
    assert exchange.headers([("X", "1")]) == [("X", "1")]
    house.do(exchange.close())
    assert house.events == []


def test_a_load_alone_is_no_use_of_the_session(house: House) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    assert house.do(exchange.load()) is True
    house.clock.advance(3600)  # a touch would be due
    house.do(exchange.save())
    assert exchange.wrote is False
    assert exchange.headers([]) == []
    exchange.use()
    house.do(exchange.save())
    assert exchange.wrote is True
    assert exchange.headers([]) == [("Vary", "Cookie")]


def test_a_token_goes_before_the_cookie(house: House) -> None:
    one, other = house.stored(a=1), house.stored(a=2)
    exchange = house.exchange(one, token=other)
    assert [token.secret for token in exchange.sent] == [other]
    assert house.do(exchange.load()) is True
    assert exchange.session["a"] == 2


@pytest.mark.parametrize("token", ["", "x", "A" * 31 + "é", "A" * 32 + "; x=1"])
def test_a_token_of_another_form_opens_none(house: House, token: str) -> None:
    exchange = house.exchange(house.stored(a=1), token=token)
    assert exchange.sent == ()
    assert house.do(exchange.load()) is False
    assert dict(exchange.session) == {}


def test_a_session_that_was_begun_is_stored_without_a_value(house: House) -> None:
    exchange = house.exchange()
    token = exchange.begin(deadline=house.clock.now + 60)
    assert isinstance(token, Token)
    assert (exchange.begun, exchange.pending, exchange.token) == (True, True, token)
    assert exchange.expires == house.clock.now + 60
    assert house.do(exchange.save()).set_cookie.startswith(f"{COOKIE}={token.secret};")
    assert (exchange.begun, exchange.pending) == (False, False)
    assert house.is_live(token.secret)
    house.clock.advance(61)
    assert not house.is_live(token.secret)


def test_what_the_cookie_opens_goes_on_when_another_is_begun(house: House) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    house.do(exchange.load())
    token = exchange.begin()
    assert dict(exchange.session) == {}
    house.do(exchange.save())
    assert house.values(secret) == {"a": 1}
    assert house.is_live(token.secret)


def test_the_end_of_a_begun_session_ends_those_of_all_the_cookies(house: House) -> None:
    one, other = house.stored(a=1), house.stored(a=2)
    exchange = house.exchange(one, other)
    token = exchange.begin()
    house.do(exchange.save())
    exchange.session.destroy()
    assert {each.secret for each in exchange.ending} == {token.secret, one, other}
    house.do(exchange.save())
    assert exchange.ending == ()
    assert not any(house.is_live(secret) for secret in (token.secret, one, other))


@pytest.mark.parametrize("loads", [True, False])
def test_a_session_begun_in_a_late_request_is_not_stored(house: House, *, loads: bool) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret, began=house.clock.now)
    house.clock.advance(1)
    ending = house.exchange(secret)
    ending.session.logout()
    house.do(ending.save())
    if loads:
        assert house.do(exchange.load()) is False
        assert exchange.reason is Reason.REVOKED
    token = exchange.begin()
    exchange.session["b"] = 1
    assert exchange.session["b"] == 1
    house.do(exchange.save())
    assert exchange.ended is loads  # otherwise nobody asked
    assert house.is_live(token.secret) is not loads
    assert (exchange.saved.set_cookie is None) is loads


def test_a_session_of_this_request_alone(house: House) -> None:
    exchange = house.exchange()
    exchange.headers_sent()
    with pytest.raises(CoatcheckError, match="begin before"):
        exchange.begin()
    token = exchange.begin(stored=False)
    exchange.session["a"] = 1
    assert exchange.session["a"] == 1
    house.do(exchange.save(readable=True))
    assert exchange.session["a"] == 1
    assert exchange.saved.set_cookie is None
    assert not house.is_live(token.secret)


def test_after_the_last_save_nothing_is_begun(house: House) -> None:
    exchange = house.exchange()
    exchange.session["a"] = 1
    house.do(exchange.save(final=True))
    assert exchange.finished
    with pytest.raises(CoatcheckError, match="begin before"):
        exchange.begin(stored=False)


@pytest.mark.parametrize("readable", [True, False])
def test_what_ended_meanwhile_is_read_on_or_empty(house: House, *, readable: bool) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    house.do(exchange.load())
    exchange.session["b"] = [2]
    ending = house.exchange(secret)
    ending.session.logout()
    house.do(ending.save())
    house.do(exchange.save(readable=readable))
    assert exchange.ended
    assert dict(exchange.session) == ({"a": 1, "b": [2]} if readable else {})
    house.do(exchange.save(readable=readable))
    assert not house.is_live(secret)


def make_new(exchange: Any) -> None:
    exchange.session["b"] = 1


def rotate(exchange: Any) -> None:
    exchange.session.rotate()


@pytest.mark.parametrize("change", [make_new, rotate])
def test_a_savepoint_takes_the_save_back_with_its_cookie(house: House, change: Callable[[Any], None]) -> None:
    exchange = house.exchange(house.stored(a=1)) if change is rotate else house.exchange()
    other = house.exchange()
    house.do(exchange.load())
    change(exchange)
    savepoint = exchange.savepoint()
    assert savepoint.is_of(exchange)
    assert not savepoint.is_of(other)
    before = exchange.token
    house.do(exchange.save())
    assert exchange.saved.set_cookie is not None
    assert not exchange.pending
    savepoint.rollback()
    assert exchange.saved.set_cookie is None
    assert exchange.pending
    assert exchange.token is before


def test_a_savepoint_that_is_released_changes_nothing(house: House) -> None:
    exchange = house.exchange()
    exchange.session["a"] = 1
    savepoint = exchange.savepoint()
    cookie = house.do(exchange.save()).set_cookie
    savepoint.release()
    assert exchange.saved.set_cookie == cookie
    assert not exchange.pending


def test_the_deadline_is_saved(house: House) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    house.do(exchange.load())
    assert exchange.deadline is None
    exchange.deadline = house.clock.now + 5
    assert exchange.pending
    assert exchange.expires == house.clock.now + 5
    house.do(exchange.save())
    assert exchange.deadline is None
    assert exchange.info.deadline == house.clock.now + 5
    house.clock.advance(6)
    assert not house.is_live(secret)


@pytest.mark.parametrize(("scheme", "name", "secure"), [("https", "__Host-sid", True), ("http", "sid", False)])
def test_cookies_of_the_adapters_own_making(house: House, scheme: str, name: str, *, secure: bool) -> None:
    exchange = house.exchange(scheme=scheme)
    assert exchange.cookie_name == name
    assert exchange.cookie(None) is None
    assert exchange.deletion().startswith(f"{name}=; Max-Age=0;")
    assert exchange.deletions() == ()
    assert not exchange.touched  # all of that without a look at the session
    token = exchange.begin()
    cookie = exchange.cookie(59.5)
    assert cookie.startswith(f"{name}={token.secret}; Max-Age=60; Path=/")
    assert ("; Secure" in cookie) is secure
    assert "Max-Age" not in exchange.cookie(None)


def test_of_several_cookies_the_others_are_deleted(house: House) -> None:
    house.policy = Policy(domain="example.com")
    cookies = (f"__Secure-sid={'A' * 32}; __Secure-sid={'B' * 32}",)
    incoming = Incoming(cookies=cookies, host="shop.example.com", path="/a")
    exchange = Exchange(SessionManager(house.driver, house.policy), incoming)
    assert [token.secret for token in exchange.sent] == ["A" * 32, "B" * 32]
    deletions = exchange.deletions()
    assert len(deletions) > 1
    assert all(line.startswith("__Secure-sid=; Max-Age=0") for line in deletions)
    assert exchange.deletion() not in deletions


def test_plain_http_is_warned_of_by_the_manager_or_by_the_adapter(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    class Manager(SessionManager):
        def warn_of_http(self) -> None:
            told.append(True)

    for kind in (Manager, SessionManager):
        manager = kind(MemoryDriver(), Policy(insecure_http=True))
        for _ in range(2):
            assert dict(Exchange(manager, Incoming(scheme="http")).session) == {}
    assert told == [True]
    assert len([record for record in caplog.records if "plain http" in record.getMessage()]) == 1


def test_no_token_shows_in_what_is_printed(house: House) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    house.do(exchange.load())
    exchange.session.rotate()
    house.do(exchange.save())
    shown = repr((exchange, exchange.incoming, exchange.token, exchange.saved, exchange.sent, exchange.session))
    assert secret not in shown
    assert exchange.token.secret not in shown


def test_what_another_request_changed_is_read_again_into_another_object(house: House) -> None:
    secret = house.stored(a=1)
    exchange = house.exchange(secret)
    house.do(exchange.load())
    before = exchange.info
    exchange.session["a"] = exchange.session["a"] + 1
    other = house.exchange(secret)
    house.do(other.load())
    other.session["a"] = other.session["a"] + 2
    house.do(other.save())
    house.do(exchange.save())
    assert exchange.info is not before
    assert house.values(secret) == {"a": 2}
    assert EventKind.CONFLICT in {event.kind for event in house.events}
