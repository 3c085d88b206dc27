"""The two Redis drivers: one for synchronous programs, one for asynchronous ones."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from coatcheck.drivers._pool import PerLoop, PerProcess
from coatcheck.drivers._steps import AsyncSteppedDriver, SteppedDriver, Steps, drive, drive_async
from coatcheck.drivers.base import Capability
from coatcheck.drivers.redis.carried import driven
from coatcheck.drivers.redis.checkup import advice_for, first_look
from coatcheck.drivers.redis.cluster_work import ClusterOperations
from coatcheck.drivers.redis.keys import Keys
from coatcheck.drivers.redis.places import RedisSettings, settings_from
from coatcheck.drivers.redis.requests import Forget, Listen, News, Pause, RoundTrip
from coatcheck.drivers.redis.routes import Routes
from coatcheck.drivers.redis.scripts import Scripts
from coatcheck.drivers.redis.servers import AsyncEndpoint, Endpoint, Servers
from coatcheck.drivers.redis.trouble import NAME
from coatcheck.drivers.redis.work import RedisOperations

__all__ = ["AsyncRedisDriver", "RedisDriver"]

T = TypeVar("T")

CAPABILITIES: Final = frozenset(
    {
        Capability.SCOPE_SHARED,
        Capability.DURABLE,
        Capability.COUNTERS,
        Capability.USER_INDEX,
        Capability.ATOMIC_REVOKE,
        Capability.SIZE_FOLLOWS_CHANGE,
        Capability.COLLECTS_GARBAGE,
    }
)
"""What one server gives. A cluster revokes a user in several steps; with copies on replicas, a failover is survived."""

Performed = RoundTrip | Forget | Listen | News | Pause
"""What is left of an operation and the way to the servers."""

_LEAVING_NOTHING: Final = frozenset({"advice", "is_set_up", "tear_down"})
_ROTATION_BITS: Final = 8  # in a cluster: the first byte of a digest says where its session is


def work_for(settings: RedisSettings) -> RedisOperations:
    """Return the operations that fit the servers."""
    is_cluster = settings.kind == "cluster"
    keys = Keys(settings.prefix, is_spread=is_cluster)
    return (ClusterOperations if is_cluster else RedisOperations)(keys, Scripts(indexed=not is_cluster))


def promised(settings: RedisSettings) -> dict[str, object]:
    """Return what the servers promise, as the attributes that differ from those of the class."""
    capabilities = CAPABILITIES
    if settings.kind == "cluster":
        capabilities -= {Capability.ATOMIC_REVOKE}
    if settings.replicas:
        capabilities |= {Capability.SURVIVES_FAILOVER}
    return {"capabilities": capabilities, "rotation_bits": _ROTATION_BITS if settings.kind == "cluster" else 0}


class _InProcess:
    """What belongs to one process."""

    def __init__(self, settings: RedisSettings) -> None:
        self.routes: Final[Routes] = settings.routes()
        self.servers: Final = Servers(settings, Endpoint)
        self.has_looked = False
        self._timeout: Final = settings.timeout

    def run(self, operation: str, steps: Steps[T]) -> T:
        """Carry out an operation, within one limit of time for all that it asks the servers."""
        deadline = time.monotonic() + self._timeout
        return drive(driven(operation, steps, self.routes), partial(self.perform, deadline))

    def look(self, operation: str, steps: Steps[T]) -> T:
        """Carry out the first look, in which each server has the whole limit: one that is silent stops no other."""
        return drive(
            driven(operation, steps, self.routes),
            lambda request: self.perform(time.monotonic() + self._timeout, request),
        )

    def perform(self, deadline: float, request: Performed) -> Sequence[Any]:
        """Do what a request asks for; return the replies."""
        if type(request) is RoundTrip:
            return self.servers.at(request.address).exchange(request.packed, deadline)
        match request:
            case News():
                return self.servers.ears.heard()
            case Forget(address):
                self.servers.forget(address)
            case Listen(address) if not self.servers.ears.listens_to(address):
                with suppress(OSError):
                    peers = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                    self.servers.ears.listen(address, peers)
            case Pause(seconds):
                time.sleep(seconds)
        return ()

    def close(self) -> None:
        """Close the connections."""
        self.servers.close()


class RedisDriver(SteppedDriver):
    """Sessions on a Redis or Valkey server, on the servers behind Sentinel, or in a Cluster.

    Args:
        settings: What the URL says; see `from_url`.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, settings: RedisSettings) -> None:
        self._settings: Final = settings
        self._operations: RedisOperations = work_for(settings)
        vars(self).update(promised(settings))
        self._processes: Final = PerProcess(lambda: _InProcess(settings))

    @classmethod
    def from_url(cls, url: str) -> RedisDriver:
        """Make a driver from a URL.

        `redis://user:password@host:6379/0`, `rediss://` with TLS, `redis+unix:///run/redis.sock?db=0`,
        `redis+sentinel://host:26379,host:26379/service/0`, `redis+cluster://host:6379,host:6379`; `valkey://` is the
        same as `redis://`. Options: `prefix`, `timeout`, `max_connections`, `durable=replicas:1`, and `ca` for TLS.

        Raises:
            ConfigurationError: The URL has another form, an unknown option, or one with a bad value.
        """
        return cls(settings_from(url))

    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        here = self._processes.here()
        if not here.has_looked:
            look = first_look(self._operations.keys, is_writing=operation not in _LEAVING_NOTHING)
            self.at_risk, here.has_looked = here.look(operation, look)
        return here.run(operation, begin())

    def advice(self) -> list[str]:
        """Look at the settings of the servers, and return a sentence for each that should be mended, and how."""
        return self._carry_out("advice", lambda: advice_for(self._settings.replicas))

    def close(self) -> None:
        """Close the connections of this process. Using the driver again opens new ones."""
        self._processes.close()


