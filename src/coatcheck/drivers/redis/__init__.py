"""Sessions on Redis or Valkey: one server, Sentinel, Cluster; over TCP, TLS or a Unix socket.

`driver` has the two drivers, `work` and `cluster_work` the operations, `scripts` what the server does of them,
`records` and `keys` how a session is stored, `routes` which server is asked, `carried` both together, `servers` and
`connect` the connections, `places` the URL, `checkup` the look at the server's settings, `trouble` the errors.
"""

from coatcheck.errors import MissingExtra

try:
    import hiredis as _hiredis  # noqa: F401 (redis-py works without it, and much slower)
    import redis as _redis  # noqa: F401
except ImportError as _error:
    raise MissingExtra("Redis", "redis") from _error

from coatcheck.drivers.redis.driver import AsyncRedisDriver, RedisDriver

__all__ = ["AsyncRedisDriver", "RedisDriver"]
