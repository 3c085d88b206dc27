"""Memcached: with one of two servers down, whatever is new goes to the one that lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testservers import MemcachedServer
from testservers.fixtures import need

from coatcheck import AsyncSessionManager, SessionManager
from coatcheck.errors import DriverUnavailable

VISITORS = 16

Visit = Callable[[str | None, Callable[[dict[str, object]], object]], str | None]


@pytest.fixture
def servers(server_folder: Path, namespace: str) -> Iterator[list[MemcachedServer]]:
    need(MemcachedServer)
    with ExitStack() as stack:
        yield [stack.enter_context(MemcachedServer(server_folder / f"{namespace}-{number}")) for number in range(2)]


@pytest.fixture(params=["sync", "async"])
def visit(request: pytest.FixtureRequest, servers: list[MemcachedServer]) -> Iterator[Visit]:
    """Makes a request with a cookie or without one; returns the cookie that the client has then."""
    url = f"memcached://{','.join(server.address for server in servers)}?timeout=1"
    if request.param == "sync":
        manager = SessionManager(url)

        def visit(cookie: str | None, act: Callable[[dict[str, object]], object]) -> str | None:
            session = manager.open([cookie] if cookie else [])
            act(session)  # type: ignore[arg-type]  # a session is a mapping
            saved = manager.save(session)
            return saved.set_cookie.partition(";")[0] if saved.set_cookie else cookie

        yield visit
        manager.close()
        return
    with asyncio.Runner() as runner:
        asynchronous = AsyncSessionManager(url)

        async def visited(cookie: str | None, act: Callable[[dict[str, object]], object]) -> str | None:
            session = asynchronous.open([cookie] if cookie else [])
            await session.load()
            act(session)  # type: ignore[arg-type]  # a session is a mapping
            saved = await asynchronous.save(session)
            return saved.set_cookie.partition(";")[0] if saved.set_cookie else cookie

        yield lambda cookie, act: runner.run(visited(cookie, act))
        runner.run(asynchronous.close())


def seen(visit: Visit, cookie: str | None) -> object:
    found: list[object] = []
    visit(cookie, lambda session: found.append(session.get("n")))
    return found[0]


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_new_session_is_on_a_server_that_lives(servers: list[MemcachedServer], visit: Visit, fault: str) -> None:
    getattr(servers[0], fault)()
    for number in range(VISITORS):
        cookie = visit(None, lambda session: session.update(n=number))  # noqa: B023 (called at once)
        assert cookie is not None
        assert seen(visit, cookie) == number


def test_a_new_token_is_on_a_server_that_lives(servers: list[MemcachedServer], visit: Visit) -> None:
    """A log-in in a session that is on the server that lives, token and all, needs nothing of the other one."""
    servers[0].kill()
    cookies = [visit(None, lambda session: session.update(n=1)) for _ in range(4)]
    for cookie in cookies:
        before = cookie
        for _ in range(6):
            after = visit(before, lambda session: session.login("ada"))  # type: ignore[attr-defined]
            assert after not in (None, before)
            before = after


def test_a_session_of_a_server_that_is_down_is_not_made_anew(servers: list[MemcachedServer], visit: Visit) -> None:
    cookies = [visit(None, lambda session: session.update(n=1)) for _ in range(VISITORS)]
    servers[0].kill()
    failed = 0
    for cookie in cookies:
        try:
            assert seen(visit, cookie) == 1
        except DriverUnavailable:
            failed += 1
    assert 0 < failed < VISITORS
