"""SQLite: some of the tables are missing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.drivers.sqlite import AsyncSQLiteDriver, SQLiteDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Missing, Record
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START, started

TABLES = ("session", "value", "ended", "fence", "meta")


def drop(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"DROP TABLE x_coatcheck_{table}")
        raw.commit()


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_missing_is_not_set_up_and_made_anew(tmp_path: Path, table: str) -> None:
    driver = SQLiteDriver(tmp_path / "s.db", prefix="x_")
    record = started(driver)
    driver.close()
    drop(Path(driver.path), table)
    assert not driver.is_set_up()
    with closing(sqlite3.connect(driver.path)) as raw:
        assert not driver.borrow(raw).is_set_up()
    found = driver.load(record.digest, START)
    assert isinstance(found, Missing if table == "session" else Record)
    assert driver.is_set_up()
    started(driver)
    driver.close()


@pytest.mark.parametrize("table", TABLES[:-1])  # the last one is read by newcomers alone
def test_one_that_is_dropped_from_under_a_connection_costs_one_error_at_most(tmp_path: Path, table: str) -> None:
    async def work() -> None:
        driver = SQLiteDriver(tmp_path / "s.db", prefix="x_")
        shared = AsyncSQLiteDriver.from_url(f"sqlite:///{tmp_path}/s.db?prefix=x_")
        assert isinstance(await shared.create(make_record(), START), Committed)
        started(driver)
        drop(tmp_path / "s.db", table)
        for create in (driver.create, shared.create):
            failed = 0
            for _ in range(3):
                try:
                    answer = create(make_record(user="ann"), START)
                    assert isinstance(await answer if create == shared.create else answer, Committed)  # type: ignore[misc]
                except DriverUnavailable:
                    failed += 1
            assert failed <= 1
        assert driver.is_set_up()
        await shared.close()
        driver.close()

    asyncio.run(work())
