"""Fixtures that give a running server, started at its first use and kept until the run is over.

A test that uses one of them is marked `server`. Where a server's programs are not installed its tests are skipped, with
the Debian package to install; with CI=true that is a failure. Tests share the servers: `namespace` keeps them apart.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

import pytest

from testservers.base import Server, find_program, scratch
from testservers.group import Group
from testservers.mariadb import MariaDBServer
from testservers.memcached import MemcachedServer
from testservers.postgresql import PgBouncer, PostgreSQLServer
from testservers.redis import RedisServer
from testservers.redis_groups import RedisCluster, RedisSentinel

__all__ = ["need"]

OPENSSL: Final = {"openssl": "openssl"}
SERVERS: Final = frozenset(
    {
        "mariadb_server",
        "memcached_server",
        "pgbouncer",
        "postgresql_server",
        "redis_cluster",
        "redis_sentinel",
        "redis_server",
        "redis_tls_server",
        "server_folder",
    }
)

_BEHIND: Final = {"pgbouncer": "postgresql_server"}

_random = random.SystemRandom()


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = sorted(SERVERS.intersection(getattr(item, "fixturenames", ())))
        if used:
            item.add_marker("server")
        row = item.callspec.params.get("engine") if hasattr(item, "callspec") else None
        used += [row.server] if getattr(row, "server", None) else []
        if used:  # those with the same server run in the same process, so that it is started once
            item.add_marker(pytest.mark.xdist_group(_BEHIND.get(used[0], used[0])))


def need(kind: type[Server | Group], programs: Mapping[str, str] | None = None) -> None:
    """Skip the test where programs are missing, or fail it with CI=true.

    Args:
        kind: What is to be started.
        programs: More programs, and the Debian package of each.
    """
    packages = {*kind.missing(), *(package for name, package in (programs or {}).items() if find_program(name) is None)}
    if packages:
        _do_without(f"{kind.__name__} needs Debian's {' '.join(sorted(packages))}: apt-get install them")


def _do_without(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why} (with CI=true nothing may be skipped)", pytrace=False)
    pytest.skip(why)


@pytest.fixture
def namespace() -> str:
    """A prefix of letters and digits that no other test has."""
    return f"t{_random.getrandbits(48):012x}"


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for the files of servers, gone in the end. For servers of a test's own: each needs a folder in it."""
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[RedisServer]:
    """Redis on TCP and on a Unix socket."""
    need(RedisServer)
    with RedisServer(server_folder / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def redis_tls_server(server_folder: Path) -> Iterator[RedisServer]:
    """Redis that speaks TLS only."""
    need(RedisServer, OPENSSL)
    with RedisServer(server_folder / "redis-tls", tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(server_folder: Path) -> Iterator[RedisCluster]:
    """Redis Cluster: three primaries with a replica each."""
    need(RedisCluster)
    with RedisCluster(server_folder / "redis-cluster") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinel(server_folder: Path) -> Iterator[RedisSentinel]:
    """A Redis primary with a replica, watched by three sentinels."""
    need(RedisSentinel)
    with RedisSentinel(server_folder / "redis-sentinel") as pair:
        yield pair


@pytest.fixture(scope="session")
def postgresql_server(server_folder: Path) -> Iterator[PostgreSQLServer]:
    """PostgreSQL with the database `coatcheck`."""
    need(PostgreSQLServer)
    with PostgreSQLServer(server_folder / "postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(server_folder: Path, postgresql_server: PostgreSQLServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode, in front of `postgresql_server`."""
    need(PgBouncer)
    with PgBouncer(server_folder / "pgbouncer", postgresql_server) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(server_folder: Path) -> Iterator[MariaDBServer]:
    """MariaDB with the database `coatcheck`."""
    need(MariaDBServer)
    with MariaDBServer(server_folder / "mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def memcached_server(server_folder: Path) -> Iterator[MemcachedServer]:
    """Memcached."""
    need(MemcachedServer)
    with MemcachedServer(server_folder / "memcached") as server:
        yield server
