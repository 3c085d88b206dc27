"""A browser that still sends the cookie of a session that ended: what its program is told is what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck.record import Delta
from coatcheck.testing import Clock
from web.session import Manager, driver

Browser = Any
Build = Callable[..., Any]
Request = Any
Site = Any

STORAGE: dict[str, Any] = {
    "database": lambda _folder: {},
    "sqlite": lambda folder: {"storage": "sqlite", "url": f"sqlite:///{folder}/own.db"},
    "filesystem": lambda folder: {"storage": "filesystem", "url": f"filesystem:///{folder}/own"},
    "redis": None,
}


@pytest.fixture(params=[pytest.param(name, marks=[] if how else [pytest.mark.server]) for name, how in STORAGE.items()])
def stored(request: pytest.FixtureRequest, build: Build, tmp_path: Path, namespace: str, clock: Clock) -> Site:
    """A site whose sessions are in one of the kinds of storage, and whose clock is the test's."""
    clock.advance(0)
    how = STORAGE[request.param]
    if how is None:
        settings = {"storage": "redis", "url": request.getfixturevalue("redis_server").url, "name": namespace}
    else:
        settings = how(tmp_path)
    return build(**settings)


def is_kept(browser: Browser) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def handler(request: Request) -> None:
        found.update(request.store, created=request.manager.created)

    assert browser.get(handler, keep=False).failure is None
    return found


def destroy(browser: Browser, _clock: Clock) -> None:
    """As another request of the browser does, whose answer it has not got yet."""
    browser.get(lambda request: request.manager.destroy(ignoreWarning=True), keep=False)


def destroy_by_id(browser: Browser, _clock: Clock) -> None:
    browser.site.browser(a=1).get(lambda request: request.manager.destroy(browser.token, ignoreWarning=True))


def revoke_user(browser: Browser, clock: Clock) -> None:
    """As an administrator does, with coatcheck's own interface."""

    def handler(request: Request) -> None:
        core = request.manager.driver.core
        exchange = request.manager.exchange
        request.manager.load()
        digest = (exchange or request.manager.exchange).token.digest
        core.commit(digest, Delta(user="ada", auth_time=clock.now - 1), clock.now)
        core.revoke_user("ada", clock.now)
        if request.manager.driver.connection is not None:
            request.connection.baseConnection.commit()

    answer = browser.get(handler, keep=False)
    assert answer.failure is None


ENDS: dict[str, Callable[[Browser, Clock], None]] = {
    "destroyed": destroy,
    "destroyed by its ID": destroy_by_id,
    "user revoked": revoke_user,
}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_a_request_that_began_after_the_end_gets_a_new_session(
    stored: Site, clock: Clock, how: str, *, commits: bool
) -> None:
    browser = stored.browser(old=1)
    dead = browser.token
    ENDS[how](browser, clock)
    clock.advance(0.001)
    told: list[Any] = []

    def handler(request: Request) -> str:
        manager, store = request.manager, request.store
        told.append((manager.created, manager.sessionID, manager.exists(), manager.valid(), store.keys()))
        store["k"] = 1
        if commits:
            request.connection.commit()
        told.append((store["k"], manager.sessionID, manager.expireTime - clock.now))
        return str(manager.error)

    answer = browser.get(handler)
    assert answer.body == b"no such session: revoked"
    assert dead != browser.token
    assert told == [(True, browser.token, True, True, []), (1, browser.token, 100)]
    assert answer.cookie.startswith(f"{next(iter(browser.jar))}={browser.token}; Max-Age=100; ")
    assert is_kept(browser) == {"k": 1, "created": False}
    late = type(browser)(stored, dict.fromkeys(browser.jar, dead))
    assert is_kept(late) == {"created": True}  # the old one stays dead


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_a_request_that_began_before_the_end_keeps_nothing_and_sends_no_cookie(
    stored: Site, clock: Clock, how: str, *, commits: bool
) -> None:
    """However late it looks at its session. Its program runs through, and can know that there is no session."""
    browser = stored.browser(old=1)
    told: list[Any] = []

    def handler(request: Request) -> str:
        clock.advance(1)
        ENDS[how](type(browser)(stored, dict(browser.jar)), clock)
        clock.advance(1)
        manager, store = request.manager, request.store
        told.append((manager.created, manager.exists(), manager.valid(), store.keys()))
        store["k"] = [1]
        if commits:
            request.connection.commit()
        store["k"].append(2)
        told.append(store["k"])
        return str(manager.error)

    answer = browser.get(handler, keep=False)
    assert answer.failure is None
    assert answer.body == b"no such session: revoked"
    assert told == [(True, False, False, []), [1, 2]]
    assert answer.cookies() == []
    clock.advance(1)
    assert is_kept(browser) == {"created": True}