class _InLoop:
    """What belongs to one event loop; see `_InProcess`."""

    def __init__(self, settings: RedisSettings) -> None:
        self.routes: Final[Routes] = settings.routes()
        self.servers: Final = Servers(settings, AsyncEndpoint)
        self.has_looked = False
        self._timeout: Final = settings.timeout

    async def run(self, operation: str, steps: Steps[T]) -> T:
        deadline = time.monotonic() + self._timeout
        return await drive_async(driven(operation, steps, self.routes), partial(self.perform, deadline))

    async def look(self, operation: str, steps: Steps[T]) -> T:
        return await drive_async(
            driven(operation, steps, self.routes),
            lambda request: self.perform(time.monotonic() + self._timeout, request),
        )

    async def perform(self, deadline: float, request: Performed) -> Sequence[Any]:
        if type(request) is RoundTrip:
            return await self.servers.at(request.address).exchange(request.packed, deadline)
        match request:
            case News():
                return self.servers.ears.heard()
            case Forget(address):
                self.servers.forget(address)
            case Listen(address) if not self.servers.ears.listens_to(address):
                loop = asyncio.get_running_loop()
                with suppress(OSError):
                    peers = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                    self.servers.ears.listen(address, peers)
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return ()

    def close(self) -> None:
        self.servers.close()


class AsyncRedisDriver(AsyncSteppedDriver):
    """Sessions on Redis or Valkey, for an asynchronous program. Each event loop has connections of its own.

    Args:
        settings: What the URL says; see `from_url`.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, settings: RedisSettings) -> None:
        self._settings: Final = settings
        self._operations: RedisOperations = work_for(settings)
        vars(self).update(promised(settings))
        self._loops: Final = PerLoop(lambda: _InLoop(settings))

    @classmethod
    def from_url(cls, url: str) -> AsyncRedisDriver:
        """Make a driver from a URL; see `RedisDriver.from_url`.

        Raises:
            ConfigurationError: The URL has another form, an unknown option, or one with a bad value.
        """
        return cls(settings_from(url))

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        here = self._loops.here()
        if not here.has_looked:
            look = first_look(self._operations.keys, is_writing=operation not in _LEAVING_NOTHING)
            self.at_risk, here.has_looked = await here.look(operation, look)
        return await here.run(operation, begin())

    async def advice(self) -> list[str]:
        """Look at the settings of the servers; return a sentence for each that should be changed, and how."""
        return await self._carry_out("advice", lambda: advice_for(self._settings.replicas))

    async def close(self) -> None:
        """Close the connections of the running loop. Using the driver again opens new ones."""
        self._loops.close()
