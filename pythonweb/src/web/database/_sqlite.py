"""The adapter of SQLite: a file, by the module that comes with Python."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from typing import Any

from coatcheck.drivers.sqlite import create_file, log_files
from web.database._adapter import Adapter
from web.database._errors import ConnectionFailed, ParameterError
from web.database._places import FileID, file_at

__all__ = ["SQLite"]

# Seconds to wait for a lock.
_LOCK_TIMEOUT = 5.0


class _File(sqlite3.Connection):
    """A connection that knows which file it opened, and which log and index of it lay beside."""

    identity: FileID | None = None
    beside: tuple[tuple[str, object], ...] = ()


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
                raise ParameterError(f"adapter {name!r} takes no {option}: it opens a file, so omit {option}")
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
        opened = self._identity()
        try:
            base = sqlite3.connect(self.database, factory=_File, **self._params)
            try:
                self._use_wal(base)
                base.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # the log is opened by the first read
                base.beside = self._beside()
            except BaseException:
                base.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(self._problem(error)) from error
        base.identity = opened
        return base

    def in_transaction(self, base: Any) -> bool:
        return bool(base.in_transaction)

    def identity(self, base: Any) -> object:
        known = getattr(base, "identity", None)
        return known if known is not None else next(iter(base.execute("PRAGMA database_list")))[2]

    def usable(self, base: Any, idle: float) -> bool:  # noqa: ARG002 -- a file does not grow old
        # If one of the files was removed or replaced, the connection would use one that no other process sees.
        return bool(base.identity == self._identity() and base.beside == self._beside())

    def reset(self, base: Any) -> None:
        if getattr(base, "autocommit", -1) != -1:  # Python 3.12 and later; -1 stands for isolation_level
            base.autocommit = -1
        base.isolation_level = ""
        base.row_factory = None
        base.text_factory = str

    def _identity(self) -> FileID | None:
        return file_at(self.database) if self.shareable else None

    def _beside(self) -> tuple[tuple[str, object], ...]:
        return log_files(self.database) if self.shareable else ()

    def _use_wal(self, base: sqlite3.Connection) -> None:
        """Turn WAL on; SQLite's own timeout does not cover two processes that do it at once."""
        deadline = time.monotonic() + self._timeout
        while base.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            try:
                # If WAL is not possible, SQLite uses another mode, which works too unless nothing can be written.
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
        if os.path.islink(self.database):  # noqa: PTH114
            raise self._failed("it is a link to a file that does not exist: remove the link, or name another")
        try:
            # It also takes away the log of a file that is gone, which SQLite would take for the new one's.
            create_file(self.database, self._timeout)
        except TimeoutError as error:
            raise self._failed(f"{error}; try again") from error
        except OSError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise self._failed(
                f"the file cannot be created: {reason}; let this process write to the folder {folder!r}, "
                f"or name a file in another"
            ) from error

    def _problem(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"{error}; name another file, or restore this one from a copy"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"{error}; let this process write to the file and to its folder"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{error}; end the program that keeps it locked, or pass a longer timeout="
        return str(error)

    def _failed(self, problem: str) -> ConnectionFailed:
        return ConnectionFailed(self.name, self.database, problem)
