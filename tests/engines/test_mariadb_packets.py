"""What takes more than MariaDB takes at once: told before it is sent, and nobody else's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import aiomysql
import pymysql
import pytest
from testservers import MariaDBServer

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import AsyncMariaDBDriver, MariaDBDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Record, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")

DATABASE = "packets"
MEBI = 1 << 20
TOLD = r"the server's max_allowed_packet is \d+: raise it, or lower Policy\(max_value_bytes=\)"

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(mariadb_server: MariaDBServer) -> str:
    url: str = mariadb_server.create_database(DATABASE)
    with closing(open_driver(url)) as driver:
        driver.setup()
    return url


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(url: str, way: str) -> Driver:
    return open_driver(url) if way == "sync" else Blocking(open_async_driver(url))


@pytest.fixture
def driver(url: str, way: str) -> Iterator[Driver]:
    with closing(opened(url, way)) as driver:
        yield driver


@pytest.fixture
def small(mariadb_server: MariaDBServer) -> Iterator[int]:
    """A server that takes little at once from connections that are new."""
    before = mariadb_server.sql("SELECT @@GLOBAL.max_allowed_packet").strip()
    mariadb_server.sql(f"SET GLOBAL max_allowed_packet = {MEBI}")
    yield MEBI
    mariadb_server.sql(f"SET GLOBAL max_allowed_packet = {before}")


def aborted(server: MariaDBServer) -> int:
    return server.status("Aborted_clients")


LARGE = {
    "in one statement": puts({A: b"x" * MEBI}),
    "in a transaction": Delta(puts=puts({A: b"x" * MEBI}).puts, deadline=START + 60),
}


@pytest.mark.parametrize("how", LARGE)
def test_a_value_that_is_too_large(driver: Driver, mariadb_server: MariaDBServer, small: int, how: str) -> None:
    """It is refused before it is sent; the connection stays, and nobody else is told that the server is down."""
    record = started(driver, values={A: b"a"})
    before = aborted(mariadb_server)
    for _ in range(3):
        with pytest.raises(DriverUnavailable, match=TOLD) as caught:
            driver.commit(record.digest, LARGE[how], START)
        assert not caught.value.outcome_unknown
        assert str(small) in str(caught.value)
        assert loaded(driver, record.digest, START).values[A].data == b"a"
        committed(driver.commit(record.digest, puts({B: b"b"}), START))
    assert aborted(mariadb_server) == before


@pytest.mark.usefixtures("small")
def test_a_session_that_begins_too_large(driver: Driver) -> None:
    record = make_record(values={A: b"x" * MEBI})
    with pytest.raises(DriverUnavailable, match=TOLD):
        driver.create(record, START)
    committed(driver.create(make_record(sid_=record.sid), START))


def test_the_largest_that_the_server_takes(driver: Driver, mariadb_server: MariaDBServer, small: int) -> None:
    """To the byte: what is sent arrives, and the server has nothing to refuse."""
    record = started(driver, values={A: b""})
    before = aborted(mariadb_server)
    fits, too_large = 0, small
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        try:
            committed(driver.commit(record.digest, puts({A: bytes(middle)}), START))
        except DriverUnavailable:
            too_large = middle
        else:
            fits = middle
        assert loaded(driver, record.digest, START).values[A].data == bytes(fits)
    assert aborted(mariadb_server) == before
    assert small - 2 * fits < 1000, "no more is kept back than the statement around the value takes"


@pytest.mark.usefixtures("small")
def test_a_limit_that_was_raised(driver: Driver, mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """The remedy helps: a new connection has the new limit."""
    record = started(driver)
    with pytest.raises(DriverUnavailable, match=TOLD):
        driver.commit(record.digest, puts({A: b"x" * MEBI}), START)
    mariadb_server.sql(f"SET GLOBAL max_allowed_packet = {64 * MEBI}")
    value = b"x" * 15 * MEBI
    with closing(opened(url, way)) as new:
        committed(new.commit(record.digest, puts({A: value}), START))
        assert loaded(new, record.digest, START).values[A].data == value


@pytest.mark.usefixtures("small")
def test_a_lent_connection_outlives_what_is_too_large(mariadb_server: MariaDBServer, url: str) -> None:
    """Only the session's change is undone: the application's transaction goes on."""
    login: dict[str, Any] = {"host": mariadb_server.host, "port": mariadb_server.port}
    login |= {"user": mariadb_server.user, "password": mariadb_server.password}
    record = make_record()
    with (
        closing(MariaDBDriver.from_url(url)) as own,
        closing(pymysql.connect(**login, database=DATABASE)) as connection,
    ):
        lent = own.borrow(connection)
        committed(lent.create(record, START))
        with pytest.raises(DriverUnavailable, match=TOLD):
            lent.commit(record.digest, LARGE["in one statement"], START)
        committed(lent.commit(record.digest, puts({B: b"b"}), START))
        connection.commit()
        assert loaded(own, record.digest, START).values.keys() == {B}

    async def lend() -> None:
        own = AsyncMariaDBDriver.from_url(url)
        connection = await aiomysql.connect(**login, db=DATABASE)
        lent = own.borrow(connection)
        with pytest.raises(DriverUnavailable, match=TOLD):
            await lent.commit(record.digest, LARGE["in one statement"], START)
        committed(await lent.commit(record.digest, puts({A: b"a"}), START))
        await connection.commit()
        found = await own.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values.keys() == {A, B}
        connection.close()
        await own.close()

    asyncio.run(lend())
