"""Memcached: its connections, under cancelled tasks, in several loops and after a close."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable

from stored import A, N
from testservers import MemcachedServer

from coatcheck.drivers.memcached import AsyncMemcachedDriver, MemcachedDriver
from coatcheck.record import Delta, Record
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START, committed, loaded, started


def test_a_connection_that_was_closed_meanwhile_is_not_used(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver)
    (connection,) = driver._pools.idle[0]
    connection._socket.shutdown(socket.SHUT_RDWR)
    committed(driver.create(make_record(), START))  # begins with a write, which is never sent twice
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools.idle[0]) != [connection]
    driver.close()


def test_what_nobody_asked_for_is_never_taken_for_an_answer(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver, values={A: b"a"})
    (connection,) = driver._pools.idle[0]
    connection._socket.sendall(b"get nothing\r\n")
    connection._socket.settimeout(120)
    connection._socket.recv(1, socket.MSG_PEEK)  # until the answer is there
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools.idle[0]) != [connection]
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
            (pools,) = driver._loops.values()
            assert not pools[0].idle, "a connection whose answer is still to come is offered to others"
            later = [asyncio.create_task(driver.load(record.digest, START)) for record in reversed(records)]
            await asyncio.sleep(0.001)  # they have asked, on whatever connections there are
            one.resume()
            for k, found in zip(reversed(range(8)), await asyncio.gather(*later), strict=True):
                assert isinstance(found, Record)
                assert (found.sid, found.values[A].data) == (records[k].sid, b"%d" % k)
        assert pools[0].turns._value == 32, "a task kept its turn"
        await driver.close()

    asyncio.run(run())


def test_more_tasks_than_connections(url: str, memcached_server: MemcachedServer) -> None:
    async def run() -> None:
        driver = AsyncMemcachedDriver.from_url(url)
        record = make_record()
        committed(await driver.create(record, START))
        found = await asyncio.gather(*(driver.load(record.digest, START) for _ in range(500)))
        assert all(isinstance(each, Record) for each in found)
        (pools,) = driver._loops.values()
        assert len(pools[0].idle) <= 32
        await driver.close()

    asyncio.run(run())


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
    assert len(driver._loops) <= 1

    async def look() -> None:
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 3
        await driver.close()
        await driver.close()

    asyncio.run(look())
