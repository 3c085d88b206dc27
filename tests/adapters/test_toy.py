"""An adapter written from docs/adapters.md alone: whole requests that run in the middle of others.

The table is that of tests/races/test_forced.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters.toy import plain, plain_async, serve, serve_async
from races import test_forced as table
from races.conftest import Answer, Handler, Site

from coatcheck import AsyncSessionManager, async_driver, driver
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver

globals().update({name: test for name, test in vars(table).items() if name.startswith("test_")})


class ToySite(Site):
    """A site of the toy framework."""

    def request(self, handler: Handler, secret: str | None) -> Answer:
        served = serve(self.manager, plain(handler), secret)
        return Answer(served.status, served.headers, served.body)


class AsyncToySite(Site):
    """A site of the asynchronous toy framework. Its handlers run in a thread, its requests in an event loop."""

    async_driver: AsyncDriver
    eager = False

    def request(self, handler: Handler, secret: str | None) -> Answer:
        manager = AsyncSessionManager(
            self.async_driver, self.policy, listeners=[self.events.append], clock=lambda: self.now
        )
        served = serve_async(manager, plain_async(handler), secret, eager=self.eager)
        return Answer(served.status, served.headers, served.body)


def _memory(_folder: Path) -> tuple[Driver, AsyncDriver]:
    storage = MemoryDriver()
    return storage, AsyncMemoryDriver(storage)


def _sqlite(folder: Path) -> tuple[Driver, AsyncDriver]:
    url = f"sqlite:///{folder}/sessions.db"
    return driver(url), async_driver(url)


SITES = {
    "memory": (_memory, ToySite),
    "sqlite": (_sqlite, ToySite),
    "async-memory": (_memory, AsyncToySite),
    "async-sqlite": (_sqlite, AsyncToySite),
}


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    make, kind = SITES[request.param]
    storage, async_storage = make(tmp_path)
    storage.setup()
    made: Any = kind(storage)
    made.async_driver = async_storage
    yield made
    storage.close()


@pytest.mark.parametrize("end", table.ENDERS)
@pytest.mark.parametrize("in_flight", [table.blind_writer, table.incrementer, table.writer, table.reader])
def test_loaded_eagerly_a_request_knows_what_it_had(
    tmp_path: Path, in_flight: Callable[..., object], end: Callable[..., None]
) -> None:
    storage, async_storage = _memory(tmp_path)
    site: Any = AsyncToySite(storage)
    site.async_driver, site.eager = async_storage, True
    browser = site.browser()
    table.log_in(browser)
    browser.get(lambda session: session.update(count=1, list=[1]))
    secret = browser.secret
    answer = browser.get(lambda session: in_flight(session, lambda: end(site, browser)), keep_cookie=False)
    assert (answer.status, answer.body, answer.set_cookies) == ("200 OK", b"True", [])
    assert not site.is_alive(secret)
