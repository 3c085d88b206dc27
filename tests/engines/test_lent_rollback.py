"""The application rolls back, and saves its session again: what was undone is written anew, and nothing twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import aiomysql
import psycopg
import pymysql
import pytest
from testservers import MariaDBServer, PostgreSQLServer

from coatcheck import AsyncSessionManager, Session, SessionManager
from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.errors import SessionUnavailable


class Shop:
    """An application with a connection of its own, on a database with sessions.

    Attributes:
        manager: Its manager.
        connection: Its connection.
    """

    def __init__(self, url: str, connect: Callable[[], Any]) -> None:
        self.manager: Final = SessionManager(url)
        self.manager.driver.setup()
        self.connection: Final = connect()
        self.cookie = ""

    @property
    def lent(self) -> Any:
        return self.manager.driver.borrow(self.connection)

    def open(self) -> Session:
        return self.manager.open([self.cookie])

    def start(self, **values: Any) -> None:
        """Store a session, with the application's transaction ended."""
        session = self.manager.open([])
        session.update(values)
        self.take(self.manager.save(session).set_cookie)

    def save(self, session: Session) -> None:
        """Save on the lent connection."""
        self.take(self.manager.save(session, driver=self.lent).set_cookie)

    def take(self, cookie: str | None) -> None:
        """Keep the cookie, as a browser does."""
        if cookie is not None:
            self.cookie = cookie.partition(";")[0]

    def stored(self) -> dict[str, Any]:
        """What another request finds."""
        return dict(self.open())


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in ("postgresql", "mariadb"))]
)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param == "sqlite":
        path = tmp_path / "shop.db"
        made = Shop(f"sqlite:///{path}", lambda: sqlite3.connect(path))
    elif request.param == "postgresql":
        postgresql: PostgreSQLServer = request.getfixturevalue("postgresql_server")
        url = postgresql.create_database(request.getfixturevalue("namespace"))
        made = Shop(url, lambda: psycopg.connect(url))
    else:
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        database = request.getfixturevalue("namespace")
        login = {"user": mariadb.user, "password": mariadb.password, "database": database}
        url = mariadb.create_database(database)
        made = Shop(url, lambda: pymysql.connect(host=mariadb.host, port=mariadb.port, **login))
    yield made
    made.connection.close()
    made.manager.driver.tear_down()
    made.manager.close()


def append(session: Session) -> None:
    session["cart"].append("hat")


def assign(session: Session) -> None:
    session["name"] = "ada"


def count(session: Session) -> None:
    assert session["n"] == 5
    session.increment("n", 2)


def count_what_is_new(session: Session) -> None:
    assert "visits" not in session
    session.increment("visits")


def drop(session: Session) -> None:
    del session["name"]


def only_clear(session: Session) -> None:
    assert session["n"] == 5
    session.clear()


def set_an_end(session: Session) -> None:
    session.expire_at(4102444800.0)


def clear(session: Session) -> None:
    session.clear()
    session["begun"] = True


def log_in(session: Session) -> None:
    session.login("ada", keep=["cart", "n", "name"])
    session["welcome"] = 1


def everything(session: Session) -> None:
    append(session)
    count(session)
    assign(session)


