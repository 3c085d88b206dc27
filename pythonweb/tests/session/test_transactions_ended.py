"""Sessions that are created, destroyed or ended by others, around a commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from web_commits import fail_commits

Site = Any
Browser = Any
Request = Any


@pytest.fixture
def browser(site: Site) -> Browser:
    return site.browser(hits=0)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_destroy_and_create_around_a_refused_commit(site: Site, browser: Browser, when: str) -> None:
    old = browser.token
    new: list[str] = []

    def handler(request: Request) -> None:
        request.store["a"] = 1
        if when == "after":
            fail_commits(request)
        request.manager.destroy(ignoreWarning=True)
        if when == "between":
            fail_commits(request)
        request.manager.create()
        request.store["b"] = 2
        new.append(request.manager.sessionID)
        if when == "before":
            fail_commits(request)
        request.connection.rollback()
        assert request.manager.sessionID == new[0]
        request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    assert len(answer.cookies()) == 1
    assert browser.token == new[0] != old
    assert browser.read() == {"b": 2}
    browser.jar["testEnv"] = old
    assert browser.get(lambda request: request.manager.load(), keep=False).body == b"False"
    assert site.stored() == 1


@pytest.mark.parametrize("commits", [0, 1])
def test_destroy_lands_with_the_commit(site: Site, browser: Browser, commits: int) -> None:
    def handler(request: Request) -> None:
        request.row("bye")
        request.manager.destroy(ignoreWarning=True)
        if commits:
            request.connection.commit()
            assert site.stored() == 0

    answer = browser.get(handler)
    assert "Max-Age=0" in answer.cookie
    assert browser.jar == {}
    assert site.stored() == 0
    assert site.rows() == ["bye"] * commits


def test_destroy_after_a_commit(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.connection.commit()
        request.manager.destroy(ignoreWarning=True)

    assert "Max-Age=0" in browser.get(handler).cookie
    assert site.stored() == 0


def test_create_commit_destroy_and_create_again(site: Site) -> None:
    browser = site.browser()

    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.connection.commit()
        request.manager.destroy(ignoreWarning=True)
        request.connection.commit()
        request.manager.create()
        request.store["b"] = 2

    answer = browser.get(handler)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"b": 2}
    assert site.stored() == 1


# -- (e) somebody else ended it ----------------------------------------------------------------------------------------


def test_gone_inside_commit(site: Site, browser: Browser, events: Callable[[], list[str]]) -> None:
    twin = type(browser)(site, dict(browser.jar))

    def handler(request: Request) -> str:
        request.store["late"] = 1
        request.manager.setExpire(request.manager.expireTime + 50)
        twin.get(lambda other: other.manager.destroy(ignoreWarning=True))
        request.row("order")
        request.connection.commit()
        request.store["later"] = 2
        request.manager.setCookie()
        request.append_cookie()
        return "done"

    answer = browser.get(handler)
    assert answer.body == b"done"
    assert answer.cookies() == []
    assert site.rows() == ["order"]
    assert site.stored() == 0
    assert any("session gone" in each for each in events())


def test_a_manager_kept_past_its_request_reaches_nobody_elses_transaction(site: Site, browser: Browser) -> None:
    kept: list[Any] = []
    victim = site.browser(a=1)
    browser.get(lambda request: kept.append(request.manager))
    for use in (
        lambda manager: manager.load(),
        lambda manager: manager.destroy(victim.token, ignoreWarning=True),
        lambda manager: manager.cleanup(),
        lambda manager: manager.driver.removeSessionEnvironment(),
    ):
        with pytest.raises(Exception, match="connection is closed"):
            use(kept[0])
    assert victim.read() == {"a": 1}


@pytest.mark.parametrize("refused", [False, True])
def test_a_destroyed_session_cannot_be_loaded_again_before_the_commit(
    site: Site, browser: Browser, *, refused: bool
) -> None:
    token = browser.token

    def handler(request: Request) -> None:
        manager = request.manager
        manager.destroy(ignoreWarning=True)
        if refused:
            fail_commits(request)
            request.connection.rollback()
        assert manager.load() is manager.load(token) is False
        assert manager.exists(token) is False
        with pytest.raises(Exception, match="no such session"):
            manager.valid(token)

    assert browser.get(handler).failure is None
    assert site.stored() == 0
