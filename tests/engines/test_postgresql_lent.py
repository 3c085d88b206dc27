"""PostgreSQL connections that the application lends: the contract on them, and what becomes of its transaction."""

# ruff: noqa: S608 (names of tables)

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
import pytest
from engines.worker import JOBS, check, work
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from testservers import PgBouncer, PostgreSQLServer
from testservers.engines import with_options

from coatcheck import SessionManager
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.drivers.postgresql import AsyncPostgreSQLDriver, PostgreSQLDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable, NotACounter, UnsupportedCapability
from coatcheck.record import Conflict, Delta, Gone, Put, Reason, ValueKey
from coatcheck.testing import Blocking, DriverContract
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
N: Final[ValueKey] = ("", "n")
CROWD: Final = 8
TURNS: Final = 100

LEVELS: Final = {level.name.replace("_", " "): level for level in psycopg.IsolationLevel}
MODES: Final = ("READ COMMITTED", "autocommit", "through PgBouncer")


class Converted(TextLoader):
    """What an application may do to the types of its own tables."""

    def load(self, data: Any) -> Any:
        return ("converted", super().load(data))


def spoil(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Set everything on a connection that an application may set."""
    connection.row_factory = dict_row  # type: ignore[assignment]
    for name in ("text", "bytea", "float8", "int8"):
        connection.adapters.register_loader(name, Converted)


@pytest.fixture(params=["direct", "pgbouncer"])
def url(request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, pgbouncer: PgBouncer) -> str:
    return pgbouncer.url if request.param == "pgbouncer" else postgresql_server.url


class TestLent(DriverContract):
    """The contract in one open transaction of the application's."""

    concurrent = False
    sequences = 5

    @pytest.fixture(params=MODES)
    def driver(
        self, request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, pgbouncer: PgBouncer, namespace: str
    ) -> Iterator[Driver]:
        mode = request.param
        url = pgbouncer.url if mode == "through PgBouncer" else postgresql_server.url
        connection = psycopg.connect(url, prepare_threshold=None)
        spoil(connection)
        connection.autocommit = mode == "autocommit"
        connection.isolation_level = LEVELS.get(mode)
        driver = PostgreSQLDriver.from_url(with_options(url, prefix=namespace)).borrow(connection)
        if connection.autocommit:
            connection.execute("BEGIN")
        driver.setup()
        yield driver
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        assert connection.row_factory is dict_row  # type: ignore[comparison-overlap]
        connection.execute("ROLLBACK")
        own = PostgreSQLDriver.from_url(with_options(url, prefix=namespace))
        assert not own.is_set_up(), "nothing was committed"
        own.close()
        connection.close()


class TestAsyncLent(DriverContract):
    """The same with an asynchronous connection."""

    concurrent = False
    sequences = 5

    @pytest.fixture
    def driver(self, postgresql_server: PostgreSQLServer, namespace: str) -> Iterator[Driver]:
        url = postgresql_server.url

        async def connect() -> psycopg.AsyncConnection[Any]:
            return await psycopg.AsyncConnection.connect(url, prepare_threshold=None)

        own = Blocking(AsyncPostgreSQLDriver.from_url(with_options(url, prefix=namespace)))
        connection = own.wait_for(connect())
        spoil(connection)

        class Same(Blocking):
            """On the loop on which the connection is."""

            def wait_for(self, work: Any) -> Any:
                return own.wait_for(work)

        inner: Any = own.driver
        driver = Same(inner.borrow(connection))
        driver.setup()
        yield driver
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        own.wait_for(connection.rollback())
        assert not own.is_set_up(), "nothing was committed"
        own.wait_for(connection.close())
        driver.close()
        own.close()


@pytest.fixture
def own(url: str, namespace: str) -> Iterator[PostgreSQLDriver]:
    """A driver of our own, with tables."""
    driver = PostgreSQLDriver.from_url(with_options(url, prefix=namespace, timeout=15))
    driver.setup()
    yield driver
    driver.tear_down()
    driver.close()


@pytest.mark.parametrize("job", JOBS)
def test_a_crowd_of_transactions_loses_nothing(
    own: PostgreSQLDriver, postgresql_server: PostgreSQLServer, namespace: str, job: str
) -> None:
    """Eight threads at READ COMMITTED, each turn one transaction with a row of the application's in it."""
    manager = SessionManager(own)
    begun = manager.open([])
    begun["look"] = 1
    cookie = (manager.save(begun).set_cookie or "").partition(";")[0]
    table = f"{namespace}_orders"
    with psycopg.connect(postgresql_server.url) as connection:
        connection.execute(f"CREATE TABLE {table} (number int, n int)")

    def run(number: int) -> None:
        with psycopg.connect(postgresql_server.url) as connection:
            lent = SessionManager(own.borrow(connection))
            save = lent.save

            def save_and_commit(session: Any) -> Any:
                connection.execute(f"INSERT INTO {table} VALUES (%s, 1)", (number,))
                answer = save(session)
                connection.commit()
                return answer

            lent.save = save_and_commit  # type: ignore[method-assign, assignment]
            work(lent, cookie, job, number, TURNS, 0.003)

    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(run, range(CROWD)))
    found = dict(manager.open([cookie]))
    assert found.pop("look") == 1
    check(job, found, CROWD, TURNS)
    with psycopg.connect(postgresql_server.url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row == (CROWD * TURNS * len(JOBS[job]),)
        connection.execute(f"DROP TABLE {table}")


def test_the_application_keeps_its_transaction_and_its_settings(own: PostgreSQLDriver, url: str) -> None:
    """Refusals and errors of ours undo only themselves; limits are those of the application."""
    record = started(own, values={A: b"a"})
    with psycopg.connect(url, prepare_threshold=None) as connection:
        connection.execute("SET LOCAL lock_timeout = '7s'")
        connection.execute("CREATE TEMPORARY TABLE basket (item text) ON COMMIT DROP")
        connection.execute("INSERT INTO basket VALUES ('hat')")
        lent = own.borrow(connection)
        committed(lent.commit(record.digest, puts({B: b"b"}), START))
        with pytest.raises(NotACounter):
            lent.commit(record.digest, Delta(increments={A: 1}, touch=START + 1), START)
        assert lent.commit(record.digest, puts({A: b"x"}, 77), START) == Conflict((A,))
        assert lent.commit(digest(), puts({A: b"x"}), START) == Gone(Reason.UNKNOWN)
        assert loaded(own, record.digest, START) == record, "nobody else sees any of it"
        assert connection.execute("SHOW lock_timeout").fetchone() == ("7s",)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SELECT item FROM basket").fetchall() == [("hat",)]
    assert {name: value.data for name, value in loaded(own, record.digest, START).values.items()} == {A: b"a", B: b"b"}


def test_a_write_in_autocommit_mode_needs_a_transaction(own: PostgreSQLDriver, url: str) -> None:
    """Nobody would end one that it opened, and what the application writes afterwards would be lost with it."""
    record = started(own)
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
    lent = own.borrow(connection)
    loaded(lent, record.digest, START)
    with pytest.raises(ConfigurationError, match="nothing would commit one: begin one first"):
        lent.commit(record.digest, puts({A: b"a"}), START)
    assert connection.info.transaction_status == TransactionStatus.IDLE
    with connection.transaction():
        committed(lent.commit(record.digest, puts({A: b"a"}), START))
    assert A in loaded(own, record.digest, START).values
    lent.close()
    assert not connection.closed
    connection.close()


def test_a_transaction_that_saw_too_little_has_to_begin_anew(own: PostgreSQLDriver, url: str) -> None:
    """At REPEATABLE READ nothing that changed since is lost in silence; the transaction stays the application's."""
    who = user()
    record = started(own, values={A: b"a", N: 1})
    early = puts({A: b"b"})
    late = Delta(puts={A: Put(b"late")}, increments={N: 1})
    works: list[tuple[Callable[[Driver], object], Callable[[Driver], object]]] = [
        (lambda own: own.commit(record.digest, early, START), lambda it: it.commit(record.digest, late, START)),
        (lambda own: own.revoke_user(who, START), lambda it: it.create(make_record(user=who), START)),
    ]
    for elsewhere, here in works:
        with psycopg.connect(url, prepare_threshold=None) as connection:
            connection.isolation_level = LEVELS["REPEATABLE READ"]
            connection.execute("SELECT 1")
            lent = own.borrow(connection)
            elsewhere(own)
            with pytest.raises(DriverUnavailable, match="begun again") as caught:
                here(lent)
            assert not caught.value.outcome_unknown
            assert connection.info.transaction_status == TransactionStatus.INTRANS
            connection.rollback()
            here(lent)
            connection.commit()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_what_removes_is_refused_where_it_would_leave_what_is_newer(
    own: PostgreSQLDriver, url: str, level: str
) -> None:
    """Such as a value that another request stored for the visitor, in the session of the user who logs in."""
    record = started(own, values={A: b"a"})
    works: list[Callable[[Driver], object]] = [
        lambda it: it.commit(record.digest, Delta(clear_all=True, user="ann", auth_time=START), START),
        lambda it: it.commit(record.digest, Delta(clears=frozenset({""})), START),
        lambda it: it.rotate(record.digest, digest(), Delta(clear_all=True), 0, START),
        lambda it: it.revoke(record.digest, START),
        lambda it: it.revoke_user("ann", START),
        lambda it: it.sweep(START + 10**6, 10),
    ]
    with psycopg.connect(url, prepare_threshold=None) as connection:
        connection.isolation_level = LEVELS[level]
        connection.execute("SELECT 1")
        lent = own.borrow(connection)
        committed(own.commit(record.digest, Delta(puts={B: Put(b"newer")}), START))
        for work in works:
            with pytest.raises(ConfigurationError, match="at READ COMMITTED"):
                work(lent)
        committed(lent.commit(record.digest, puts({A: b"fine"}), START))
        connection.commit()
    found = loaded(own, record.digest, START)
    assert {name: value.data for name, value in found.values.items()} == {A: b"fine", B: b"newer"}
    assert found.user is None


def test_a_connection_in_pipeline_mode_is_refused(own: PostgreSQLDriver, url: str) -> None:
    """There a statement has not been done yet when the next one depends on it."""
    record = started(own)
    with psycopg.connect(url, prepare_threshold=None) as connection:
        lent = own.borrow(connection)
        with connection.pipeline():
            with pytest.raises(ConfigurationError, match="pipeline"):
                lent.load(record.digest, START)
            with pytest.raises(ConfigurationError, match="pipeline"):
                lent.commit(record.digest, puts({A: b"a"}), START)
        committed(lent.commit(record.digest, puts({A: b"a"}), START))


def test_a_deadlock_is_told_and_not_retried(
    own: PostgreSQLDriver, postgresql_server: PostgreSQLServer, url: str
) -> None:
    """The application knows what else its transaction did."""
    first, second = started(own), started(own)
    with psycopg.connect(url, prepare_threshold=None) as mine, psycopg.connect(postgresql_server.url) as other:
        other.execute("SET deadlock_timeout = '20s'")  # so that it is mine which is chosen
        there, lent = own.borrow(other), own.borrow(mine)
        committed(there.commit(second.digest, puts({A: b"other"}), START))
        committed(lent.commit(first.digest, puts({A: b"mine"}), START))

        change = puts({A: b"other"})
        waiting = threading.Thread(target=lambda: there.commit(first.digest, change, START))
        waiting.start()
        time.sleep(0.3)
        with pytest.raises(DriverUnavailable, match=r"deadlock.*rolled back and begun again"):
            lent.commit(second.digest, puts({A: b"mine"}), START)
        mine.rollback()
        waiting.join(120)
        other.commit()
    assert loaded(own, first.digest, START).values[A].data == b"other"


def test_what_is_not_psycopgs_is_refused(own: PostgreSQLDriver, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"psycopg\.Connection"):
        own.borrow(object())
    connection = psycopg.connect(url)
    lent = own.borrow(connection)
    with pytest.raises(UnsupportedCapability):
        lent.borrow(connection)
    connection.close()
    with pytest.raises(DriverUnavailable):
        lent.load(digest(), START)


def test_missing_tables_on_a_lent_connection(url: str, namespace: str) -> None:
    driver = PostgreSQLDriver.from_url(with_options(url, prefix=f"{namespace}x"))
    with psycopg.connect(url, prepare_threshold=None) as connection:
        connection.execute("SELECT 1")
        lent = driver.borrow(connection)
        assert not lent.is_set_up()
        with pytest.raises(ConfigurationError, match="coatcheck init URL"):
            lent.create(make_record(), START)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        lent.setup()
        started(lent)
        connection.rollback()
    assert not driver.is_set_up()
    driver.close()


def test_a_cancelled_write_on_a_lent_connection_undoes_only_itself(
    own: PostgreSQLDriver, url: str, namespace: str, postgresql_server: PostgreSQLServer
) -> None:
    """The application may go on, or roll back, on its connection."""
    record = started(own)
    table = own._dialect.named("coatcheck_session")

    async def main() -> None:
        driver: AsyncDriver = AsyncPostgreSQLDriver.from_url(with_options(url, prefix=namespace))
        async with await psycopg.AsyncConnection.connect(url, prepare_threshold=None) as connection:
            await connection.execute("SELECT 1")
            lent = driver.borrow(connection)
            with psycopg.connect(postgresql_server.url) as other:
                other.execute(f"SELECT 1 FROM {table} FOR UPDATE")
                task = asyncio.ensure_future(lent.commit(record.digest, puts({A: b"late"}), START))
                await asyncio.sleep(0.3)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            committed(await lent.commit(record.digest, puts({B: b"b"}), START))
            await connection.commit()
        await driver.close()

    asyncio.run(main())
    assert loaded(own, record.digest, START).values.keys() == {B}
