"""PostgreSQL's connections: how many there are, whose they are, and what a cancelled task leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from testservers import PgBouncer, PostgreSQLServer
from testservers.engines import with_options

from coatcheck.drivers.postgresql import AsyncPostgreSQLDriver, PostgreSQLDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Delta, Put, Record, ValueKey
from coatcheck.testing.helpers import START, digest, loaded, make_record, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")


def connections_to(server: PostgreSQLServer, database: str) -> int:
    return int(server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'", database="postgres"))  # noqa: S608 (ours)


def wait_for_none(server: PostgreSQLServer, database: str) -> None:
    end = time.monotonic() + 120
    while connections_to(server, database) and time.monotonic() < end:
        time.sleep(0.02)
    assert connections_to(server, database) == 0


@pytest.fixture
def database(postgresql_server: PostgreSQLServer, namespace: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    yield postgresql_server.create_database(namespace)
    postgresql_server.sql(f'DROP DATABASE "{namespace}" WITH (FORCE)', database="postgres")


def test_the_number_of_connections_is_bounded(database: str, postgresql_server: PostgreSQLServer) -> None:
    name, url = database.rpartition("/")[2], with_options(database, max_connections=2)
    driver = PostgreSQLDriver.from_url(url)
    driver.setup()
    record = started(driver, values={A: b"a"})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [loaded(driver, record.digest, START) for _ in range(20)], range(8)))
    assert connections_to(postgresql_server, name) == 2
    driver.close()
    wait_for_none(postgresql_server, name)

    async def crowd() -> int:
        many = AsyncPostgreSQLDriver.from_url(url)
        found = await asyncio.gather(*(many.load(record.digest, START) for _ in range(50)))
        assert found == [record] * 50
        opened = connections_to(postgresql_server, name)
        await many.close()
        return opened

    assert asyncio.run(crowd()) == 2


def test_who_waits_for_a_connection_in_vain_is_told_why(database: str) -> None:
    with contextlib.closing(PostgreSQLDriver.from_url(database)) as patient:
        patient.setup()
    driver = PostgreSQLDriver.from_url(with_options(database, max_connections=1, timeout=1))
    pool = driver._pools.here()
    pool.enter(time.monotonic() + 60)
    with pytest.raises(DriverUnavailable, match="max_connections") as caught:
        driver.load(digest(), START)
    assert not caught.value.outcome_unknown
    pool.leave()
    driver.load(digest(), START)
    driver.close()


def test_close_leaves_no_connection(database: str, postgresql_server: PostgreSQLServer) -> None:
    name = database.rpartition("/")[2]
    driver = PostgreSQLDriver.from_url(database)
    driver.setup()
    assert connections_to(postgresql_server, name) == 1
    driver.close()
    driver.close()
    wait_for_none(postgresql_server, name)
    assert driver.is_set_up(), "it may be used again"
    del driver
    gc.collect()
    wait_for_none(postgresql_server, name)


def test_each_event_loop_has_connections_of_its_own(database: str, postgresql_server: PostgreSQLServer) -> None:
    name = database.rpartition("/")[2]
    driver = AsyncPostgreSQLDriver.from_url(database)

    async def work() -> int:
        await driver.setup()
        answers = await asyncio.gather(*(driver.create(make_record(), START) for _ in range(5)))
        assert all(isinstance(answer, Committed) for answer in answers)
        return connections_to(postgresql_server, name)

    for _ in range(3):
        assert 1 <= asyncio.run(work()) <= 5
        gc.collect()
        wait_for_none(postgresql_server, name)


def test_a_loop_that_closes_its_connections(database: str, postgresql_server: PostgreSQLServer) -> None:
    driver = AsyncPostgreSQLDriver.from_url(database)

    async def work() -> None:
        await driver.setup()
        await driver.close()
        await driver.close()

    asyncio.run(work())
    wait_for_none(postgresql_server, database.rpartition("/")[2])


@pytest.mark.parametrize("by_pgbouncer", [False, True], ids=["direct", "pgbouncer"])
def test_a_task_that_is_cancelled_leaves_nothing_behind(
    by_pgbouncer: bool,  # noqa: FBT001 (a parameter)
    database: str,
    pgbouncer: PgBouncer,
) -> None:
    """At whatever statement, or while it waits for a connection; what was acknowledged stays."""
    url = pgbouncer.url_of(database.rpartition("/")[2]) if by_pgbouncer else database
    driver = AsyncPostgreSQLDriver.from_url(with_options(url, max_connections=1))
    client = driver._client
    asked = 0
    victim: asyncio.Task[Any] | None = None
    at = 0

    async def run(connection: Any, *more: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == at and victim is not None:
            asyncio.get_running_loop().call_soon(victim.cancel)  # when the statement is on its way
        return await type(client).run(client, connection, *more)

    client.run = run  # type: ignore[method-assign]

    async def work() -> None:
        nonlocal asked, victim, at
        await driver.setup()
        who = user()
        for at in range(1, 40):
            record = make_record(user=who, values={A: b"a"})
            assert isinstance(await driver.create(record, START), Committed)
            asked, new = 0, digest()
            login = Delta(puts={B: Put(b"b")}, user=who, auth_time=START)
            victim = asyncio.ensure_future(driver.rotate(record.digest, new, login, 0, START))
            waiting = asyncio.ensure_future(driver.load(record.digest, START))
            cancelled = asyncio.ensure_future(driver.load(record.digest, START))
            await asyncio.sleep(0)
            cancelled.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert isinstance(await victim, Committed)
            is_done = not victim.cancelled()
            victim = None
            await waiting
            old, fresh = await driver.load(record.digest, START), await driver.load(new, START)
            assert isinstance(old, Record) != isinstance(fresh, Record), "one of the two, whole"
            assert isinstance(fresh, Record) or not is_done, "acknowledged and lost"
            assert len((old if isinstance(old, Record) else fresh).values) == (1 if isinstance(old, Record) else 2)  # type: ignore[union-attr]
            pool = driver._pools.here()
            assert (pool._free, len(pool._idle)) == (1, 1)
            if is_done and asked < at:
                break
        else:
            pytest.fail("it never came to the end")
        await driver.close()

    asyncio.run(work())
