"""Connections that the application lends: on every SQL engine its rows and its sessions land together or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from django.conf import settings
from django.core.cache import cache
from django.db import connections, transaction
from django.db.utils import ConnectionHandler
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from testservers import MariaDBServer, PostgreSQLServer

from coatcheck import SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import MariaDBDriver
from coatcheck.drivers.postgresql import PostgreSQLDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Conflict, Delta, Gone, Put, Reason, ValueKey
from coatcheck.testing import Clock, signed_in
from coatcheck.testing.helpers import START, committed, digest, loaded, puts, started, user

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")


@dataclass
class Database:
    """A database with session tables and one of the application's, `orders`.

    Attributes:
        driver: A driver of our own there.
        connect: Gives a DB-API connection.
        url: The URL for SQLAlchemy.
        django: The settings for Django.
    """

    driver: Driver
    connect: Callable[[], Any]
    url: sa.URL
    django: dict[str, Any]

    def orders(self) -> list[str]:
        """What others see of the application's table."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT item FROM orders ORDER BY item")
            return [item for (item,) in cursor.fetchall()]


def set_up_django() -> None:
    """Make a project of Django's, without applications, where the process has none yet."""
    pymysql.install_as_MySQLdb()  # what Django works with on MariaDB
    if not settings.configured:
        settings.configure()
        django.setup()


def server(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.server)


@pytest.fixture(params=["sqlite", server("postgresql"), server("mariadb")])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    made: Database = request.getfixturevalue(request.param)
    made.driver.setup()
    with closing(made.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS orders (item VARCHAR(20))")
        cursor.execute("DELETE FROM orders")
        connection.commit()
    yield made
    made.driver.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    path = tmp_path / "shop.db"
    return Database(
        SQLiteDriver(path),
        lambda: sqlite3.connect(path),
        sa.URL.create("sqlite", database=str(path)),
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)},
    )


@pytest.fixture(scope="module")
def postgresql(postgresql_server: PostgreSQLServer) -> Database:
    url = postgresql_server.create_database("lent")
    return on_server(
        postgresql_server, PostgreSQLDriver.from_url(url), lambda: psycopg.connect(url), "postgresql", "+psycopg"
    )


@pytest.fixture(scope="module")
def mariadb(mariadb_server: MariaDBServer) -> Database:
    where = {"host": mariadb_server.host, "port": mariadb_server.port, "database": "lent"}
    login = {"user": mariadb_server.user, "password": mariadb_server.password}
    driver = MariaDBDriver.from_url(mariadb_server.create_database("lent"))
    return on_server(mariadb_server, driver, lambda: pymysql.connect(**where, **login), "mysql", "+pymysql")


def on_server(server: Any, driver: Driver, connect: Callable[[], Any], kind: str, library: str) -> Database:
    """Give the database `lent` of a server."""
    url = sa.URL.create(kind + library, server.user, server.password, server.host, server.port, "lent")
    django_settings = {
        "ENGINE": f"django.db.backends.{kind}",
        "HOST": server.host,
        "PORT": server.port,
        "USER": server.user,
        "PASSWORD": server.password,
        "NAME": "lent",
    }
    return Database(driver, connect, url, django_settings)


class Lender:
    """An application with a connection, which it lends.

    Attributes:
        lent: What it hands over.
    """

    lent: Any

    def order(self, item: str) -> None:
        """Write a row of its own."""
        raise NotImplementedError

    def commit(self) -> None:
        """Commit as such an application does."""
        self.lent.commit()

    def rollback(self) -> None:
        """Roll back as such an application does."""
        self.lent.rollback()

    def close(self) -> None:
        """Be done."""
        self.lent.close()


class DBAPI(Lender):
    def __init__(self, database: Database) -> None:
        self.lent = database.connect()

    def order(self, item: str) -> None:
        with closing(self.lent.cursor()) as cursor:
            cursor.execute(f"INSERT INTO orders (item) VALUES ('{item}')")  # noqa: S608 (three words of this test)


class SQLAlchemy(Lender):
    def __init__(self, database: Database) -> None:
        self.engine = sa.create_engine(database.url)
        self.lent = self.made()

    def made(self) -> Any:
        return self.engine.connect()

    def order(self, item: str) -> None:
        self.lent.execute(sa.text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})

    def close(self) -> None:
        self.lent.close()
        self.engine.dispose()


