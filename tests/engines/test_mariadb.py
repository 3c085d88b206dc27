"""What is particular to MariaDB: locks and deadlocks, names and numbers, the ways to reach it, what it refuses."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest
from testservers import FaultProxy, MariaDBServer, wait_until

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import AsyncMariaDBDriver
from coatcheck.errors import CounterOverflow, DriverUnavailable, NotACounter
from coatcheck.record import COUNTER_MAX, COUNTER_MIN, Committed, Delta, Gone, Put, Reason, Record, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
N: ValueKey = ("", "n")

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(mariadb_server: MariaDBServer) -> str:
    return mariadb_server.create_database("special")


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest, url: str) -> Iterator[Driver]:
    driver = opened(url, request.param)
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest, url: str) -> str:
    with closing(open_driver(url)) as driver:
        driver.setup()
    way: str = request.param
    return way


def opened(url: str, way: str) -> Driver:
    return open_driver(url) if way == "sync" else Blocking(open_async_driver(url))


@contextmanager
def rooted(server: MariaDBServer, database: str = "special") -> Iterator[Any]:
    """A connection of somebody else's, who may do everything."""
    socket = str(server.folder / "mariadb.sock")
    with closing(pymysql.connect(unix_socket=socket, user="root", database=database)) as connection:
        with closing(connection.cursor()) as cursor:
            yield cursor
        connection.rollback()


def asked(server: MariaDBServer, query: str) -> str:
    return server.sql(query).strip()


def waiting(server: MariaDBServer, work: Future[Any]) -> None:
    """Wait until *work* waits for a lock."""
    wait_until(lambda: work.done() or server.lock_waits(), "a transaction that waits for a lock", 10)
    assert not work.done(), f"it did not wait for a lock, and gave {work.result()}"


@pytest.fixture
def aside() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Starts something in another thread."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


# Locks


SMALL = {
    "put": puts({A: b"late"}),
    "put-based": puts({A: b"late"}, 1),
    "put-absent": Delta(puts={B: Put(b"late", 0)}),
    "increment": Delta(increments={N: 1}),
    "drop": Delta(drops={A: 1}),
    "touch": Delta(touch=START + 1),
    "puts": puts({A: b"late", B: b"late", N: 7}),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_change_in_one_statement_waits_for_a_revocation_under_way(
    mariadb_server: MariaDBServer, driver: Driver, aside: Any, kind: str
) -> None:
    """What is written while the session is being removed comes after it: Gone, and no value is left behind."""
    record = started(driver, values={A: b"1", N: 5})
    version = loaded(driver, record.digest, START).values[A].version
    delta = SMALL[kind]
    if kind == "put-based":
        delta = puts({A: b"late"}, version)
    elif kind == "drop":
        delta = Delta(drops={A: version})
    with rooted(mariadb_server) as cursor:
        cursor.execute("SELECT id FROM coatcheck_session WHERE digest = %s FOR UPDATE", (record.digest,))
        ((ident,),) = cursor.fetchall()
        late = aside(lambda: driver.commit(record.digest, delta, START))
        waiting(mariadb_server, late)
        cursor.execute("DELETE FROM coatcheck_value WHERE session = %s", (ident,))
        cursor.execute("DELETE FROM coatcheck_session WHERE id = %s", (ident,))
        cursor.connection.commit()
        assert late.result() == Gone(Reason.UNKNOWN)
        cursor.execute("SELECT COUNT(*) FROM coatcheck_value WHERE session = %s", (ident,))
        assert cursor.fetchall() == ((0,),)


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_change_is_one_round_trip(mariadb_server: MariaDBServer, url: str, way: str, kind: str) -> None:
    with (
        FaultProxy(mariadb_server.port) as proxy,
        closing(opened(url.replace(mariadb_server.address, proxy.address), way)) as driver,
    ):
        record = started(driver, values={A: b"1", N: 5})
        version = loaded(driver, record.digest, START).values[A].version
        delta = {"put-based": puts({A: b"late"}, version), "drop": Delta(drops={A: version})}.get(kind, SMALL[kind])
        proxy.counted()
        committed(driver.commit(record.digest, delta, START))
        assert proxy.counted().round_trips == 1


def test_a_deadlock_of_our_own_is_begun_anew(mariadb_server: MariaDBServer, driver: Driver, aside: Any) -> None:
    record = started(driver, values={A: b"1", B: b"1"})
    before = mariadb_server.deadlocks()
    with rooted(mariadb_server) as cursor:
        # The server gives up the transaction that changed fewer rows: so this one has changed many
        cursor.execute("CREATE TABLE IF NOT EXISTS ballast (x INT)")
        cursor.executemany("INSERT INTO ballast VALUES (%s)", [(n,) for n in range(200)])
        cursor.execute("SELECT v.version FROM coatcheck_value v FORCE INDEX (PRIMARY) WHERE v.name = 'b' FOR UPDATE")
        done = aside(lambda: driver.commit(record.digest, puts({A: b"2", B: b"2"}), START))
        waiting(mariadb_server, done)
        cursor.execute("UPDATE coatcheck_session SET seen = seen WHERE digest = %s", (record.digest,))
        cursor.connection.commit()
        assert isinstance(done.result(), Committed)
    assert mariadb_server.deadlocks() > before
    assert loaded(driver, record.digest, START).values[A].data == b"2"


def test_a_lock_that_is_kept_too_long(mariadb_server: MariaDBServer, url: str) -> None:
    """The server says so before the limit is over, and then nothing was done."""
    with closing(open_driver(f"{url}?timeout=2")) as driver:
        record = started(driver)
        with rooted(mariadb_server) as cursor:
            cursor.execute("SELECT id FROM coatcheck_session WHERE digest = %s FOR UPDATE", (record.digest,))
            began = time.monotonic()
            with pytest.raises(DriverUnavailable, match="kept a lock for too long") as caught:
                driver.commit(record.digest, puts({A: b"x"}), START)
            assert time.monotonic() - began < 2
        assert not caught.value.outcome_unknown
        committed(driver.commit(record.digest, puts({A: b"y"}), START))


def test_a_sweep_passes_by_what_is_locked(mariadb_server: MariaDBServer, driver: Driver) -> None:
    old = [started(driver, START - 10**6) for _ in range(3)]
    with rooted(mariadb_server) as cursor:
        cursor.execute("SELECT id FROM coatcheck_session WHERE digest = %s FOR UPDATE", (old[0].digest,))
        began = time.monotonic()
        assert driver.sweep(START - 10**5, 100) == 2
        assert time.monotonic() - began < 3  # and not the five of the limit
    assert driver.sweep(START - 10**5, 100) == 1


def test_tables_that_everybody_creates_at_once(mariadb_server: MariaDBServer, namespace: str) -> None:
    where = mariadb_server.create_database(namespace)
    drivers = [open_driver(where) for _ in range(8)]
    gate = threading.Barrier(8)

    def create(driver: Driver) -> None:
        gate.wait(120)
        driver.setup()
        started(driver)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, drivers))
    for driver in drivers:
        driver.close()
    mariadb_server.sql(f"DROP DATABASE {namespace}")


