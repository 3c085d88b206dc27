"""The adapters of database servers, each by a package that is imported when it is needed."""

from __future__ import annotations

import contextlib
import importlib
import re
from abc import abstractmethod
from typing import Any

from web.database._adapter import Adapter
from web.database._errors import ConnectionFailed, MissingPackage, ParameterError
from web.database._placeholders import translate

__all__ = ["MySQLAdapter", "PostgreSQLAdapter", "ServerAdapter"]

# Seconds to wait for a server to accept a connection.
_CONNECT_TIMEOUT = 10
# PostgreSQL's status of a transaction in which a statement failed.
_FAILED = 3
# A connection that was idle for longer is asked whether it still works before it is used again.
_TRUSTED_IDLE = 5.0


class ServerAdapter(Adapter):
    """A database of a server, by a package that is imported when it is needed."""

    package: str
    install: str
    errors: str
    mysql = False

    def __init__(self, name: str, database: str, *, server: dict[str, Any], params: dict[str, Any]) -> None:
        super().__init__(name, database)
        self._where = server["socket"] or ":".join(str(part) for part in (server["host"], server["port"]) if part)
        self._params = {**self._arguments(server), **params}
        self._secrets = [str(value) for key, value in self._params.items() if value and "passw" in key.lower()]
        try:
            self._module: Any = importlib.import_module(self.package)
        except ImportError:
            raise MissingPackage(
                f"adapter {name!r} needs the package {self.package!r}, which is missing: pip install {self.install}"
            ) from None
        self.no_savepoint = self._module.Error

    @abstractmethod
    def _arguments(self, server: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the package's own ``connect``."""

    @abstractmethod
    def _ping(self, base: Any) -> bool:
        """Ask the server something."""

    def connect(self) -> Any:
        try:
            return self._module.connect(**self._params)
        except TypeError as error:
            raise ParameterError(f"adapter {self.name!r}: {self._scrubbed(error)}") from None
        except RuntimeError as error:
            # PyMySQL's message if the server requires an authentication that needs another package.
            found = re.search(r"'(\w+)' package is required", str(error))
            if found is None:
                raise
            raise MissingPackage(
                f"adapter {self.name!r} needs the package {found[1]!r} for the authentication of this server:"
                f" pip install {found[1]}"
            ) from None
        except self._module.Error as error:
            # Not chained: the package's own message may hold what it was given.
            raise ConnectionFailed(
                self.name,
                self.database,
                f"{self._scrubbed(error)}; check that the server runs at {self._where or 'its default address'} "
                "and lets this user in",
            ) from None

    def identity(self, base: Any) -> object:  # noqa: ARG002 -- all connections of an adapter lead there
        return (self._where, self.database)

    def usable(self, base: Any, idle: float) -> bool:
        if idle < _TRUSTED_IDLE:
            return True
        with contextlib.suppress(self._module.Error):
            return self._ping(base)
        return False

    def translated(self, operation: str) -> str:
        return translate(operation, mysql=self.mysql)

    def statement(self, operation: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if values:
            return (self.translated(operation), values)
        # Without values the package reads the statement as it is.
        return (translate(operation, mysql=self.mysql, values=False),)

    def _scrubbed(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class PostgreSQLAdapter(ServerAdapter):
    """A database of PostgreSQL, by psycopg 3."""

    package = "psycopg"
    install = "'psycopg[binary]'"
    table_query = (
        "SELECT 1 FROM information_schema.tables "
        "WHERE table_name = ? AND table_schema = ANY (current_schemas(false)) AND table_type = 'BASE TABLE'"
    )

    def _arguments(self, server: dict[str, Any]) -> dict[str, Any]:
        given = {
            "dbname": self.database,
            "user": server["user"],
            "password": server["password"],
            "host": server["socket"] or server["host"],
            "port": server["port"],
        }
        return {"connect_timeout": _CONNECT_TIMEOUT} | {key: value for key, value in given.items() if value}

    def in_transaction(self, base: Any) -> bool:
        return bool(base.info.transaction_status != 0)  # 0: idle

    def mark(self, base: Any) -> object:
        # Not a savepoint: to release one that is not there spoils the transaction.
        return base.execute("SELECT txid_current_if_assigned()").fetchone()[0]

    def holds(self, base: Any, mark: object) -> bool:
        # One that failed is still open, and nothing of it lasts, even if it is "committed".
        return base.info.transaction_status != _FAILED and self.mark(base) == mark

    def usable(self, base: Any, idle: float) -> bool:
        return not base.closed and super().usable(base, idle)

    def reset(self, base: Any) -> None:
        if base.autocommit:
            base.autocommit = False
        base.row_factory = importlib.import_module("psycopg.rows").tuple_row

    def _ping(self, base: Any) -> bool:
        base.execute("SELECT 1")
        base.rollback()
        return True


class MySQLAdapter(ServerAdapter):
    """A database of MySQL or MariaDB, by PyMySQL."""

    package = "pymysql"
    install = "pymysql"
    quote = "`"
    mysql = True
    table_query = "SELECT 1 FROM information_schema.tables WHERE table_name = ? AND table_schema = DATABASE()"

    def _arguments(self, server: dict[str, Any]) -> dict[str, Any]:
        given = {
            "database": self.database,
            "user": server["user"],
            "password": server["password"],
            "host": server["host"],
            "port": server["port"],
            "unix_socket": server["socket"],
        }
        # FOUND_ROWS (2): rowcount counts the rows that an UPDATE found, as with every other adapter, not only those
        # that it changed.
        # READ COMMITTED, as PostgreSQL has it: under the server's own default a transaction locks the gaps between rows
        # too, and more of them end in a deadlock.
        isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        fixed = {
            "charset": "utf8mb4",
            "client_flag": 2,
            "connect_timeout": _CONNECT_TIMEOUT,
            "init_command": isolation,
        }
        return fixed | {key: value for key, value in given.items() if value}

    def in_transaction(self, base: Any) -> bool:
        return bool(base.server_status & 1)  # SERVER_STATUS_IN_TRANS

    def usable(self, base: Any, idle: float) -> bool:
        return bool(base.open) and super().usable(base, idle)

    def reset(self, base: Any) -> None:
        if base.get_autocommit():
            base.autocommit(False)  # noqa: FBT003 -- PyMySQL's signature

    def _ping(self, base: Any) -> bool:
        base.ping(reconnect=False)
        return True
