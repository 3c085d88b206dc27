"""One address that comes to lead to another server, and peers that vanish: one failed request a process at most."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from testservers import Fault, FaultProxy, MariaDBServer, PostgreSQLServer, wait_until
from testservers.engines import with_options

from coatcheck.drivers import _lifetimes, open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb.dialect import MariaDBDialect
from coatcheck.drivers.sql.dialect import Trouble
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts

A: Final[ValueKey] = ("", "a")
CROWD: Final = 8
Server = MariaDBServer | PostgreSQLServer

pytestmark = pytest.mark.server


@dataclass
class Pair:
    """A primary, and the server that takes its place.

    Attributes:
        old: The primary of before.
        new: The one of afterwards.
        demote: Makes the old one refuse writes. It stays up, and its connections with it.
        restore: Makes it a primary again.
    """

    old: Server
    new: Server
    demote: Callable[[], object]
    restore: Callable[[], object]


@pytest.fixture(scope="module")
def other_mariadb(server_folder: Path) -> Iterator[MariaDBServer]:
    with MariaDBServer(server_folder / "mariadb-moved") as server:
        yield server


@pytest.fixture(scope="module")
def other_postgresql(server_folder: Path) -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer(server_folder / "postgresql-moved") as server:
        yield server


@pytest.fixture(params=["mariadb", "postgresql"])
def pair(request: pytest.FixtureRequest) -> Pair:
    old = request.getfixturevalue(f"{request.param}_server")
    new = request.getfixturevalue(f"other_{request.param}")

    def read_only(value: int) -> None:
        if request.param == "mariadb":
            old.sql(f"SET GLOBAL read_only = {value}")
            return
        old.sql(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        old.sql("SELECT pg_reload_conf()")
        wait_until(lambda: old.sql("SHOW default_transaction_read_only").strip() == ("on" if value else "off"), "it")

    return Pair(old, new, lambda: read_only(1), lambda: read_only(0))


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def opened(url: str, way: str, **options: object) -> Driver:
    where = with_options(url, **options)
    return open_driver(where) if way == "sync" else Blocking(open_async_driver(where))


def fill(driver: Driver) -> None:
    """Have as many idle connections in the pool as a crowd leaves there."""
    inner: Any = driver.driver if isinstance(driver, Blocking) else driver
    until = time.monotonic() + 60
    if isinstance(driver, Blocking):

        async def filled() -> None:
            pool = inner._pools.here()
            for held in [await pool.get(until) for _ in range(CROWD)]:
                pool.push(held)
            assert len(pool._idle) == CROWD

        driver.wait_for(filled())
        return
    pool = inner._pools.here()
    for held in [pool.get(until) for _ in range(CROWD)]:
        pool.push(held)
    assert len(pool._idle) == CROWD


@pytest.fixture
def moved(pair: Pair, way: str, namespace: str) -> Iterator[tuple[Driver, Driver]]:
    """A driver with idle connections to the old primary, whose address leads to the new one now; one that sees it."""
    with (
        FaultProxy(pair.old.port) as proxy,
        closing(opened(pair.new.url, "sync", prefix=namespace)) as new,
        closing(opened(pair.old.url, "sync", prefix=namespace)) as old,
        closing(opened(pair.old.url.replace(pair.old.address, proxy.address), way, prefix=namespace)) as driver,
    ):
        new.setup()
        old.setup()
        fill(driver)
        pair.demote()
        try:
            proxy.lead_to(pair.new.port)
            yield driver, new
        finally:
            pair.restore()
        new.tear_down()
        old.tear_down()


WRITES: Final[dict[str, Callable[[Driver], object]]] = {
    "create": lambda driver: driver.create(make_record(), START),
    "touch": lambda driver: driver.commit(bytes(32), Delta(touch=START), START),
    "put": lambda driver: driver.commit(bytes(32), puts({A: b"a"}), START),
    "increment": lambda driver: driver.commit(bytes(32), Delta(increments={A: 1}), START),
    "revoke": lambda driver: driver.revoke(bytes(32), START),
}


@pytest.mark.parametrize("first", WRITES)
def test_a_primary_that_became_a_replica_is_left_at_once(moved: tuple[Driver, Driver], first: str) -> None:
    """Whatever is written first finds it out for all connections; then all goes to the new one."""
    driver, new = moved
    failures = 0
    for work in (WRITES[first], *WRITES.values()):
        try:
            work(driver)
        except DriverUnavailable as error:
            assert not error.outcome_unknown  # noqa: PT017 (how often, is the question)
            failures += 1
    assert failures <= 1
    record = make_record(values={A: b"a"})
    committed(driver.create(record, START))
    assert loaded(new, record.digest, START).sid == record.sid
    assert loaded(driver, record.digest, START).sid == record.sid


def test_a_crowd_that_meets_it_at_the_same_moment(moved: tuple[Driver, Driver]) -> None:
    driver, new = moved
    records = [make_record() for _ in range(CROWD)]

    def create(number: int) -> int:
        try:
            committed(driver.create(records[number], START))
        except DriverUnavailable:
            return 1
        loaded(new, records[number].digest, START)
        return 0

    with ThreadPoolExecutor(CROWD) as crowd:
        assert sum(crowd.map(create, range(CROWD))) <= 1


@pytest.mark.parametrize("number", [1047, 1290, 1792, 1836])
def test_the_errors_of_who_is_no_primary(number: int) -> None:
    dialect = MariaDBDialect("")
    error = dialect.errors[0](number, "the server's words")
    assert dialect.trouble(error) is Trouble.READ_ONLY
    assert "the server's words" not in dialect.said(error)


@pytest.fixture
def behind(pair: Pair, way: str, namespace: str) -> Iterator[tuple[Driver, FaultProxy]]:
    """A driver with idle connections through a proxy."""
    with (
        FaultProxy(pair.old.port) as proxy,
        closing(opened(pair.old.url.replace(pair.old.address, proxy.address), way, prefix=namespace)) as driver,
    ):
        driver.setup()
        fill(driver)
        yield driver, proxy
        driver.tear_down()


READS: Final[dict[str, Callable[[Driver], object]]] = {
    "load": lambda driver: driver.load(bytes(32), START),
    "put": WRITES["put"],
    "revoke": WRITES["revoke"],
}


@pytest.mark.parametrize("work", READS)
def test_peers_that_vanish_cost_one_request(pair: Pair, way: str, namespace: str, work: str) -> None:
    """And not one for each connection, nor a moment in which the server that is well is not asked."""
    with FaultProxy(pair.old.port) as proxy:
        url = pair.old.url.replace(pair.old.address, proxy.address)
        with closing(opened(url, way, prefix=namespace, timeout=2)) as driver:
            driver.setup()
            fill(driver)
            proxy.vanish()
            with pytest.raises(DriverUnavailable, match="no answer from"):
                READS[work](driver)
            for _ in range(CROWD):
                READS[work](driver)
            driver.tear_down()


@pytest.mark.parametrize("work", READS)
def test_peers_that_are_gone_cost_one_request_at_most(behind: tuple[Driver, FaultProxy], work: str) -> None:
    """As after a crash of the server's machine: each connection is reset when it is used."""
    driver, proxy = behind
    inner: Any = driver.driver if isinstance(driver, Blocking) else driver
    inner._client.is_alive = lambda _: True  # nothing is to be seen of it before that
    proxy.cut()
    failures = 0
    for _ in range(CROWD):
        try:
            READS[work](driver)
        except DriverUnavailable:
            failures += 1
    assert failures <= 1
    assert work == "put" or not failures, "nothing was done, so it is done on another connection"


