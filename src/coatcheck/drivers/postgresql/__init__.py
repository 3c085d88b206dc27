"""Sessions in PostgreSQL, by psycopg 3, directly or through PgBouncer.

`driver` has the drivers, `dialect` what PostgreSQL says differently from other SQL servers, `fast` the changes that
take one statement, and `client` the connections. The rest is in `coatcheck.drivers.sql`.
"""

from coatcheck.errors import MissingExtra

try:
    import psycopg as psycopg
except ImportError as error:
    raise MissingExtra("PostgreSQL", "postgresql") from error

from coatcheck.drivers.postgresql.driver import AsyncPostgreSQLDriver, PostgreSQLDriver

__all__ = ["AsyncPostgreSQLDriver", "PostgreSQLDriver"]
