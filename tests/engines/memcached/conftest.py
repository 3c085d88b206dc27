"""Drivers of memcached, on the tests' common server or on servers of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from testservers import MemcachedServer
from testservers.engines import PATIENCE, with_options
from testservers.fixtures import need

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached import AsyncMemcachedDriver, MemcachedDriver
from coatcheck.drivers.memcached.requests import Request
from coatcheck.testing import Blocking


@pytest.fixture
def url(memcached_server: MemcachedServer, namespace: str) -> str:
    return with_options(memcached_server.url, prefix=namespace, timeout=PATIENCE)


@pytest.fixture(params=["sync", "async"])
def open_one(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Driver]]:
    """Opens drivers, synchronous or behind a synchronous face."""
    with ExitStack() as opened:

        def open_(url: str) -> Driver:
            driver = open_driver(url) if request.param == "sync" else Blocking(open_async_driver(url))
            opened.callback(driver.close)
            return driver

        yield open_


@pytest.fixture
def driver(open_one: Callable[[str], Driver], url: str) -> Driver:
    return open_one(url)


@pytest.fixture
def server(server_folder: Path, namespace: str) -> Iterator[Callable[..., MemcachedServer]]:
    """Starts servers of the test's own."""
    need(MemcachedServer)
    with ExitStack() as started:
        count = iter(range(10))
        yield lambda *extra: started.enter_context(
            MemcachedServer(server_folder / f"{namespace}-{next(count)}", extra=extra)
        )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What was asked of a server so far."""
    seen: list[Request] = []
    ask, ask_async = MemcachedDriver._ask, AsyncMemcachedDriver._ask

    def watched(self: MemcachedDriver, operation: str, request: Request) -> Any:
        seen.append(request)
        return ask(self, operation, request)

    async def watched_async(self: AsyncMemcachedDriver, operation: str, request: Request) -> Any:
        seen.append(request)
        return await ask_async(self, operation, request)

    monkeypatch.setattr(MemcachedDriver, "_ask", watched)
    monkeypatch.setattr(AsyncMemcachedDriver, "_ask", watched_async)
    return seen
