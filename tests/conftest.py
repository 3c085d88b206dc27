"""What the tests of sessions share: storage that keeps count and fails on demand, a clock, clients with a cookie."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from coatcheck import Codec, Event, EventKind, Policy, Session, SessionManager
from coatcheck.adapter import Saved
from coatcheck.cookie import Channel
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Value, ValueKey
from coatcheck.testing import Clock
from coatcheck.token import Token
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

OPERATIONS: Final = frozenset({"load", "create", "commit", "rotate", "revoke", "revoke_user", "sessions_of", "sweep"})


class WatchedDriver(MemoryDriver):
    """Sessions in memory, with every operation noted.

    Attributes:
        calls: The operations asked for so far, and what they were asked with.
        down: Operations that fail.
        before: What to do first, once, when an operation is asked for: another request that gets in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.down: frozenset[str] = frozenset()
        self.before: dict[str, Callable[[], object]] = {}

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in OPERATIONS:
            return found

        def noted(*args: Any, **more: Any) -> Any:
            if (first := self.before.pop(name, None)) is not None:
                first()
            self.calls.append((name, args))
            if name in self.down:
                raise DriverUnavailable("memory", name, "down on purpose")
            return found(*args, **more)

        return noted

    @property
    def asked(self) -> list[str]:
        """The names of the operations asked for so far."""
        return [name for name, _ in self.calls]

    @property
    def stored(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    def values(self) -> dict[ValueKey, Value]:
        """The values of the only session."""
        (held,) = self._sessions.values()
        return held.values


class House:
    """One configured manager, with all that it works on within reach."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        driver: WatchedDriver | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.driver: Final = driver or WatchedDriver()
        self.clock: Final = clock or Clock()
        self.events: Final[list[Event]] = []
        self.manager: Final = SessionManager(
            self.driver, policy, codec=codec, listeners=[self.events.append], clock=self.clock
        )

    def client(self, channel: Channel = Channel.SECURE) -> Client:
        """A client who was never here."""
        return Client(self, channel)

    def visitor(self, **values: Any) -> Client:
        """A client who has a session with *values* in it."""
        client = self.client()
        with client.request() as session:
            session.update(values or {"seed": "here"})
        self.forget()
        return client

    def forget(self) -> None:
        """Start to count anew."""
        self.driver.calls.clear()
        self.events.clear()

    def kinds(self) -> Counter[EventKind]:
        """How often each kind of event happened."""
        return Counter(event.kind for event in self.events)


class Client:
    """A client that keeps one cookie, as a browser does.

    Attributes:
        cookie: ``name=value``, or None.
        replies: The Set-Cookie of each answer, or None.
    """

    def __init__(self, house: House, channel: Channel = Channel.SECURE, cookie: str | None = None) -> None:
        self.house = house
        self.channel = channel
        self.cookie = cookie
        self.replies: list[str | None] = []

    def twin(self) -> Client:
        """Another request of the same browser, on its way at the same time."""
        return Client(self.house, self.channel, self.cookie)

    def open(self) -> Session:
        """Begin a request."""
        return self.house.manager.open(() if self.cookie is None else (self.cookie,), self.channel)

    def answer(self, session: Session) -> Saved:
        """End a request, and keep the cookie that comes with the answer."""
        saved = self.house.manager.save(session)
        self.replies.append(saved.set_cookie)
        if saved.set_cookie is not None:
            pair, _, attributes = saved.set_cookie.partition(";")
            self.cookie = None if "Max-Age=0;" in attributes else pair
        return saved

    @contextmanager
    def request(self) -> Iterator[Session]:
        """One request from beginning to end."""
        session = self.open()
        yield session
        self.answer(session)

    def read(self) -> dict[str, Any]:
        """All values of the default store."""
        with self.request() as session:
            return session.copy()

    @property
    def secret(self) -> str:
        """The token in the cookie."""
        assert self.cookie is not None
        return self.cookie.partition("=")[2]

    @property
    def token(self) -> Token:
        """The same with its digest."""
        return Token(self.secret)


@dataclass
class Reply:
    """What a server gets to send."""

    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """The values of every header called *name*."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def cookie(self) -> str | None:
        """What the one Set-Cookie header says, or None."""
        said = self.all("Set-Cookie")
        assert len(said) <= 1, said
        return said[0] if said else None


class Site:
    """A server with one application behind the middleware, as strict as PEP 3333 lets it be.

    Attributes:
        last: What the last request has sent so far, errors or not.
    """

    def __init__(self, house: House, app: WSGIApplication, *, checked: bool = True) -> None:
        self.house = house
        middleware = SessionMiddleware(app, house.manager)
        self._app: WSGIApplication = validator(middleware) if checked else middleware
        self.last = Reply()

    def start(self, cookie: str | None = None, **environ: str) -> Iterable[bytes]:
        """Begin a request and give its body."""
        env: dict[str, Any] = {"wsgi.url_scheme": "https", "QUERY_STRING": "", **environ}
        if cookie is not None:
            env["HTTP_COOKIE"] = cookie
        setup_testing_defaults(env)
        env["wsgi.errors"] = sys.stderr
        reply = self.last = Reply()

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            if exc_info is not None and reply.body:
                raise exc_info[1].with_traceback(exc_info[2])
            assert exc_info is not None or not reply.status, "start_response called twice"
            reply.status, reply.headers = status, headers
            return write

        def write(data: bytes) -> None:
            assert reply.status
            reply.body += data

        return self._app(env, start_response)

    def get(self, cookie: str | None = None, **environ: str) -> Reply:
        """One request from beginning to end, body closed whatever happens."""
        body = self.start(cookie, **environ)
        try:
            for chunk in body:
                assert self.last.status, "a body before start_response"
                self.last.body += chunk
        finally:
            if hasattr(body, "close"):
                body.close()
        assert self.last.status
        return self.last


@pytest.fixture
def site() -> Callable[..., Site]:
    """A server with one application behind the middleware."""
    return Site


@pytest.fixture
def build() -> Callable[..., House]:
    """A manager of the test's own making."""
    return House


@pytest.fixture
def house() -> House:
    """A manager with the default policy."""
    return House()
