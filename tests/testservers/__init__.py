"""Real servers for the tests and the benchmarks, each in a folder of its own, on a free port of loopback.

    with scratch() as folder, RedisServer(folder / "redis") as server:
        print(server.url)

A server dies with the process that started it, whichever way that ends. Tests have them as fixtures: see `fixtures`.
"""

from testservers.base import Server, ServerError, free_port, scratch, wait_until
from testservers.group import Group
from testservers.mariadb import MariaDBServer
from testservers.memcached import MemcachedServer
from testservers.nginx import NginxServer
from testservers.postgresql import PgBouncer, PostgreSQLServer
from testservers.proxy import Counts, Fault, FaultProxies, FaultProxy
from testservers.redis import RedisServer
from testservers.redis_groups import RedisCluster, RedisSentinel

__all__ = [
    "Counts",
    "Fault",
    "FaultProxies",
    "FaultProxy",
    "Group",
    "MariaDBServer",
    "MemcachedServer",
    "NginxServer",
    "PgBouncer",
    "PostgreSQLServer",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "Server",
    "ServerError",
    "free_port",
    "scratch",
    "wait_until",
]
