"""Redis, asynchronous: tasks that are cancelled, more than one event loop, limits of time."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator

import pytest
from testservers import Fault, FaultProxy, RedisServer
from testservers.engines import PATIENCE, with_options

from coatcheck.drivers.redis import AsyncRedisDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Delta, Put, Record, ValueKey
from coatcheck.testing.helpers import START, make_record

A: ValueKey = ("", "a")
N: ValueKey = ("", "n")
ONE = Delta(increments={N: 1})


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: FaultProxy, namespace: str) -> str:
    return with_options(f"redis://{proxy.address}", prefix=namespace)


async def started(driver: AsyncRedisDriver) -> Record:
    record = make_record(values={A: b"a", N: 0})
    assert isinstance(await driver.create(record, START), Committed)
    found = await driver.load(record.digest, START)
    assert isinstance(found, Record)
    return found


async def values(driver: AsyncRedisDriver, record: Record) -> dict[ValueKey, bytes | int]:
    found = await driver.load(record.digest, START)
    assert isinstance(found, Record)
    return {name: value.data for name, value in found.values.items()}


def test_a_task_can_be_cancelled_at_any_await(url: str, proxy: FaultProxy) -> None:
    """Nothing that was acknowledged is undone, nothing is done twice, and nobody reads another's reply."""

    async def main() -> None:
        driver = AsyncRedisDriver.from_url(with_options(url, max_connections=2, timeout=PATIENCE))
        record, other = await started(driver), await started(driver)
        await driver.commit(other.digest, Delta(puts={A: Put(b"other")}), START)
        acknowledged = begun = 0
        for fresh in (False, True):  # with a connection in the pool, and without
            for turns in range(60):
                if fresh:
                    await driver.close()
                    driver = AsyncRedisDriver.from_url(with_options(url, max_connections=2, timeout=PATIENCE))
                task = asyncio.ensure_future(driver.commit(record.digest, ONE, START))
                for _ in range(turns):
                    await asyncio.sleep(0)
                    if task.done():
                        break
                begun += 1
                task.cancel()
                done = (await asyncio.gather(task, return_exceptions=True))[0]
                assert isinstance(done, (Committed, asyncio.CancelledError))
                acknowledged += isinstance(done, Committed)
                assert (await values(driver, other))[A] == b"other"
                assert (await values(driver, record))[A] == b"a"
        count = (await values(driver, record))[N]
        assert isinstance(count, int)
        assert 0 < acknowledged <= count <= begun
        proxy.counted()
        await asyncio.gather(*(values(driver, other) for _ in range(20)))
        assert proxy.counts.connections <= 2
        await driver.tear_down()
        await driver.close()

    asyncio.run(main())


def test_a_task_that_waits_for_a_slow_reply_can_be_cancelled(url: str, proxy: FaultProxy) -> None:
    async def main() -> None:
        driver = AsyncRedisDriver.from_url(with_options(url, max_connections=1, timeout=PATIENCE))
        record, other = await started(driver), await started(driver)
        await driver.commit(other.digest, Delta(puts={A: Put(b"other")}), START)
        proxy.inject(Fault.DELAY, seconds=0.2)
        for _ in range(3):
            first = asyncio.ensure_future(driver.load(record.digest, START))
            waiting = asyncio.ensure_future(driver.load(record.digest, START))  # for the only connection
            await asyncio.sleep(0.05)
            waiting.cancel()
            first.cancel()
            await asyncio.gather(first, waiting, return_exceptions=True)
        proxy.heal()
        assert (await values(driver, other))[A] == b"other"
        await driver.tear_down()
        await driver.close()

    asyncio.run(main())


def test_each_event_loop_has_connections_of_its_own(url: str) -> None:
    driver = AsyncRedisDriver.from_url(url)

    async def once() -> int:
        record = await started(driver)
        assert (await driver.commit(record.digest, ONE, START)) is not None
        await driver.close()
        await driver.close()
        assert (await values(driver, record))[N] == 1  # opens new ones
        await driver.close()
        return sum(map(len, driver._loops._all.values()))

    assert [asyncio.run(once()) for _ in range(3)] == [0, 0, 0]


def test_a_loop_that_ended_without_closing_is_let_go(url: str) -> None:
    driver = AsyncRedisDriver.from_url(url)

    async def once(*, is_closing: bool) -> int:
        await started(driver)
        count = sum(map(len, driver._loops._all.values()))
        if is_closing:
            await driver.tear_down()
            await driver.close()
        return count

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the connections that nobody closed
        assert asyncio.run(once(is_closing=False)) == 1
        assert asyncio.run(once(is_closing=True)) == 1
        gc.collect()


def test_all_waits_have_a_limit(url: str, proxy: FaultProxy) -> None:
    async def main() -> None:
        driver = AsyncRedisDriver.from_url(with_options(url, max_connections=1, timeout=0.3))
        record = await started(driver)
        proxy.inject(Fault.BLACK_HOLE)
        async with asyncio.timeout(60):
            tries = [driver.commit(record.digest, ONE, START) for _ in range(3)]
            errors = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(error, DriverUnavailable) for error in errors)
        assert sorted(getattr(error, "outcome_unknown", None) for error in errors) == [False, False, True]
        proxy.heal()
        await asyncio.sleep(0.5)
        await driver.tear_down()
        await driver.close()

    asyncio.run(main())
