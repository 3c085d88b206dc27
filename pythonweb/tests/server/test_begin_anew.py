"""After its session ended, a real browser begins anew at once: a form with a CSRF token works at the first try."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from testservers.engines import PATIENCE, Engine, params

from coatcheck import SessionManager
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

PAGE = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{0}</title></head><body>{1}</body>'
LOG_IN = """<form method="post" action="/login"><input type="hidden" name="csrf" value="{}">
<button>Log in</button></form>"""
LOG_OUT = '<form method="post" action="/logout"><button>Log out</button></form>'

# The second click comes when the server has ended the session and before the browser has heard of it.
CLICK_TWICE = """
const form = document.forms[0];
form.requestSubmit();
fetch("/ended").then(() => form.requestSubmit());
"""


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A log-in with a CSRF token in the session, and a log-out."""
    session: Any = environ["coatcheck.session"]
    request = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
    status, page = "200 OK", ""
    if request == ("GET", "/"):
        if session.user is None:
            page = PAGE.format("Log in", LOG_IN.format(session.setdefault("csrf", secrets.token_hex())))
        else:
            page = PAGE.format(f"Hello {session.user}", LOG_OUT)
    elif request == ("POST", "/login"):
        form = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
        if form["csrf"] == [session.get("csrf")]:
            session.login("ada")
            status = "303 See Other"
        else:
            status, page = "403 Forbidden", PAGE.format("Forbidden", "")
    elif request == ("POST", "/logout"):
        session.logout()
        status = "303 See Other"
    else:
        status = "404 Not Found"
    location = [("Location", "/")] if status.startswith("303") else []
    start_response(status, [("Content-Type", "text/html; charset=utf-8"), *location])
    return [page.encode()]


class Gate:
    """Holds back the reply to the first of two log-outs until the second one has come.

    Attributes:
        is_shut: Whether it does so; otherwise everything passes.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self.is_shut = False
        self._ended, self._again = threading.Event(), threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ended":
            assert self._ended.wait(PATIENCE)
            start_response("204 No Content", [])
            return []
        body = list(self._application(environ, start_response))  # waitress sends the headers with the first piece
        if self.is_shut and environ["PATH_INFO"] == "/logout":
            if not self._ended.is_set():
                self._ended.set()
                assert self._again.wait(PATIENCE)
            else:
                self._again.set()
        return body


@contextmanager
def served(application: WSGIApplication) -> Iterator[str]:
    """Serve an application by waitress, with threads; its address."""
    from waitress import wasyncore  # type: ignore[import-untyped]  # noqa: PLC0415
    from waitress.server import create_server  # type: ignore[import-untyped]  # noqa: PLC0415

    server = create_server(application, host="127.0.0.1", port=0, threads=8)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            wasyncore.loop(timeout=0.1, map=server._map, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://localhost:{server.effective_port}/"
    finally:
        over.set()
        thread.join()


@pytest.fixture(params=[one for one in params("sqlite", "redis") if not one.id.endswith("-async")])
def engine(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Iterator[Engine]:
    """An engine with empty storage that is not set up."""
    row = request.param
    engine = Engine.of(row, request.getfixturevalue(row.server) if row.server else None, namespace, tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def manager(engine: Engine) -> Iterator[SessionManager]:
    driver = engine.open()
    driver.setup()
    with closing(SessionManager(driver)) as manager:
        yield manager


def title(browser: Chrome) -> str:
    return str(browser.execute_script("return document.title"))


def wait_for_title(browser: Chrome, wanted: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    WebDriverWait(browser, PATIENCE).until(lambda _: title(browser) in {wanted, "Forbidden"})
    assert title(browser) == wanted


def log_in(browser: Chrome, url: str) -> None:
    """Fill in the form at the first try."""
    browser.get(url)
    assert title(browser) == "Log in"
    browser.find_element("css selector", "button").click()
    wait_for_title(browser, "Hello ada")
    browser.get(url)
    assert title(browser) == "Hello ada"


def test_after_a_double_click_on_log_out(browser: Chrome, manager: SessionManager) -> None:
    """The second click sends the token that the first one ended; its reply is the one that the browser reads."""
    gate = Gate(SessionMiddleware(site, manager))
    with served(gate) as url:
        log_in(browser, url)
        gate.is_shut = True
        browser.execute_script(CLICK_TWICE)
        wait_for_title(browser, "Log in")
        gate.is_shut = False
        log_in(browser, url)


def test_after_many_double_clicks_as_they_come(browser: Chrome, manager: SessionManager) -> None:
    from selenium.webdriver import ActionChains  # noqa: PLC0415

    with served(SessionMiddleware(site, manager)) as url:
        for _ in range(8):
            log_in(browser, url)
            button = browser.find_element("css selector", "button")
            ActionChains(browser).double_click(button).perform()
            wait_for_title(browser, "Log in")


def test_a_log_in_right_after_the_user_was_revoked(browser: Chrome, manager: SessionManager) -> None:
    """From another device, so that this browser still has its token."""
    with served(SessionMiddleware(site, manager)) as url:
        for act in (lambda: manager.revoke_user("ada"), lambda: manager.revoke_user("ada", keep="another device")):
            log_in(browser, url)
            assert act() == 1
            log_in(browser, url)
            browser.find_element("css selector", "button").click()
            wait_for_title(browser, "Log in")
