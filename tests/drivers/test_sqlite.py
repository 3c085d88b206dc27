"""SQLite: what is stored, damaged rows, prefixes and schema versions."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coatcheck.drivers.base import Capability, Driver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import (
    ConfigurationError,
    CounterOverflow,
    DriverUnavailable,
)
from coatcheck.record import (
    ABSENT,
    COUNTER_MAX,
    NEVER,
    TOMBSTONE,
    USER_FENCE,
    Committed,
    Delta,
    Gone,
    Missing,
    Put,
    Reason,
    Record,
)
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started

A = ("", "a")
B = ("", "b")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SQLiteDriver]:
    driver = SQLiteDriver(tmp_path / "sessions.db")
    yield driver
    driver.close()


@pytest.fixture
def raw(driver: SQLiteDriver) -> Iterator[sqlite3.Connection]:
    driver.setup()
    connection = sqlite3.connect(driver.path, isolation_level=None)
    yield connection
    connection.close()


def rows(raw: sqlite3.Connection, table: str) -> int:
    return int(raw.execute(f"SELECT count(*) FROM coatcheck_{table}").fetchone()[0])  # noqa: S608 (a constant)


def test_a_sweep_leaves_no_values_tombstones_or_fences(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    for _ in range(3):
        started(driver, values={A: b"a", B: 1})
    driver.revoke(digest(), START)
    driver.revoke_user("ann", START)
    assert (rows(raw, "value"), rows(raw, "ended"), rows(raw, "fence")) == (6, 1, 1)
    assert driver.sweep(START + max(TOMBSTONE, USER_FENCE, 600), 100) == 3
    assert [rows(raw, table) for table in ("session", "value", "ended", "fence")] == [0, 0, 0, 0]


def test_a_sweep_with_nothing_to_do_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    driver = SQLiteDriver(tmp_path / "s.db", timeout=0)
    started(driver)
    other = sqlite3.connect(driver.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert driver.sweep(START, 100) == 0
    other.execute("ROLLBACK")
    other.close()
    driver.close()


def test_ended_sessions_leave_no_values(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    one, two = (started(driver, user="ann", values={A: b"a"}) for _ in range(2))
    driver.revoke(one.digest, START)
    assert rows(raw, "value") == 1
    driver.revoke_user("ann", START)
    assert (rows(raw, "value"), rows(raw, "session")) == (0, 0)
    assert isinstance(driver.load(two.digest, START), Missing)


def test_tombstones_fences_and_graces_end(driver: SQLiteDriver) -> None:
    revoked, rotated = started(driver), started(driver)
    new = digest()
    driver.revoke(revoked.digest, START)
    driver.revoke_user("ann", START)
    committed(driver.rotate(rotated.digest, new, Delta(), 30, START))
    committed(driver.commit(new, Delta(), START))
    assert driver.load(revoked.digest, START + TOMBSTONE) == Missing(Reason.UNKNOWN)
    assert driver.load(rotated.digest, START + 30) == Missing(Reason.ROTATED)
    assert driver.load(rotated.digest, START + 30 + TOMBSTONE) == Missing(Reason.UNKNOWN)
    assert driver.commit(rotated.digest, Delta(), START + 30 + TOMBSTONE) == Gone(Reason.UNKNOWN)
    committed(driver.create(make_record(START, user="ann", idle=NEVER), START + USER_FENCE))


def test_a_reused_row_number_inherits_nothing(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    record = started(driver, values={A: b"of the first"})
    raw.execute("DELETE FROM coatcheck_session WHERE digest = ?", (record.digest,))
    assert dict(started(driver, values={B: b"own"}).values).keys() == {B}


def test_no_token_is_stored(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    record = started(driver)
    stored = raw.execute("SELECT digest, typeof(digest) FROM coatcheck_session").fetchone()
    assert stored == (record.digest, "blob")


def test_a_put_changes_one_row(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    record = started(driver, values={("", str(n)): b"x" * 100 for n in range(200)})
    before = raw.execute("SELECT * FROM coatcheck_session").fetchall()
    done = committed(driver.commit(record.digest, puts({A: b"new"}), START))
    assert raw.execute("SELECT * FROM coatcheck_session").fetchall() == before
    changed = raw.execute("SELECT key FROM coatcheck_value WHERE version = ?", (done.version,)).fetchall()
    assert changed == [("a",)]


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("sid", b"\xff\xfe"), ("created", "yesterday"), ("seen", b"soon"), ("deadline", "x"), ("idle", "x"),
        ("absolute", b""), ("user", b"ann"), ("auth_time", "x"), ("rotated", "x"), ("prior_until", "x"),
    ],
)  # fmt: skip
def test_a_spoilt_row_is_unreadable(driver: SQLiteDriver, raw: sqlite3.Connection, column: str, bad: object) -> None:
    record = started(driver)
    raw.execute(f"UPDATE coatcheck_session SET {column} = ?", (bad,))  # noqa: S608 (a constant)
    assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
    delta = Delta(puts={A: Put(b"x"), B: Put(b"y")})
    assert driver.commit(record.digest, delta, START) == Gone(Reason.UNREADABLE)
    assert driver.rotate(record.digest, digest(), delta, 0, START) == Gone(Reason.UNREADABLE)
    assert driver.sessions_of("ann", START) == []
    assert not driver.revoke(record.digest, START)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)


def test_text_that_is_no_utf8_is_unreadable(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    record = started(driver)
    raw.execute("UPDATE coatcheck_session SET sid = CAST(x'ff' AS TEXT)")
    assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)


@pytest.mark.parametrize("bad", ["text", 1.5, None])
def test_a_spoilt_value_is_missing_and_can_be_replaced(
    driver: SQLiteDriver, raw: sqlite3.Connection, bad: object
) -> None:
    for delta, data in (
        (puts({A: b"new"}), b"new"),
        (puts({A: b"new"}, ABSENT), b"new"),
        (Delta(increments={A: 3}), 3),
    ):
        record = started(driver, values={A: b"a", B: b"b"})
        raw.execute("UPDATE coatcheck_value SET data = ? WHERE key = 'a'", (bad,))
        assert dict(loaded(driver, record.digest, START).values).keys() == {B}
        committed(driver.commit(record.digest, delta, START))
        assert loaded(driver, record.digest, START).values[A].data == data


def test_a_put_beyond_64_bits_is_an_error(driver: SQLiteDriver) -> None:
    record = started(driver)
    for more in ({}, {B: Put(b"b")}):
        with pytest.raises(CounterOverflow):
            driver.commit(record.digest, Delta(puts={A: Put(COUNTER_MAX + 1), **more}), START)
    assert dict(loaded(driver, record.digest, START).values) == {}


def test_prefixes_keep_environments_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    one, two = SQLiteDriver(path, prefix="shop_"), SQLiteDriver(path, prefix="blog_")
    record = started(one)
    assert two.load(record.digest, START) == Missing(Reason.UNKNOWN)
    assert two.sessions_of("ann", START) == []
    one.close()
    two.close()


def test_prefixes_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    one, two = SQLiteDriver(path, prefix="Shop_"), SQLiteDriver(path, prefix="shop_")
    one.setup()
    with pytest.raises(ConfigurationError, match="'Shop_', which differs from 'shop_' in case only"):
        two.load(digest(), START)


@pytest.mark.parametrize("prefix", ["a-b", 'a"', "a b", "\u00e4", "a;", "a\n"])
def test_a_prefix_is_an_identifier(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        SQLiteDriver("s.db", prefix=prefix)


def test_another_schema_version_is_refused(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    raw.execute("UPDATE coatcheck_meta SET value = '99' WHERE key = 'schema'")
    for use in (driver.setup, lambda: driver.load(digest(), START)):
        with pytest.raises(ConfigurationError, match="schema version 99, this coatcheck works with 1"):
            use()
    connection = sqlite3.connect(driver.path)
    with pytest.raises(ConfigurationError, match="schema version 99"):
        driver.borrow(connection).setup()
    connection.close()


def test_setup_leaves_no_connection_open(driver: SQLiteDriver) -> None:
    driver.setup()
    assert not Path(driver.path + "-wal").exists()
    driver.load(digest(), START)
    assert Path(driver.path + "-wal").exists()
    driver.close()
    assert not Path(driver.path + "-wal").exists()
    started(driver)


def test_a_token_that_died_long_ago_revokes_nothing(driver: SQLiteDriver) -> None:
    for grace in (0, 30):
        record = started(driver)
        new = digest()
        committed(driver.rotate(record.digest, new, Delta(), grace, START))
        committed(driver.commit(new, Delta(), START))
        assert not driver.revoke(record.digest, START + grace + TOMBSTONE)
        loaded(driver, new, START + grace + TOMBSTONE)


def test_asking_whether_it_is_set_up_makes_nothing(driver: SQLiteDriver) -> None:
    assert not driver.is_set_up()
    assert not Path(driver.path).exists()
    Path(driver.path).touch()
    assert not driver.is_set_up()
    assert Path(driver.path).stat().st_size == 0
    driver.setup()
    assert driver.is_set_up()
    assert not SQLiteDriver(driver.path, prefix="other_").is_set_up()
    driver.tear_down()
    assert not driver.is_set_up()
    with pytest.raises(DriverUnavailable, match="call setup"):
        driver.load(digest(), START)


def test_capabilities(driver: SQLiteDriver) -> None:
    assert {Capability.SCOPE_HOST, Capability.DURABLE, Capability.BORROWED_CONNECTION} <= driver.capabilities
    assert driver.name == "sqlite"


def test_nothing_of_a_value_is_in_an_error(driver: SQLiteDriver, raw: sqlite3.Connection) -> None:
    record = started(driver)
    raw.execute("DROP TABLE coatcheck_value")
    with pytest.raises(DriverUnavailable) as caught:
        driver.commit(record.digest, puts({A: b"treasure"}), START)
    assert "treasure" not in str(caught.value)
    assert caught.value.operation == "commit"
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert logging.getLogger("coatcheck").handlers == []


def test_never_is_far_away(driver: SQLiteDriver) -> None:
    record = make_record(idle=NEVER, absolute=NEVER, deadline=NEVER)
    assert isinstance(driver.create(record, START), Committed)
    assert isinstance(driver.load(record.digest, NEVER - 1), Record)
    typed: Driver = driver
    assert typed.rotation_bits == 0
