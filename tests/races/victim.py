"""A process that writes to sessions until it is killed: `python victim.py URL COOKIE ROLE NAME FIRST`.

Each response that a client would have received is told in one line on standard output before the next request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

from coatcheck import Session
from coatcheck.wsgi import SessionMiddleware

PAD = "x" * 300


class Browser:
    """Sends requests through the middleware and keeps the cookie of what was answered."""

    def __init__(self, url: str, cookie: str) -> None:
        self.cookie = cookie
        self.handler: Callable[[Session], object] = bool
        self.site = SessionMiddleware(self._app, url)

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.handler(environ["coatcheck.session"])
        start_response("200 OK", [])
        return [b"done"]

    def send(self, handler: Callable[[Session], object]) -> None:
        self.handler = handler
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTP_COOKIE": self.cookie}
        setup_testing_defaults(environ)
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        body = self.site(environ, lambda *answer: answers.append(answer[:2]))  # type: ignore[arg-type]
        list(body)
        if close := getattr(body, "close", None):
            close()
        ((status, headers),) = answers
        assert status == "200 OK", status
        if (cookie := dict(headers).get("Set-Cookie")) is not None:
            self.cookie = cookie.partition(";")[0]


def tell(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")  # one write: a line is there or not


def writer(browser: Browser, name: str, n: int) -> None:
    """Change a pair of values and a counter of everybody's in one request, and append to a list in the next."""

    def pair(session: Session) -> None:
        session[f"{name}-left"] = session[f"{name}-right"] = f"{n} {PAD}"
        session.increment("total")

    def append(session: Session) -> None:
        session.setdefault(f"{name}-list", []).append(n)

    browser.send(pair if n % 2 else append)
    tell("wrote", n)


def rotator(browser: Browser, name: str, n: int) -> None:
    """Change a pair of values together with the token."""

    def rotate(session: Session) -> None:
        session[f"{name}-left"] = session[f"{name}-right"] = f"{n} {PAD}"
        session.rotate()

    before = browser.cookie
    browser.send(rotate)
    assert browser.cookie != before
    tell("rotated", n, browser.cookie)


def leaver(browser: Browser, name: str, n: int) -> None:
    """Log in and out again."""

    def arrive(session: Session) -> None:
        session.login(f"user-{name}")
        session[f"{name}-left"] = session[f"{name}-right"] = f"{n} {PAD}"

    browser.cookie = ""
    browser.send(arrive)
    mine = browser.cookie
    tell("arrived", n, mine)
    browser.send(lambda session: session.logout())
    tell("left", n, mine)


ROLES = {"writer": writer, "rotator": rotator, "leaver": leaver}


def main(url: str, cookie: str, role: str, name: str, first: str) -> None:
    browser = Browser(url, cookie)
    n = int(first)
    while True:
        n += 1
        ROLES[role](browser, name, n)


if __name__ == "__main__":
    main(*sys.argv[1:])
