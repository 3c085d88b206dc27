"""Several cookies of the session's name: a domain or path that was changed leaves the old one in browsers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsers import Jar

Build = Callable[..., Any]
Request = Any

PAGE = "www.example.org/shop/page"


class Client:
    """A browser that tells cookies apart as browsers do."""

    def __init__(self, scheme: str) -> None:
        self.jar = Jar()
        self.url = f"{scheme}://{PAGE}"

    def get(self, site: Any, handler: Callable[[Request], Any]) -> bytes:
        target = urlsplit(self.url)
        answer = site.request(
            handler, self.jar.header(self.url), scheme=target.scheme, HTTP_HOST=target.netloc, PATH_INFO=target.path
        )
        assert answer.failure is None
        self.jar.take(self.url, *answer.cookies())
        body: bytes = answer.body
        return body


def save(request: Request, commits: bool) -> None:  # noqa: FBT001
    request.store["who"] = "me"
    if commits:
        request.connection.commit()


@pytest.fixture(params=["http", "https"])
def client(request: pytest.FixtureRequest, build: Build) -> tuple[Client, Any]:
    """A browser with two live cookies, and the site as it is now."""
    client = Client(request.param)
    client.get(build(path="/shop"), lambda request: request.store.set("who", "then"))
    aside = Client(request.param)
    site = build(path="/shop", domain="example.org")
    aside.get(site, lambda request: request.store.set("who", "now"))
    client.jar.held.update(aside.jar.held)
    assert str(client.jar.header(client.url)).count("testEnv=") == 2
    assert site.stored() == 2
    return client, site


@pytest.mark.parametrize("commits", [False, True])
def test_a_new_session_is_the_only_one_that_the_browser_keeps(client: tuple[Client, Any], *, commits: bool) -> None:
    browser, site = client
    browser.get(site, lambda request: save(request, commits))
    assert len(browser.jar.held) == 1
    assert browser.get(site, lambda request: request.store.get("who")) == b"me"
    assert site.stored() == 3


@pytest.mark.parametrize("first", ["nothing", "write", "write, commit"])
def test_destroy_ends_all_whose_cookies_came(client: tuple[Client, Any], first: str) -> None:
    browser, site = client

    def handler(request: Request) -> None:
        if first != "nothing":
            save(request, commits="commit" in first)
        request.manager.destroy(ignoreWarning=True)

    browser.get(site, handler)
    assert browser.jar.held == {}
    assert site.stored() == 0


@pytest.mark.parametrize("way", ["deleteCookie", "setCookie", "response_headers"])
def test_a_cookie_by_hand_replaces_all(client: tuple[Client, Any], way: str) -> None:
    browser, site = client

    def handler(request: Request) -> None:
        request.store["who"] = "me"
        if way == "response_headers":
            request.headers.extend(request.manager.response_headers)
        else:
            getattr(request.manager, way)()

    browser.get(site, handler)
    assert len(browser.jar.held) == (0 if way == "deleteCookie" else 1)
    if browser.jar.held:
        assert browser.get(site, lambda request: request.store.get("who")) == b"me"


SCRIPT = """
import web.session
driver = web.session.driver('database', environment='site', url='sqlite:///site.db')
if not driver.completeSessionEnvironment():
    driver.createSessionEnvironment()
manager = web.session.manager(driver, path='/shop', domain=%r, expire=50)
%s
print('Content-type: text/plain\\n')
"""


def test_in_a_cgi_script(tmp_path: Path) -> None:
    def run(domain: str, act: str, jar: Jar) -> None:
        text = SCRIPT % (domain, act)
        environ = {"HTTP_HOST": "www.example.org", "SCRIPT_NAME": "/shop/page", "HTTPS": "on"}
        environ["HTTP_COOKIE"] = jar.header(f"https://{PAGE}") or ""
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, env=os.environ | environ, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        jar.take(f"https://{PAGE}", *re.findall(r"^Set-Cookie: (.*)$", done.stdout, re.MULTILINE))

    browser, aside = Jar(), Jar()
    run("", "manager.create()\nmanager.sendCookieHeaders()", browser)
    run("example.org", "manager.create()\nmanager.sendCookieHeaders()", aside)
    browser.held.update(aside.held)
    run("example.org", "assert not manager.load()\nmanager.create()\nmanager.sendCookieHeaders()", browser)
    assert len(browser.held) == 1
    run("example.org", "assert manager.load()", browser)
