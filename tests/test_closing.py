"""Managers, drivers and the middleware close by `with`, also when the block fails, and the middleware's settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from wsgiref.util import setup_testing_defaults

import pytest

from coatcheck import AsyncSessionManager, SessionManager, async_driver, driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.testing import Clock, FaultyDriver
from coatcheck.wsgi import SessionMiddleware

DIGEST: Final = b"d" * 32


def is_open(path: Path) -> bool:
    """Return whether this process has the database open."""
    links = []
    for handle in os.listdir("/proc/self/fd"):  # noqa: PTH208 (a scandir would be one handle more)
        with suppress(FileNotFoundError):  # the listing's own
            links.append(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: PTH115 (the same)
    return any(link.startswith(str(path)) for link in links)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def hello(environ: dict[str, Any], start: Any) -> list[bytes]:
    environ["coatcheck.session"]["seen"] = True
    start("200 OK", [])
    return [b"hello"]


def ask(app: Any, **more: Any) -> tuple[str, bytes]:
    environ: dict[str, Any] = {"wsgi.url_scheme": "https", **more}
    setup_testing_defaults(environ)
    answers: list[str] = []
    body = app(environ, lambda status, _headers, _exc_info=None: answers.append(status))
    return answers[-1], b"".join(body)


def use_driver(url: str) -> Any:
    return driver(url), lambda opened: opened.load(DIGEST, 1.0)


def use_manager(url: str) -> Any:
    def use(manager: SessionManager) -> None:
        session = manager.open()
        session["a"] = 1
        manager.save(session)

    return SessionManager(url), use


def use_middleware(url: str) -> Any:
    return SessionMiddleware(hello, url), ask


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", [use_driver, use_manager, use_middleware])
def test_with_closes(path: Path, make: Callable[[str], Any], *, fails: bool) -> None:
    thing, use = make(f"sqlite:///{path}")
    with suppress(ZeroDivisionError), thing as entered:
        assert entered is thing
        use(entered)
        assert is_open(path)
        if fails:
            raise ZeroDivisionError
    assert not is_open(path)
    use(thing)  # what was closed opens its storage again
    assert is_open(path)
    thing.close()
    assert not is_open(path)


def use_async_driver(url: str) -> Any:
    return async_driver(url), lambda opened: opened.load(DIGEST, 1.0)


def use_async_manager(url: str) -> Any:
    async def use(manager: AsyncSessionManager) -> None:
        session = manager.open()
        session["a"] = 1
        await manager.save(session)

    return AsyncSessionManager(url), use


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", [use_async_driver, use_async_manager])
def test_async_with_closes(path: Path, make: Callable[[str], Any], *, fails: bool) -> None:
    async def program() -> None:
        thing, use = make(f"sqlite:///{path}")
        with suppress(ZeroDivisionError):
            async with thing as entered:
                assert entered is thing
                await use(entered)
                assert is_open(path)
                if fails:
                    raise ZeroDivisionError
        assert not is_open(path)

    asyncio.run(program())


def test_the_key_of_the_session_can_be_chosen() -> None:
    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [str(sorted(key for key in environ if "session" in key)).encode()]

    assert ask(SessionMiddleware(app, "memory:", key="my.session")) == ("200 OK", b"['my.session']")
    assert ask(SessionMiddleware(app, "memory:")) == ("200 OK", b"['coatcheck.session']")


def reading(environ: dict[str, Any], start: Any) -> Any:
    seen = environ["coatcheck.session"].get("seen")
    start("200 OK", [])
    return [str(seen).encode()]


def streaming(environ: dict[str, Any], start: Any) -> Any:
    start("200 OK", [])
    yield str(environ["coatcheck.session"].get("seen")).encode()


def writing(environ: dict[str, Any], start: Any) -> Any:
    environ["coatcheck.session"]["seen"] = True
    start("200 OK", [("Content-Type", "text/plain")])(b"page")
    return []


def page(environ: dict[str, Any], start: Any) -> Any:
    assert "coatcheck.session" in environ
    start("503 Service Unavailable", [("Content-Type", "text/html"), ("Retry-After", "60")])
    yield b"<h1>Back "
    yield b"in a minute</h1>"


@pytest.mark.parametrize("app", [reading, streaming, writing])
@pytest.mark.parametrize("chosen", [False, True])
def test_the_answer_of_an_outage_can_be_chosen(app: Any, *, chosen: bool) -> None:
    storage = FaultyDriver(MemoryDriver())
    storage.fail("load", "create", "commit")
    site = SessionMiddleware(app, SessionManager(storage, clock=Clock()), on_unavailable=page if chosen else None)
    answers: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        answers.append((status, headers))
        return written.append

    environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTP_COOKIE": f"__Host-sid={'A' * 32}"}
    setup_testing_defaults(environ)
    body = site(environ, start)
    text = b"".join([*written, *body])
    if (close := getattr(body, "close", None)) is not None:
        close()
    ((status, headers),) = answers
    assert status == "503 Service Unavailable"
    assert (b"Back in a minute" in text) is chosen
    assert dict(headers)["Retry-After"] == ("60" if chosen else "5")
    assert not any(name == "Set-Cookie" for name, _ in headers)
