"""What both drivers have in common: servers, options, limits, and what a failure is called."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from coatcheck._pause import drawn
from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers._pool import PoolBusy
from coatcheck.drivers._urls import parsed, seconds, text
from coatcheck.drivers.base import Capability
from coatcheck.drivers.memcached.connect import LinkLost
from coatcheck.drivers.memcached.operations import NAME, MemcachedOperations
from coatcheck.drivers.memcached.requests import ItemKeys, Request, StoreItem, check_prefix, is_write
from coatcheck.drivers.memcached.wire import Garbled, Refused
from coatcheck.errors import ConfigurationError, DriverUnavailable

__all__ = [
    "AT_RISK",
    "CAPABILITIES",
    "DEFAULT_TIMEOUT",
    "FAILURES",
    "MOST_CONNECTIONS",
    "MemcachedCall",
    "Node",
    "Patience",
    "Setup",
    "arguments_in",
]

CAPABILITIES: Final = frozenset({Capability.SCOPE_SHARED, Capability.COUNTERS, Capability.COLLECTS_GARBAGE})

AT_RISK: Final = (
    "memcached keeps sessions in memory only: a restart ends them all, and when memory is short it evicts those that"
    " were not used for the longest time"
)

FORM: Final = "memcached://host:port[,host:port]"
PORT: Final = 11211
DEFAULT_TIMEOUT: Final = 2.0
MOST_CONNECTIONS: Final = 32
"""Connections that a process, or an event loop, uses to one server at the same time. Others wait for their turn."""

FAILURES: Final = (OSError, LinkLost, Garbled, Refused, PoolBusy)
"""What an exchange with a server may end with."""

_OPTIONS: Final = {"prefix": text(), "timeout": seconds(DEFAULT_TIMEOUT)}
_MOST_TRIES: Final = 200
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.01

_NOTHING_STORED: Final = ("SERVER_ERROR object too large", "SERVER_ERROR out of memory", "ERROR", "CLIENT_ERROR")


class Node:
    """One server.

    Attributes:
        host: Its name or address.
        port: Its port.
        name: Both as text: what names it in messages, and what decides which keys it has.
        breaker: What is known of it being down.
    """

    __slots__ = ("breaker", "host", "name", "port")

    def __init__(self, host: str, port: int | None) -> None:
        self.host: Final = host
        self.port: Final = port or PORT
        self.name: Final = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.breaker: Final = Breaker(NAME, f"the server {self.name}")


class Setup:
    """What a driver is made of, apart from its connections.

    Attributes:
        servers: The servers.
        operations: The operations on them.
        timeout: Seconds for each exchange with a server.
    """

    __slots__ = ("_keys", "operations", "servers", "timeout")

    def __init__(self, servers: str, prefix: str, timeout: float) -> None:
        place = parsed(f"memcached://{servers}", NAME, FORM, {})
        if place.path or place.username is not None or not place.hosts:
            raise ConfigurationError(f"a URL for memcached is {FORM}, without a password, a path or a database")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ConfigurationError(f"timeout must be a number of seconds, not {timeout!r}")
        self.servers: Final = tuple(Node(*host) for host in place.hosts)
        names = tuple(server.name for server in self.servers)
        if len(set(names)) < len(names):
            raise ConfigurationError("the URL for memcached names a server twice")
        self._keys: Final = ItemKeys(check_prefix(prefix), names)
        self.operations: Final = MemcachedOperations(self._keys, names)
        self.timeout: Final = timeout

    def takes(self, digest: bytes, sid: str | None) -> bool:
        """Return whether no server that a new digest and its session are on is known to be down; see `Driver.takes`."""
        if not any(server.breaker.is_avoided for server in self.servers):
            return True
        keys = [self._keys.of_digest(digest), *([] if sid is None else [self._keys.of_session(sid)])]
        return not any(self.servers[self._keys.server(key)].breaker.is_avoided for key in keys)


def arguments_in(url: str) -> tuple[str, dict[str, Any]]:
    """Return the arguments of a driver's constructor that *url* says.

    Raises:
        ConfigurationError: The URL has another form, or an option that is unknown or bad.
    """
    place = parsed(url, NAME, FORM, _OPTIONS)
    if place.username is not None or place.password is not None:
        raise ConfigurationError(
            "memcached is spoken to without a password here: keep it on a network of its own, and the URL without one"
        )
    servers = url.partition("://")[2].partition("?")[0]
    return servers, dict(place.options)


class Patience:
    """How long one operation goes on trying, where others write to the same session.

    Args:
        operation: The operation of the contract.
        limit: Seconds.
    """

    __slots__ = ("_limit", "_operation", "_since", "_tries")

    def __init__(self, operation: str, limit: float) -> None:
        self._operation: Final = operation
        self._limit: Final = limit
        self._since = 0.0
        self._tries = 0

    def pause(self) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            DriverUnavailable: There were too many tries.
        """
        now = time.monotonic()
        self._since = self._since or now
        self._tries += 1
        if self._tries > _MOST_TRIES or now - self._since > self._limit:
            why = f"other writers were first {self._tries} times in a row: too many write to this session at once"
            raise DriverUnavailable(NAME, self._operation, why)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._tries, 10))
        return drawn(longest)


