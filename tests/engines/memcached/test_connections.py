"""Memcached: its connections, under cancelled tasks, in several loops and after a close."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from stored import A, N
from testservers import MemcachedServer
from testservers.engines import with_options

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.memcached import AsyncMemcachedDriver, MemcachedDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Missing, Record
from coatcheck.testing import Blocking, digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, started


def test_a_connection_that_was_closed_meanwhile_is_not_used(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver)
    (connection,) = driver._pools[0].here()._idle
    connection._socket.shutdown(socket.SHUT_RDWR)
    committed(driver.create(make_record(), START))  # begins with a write, which is never sent twice
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools[0].here()._idle) != [connection]
    driver.close()


def test_what_nobody_asked_for_is_never_taken_for_an_answer(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver, values={A: b"a"})
    (connection,) = driver._pools[0].here()._idle
    connection._socket.sendall(b"get nothing\r\n")
    connection._socket.settimeout(120)
    connection._socket.recv(1, socket.MSG_PEEK)  # until the answer is there
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools[0].here()._idle) != [connection]
    driver.close()


def test_a_cancelled_task_leaves_no_answer_to_the_next(server: Callable[..., MemcachedServer]) -> None:
    """The server answers after the task is gone: nobody else may be given what it says."""
    one = server()

    async def run() -> None:
        driver = AsyncMemcachedDriver(one.address, timeout=5)
        records = [make_record(values={A: b"%d" % n}) for n in range(8)]
        for record in records:
            committed(await driver.create(record, START))
        for n in range(20):
            one.pause()
            tasks = [asyncio.create_task(driver.load(record.digest, START)) for record in records]
            tasks += [asyncio.create_task(driver.commit(records[0].digest, Delta(increments={N: 1}), START))]
            await asyncio.sleep(0.001 * (n % 3))
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            pool = driver._pools[0].here()
            assert not pool._idle, "a connection whose answer is still to come is offered to others"
            later = [asyncio.create_task(driver.load(record.digest, START)) for record in reversed(records)]
            await asyncio.sleep(0.001)  # they have asked, on whatever connections there are
            one.resume()
            for k, found in zip(reversed(range(8)), await asyncio.gather(*later), strict=True):
                assert isinstance(found, Record)
                assert (found.sid, found.values[A].data) == (records[k].sid, b"%d" % k)
        assert pool._free == 32, "a task kept its turn"
        await driver.close()

    asyncio.run(run())


def test_more_tasks_than_connections(url: str, memcached_server: MemcachedServer) -> None:
    async def run() -> None:
        driver = AsyncMemcachedDriver.from_url(url)
        record = make_record()
        committed(await driver.create(record, START))
        found = await asyncio.gather(*(driver.load(record.digest, START) for _ in range(500)))
        assert all(isinstance(each, Record) for each in found)
        pool = driver._pools[0].here()
        assert len(pool._idle) <= 32
        await driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("way", ["sync", "async"])
def test_who_waits_for_a_connection_in_vain_is_told_why(url: str, way: str) -> None:
    """It says nothing of the server, which is asked again as soon as a connection is free."""
    url = with_options(url, timeout=1)
    with closing(open_driver(url) if way == "sync" else Blocking(open_async_driver(url))) as driver:
        if isinstance(driver, Blocking):

            async def take_all() -> None:
                pool = driver.driver._pools[0].here()  # type: ignore[attr-defined]
                for _ in range(32):
                    await pool.enter(time.monotonic() + 60)
                with pytest.raises(DriverUnavailable, match="all 32 connections"):
                    await driver.driver.load(digest(), START)
                pool.leave()

            driver.wait_for(take_all())
        else:
            pool = driver._pools[0].here()  # type: ignore[attr-defined]
            for _ in range(32):
                pool.enter(time.monotonic() + 60)
            with pytest.raises(DriverUnavailable, match="all 32 connections"):
                driver.load(digest(), START)
            pool.leave()
        assert isinstance(driver.load(digest(), START), Missing)


def test_each_loop_has_its_own_connections(url: str) -> None:
    """Also where a loop ends without closing the driver: its connections end with it, without a word."""
    driver = AsyncMemcachedDriver.from_url(url)
    record = make_record()

    async def create() -> None:
        committed(await driver.create(record, START))

    async def count() -> None:
        committed(await driver.commit(record.digest, Delta(increments={N: 1}), START))

    asyncio.run(create())
    for _ in range(3):
        asyncio.run(count())
        gc.collect()
    assert sum(map(len, driver._pools[0]._all.values())) <= 1

    async def look() -> None:
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 3
        await driver.close()
        await driver.close()

    asyncio.run(look())
