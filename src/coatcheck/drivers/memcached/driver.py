"""The memcached drivers: one for synchronous programs, one for asynchronous ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

from coatcheck.drivers._pool import AsyncPool, PerLoop, PerProcess, Pool
from coatcheck.drivers._steps import AsyncSteppedDriver, SteppedDriver, Steps, drive, drive_async
from coatcheck.drivers.base import Capability
from coatcheck.drivers.memcached.common import (
    AT_RISK,
    CAPABILITIES,
    DEFAULT_TIMEOUT,
    FAILURES,
    MOST_CONNECTIONS,
    MemcachedCall,
    Node,
    Patience,
    Setup,
    arguments_in,
)
from coatcheck.drivers.memcached.connect import MemcachedLink, connected, connected_async
from coatcheck.drivers.memcached.operations import NAME, MemcachedOperations
from coatcheck.drivers.memcached.requests import Contended, Request
from coatcheck.drivers.memcached.wire import Refused

__all__ = ["AsyncMemcachedDriver", "MemcachedDriver"]

T = TypeVar("T")


class MemcachedDriver(SteppedDriver):
    """Sessions in memcached.

    Nothing is connected to before the first use. Sessions are spread over the servers; a server that is down makes its
    sessions unavailable, and never ends them or has them made anew elsewhere.

    Args:
        servers: The servers, `host:port,host:port`; the port is 11211 where there is none. All programs have to give
            the same ones.
        prefix: What all keys start with.
        timeout: Seconds for each exchange with a server.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES
    at_risk = AT_RISK

    def __init__(self, servers: str, *, prefix: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        self._setup: Final = Setup(servers, prefix, timeout)
        self._operations: MemcachedOperations = self._setup.operations
        self._servers: Final = self._setup.servers
        self._timeout: Final = self._setup.timeout
        self._pools: Final = tuple(map(_pools_of, self._servers))

    @classmethod
    def from_url(cls, url: str) -> MemcachedDriver:
        """Make a driver from a URL: `memcached://host:port,host:port?prefix=x&timeout=2`.

        Raises:
            ConfigurationError: The URL has another form, or an option that is unknown or bad.
        """
        servers, options = arguments_in(url)
        return cls(servers, **options)

    def advice(self) -> list[str]:
        return self._carry_out("advice", self._operations.advice)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self._setup.takes(digest, sid)

    def close(self) -> None:
        """Close the connections of this process: idle ones now, others when they come back. It may be used again."""
        for pools in self._pools:
            pools.close()

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        patience = Patience(operation, self._timeout)

        def perform(request: Request | Contended) -> Any:
            return time.sleep(patience.pause()) if isinstance(request, Contended) else self._ask(operation, request)

        return drive(begin(), perform)

    def _ask(self, operation: str, request: Request) -> Any:
        call = MemcachedCall(operation, self._servers[request.server], request, self._timeout)
        pool = self._pools[request.server].here()
        while True:
            try:
                return call.answered(self._exchanged(pool, call))
            except FAILURES as error:
                if not isinstance(error, Refused):
                    pool.doubt(call.began)
                call.failed(error)

    def _exchanged(self, pool: Pool[MemcachedLink], call: MemcachedCall) -> Any:
        pool.enter(call.deadline)
        try:
            call.enters()
            link = pool.get(call.deadline)
            call.sends(is_reused=link.is_reused)
            try:
                return link.ask(call.request, call.deadline)
            finally:
                pool.push(link)
        finally:
            pool.leave()


def _pools_of(server: Node) -> PerProcess[Pool[MemcachedLink]]:
    def opened(deadline: float) -> MemcachedLink:
        return connected(server.host, server.port, deadline)

    return PerProcess(lambda: Pool(opened, MOST_CONNECTIONS))


class AsyncMemcachedDriver(AsyncSteppedDriver):
    """Sessions in memcached, for an asynchronous program; see `MemcachedDriver`, which shares them.

    Args:
        servers: As for `MemcachedDriver`, and so the ones that follow.
        prefix: What all keys start with.
        timeout: Seconds for each exchange with a server.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES
    at_risk = AT_RISK

    def __init__(self, servers: str, *, prefix: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        self._setup: Final = Setup(servers, prefix, timeout)
        self._operations: MemcachedOperations = self._setup.operations
        self._servers: Final = self._setup.servers
        self._timeout: Final = self._setup.timeout
        self._pools: Final = tuple(map(_async_pools_of, self._servers))

    @classmethod
    def from_url(cls, url: str) -> AsyncMemcachedDriver:
        """Make a driver from a URL; see `MemcachedDriver.from_url`.

        Raises:
            ConfigurationError: The URL has another form, or an option that is unknown or bad.
        """
        servers, options = arguments_in(url)
        return cls(servers, **options)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self._setup.takes(digest, sid)

    async def advice(self) -> list[str]:
        """See `Driver.advice`."""
        return await self._carry_out("advice", self._operations.advice)

    async def close(self) -> None:
        """Close the connections of the running loop: idle ones now, others when they come back."""
        for pools in self._pools:
            pools.close()

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        patience = Patience(operation, self._timeout)

        async def perform(request: Request | Contended) -> Any:
            if isinstance(request, Contended):
                return await asyncio.sleep(patience.pause())
            return await self._ask(operation, request)

        return await drive_async(begin(), perform)

    async def _ask(self, operation: str, request: Request) -> Any:
        call = MemcachedCall(operation, self._servers[request.server], request, self._timeout)
        pool = self._pools[request.server].here()
        while True:
            try:
                async with asyncio.timeout(call.deadline - time.monotonic()):
                    return call.answered(await self._exchanged(pool, call))
            except FAILURES as error:
                if not isinstance(error, Refused):
                    pool.doubt(call.began)
                call.failed(error)

    async def _exchanged(self, pool: AsyncPool[MemcachedLink], call: MemcachedCall) -> Any:
        await pool.enter(call.deadline)
        try:
            call.enters()
            link = await pool.get(call.deadline)
            call.sends(is_reused=link.is_reused)
            try:
                return await link.ask_async(call.request)
            finally:
                pool.push(link)
        finally:
            pool.leave()


def _async_pools_of(server: Node) -> PerLoop[AsyncPool[MemcachedLink]]:
    async def opened(_: float) -> MemcachedLink:
        return await connected_async(server.host, server.port)

    return PerLoop(lambda: AsyncPool(opened, MOST_CONNECTIONS))
