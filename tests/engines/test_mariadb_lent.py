"""Connections to MariaDB that the application lends: in every mode that they may have, sync and async."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import aiomysql
import pymysql
import pytest
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor, SSDictCursor
from testservers import MariaDBServer, wait_until

from coatcheck import SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import AsyncMariaDBDriver, MariaDBDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable, UnsupportedCapability
from coatcheck.record import Delta, Missing, Put, Reason, ValueKey
from coatcheck.testing import Blocking, DriverContract
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, started, user
from coatcheck.testing.wrapped import WrappedDriver

T = TypeVar("T")

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")

pytestmark = pytest.mark.server

MODES: dict[str, dict[str, Any]] = {
    "as PyMySQL makes them": {},
    "READ COMMITTED, autocommit, FOUND_ROWS, rows as dicts": {
        "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "autocommit": True,
        "client_flag": CLIENT.FOUND_ROWS,
        "cursorclass": DictCursor,
    },
    "ANSI, not strict, no backslashes, Latin 1, bytes for text": {
        "sql_mode": "ANSI,NO_BACKSLASH_ESCAPES",
        "charset": "latin1",
        "use_unicode": False,
        "cursorclass": SSDictCursor,
    },
}


@pytest.fixture(scope="module")
def own(mariadb_server: MariaDBServer) -> Iterator[MariaDBDriver]:
    """A driver of our own, on a database with tables."""
    driver = MariaDBDriver.from_url(mariadb_server.create_database("lending"))
    driver.setup()
    yield driver
    driver.close()


def connected(server: MariaDBServer, database: str = "lending", **mode: Any) -> Any:
    """The connection of an application."""
    return pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, database=database, **mode
    )


class Ending(WrappedDriver):
    """Ends the application's transaction before tables are made or removed, as an application has to."""

    has_ended = False

    def __init__(self, driver: Driver, connection: Any) -> None:
        super().__init__(driver)
        self.connection = connection

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:
        if operation not in {"setup", "tear_down"}:
            return call()
        self.has_ended = True
        self.connection.commit()
        answer = call()
        self.connection.begin()
        return answer


class AsyncEnding(Blocking):
    """The same, with a connection of aiomysql's."""

    has_ended = False

    def __init__(self, server: MariaDBServer, database: str, **mode: Any) -> None:
        asynchronous = AsyncMariaDBDriver.from_url(server.url_of(database))
        super().__init__(asynchronous)
        where = {"host": server.host, "port": server.port, "db": database}
        self.connection = self.wait_for(connected_async(**where, user=server.user, password=server.password, **mode))
        self.driver = self._driver = asynchronous.borrow(self.connection)  # type: ignore[assignment]  # as in `Blocking`

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:
        if operation in {"setup", "tear_down"}:
            self.has_ended = True
            self.wait_for(self.connection.commit())
        return super().pass_on(operation, call)


async def connected_async(**where: Any) -> Any:
    return await aiomysql.connect(**where)


class Tables:
    """The tables of the contract's tests, empty before each of them: an application that rolls back keeps nothing."""

    database = "lending_rules"

    def __init__(self, server: MariaDBServer) -> None:
        self.server = server
        self.own = MariaDBDriver.from_url(server.create_database(self.database))
        self.own.setup()

    def look(self, driver: Ending | AsyncEnding) -> None:
        """Look whether a transaction that was rolled back left something; empty the tables where one had to end."""
        if driver.has_ended:
            self.own.tear_down()
            self.own.setup()
        with closing(connected(self.server, self.database)) as connection, closing(connection.cursor()) as cursor:
            for table in ("session", "value", "ended", "fence"):
                cursor.execute(f"SELECT * FROM coatcheck_{table}")  # noqa: S608 (one of ours)
                assert cursor.fetchall() == (), f"coatcheck_{table} has something that the application never committed"


@pytest.fixture(scope="module")
def tables(mariadb_server: MariaDBServer) -> Iterator[Tables]:
    tables = Tables(mariadb_server)
    yield tables
    tables.own.close()


