"""Sessions in MariaDB or MySQL, by PyMySQL and aiomysql.

`driver` has the two drivers, `settings` what they are told; `dialect` the SQL, the tables and the meaning of errors,
`fast` the changes that take one statement; `wire` the way from parameters to text and from rows to values; `client` the
connections of our own, `lent` those of the application. The operations themselves are those of all SQL servers, in
`coatcheck.drivers.sql`.
"""

from coatcheck.errors import MissingExtra

try:
    import aiomysql as _aiomysql  # type: ignore[import-untyped]
    import pymysql as _pymysql
except ImportError:
    raise MissingExtra("MariaDB", "mariadb") from None

from coatcheck.drivers.mariadb.driver import AsyncMariaDBDriver, MariaDBDriver
from coatcheck.drivers.mariadb.settings import MariaDBSettings

__all__ = ["AsyncMariaDBDriver", "MariaDBDriver", "MariaDBSettings"]

del _aiomysql, _pymysql
