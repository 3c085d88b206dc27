"""Settings that an operator, a role, `init_connect` or another client of a pool leaves on a connection of ours.

Whatever they are, what is acknowledged is stored, or else there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg
import pytest
from testservers import MariaDBServer, PgBouncer, PostgreSQLServer

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import modes
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Delta, Missing, Put, Reason, Record, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("\u00e4\u20ac", "b\\'\"")
N: Final[ValueKey] = ("", "n")
BYTES: Final = b"\\'\0\xff \\134"

pytestmark = pytest.mark.server


def opened(url: str, way: str) -> Driver:
    return open_driver(url) if way == "sync" else Blocking(open_async_driver(url))


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def live(driver: Driver, other: Driver) -> None:
    """Do everything by *driver*, and see by *other* after each answer that it is done."""
    who = user()
    record = make_record(START + 1 / 3, user=who, values={A: BYTES, B: b"", N: -5})
    committed(driver.create(record, START))
    found = loaded(other, record.digest, START)
    assert (found.created, found.user) == (START + 1 / 3, who)
    assert {name: value.data for name, value in found.values.items()} == {A: BYTES, B: b"", N: -5}
    assert loaded(driver, record.digest, START) == found
    changes: dict[str, tuple[Delta, Callable[[Record], object], object]] = {
        "put": (puts({A: b"1"}), lambda record: record.values[A].data, b"1"),
        "two puts": (puts({A: b"2", B: BYTES}), lambda record: record.values[B].data, BYTES),
        "increment": (Delta(increments={N: 7}), lambda record: record.values[N].data, 2),
        "touch": (Delta(touch=START + 2), lambda record: record.seen, START + 2),
        "deadline": (Delta(deadline=START + 90.1), lambda record: record.deadline, START + 90.1),
        "mixed": (Delta(puts={A: Put(b"3")}, increments={N: 1}), lambda record: record.values[N].data, 3),
        "drop": (Delta(drops={B: None}), lambda record: B in record.values, False),
        "clear": (Delta(clear_all=True), lambda record: dict(record.values), {}),
        "log-in": (Delta(user=who, auth_time=START + 3), lambda record: record.auth_time, START + 3),
    }
    for name, (delta, look, wanted) in changes.items():
        committed(driver.commit(record.digest, delta, START + 2))
        assert look(loaded(other, record.digest, START + 2)) == wanted, name
    base = committed(driver.commit(record.digest, puts({A: b"4"}), START + 2)).version
    committed(driver.commit(record.digest, puts({A: b"5"}, base), START + 2))
    assert loaded(other, record.digest, START + 2).values[A].data == b"5"
    new = digest()
    committed(driver.rotate(record.digest, new, Delta(), 0, START + 2))
    assert loaded(other, new, START + 2).sid == record.sid
    second = started(driver, user=who)
    assert isinstance(driver.create(make_record(digest_=second.digest), START), type(driver.create(second, START)))
    assert driver.revoke(new, START + 4)
    assert other.load(new, START + 4) == Missing(Reason.REVOKED)
    assert driver.revoke_user(who, START + 4) == 1
    assert other.load(second.digest, START + 4) == Missing(Reason.REVOKED)
    old = started(driver)
    assert driver.sweep(START + 10**7, 10**6) >= 1
    assert not other.is_set_up() or isinstance(other.load(old.digest, START), Missing)


# MariaDB and MySQL: what is said by `SET GLOBAL`, and what `init_connect` says to those who have no SUPER

GLOBAL: Final = {
    "autocommit": "0",
    "completion_type": "'CHAIN'",
    "sql_mode": "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION'",
    "sql_select_limit": "1",
    "sql_safe_updates": "1",
    "time_zone": "'-11:00'",
    "unique_checks": "0",
    "innodb_lock_wait_timeout": "1",
    "lock_wait_timeout": "1",
    "character_set_server": "latin1",
}
FIRST: Final = (
    "SET autocommit = 0",
    "SET autocommit = 0, sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,IGNORE_SPACE', NAMES latin1",
    "SET completion_type = 'CHAIN'",
    "SET completion_type = 'RELEASE'",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    "SET sql_auto_is_null = 1, sql_safe_updates = 1, sql_select_limit = 0",
    "SET foreign_key_checks = 0, unique_checks = 0",
    "BEGIN",
)


@contextmanager
def set_on(server: MariaDBServer, name: str, value: str) -> Iterator[None]:
    before = server.sql(f"SELECT @@GLOBAL.{name}").rstrip("\n")
    server.sql(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        server.sql(f"SET GLOBAL {name} = {before if before.isdigit() else repr(before)}")


@pytest.fixture
def mariadb(mariadb_server: MariaDBServer) -> Iterator[tuple[str, Driver]]:
    """A URL, and a driver whose connection is there already."""
    url = mariadb_server.create_database("settings")
    with closing(open_driver(url)) as other:
        other.setup()
        yield url, other


@pytest.mark.parametrize("name", GLOBAL)
def test_a_global_setting_of_mariadb(
    mariadb_server: MariaDBServer, mariadb: tuple[str, Driver], way: str, name: str
) -> None:
    url, other = mariadb
    with set_on(mariadb_server, name, GLOBAL[name]), closing(opened(url, way)) as driver:
        live(driver, other)


@pytest.mark.parametrize("first", FIRST)
def test_what_init_connect_says(
    mariadb_server: MariaDBServer, mariadb: tuple[str, Driver], way: str, first: str
) -> None:
    url, other = mariadb
    with set_on(mariadb_server, "init_connect", repr(first)), closing(opened(url, way)) as driver:
        live(driver, other)


@pytest.mark.parametrize("first", ["SET SESSION TRANSACTION READ ONLY"])
def test_what_init_connect_forbids_is_an_error(
    mariadb_server: MariaDBServer, mariadb: tuple[str, Driver], way: str, first: str
) -> None:
    url, other = mariadb
    record = started(other, values={A: b"a"})
    with set_on(mariadb_server, "init_connect", repr(first)), closing(opened(url, way)) as driver:
        loaded(driver, record.digest, START)
        for delta in (puts({A: b"x"}), Delta(touch=START, drops={A: None})):
            with pytest.raises(DriverUnavailable, match="read-only") as caught:
                driver.commit(record.digest, delta, START)
            assert not caught.value.outcome_unknown
    assert loaded(other, record.digest, START).values[A].data == b"a"


def test_a_connection_to_mariadb_takes_few_round_trips_to_be_ours(mariadb: tuple[str, Driver], way: str) -> None:
    asked: list[list[str]] = []
    url, _ = mariadb
    with closing(opened(url, way)) as driver:
        inner: Any = driver.driver if isinstance(driver, Blocking) else driver
        client, ask = inner._client, inner._client._ask

        def watched(connection: Any, packet: Any, *more: Any) -> Any:
            asked.append([statement.text.split()[0] for statement in packet])
            return ask(connection, packet, *more)

        client._ask = watched
        driver.load(digest(), START)
    assert asked[:2] == [["SET", "SET", "SHOW"], ["SELECT"]]


def test_a_setting_that_mariadb_does_not_keep_to(
    mariadb_server: MariaDBServer, mariadb: tuple[str, Driver], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a proxy that answers SET by itself: the server is asked, and not the client's flag."""
    url, _ = mariadb
    monkeypatch.delitem(modes._SET, "autocommit")
    with (
        set_on(mariadb_server, "init_connect", repr("SET autocommit = 0")),
        closing(opened(url, way)) as driver,
        pytest.raises(DriverUnavailable, match="autocommit is OFF on a connection that was just set to ON"),
    ):
        driver.load(digest(), START)