def test_a_server_that_is_down_is_still_known_to_be(behind: tuple[Driver, FaultProxy]) -> None:
    """Not by what became of old connections, but by what becomes of a new one."""
    driver, proxy = behind
    proxy.inject(Fault.REFUSE)
    for _ in range(3):
        with pytest.raises(DriverUnavailable) as caught:
            driver.load(bytes(32), START)
        if "was down a moment ago" in str(caught.value):
            break
    else:
        pytest.fail("each request asks it anew")
    proxy.heal()
    wait_until(lambda: _works(driver), "the next look")


def _works(driver: Driver) -> bool:
    try:
        driver.load(bytes(32), START)
    except DriverUnavailable:
        return False
    return True


@pytest.mark.parametrize("bound", ["LONGEST_IDLE", "LONGEST_LIFE"])
def test_connections_grow_old(behind: tuple[Driver, FaultProxy], monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """So that a process that only reads comes to the new primary too."""
    driver, proxy = behind
    driver.load(bytes(32), START)
    monkeypatch.setattr(_lifetimes, bound, -1.0)
    proxy.counted()
    driver.load(bytes(32), START)
    assert proxy.counted().connections == 1


def test_the_system_looks_after_idle_connections(behind: tuple[Driver, FaultProxy]) -> None:
    driver, _ = behind
    inner: Any = driver.driver if isinstance(driver, Blocking) else driver

    def sockets() -> list[socket.socket]:
        pool = inner._pools.here()
        found = [held.connection for held in pool._idle]
        handles = [each.pgconn.socket if hasattr(each, "pgconn") else each.endpoint.fileno() for each in found]
        return [socket.socket(fileno=handle) for handle in handles]

    async def there() -> list[socket.socket]:
        return sockets()

    for each in driver.wait_for(there()) if isinstance(driver, Blocking) else sockets():
        try:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        finally:
            each.detach()
