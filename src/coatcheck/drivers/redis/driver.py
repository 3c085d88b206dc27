"""The two Redis drivers: one for synchronous programs, one for asynchronous ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

from coatcheck.drivers._process import this_process
from coatcheck.drivers._steps import AsyncSteppedDriver, SteppedDriver, Steps
from coatcheck.drivers.base import Capability
from coatcheck.drivers.redis.async_connect import AsyncServers
from coatcheck.drivers.redis.carried import driven
from coatcheck.drivers.redis.checkup import advice_for, first_look
from coatcheck.drivers.redis.cluster_work import ClusterWork
from coatcheck.drivers.redis.connect import Servers
from coatcheck.drivers.redis.keys import Keys
from coatcheck.drivers.redis.places import Settings, settings_from
from coatcheck.drivers.redis.requests import Exchange, Forget, Listen, Message, News, Pause
from coatcheck.drivers.redis.routes import Routes
from coatcheck.drivers.redis.scripts import Scripts
from coatcheck.drivers.redis.trouble import NAME, Lost, NotSent
from coatcheck.drivers.redis.work import Work

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

_LEAVING_NOTHING: Final = frozenset({"advice", "is_set_up", "tear_down"})
_ROTATION_BITS: Final = 8  # in a cluster: the first byte of a digest says where its session is


def work_for(settings: Settings) -> Work:
    """Give the operations that fit the servers."""
    is_cluster = settings.kind == "cluster"
    keys = Keys(settings.prefix, is_spread=is_cluster)
    return (ClusterWork if is_cluster else Work)(keys, Scripts(indexed=not is_cluster))


def promised(settings: Settings) -> dict[str, object]:
    """Give what the servers promise, as the attributes that differ from those of the class."""
    capabilities = CAPABILITIES
    if settings.kind == "cluster":
        capabilities -= {Capability.ATOMIC_REVOKE}
    if settings.replicas:
        capabilities |= {Capability.SURVIVES_FAILOVER}
    return {"capabilities": capabilities, "rotation_bits": _ROTATION_BITS if settings.kind == "cluster" else 0}


class _InProcess:
    """What belongs to one process."""

    def __init__(self, settings: Settings) -> None:
        self.process: Final = this_process()
        self.routes: Final[Routes] = settings.routes()
        self.servers: Final = Servers(settings)
        self.has_looked = False


class RedisDriver(SteppedDriver):
    """Sessions on a Redis or Valkey server, on the servers behind Sentinel, or in a Cluster.

    Args:
        settings: What the URL says; see `from_url`.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._operations: Work = work_for(settings)
        vars(self).update(promised(settings))
        self._process = _InProcess(settings)

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
        here = self._process
        if not here.process.is_this():  # the parent's connections stay the parent's
            here = self._process = _InProcess(self._settings)
        if not here.has_looked:
            look = first_look(self._operations.keys, is_writing=operation not in _LEAVING_NOTHING)
            self.at_risk, here.has_looked = self._run(here, operation, look)
        return self._run(here, operation, begin())

    def _run(self, here: _InProcess, operation: str, steps: Steps[T]) -> T:
        exchange = here.servers.exchange
        work = driven(operation, steps, here.routes)
        try:
            request = work.send(None)
            while True:
                if type(request) is not Exchange:
                    request = work.send(self._beside(here, request))
                    continue
                try:
                    replies = exchange(request)
                except (NotSent, Lost) as error:
                    request = work.throw(error)
                else:
                    request = work.send(replies)
        except StopIteration as stop:
            done: T = stop.value
            return done

    def _beside(self, here: _InProcess, request: Forget | Listen | News | Pause) -> Sequence[Message]:
        match request:
            case News():
                return here.servers.ears.heard()
            case Forget(address):
                here.servers.forget(address)
            case Listen(address):
                here.servers.listen(address)
            case Pause(seconds):
                time.sleep(seconds)
        return ()

    def advice(self) -> list[str]:
        """Look at the settings of the servers; give a sentence for each that should be mended, and how."""
        return self._carry_out("advice", lambda: advice_for(self._settings.replicas))

    def close(self) -> None:
        """Close the connections of this process. Using the driver again opens new ones."""
        here, self._process = self._process, _InProcess(self._settings)
        here.servers.close()


class _InLoop:
    """What belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.process: Final = this_process()
        self.routes: Final[Routes] = settings.routes()
        self.servers: Final = AsyncServers(settings)
        self.has_looked = False


class AsyncRedisDriver(AsyncSteppedDriver):
    """Sessions on Redis or Valkey, for an asynchronous program. Each event loop has connections of its own.

    Args:
        settings: What the URL says; see `from_url`.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._operations: Work = work_for(settings)
        vars(self).update(promised(settings))
        self._loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _InLoop]] = WeakKeyDictionary()

    @classmethod
    def from_url(cls, url: str) -> AsyncRedisDriver:
        """Make a driver from a URL; see `RedisDriver.from_url`.

        Raises:
            ConfigurationError: The URL has another form, an unknown option, or one with a bad value.
        """
        return cls(settings_from(url))

    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None or not here.process.is_this():
            for other in [each for each in self._loops if each.is_closed()]:
                del self._loops[other]  # its connections know it, so it would never be let go
            here = self._loops[loop] = _InLoop(self._settings)
        if not here.has_looked:
            look = first_look(self._operations.keys, is_writing=operation not in _LEAVING_NOTHING)
            self.at_risk, here.has_looked = await self._run(here, operation, look)
        return await self._run(here, operation, begin())

    async def _run(self, here: _InLoop, operation: str, steps: Steps[T]) -> T:
        exchange = here.servers.exchange
        work = driven(operation, steps, here.routes)
        try:
            request = work.send(None)
            while True:
                if type(request) is not Exchange:
                    request = work.send(await self._beside(here, request))
                    continue
                try:
                    replies = await exchange(request)
                except (NotSent, Lost) as error:
                    request = work.throw(error)
                else:
                    request = work.send(replies)
        except StopIteration as stop:
            done: T = stop.value
            return done

    async def _beside(self, here: _InLoop, request: Forget | Listen | News | Pause) -> Sequence[Message]:
        match request:
            case News():
                return here.servers.ears.heard()
            case Forget(address):
                await here.servers.forget(address)
            case Listen(address):
                await here.servers.listen(address)
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return ()

    async def advice(self) -> list[str]:
        """Look at the settings of the servers; return a sentence for each that should be changed, and how."""
        return await self._carry_out("advice", lambda: advice_for(self._settings.replicas))

    async def close(self) -> None:
        """Close the connections of the running loop. Using the driver again opens new ones."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None and here.process.is_this():
            await here.servers.close()
