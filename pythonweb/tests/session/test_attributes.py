"""The attributes of managers and stores, those that can be assigned, and the names in messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from web.session import Manager, SessionError, driver, manager, start

Build = Callable[..., Any]
Request = Any


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Manager]:
    monkeypatch.setenv("HTTP_COOKIE", "")
    number = id(tmp_path) % 10**9
    return lambda **settings: manager(driver("memory", f"env{number}"), **settings)


def test_create_gives_the_new_id(made: Callable[..., Manager]) -> None:
    session = made()
    first = session.create()
    assert first == session.sessionID
    assert session.create(sendCookieHeaders=False, expire=5) == session.sessionID != first


def test_create_gives_the_new_id_under_the_middleware(build: Build) -> None:
    browser = build().browser(a=1)
    answer = browser.get(lambda request: request.manager.create())
    assert answer.body.decode() == browser.token
    assert browser.read() == {}


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {"path": "/", "domain": "", "comment": "", "max-age": None}),
    "parameters": (
        {"path": "/a", "domain": "example.org", "comment": "c", "maxAge": 7},
        {"path": "/a", "domain": "example.org", "comment": "c", "max-age": 7},
    ),
    "a dict": (
        {"path": "/a", "cookie": {"path": "/b", "comment": "d", "max-age": 8}},
        {"path": "/b", "domain": "", "comment": "d", "max-age": 8},
    ),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_what_was_given_can_be_read(made: Callable[..., Manager], build: Build, what: str) -> None:
    settings, cookie = SETTINGS[what]
    session = made(seed="my seed", cleanupProbability=0.5, expire=77, **settings)
    assert (session.seed, session.cleanupProbability, session.expire) == ("my seed", 0.5, 77)
    assert session.cookie == cookie
    assert type(session.cookie) is dict
    seen: list[Any] = []

    def handler(request: Request) -> None:
        m = request.manager
        seen.append((m.seed, m.cleanupProbability, m.cookie))

    build(seed="my seed", cleanupProbability=1, **settings).browser().get(handler)
    assert seen == [("my seed", 1, cookie)]
    assert made().seed is None
    assert made().cleanupProbability == 0.05


def test_ids_by_keyword(made: Callable[..., Manager]) -> None:
    session = made()
    token = made().create()
    assert session.load(sessionID="A" * 32) is False
    assert session.exists(sessionID=token) is session.valid(sessionID=token) is True
    session.setExpire(sessionID=token, expireTime=1)
    assert session.valid(sessionID=token) is False
    session.destroy(sessionID=token, ignoreWarning=True)
    assert session.exists(sessionID=token) is False
    assert len(session.genSessionID(seed="more")) == 32


def test_a_store_can_go_on_with_another_application(made: Callable[..., Manager]) -> None:
    session = made()
    session.create()
    store = session.store("one")
    store["k"] = 1
    store.app = "two"
    assert (store.app, store.keys()) == ("two", [])
    store["k"] = 2
    store.app = "one"
    assert store["k"] == 1
    wrong: Any
    for wrong in ("", "a b", "é", "x" * 256, None, 5):
        with pytest.raises(SessionError, match="1 to 255 characters"):
            store.app = wrong
        assert store.app == "one"


def test_a_store_can_go_on_with_another_application_under_the_middleware(build: Build) -> None:
    browser = build().browser(k=1)

    def handler(request: Request) -> None:
        request.store.app = "other"
        request.store["k"] = 2

    browser.get(handler)
    assert browser.read() == {"k": 1}
    assert browser.get(lambda request: request.manager.store("other")["k"]).body == b"2"


NEEDS_URL = {
    "database": "either cursor= ",
    "filesystem": "needs url=, such as url='filesystem:///",
    "mariadb": "needs url=, such as url='mariadb://",
    "memcached": "needs url=, such as url='memcached://",
    "mysql": "needs url=, such as url='mysql://",
    "postgresql": "needs url=, such as url='postgresql://",
    "redis": "needs url=, such as url='redis://",
    "sqlite": "needs url=, such as url='sqlite:///",
    "valkey": "needs url=, such as url='valkey://",
    "oracle": "there are database, filesystem, mariadb, memcached, memory, mysql, postgresql, redis, sqlite, valkey",
}


@pytest.mark.parametrize("name", NEEDS_URL)
def test_a_driver_without_its_url(name: str) -> None:
    with pytest.raises(SessionError) as caught:
        driver(name, "site")
    assert NEEDS_URL[name] in str(caught.value)
    assert "pip install" not in str(caught.value)


def test_a_url_of_another_driver_is_answered_with_an_example() -> None:
    with pytest.raises(SessionError, match=r"must start with sqlite:, such as 'sqlite:///sessions\.db'$"):
        driver("sqlite", "site", url="memory:")


MISSING = """
import sys
sys.modules[sys.argv[2]] = None  # as if the package were not installed
import web.session
for params in ({}, {"url": sys.argv[3]}):
    try:
        web.session.driver(sys.argv[1], "site", **params)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("name", "package", "url", "extra"),
    [
        ("redis", "redis", "redis://localhost", "redis"),
        ("valkey", "redis", "valkey://localhost", "redis"),
        ("postgresql", "psycopg", "postgresql://localhost/x", "postgresql"),
        ("mysql", "pymysql", "mysql://localhost/x", "mariadb"),
        ("mariadb", "pymysql", "mariadb://localhost/x", "mariadb"),
    ],
)
def test_a_package_that_is_missing_is_named(name: str, package: str, url: str, extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING, name, package, url], capture_output=True, text=True, timeout=60, check=True
    )
    without_url, with_url = done.stdout.splitlines()
    assert f"needs url=, such as url='{name}://" in without_url
    for line in (without_url, with_url):
        assert f"pip install 'coatcheck[{extra}]'" in line


def test_valid_and_exists_while_a_session_runs_out(build: Build, clock: Any) -> None:
    browser = build(expire=10).browser(a=1)

    def handler(request: Request) -> list[bool]:
        before = [request.manager.valid(), request.manager.exists()]
        clock.advance(11)
        return [*before, request.manager.valid(), request.manager.exists()]

    assert browser.get(handler).body == b"[True, True, False, True]"


def test_start_hands_on_what_the_manager_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_COOKIE", "")
    store = start("shop", "startAttributes", "memory", seed="x", cleanupProbability=0)
    assert (store.manager.seed, store.manager.cleanupProbability) == ("x", 0)
