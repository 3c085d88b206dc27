"""The conformance kit against the built-in drivers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.drivers.sqlite import driver as sqlite_driver
from coatcheck.testing import DriverContract


class TestMemory(DriverContract):
    @pytest.fixture
    def driver(self) -> Iterator[Driver]:
        driver = MemoryDriver()
        yield driver
        driver.close()


class TestSQLite(DriverContract):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        driver = SQLiteDriver(tmp_path / "sessions.db", timeout=120)
        yield driver
        driver.close()

    def reopen(self, driver: Driver) -> Driver:
        assert isinstance(driver, SQLiteDriver)
        return SQLiteDriver(driver.path, timeout=120)


class TestSQLiteGeneralPath(TestSQLite):
    """Without the statements that do a whole change at once."""

    sequences = 20

    @pytest.fixture(autouse=True)
    def no_fast_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_driver, "single", lambda *_: None)


class TestSQLiteBorrowed(DriverContract):
    """In one open transaction of the application's."""

    concurrent = False
    sequences = 20

    @pytest.fixture(params=["legacy", "autocommit"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[Driver]:
        connection = sqlite3.connect(":memory:", isolation_level="" if request.param == "legacy" else None)
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        driver = SQLiteDriver("unused.db").borrow(connection)
        connection.execute("BEGIN")
        driver.setup()
        yield driver
        assert connection.in_transaction
        assert connection.text_factory is bytes
        connection.close()
