"""How long an operation on a SQL server takes, and what its end says of the server: a lock in the way, a pause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pymysql
import pytest
from testservers import Fault, FaultProxy, MariaDBServer, PgBouncer, wait_until
from testservers.engines import Engine, params, with_options

from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, puts, started, user

A: Final[ValueKey] = ("", "a")
TIMEOUT: Final = 5.0
FIRST_WAIT: Final = 2.6
"""Seconds for which the first lock is held: less than the server waits for one, and over half of all there is."""

PATIENCE: Final = 60.0
TOLD: Final = "(kept|held) a lock for too long"


@contextmanager
def holding(engine: Engine, table: str, where: str, *values: object) -> Iterator[Any]:
    """Lock rows, as another program's transaction does that takes its time; give what ends it."""
    server = engine.server.server if isinstance(engine.server, PgBouncer) else engine.server
    driver: Any = engine.open()
    inner = driver.driver if isinstance(driver, Blocking) else driver
    name = inner._dialect.named(f"coatcheck_{table}")
    if isinstance(server, MariaDBServer):
        socket = str(server.folder / "mariadb.sock")
        connection: Any = pymysql.connect(unix_socket=socket, user="root", database=server.database)
    else:
        connection = psycopg.connect(server.url)
    try:
        cursor = connection.cursor()
        if where == "TABLE":
            lock = f"LOCK TABLES {name} WRITE" if isinstance(server, MariaDBServer) else f"LOCK TABLE {name}"
            cursor.execute(lock)
        else:
            cursor.execute(f"SELECT 1 FROM {name} WHERE {where} FOR UPDATE", values)  # noqa: S608 (no values)
            assert cursor.fetchall(), "there is nothing to lock"
        yield connection
    finally:
        connection.close()


def waiting(engine: Engine, running: Future[object]) -> None:
    """Wait until somebody waits for a lock."""
    server = engine.server.server if isinstance(engine.server, PgBouncer) else engine.server
    if isinstance(server, MariaDBServer):
        wait_until(lambda: running.done() or server.lock_waits(), "a transaction that waits for a lock")
    else:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: running.done() or int(server.sql(waits)), "a transaction that waits for a lock")
    assert not running.done(), f"it did not wait for a lock, and gave {running.result()}"


def told_of_a_lock(running: Future[object]) -> None:
    with pytest.raises(DriverUnavailable, match=TOLD) as caught:
        running.result(PATIENCE)
    assert not caught.value.outcome_unknown, "the server said that nothing was done"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.mark.parametrize("engine", params("postgresql", "pgbouncer", "mariadb"), indirect=True)
def test_two_locks_in_the_way_of_one_operation(engine: Engine, pool: ThreadPoolExecutor) -> None:
    """The server gives up the second in time, and nobody takes it for down."""
    driver = engine.open(timeout=TIMEOUT)
    driver.setup()
    who = user()
    record, other = started(driver, user=who), started(driver)
    login = Delta(user=who, auth_time=START)
    with holding(engine, "fence", "username = %s", who) as fence, holding(engine, "session", "sid = %s", record.sid):
        running = pool.submit(driver.commit, record.digest, login, START)
        waiting(engine, running)
        time.sleep(FIRST_WAIT)
        fence.rollback()
        told_of_a_lock(running)
        loaded(driver, other.digest, START)
    committed(driver.commit(record.digest, login, START))


@pytest.mark.parametrize("change", [puts({A: b"a"}), Delta(increments={A: 1}), Delta(touch=START + 1, drops={A: None})])
@pytest.mark.parametrize("engine", params("postgresql", "pgbouncer", "mariadb"), indirect=True)
def test_a_lock_that_is_met_when_little_time_is_left(engine: Engine, pool: ThreadPoolExecutor, change: Delta) -> None:
    """Here after a wait for a connection, of which there is one."""
    driver = engine.open(timeout=TIMEOUT, max_connections=1)
    driver.setup()
    first, second, other = started(driver), started(driver), started(driver)
    with (
        holding(engine, "session", "sid = %s", first.sid) as lock,
        holding(engine, "session", "sid = %s", second.sid),
    ):
        one = pool.submit(driver.commit, first.digest, change, START)
        waiting(engine, one)
        two = pool.submit(driver.commit, second.digest, change, START)
        time.sleep(FIRST_WAIT)
        lock.rollback()
        committed(one.result(PATIENCE))
        told_of_a_lock(two)
        loaded(driver, other.digest, START)
    committed(driver.commit(second.digest, change, START))


@pytest.mark.parametrize("timeout", [1, 2])
@pytest.mark.parametrize("engine", params("postgresql", "pgbouncer", "mariadb"), indirect=True)
def test_a_lock_and_a_short_limit(engine: Engine, timeout: int) -> None:
    """Where the server counts in seconds it may be too late to say so; it is not taken for down all the same."""
    driver = engine.open(timeout=timeout)
    driver.setup()
    record, other = started(driver, values={A: b"a"}), started(driver)
    with holding(engine, "session", "sid = %s", record.sid):
        for change in (puts({A: b"b"}), Delta(touch=START + 1, drops={A: None})):
            with pytest.raises(DriverUnavailable):
                driver.commit(record.digest, change, START)
            loaded(driver, other.digest, START)


@pytest.mark.parametrize("engine", params("postgresql", "mariadb"), indirect=True)
def test_a_table_that_is_locked(engine: Engine) -> None:
    """As while its definition is changed. A read waits too, and the next one is asked at once."""
    driver = engine.open(timeout=TIMEOUT)
    driver.setup()
    record = started(driver)
    with holding(engine, "session", "TABLE"), pytest.raises(DriverUnavailable, match=TOLD):
        driver.load(record.digest, START)
    loaded(driver, record.digest, START)


PAUSED: Final = """
import sys
from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.testing import Blocking

url, way, digest = sys.argv[1:]
driver = open_driver(url) if way == "sync" else Blocking(open_async_driver(url))
for _ in range(2):
    print(type(driver.load(bytes.fromhex(digest), 1e9)).__name__, flush=True)
    sys.stdin.readline()
driver.close()
"""


@pytest.mark.parametrize("engine", params("postgresql", "pgbouncer", "mariadb"), indirect=True)
def test_an_answer_that_is_there_is_read_after_a_pause_of_the_process(engine: Engine) -> None:
    """Although the limit is over by then."""
    driver: Driver = engine.open()
    driver.setup()
    record = started(driver)
    with FaultProxy(engine.server.port) as proxy:
        url = with_options(engine.url.replace(engine.server.address, proxy.address), timeout=3)
        way = "async" if engine.asynchronous else "sync"
        with subprocess.Popen(
            [sys.executable, "-c", PAUSED, url, way, record.digest.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "Record\n"
            proxy.inject(Fault.DELAY, seconds=1.0)
            proxy.counted()
            print(file=child.stdin, flush=True)
            wait_until(lambda: proxy.counts.round_trips, "the request")
            os.kill(child.pid, signal.SIGSTOP)
            was_in_time = not proxy.counts.received
            wait_until(lambda: proxy.counts.received, "the answer")
            time.sleep(3)
            os.kill(child.pid, signal.SIGCONT)
            said, errors = child.communicate("\n", timeout=PATIENCE)
    assert was_in_time
    assert said == "Record\n", errors
