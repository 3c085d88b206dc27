"""An adapter written from docs/adapters.md alone: the end of a session at every step of a request in flight.

The table is that of tests/testing/test_forced_steps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from adapters.toy import plain, plain_async, serve, serve_async
from testing import test_forced_steps as table
from testing.conftest import Handler, Reply, Web

from coatcheck import AsyncSessionManager
from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver

T = TypeVar("T")

storage = table.storage
globals().update(
    {name: test for name, test in vars(table).items() if name.startswith("test_") and "web" in test.__annotations__}
)


class SteppedDriver(AsyncFace):
    """The driver under the test, for an event loop: each step runs in the loop's own thread."""

    name = "stepped"
    capabilities = MemoryDriver.capabilities

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        return call()


class ToyWeb(Web):
    """An application of the toy framework."""

    def serve(self, handler: Handler, secret: str | None) -> Any:
        return serve(self.manager, plain(handler), secret)

    def ask(self, handler: Handler, secret: str | None = None, shape: str = "list") -> Reply:
        reply = Reply()
        try:
            served = self.serve(handler, secret)
        except Exception as error:  # noqa: BLE001 (the test says which)
            reply.error = error
        else:
            reply.status, reply.headers, reply.body = served.status, dict(served.headers), served.body
        return reply


class AsyncToyWeb(ToyWeb):
    """An application of the asynchronous toy framework."""

    def serve(self, handler: Handler, secret: str | None) -> Any:
        manager = AsyncSessionManager(
            SteppedDriver(self.driver), self.manager.policy, listeners=[self.events.append], clock=self.clock
        )
        return serve_async(manager, plain_async(handler), secret, eager=False)


@pytest.fixture(params=[ToyWeb, AsyncToyWeb])
def web(request: pytest.FixtureRequest) -> Any:
    return request.param
