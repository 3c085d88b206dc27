"""A small web application on real storage, in which one request can be made to run in the middle of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from coatcheck import Event, Policy, Session, SessionManager
from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Driver
from coatcheck.token import Token
from coatcheck.wsgi import SessionMiddleware

Handler = Callable[[Session], object]


@dataclass
class Answer:
    """What a client sees of a response."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def set_cookies(self) -> list[str]:
        return [value for name, value in self.headers if name == "Set-Cookie"]


@dataclass
class Browser:
    """A client with a cookie jar for one cookie."""

    site: Site
    secret: str | None = None

    def get(self, handler: Handler, *, keep_cookie: bool = True) -> Answer:
        """Send a request that *handler* answers; take its cookie unless told not to."""
        answer = self.site.request(handler, self.secret)
        for cookie in answer.set_cookies if keep_cookie else ():
            value = cookie.partition(";")[0].partition("=")[2]
            self.secret = None if "Max-Age=0" in cookie else value
        return answer

    def read(self) -> dict[str, Any]:
        """Give what the session holds, as the next request sees it."""
        found: dict[str, Any] = {}
        self.get(found.update)
        return found


@dataclass
class Site:
    """An application whose handler comes with each request."""

    driver: Driver
    policy: Policy = field(default_factory=Policy)
    now: float = 1_800_000_000.0
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager = SessionManager(self.driver, self.policy, listeners=[self.events.append], clock=lambda: self.now)

    def browser(self) -> Browser:
        return Browser(self)

    def request(self, handler: Handler, secret: str | None) -> Answer:
        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            result = handler(environ["coatcheck.session"])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(result).encode()]

        return self.serve(app, secret)

    def serve(self, app: Any, secret: str | None) -> Answer:
        """Send a request to an application behind the middleware."""
        environ: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https"}
        setup_testing_defaults(environ)
        if secret is not None:
            environ["HTTP_COOKIE"] = f"__Host-sid={secret}"
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answers.append((status, headers))
            return written.append

        result = SessionMiddleware(app, self.manager)(environ, start_response)
        body = b"".join(written) + b"".join(result)
        if close := getattr(result, "close", None):
            close()
        return Answer(*answers[-1], body)

    def is_alive(self, secret: str) -> bool:
        """Tell whether storage still opens a session for this token."""
        from coatcheck.record import Record  # noqa: PLC0415 (a word of storage, used here only)

        return isinstance(self.driver.load(Token(secret).digest, self.now), Record)


@pytest.fixture(params=["memory", "sqlite"])
def site(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Site]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
    driver = open_driver(url)
    driver.setup()
    yield Site(driver)
    driver.close()