def test_a_change_that_leaves_a_transaction_open_is_an_error(
    mariadb_server: MariaDBServer, mariadb: tuple[str, Driver], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing of the above was noticed."""
    url, other = mariadb
    record = started(other, values={A: b"a"})
    monkeypatch.delitem(modes._SET, "autocommit")
    monkeypatch.delitem(modes._NEEDED, "autocommit")
    with set_on(mariadb_server, "init_connect", repr("SET autocommit = 0")), closing(opened(url, way)) as driver:
        for delta in (puts({A: b"x"}), puts({A: b"x", B: b"x"}), Delta(increments={N: 1}), Delta(touch=START + 1)):
            with pytest.raises(DriverUnavailable, match="left a transaction open") as caught:
                driver.commit(record.digest, delta, START)
            assert not caught.value.outcome_unknown
        committed(driver.commit(record.digest, Delta(puts={A: Put(b"y")}, increments={N: 1}), START))
    assert loaded(other, record.digest, START).values[A].data == b"y"


# PostgreSQL: what a database or a role says, and what another client of a pool left on the server's connection

RIGHT: Final = {
    "bytea_output": "escape",
    "client_encoding": "latin1",
    "datestyle": "'SQL, DMY'",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "'serializable'",
    "escape_string_warning": "off",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "'1ms'",
    "intervalstyle": "iso_8601",
    "lock_timeout": "'1ms'",
    "plan_cache_mode": "force_generic_plan",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "timezone": "'Asia/Kathmandu'",
    "transform_null_equals": "on",
    "xmloption": "document",
}
KEPT_BY_PGBOUNCER: Final = {"client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
"""What it sets for each client anew."""


@pytest.fixture
def postgresql(postgresql_server: PostgreSQLServer, namespace: str) -> Iterator[tuple[str, Driver]]:
    """The name of a database of its own, and a driver whose connection is there already."""
    with closing(open_driver(postgresql_server.create_database(namespace))) as other:
        other.setup()
        yield namespace, other
    postgresql_server.sql(f'DROP DATABASE "{namespace}" WITH (FORCE)', database="postgres")


@pytest.mark.parametrize(
    ("by_pool", "whose"),
    [
        (False, "DATABASE {0}"),
        (False, "ROLE coatcheck IN DATABASE {0}"),
        (True, "ROLE coatcheck IN DATABASE {0}"),
        (True, "another client"),
    ],
)
def test_settings_of_postgresql(
    postgresql: tuple[str, Driver],
    pgbouncer: PgBouncer,
    way: str,
    by_pool: bool,  # noqa: FBT001 (a parameter)
    whose: str,
) -> None:
    """All at once."""
    database, other = postgresql
    server = pgbouncer.server
    url = pgbouncer.url_of(database) if by_pool else server.url_of(database)
    if whose == "another client":
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            for name in RIGHT.keys() - KEPT_BY_PGBOUNCER:
                connection.execute(f"SET {name} = {RIGHT[name]}".encode())
    else:
        alter = f"ALTER {whose.format(database)} SET"
        server.sql("; ".join(f"{alter} {name} = {value}" for name, value in RIGHT.items()), database="postgres")
    with closing(opened(url, way)) as driver:
        live(driver, other)


@pytest.mark.parametrize("by_pool", [False, True], ids=["direct", "pgbouncer"])
def test_what_postgresql_forbids_is_an_error(
    postgresql: tuple[str, Driver],
    pgbouncer: PgBouncer,
    way: str,
    by_pool: bool,  # noqa: FBT001 (a parameter)
) -> None:
    database, other = postgresql
    record = started(other, values={A: b"a"})
    server = pgbouncer.server
    server.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on", database="postgres")
    with closing(opened(pgbouncer.url_of(database) if by_pool else server.url_of(database), way)) as driver:
        loaded(driver, record.digest, START)
        for delta in (puts({A: b"x"}), Delta(touch=START, drops={A: None})):
            with pytest.raises(DriverUnavailable, match="read-only") as caught:
                driver.commit(record.digest, delta, START)
            assert not caught.value.outcome_unknown
    assert loaded(other, record.digest, START).values[A].data == b"a"
    assert isinstance(other.commit(record.digest, puts({A: b"x"}), START), Committed)
