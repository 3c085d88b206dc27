"""Cookies and error pages over plain http on this machine, and several cookies of one name, with a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from coatcheck import Policy, SessionManager
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.wsgi import SessionMiddleware
from web.wsgi import error

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Log in with ?login=NAME, log out with ?logout, count visits with ?visit; say who is logged in."""
    session, query = environ["coatcheck.session"], environ["QUERY_STRING"]
    if query.startswith("login="):
        session.login(query.removeprefix("login="))
    elif query == "logout":
        session.logout()
    elif query == "visit":
        session.increment("visits")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session.user} {session.get('visits')}".encode()]


class _Threads(ThreadingMixIn, WSGIServer):
    """A thread for each connection: Chromium opens some that it does not use yet."""

    daemon_threads = True


class Site:
    """One server whose application is changed between requests."""

    def __init__(self) -> None:
        self.application: Any = None
        self.driver = MemoryDriver()

        def serve(environ: dict[str, Any], start_response: Any) -> Any:
            return self.application(environ, start_response)

        self.server = make_server("127.0.0.1", 0, serve, _Threads, _Quiet)
        self.port = self.server.server_address[1]

    def use(self, policy: Policy) -> None:
        self.application = SessionMiddleware(page, SessionManager(self.driver, policy))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def get(browser: Chrome, site: Site) -> Callable[[str, str], str]:
    """A function that goes to a page of a host and gives its text."""

    def go(host: str, target: str) -> str:
        browser.get(f"http://{host}:{site.port}{target}")
        return browser.find_element("tag name", "body").text

    return go


def names(browser: Chrome) -> list[str]:
    """Return the names of all cookies of the browser, whatever their host and path."""
    found = browser.execute_cdp_cmd("Storage.getCookies", {})["cookies"]
    return [cookie["name"] for cookie in found]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "app.localhost"])
@pytest.mark.parametrize("allowed", [False, True])
def test_this_machine_keeps_the_session_over_plain_http(
    browser: Chrome, site: Site, get: Callable[[str, str], str], host: str, *, allowed: bool
) -> None:
    site.use(Policy(insecure_http=allowed))
    assert [get(host, "/?visit") for _ in range(3)] == ["None 1", "None 2", "None 3"]
    assert names(browser) == ["sid" if allowed else "__Host-sid"]


HOST = "www.app.localhost"
CASES = {
    "domain": (Policy(path="/app"), HOST, Policy(path="/app", domain="app.localhost"), "shop.app.localhost"),
    "path": (Policy(path="/app/x"), HOST, Policy(path="/app"), HOST),
    "partitioned": (Policy(), HOST, Policy(partitioned=True), HOST),
    "plain": (
        Policy(insecure_http=True), HOST, Policy(insecure_http=True, domain="app.localhost"), "shop.app.localhost",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("act", ["login=ann", "visit", "logout"])
def test_of_several_live_cookies_one_is_left(
    browser: Chrome, site: Site, get: Callable[[str, str], str], case: tuple[Policy, str, Policy, str], act: str
) -> None:
    then, first, now, second = case
    site.use(then)
    assert get(first, "/app/x/?login=ada").startswith("ada")
    site.use(now)
    # The second session is made where the first cookie does not come along, or it would be taken over.
    elsewhere = "/app/y" if then.path == "/app/x" else "/app/x/"
    if now.partitioned:
        token = SessionManager(site.driver)
        other = token.open([])
        other.login("grace")
        value = str(token.save(other).set_cookie)
        browser.execute_cdp_cmd(
            "Network.setCookie",
            {
                "name": "__Host-sid", "value": value.partition(";")[0].partition("=")[2], "url": f"https://{HOST}/",
                "path": "/", "secure": True, "httpOnly": True, "sameSite": "Lax",
                "partitionKey": {"topLevelSite": "http://app.localhost", "hasCrossSiteAncestor": False},
            },
        )  # fmt: skip
    else:
        assert get(second, f"{elsewhere}?login=grace").startswith("grace")
    assert len(names(browser)) == 2
    assert get(HOST, "/app/x/") == "None None"
    get(HOST, f"/app/x/?{act}")
    assert get(HOST, "/app/x/") == {"login=ann": "ann None", "visit": "None 1", "logout": "None None"}[act]
    assert len(names(browser)) == (0 if act == "logout" else 1)


def test_a_browser_on_this_machine_sees_the_traceback(site: Site, get: Callable[[str, str], str]) -> None:
    def failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError("this went wrong")

    site.application = error.Error(failing)
    assert "this went wrong" in get("127.0.0.1", "/")
    assert "this went wrong" in get("localhost", "/")