class MemcachedCall:
    """One request to a server: how long it may take, and what a failure of it means.

    Args:
        operation: The operation of the contract.
        server: The server.
        request: The request.
        timeout: Seconds.

    Attributes:
        request: The request.
        began: When it began, by the monotonic clock.
        deadline: When it has to be over.

    Raises:
        DriverUnavailable: The server is known to be down.
    """

    __slots__ = (
        "_is_reused",
        "_is_waiting",
        "_operation",
        "_server",
        "_timeout",
        "_was_repeated",
        "_was_sent",
        "began",
        "deadline",
        "request",
    )

    def __init__(self, operation: str, server: Node, request: Request, timeout: float) -> None:
        server.breaker.check(operation)
        self._operation: Final = operation
        self._server: Final = server
        self._timeout: Final = timeout
        self.request: Final = request
        self.began: Final = time.monotonic()
        self.deadline: Final = self.began + timeout
        self._is_waiting = True  # for a connection to come free
        self._is_reused = False
        self._was_repeated = False
        self._was_sent = False

    def enters(self) -> None:
        """Record that a place in the pool is free."""
        self._is_waiting = self._is_reused = self._was_sent = False

    def sends(self, *, is_reused: bool) -> None:
        """Record that the request is sent, on a new connection or on one that was idle before."""
        self._is_reused = is_reused
        self._was_sent = True

    def answered(self, reply: Any) -> Any:
        """Record that *reply* came, and return it."""
        self._server.breaker.worked()
        return reply

    def failed(self, error: Exception) -> None:
        """Return if the request is to be sent once more, or raise what the caller is to see.

        Raises:
            DriverUnavailable: It failed.
        """
        place, breaker = self._server.name, self._server.breaker
        if self._is_waiting:
            why = f"all {MOST_CONNECTIONS} connections to {place} were in use for {self._timeout:g} s"
        elif isinstance(error, Refused):
            breaker.worked()
            raise self._refused(error) from error
        elif isinstance(error, TimeoutError):
            breaker.failed()
            why = f"{place} did not answer within {self._timeout:g} s"
        elif self._is_reused and not (self._was_repeated or is_write(self.request)):
            self._was_repeated = True
            return  # the server had closed it
        elif isinstance(error, Garbled):
            why = f"{place} answered with {error}: is it memcached?"
        elif self._was_sent:
            why = f"{place} closed the connection"
        else:
            breaker.failed()
            why = f"cannot connect to {place}: {error}"
        raise self._unavailable(why, is_unknown=True) from error

    def _refused(self, error: Refused) -> DriverUnavailable:
        place, request = self._server.name, self.request
        why = f"{place} said {error.said}"
        if isinstance(request, StoreItem) and "too large" in error.said:
            why = (
                f"the session has {len(request.data)} bytes, more than {place} takes for one item: keep less in it, or"
                " start memcached with a larger -I"
            )
        elif isinstance(request, StoreItem) and "out of memory" in error.said:
            why = f"{place} is out of memory: give it more (-m)"
        return self._unavailable(why, is_unknown=not error.said.startswith(_NOTHING_STORED))

    def _unavailable(self, why: str, *, is_unknown: bool) -> DriverUnavailable:
        unknown = is_unknown and self._was_sent and is_write(self.request)
        return DriverUnavailable(NAME, self._operation, why, outcome_unknown=unknown)
