"""What is PostgreSQL's own: statements and round trips, PgBouncer, settings, missing tables."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
import pytest
from testservers import FaultProxy, PgBouncer, PostgreSQLServer, free_port
from testservers.engines import Engine, params, with_options

from coatcheck.drivers.base import Driver
from coatcheck.drivers.postgresql import PostgreSQLDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import ABSENT, Committed, Delta, Gone, Put, Reason, Record, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, reason, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
N: Final[ValueKey] = ("", "n")

ways = pytest.mark.parametrize("engine", params("postgresql"), indirect=True)
all_ways = pytest.mark.parametrize("engine", params("postgresql", "pgbouncer"), indirect=True)


def inside(driver: Driver) -> Any:
    """Give the driver itself, which may be behind a synchronous face."""
    return driver.driver if isinstance(driver, Blocking) else driver


@pytest.fixture
def database(postgresql_server: PostgreSQLServer, namespace: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    yield postgresql_server.create_database(namespace)
    postgresql_server.sql(f'DROP DATABASE "{namespace}" WITH (FORCE)', database="postgres")


# -- round trips


def ordinary(record: Record) -> dict[str, Callable[[Driver], object]]:
    """Give the operations that are to take one round trip."""
    base = record.values[A].version
    changes = {
        "put": puts({B: b"b"}),
        "ten puts": puts({("", f"k{n}"): b"x" for n in range(10)}),
        "put and touch": Delta(puts={B: Put(b"b")}, touch=START + 1),
        "increment": Delta(increments={N: 1}),
        "increment and touch": Delta(increments={N: 1}, touch=START + 1),
        "touch": Delta(touch=START + 2),
        "touch and deadline": Delta(touch=START + 2, deadline=START + 900),
        "put where nothing is": puts({("", "new"): b"n"}, ABSENT),
        "put on a version": Delta(puts={A: Put(b"A", base)}, touch=START + 3),
    }
    work: dict[str, Callable[[Driver], object]] = {
        name: lambda driver, delta=delta: committed(driver.commit(record.digest, delta, START))  # type: ignore[misc]
        for name, delta in changes.items()
    }
    return {"load": lambda driver: loaded(driver, record.digest, START), **work}


@all_ways
def test_ordinary_operations_take_one_round_trip(engine: Engine) -> None:
    engine.open()  # which clears up in the end
    with FaultProxy(engine.server.port) as proxy:
        driver = engine.open(engine.url.replace(engine.server.address, proxy.address))
        driver.setup()
        record = started(driver, values={A: b"a", N: 1})
        for name, work in ordinary(record).items():
            proxy.counted()
            work(driver)
            assert proxy.counted().round_trips == 1, name
        found = loaded(driver, record.digest, START)
        assert (found.seen, found.deadline) == (START + 3, START + 900)
        assert found.values[A].data == b"A"
        driver.close()


@ways
@pytest.mark.parametrize("first", ["refuses", "is silent"])
def test_several_hosts_are_tried_in_turn(engine: Engine, first: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # whoever connects never hears anything
        port = free_port() if first == "refuses" else silent.getsockname()[1]
        url = engine.url.replace(engine.server.address, f"127.0.0.1:{port},{engine.server.address}")
        driver = engine.open(url, timeout=1)
        driver.setup()
        started(driver)


def test_a_unix_socket(postgresql_server: PostgreSQLServer, namespace: str) -> None:
    server = postgresql_server
    where = with_options(f"postgresql://{server.user}@:{server.port}/{server.database}", host=str(server.folder))
    driver = PostgreSQLDriver.from_url(with_options(where, prefix=namespace))
    driver.setup()
    started(driver)
    driver.tear_down()
    driver.close()


# -- prepared statements, and what stays behind at PgBouncer


@all_ways
def test_statements_are_prepared_where_no_pool_is_in_between(engine: Engine) -> None:
    engine.open().setup()
    driver = engine.open()
    record = started(driver)
    client = inside(driver)._client
    prepared: list[int] = []

    class Watch:
        """The client, looked over the shoulder."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def run(self, connection: Any, *more: Any) -> Any:
            prepared.append(len(connection.exchange._names))
            return client.run(connection, *more)

    inside(driver)._client = Watch()
    for _ in range(20):
        loaded(driver, record.digest, START)
        driver.sweep(START, 10)
    through_pool = engine.name.startswith("pgbouncer")
    assert prepared[-1] == (0 if through_pool else 1), "the load, and not the look of a sweep"


def test_pgbouncer_keeps_no_setting_of_ours(pgbouncer: PgBouncer, namespace: str) -> None:
    """What a transaction sets for itself does not reach the next client of the server's connection."""
    driver = PostgreSQLDriver.from_url(with_options(pgbouncer.url, prefix=namespace))
    driver.setup()
    record = started(driver, user=user())
    committed(driver.rotate(record.digest, digest(), Delta(), 0, START))
    with psycopg.connect(pgbouncer.url, autocommit=True, prepare_threshold=None) as connection:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            for _ in range(5):
                assert connection.execute(f"SHOW {name}").fetchone() == ("0",)
    driver.tear_down()
    driver.close()


