"""The URL of a driver as its settings, and a connection of redis-py's to each server that they lead to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import redis.asyncio.connection
import redis.connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from coatcheck.drivers._lifetimes import KEEPALIVE
from coatcheck.drivers._urls import Option, Place, parsed, seconds, text, whole
from coatcheck.drivers.redis.ears import Ears
from coatcheck.drivers.redis.keys import DEFAULT_PREFIX
from coatcheck.drivers.redis.requests import Address, command
from coatcheck.drivers.redis.routes import ClusterRoutes, Routes
from coatcheck.drivers.redis.sentinel import SentinelRoutes
from coatcheck.errors import ConfigurationError

__all__ = ["RedisSettings", "settings_from"]

# redis-py's annotations of these do not fit each other
_blocking: Final[Any] = redis.connection
_asynchronous: Final[Any] = redis.asyncio.connection

FORM: Final = "redis://[user:password@]host[:port][/db], or redis+unix, redis+sentinel, redis+cluster, rediss, valkey"

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_MOST_CONNECTIONS: Final = 64
_TIMEOUT: Final = 2.0
_FOR_REPLICAS: Final = 0.8  # of the timeout: the rest is for the way
_MOST_REPLICAS: Final = 16


def _replicas(given: str) -> int:
    word, _, number = given.partition(":")
    if word != "replicas" or not number.isdigit() or not 1 <= int(number) <= _MOST_REPLICAS:
        raise ValueError
    return int(number)


_OPTIONS: Final[dict[str, Option]] = {
    "ca": text(None),
    "db": text(None),
    "durable": Option(0, _replicas, f"replicas:1, or another number up to {_MOST_REPLICAS}"),
    "max_connections": whole(_MOST_CONNECTIONS, least=1),
    "prefix": text(DEFAULT_PREFIX),
    "timeout": seconds(_TIMEOUT),
}
_PLAIN: Final[dict[str, Any]] = {"protocol": 2, "driver_info": None, "retry": Retry(NoBackoff(), 0)}
"""Redis-py's connections send nothing by themselves: they log in as all else is sent, within the same limit."""
_KEEPALIVE: Final[dict[str, Any]] = {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What a URL says.

    Attributes:
        kind: One of ``""``, ``"unix"``, ``"sentinel"``, ``"cluster"``.
        seeds: The addresses that it names.
        service: What Sentinel calls the servers.
        db: The number of the database.
        username: The user, or None.
        password: The password, or None.
        is_encrypted: Whether the connections are TLS.
        ca: The file of the authority that signed the server's certificate; None for those that the system trusts.
        prefix: What all keys begin with.
        timeout: Seconds for an operation as a whole.
        max_connections: How many connections to each server a process, or a loop, has at most.
        replicas: How many replicas must have a write before it counts as done.
    """

    kind: str
    seeds: tuple[Address, ...]
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_encrypted: bool = False
    ca: str | None = None
    prefix: str = DEFAULT_PREFIX
    timeout: float = _TIMEOUT
    max_connections: int = _MOST_CONNECTIONS
    replicas: int = 0

    def routes(self) -> Routes:
        """Return the way to the servers; it learns as it goes."""
        patience = self.timeout * _FOR_REPLICAS
        if self.kind == "cluster":
            return ClusterRoutes(self.seeds, replicas=self.replicas, patience=patience)
        if self.kind == "sentinel":
            return SentinelRoutes(self.seeds, self.service, replicas=self.replicas, patience=patience)
        return Routes(self.seeds, replicas=self.replicas, patience=patience)

    def ears(self) -> Ears:
        """Return the connections that listen to sentinels; none is open yet."""
        return Ears(is_encrypted=self.is_encrypted, ca=self.ca)

    def asks_role(self, address: Address) -> bool:
        """Return whether a server must say that it is a primary. In a cluster, a replica passes on what is asked."""
        return self.kind != "cluster" and not address.is_sentinel

    def login(self, address: Address) -> tuple[bytes, ...]:
        """Return the commands that a connection has to send first."""
        if address.is_sentinel:
            return ()
        words = (self.username, self.password or "") if self.username else (self.password,) if self.password else ()
        auth = (command(b"AUTH", *words),) if words else ()
        return (*auth, command(b"SELECT", self.db)) if self.db else auth

    def connection(self, address: Address, seconds: float) -> Any:
        """Return a connection that is not open yet, is to be open in so many seconds, and tries nothing twice."""
        times = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        if not address.port:
            return _blocking.UnixDomainSocketConnection(path=address.host, **_PLAIN, **times)
        where = {"host": address.host, "port": address.port, **_KEEPALIVE}
        if self.is_encrypted:
            return _blocking.SSLConnection(**where, ssl_ca_certs=self.ca, **_PLAIN, **times)
        return _blocking.Connection(**where, **_PLAIN, **times)

    def async_connection(self, address: Address) -> Any:
        """Return a connection that is not open yet, tries nothing twice and leaves all limits of time to its user."""
        times: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": None}
        if not address.port:
            return _asynchronous.UnixDomainSocketConnection(path=address.host, **_PLAIN, **times)
        where: dict[str, Any] = {"host": address.host, "port": address.port, **_KEEPALIVE}
        if self.is_encrypted:
            return _asynchronous.SSLConnection(**where, ssl_ca_certs=self.ca, **_PLAIN, **times)
        return _asynchronous.Connection(**where, **_PLAIN, **times)


def settings_from(url: str) -> RedisSettings:
    """Read a URL.

    Raises:
        ConfigurationError: It says what cannot be, or leaves out what must be said.
    """
    place = parsed(url, "Redis", FORM, _OPTIONS)
    options = place.options
    scheme, _, kind = place.scheme.partition("+")
    if options["ca"] and scheme != "rediss":
        raise ConfigurationError("ca= is for connections with TLS: the scheme is rediss://")
    if options["db"] is not None and kind != "unix":
        raise ConfigurationError("db= is for Unix sockets: elsewhere the number comes after a slash: redis://host/1")
    return RedisSettings(
        kind=kind,
        username=place.username,
        password=place.password,
        is_encrypted=scheme == "rediss",
        ca=options["ca"] or None,
        prefix=options["prefix"],
        timeout=options["timeout"],
        max_connections=options["max_connections"],
        replicas=options["durable"],
        **_KINDS[kind](place),
    )


def _one_server(place: Place) -> dict[str, Any]:
    if len(place.hosts) > 1:
        raise ConfigurationError("redis:// names one server; for several, use redis+sentinel:// or redis+cluster://")
    return {"seeds": _addresses(place, _PORT) or (Address("localhost", _PORT),), "db": _db(place.path)}


def _socket(place: Place) -> dict[str, Any]:
    if place.hosts or not place.path:
        raise ConfigurationError("the URL of a Unix socket is redis+unix:///path/to/redis.sock?db=0")
    return {"seeds": (Address("/" + place.path, 0),), "db": _db(place.options["db"] or "")}


def _sentinels(place: Place) -> dict[str, Any]:
    service, _, db = place.path.partition("/")
    if not place.hosts or not service:
        raise ConfigurationError("the URL for Sentinel is redis+sentinel://host:port,host:port/service[/db]")
    return {"seeds": _addresses(place, _SENTINEL_PORT, is_sentinel=True), "service": service, "db": _db(db)}


def _cluster(place: Place) -> dict[str, Any]:
    if not place.hosts or place.path:
        raise ConfigurationError("the URL of a cluster is redis+cluster://host:port,host:port: it has one database")
    return {"seeds": _addresses(place, _PORT)}


_KINDS: Final = {"": _one_server, "unix": _socket, "sentinel": _sentinels, "cluster": _cluster}
"""By the kind in the scheme: what reads which servers the URL names."""


def _addresses(place: Place, port: int, *, is_sentinel: bool = False) -> tuple[Address, ...]:
    return tuple(Address(host, given or port, is_sentinel) for host, given in place.hosts)


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"the database in the URL for Redis must be a number, not {text!r}")
    return int(text or 0)
