"""The members of the interface of 2005 under the middleware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck.testing import Clock
from web.session import Driver, SessionError

Request = Any
Build = Callable[..., Any]


# Under the middleware


@pytest.mark.parametrize("storage", ["database", "url", "memory"])
def test_the_middleware_adds_its_three_keys(build: Build, storage: str, tmp_path: Path) -> None:
    own = {"url": {"url": f"sqlite:///{tmp_path}/own.db"}, "memory": {"storage": "memory", "name": "threeKeys"}}
    site = build(**own.get(storage, {}))
    browser = site.browser()

    def handler(request: Request) -> None:
        environ = request.environ
        assert isinstance(environ["web.session.driver"], Driver)
        assert environ["web.session.manager"].driver is environ["web.session.driver"]
        assert environ["web.session.store"].manager is environ["web.session.manager"]
        assert environ["web.session.store"].app == "testApp"
        assert environ["web.session.manager"].created
        environ["web.session.store"]["deep"] = {"a": [1]}

    assert browser.get(handler).failure is None
    browser.get(lambda request: request.store["deep"]["a"].append(2))
    assert browser.read() == {"deep": {"a": [1, 2]}}
    assert browser.get(lambda request: request.manager.created).body == b"False"
    assert build(app=None).browser().get(lambda request: "web.session.store" in request.environ).body == b"False"


def test_managers_members_under_the_middleware(build: Build, clock: Clock) -> None:
    site = build(expire=10)
    browser = site.browser()

    def first(request: Request) -> None:
        manager = request.manager
        assert manager.exists()
        assert manager.valid()
        assert manager.created
        assert manager.error == "no session ID: the request has no session cookie"
        assert manager.expire == 10
        assert manager.expireTime == clock.now + 10
        assert len(manager.response_headers) == 1
        assert manager.response_headers[0][1].startswith(f"testEnv={manager.sessionID}; ")
        manager.sendCookieHeaders()
        assert manager.sent_headers == []

    def second(request: Request) -> None:
        manager = request.manager
        assert not manager.created
        assert manager.error is None
        assert manager.sessionID == manager.cookieSessionID() == browser.token
        assert manager.response_headers == []
        manager.destroy(ignoreWarning=True, sendCookieHeaders=False)
        assert ": ".join(manager.response_headers[-1]) == manager.deleteCookieString()
        assert (manager.sessionID, manager.created, manager.exists()) == (None, False, False)
        with pytest.raises(SessionError, match="destroyed"):
            request.store.get("a")

    for handler in (first, second):
        assert browser.get(handler).failure is None
    assert browser.jar == {}


def test_load_and_create_by_hand_under_the_middleware(site: Any) -> None:
    def handler(request: Request) -> None:
        if not request.manager.load():
            request.manager.create(expire=5)
            request.store["made"] = request.manager.expire
        else:
            request.store["loaded"] = True

    browser = site.browser()
    assert len(browser.get(handler).cookies()) == 1
    assert browser.get(handler).cookies() == []
    assert browser.read() == {"made": 5, "loaded": True}
    assert site.stored() == 1


def test_create_after_the_first_use_leaves_no_second_session(site: Any) -> None:
    browser = site.browser()

    def handler(request: Request) -> None:
        assert request.manager.created
        request.manager.create()
        request.store["a"] = 1

    assert len(browser.get(handler).cookies()) == 1
    assert site.stored() == 1
    assert browser.read() == {"a": 1}