# -- transactions that others make give way


@all_ways
def test_a_deadlock_is_answered_by_doing_it_again(engine: Engine, postgresql_server: PostgreSQLServer) -> None:
    """A program that locks our rows in another order makes us give way, and nothing is done twice."""
    driver = engine.open()
    driver.setup()
    who = user()
    first, second = started(driver, user=who), started(driver, user=who)
    table = inside(driver)._dialect.named("coatcheck_session")
    with psycopg.connect(postgresql_server.url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout = '20s'")  # so that it is ours which is chosen
        lock = f"SELECT 1 FROM {table} WHERE sid = %s FOR UPDATE"  # noqa: S608 (no values)
        other.execute(lock, (second.sid,))
        revocation = pool.submit(driver.revoke_user, who, START)  # holds the first and waits for the second
        time.sleep(0.3)
        other.execute(lock, (first.sid,))
        other.rollback()
        assert revocation.result(120) == 2
    assert driver.sessions_of(who, START) == []


def test_a_database_that_is_serializable_by_default(database: str, postgresql_server: PostgreSQLServer) -> None:
    """There our single statements meet serialization failures, and are done again."""
    name = database.rpartition("/")[2]
    postgresql_server.sql(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    driver = PostgreSQLDriver.from_url(database)
    driver.setup()
    record = started(driver)
    with ThreadPoolExecutor(8) as pool:
        work = lambda _: [driver.commit(record.digest, Delta(increments={N: 1}), START) for _ in range(25)]  # noqa: E731
        answers = [answer for some in pool.map(work, range(8)) for answer in some]
    assert all(isinstance(answer, Committed) for answer in answers)
    assert loaded(driver, record.digest, START).values[N].data == 200
    driver.close()


@all_ways
def test_a_lock_that_is_held_too_long_ends_in_an_error(engine: Engine, postgresql_server: PostgreSQLServer) -> None:
    """Within the limit, and nobody takes the server for down."""
    driver = engine.open(timeout=2)
    driver.setup()
    record = started(driver, values={A: b"a"})
    table = inside(driver)._dialect.named("coatcheck_session")
    general = Delta(drops={A: None}, touch=START + 1)
    with psycopg.connect(postgresql_server.url) as other:
        other.execute(f"SELECT 1 FROM {table} FOR UPDATE")  # noqa: S608 (no values)
        for delta in (general, puts({B: b"b"})):
            begun = time.monotonic()
            with pytest.raises(DriverUnavailable) as caught:
                driver.commit(record.digest, delta, START)
            assert time.monotonic() - begun < 3.8
            assert not caught.value.outcome_unknown, "the server said that nothing was done"
            assert "keep transactions that write to a session short" in str(caught.value)
            assert loaded(driver, record.digest, START).values.keys() == {A}, "readers do not wait"
        other.rollback()
    committed(driver.commit(record.digest, general, START))


def test_a_standby_is_left_for_the_primary(database: str, postgresql_server: PostgreSQLServer) -> None:
    """What a server refuses because it only reads is not sent to it again by the same connection."""
    name = database.rpartition("/")[2]
    driver = PostgreSQLDriver.from_url(database)
    driver.setup()
    record = started(driver)
    driver.close()
    postgresql_server.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    loaded(driver, record.digest, START)
    for delta in (puts({A: b"a"}), Delta(drops={A: None})):
        told = r"read-only \(a standby, or a role or database that may only read\): .*default_transaction_read_only"
        with pytest.raises(DriverUnavailable, match=told) as caught:
            driver.commit(record.digest, delta, START)
        assert not caught.value.outcome_unknown
    postgresql_server.sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only', database="postgres")
    committed(driver.commit(record.digest, puts({A: b"a"}), START))
    driver.close()


# -- tables


@ways
def test_missing_tables_are_told_with_the_remedy(engine: Engine) -> None:
    driver = engine.open()
    assert not driver.is_set_up()
    works: list[Callable[[], object]] = [
        lambda: driver.load(digest(), START),
        lambda: driver.create(make_record(), START),
        lambda: driver.commit(digest(), Delta(touch=START), START),
        lambda: driver.revoke_user(user(), START),
        lambda: driver.sweep(START, 10),
    ]
    for work in works:
        with pytest.raises(ConfigurationError, match="coatcheck init URL"):
            work()
    driver.setup()
    started(driver)


@ways
def test_another_schema_version_is_refused(engine: Engine, postgresql_server: PostgreSQLServer) -> None:
    driver = engine.open()
    driver.setup()
    name = inside(driver)._dialect.named
    postgresql_server.sql(f"UPDATE {name('coatcheck_meta')} SET content = '99' WHERE name = 'schema'")  # noqa: S608 (ours)
    for work in (driver.setup, driver.is_set_up):
        with pytest.raises(ConfigurationError, match="schema version 99"):
            work()
    postgresql_server.sql(f"ALTER TABLE {name('coatcheck_session')} RENAME COLUMN grace TO mercy")
    with pytest.raises(ConfigurationError, match="schema version 99"):
        engine.open().commit(digest(), Delta(drops={A: None}), START)


@ways
@pytest.mark.parametrize("how", ["data = NULL, number = NULL", "version = 0", "version = -1"])
def test_a_value_that_another_program_spoilt(engine: Engine, postgresql_server: PostgreSQLServer, how: str) -> None:
    """It is missing, and the next write replaces it."""
    driver = engine.open()
    driver.setup()
    table = inside(driver)._dialect.named("coatcheck_value")
    record = started(driver, values={A: b"a", B: b"b", N: 1})
    for delta in (Delta(puts={A: Put(b"new", ABSENT)}, increments={N: 3}), Delta(increments={N: 3})):
        postgresql_server.sql(f"UPDATE {table} SET {how} WHERE name <> 'b'")  # noqa: S608 (ours)
        assert loaded(driver, record.digest, START).values.keys() == {B}
        assert committed(driver.commit(record.digest, delta, START)).counters == {N: 3}
    committed(driver.commit(record.digest, puts({A: b"new"}, ABSENT), START))
    assert loaded(driver, record.digest, START).values.keys() == {A, B, N}


@ways
def test_many_set_up_at_once(engine: Engine) -> None:
    drivers = [engine.open() for _ in range(6)]
    gate = threading.Barrier(6)

    def set_up(driver: Driver) -> None:
        gate.wait(120)
        driver.setup()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(set_up, drivers))
    assert drivers[0].is_set_up()


def test_prefixes_that_differ_in_case_are_apart(database: str) -> None:
    lower, upper = (PostgreSQLDriver.from_url(with_options(database, prefix=prefix)) for prefix in ("x_", "X_"))
    lower.setup()
    assert not upper.is_set_up()
    upper.setup()
    record = started(lower)
    assert reason(upper.load(record.digest, START)) is Reason.UNKNOWN
    upper.tear_down()
    loaded(lower, record.digest, START)
    lower.close()
    upper.close()


# -- settings


def test_what_endangers_sessions_is_told(database: str, postgresql_server: PostgreSQLServer) -> None:
    name = database.rpartition("/")[2]
    postgresql_server.sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    driver = PostgreSQLDriver.from_url(database)
    assert driver.at_risk is None, "nobody has looked"
    driver.setup()
    assert driver.at_risk is not None
    assert "fsync" in driver.at_risk
    advice = "\n".join(driver.advice())
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert f"set {setting} = on" in advice
    driver.close()


def test_a_safe_server_gets_no_advice(server_folder: Any, namespace: str) -> None:
    with PostgreSQLServer(server_folder / namespace, durable=True) as server:
        driver = PostgreSQLDriver.from_url(server.url)
        assert driver.advice() == []
        assert driver.at_risk is None
        driver.close()


# -- the URL


def test_urls() -> None:
    driver = PostgreSQLDriver.from_url(
        "postgres://ann:s%2Fcret@db.example:5433/shop?sslmode=require&timeout=2&prefix=x_"
    )
    given = driver._client._settings.given(time.monotonic() + 2)  # type: ignore[attr-defined]
    parts = {"user": "ann", "password": "s/cret", "host": "db.example", "port": "5433", "dbname": "shop"}
    assert parts.items() <= given.items()
    assert given["sslmode"] == "require"
    for bad in ("?timeout=0", "?timeout=x", "?max_connections=0", "?colour=red", "?prefix=a-b", f"?prefix={'x' * 41}"):
        with pytest.raises(ConfigurationError) as caught:
            PostgreSQLDriver.from_url(f"postgresql://ann:s3cret@db.example/shop{bad}")
        assert "s3cret" not in str(caught.value)


@ways
def test_a_database_that_is_not_there(engine: Engine) -> None:
    engine.open()  # which clears up in the end
    driver = engine.open(engine.url.replace("/coatcheck?", "/nowhere?"))
    with pytest.raises(DriverUnavailable, match="nowhere") as caught:
        driver.load(digest(), START)
    assert not caught.value.outcome_unknown
    assert engine.server.password not in str(caught.value)
    assert driver.name == "postgresql"


def test_gone_is_told_by_single_statements_too(database: str) -> None:
    driver = PostgreSQLDriver.from_url(database)
    driver.setup()
    assert driver.commit(digest(), Delta(touch=START), START) == Gone(Reason.UNKNOWN)
    driver.close()
