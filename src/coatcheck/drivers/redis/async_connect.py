"""Connections to servers, for an asynchronous program: pools of one event loop, with a limit to every wait."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers.redis.connect import connection_failed, is_refused, lost
from coatcheck.drivers.redis.places import Settings
from coatcheck.drivers.redis.requests import Address, Exchange
from coatcheck.drivers.redis.trouble import NAME, NotSent, refused
from coatcheck.errors import DriverUnavailable

__all__ = ["AsyncServers"]


class AsyncServers:
    """The connections of one event loop to any number of servers.

    Args:
        settings: What the URL says.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._pools: Final[dict[Address, _Pool]] = {}

    async def exchange(self, request: Exchange) -> list[Any]:
        """Send commands and give their replies; see `Servers.exchange`."""
        pool = self._pools.get(request.address)
        if pool is None:
            pool = self._pools[request.address] = _Pool(self._settings, request.address)
        return await pool.exchange(request)

    async def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            await pool.close()


class _Pool:
    """The connections to one server; see the one in `connect`.

    A task that is cancelled closes the connection that it has, whatever it was waiting for.
    """

    def __init__(self, settings: Settings, address: Address) -> None:
        self._settings: Final = settings
        self._address: Final = address
        self._breaker: Final = Breaker(NAME, str(address))
        self._why = ""  # it was down the last time
        self._idle: Final[deque[Any]] = deque()
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
        connection = await self._taken()
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._settings.timeout):
                await connection.send_packed_command(request.packed, check_health=False)
                for _ in request.packed:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if not isinstance(error, (RedisError, OSError)):
                raise
            if is_refused(error) and not replies:
                raise NotSent(refused(error, str(self._address))) from error
            failure = lost(error, self._address)
            if failure.is_timeout:
                self._went_down(failure)
            raise failure from error
        self._breaker.worked()
        if self._is_closed:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)
        return replies

    def _went_down(self, failure: Exception) -> None:
        self._why = str(failure)
        self._breaker.failed()

    def _check(self) -> None:
        try:
            self._breaker.check("connect")
        except DriverUnavailable as error:
            raise NotSent(f"a moment ago, and it is not asked again yet: {self._why}") from error

    async def _taken(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not _is_over(connection):
                return connection
            await connection.disconnect(nowait=True)
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
                self._went_down(failure)
            raise failure from error
        return connection

    async def close(self) -> None:
        """Close what is not in use, now and later."""
        self._is_closed = True
        while self._idle:
            with contextlib.suppress(RedisError, OSError):
                await self._idle.pop().disconnect()


def _is_over(connection: Any) -> bool:
    """Tell whether anything arrived unasked, which can only be the connection's end.

    The loop may not have had the time to notice it, so the socket is asked too. With TLS, the server may have sent
    what is no data, and the loop would have taken that: where it did not, the connection is given up for nothing.
    """
    reader, writer = connection._reader, connection._writer  # noqa: SLF001 (redis-py offers no other way to them)
    if writer is None or writer.is_closing() or reader.at_eof() or reader.exception() is not None:
        return True
    poller = select.poll()
    poller.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poller.poll(0))
