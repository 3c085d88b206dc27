"""What is saved without a commit: at the end of a request, in a streamed body, after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Site = Any
Browser = Any
Request = Any
Build = Callable[..., Any]


@pytest.fixture
def browser(site: Site) -> Browser:
    return site.browser(hits=0)


# -- (b) the end of a successful request ----------------------------------------------------------------------------


def test_changes_without_a_commit_are_saved_and_rows_are_not(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.row("lost")
        request.store["a"] = 1

    assert browser.get(handler).failure is None
    assert site.rows() == []
    assert browser.read() == {"hits": 0, "a": 1}


def test_changes_before_an_applications_transaction_are_saved_without_it(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.row("lost")

    browser.get(handler)
    assert site.rows() == []
    assert browser.read()["a"] == 1


def streaming(
    work: Callable[[Request], object], *, fails: bool = False, commits: bool = False, rows: bool = False
) -> Callable[..., Iterator[bytes]]:
    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        if rows:
            request.row("streamed")
        start_response("200 OK", request.headers)
        work(request)
        yield b"one"
        work(request)
        if commits:
            request.connection.commit()
        if fails:
            raise RuntimeError("while streaming")
        yield b"two"

    return app


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("commits", [False, True])
def test_a_streamed_body_saves_what_it_changes(site: Site, browser: Browser, *, rows: bool, commits: bool) -> None:
    app = streaming(lambda request: request.store.increment("hits"), rows=rows, commits=commits)
    answer = browser.get(app, raw=True)
    assert answer.body == b"onetwo"
    assert browser.read() == {"hits": 2}
    assert site.rows() == (["streamed"] if rows and commits else [])


@pytest.mark.parametrize("rows", [False, True])
def test_a_new_session_in_a_streamed_body_has_the_cookie_that_was_promised(site: Site, *, rows: bool) -> None:
    browser = site.browser()
    answer = browser.get(streaming(lambda request: request.store.increment("hits"), rows=rows), raw=True)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"hits": 2}


def test_a_first_use_after_the_headers_makes_no_session(site: Site, events: Callable[[], list[str]]) -> None:
    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", request.headers)
        yield b"one"
        assert request.manager.created
        assert request.store.get("a") is None
        request.store["a"] = 1
        with pytest.raises(Exception, match="response has started"):
            request.manager.create()

    answer = site.browser().get(app, raw=True)
    assert answer.failure is None
    assert answer.cookies() == []
    assert site.stored() == 0


def test_start_response_may_come_with_the_first_chunk(site: Site) -> None:
    browser = site.browser()

    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        request.store["a"] = 1
        request.row("lost")
        start_response("200 OK", request.headers)
        yield b"late"

    answer = browser.get(app, raw=True)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"a": 1}
    assert site.rows() == []


def test_what_close_changes_is_saved(site: Site, browser: Browser) -> None:
    class Body:
        def __init__(self, request: Request) -> None:
            self.request = request

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            self.request.store["closed"] = True

    def app(request: Request, start_response: Any) -> Any:
        start_response("200 OK", request.headers)
        return Body(request)

    browser.get(app, raw=True)
    assert browser.read() == {"hits": 0, "closed": True}


# -- (c) an error ---------------------------------------------------------------------------------------------------


def failing(request: Request) -> None:
    request.row("lost")
    request.store["a"] = 1
    request.manager.setExpire(request.manager.expireTime + 50)
    raise RuntimeError("boom")


@pytest.mark.parametrize("place", ["none", "outside", "inside"])
def test_an_error_saves_nothing_and_sends_no_cookie(build: Build, place: str) -> None:
    from web.wsgi.error import Error  # noqa: PLC0415 (one test needs it)

    site = build(error=place == "outside", inner=Error if place == "inside" else lambda app: app)
    answer = site.browser().get(failing)
    if place != "none":
        assert answer.status.startswith("500")
    assert answer.cookies() == []
    assert site.rows() == []
    assert site.sql("SELECT name FROM sqlite_master WHERE name = 'testEnv_coatcheck_session'")
    assert site.stored() == 0
    browser = site.browser(hits=0)
    assert browser.get(failing).cookies() == []
    assert browser.read() == {"hits": 0}


@pytest.mark.parametrize("error", [False, True])
def test_an_error_while_streaming_saves_nothing_of_the_open_transaction(build: Build, *, error: bool) -> None:
    site = build(error=error)
    browser = site.browser(hits=0)
    app = streaming(lambda request: request.store.increment("hits"), fails=True, rows=True)
    assert isinstance(browser.get(app, raw=True).failure, RuntimeError)
    assert site.rows() == []
    assert browser.read() == {"hits": 0}


def test_a_sweep_after_an_error_saves_nothing(build: Build) -> None:
    site = build(cleanupProbability=1)
    browser = site.browser(hits=0)

    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        request.store.increment("hits")
        request.connection.commit()
        start_response("200 OK", request.headers)
        yield b"x"
        request.store.increment("hits", 100)
        raise RuntimeError

    browser.get(app, raw=True)
    assert browser.read() == {"hits": 1}


def test_an_error_keeps_a_destroyed_session_alive(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True)
        raise RuntimeError

    assert browser.get(handler).cookies() == []
    assert browser.read() == {"hits": 0}
