"""Connections to servers, for an asynchronous program: pools of one event loop, with a limit to every wait."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any, Final

from redis.exceptions import RedisError

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers.redis.lines import CHUNK, ROLE_AGE, Line, connection_failed, is_refused, lost
from coatcheck.drivers.redis.places import Settings
from coatcheck.drivers.redis.requests import Address, Exchange
from coatcheck.drivers.redis.trouble import NAME, NotSent, refused
from coatcheck.errors import DriverUnavailable

__all__ = ["AsyncServers"]


class AsyncServers:
    """The connections of one event loop to any number of servers.

    Args:
        settings: What the URL says.

    Attributes:
        ears: Those that listen to sentinels.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._pools: Final[dict[Address, _Pool]] = {}
        self.ears: Final = settings.ears()

    async def exchange(self, request: Exchange) -> list[Any]:
        """Send commands and give their replies; see `Servers.exchange`."""
        pool = self._pools.get(request.address)
        if pool is None:
            pool = self._pools[request.address] = _Pool(self._settings, request.address)
        return await pool.exchange(request)

    async def listen(self, address: Address) -> None:
        """Listen to a sentinel from now on."""
        if not self.ears.listens_to(address):
            loop = asyncio.get_running_loop()
            with contextlib.suppress(OSError):
                peers = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                self.ears.listen(address, peers)

    async def forget(self, address: Address) -> None:
        """Use no connection to a server again that is there now."""
        pool = self._pools.get(address)
        if pool is not None:
            await pool.forget()

    async def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            await pool.close()
        self.ears.close()


class _Pool:
    """The connections to one server; see the one in `connect`.

    A task that is cancelled closes the connection that it has, whatever it was waiting for.
    """

    def __init__(self, settings: Settings, address: Address) -> None:
        self._settings: Final = settings
        self._address: Final = address
        self._breaker: Final = Breaker(NAME, str(address))
        self._why = ""  # it was down the last time
        self._idle: Final[deque[Line]] = deque()
        self._generation = 0  # of the connections that are good
        self._forgotten = -ROLE_AGE
        self._free: Final = asyncio.Semaphore(settings.max_connections)
        self._is_closed = False

    async def exchange(self, request: Exchange) -> list[Any]:
        """See `Servers.exchange`."""
        if self._free.locked():
            await self._waited()
        else:
            await self._free.acquire()  # at once: nobody holds it
        try:
            return await self._exchange(request)
        finally:
            self._free.release()

    async def _waited(self) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise NotSent(
                f"all {self._settings.max_connections} connections to {self._address} were busy for "
                f"{self._settings.timeout:g} s: raise max_connections= in the URL",
                is_timeout=True,
            ) from error

    async def _exchange(self, request: Exchange) -> list[Any]:
        self._check()
        line = await self._taken()
        try:
            async with asyncio.timeout(self._settings.timeout):
                replies = await _exchanged(line, request.packed)
        except BaseException as error:
            await line.connection.disconnect(nowait=True)
            if not isinstance(error, (RedisError, OSError)):
                raise
            if line.steps_back:
                await self._stepped_back()
            if is_refused(error) and not line.is_partly_read:
                raise NotSent(refused(error, str(self._address))) from error
            failure = lost(error, self._address)
            if failure.is_timeout:
                await self._went_down(failure, line.began)
            raise failure from error
        self._breaker.worked()
        if line.steps_back:
            await self._stepped_back()
        if self._is_closed or line.steps_back or line.generation != self._generation:
            await line.connection.disconnect(nowait=True)
        else:
            self._idle.append(line)
        return replies

    async def _stepped_back(self) -> None:
        """Forget the connections, unless that was a moment ago: those of now have found the server as it is."""
        if time.monotonic() - self._forgotten >= ROLE_AGE:
            await self.forget()

    async def forget(self) -> None:
        """Use no connection again that is there now: the address may lead to another server."""
        self._breaker.worked()
        self._generation += 1
        self._forgotten = time.monotonic()
        await self._close_idle()

    async def _went_down(self, failure: Exception, since: float) -> None:
        self._why = str(failure)
        self._breaker.failed(since)
        await self._close_idle(since)  # their peer may have vanished with that of the one that failed

    def _check(self) -> None:
        try:
            self._breaker.check("connect")
        except DriverUnavailable as error:
            raise NotSent(f"a moment ago, and it is not asked again yet: {self._why}") from error

    async def _taken(self) -> Line:
        while self._idle:
            line = self._idle.pop()
            if not _is_over(line):
                return line
            await line.connection.disconnect(nowait=True)
        generation, began = self._generation, time.monotonic()
        connection = self._settings.async_connection(self._address)
        try:
            async with asyncio.timeout(self._settings.timeout):
                await connection.connect()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if not isinstance(error, (RedisError, OSError, ValueError)):
                raise
            failure = connection_failed(error, self._address)
            if not is_refused(error):
                await self._went_down(failure, began)
            raise failure from error
        return Line(connection, generation, asks_role=self._settings.asks_role(self._address))

    async def close(self) -> None:
        """Close what is not in use, now and later."""
        self._is_closed = True
        await self._close_idle(nowait=False)  # the loop may end next

    async def _close_idle(self, since: float = inf, *, nowait: bool = True) -> None:
        """Close the connections that nobody uses and whose server has not answered *since* then."""
        lines = [line for line in self._idle if line.answered < since]
        for line in lines:
            self._idle.remove(line)
        for line in lines:
            with contextlib.suppress(RedisError, OSError):
                await line.connection.disconnect(nowait=nowait)


async def _exchanged(line: Line, packed: Sequence[bytes]) -> list[Any]:
    """Send commands and return the replies."""
    reader, writer = line.connection._reader, line.connection._writer  # noqa: SLF001 (redis-py offers no other way)
    writer.write(line.begin(packed))
    await writer.drain()
    while not line.feed(await reader.read(CHUNK)):
        pass
    return line.end()


def _is_over(line: Line) -> bool:
    """Return whether it is of no more use: it is too old, or something arrived unasked, which can only be its end.

    The loop may not have had the time to notice it, so the socket is asked too. With TLS, the server may have sent
    what is no data, and the loop would have taken that: where it did not, the connection is given up for nothing.
    """
    reader, writer = line.connection._reader, line.connection._writer  # noqa: SLF001 (redis-py offers no other way)
    if line.is_worn or writer is None or writer.is_closing() or reader.at_eof() or reader.exception() is not None:
        return True
    poller = select.poll()
    poller.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poller.poll(0))
