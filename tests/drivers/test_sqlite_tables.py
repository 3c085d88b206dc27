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
def test_a_table_that_is_missing_is_made_by_setup(tmp_path: Path, table: str) -> None:
    driver = SQLiteDriver(tmp_path / "s.db", prefix="x_")
    record = started(driver)
    driver.close()
    drop(Path(driver.path), table)
    assert not driver.is_set_up()
    with closing(sqlite3.connect(driver.path)) as raw:
        assert not driver.borrow(raw).is_set_up()
    driver.setup()
    assert driver.is_set_up()
    found = driver.load(record.digest, START)
    assert isinstance(found, Missing if table == "session" else Record)
    started(driver)
    driver.close()


@pytest.mark.parametrize("table", ["session", "value"])
def test_a_table_that_somebody_took_away_is_no_empty_table(tmp_path: Path, table: str) -> None:
    """Out of reach is not missing: it may come back, and it must not find an empty one in its place."""

    async def work() -> None:
        driver = SQLiteDriver(tmp_path / "s.db", prefix="x_")
        shared = AsyncSQLiteDriver.from_url(f"sqlite:///{tmp_path}/s.db?prefix=x_")
        record = started(driver)
        assert isinstance(await shared.load(record.digest, START), Record)
        drop(tmp_path / "s.db", table)
        for _ in range(3):
            with pytest.raises(DriverUnavailable, match="call setup"):
                driver.load(record.digest, START)
            with pytest.raises(DriverUnavailable, match="call setup"):
                await shared.load(record.digest, START)
        driver.setup()
        assert isinstance(driver.create(make_record(user="ann"), START), Committed)
        assert isinstance(await shared.create(make_record(), START), Committed)
        await shared.close()
        driver.close()

    asyncio.run(work())