class TestLent(DriverContract):
    concurrent = False
    sequences = 3

    @pytest.fixture(params=MODES)
    def driver(self, request: pytest.FixtureRequest, tables: Tables) -> Iterator[Driver]:
        with closing(connected(tables.server, tables.database, **MODES[request.param])) as connection:
            driver = Ending(tables.own.borrow(connection), connection)
            connection.begin()
            yield driver
            assert connection.open
            connection.rollback()
        tables.look(driver)


class TestLentAsync(DriverContract):
    concurrent = False
    sequences = 3

    @pytest.fixture
    def driver(self, tables: Tables) -> Iterator[Driver]:
        mode = "'ANSI,NO_BACKSLASH_ESCAPES'"
        driver = AsyncEnding(tables.server, tables.database, sql_mode=mode, cursorclass=aiomysql.SSDictCursor)
        yield driver
        assert not driver.connection.closed
        driver.wait_for(driver.connection.rollback())
        driver.wait_for(driver.connection.ensure_closed())
        driver.close()
        tables.look(driver)


def test_tables_are_made_on_a_lent_connection_without_a_transaction(
    mariadb_server: MariaDBServer, own: MariaDBDriver, namespace: str
) -> None:
    lender = MariaDBDriver.from_url(f"{mariadb_server.url_of('lending')}?prefix={namespace}_")
    with closing(connected(mariadb_server)) as connection, closing(connection.cursor()) as cursor:
        borrowed = lender.borrow(connection)
        assert not borrowed.is_set_up()
        cursor.execute("CREATE TEMPORARY TABLE mine (x INT)")
        cursor.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(ConfigurationError, match="commit it first"):
            borrowed.setup()
        connection.rollback()
        borrowed.setup()
        record = started(borrowed)
        connection.commit()
        assert loaded(borrowed, record.digest, START).sid == record.sid
        connection.commit()
        borrowed.tear_down()
        assert not borrowed.is_set_up()
    lender.close()


def test_a_missing_table_is_told_with_the_remedy(mariadb_server: MariaDBServer, own: Driver, namespace: str) -> None:
    lender = MariaDBDriver.from_url(f"{mariadb_server.url_of('lending')}?prefix={namespace}_")
    with (
        closing(connected(mariadb_server)) as connection,
        pytest.raises(ConfigurationError, match="coatcheck init URL"),
    ):
        started(lender.borrow(connection))