class SQLAlchemySession(SQLAlchemy):
    def made(self) -> Any:
        return Session(self.engine)


class SQLAlchemyScopedSession(SQLAlchemy):
    def made(self) -> Any:
        return scoped_session(sessionmaker(self.engine))


class Django(Lender):
    def __init__(self, database: Database) -> None:
        set_up_django()
        self.lent = ConnectionHandler({"default": database.django})["default"]
        connections["lender"] = self.lent
        self.begin()

    def begin(self) -> None:
        self.atomic = transaction.atomic(using="lender")
        self.atomic.__enter__()

    def order(self, item: str) -> None:
        with self.lent.cursor() as cursor:
            cursor.execute("INSERT INTO orders (item) VALUES (%s)", [item])

    def commit(self) -> None:
        self.atomic.__exit__(None, None, None)
        self.begin()

    def rollback(self) -> None:
        transaction.set_rollback(True, using="lender")
        self.commit()

    def close(self) -> None:
        transaction.set_rollback(True, using="lender")
        self.atomic.__exit__(None, None, None)
        self.lent.close()
        del connections["lender"]


class DjangoProxy(Django):
    """Lends what `django.db.connection` is: something that leads to the connection of the thread."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.wrapper = self.lent
        self.lent = type(cache)(connections, "lender")


@pytest.fixture(params=[DBAPI, SQLAlchemy, SQLAlchemySession, SQLAlchemyScopedSession, Django, DjangoProxy])
def lender(request: pytest.FixtureRequest, database: Database) -> Iterator[Lender]:
    lender: Lender = request.param(database)
    yield lender
    lender.close()


def test_row_and_session_are_durable_together(database: Database, lender: Lender) -> None:
    """Nobody sees either before the application commits, and both are there afterwards."""
    record = started(database.driver)
    borrowed = database.driver.borrow(lender.lent)
    lender.order("hat")
    committed(borrowed.commit(record.digest, puts({A: b"hat"}), START))
    assert loaded(borrowed, record.digest, START).values[A].data == b"hat"
    assert database.orders() == []
    assert A not in loaded(database.driver, record.digest, START).values
    borrowed.close()
    lender.order("coat")
    lender.commit()
    assert database.orders() == ["coat", "hat"]
    assert loaded(database.driver, record.digest, START).values[A].data == b"hat"


def test_a_rollback_undoes_both(database: Database, lender: Lender) -> None:
    record, other = started(database.driver), started(database.driver)
    borrowed = database.driver.borrow(lender.lent)
    lender.order("hat")
    committed(borrowed.commit(record.digest, Delta(puts={A: Put(b"hat")}, increments={B: 1}), START))
    assert borrowed.revoke(other.digest, START)
    mine = started(borrowed)
    lender.rollback()
    assert database.orders() == []
    assert loaded(database.driver, record.digest, START).values == {}
    assert loaded(database.driver, other.digest, START).sid == other.sid
    assert isinstance(database.driver.load(mine.digest, START), type(database.driver.load(digest(), START)))


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_new_password_and_the_end_of_all_sessions_land_together(
    database: Database, lender: Lender, outcome: str
) -> None:
    """As a manager does it, on the application's connection."""
    who, clock = user(), Clock()
    manager = SessionManager(database.driver, clock=clock)
    other = signed_in(manager, who)
    clock.advance(1)
    borrowed = database.driver.borrow(lender.lent)
    lender.order("a new password")
    assert len(manager.sessions_of(who, driver=borrowed)) == 1
    assert manager.revoke_user(who, driver=borrowed) == 1
    mine = manager.open((), driver=borrowed)
    mine.login(who)
    assert manager.save(mine, driver=borrowed).set_cookie is not None
    getattr(lender, outcome)()
    landed = outcome == "commit"
    assert database.orders() == (["a new password"] if landed else [])
    assert manager.open([other.header]).user == (None if landed else who)
    assert len(manager.sessions_of(who)) == 1


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_session_that_is_written_first_belongs_to_the_transaction(
    database: Database, lender: Lender, outcome: str
) -> None:
    """Where no transaction is open, the session's write opens the one that the application's commit ends."""
    record = started(database.driver)
    borrowed = database.driver.borrow(lender.lent)
    committed(borrowed.commit(record.digest, puts({A: b"hat"}), START))
    lender.order("hat")
    getattr(lender, outcome)()
    is_done = outcome == "commit"
    assert database.orders() == ["hat"] * is_done
    assert (A in loaded(database.driver, record.digest, START).values) is is_done


