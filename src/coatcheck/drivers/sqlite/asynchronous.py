"""SQLite from an event loop: what is quick is done in the loop's own thread, what may wait is not.

A read takes some microseconds and waits for nobody in WAL mode, while a hop to another thread and back takes ten times
as long: so reads are done at once, on a connection that waits for no lock. Where a lock is in the way after all, the
read goes to a thread. Writers take turns, so all writes of a process go to one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers._process import Process, this_process
from coatcheck.drivers._threads import ThreadedDriver
from coatcheck.drivers.base import AsyncDriver, Capability
from coatcheck.drivers.sqlite.driver import SQLiteDriver
from coatcheck.drivers.sqlite.opened import NotNow
from coatcheck.drivers.sqlite.trouble import NAME
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Missing, Record

__all__ = ["AsyncSQLiteDriver"]

T = TypeVar("T")


_READS: Final = frozenset({"load", "sessions_of", "missing", "is_set_up"})


class AsyncSQLiteDriver(ThreadedDriver):
    """Sessions in an SQLite file, for asynchronous programs of one host.

    Args:
        driver: The synchronous driver that does the work; `from_url` makes one.
        hasty: The same without patience, for the reads that are done in the event loop's own thread.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = SQLiteDriver.capabilities

    driver: SQLiteDriver

    def __init__(self, driver: SQLiteDriver, hasty: SQLiteDriver) -> None:
        super().__init__(driver, driver.timeout, writer=1, reader=1)
        self._hasty: Final = hasty
        self._opened_by: Process | None = None

    @classmethod
    def from_url(cls, url: str) -> AsyncSQLiteDriver:
        """Make a driver from a URL; see `SQLiteDriver.from_url`.

        Raises:
            ConfigurationError: The URL has no path, an unknown option, or one with a bad value.
        """
        driver = SQLiteDriver.from_url(url)
        return cls(driver, driver.hasty())

    async def load(self, digest: bytes, now: float) -> Record | Missing:
        if self._opened_by is not None and self._opened_by.is_this():
            try:
                return self._hasty.load(digest, now)
            except DriverUnavailable as error:
                code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK)
                if code & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and not isinstance(
                    error.__cause__, NotNow
                ):
                    raise
        # The first time, and once it was moved away, the file and its tables may have to be made: that can take a while
        found = await super().load(digest, now)
        self._opened_by = this_process()
        return found

    def _group(self, operation: str) -> str:
        return "reader" if operation in _READS else "writer"

    def _end(self) -> None:
        super()._end()
        self._hasty.close()

    def borrow(self, connection: object) -> AsyncDriver:
        """Return a driver on *connection*, a `sqlite3.Connection` of the application's that other threads may use.

        Raises:
            ConfigurationError: It is something else.
        """
        return _AsyncBorrowed(self.driver, connection)


class _AsyncBorrowed(AsyncFace):
    """Sessions inside the transaction of a connection that belongs to the application, in the thread that asks."""

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = SQLiteDriver.capabilities

    def __init__(self, lender: SQLiteDriver, connection: object) -> None:
        self.driver = lender.borrow(connection)

    async def _do(self, operation: str, call: Callable[[], T]) -> T:  # noqa: ARG002 (all of them alike)
        return call()
