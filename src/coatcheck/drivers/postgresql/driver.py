"""The PostgreSQL drivers: on connections of our own, and on one that the application lends."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import psycopg

from coatcheck.drivers._lent import lent
from coatcheck.drivers._urls import Option, parsed, seconds, text, whole
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.drivers.postgresql.client import (
    AsyncPsycopgBorrower,
    AsyncPsycopgClient,
    AsyncPsycopgConnection,
    PostgreSQLSettings,
    PsycopgBorrower,
    PsycopgClient,
    PsycopgConnection,
    commits_alone,
)
from coatcheck.drivers.postgresql.dialect import PostgreSQL
from coatcheck.drivers.sql.lent import AsyncLentDriver, LentDriver
from coatcheck.drivers.sql.shell import AsyncSQLDriver, SQLDriver, check_bounds

__all__ = ["AsyncPostgreSQLDriver", "PostgreSQLDriver"]

NAME: Final = "postgresql"
TIMEOUT: Final = 5.0
MAX_CONNECTIONS: Final = 20

_FORM: Final = "postgresql://user:password@host:port/database, or postgresql:///database?host=/var/run/postgresql"
_PASSED_ON: Final = ("host", "sslmode", "sslrootcert", "target_session_attrs")
_OPTIONS: Final[dict[str, Option]] = {
    "max_connections": whole(MAX_CONNECTIONS, least=1),
    "prefix": text(),
    "timeout": seconds(TIMEOUT),
    **dict.fromkeys(_PASSED_ON, text(None)),
}


class _Arguments:
    """What both drivers are made of.

    Args:
        parameters: Those of libpq.
        prefix: What the names of the tables start with.
        timeout: Seconds that an operation may take in all.
        max_connections: How many connections are used at the same time, at most.
    """

    def __init__(self, parameters: dict[str, str], prefix: str, timeout: float, max_connections: int) -> None:
        check_bounds(timeout, max_connections)
        hosts = parameters.get("host", "").split(",")
        self.settings: Final = PostgreSQLSettings(parameters, timeout, len(hosts))
        self.dialect: Final = PostgreSQL(prefix, timeout)
        ports = parameters.get("port", "").split(",")
        places = [
            f"{host or 'the local socket'}{f':{ports[n]}' if n < len(ports) and ports[n] else ''}"
            for n, host in enumerate(hosts)
        ]
        self.place: Final = f"PostgreSQL at {', '.join(places)}"


def _from_url(url: str) -> dict[str, Any]:
    place = parsed(url, "PostgreSQL", _FORM, _OPTIONS)
    given: dict[str, Any] = {"user": place.username, "password": place.password, "dbname": place.path}
    given = {name: value for name, value in given.items() if value}
    if place.hosts:
        given["host"] = ",".join(host for host, _ in place.hosts)
        given["port"] = ",".join(str(port or "") for _, port in place.hosts)
    return given | {name: value for name, value in place.options.items() if value is not None}


class PostgreSQLDriver(SQLDriver[PsycopgConnection]):
    """Sessions in PostgreSQL.

    Nothing is connected to before the first use. The tables are made by `setup` (`coatcheck init URL`).

    Args:
        prefix: What the names of the tables start with.
        timeout: Seconds that an operation may take in all: waiting for a connection, opening it, and every answer.
        max_connections: How many connections a process uses at the same time, at most.
        parameters: Those of libpq: `host`, `port`, `dbname`, `user`, `password`, `sslmode` and so on.

    Raises:
        ConfigurationError: An argument is out of range. From the first use, where the tables are missing or have
            another schema version.
    """

    name: ClassVar[str] = NAME

    def __init__(
        self,
        *,
        prefix: str = "",
        timeout: float = TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        **parameters: str,
    ) -> None:
        made = _Arguments(parameters, prefix, timeout, max_connections)
        super().__init__(made.dialect, PsycopgClient(made.settings), made.place, timeout, max_connections)

    @classmethod
    def from_url(cls, url: str) -> PostgreSQLDriver:
        """Make a driver from a URL: `postgresql://user:password@host:port/database`, also `postgres://`.

        Options: `?timeout=2&prefix=x_&max_connections=20&host=/var/run/postgresql`, and libpq's `sslmode`,
        `sslrootcert` and `target_session_attrs`. Several hosts are tried in turn.

        Raises:
            ConfigurationError: The URL has another form, an unknown option, or one with a bad value.
        """
        return cls(**_from_url(url))

    def borrow(self, connection: object) -> Driver:
        """Return a driver on a connection of the application's, with the same table prefix.

        Args:
            connection: A `psycopg.Connection`, or what has one inside: SQLAlchemy's Connection or Session, Django's.

        Raises:
            ConfigurationError: It is something else.
        """
        found = lent(connection, self.name, (psycopg.Connection,), commits_alone)
        return LentDriver(PostgreSQL(self._dialect.prefix, None), PsycopgBorrower(), found)


class AsyncPostgreSQLDriver(AsyncSQLDriver[AsyncPsycopgConnection]):
    """Sessions in PostgreSQL, for asynchronous programs; see `PostgreSQLDriver`. Each event loop has connections."""

    name: ClassVar[str] = NAME

    def __init__(
        self,
        *,
        prefix: str = "",
        timeout: float = TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        **parameters: str,
    ) -> None:
        made = _Arguments(parameters, prefix, timeout, max_connections)
        super().__init__(made.dialect, AsyncPsycopgClient(made.settings), made.place, timeout, max_connections)

    @classmethod
    def from_url(cls, url: str) -> AsyncPostgreSQLDriver:
        """Make a driver from a URL; see `PostgreSQLDriver.from_url`.

        Raises:
            ConfigurationError: The URL has another form, an unknown option, or one with a bad value.
        """
        return cls(**_from_url(url))

    def borrow(self, connection: object) -> AsyncDriver:
        """Return a driver on a `psycopg.AsyncConnection` of the application's, with the same table prefix.

        Raises:
            ConfigurationError: It is something else.
        """
        found = lent(connection, self.name, (psycopg.AsyncConnection,), commits_alone)
        return AsyncLentDriver(PostgreSQL(self._dialect.prefix, None), AsyncPsycopgBorrower(), found)
