"""The drivers of MariaDB and MySQL, sync and async."""

from __future__ import annotations

from typing import ClassVar

from coatcheck.drivers._lent import lent
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.drivers.mariadb.client import AioMySQLClient, PyMySQLClient
from coatcheck.drivers.mariadb.connections import AioMySQLConnection, PyMySQLConnection
from coatcheck.drivers.mariadb.dialect import NAME, MariaDBDialect
from coatcheck.drivers.mariadb.lent import (
    AsyncLentMariaDBDriver,
    LentMariaDBDriver,
    async_kinds,
    commits_alone,
    kinds,
)
from coatcheck.drivers.mariadb.settings import MariaDBSettings
from coatcheck.drivers.sql.shell import AsyncSQLDriver, SQLDriver

__all__ = ["AsyncMariaDBDriver", "MariaDBDriver"]


class MariaDBDriver(SQLDriver[PyMySQLConnection]):
    """Sessions in a database of MariaDB or MySQL.

    Args:
        settings: Where the server is and how to reach it.
    """

    name: ClassVar[str] = NAME

    def __init__(self, settings: MariaDBSettings) -> None:
        dialect, client = MariaDBDialect(settings.prefix), PyMySQLClient(settings)
        super().__init__(dialect, client, settings.place, settings.timeout, settings.max_connections)

    @classmethod
    def from_url(cls, url: str) -> MariaDBDriver:
        """Make a driver from a URL: `mariadb://user:password@host:3306/database?option=value`.

        Options are those of `MariaDBSettings`: `ca`, `max_connections`, `prefix`, `socket`, `timeout` and `tls`.

        Raises:
            ConfigurationError: It has another form, or an option that is unknown or out of range.
        """
        return cls(MariaDBSettings.from_url(url))

    def borrow(self, connection: object) -> Driver:
        """Return a driver on *connection*, with the same table prefix.

        It may be a connection of PyMySQL's or mysqlclient's, SQLAlchemy's `Connection` or `Session`, or Django's
        connection, which takes writes inside `atomic()` only. Tables are made on it only while no transaction is open.

        Raises:
            ConfigurationError: It is something else.
        """
        return LentMariaDBDriver(self._dialect.prefix, lent(connection, NAME, kinds(), commits_alone))


class AsyncMariaDBDriver(AsyncSQLDriver[AioMySQLConnection]):
    """Sessions in a database of MariaDB or MySQL, for an asynchronous program.

    Args:
        settings: Where the server is and how to reach it.
    """

    name: ClassVar[str] = NAME

    def __init__(self, settings: MariaDBSettings) -> None:
        dialect, client = MariaDBDialect(settings.prefix), AioMySQLClient(settings)
        super().__init__(dialect, client, settings.place, settings.timeout, settings.max_connections)

    @classmethod
    def from_url(cls, url: str) -> AsyncMariaDBDriver:
        """Make a driver from a URL; see `MariaDBDriver.from_url`.

        Raises:
            ConfigurationError: As there.
        """
        return cls(MariaDBSettings.from_url(url))

    def borrow(self, connection: object) -> AsyncDriver:
        """Return a driver on *connection*, one of aiomysql's, with the same table prefix.

        Raises:
            ConfigurationError: It is something else.
        """
        return AsyncLentMariaDBDriver(self._dialect.prefix, lent(connection, NAME, async_kinds(), commits_alone))
