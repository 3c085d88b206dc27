"""The servers and the connections to them: a pool for each, without retries, with a limit to every wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from redis.exceptions import RedisError

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers._pool import AsyncPool, Pool, PoolBusy
from coatcheck.drivers.redis.connect import AsyncLine, SyncLine, abort
from coatcheck.drivers.redis.lines import ROLE_AGE, Line, connection_failed, connection_lost, is_refused
from coatcheck.drivers.redis.places import RedisSettings
from coatcheck.drivers.redis.requests import Address
from coatcheck.drivers.redis.trouble import NAME, Lost, NotSent, refused
from coatcheck.errors import DriverUnavailable

__all__ = ["AsyncEndpoint", "Endpoint", "Servers"]

_FAIR_PART: Final = 0.5
"""The part of the limit that a server must have had to count as down where it did not answer."""

_LEAST: Final = 0.001  # seconds: 0 would mean not to wait at all


class _Endpoint:
    """What is known of one server, apart from its connections.

    Args:
        settings: What the URL says.
        address: Where it is.
    """

    pool: Pool[SyncLine] | AsyncPool[AsyncLine]

    def __init__(self, settings: RedisSettings, address: Address) -> None:
        self._settings: Final = settings
        self._address: Final = address
        self._asks_role: Final = settings.asks_role(address)
        self._breaker: Final = Breaker(NAME, str(address))
        self._why = ""  # it was down the last time
        self._forgotten = -ROLE_AGE

    def forget(self) -> None:
        """Use no connection again that is there now: the address may lead to another server."""
        self._breaker.worked()
        self._forgotten = time.monotonic()
        self.pool.forget()

    def _check(self) -> None:
        try:
            self._breaker.check("connect")
        except DriverUnavailable as error:
            raise NotSent(f"a moment ago, and it is not asked again yet: {self._why}") from error

    def _crowded_out(self) -> NotSent:
        return NotSent(
            f"all {self._settings.max_connections} connections to {self._address} were busy for"
            f" {self._settings.timeout:g} s: raise max_connections= in the URL",
            is_timeout=True,
        )

    def _not_opened(self, error: Exception, began: float, deadline: float) -> NotSent:
        failure = connection_failed(error, self._address)
        if not is_refused(error):
            self._went_down(failure, began, deadline)
        return failure

    def _failed(self, line: Line, error: Exception, deadline: float) -> NotSent | Lost:
        """Return the error for an exchange that failed."""
        if line.steps_back:
            self._stepped_back()
        if is_refused(error) and not line.is_partly_read:
            return NotSent(refused(error, str(self._address)))
        failure = connection_lost(error, self._address)
        if failure.is_timeout:
            self._went_down(failure, line.began, deadline)
        return failure

    def _stepped_back(self) -> None:
        """Forget the connections, unless that was a moment ago: those of now have found the server as it is."""
        if time.monotonic() - self._forgotten >= ROLE_AGE:
            self.forget()

    def _went_down(self, failure: NotSent | Lost, since: float, deadline: float) -> None:
        if failure.is_timeout and deadline - since < _FAIR_PART * self._settings.timeout:
            return  # others took the time of the operation: this one had too little of it
        self._why = str(failure)
        self._breaker.failed(since)
        self.pool.doubt(since)  # their peer may have vanished with that of the one that failed


class Endpoint(_Endpoint):
    """One server, for the threads of a process.

    Attributes:
        pool: The connections.
    """

    def __init__(self, settings: RedisSettings, address: Address) -> None:
        super().__init__(settings, address)
        self.pool: Pool[SyncLine] = Pool(self._open, settings.max_connections)

    def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands and return their replies, errors among them, until *deadline* by the monotonic clock.

        Raises:
            NotSent: Nothing was sent, or the server refused to read it.
            Lost: Something was sent, and not all replies came.
        """
        pool = self.pool
        try:
            pool.enter(deadline)
        except PoolBusy as error:
            raise self._crowded_out() from error
        try:
            self._check()  # after the wait: others may have found out that the server is down
            line = pool.get(deadline)
            try:
                replies = line.exchange(packed, deadline)
            except (RedisError, OSError) as error:
                raise self._failed(line, error, deadline) from error
            else:
                self._breaker.worked()
                if line.steps_back:
                    self._stepped_back()
                return replies
            finally:
                pool.push(line)
        finally:
            pool.leave()

    def _open(self, deadline: float) -> SyncLine:
        began, settings = time.monotonic(), self._settings
        connection = settings.connection(self._address, max(_LEAST, deadline - began))
        try:
            connection.connect()
            line = SyncLine(connection, settings.timeout, asks_role=self._asks_role)
            login = settings.login(self._address)
            if login:
                line.log_in(login, deadline)
        except BaseException as error:
            connection.disconnect()
            if not isinstance(error, (RedisError, OSError, ValueError)):
                raise
            raise self._not_opened(error, began, deadline) from error
        return line


class AsyncEndpoint(_Endpoint):
    """One server, for the tasks of an event loop; see `Endpoint`.

    A task that is cancelled closes the connection that it has, whatever it was waiting for.
    """

    def __init__(self, settings: RedisSettings, address: Address) -> None:
        super().__init__(settings, address)
        self.pool: AsyncPool[AsyncLine] = AsyncPool(self._open, settings.max_connections)

    async def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands and return their replies; see `Endpoint.exchange`."""
        pool = self.pool
        try:
            await pool.enter(deadline)
        except PoolBusy as error:
            raise self._crowded_out() from error
        try:
            self._check()
            line = await pool.get(deadline)
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    replies = await line.exchange(packed, deadline)
            except (RedisError, OSError) as error:
                raise self._failed(line, error, deadline) from error
            else:
                self._breaker.worked()
                if line.steps_back:
                    self._stepped_back()
                return replies
            finally:
                pool.push(line)
        finally:
            pool.leave()

    async def _open(self, deadline: float) -> AsyncLine:
        began, settings = time.monotonic(), self._settings
        connection = settings.async_connection(self._address)
        try:
            async with asyncio.timeout(deadline - began):
                await connection.connect()
                line = AsyncLine(connection, asks_role=self._asks_role)
                login = settings.login(self._address)
                if login:
                    await line.log_in(login)
        except BaseException as error:
            abort(connection)
            if not isinstance(error, (RedisError, OSError, ValueError)):
                raise
            raise self._not_opened(error, began, deadline) from error
        return line


E = TypeVar("E", bound=Endpoint | AsyncEndpoint)


class Servers(Generic[E]):
    """The servers that a process or an event loop knows.

    Args:
        settings: What the URL says.
        endpoint: Makes what is known of one server.

    Attributes:
        ears: Those that listen to sentinels.
    """

    def __init__(self, settings: RedisSettings, endpoint: Callable[[RedisSettings, Address], E]) -> None:
        self._settings: Final = settings
        self._endpoint: Final = endpoint
        self._all: Final[dict[Address, E]] = {}
        self.ears: Final = settings.ears()

    def at(self, address: Address) -> E:
        """Return the server at an address."""
        found = self._all.get(address)
        return self._all.setdefault(address, self._endpoint(self._settings, address)) if found is None else found

    def forget(self, address: Address) -> None:
        """Use no connection to a server again that is there now."""
        found = self._all.get(address)
        if found is not None:
            found.forget()

    def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        with suppress(KeyError):
            while True:
                self._all.popitem()[1].pool.close()
        self.ears.close()
