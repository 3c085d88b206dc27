"""Tasks that are cancelled at any moment, on every engine: nothing acknowledged is lost, and no answer goes astray."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from testservers.engines import ROWS, Engine

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.record import Committed, Delta, Put, Record, ValueKey
from coatcheck.testing import Blocking, make_record
from coatcheck.testing.helpers import START, loaded

ASYNC = [
    pytest.param(row, id=row.name, marks=[pytest.mark.server] if row.server else [])
    for row in ROWS.values()
    if row.asynchronous and row.name != "memory-async"  # which never waits
]
COUNT: ValueKey = ("", "count")
OWNER: ValueKey = ("", "owner")
TASKS, TURNS = 8, 40

# How often the loop has been around when a task is cancelled; not a time, since that finds a slow machine elsewhere.
MOMENTS = (0, 1, 2, 3, 5, 8, 21, 55, None, None, None)


@pytest.mark.parametrize("engine", ASYNC, indirect=True)
def test_tasks_are_cancelled_at_any_moment(engine: Engine, driver: Driver) -> None:
    assert isinstance(driver, Blocking)
    draw = random.Random(4)  # noqa: S311 (the same moments each time, as far as the machine allows)
    records = [make_record(values={OWNER: b"%d" % number}) for number in range(TASKS)]
    for record in records:
        assert isinstance(driver.create(record, START), Committed)
    tallies = driver.wait_for(_storm(driver.driver, records, draw))
    assert sum(cut for _, _, cut in tallies) > TASKS * TURNS // 8, (
        "hardly anything was cancelled: the test shows nothing"
    )
    for record, (acknowledged, asked, _) in zip(records, tallies, strict=True):
        found = loaded(driver, record.digest, START).values
        count = found[COUNT].data if COUNT in found else 0
        assert isinstance(count, int)
        assert acknowledged <= count <= asked
        assert found[OWNER].data == b"%d" % records.index(record)


async def _storm(driver: AsyncDriver, records: list[Record], draw: random.Random) -> list[tuple[int, int, int]]:
    return list(await asyncio.gather(*(_work(driver, number, record, draw) for number, record in enumerate(records))))


async def _work(driver: AsyncDriver, number: int, record: Record, draw: random.Random) -> tuple[int, int, int]:
    """Count and look, each with a patience that is often too short; give how often was counted, asked and cut short."""
    acknowledged = asked = cut = 0
    one = Delta(increments={COUNT: 1}, puts={OWNER: Put(b"%d" % number)})
    for _ in range(TURNS):
        asked += 1
        try:
            done = await _within(draw.choice(MOMENTS), driver.commit(record.digest, one, START))
            assert isinstance(done, Committed)
            acknowledged += 1
        except TimeoutError:
            cut += 1
        try:
            found = await _within(draw.choice(MOMENTS), driver.load(record.digest, START))
        except TimeoutError:
            cut += 1
        else:
            assert isinstance(found, Record)
            assert found.sid == record.sid, "another's answer"
            assert found.values[OWNER].data == b"%d" % number
    return acknowledged, asked, cut


async def _within(turns: int | None, work: Any) -> Any:
    """Await *work*, as a task that is cancelled when the loop has been around so many times."""
    task = asyncio.ensure_future(work)
    for _ in range(turns or 0):
        await asyncio.sleep(0)
    if turns is None or task.done():
        return await task
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        raise TimeoutError from None