@pytest.fixture
def late(mariadb_server: MariaDBServer, own: Driver, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connection in a mode, and a way to save and to read a session that another request changed meanwhile."""
    if mariadb_server.is_mysql and request.param == "snapshot isolation":
        pytest.skip("MySQL has no such mode")
    manager = SessionManager(own)
    session = manager.open(())
    session["cart"] = {"hat": 1}
    cookie = (manager.save(session).set_cookie or "").partition(";")[0]
    with closing(connected(mariadb_server)) as connection, closing(connection.cursor()) as cursor:
        level = request.param.replace("snapshot isolation", "REPEATABLE READ")
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        if not mariadb_server.is_mysql:
            cursor.execute("SET SESSION innodb_snapshot_isolation = %s", (request.param == "snapshot isolation",))
        lent = SessionManager(own.borrow(connection))
        mine = lent.open([cookie])
        mine["cart"]["coat"] = 1
        other = manager.open([cookie])
        other["cart"]["shoe"] = 1
        manager.save(other)
        yield connection, lambda: lent.save(mine), lambda: manager.open([cookie])["cart"]


@pytest.mark.parametrize("late", ["REPEATABLE READ", "READ COMMITTED"], indirect=True)
def test_a_transaction_that_began_before_another_request_merges_with_it(late: Any) -> None:
    """Also where it goes on seeing what was stored when it began."""
    connection, save, cart = late
    save()
    connection.commit()
    assert cart() == {"hat": 1, "coat": 1, "shoe": 1}


@pytest.mark.parametrize("late", ["snapshot isolation"], indirect=True)
def test_a_transaction_that_may_not_see_what_is_newer_is_refused(late: Any) -> None:
    """As newer MariaDB servers have it by themselves."""
    connection, save, cart = late
    with pytest.raises(DriverUnavailable, match="rolled back and begun again") as caught:
        save()
    assert not caught.value.outcome_unknown
    connection.rollback()
    assert cart() == {"hat": 1, "shoe": 1}


@pytest.mark.parametrize("level", ["REPEATABLE READ", "READ COMMITTED"])
@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_logout_follows_a_rotation_that_its_transaction_does_not_see(
    mariadb_server: MariaDBServer, own: Driver, level: str, grace: float
) -> None:
    record, heir = started(own, user="ann"), digest()
    with closing(connected(mariadb_server)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        if not mariadb_server.is_mysql:
            cursor.execute("SET SESSION innodb_snapshot_isolation = 0")
        cursor.execute("SELECT COUNT(*) FROM coatcheck_meta")
        committed(own.rotate(record.digest, heir, Delta(), grace, START))
        assert own.borrow(connection).revoke(record.digest, START)
        connection.commit()
    assert own.load(heir, START) == Missing(Reason.REVOKED)


def test_a_connection_whose_answers_are_cut_short(mariadb_server: MariaDBServer, own: Driver) -> None:
    """Everything is read and ended all the same."""
    who = user()
    records = [started(own, user=who, values={A: b"a", B: b"b", ("", "c"): b"c"}) for _ in range(3)]
    with closing(connected(mariadb_server, init_command="SET SESSION sql_select_limit = 1")) as connection:
        lent = own.borrow(connection)
        assert len(loaded(lent, records[0].digest, START).values) == 3
        assert len(lent.sessions_of(who, START)) == 3
        assert lent.missing([record.sid for record in records], START) == set()
        change = Delta(
            increments={("", "n"): 1}, puts={A: Put(b"x", loaded(own, records[0].digest, START).values[A].version)}
        )
        committed(lent.commit(records[0].digest, change, START))
        assert lent.revoke_user(who, START) == 3
        connection.commit()
    assert all(isinstance(own.load(record.digest, START), Missing) for record in records)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "READ COMMITTED"])
def test_sessions_that_begin_at_the_same_moment(mariadb_server: MariaDBServer, own: Driver, level: str) -> None:
    """They do not get into each other's way, also where looking for what is not there would lock the gap around it."""
    mode = {"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"}
    gate = threading.Barrier(8)

    def begin(_: int) -> None:
        with closing(connected(mariadb_server, **mode)) as connection:
            borrowed = own.borrow(connection)
            for _ in range(15):
                gate.wait(120)
                record = make_record(values={A: b"1"})
                committed(borrowed.create(record, START))
                gate.wait(120)
                connection.commit()
                assert loaded(own, record.digest, START).values[A].data == b"1"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))


