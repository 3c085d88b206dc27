"""What differs between databases: how to connect, placeholders, and what a pool has to know."""

from __future__ import annotations

import contextlib
import importlib
import os
import sqlite3
import stat
import time
from abc import ABC, abstractmethod
from typing import Any

from web.database._errors import ConnectionFailed, MissingPackage, ParameterError, UnknownAdapter
from web.database._placeholders import translate

__all__ = ["Adapter", "adapter_for"]

# Seconds to wait for a lock of SQLite, and for a server to accept a connection.
_LOCK_TIMEOUT = 5.0
_CONNECT_TIMEOUT = 10
# The savepoint that marks a transaction.
_MARK = "web_session"
# PostgreSQL's status of a transaction in which a statement failed.
_FAILED = 3
# A connection that was idle for longer is asked whether it still works before it is used again.
_TRUSTED_IDLE = 5.0


class Adapter(ABC):
    """One database, and how to speak to it.

    Attributes:
        name: The adapter's name, as it was given.
        database: The database; for a file its whole path.
        quote: The character that quotes the name of a table or column.
        table_query: A statement with one placeholder, which gives a row where a table of that name exists.
        no_savepoint: What the package raises where a savepoint is not there.
    """

    quote = '"'
    table_query: str
    no_savepoint: type[Exception]

    def __init__(self, name: str, database: str) -> None:
        self.name = name
        self.database = database

    @abstractmethod
    def connect(self) -> Any:
        """Make a DB-API connection, no transaction open.

        Raises:
            ConnectionFailed: The database cannot be opened.
            ParameterError: The adapter has no such parameter.
        """

    @abstractmethod
    def in_transaction(self, base: Any) -> bool:
        """Tell whether a transaction is open."""

    def mark(self, base: Any) -> object:
        """Leave a mark in the open transaction, by which `holds` knows it again."""
        with contextlib.closing(base.cursor()) as cursor:
            cursor.execute(f"SAVEPOINT {_MARK}")
        return _MARK

    def holds(self, base: Any, mark: object) -> bool:  # noqa: ARG002 -- a savepoint is its own mark
        """Tell whether the transaction of a mark is still open, and can still be committed; it takes the mark away."""
        with contextlib.closing(base.cursor()) as cursor:
            try:
                cursor.execute(f"RELEASE SAVEPOINT {_MARK}")
            except self.no_savepoint:
                return False
        return True

    @abstractmethod
    def identity(self, base: Any) -> object:
        """Tell which database a connection is to."""

    @abstractmethod
    def usable(self, base: Any, idle: float) -> bool:
        """Tell whether a connection that was idle for that many seconds can be used."""

    @abstractmethod
    def reset(self, base: Any) -> None:
        """Undo the settings that a request made on a connection; no transaction is open."""

    @property
    def shareable(self) -> bool:
        """Whether two connections see the same data."""
        return True

    def translated(self, operation: str) -> str:
        """Write a statement, which values go with, for the adapter's package."""
        return operation

    def statement(self, operation: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the arguments of the adapter's own ``execute``."""
        return (operation, values)

    def __str__(self) -> str:
        return f"{self.name} database {self.database!r}"


class _File(sqlite3.Connection):
    """A connection that knows which file it opened."""

    identity: tuple[int, int] | None = None


class SQLite(Adapter):
    """A file of SQLite, in WAL mode."""

    table_query = (
        "SELECT 1 FROM (SELECT name, type FROM sqlite_master UNION ALL SELECT name, type FROM sqlite_temp_master) "
        "WHERE type = 'table' AND name = ? COLLATE NOCASE"
    )
    no_savepoint = sqlite3.OperationalError
    _options = ("timeout", "detect_types", "cached_statements")

    def __init__(
        self, name: str, database: str, *, create: bool, server: dict[str, Any], params: dict[str, Any]
    ) -> None:
        # The whole path is kept: a server process may change its folder later.
        super().__init__(name, database if database == ":memory:" else os.path.abspath(database))  # noqa: PTH100
        self._create = create
        for option, value in server.items():
            if value:
                raise ParameterError(f"adapter {name!r} takes no {option}: it opens a file, so leave {option} out")
        for option in params:
            if option not in self._options:
                raise ParameterError(
                    f"adapter {name!r} knows no parameter {option!r}: it takes {', '.join(self._options)}"
                )
        self._timeout = float(params.get("timeout", _LOCK_TIMEOUT))
        # A pool hands a connection from thread to thread, to one at a time.
        self._params: dict[str, Any] = {
            **params,
            "timeout": self._timeout,
            "isolation_level": "",
            "check_same_thread": False,
        }

    @property
    def shareable(self) -> bool:
        return self.database != ":memory:"

    def connect(self) -> Any:
        if self.shareable:
            self._check_file()
        try:
            base = sqlite3.connect(self.database, factory=_File, **self._params)
            try:
                self._use_wal(base)
            except BaseException:
                base.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(self._problem(error)) from error
        base.identity = self._identity()
        return base

    def in_transaction(self, base: Any) -> bool:
        return bool(base.in_transaction)

    def identity(self, base: Any) -> object:
        known = getattr(base, "identity", None)
        return known if known is not None else next(iter(base.execute("PRAGMA database_list")))[2]

    def usable(self, base: Any, idle: float) -> bool:  # noqa: ARG002 -- a file does not grow old
        # Where the file was deleted or replaced, the connection goes on with one that nobody else sees.
        return bool(base.identity == self._identity())

    def reset(self, base: Any) -> None:
        if getattr(base, "autocommit", -1) != -1:  # Python 3.12 and later; -1 stands for isolation_level
            base.autocommit = -1
        base.isolation_level = ""
        base.row_factory = None
        base.text_factory = str

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.database)  # noqa: PTH116 -- a stat is all that is needed
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _use_wal(self, base: sqlite3.Connection) -> None:
        """Turn WAL on; SQLite's own timeout does not cover two processes that do it at once."""
        deadline = time.monotonic() + self._timeout
        while base.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            try:
                # Where WAL cannot be had it answers with another mode, which works too unless nothing can be written.
                if base.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                    (version,) = base.execute("PRAGMA user_version").fetchone()
                    base.execute(f"PRAGMA user_version = {version:d}")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _check_file(self) -> None:
        folder = os.path.dirname(self.database)  # noqa: PTH120 -- the path is text here
        try:
            mode = os.stat(self.database).st_mode  # noqa: PTH116
        except FileNotFoundError:
            if not os.path.isdir(folder):  # noqa: PTH112
                raise self._failed(f"the folder {folder!r} does not exist: create it, or name another") from None
            if not self._create:
                raise self._failed("there is no such file: create it with autoCreate=True, or name another") from None
            self._create_file(folder)
        except NotADirectoryError:
            raise self._failed(f"{folder!r} is not a folder: name a file in a folder that exists") from None
        except OSError as error:
            raise self._failed(f"the file cannot be reached: {error.strerror}; name another") from error
        else:
            if stat.S_ISDIR(mode):
                raise self._failed("it is a folder: name a file, for example one inside of it")
            if not stat.S_ISREG(mode):
                raise self._failed("it is not a regular file: name another")
            self._check_access(folder)

    def _check_access(self, folder: str) -> None:
        # SQLite would open the file for reading, and fail at the first write without its path.
        for path, what in ((self.database, "file"), (folder, "folder")):
            if not os.access(path, os.W_OK, effective_ids=True):
                raise self._failed(f"the {what} {path!r} cannot be written: let this process write to it")

    def _create_file(self, folder: str) -> None:
        """Make the file before SQLite does, which would make it readable for all; its -wal file gets the same mode."""
        try:
            os.close(os.open(self.database, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if os.path.islink(self.database):  # noqa: PTH114
                raise self._failed(
                    "it is a link to a file that does not exist: remove the link, or name another"
                ) from None
            # Otherwise another process has just made it.
        except OSError as error:
            raise self._failed(
                f"the file cannot be created: {error.strerror}; let this process write to the folder {folder!r}, "
                f"or name a file in another"
            ) from error

    def _problem(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"{error}; name another file, or restore this one from a copy"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"{error}; let this process write to the file and to its folder"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{error}; end the program that keeps it locked, or give a longer timeout="
        return str(error)

    def _failed(self, problem: str) -> ConnectionFailed:
        return ConnectionFailed(self.name, self.database, problem)


class Server(Adapter):
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
        """Give the arguments of the package's own ``connect``."""

    @abstractmethod
    def _ping(self, base: Any) -> bool:
        """Ask the server something."""

    def connect(self) -> Any:
        try:
            return self._module.connect(**self._params)
        except TypeError as error:
            raise ParameterError(f"adapter {self.name!r}: {self._scrubbed(error)}") from None
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


class PostgreSQL(Server):
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


class MySQL(Server):
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


_SERVERS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "mysql": MySQL}
_FILES = ("sqlite", "snakesql")


def adapter_for(name: str, database: Any, *, create: bool, params: dict[str, Any], **server: Any) -> Adapter:
    """Find an adapter by name and give it its database.

    Args:
        name: The name.
        database: The file or the name of the database.
        create: Whether to make a file that is missing.
        params: Parameters of the adapter's own ``connect``.
        **server: ``user``, ``password``, ``host``, ``port`` and ``socket``.

    Raises:
        UnknownAdapter: There is no adapter of that name.
        MissingPackage: The adapter needs a package that is not installed.
        ParameterError: A parameter does not fit the adapter.
    """
    key = str(name).lower()
    if key not in _FILES and key not in _SERVERS:
        raise UnknownAdapter(f"there is no adapter {name!r}: use one of {', '.join(sorted((*_FILES, *_SERVERS)))}")
    text = os.fspath(database) if isinstance(database, os.PathLike) else database
    if not isinstance(text, str) or not text or "\x00" in text:
        what = "the name of the database" if key in _SERVERS else "the path of a file"
        raise ParameterError(f"adapter {key!r}: database={database!r} is {'not ' if text else 'empty, not '}{what}")
    if key in _SERVERS:
        return _SERVERS[key](key, text, server=server, params=params)
    return SQLite(key, text, create=create, server=server, params=params)