def test_changes_of_the_same_values_in_other_orders(mariadb_server: MariaDBServer, driver: Driver) -> None:
    """Statements that write several values keep each other out, so that none waits for another in a circle."""
    record = started(driver)
    names: list[ValueKey] = [("", f"{n}") for n in range(20)]
    before = mariadb_server.deadlocks()

    def write(number: int) -> None:
        order = names[number:] + names[:number] if number % 2 else names[::-1]
        for _ in range(20):
            committed(driver.commit(record.digest, puts(dict.fromkeys(order, b"%d" % number)), START))
            committed(driver.commit(record.digest, puts({names[number]: b"%d" % number}), START))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert mariadb_server.deadlocks() == before
    assert len(loaded(driver, record.digest, START).values) == 20


def test_large_values_in_one_change(driver: Driver) -> None:
    """Of a kind and a size each, below and above what a statement of their own may hold."""
    for size in (1, 32767, 32768, 32769, 65535, 65536, 65537, 900_000):
        values: dict[ValueKey, bytes | int] = {("", "n"): -1, ("", "none"): b"", A: b"a" * size, ("", "0"): b"\0", N: 7}
        record = started(driver)
        for change in (values, dict(reversed(values.items()))):
            committed(driver.commit(record.digest, puts(change), START))
            found = loaded(driver, record.digest, START).values
            assert {name: value.data for name, value in found.items()} == values, size


# Names and numbers


def test_names_that_differ_are_different_names(driver: Driver) -> None:
    """In case, in accents, in spaces at the end, in what a collation takes for equal, and in the fourth byte."""
    names = [
        "a",
        "A",
        "ä",
        "a ",
        "a  ",
        "ß",
        "ss",
        "\u0131",
        "i",
        "\u00e9",
        "e\u0301",
        "😀",
        "😁",
        "%s",
        "'",
        '"',
        "\\",
        "`",
    ]
    values: dict[ValueKey, bytes | int] = {
        (app, name): f"{app}/{name}".encode() for app in ("", *names) for name in names
    }
    record = started(driver, values=values)
    committed(driver.commit(record.digest, puts({("a", "A"): b"changed"}), START))
    found = loaded(driver, record.digest, START).values
    assert {name: value.data for name, value in found.items()} == values | {("a", "A"): b"changed"}
    users = [record.sid + name for name in names]
    for user in users:
        started(driver, user=user)
    for user in users:
        assert [info.user for info in driver.sessions_of(user, START)] == [user]
        assert driver.revoke_user(user, START) == 1


