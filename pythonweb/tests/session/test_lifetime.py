"""How long sessions live, and what a request costs that uses none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck.testing import Clock
from web.wsgi.session import Session

Build = Callable[..., Any]
Request = Any


def is_alive(browser: Any) -> bool:
    answer = browser.get(lambda request: request.manager.load(), keep=False)
    return bool(answer.body == b"True")


def test_a_session_left_alone_ends_at_its_deadline(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)
    clock.advance(9.9)
    assert is_alive(browser)
    clock.advance(0.1)
    assert not is_alive(browser)


def test_use_does_not_move_the_deadline(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)
    for _ in range(9):
        clock.advance(1)
        browser.get(lambda request: request.store.update(a=request.store["a"] + 1))
    clock.advance(1)
    assert not is_alive(browser)


def test_each_visit_of_the_page_adds_five_seconds(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)
    start = clock.now
    for visit in range(1, 4):
        clock.advance(3)
        answer = browser.get(lambda request: request.manager.setExpire(request.manager.expireTime + 5))
        assert f"; Max-Age={10 + 5 * visit - 3 * visit};" in answer.cookie
    clock.now = start + 10 + 15 - 0.1
    assert is_alive(browser)
    clock.now = start + 10 + 15
    assert not is_alive(browser)


def test_there_is_no_idle_or_absolute_limit(build: Build, clock: Clock) -> None:
    years = 20 * 365 * 86400
    browser = build(expire=years).browser(a=1)
    clock.advance(years - 1)
    assert is_alive(browser)
    browser.get(lambda request: request.manager.setExpire(clock.now + years))
    clock.advance(years - 1)
    assert is_alive(browser)


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("moment", [0, -7, "now", 5.5])
def test_set_expire_in_the_past_ends_it_at_once(
    build: Build, clock: Clock, moment: Any, *, new: bool, commits: bool
) -> None:
    site = build()
    browser = site.browser() if new else site.browser(a=1)

    def handler(request: Request) -> None:
        request.manager.setExpire(clock.now if moment == "now" else moment)
        assert request.manager.valid() is False
        if commits:
            request.connection.commit()
            request.connection.rollback()

    answer = browser.get(handler)
    assert answer.failure is None
    assert all("Max-Age=0;" in each for each in answer.cookies())
    browser.jar = browser.jar or {"testEnv": "A" * 32}
    assert not is_alive(browser)


def test_a_session_that_ended_is_followed_by_a_new_one(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)
    old = browser.token
    clock.advance(10)
    answer = browser.get(lambda request: f"{request.manager.created} {request.manager.error} {len(request.store)}")
    assert answer.body == b"True no such session: expired 0"
    assert browser.token != old


@pytest.mark.parametrize("cookie", ["A" * 32, "short", "x" * 5000, '"quoted"', "a" * 31 + "é", ""])
def test_an_id_that_we_did_not_give_is_never_adopted(site: Any, cookie: str) -> None:
    browser = site.browser()
    browser.jar["testEnv"] = cookie
    answer = browser.get(lambda request: (request.manager.created, request.store.set("a", 1)))
    assert answer.failure is None
    assert browser.token != cookie
    assert len(browser.token) == 32
    assert browser.read() == {"a": 1}


def test_a_read_of_created_is_a_first_use(site: Any) -> None:
    browser = site.browser()
    assert browser.get(lambda request: request.manager.created).body == b"True"
    for _ in range(2):
        answer = browser.get(lambda request: request.manager.created)
        assert answer.body == b"False"
        assert answer.cookies() == []
        assert answer.header("Vary") == "Cookie"


# What it costs


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that a connection of the Database middleware runs from the session middleware on inwards."""
    seen: list[str] = []
    whole = Session.__call__

    def traced(self: Session, environ: Any, start_response: Any) -> Any:
        environ["web.database.connection"].baseConnection.set_trace_callback(seen.append)
        return whole(self, environ, start_response)

    monkeypatch.setattr(Session, "__call__", traced)
    return seen


OF_THE_TEST = ("PRAGMA foreign_keys", "PRAGMA synchronous")

UNUSED: dict[str, Callable[[Request], object]] = {
    "nothing": lambda _request: None,
    "commit": lambda request: request.connection.commit(),
    "cookie helpers": lambda request: (
        request.manager.cookieSessionID(),
        request.manager.genSessionID(),
        request.manager.deleteCookieString(),
        request.manager.response_headers,
        request.manager.sendCookieHeaders(),
        repr(request.manager),
    ),
    "store": lambda request: (request.manager.store("other").app, repr(request.store), request.store.manager),
}


@pytest.mark.parametrize("visitor", [False, True])
@pytest.mark.parametrize("what", UNUSED)
def test_a_request_that_uses_neither_costs_nothing(
    site: Any, statements: list[str], what: str, *, visitor: bool
) -> None:
    browser = site.browser(a=1)
    if not visitor:
        browser.jar.clear()
    del statements[:]
    answer = browser.get(UNUSED[what])
    assert answer.failure is None
    assert [each for each in statements if not each.startswith(OF_THE_TEST)] == []
    assert answer.cookies() == []
    assert answer.header("Vary") is None
    assert site.stored() == 1


def test_a_read_is_one_statement_and_a_change_is_one_transaction(site: Any, statements: list[str]) -> None:
    browser = site.browser(a=1, b=2)
    del statements[:]
    browser.get(lambda request: (request.store["a"], request.store["b"], len(request.store), request.manager.valid()))
    assert len([each for each in statements if not each.startswith(OF_THE_TEST)]) == 1
    del statements[:]
    browser.get(lambda request: request.store.update(a=2, b=3))
    assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 1


# Sweeping


@pytest.mark.parametrize("probability", [0, 1])
def test_cleanup_probability(build: Build, clock: Clock, probability: int) -> None:
    site = build(expire=10, cleanupProbability=probability)
    site.browser(a=1)
    clock.advance(11)
    site.browser(a=1)
    assert site.stored() == 2 - probability


def test_a_sweep_that_fails_is_no_failure_of_the_request(
    build: Build, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = build(expire=10, cleanupProbability=1, timeout=0.1)
    site.browser(a=1)
    clock.advance(11)
    other = sqlite3.connect(site.path)
    whole = site.session.__class__.__call__

    def locked(self: Any, environ: Any, start_response: Any) -> Any:
        body = whole(self, environ, start_response)
        other.execute("BEGIN IMMEDIATE")  # once all is saved, and before the sweep
        return body

    monkeypatch.setattr(site.session.__class__, "__call__", locked)
    browser = site.browser()
    assert browser.get(lambda request: request.store.set("a", 1)).failure is None
    other.rollback()
    other.close()
    monkeypatch.undo()
    assert site.stored() == 2
