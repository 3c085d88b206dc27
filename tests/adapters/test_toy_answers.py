"""An adapter written from docs/adapters.md alone: streaming, outages and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from adapters.toy import TOY, serve, serve_async

from coatcheck import AsyncSessionManager, DriverUnavailable, SessionManager
from coatcheck.adapter import UNAVAILABLE
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.testing import AsyncFaultyDriver, FaultyDriver

Handler = Callable[[Any], Any]
TOKEN = "A" * 32


class SyncToy:
    """The synchronous adapter on storage that fails on demand."""

    def __init__(self) -> None:
        self.memory = MemoryDriver()
        self.storage: Any = FaultyDriver(self.memory)

    def serve(self, handler: Handler, secret: str | None = None) -> Any:
        return serve(SessionManager(self.storage), lambda request: handler(request.session), secret)

    def stream(self, handler: Handler) -> Handler:
        """A handler whose body calls *handler* while it is sent."""

        def body(session: Any) -> Any:
            yield b"head "
            yield str(handler(session)).encode()

        return lambda session: TOY["Answer"](200, body(session))


class AsyncToy(SyncToy):
    """The asynchronous adapter on the same, without or with eager loading."""

    def __init__(self, *, eager: bool) -> None:
        super().__init__()
        self.storage = AsyncFaultyDriver(AsyncMemoryDriver(self.memory))
        self.eager = eager

    def serve(self, handler: Handler, secret: str | None = None) -> Any:
        async def view(request: Any) -> Any:
            if not self.eager:
                await request.session.load()
            return handler(request.session)

        return serve_async(AsyncSessionManager(self.storage), view, secret, eager=self.eager)

    def stream(self, handler: Handler) -> Handler:
        async def body(session: Any) -> Any:
            yield b"head "
            yield str(handler(session)).encode()

        return lambda session: TOY["Answer"](200, body(session))


TOYS = {"sync": SyncToy, "async": lambda: AsyncToy(eager=False), "eager": lambda: AsyncToy(eager=True)}


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest) -> Any:
    return TOYS[request.param]()


def ok(said: object) -> Any:
    return TOY["Answer"](200, [str(said).encode()], [("X", "mine")])


def write(session: Any) -> Any:
    session["a"] = 1
    return ok("written")


def secret_of(served: Any) -> str:
    return next(value.partition("=")[2].partition(";")[0] for name, value in served.headers if name == "Set-Cookie")


def read(toy: Any, secret: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    toy.serve(lambda session: (found.update(session), ok(""))[1], secret)
    return found


def test_what_streams_goes_on_changing_a_session_that_exists(toy: Any) -> None:
    secret = secret_of(toy.serve(write))
    served = toy.serve(toy.stream(lambda session: session.update(b=2)), secret)
    assert (served.status, served.body) == ("200 OK", b"head None")
    assert read(toy, secret) == {"a": 1, "b": 2}


def test_what_streams_cannot_begin_a_session(toy: Any) -> None:
    served = toy.serve(toy.stream(lambda session: session.update(b=2)))
    assert (served.status, served.body) == ("200 OK", b"head None")
    assert not any(name == "Set-Cookie" for name, _ in served.headers)


@pytest.mark.parametrize("operation", ["load", "commit"])
def test_an_outage_is_a_503_that_leaves_the_cookie(toy: Any, operation: str) -> None:
    secret = secret_of(toy.serve(write))
    toy.storage.fail(operation)
    served = toy.serve(lambda session: ok(session.update(a=session["a"] + 1)), secret)
    assert (served.status, served.body) == ("503 Service Unavailable", UNAVAILABLE)
    assert dict(served.headers) == {"Retry-After": "5", "Cache-Control": "no-store"}
    toy.storage.heal()
    assert read(toy, secret) == {"a": 1}


@pytest.mark.parametrize("make", [SyncToy, lambda: AsyncToy(eager=True)], ids=["sync", "eager"])
def test_a_500_that_the_framework_made_of_an_outage_is_a_503(make: Callable[[], Any]) -> None:
    toy = make()

    def handler(session: Any) -> Any:
        try:
            return ok(session["a"])
        except Exception:  # noqa: BLE001 (as frameworks do)
            return TOY["Answer"](500, [b"oops"])

    secret = secret_of(toy.serve(write))
    toy.storage.fail("load")
    assert toy.serve(handler, secret).status == "503 Service Unavailable"


def test_an_outage_of_other_storage_is_not_ours(toy: Any) -> None:
    def handler(session: Any) -> Any:
        session["a"] = 2
        raise DriverUnavailable("other", "query", "down")

    secret = secret_of(toy.serve(write))
    with pytest.raises(DriverUnavailable, match="other"):
        toy.serve(handler, secret)
    assert read(toy, secret) == {"a": 1}


@pytest.mark.parametrize("make", [SyncToy, lambda: AsyncToy(eager=True)], ids=["sync", "eager"])
def test_a_page_without_a_session_is_served_in_an_outage(make: Callable[[], Any]) -> None:
    toy = make()
    toy.storage.fail("load", "create", "commit")
    served = toy.serve(lambda _session: ok("hello"), TOKEN)
    assert (served.status, served.headers) == ("200 OK", [("X", "mine")])