def test_a_crowd_on_lent_connections_loses_nothing(mariadb_server: MariaDBServer, own: Driver) -> None:
    """Eight threads, a hundred transactions each, with a row of the application's, at READ COMMITTED."""
    turns, crowd = 100, 8
    manager = SessionManager(own)
    session = manager.open(())
    session.update(items=[], begun=True)
    cookie = (manager.save(session).set_cookie or "").partition(";")[0]
    with closing(connected(mariadb_server)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("CREATE TABLE orders (thread INT, turn INT)")

    def work(number: int) -> int:
        again = 0
        mode = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        with (
            closing(connected(mariadb_server, init_command=mode)) as connection,
            closing(connection.cursor()) as cursor,
        ):
            lent = SessionManager(own.borrow(connection))
            turn = 0
            while turn < turns:
                try:
                    cursor.execute("INSERT INTO orders VALUES (%s, %s)", (number, turn))
                    mine = lent.open([cookie])
                    mine["items"].append(number * 1000 + turn)
                    time.sleep(0.003)
                    mine[f"{number}-{turn}"] = turn
                    mine.increment("count")
                    assert lent.save(mine).set_cookie is None
                    connection.commit()
                except (DriverUnavailable, pymysql.Error):  # as an application does: the transaction from its beginning
                    connection.rollback()
                    again += 1
                else:
                    turn += 1
        return again

    with ThreadPoolExecutor(crowd) as pool:
        again = sum(pool.map(work, range(crowd)))
    found = dict(manager.open([cookie]))
    assert found.pop("begun")
    assert found.pop("count") == crowd * turns
    assert sorted(found.pop("items")) == [number * 1000 + turn for number in range(crowd) for turn in range(turns)]
    assert found == {f"{number}-{turn}": turn for number in range(crowd) for turn in range(turns)}
    assert again == 0
    with closing(connected(mariadb_server)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT COUNT(DISTINCT thread, turn), COUNT(*) FROM orders")
        assert cursor.fetchone() == (crowd * turns, crowd * turns)


def test_a_deadlock_is_for_the_application_to_answer(mariadb_server: MariaDBServer, own: Driver) -> None:
    """Two transactions that write two sessions, each in another order: one is told to begin anew, the other is done."""
    first, second = started(own), started(own)
    gate = threading.Barrier(2)

    def work(order: tuple[Any, Any]) -> str:
        with closing(connected(mariadb_server)) as connection:
            borrowed = own.borrow(connection)
            committed(borrowed.commit(order[0].digest, puts({A: b"x"}), START))
            gate.wait(120)
            try:
                committed(borrowed.commit(order[1].digest, puts({B: b"x"}), START))
            except DriverUnavailable as error:
                connection.rollback()
                return str(error)
            connection.commit()
            return "done"

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(work, [(first, second), (second, first)]))
    assert said[0] == "done"
    assert "a deadlock" in said[1]
    assert "rolled back and begun again" in said[1]


def test_a_cancelled_task_costs_the_lent_connection(mariadb_server: MariaDBServer, own: Driver) -> None:
    """The application's own commit says so, and nothing of its transaction is kept."""
    held, new = started(own), make_record()

    async def work() -> None:
        server = mariadb_server
        where = {"host": server.host, "port": server.port, "db": "lending"}
        connection = await aiomysql.connect(**where, user=server.user, password=server.password)
        lent = AsyncMariaDBDriver.from_url(server.url_of("lending")).borrow(connection)
        committed(await lent.create(new, START))
        task = asyncio.create_task(lent.commit(held.digest, puts({A: b"x"}), START))
        await asyncio.to_thread(wait_until, lambda: server.lock_waits() == 1, "a wait for a lock", 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(aiomysql.InterfaceError, match="Cancelled during execution"):
            await connection.commit()

    mode = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"  # which locks the row, and not what is beside it
    with closing(connected(mariadb_server, init_command=mode)) as other, closing(other.cursor()) as cursor:
        cursor.execute("SELECT id FROM coatcheck_session WHERE digest = %s FOR UPDATE", (held.digest,))
        asyncio.run(asyncio.wait_for(work(), 20))
        other.rollback()
    assert own.load(new.digest, START) == Missing(Reason.UNKNOWN)
    assert loaded(own, held.digest, START).values == {}


def test_what_else_cannot_be_lent(mariadb_server: MariaDBServer, own: MariaDBDriver) -> None:
    asynchronous = AsyncMariaDBDriver.from_url(mariadb_server.url_of("lending"))
    with closing(connected(mariadb_server)) as connection:
        with pytest.raises(ConfigurationError, match=r"borrows a aiomysql\.connection\.Connection"):
            asynchronous.borrow(connection)
        with pytest.raises(UnsupportedCapability):
            own.borrow(connection).borrow(connection)
        connection.close()
        with pytest.raises(DriverUnavailable, match="the connection is lost"):
            own.borrow(connection).load(bytes(32), START)
        with pytest.raises(DriverUnavailable, match="the connection is lost"):
            own.borrow(connection).commit(bytes(32), Delta(increments={A: 1}), START)
        connection.connect()