@pytest.mark.parametrize("how", ENDS)
def test_a_request_that_uses_its_session_when_it_ends_runs_through(stored: Site, clock: Clock, how: str) -> None:
    """It reads what it read and wrote to its end, also after a commit that stored nothing."""
    browser = stored.browser(old=1, cart=["hat"])

    def handler(request: Request) -> str:
        store = request.store
        store["cart"].append("scarf")
        clock.advance(1)
        ENDS[how](type(browser)(stored, dict(browser.jar)), clock)
        store["k"] = 2
        request.connection.commit()
        request.manager.save()
        store["k"] += 1
        request.connection.commit()
        assert dict(store) == {"old": 1, "cart": ["hat", "scarf"], "k": 3}
        return f"{request.manager.created} {request.manager.exists()} {request.manager.valid()}"

    answer = browser.get(handler, keep=False)
    assert answer.failure is None
    assert answer.body == b"False False False"
    assert answer.cookies() == []
    clock.advance(1)
    assert is_kept(browser) == {"created": True}


def test_a_double_click_on_log_out(stored: Site, clock: Clock) -> None:
    """The second click is in flight with the first; the page after it begins anew at once."""
    browser = stored.browser(old=1)
    jar = dict(browser.jar)
    answers: list[Any] = []

    def leave(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True)

    def second(request: Request) -> None:
        answers.append(browser.get(leave))
        request.manager.destroy(ignoreWarning=True)

    clock.advance(1)
    answers.append(type(browser)(stored, jar).get(second, keep=False))
    assert [len(each.cookies()) for each in answers] == [1, 0]
    clock.advance(0.01)
    late = type(browser)(stored, jar)  # a tab that was reloaded before the deletion arrived
    late.get(lambda request: request.store.update(cart=["hat"]))
    assert is_kept(late) == {"cart": ["hat"], "created": False}


def test_in_a_transaction_that_is_rolled_back(build: Build, clock: Clock) -> None:
    site = build()
    browser = site.browser(old=1)
    destroy(browser, clock)
    clock.advance(1)

    def handler(request: Request) -> None:
        request.store["k"] = 1
        request.row("undone")
        request.connection.rollback()
        request.store["k"] += 1
        request.connection.commit()

    browser.get(handler)
    assert is_kept(browser) == {"k": 2, "created": False}
    assert site.stored() == 1


def test_on_a_server(server_site: Site) -> None:
    """With the clock of this machine, which has moved on since the answer came."""
    browser = server_site.browser(old=1)
    dead = browser.token
    browser.get(lambda request: request.manager.destroy(ignoreWarning=True), keep=False)

    def handler(request: Request) -> tuple[object, ...]:
        request.store["k"] = 1
        request.connection.commit()
        return request.manager.created, request.store["k"]

    assert browser.get(handler).body == b"(True, 1)"
    assert browser.token != dead
    assert is_kept(browser) == {"k": 1, "created": False}


def test_whatever_the_new_session_is_called_its_storage_has_one(stored: Site, clock: Clock) -> None:
    """A session that another request made from the same dead cookie is another session."""
    browser = stored.browser(old=1)
    destroy(browser, clock)
    clock.advance(1)
    twin = type(browser)(stored, dict(browser.jar))

    def handler(request: Request) -> None:
        request.store["who"] = "outer"
        twin.get(lambda other: other.store.update(who="inner"))

    browser.get(handler)
    assert browser.token != twin.token
    assert (is_kept(browser)["who"], is_kept(twin)["who"]) == ("outer", "inner")


@pytest.mark.parametrize("commits", [False, True])
def test_no_late_answer_takes_the_place_of_a_session_that_followed_another(
    stored: Site, clock: Clock, *, commits: bool
) -> None:
    """Destroying and creating in one request is how programs of 2005 log in.

    A browser may send the old cookie until it has the answer: for ten seconds, such a request sends no cookie.
    """
    browser = stored.browser(old=1)
    old = dict(browser.jar)

    def anonymous() -> Any:
        return type(browser)(stored, dict(old)).get(lambda request: request.store.update(cart=["hat"]), keep=False)

    def log_in(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True)
        request.manager.create()
        request.store["user"] = "ada"
        if commits:
            request.connection.commit()

    def slow(request: Request) -> None:
        clock.advance(1)
        browser.get(log_in)
        clock.advance(1)
        request.store["cart"] = ["hat"]

    clock.advance(1)
    assert type(browser)(stored, dict(old)).get(slow, keep=False).cookies() == []
    assert anonymous().cookies() == []
    clock.advance(8)
    answer = anonymous()
    assert (answer.failure, answer.cookies()) == (None, [])
    assert is_kept(browser) == {"user": "ada", "created": False}
    clock.advance(2)
    assert len(anonymous().cookies()) == 1  # a browser that sends it now never got the answer


def test_a_script_that_logs_in(connect: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setenv("HTTP_COOKIE", "")
    made = driver("database", "site", cursor=connect().cursor())
    made.createSessionEnvironment()

    def script(token: str = "") -> Manager:
        monkeypatch.setenv("HTTP_COOKIE", f"site={token}")
        return Manager(made, clock=clock)

    first = script()
    old = first.create()
    made.connection.commit()
    second = script(old)
    assert second.load()
    second.destroy(ignoreWarning=True)
    made.connection.commit()
    second.create()
    made.connection.commit()
    for seconds, late in ((9, True), (2, False)):
        clock.advance(seconds)
        third = script(old)
        third.loadOrCreate()
        assert third.exists() is not late