def test_a_session_alone_is_durable_by_the_applications_commit(database: Database, lender: Lender) -> None:
    record = started(database.driver)
    borrowed = database.driver.borrow(lender.lent)
    committed(borrowed.commit(record.digest, puts({A: b"hat"}), START))
    lender.commit()
    committed(borrowed.commit(record.digest, puts({B: b"hat"}), START))
    lender.rollback()
    assert set(loaded(database.driver, record.digest, START).values) == {A}


def test_a_refused_write_undoes_only_itself(database: Database, lender: Lender) -> None:
    record = started(database.driver, values={A: b"1"})
    borrowed = database.driver.borrow(lender.lent)
    lender.order("hat")
    committed(borrowed.commit(record.digest, puts({B: b"kept"}), START))
    assert borrowed.commit(record.digest, Delta(puts={A: Put(b"x", 77), B: Put(b"y")}), START) == Conflict((A,))
    assert borrowed.commit(digest(), puts({A: b"x"}), START) == Gone(Reason.UNKNOWN)
    assert borrowed.create(record, START) == Conflict()
    lender.order("coat")
    lender.commit()
    assert database.orders() == ["coat", "hat"]
    values = loaded(database.driver, record.digest, START).values
    assert {name: value.data for name, value in values.items()} == {A: b"1", B: b"kept"}


def test_django_in_autocommit_mode_is_read_and_not_written(database: Database) -> None:
    """Outside of atomic() nobody would commit what a write begins."""
    record = started(database.driver)
    lender = Django(database)
    lender.atomic.__exit__(None, None, None)
    borrowed = database.driver.borrow(lender.lent)
    assert loaded(borrowed, record.digest, START).sid == record.sid
    with pytest.raises(ConfigurationError, match=r"inside transaction\.atomic\(\)"):
        borrowed.commit(record.digest, puts({A: b"hat"}), START)
    lender.begin()
    committed(borrowed.commit(record.digest, puts({A: b"hat"}), START))
    lender.commit()
    lender.close()
    assert A in loaded(database.driver, record.digest, START).values


def test_sqlalchemy_in_autocommit_mode_is_read_and_not_written(database: Database) -> None:
    record = started(database.driver)
    engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        borrowed = database.driver.borrow(connection)
        assert loaded(borrowed, record.digest, START).sid == record.sid
        with pytest.raises(ConfigurationError, match="is not AUTOCOMMIT"):
            borrowed.commit(record.digest, puts({A: b"hat"}), START)
    engine.dispose()
    assert loaded(database.driver, record.digest, START).values == {}


def test_a_closed_connection_of_sqlalchemys_is_unavailable(database: Database) -> None:
    lender = SQLAlchemy(database)
    borrowed = database.driver.borrow(lender.lent)
    lender.close()
    with pytest.raises(DriverUnavailable, match="has no underlying connection") as caught:
        borrowed.load(digest(), START)
    assert caught.value.operation == "load"
    assert caught.value.__cause__ is not None


def test_what_cannot_be_lent_is_refused_with_the_remedy(database: Database) -> None:
    set_up_django()
    engine = sa.create_engine(database.url)
    with pytest.raises(ConfigurationError, match=r"not a sqlalchemy\.engine\.base\.Engine: .*engine\.connect"):
        database.driver.borrow(engine)
    with pytest.raises(ConfigurationError, match=r"not a django\.utils\.connection\.ConnectionProxy: hand over"):
        database.driver.borrow(cache)
    with pytest.raises(ConfigurationError, match=r"not a builtins\.NoneType"):
        database.driver.borrow(None)


def test_a_connection_to_another_kind_of_database(database: Database) -> None:
    """A wrapper does not say what is inside it before it is opened; then it is refused."""

    class Pretender:
        def cursor(self) -> None: ...
        def close(self) -> None: ...
        def rollback(self) -> None: ...

    engine = sa.create_engine(database.url, creator=Pretender, poolclass=sa.pool.NullPool, _initialize=False)
    with engine.connect() as connection, pytest.raises(ConfigurationError, match=r"Pretender inside: borrow from"):
        database.driver.borrow(connection).load(digest(), START)
