"""SQLite: sessions on the application's own connection, inside its transaction."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import (
    ConfigurationError,
    DriverUnavailable,
    NotACounter,
    UnsupportedCapability,
)
from coatcheck.record import (
    Conflict,
    Delta,
    Gone,
    Put,
    Reason,
)
from coatcheck.testing import digest
from coatcheck.testing.helpers import START, committed, loaded, puts, started

A = ("", "a")
B = ("", "b")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SQLiteDriver]:
    driver = SQLiteDriver(tmp_path / "sessions.db")
    yield driver
    driver.close()


MODES: dict[str, Callable[[str], sqlite3.Connection]] = {
    "legacy": sqlite3.connect,
    "none": lambda path: sqlite3.connect(path, isolation_level=None),
    "exclusive": lambda path: sqlite3.connect(path, isolation_level="EXCLUSIVE"),
}
if sys.version_info >= (3, 12):
    MODES["autocommit"] = lambda path: sqlite3.connect(path, autocommit=True)
    MODES["pep 249"] = lambda path: sqlite3.connect(path, autocommit=False)


@pytest.fixture(params=MODES)
def lent(request: pytest.FixtureRequest, driver: SQLiteDriver) -> Iterator[sqlite3.Connection]:
    driver.setup()
    setup = sqlite3.connect(driver.path)
    setup.execute("CREATE TABLE orders (n INTEGER)")
    setup.commit()
    setup.close()
    connection = MODES[request.param](driver.path)
    yield connection
    connection.close()


def end(connection: sqlite3.Connection, how: str) -> None:
    if connection.in_transaction:
        connection.execute(how)


def test_borrowed_writes_land_with_the_transaction(driver: SQLiteDriver, lent: sqlite3.Connection) -> None:
    record = started(driver)
    for how, kept in (("ROLLBACK", 0), ("COMMIT", 1)):
        if not lent.in_transaction:
            lent.execute("BEGIN IMMEDIATE")
        lent.execute("INSERT INTO orders VALUES (1)")
        borrowed = driver.borrow(lent)
        committed(borrowed.commit(record.digest, puts({A: b"a", B: b"b"}), START))
        committed(borrowed.commit(record.digest, Delta(increments={("", "n"): 1}), START))
        assert len(loaded(borrowed, record.digest, START).values) == 3
        assert not loaded(driver, record.digest, START).values
        assert lent.in_transaction
        borrowed.close()
        end(lent, how)
        assert len(loaded(driver, record.digest, START).values) == 3 * kept
        assert lent.execute("SELECT count(*) FROM orders").fetchone() == (kept,)
        end(lent, "ROLLBACK")


def test_a_borrowed_write_is_part_of_a_transaction_that_somebody_ends(
    driver: SQLiteDriver, lent: sqlite3.Connection
) -> None:
    """In autocommit mode nobody would, and what the application writes afterwards would be lost with it."""
    record = started(driver)
    is_alone = lent.isolation_level is None or getattr(lent, "autocommit", -1) is True
    end(lent, "ROLLBACK")
    borrowed = driver.borrow(lent)
    loaded(borrowed, record.digest, START)
    if is_alone:
        with pytest.raises(ConfigurationError, match="nothing would commit one: begin one first"):
            borrowed.commit(record.digest, puts({A: b"a"}), START)
        assert not lent.in_transaction
        lent.execute("BEGIN")
    committed(borrowed.commit(record.digest, puts({A: b"a"}), START))
    assert lent.in_transaction
    assert not loaded(driver, record.digest, START).values
    end(lent, "COMMIT")
    assert loaded(driver, record.digest, START).values[A].data == b"a"


def test_a_refused_borrowed_write_undoes_only_itself(driver: SQLiteDriver, lent: sqlite3.Connection) -> None:
    record = started(driver, values={A: b"a"})
    borrowed = driver.borrow(lent)
    if not lent.in_transaction:
        lent.execute("BEGIN IMMEDIATE")
    lent.execute("INSERT INTO orders VALUES (1)")
    committed(borrowed.commit(record.digest, puts({B: b"kept"}), START))
    assert borrowed.commit(record.digest, Delta(puts={A: Put(b"x", 77), B: Put(b"y")}), START) == Conflict((A,))
    with pytest.raises(NotACounter):
        borrowed.commit(record.digest, Delta(puts={B: Put(b"z")}, increments={A: 1}), START)
    assert borrowed.commit(digest(), puts({A: b"x"}), START) == Gone(Reason.UNKNOWN)
    end(lent, "COMMIT")
    found = loaded(driver, record.digest, START).values
    assert {name: value.data for name, value in found.items()} == {A: b"a", B: b"kept"}
    assert lent.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_borrowing_ignores_what_the_application_does_to_its_rows(driver: SQLiteDriver) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("this belongs to the application")

    for kind in ("TEXT", "REAL", "INTEGER", "BLOB"):
        sqlite3.register_converter(kind, refuse)
    try:
        record = started(driver, user="ann", values={A: b"a", B: 2})
        lent = sqlite3.connect(driver.path, detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
        lent.row_factory = refuse
        lent.text_factory = refuse
        borrowed = driver.borrow(lent)
        assert loaded(borrowed, record.digest, START) == record
        committed(borrowed.commit(record.digest, Delta(increments={B: 1}, touch=START + 1), START + 1))
        assert [info.sid for info in borrowed.sessions_of("ann", START)] == [record.sid]
        committed(borrowed.rotate(record.digest, digest(), Delta(), 30, START))
        assert borrowed.missing([record.sid], START) == set()
        assert borrowed.revoke(record.digest, START)
        assert (lent.row_factory, lent.text_factory) == (refuse, refuse)
        lent.rollback()
        lent.close()
    finally:
        for kind in ("TEXT", "REAL", "INTEGER", "BLOB"):
            del sqlite3.converters[kind]


def test_a_borrowed_database_without_tables(driver: SQLiteDriver, tmp_path: Path) -> None:
    lent = sqlite3.connect(tmp_path / "other.db")
    borrowed = driver.borrow(lent)
    with pytest.raises(DriverUnavailable, match="call setup"):
        borrowed.load(digest(), START)
    borrowed.setup()
    borrowed.setup()
    record = started(borrowed)
    lent.rollback()
    with pytest.raises(DriverUnavailable, match="call setup"):
        borrowed.load(record.digest, START)
    borrowed.setup()
    committed(borrowed.create(record, START))
    lent.commit()
    assert loaded(borrowed, record.digest, START).sid == record.sid
    lent.close()


def test_a_borrowed_transaction_on_an_old_snapshot(driver: SQLiteDriver) -> None:
    record = started(driver)
    lent = sqlite3.connect(driver.path, isolation_level=None)
    lent.execute("BEGIN")
    lent.execute("SELECT count(*) FROM coatcheck_session").fetchone()
    committed(driver.commit(record.digest, puts({A: b"a"}), START))
    with pytest.raises(DriverUnavailable, match="use BEGIN IMMEDIATE") as caught:
        driver.borrow(lent).commit(record.digest, puts({B: b"b"}), START)
    assert not caught.value.outcome_unknown
    lent.execute("ROLLBACK")
    lent.close()


def test_a_borrowed_connection_that_is_locked_out(driver: SQLiteDriver) -> None:
    record = started(driver)
    holder = sqlite3.connect(driver.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    lent = sqlite3.connect(driver.path, timeout=0.05)
    with pytest.raises(DriverUnavailable, match=r"longer than the connection's timeout: .* timeout= of the connection"):
        driver.borrow(lent).commit(record.digest, puts({A: b"a"}), START)
    lent.close()
    holder.close()


def test_borrowing_something_else(driver: SQLiteDriver, lent: sqlite3.Connection) -> None:
    with pytest.raises(ConfigurationError, match=r"borrows a sqlite3\.Connection.*, not a builtins\.str"):
        driver.borrow("connection")
    with pytest.raises(UnsupportedCapability):
        driver.borrow(lent).borrow(lent)
