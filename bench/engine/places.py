"""The engines that are measured: their servers, on real programs of this machine, and their addresses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from engine import raw
from engine.raw import Raw

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # its servers are the bench's too

from testservers import MariaDBServer, MemcachedServer, PgBouncer, PostgreSQLServer, RedisServer, Server
from testservers.base import find_program

Maker = Callable[["Place"], Raw]
AsyncMaker = Callable[["Place"], Coroutine[Any, Any, Raw]]


class Place(NamedTuple):
    """Where an engine is.

    Attributes:
        url: As a driver's URL, without a prefix.
        folder: A folder for files of the bench's own.
        port: The port that can be listened in on, or None where there is none.
    """

    url: str
    folder: Path
    port: int | None = None

    def through(self, port: int) -> Place:
        """Give the same place by way of another port."""
        assert self.port is not None
        return self._replace(url=self.url.replace(f":{self.port}", f":{port}"), port=port)

    def storage(self, prefix: str) -> str:
        """Give the URL of a storage of its own."""
        if self.url == "memory:":
            return self.url
        if self.url.startswith(("sqlite:", "filesystem:")):
            return f"{self.url}/{prefix}.db"
        return f"{self.url}?prefix={prefix}"


class Engine(NamedTuple):
    """An engine, and what its client libraries do by themselves.

    Attributes:
        key: Its name on the command line.
        name: Its name in tables.
        serve: Starts what it needs in a folder, for as long as the context lasts.
        raw: Makes the raw actions of a synchronous client, or None where the engine has no other face than ours.
        raw_async: The same of an asynchronous client, or None: then the synchronous one is the unit of both.
    """

    key: str
    name: str
    serve: Callable[[Path], Any]
    raw: Maker | None
    raw_async: AsyncMaker | None = None


@contextmanager
def _nothing(folder: Path, url: str) -> Iterator[Place]:
    yield Place(url, folder)


def _served(make: Callable[[Path], Server]) -> Callable[[Path], Any]:
    @contextmanager
    def serve(folder: Path) -> Iterator[Place]:
        with make(folder / "server") as server:
            yield Place(server.url, folder, server.port)

    return serve


@contextmanager
def _redis_unix(folder: Path) -> Iterator[Place]:
    with RedisServer(folder / "server") as server:
        yield Place(server.unix_url, folder)


@contextmanager
def _pgbouncer(folder: Path) -> Iterator[Place]:
    with PostgreSQLServer(folder / "server") as server, PgBouncer(folder / "bouncer", server) as bouncer:
        yield Place(bouncer.url, folder, bouncer.port)


def _redis_place(place: Place) -> dict[str, Any]:
    if place.port is None:
        return {"unix_socket_path": place.url.removeprefix("redis+unix://")}
    return {"host": raw.HOST, "port": place.port}


def _port(place: Place) -> int:
    assert place.port is not None
    return place.port


def _redis(place: Place) -> Raw:
    return raw.redis_sync(_redis_place(place))


def _redis_async(place: Place) -> Coroutine[Any, Any, Raw]:
    return raw.redis_async(_redis_place(place))


ENGINES: Final = (
    Engine("memory", "memory", lambda folder: _nothing(folder, "memory:"), None),
    Engine(
        "sqlite",
        "SQLite",
        lambda folder: _nothing(folder, f"sqlite:///{folder}"),
        lambda place: raw.sqlite_sync(place.folder / "raw"),
    ),
    Engine(
        "filesystem",
        "filesystem",
        lambda folder: _nothing(folder, f"filesystem:///{folder}"),
        lambda place: raw.filesystem_sync(place.folder / "raw"),
    ),
    Engine("redis", "Redis", _served(RedisServer), _redis, _redis_async),
    Engine("redis-unix", "Redis, Unix socket", _redis_unix, _redis, _redis_async),
    Engine(
        "postgresql",
        "PostgreSQL",
        _served(PostgreSQLServer),
        lambda place: raw.postgresql_sync(place.url, prepares=True),
        lambda place: raw.postgresql_async(place.url, prepares=True),
    ),
    Engine(
        "pgbouncer",
        "PostgreSQL by PgBouncer",
        _pgbouncer,
        lambda place: raw.postgresql_sync(place.url, prepares=False),
        lambda place: raw.postgresql_async(place.url, prepares=False),
    ),
    Engine(
        "mariadb",
        "MariaDB",
        _served(MariaDBServer),
        lambda place: raw.mariadb_sync(place.url),
        lambda place: raw.mariadb_async(place.url),
    ),
    Engine(
        "memcached",
        "memcached",
        _served(MemcachedServer),
        lambda place: raw.memcached_sync(_port(place)),
        lambda place: raw.memcached_async(_port(place)),
    ),
)

_PROGRAMS: Final = {
    "redis": ("redis-server",),
    "redis-unix": ("redis-server",),
    "postgresql": ("postgres",),
    "pgbouncer": ("postgres", "pgbouncer"),
    "mariadb": ("mariadbd",),
    "memcached": ("memcached",),
}
_LIBRARIES: Final = {
    "redis": ("redis", "hiredis"),
    "redis-unix": ("redis", "hiredis"),
    "postgresql": ("psycopg",),
    "pgbouncer": ("psycopg",),
    "mariadb": ("PyMySQL", "aiomysql"),
    "memcached": ("pymemcache", "aiomcache"),
}


def versions(key: str) -> dict[str, str]:
    """Give what is measured of an engine: the servers' programs and the client libraries, by name."""
    from importlib.metadata import version  # noqa: PLC0415 (takes a while, and is needed once)

    found = {name: version(name) for name in ("coatcheck", *_LIBRARIES.get(key, ()))}
    for name in _PROGRAMS.get(key, ()):
        option = "--help" if name == "memcached" else "--version"
        done = subprocess.run([find_program(name) or name, option], capture_output=True, text=True, check=True)  # noqa: S603
        number = re.search(r"\d+(\.\d+)+", done.stdout)
        found[name] = "unknown" if number is None else number[0]
    return found
