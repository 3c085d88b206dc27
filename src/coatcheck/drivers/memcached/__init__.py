"""Sessions in memcached: shared by many hosts, kept in memory only, and evicted where it is short.

`driver` has the two drivers and `connect` their connections, which do the I/O; `operations` says what is asked,
`requests` what can be asked and of which server, `wire` how it looks on the connection, `common` what both drivers have
in common.
"""

from coatcheck.drivers.memcached.driver import AsyncMemcachedDriver, MemcachedDriver

__all__ = ["AsyncMemcachedDriver", "MemcachedDriver"]
