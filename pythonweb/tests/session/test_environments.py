"""An environment's tables and those of its sessions are made, looked for and removed together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import web.database
import web.environment
import web.session
from web.wsgi.base import BaseApplication
from web.wsgi.database import Database
from web.wsgi.environment import Environment
from web.wsgi.error import Error
from web.wsgi.session import Session

Setup = Any
TABLES = ("coatcheck_session", "coatcheck_value", "environment")


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in ("postgresql", "mysql"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The parameters of a database without an environment called "shop"."""
    if request.param == "sqlite":
        yield {"adapter": "sqlite", "database": str(tmp_path / "shop.db"), "autoCreate": True}
        return
    found: dict[str, Any] = request.getfixturevalue(request.param)
    with closing(web.database.connect(**found)) as connection:
        web.environment.driver("database", "shop", cursor=connection.cursor()).removeEnvironment(ignoreErrors=True)
        connection.commit()
    yield found


@pytest.fixture
def connection(place: dict[str, Any]) -> Iterator[Any]:
    with closing(web.database.connect(**place)) as connection:
        yield connection


@pytest.fixture
def setup(connection: Any) -> Setup:
    return web.environment.driver("database", "shop", cursor=connection.cursor())


@pytest.fixture
def sessions(connection: Any) -> web.session.Driver:
    return web.session.driver("database", "shop", cursor=connection.cursor())


def there(place: dict[str, Any]) -> list[str]:
    """The tables that another connection sees."""
    with closing(web.database.connect(**place)) as other:
        return [name for name in TABLES if other.hasTable(f"shop_{name}")]


def test_all_tables_are_made_and_removed_together(
    place: dict[str, Any], connection: Any, setup: Setup, sessions: web.session.Driver
) -> None:
    assert not setup.completeEnvironment()
    assert setup.createEnvironment() == []
    connection.commit()
    assert there(place) == [*TABLES]
    assert setup.completeEnvironment()
    assert sessions.completeSessionEnvironment()
    assert not connection.inTransaction or place["adapter"] != "sqlite"
    connection.rollback()
    assert setup.removeEnvironment() == []
    connection.commit()
    assert there(place) == []
    assert not setup.completeEnvironment()
    assert len(setup.removeEnvironment()) == 2
    assert setup.removeEnvironment(ignoreErrors=True) == []


def test_a_look_leaves_no_transaction_open(connection: Any, setup: Setup) -> None:
    for _ in range(2):
        setup.completeEnvironment()
        assert not connection.inTransaction
        setup.createEnvironment()
        connection.commit()


def _session(sessions: web.session.Driver, connection: Any) -> str:
    manager = web.session.manager(sessions)
    manager.create(sendCookieHeaders=False)
    manager.store("hats")["colour"] = "red"
    connection.commit()
    return str(manager.sessionID)


@pytest.mark.parametrize("missing", ["environment", "coatcheck_ended", "coatcheck_value"])
def test_what_is_missing_is_completed_and_nothing_is_dropped(
    place: dict[str, Any], connection: Any, setup: Setup, sessions: web.session.Driver, missing: str
) -> None:
    assert setup.createEnvironment() == []
    connection.commit()
    token = _session(sessions, connection)
    connection.cursor().execute(f"DROP TABLE {connection.quoted(f'shop_{missing}')}")
    connection.commit()
    assert not setup.completeEnvironment()
    connection.rollback()
    assert setup.createEnvironment() == []
    connection.commit()
    assert setup.completeEnvironment()
    connection.rollback()
    assert there(place) == [*TABLES]
    manager = web.session.manager(sessions)
    assert manager.load(token)
    assert manager.store("hats").get("colour") == (None if missing == "coatcheck_value" else "red")
    connection.rollback()


@pytest.mark.parametrize("missing", ["environment", "coatcheck_value"])
def test_what_is_left_of_one_is_removed_where_errors_are_ignored(
    place: dict[str, Any], connection: Any, setup: Setup, missing: str
) -> None:
    assert setup.createEnvironment() == []
    connection.commit()
    connection.cursor().execute(f"DROP TABLE {connection.quoted(f'shop_{missing}')}")
    connection.commit()
    assert setup.removeEnvironment(ignoreErrors=True) == []
    connection.commit()
    assert there(place) == []


def test_many_make_it_at_once(place: dict[str, Any]) -> None:
    web.database.connect(**place).close()
    together = threading.Barrier(6)

    def create(_: int) -> list[str]:
        with closing(web.database.connect(**place)) as connection:
            together.wait(60)
            errors: list[str] = web.environment.driver(
                "database", "shop", cursor=connection.cursor()
            ).createEnvironment()
            connection.commit()
            return errors

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(create, range(6))) == [[]] * 6
    assert there(place) == [*TABLES]


def test_the_session_middleware_finds_what_was_made(place: dict[str, Any], connection: Any, setup: Setup) -> None:
    class Visit(BaseApplication):
        def start(self) -> None:
            store = self.environ["web.session.store"]
            store["visits"] = 1
            self.output(store["visits"])

    assert setup.createEnvironment() == []
    connection.commit()
    served = Database(Environment(Session(Visit(), app="a"), "shop", "database"), **place)
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = served(environ, lambda *_: print)
    assert list(body) == [b"1"]
    body.close()  # type: ignore[attr-defined]
    served.close()


def test_tables_that_are_removed_while_programs_run_cost_one_request_at_most(
    place: dict[str, Any], connection: Any, setup: Setup
) -> None:
    statuses: list[str] = []

    class Visit(BaseApplication):
        def start(self) -> None:
            self.environ["web.session.store"]["visits"] = 1
            self.output(self.environ["web.session.store"]["visits"])
            self.environ["web.database.connection"].commit()

    inner = Session(Visit(), app="a", setupEnvironment=True)
    served = Database(Environment(inner, "shop", "database"), **place)

    def visit() -> str:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body = Error(served)(environ, lambda status, *_: statuses.append(status))  # type: ignore[arg-type, return-value]
        text = b"".join(body).decode()
        body.close()  # type: ignore[attr-defined]
        return text

    assert visit() == "1"
    assert setup.removeEnvironment(ignoreErrors=True) == []
    connection.commit()
    for _ in range(3):
        visit()
    assert statuses[2:] == ["200 OK"] * 2
    assert statuses[1][:3] in ("200", "500", "503")
    assert visit() == "1"
    served.close()


STORAGES: list[tuple[str, Callable[[Path], str]]] = [
    ("filesystem", lambda folder: f"filesystem:///{folder}/sessions"),
    ("sqlite", lambda folder: f"sqlite:///{folder}/s.db"),
]


@pytest.mark.parametrize(("storage", "url"), STORAGES, ids=[name for name, _ in STORAGES])
def test_storage_of_the_sessions_own_is_made_by_its_url(
    storage: str, url: Callable[[Path], str], tmp_path: Path
) -> None:
    setup = web.environment.driver(storage, "shop", url=url(tmp_path))
    assert not setup.completeEnvironment()
    assert setup.createEnvironment() == []
    assert setup.completeEnvironment()
    assert setup.removeEnvironment() == []
    assert not setup.completeEnvironment()
    assert setup.removeEnvironment(ignoreErrors=True) == []
    with pytest.raises(web.session.SessionError, match="its url must start with redis"):
        web.environment.driver("redis", "shop", url=url(tmp_path))