START: Final = {"cart": ["coat"], "n": 5, "name": "bob"}
CHANGES: Final[dict[str, tuple[Callable[[Session], None], dict[str, Any]]]] = {
    "append": (append, START | {"cart": ["coat", "hat"]}),
    "assign": (assign, START | {"name": "ada"}),
    "count": (count, START | {"n": 7}),
    "count what is new": (count_what_is_new, START | {"visits": 1}),
    "drop": (drop, {"cart": ["coat"], "n": 5}),
    "clear": (clear, {"begun": True}),
    "only clear": (only_clear, {}),
    "set an end": (set_an_end, START),
    "log in": (log_in, START | {"welcome": 1}),
    "everything": (everything, {"cart": ["coat", "hat"], "n": 7, "name": "ada"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_rolled_back_is_saved_again(shop: Shop, name: str) -> None:
    change, wanted = CHANGES[name]
    shop.start(**START)
    before = shop.cookie
    session = shop.open()
    change(session)
    shop.save(session)
    shop.connection.rollback()
    assert dict(shop.manager.open([before])) == START
    for _ in range(2):  # rolled back once more
        shop.save(session)
        shop.connection.rollback()
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == wanted
    assert shop.open().user == ("ada" if name == "log in" else None)
    assert (shop.cookie != before) is (name == "log in")


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_committed_is_not_saved_again(shop: Shop, name: str) -> None:
    change, wanted = CHANGES[name]
    shop.start(**START)
    session = shop.open()
    change(session)
    shop.save(session)
    shop.connection.commit()
    cookie = shop.cookie
    for _ in range(3):
        shop.save(session)
        shop.connection.commit()
    assert shop.stored() == wanted
    assert shop.cookie == cookie


def test_a_new_session(shop: Shop) -> None:
    session = shop.manager.open([])
    session["cart"] = ["hat"]
    shop.save(session)
    shop.connection.rollback()
    assert shop.stored() == {}
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == {"cart": ["hat"]}


def test_a_log_out(shop: Shop) -> None:
    shop.start(**START)
    cookie = shop.cookie
    session = shop.open()
    session.logout()
    shop.save(session)
    shop.connection.rollback()
    assert dict(shop.manager.open([cookie])) == START
    shop.save(session)
    shop.connection.commit()
    assert dict(shop.manager.open([cookie])) == {}
    shop.save(session)
    assert dict(shop.manager.open([cookie])) == {}


def test_several_saves_of_one_transaction_go_together(shop: Shop) -> None:
    shop.start(**START)
    session = shop.open()
    append(session)
    shop.save(session)
    count(session)
    shop.save(session)
    shop.connection.rollback()
    assign(session)
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == {"cart": ["coat", "hat"], "n": 7, "name": "ada"}


def test_only_the_transaction_that_was_rolled_back_is_done_again(shop: Shop) -> None:
    shop.start(**START)
    session = shop.open()
    append(session)
    shop.save(session)
    shop.connection.commit()
    count(session)
    shop.save(session)
    shop.connection.rollback()
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == START | {"cart": ["coat", "hat"], "n": 7}


def test_a_save_that_wrote_nothing_hides_none_before_it(shop: Shop) -> None:
    shop.start(**START)
    session = shop.open()
    assign(session)
    shop.save(session)
    assign(session)  # as it is by now
    shop.save(session)
    shop.connection.rollback()
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == START | {"name": "ada"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_another_request_changes_something_else_meanwhile(shop: Shop, end: str) -> None:
    shop.start(**START)
    session = shop.open()
    append(session)
    shop.save(session)
    getattr(shop.connection, end)()
    other = shop.open()
    other["colour"] = "red"
    shop.manager.save(other)
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == START | {"cart": ["coat", "hat"], "colour": "red"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_another_request_changes_the_same_meanwhile(shop: Shop, end: str) -> None:
    """Then nobody can tell what became of the first save: that is an error, and nothing is done twice."""
    shop.start(**START)
    session = shop.open()
    append(session)
    shop.save(session)
    getattr(shop.connection, end)()
    other = shop.open()
    other["cart"].append("shoe")
    shop.manager.save(other)
    with pytest.raises(SessionUnavailable, match="open the session again"):
        shop.save(session)
    shop.connection.rollback()
    assert shop.stored()["cart"] == (["coat", "hat", "shoe"] if end == "commit" else ["coat", "shoe"])


def test_a_count_without_a_look_is_not_guessed_at(shop: Shop) -> None:
    shop.start(**START)
    session = shop.open()
    session.increment("n")
    shop.save(session)
    shop.connection.rollback()
    with pytest.raises(SessionUnavailable, match="open the session again"):
        shop.save(session)
    shop.connection.rollback()
    assert shop.stored() == START


def test_a_clear_without_a_look_is_not_guessed_at(shop: Shop) -> None:
    """Others may have written since."""
    for end in ("commit", "rollback"):
        shop.start(**START)
        session = shop.open()
        session.clear()
        shop.save(session)
        getattr(shop.connection, end)()
        other = shop.open()
        other["colour"] = "red"
        shop.manager.save(other)
        with pytest.raises(SessionUnavailable, match="open the session again"):
            shop.save(session)
        shop.connection.rollback()
        assert shop.stored() == {"colour": "red"} | (START if end == "rollback" else {})


def test_a_save_on_a_connection_of_our_own_in_between(shop: Shop) -> None:
    """It goes on from what it believes, as it always did; what comes later is looked after again."""
    shop.start(**START)
    session = shop.open()
    append(session)
    shop.save(session)
    shop.connection.commit()
    assign(session)
    shop.manager.save(session)
    count(session)
    shop.save(session)
    shop.connection.rollback()
    shop.save(session)
    shop.connection.commit()
    assert shop.stored() == {"cart": ["coat", "hat"], "n": 7, "name": "ada"}


@pytest.mark.server
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_asynchronous(kind: str, request: pytest.FixtureRequest, namespace: str) -> None:

    server: Any = request.getfixturevalue(f"{kind}_server")
    url = server.create_database(namespace)
    with closing(open_driver(url)) as driver:
        driver.setup()

    async def connect() -> Any:
        if kind == "postgresql":
            return await psycopg.AsyncConnection.connect(url)
        login = {"user": server.user, "password": server.password, "db": namespace}
        return await aiomysql.connect(host=server.host, port=server.port, **login)

    async def work() -> list[str]:
        manager = AsyncSessionManager(open_async_driver(url))
        connection = await connect()
        session = manager.open([])
        session["cart"] = ["coat"]
        cookie = ((await manager.save(session)).set_cookie or "").partition(";")[0]
        session = manager.open([cookie])
        await session.load()
        session["cart"].append("hat")
        lent = manager.driver.borrow(connection)
        await manager.save(session, driver=lent)
        await connection.rollback()
        await manager.save(session, driver=lent)
        await connection.commit()
        await manager.save(session, driver=lent)
        await connection.commit()
        after = manager.open([cookie])
        await after.load()
        if kind == "postgresql":
            await connection.close()
        else:
            connection.close()
        await manager.close()
        cart: list[str] = after["cart"]
        return cart

    assert asyncio.run(work()) == ["coat", "hat"]
