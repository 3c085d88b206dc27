"""Rows of MariaDB's that another program spoilt: what makes no sense is missing, and never raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from testservers import MariaDBServer

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.errors import ConfigurationError
from coatcheck.record import TOMBSTONE, USER_FENCE, Delta, Gone, Missing, Put, Reason, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
N: ValueKey = ("", "n")

DATABASE = "spoilt"

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(mariadb_server: MariaDBServer) -> str:
    return mariadb_server.create_database(DATABASE)


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest, url: str) -> Iterator[Driver]:
    driver: Driver = open_driver(url) if request.param == "sync" else Blocking(open_async_driver(url))
    driver.setup()
    with closing(driver):
        yield driver
        driver.tear_down()


def spoil(server: MariaDBServer, statement: str) -> None:
    server.sql(statement, database=DATABASE)


@pytest.mark.parametrize("column", ["app", "name"])
def test_a_name_that_is_no_text(driver: Driver, mariadb_server: MariaDBServer, column: str) -> None:
    """Its value is missing; the others are read, written and cleared."""
    record = started(driver, values={A: b"a", B: b"b", N: 1})
    spoil(mariadb_server, f"UPDATE coatcheck_value SET {column} = x'ff00ff' WHERE name = 'b'")  # noqa: S608 (no values)
    assert set(loaded(driver, record.digest, START).values) == {A, N}
    committed(driver.commit(record.digest, Delta(puts={B: Put(b"new", 0)}, increments={N: 1}), START))
    assert {name: value.data for name, value in loaded(driver, record.digest, START).values.items()} == {
        A: b"a",
        B: b"new",
        N: 2,
    }
    committed(driver.commit(record.digest, Delta(clear_all=True, spare=frozenset({A})), START))
    assert set(loaded(driver, record.digest, START).values) == {A}
    committed(driver.commit(record.digest, Delta(clears=frozenset({""}), spare=frozenset({N})), START))
    assert loaded(driver, record.digest, START).values == {}
    assert driver.revoke(record.digest, START)
    assert mariadb_server.sql("SELECT COUNT(*) FROM coatcheck_value", database=DATABASE).strip() == "0"


@pytest.mark.parametrize("how", ["data = NULL, number = NULL", "version = 0"])
def test_a_value_that_makes_no_sense(driver: Driver, mariadb_server: MariaDBServer, how: str) -> None:
    """It is missing, and the next write replaces it."""
    record = started(driver, values={A: b"a", B: b"b", N: 1})
    spoil(mariadb_server, f"UPDATE coatcheck_value SET {how} WHERE name <> 'b'")  # noqa: S608 (no values)
    assert set(loaded(driver, record.digest, START).values) == {B}
    done = committed(driver.commit(record.digest, Delta(puts={A: Put(b"new", 0)}, increments={N: 3}), START))
    assert done.counters == {N: 3}
    spoil(mariadb_server, f"UPDATE coatcheck_value SET {how} WHERE name <> 'b'")  # noqa: S608 (no values)
    committed(driver.commit(record.digest, Delta(puts={A: Put(b"new", 0)}), START))
    assert committed(driver.commit(record.digest, Delta(increments={N: 4}), START)).counters == {N: 4}
    assert {name: value.data for name, value in loaded(driver, record.digest, START).values.items()} == {
        A: b"new",
        B: b"b",
        N: 4,
    }


@pytest.mark.parametrize("column", ["sid", "username"])
def test_a_session_that_is_no_text(driver: Driver, mariadb_server: MariaDBServer, column: str) -> None:
    """It is unreadable, and can be ended."""
    record, other = started(driver, user="ann"), started(driver, user="ann")
    spoil(mariadb_server, f"UPDATE coatcheck_session SET {column} = x'ff00ff' WHERE sid = '{record.sid}'")  # noqa: S608
    assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
    for delta in (Delta(deadline=START + 9), Delta(auth_time=START), Delta(user="ben", auth_time=START)):
        assert driver.commit(record.digest, delta, START) == Gone(Reason.UNREADABLE)
    assert [info.sid for info in driver.sessions_of("ann", START)] == [other.sid]
    assert driver.missing([record.sid, other.sid], START) <= {record.sid}
    assert driver.revoke_user("ann", START) == 1
    assert not driver.revoke(record.digest, START)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)


def test_a_tombstone_that_is_no_text(driver: Driver, mariadb_server: MariaDBServer) -> None:
    """The session has ended all the same."""
    record = started(driver)
    driver.revoke(record.digest, START)
    spoil(mariadb_server, "UPDATE coatcheck_ended SET reason = x'ff00ff', sid = x'ff00ff'")
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
    assert driver.commit(record.digest, puts({A: b"a"}), START) == Gone(Reason.REVOKED)
    assert driver.create(make_record(), START) != Gone(Reason.REVOKED)
    assert not driver.revoke(record.digest, START)
    driver.sweep(START + TOMBSTONE + 1, 10)
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)


def test_a_fence_that_is_no_text(driver: Driver, mariadb_server: MariaDBServer) -> None:
    """It is swept with the others."""
    driver.revoke_user("ann", START)
    driver.revoke_user("ben", START)
    spoil(mariadb_server, "UPDATE coatcheck_fence SET username = x'ff00ff' WHERE username = 'ann'")
    driver.sweep(START + USER_FENCE + 1, 10)
    assert mariadb_server.sql("SELECT COUNT(*) FROM coatcheck_fence", database=DATABASE).strip() == "0"


def test_a_note_on_the_tables_that_is_no_text(driver: Driver, mariadb_server: MariaDBServer) -> None:
    """One of another name is left alone; a version that makes no sense is another version."""
    spoil(mariadb_server, "INSERT INTO coatcheck_meta VALUES (x'ff00ff', 'x')")
    assert driver.is_set_up()
    spoil(mariadb_server, "UPDATE coatcheck_meta SET content = x'ff00ff' WHERE name = 'schema'")
    with pytest.raises(ConfigurationError, match="schema version"):
        driver.is_set_up()