def test_the_longest_names_and_the_largest_values(driver: Driver) -> None:
    long = "😀" * 255
    value = bytes(range(256)) * 4096 * 4
    record = started(driver, user=long, values={(long, long): value, (long, "low"): COUNTER_MIN})
    committed(driver.commit(record.digest, Delta(increments={(long, "high"): COUNTER_MAX}), START))
    found = loaded(driver, record.digest, START).values
    assert found[long, long].data == value
    assert (found[long, "low"].data, found[long, "high"].data) == (COUNTER_MIN, COUNTER_MAX)


def test_counters_in_one_statement(driver: Driver) -> None:
    """What the server returns for the id of a row is a signed number here; what cannot be added is left undone."""
    record = started(driver, values={A: b"bytes", B: COUNTER_MIN + 5})

    def add(name: ValueKey, amount: int) -> int:
        return committed(driver.commit(record.digest, Delta(increments={name: amount}), START)).counters[name]

    assert [add(N, amount) for amount in (-3, 1, 2, 0, COUNTER_MAX, -COUNTER_MAX - 1)] == [
        -3, -2, 0, 0, COUNTER_MAX, -1,
    ]  # fmt: skip
    assert add(B, -5) == COUNTER_MIN
    before = loaded(driver, record.digest, START).values
    with pytest.raises(CounterOverflow):
        add(B, -1)
    with pytest.raises(NotACounter):
        add(A, 1)
    assert loaded(driver, record.digest, START).values == before


def test_a_write_that_changes_nothing_is_done(driver: Driver) -> None:
    """It finds its row, and that is what counts: not Gone."""
    record = started(driver, values={A: b"1"})
    for _ in range(2):
        committed(driver.commit(record.digest, Delta(touch=START + 5), START + 5))
        committed(driver.commit(record.digest, Delta(touch=START + 5, deadline=START + 50), START + 5))
        committed(driver.commit(record.digest, puts({A: b"1", B: b"1"}), START + 5))


# Event loops and cancelled tasks


def connections(server: MariaDBServer) -> int:
    return int(asked(server, "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'coatcheck'"))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of a loop that ended without a word
def test_a_second_event_loop(mariadb_server: MariaDBServer, url: str) -> None:
    """Each has connections of its own, and those of a loop that ended without a word are given back."""
    driver = AsyncMariaDBDriver.from_url(url)
    record = make_record()

    async def use(*, close: bool) -> None:
        await driver.load(record.digest, START)
        committed(await driver.commit(record.digest, Delta(increments={N: 1}), START))
        if close:
            await driver.close()

    async def begin() -> None:
        await driver.setup()
        committed(await driver.create(record, START))

    before = connections(mariadb_server)
    asyncio.run(begin())
    for turn in range(6):
        asyncio.run(use(close=turn == 5))
    wait_until(lambda: connections(mariadb_server) <= before, "the end of all connections")
    gc.collect()
    with closing(open_driver(url)) as other:
        assert loaded(other, record.digest, START).values[N].data == 6


def test_cancelled_tasks_lose_nothing_that_was_acknowledged(mariadb_server: MariaDBServer, url: str) -> None:
    driver = AsyncMariaDBDriver.from_url(f"{url}?max_connections=4")
    record = make_record()
    done: list[int] = []

    async def count(*, twice: bool) -> None:
        delta = Delta(increments={N: 1}, touch=START + 1 if twice else None)
        committed(await driver.commit(record.digest, delta, START))
        done.append(1)

    async def storm() -> None:
        await driver.setup()
        committed(await driver.create(record, START))
        for turn in range(60):
            tasks = [asyncio.create_task(count(twice=n % 2 == 0)) for n in range(8)]
            await asyncio.sleep(0.0002 * turn)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        began = time.monotonic()
        for _ in range(8):
            await count(twice=True)
        assert time.monotonic() - began < 4, "a place in the pool was lost"
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        held = found.values[N].data
        assert isinstance(held, int)
        assert held >= len(done) >= 8
        await driver.close()

    before = connections(mariadb_server)
    asyncio.run(storm())
    gc.collect()
    wait_until(lambda: connections(mariadb_server) <= before, "the end of all connections")
