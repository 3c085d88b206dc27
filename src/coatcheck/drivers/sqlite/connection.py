"""One connection: where the database is, and how it is opened."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from coatcheck.drivers.sqlite.files import check_place
from coatcheck.drivers.sqlite.opened import Identity, create_file, identity
from coatcheck.errors import ConfigurationError

__all__ = ["Settings", "configure", "connect"]


class Settings:
    """Where the database is and how to open it.

    A *hasty* user leaves it to others to open another file, which may have to be made, and gets `NotNow` meanwhile.
    """

    __slots__ = ("hasty", "network_allowed", "path", "synchronous", "timeout")

    def __init__(
        self, path: str, timeout: float, synchronous: str, *, network_allowed: bool, hasty: bool = False
    ) -> None:
        self.path: Final = path
        self.timeout: Final = timeout
        self.synchronous: Final = synchronous
        self.network_allowed: Final = network_allowed
        self.hasty: Final = hasty


def connect(settings: Settings) -> tuple[sqlite3.Connection, Identity | None]:
    """Open the database, creating the file where it is missing, and say which file it is.

    Raises:
        ConfigurationError: Something else stands where the database should be.
        OSError: The folder cannot be used.
        sqlite3.Error: SQLite cannot open it.
    """
    check_place(settings.path, network_allowed=settings.network_allowed)
    create_file(settings.path, settings.timeout)
    before = identity(settings.path)
    connection = sqlite3.connect(
        settings.path,
        timeout=settings.timeout,
        isolation_level=None,
        check_same_thread=False,  # a fork and `close` close the connections of other threads
    )
    return connection, before


def configure(connection: sqlite3.Connection, settings: Settings) -> None:
    """Have a new connection work as *settings* say.

    Raises:
        ConfigurationError: The database cannot keep a write-ahead log.
        sqlite3.Error: SQLite cannot read it.
    """
    mode = _patiently(lambda: str(connection.execute("PRAGMA journal_mode").fetchone()[0]), settings.timeout)
    if mode != "wal":
        # The busy timeout does not cover this switch, and racing creators all try it
        mode = _patiently(lambda: str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]), settings.timeout)
    if mode != "wal":
        raise ConfigurationError(
            f"{settings.path} cannot keep a write-ahead log (its journal mode stays {mode!r}): put it on a local disk"
        )
    connection.execute(f"PRAGMA synchronous={settings.synchronous}")
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("PRAGMA journal_size_limit=16777216")  # a burst does not leave a large file behind


def _patiently(attempt: Callable[[], str], patience: float) -> str:
    until = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
        time.sleep(0.005)
