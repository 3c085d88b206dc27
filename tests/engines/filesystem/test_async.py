"""The filesystem: tasks that are cancelled or wait for their turn, and loops one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from session_files import in_child
from stored import A, B, N

from coatcheck.drivers.filesystem import AsyncFilesystemDriver
from coatcheck.drivers.filesystem import sessions as files
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Record
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START, committed, puts


def test_a_cancelled_task_leaves_its_operation_whole(root: Path) -> None:
    async def run() -> None:
        driver = AsyncFilesystemDriver(root, timeout=120)
        record = make_record(values={A: b"0", B: b"0"})
        committed(await driver.create(record, START))
        held = driver.driver._work._locks.held  # type: ignore[attr-defined]
        for n in range(10):
            data = b"%d" % n
            with held("session-", files.session_name(record.sid)):
                task = asyncio.create_task(driver.commit(record.digest, puts({A: data, B: data}), START))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            committed(await driver.commit(record.digest, Delta(touch=START + n), START))
            found = await driver.load(record.digest, START)
            assert isinstance(found, Record)
            assert found.values[A].data == found.values[B].data
        await driver.close()

    asyncio.run(run())


def test_what_waited_too_long_for_its_turn_is_not_done(root: Path) -> None:
    async def run() -> None:
        driver = AsyncFilesystemDriver(root, timeout=0.3)
        record = make_record()
        committed(await driver.create(record, START))
        held = driver.driver._work._locks.held  # type: ignore[attr-defined]
        with held("session-", files.session_name(record.sid)):
            tasks = [driver.commit(record.digest, Delta(increments={N: 1}), START) for _ in range(20)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, DriverUnavailable) for outcome in outcomes)
        assert any("other operations of this process" in str(outcome) for outcome in outcomes)
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert not found.values
        await driver.close()

    asyncio.run(run())


def test_loops_and_processes_one_after_the_other(root: Path) -> None:
    driver = AsyncFilesystemDriver(root)
    record = make_record()

    async def create() -> None:
        committed(await driver.create(record, START))

    async def count() -> None:
        committed(await driver.commit(record.digest, Delta(increments={N: 1}), START))

    asyncio.run(create())
    asyncio.run(count())
    assert in_child(lambda: asyncio.run(count())) == 0

    async def look() -> None:
        await count()
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 3
        await driver.close()
        await driver.close()
        await count()
        await driver.close()

    asyncio.run(look())
