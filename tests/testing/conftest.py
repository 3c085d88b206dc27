"""A web application of one handler a request, on storage that tests get in front of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from coatcheck import Event, Policy, Session, SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Missing, Record
from coatcheck.testing import Clock
from coatcheck.token import Token
from coatcheck.wsgi import SessionMiddleware

Handler = Callable[[Session], object]


@dataclass
class Reply:
    """What a client gets."""

    status: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: Exception | None = None

    @property
    def cookie(self) -> str | None:
        return self.headers.get("Set-Cookie")

    @property
    def secret(self) -> str:
        assert self.cookie is not None
        return self.cookie.partition(";")[0].partition("=")[2]


def application(handler: Handler, shape: str) -> Any:
    """An application that *handler* answers for, with a body of that shape."""

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = environ["coatcheck.session"]
        if shape == "late":  # the session is used once before the headers, and written while the body streams
            assert session.is_new is not None
            start("200 OK", [("Content-Type", "text/plain")])
            return late(session)
        said = str(handler(session)).encode()
        write = start("200 OK", [("Content-Type", "text/plain")])
        if shape.startswith("write"):
            write(said)
            return [] if shape == "write" else iter([b""])
        return [said] if shape == "list" else iter([said, b""])

    def late(session: Session) -> Iterator[bytes]:
        yield b"head"
        yield str(handler(session)).encode()

    return app


class Web:
    """An application behind the middleware."""

    def __init__(self, driver: Driver, policy: Policy | None = None, clock: Clock | None = None) -> None:
        self.driver = driver
        self.clock = clock or Clock()
        self.events: list[Event] = []
        self.manager = SessionManager(driver, policy, listeners=[self.events.append], clock=self.clock)

    def ask(self, handler: Handler, secret: str | None = None, shape: str = "list") -> Reply:
        """Send a request that *handler* answers; give what came of it, an error that the server saw included."""
        environ: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https"}
        setup_testing_defaults(environ)
        if secret is not None:
            environ["HTTP_COOKIE"] = f"__Host-sid={secret}"
        reply = Reply()

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            reply.status, reply.headers = status, dict(headers)

            def write(data: bytes) -> None:
                reply.body += data

            return write

        body: Iterable[bytes] = ()
        try:
            try:
                body = SessionMiddleware(application(handler, shape), self.manager)(environ, start_response)
                if shape != "unread":
                    for chunk in body:
                        reply.body += chunk
            finally:
                if hasattr(body, "close"):
                    body.close()
        except Exception as error:  # noqa: BLE001 (the test says which)
            reply.error = error
        return reply

    def values(self, secret: str) -> dict[str, Any]:
        """What is stored, looked at with a manager of its own, past whatever stands before the driver."""
        return dict(SessionManager(self.below, clock=self.clock).open([f"__Host-sid={secret}"]))

    def found(self, secret: str) -> Record | Missing:
        """What storage has under a token, at this moment."""
        return self.below.load(Token(secret).digest, self.clock.now)

    @property
    def below(self) -> Driver:
        """The driver that does the work."""
        return getattr(self.driver, "_driver", self.driver)


@pytest.fixture
def web() -> Callable[..., Web]:
    """An application of the test's own making."""
    return Web


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """Empty storage."""
    driver: Driver = MemoryDriver() if request.param == "memory" else SQLiteDriver(tmp_path / "sessions.db")
    driver.setup()
    yield driver
    driver.close()
