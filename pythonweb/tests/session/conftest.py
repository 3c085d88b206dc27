"""The whole stack of 2005 on one database file, browsers with a cookie jar, and a clock that tests move."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import web.session
import web.wsgi.session
from coatcheck.testing import Clock
from web import database as web_database
from web.session import Manager, Store
from web.wsgi.database import Database
from web.wsgi.environment import Environment
from web.wsgi.error import Error

PLAIN = ("Content-Type", "text/plain")

PATIENCE = 60.0
"""Seconds that a database is waited for, where a test is not about that: the machine may be busy."""


class Request:
    """What a handler gets: the request's environ, and short names for what it holds."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.headers: list[tuple[str, str]] = [PLAIN]

    @property
    def manager(self) -> Manager:
        found: Manager = self.environ["web.session.manager"]
        return found

    @property
    def store(self) -> Store:
        found: Store = self.environ["web.session.store"]
        return found

    @property
    def connection(self) -> Any:
        return self.environ["web.database.connection"]

    def row(self, text: str) -> None:
        """Insert a row of the application's own."""
        self.connection.cursor().execute("INSERT INTO note (text) VALUES (?)", [text])

    def append_cookie(self) -> None:
        """Do as the page of 2005 does."""
        self.headers.append(self.manager.response_headers[-1])


@dataclass
class Answer:
    """What a client sees of a response."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    failure: BaseException | None = None

    def cookies(self, name: str | None = None) -> list[str]:
        found = [value for key, value in self.headers if key.lower() == "set-cookie"]
        return [each for each in found if name is None or each.partition("=")[0] == name]

    @property
    def cookie(self) -> str:
        (found,) = self.cookies()
        return found

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Browser:
    """A client with a jar for the cookies of one site."""

    site: Site
    jar: dict[str, str] = field(default_factory=dict)

    def get(self, handler: Callable[[Request], Any], *, keep: bool = True, **how: Any) -> Answer:
        """Send a request that *handler* answers."""
        header = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = self.site.request(handler, header or None, **how)
        for cookie in answer.cookies() if keep else ():
            name, _, rest = cookie.partition("=")
            self.jar.pop(name, None)
            if "max-age=0" not in rest.lower().split("; "):
                self.jar[name] = rest.partition(";")[0]
        return answer

    def read(self) -> dict[str, Any]:
        """Give the values of the session, as the next request sees them."""
        found: dict[str, Any] = {}
        self.get(lambda request: found.update(request.store))
        return found

    @property
    def token(self) -> str:
        (found,) = self.jar.values()
        return found


class Site:
    """One application on the stack of 2005, whose handler comes with each request."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "testEnv",
        storage: str = "database",
        error: bool = False,
        inner: Callable[[Any], Any] = lambda app: app,
        middle: Callable[[Any], Any] = lambda app: app,
        file: str = "site.db",
        timeout: float = PATIENCE,
        **session: Any,
    ) -> None:
        self.path = folder / file
        self.where = self.place(timeout)
        self.make_tables()
        settings = {"app": "testApp", "expire": 100, "setupEnvironment": True, "cleanupProbability": 0} | session
        self.session = web.wsgi.session.Session(inner(self._app), **settings)
        stack: Any = Environment(middle(self.session), name=name, storage=storage)
        self.database = Database(stack, **self.where)
        self.stack: Any = Error(self.database, debug=True) if error else self.database

    def place(self, timeout: float) -> dict[str, Any]:
        """Give the parameters of the database."""
        return {"adapter": "sqlite", "database": str(self.path), "autoCreate": True, "timeout": timeout}

    def make_tables(self) -> None:
        """Make the application's own tables."""
        with sqlite3.connect(self.path) as base:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=OFF")
            base.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)")
            # A row here that names no note makes the database refuse the commit, and not before.
            base.execute("CREATE TABLE IF NOT EXISTS child (note REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
        base.close()

    def prepare(self, cursor: Any) -> None:
        """Set the connection of a request."""
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=OFF")  # no power fails here, and it takes time

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.prepare(environ["web.database.cursor"])
        request = Request(environ)
        raw = environ["test.raw"]
        if raw is not None:
            body: Iterable[bytes] = raw(request, start_response)
            return body
        result = environ["test.handler"](request)
        start_response("200 OK", request.headers)
        return [str(result).encode()]

    def request(
        self,
        handler: Callable[..., Any],
        cookie: str | None = None,
        *,
        raw: bool = False,
        scheme: str = "http",
        close: bool = True,
        **environ: Any,
    ) -> Answer:
        """Answer one request, and read and close its body as a server does; an exception is in the answer."""
        variables: dict[str, Any] = {"wsgi.url_scheme": scheme, "REMOTE_ADDR": "192.0.2.1", **environ}
        setup_testing_defaults(variables)
        variables |= {"test.handler": handler, "test.raw": handler if raw else None}
        if cookie is not None:
            variables["HTTP_COOKIE"] = cookie
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        chunks: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if exc_info and answers and any(chunks):
                raise exc_info[1]
            answers[:] = [(status, headers)]
            return chunks.append

        result: Any = None
        failure: BaseException | None = None
        try:
            result = self.stack(variables, start_response)
            for chunk in result:
                assert answers, "a chunk before start_response"
                chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 (a server takes whatever comes)
            failure = error
        finally:
            if close and hasattr(result, "close"):
                result.close()
        status, headers = answers[-1] if answers else ("", [])
        return Answer(status, headers, b"".join(chunks), failure)

    def browser(self, **values: Any) -> Browser:
        """A client; with *values*, one that has a session with these in it."""
        browser = Browser(self)
        if values:
            browser.get(lambda request: request.store.update(values))
        return browser

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        """Look at the database from outside."""
        base = sqlite3.connect(self.path)
        try:
            with base:
                return base.execute(statement, parameters).fetchall()
        finally:
            base.close()

    def rows(self) -> list[str]:
        """The application's own rows."""
        return [text for (text,) in self.sql("SELECT text FROM note ORDER BY id")]

    def stored(self, name: str = "testEnv") -> int:
        """How many sessions are stored."""
        return int(self.sql(f"SELECT count(*) FROM {name}_coatcheck_session")[0][0])  # noqa: S608 (a name of ours)

    def close(self) -> None:
        self.database.close()


class ServerSite(Site):
    """The same on the database of a server.

    Args:
        folder: Unused.
        server: The parameters of the database.
    """

    def __init__(self, folder: Path, server: dict[str, Any], **settings: Any) -> None:
        self.server = server
        super().__init__(folder, **settings)

    def place(self, timeout: float) -> dict[str, Any]:
        return self.server

    def make_tables(self) -> None:
        key = "SERIAL PRIMARY KEY" if self.server["adapter"] == "postgresql" else "INTEGER AUTO_INCREMENT PRIMARY KEY"
        self.sql(f"CREATE TABLE IF NOT EXISTS note (id {key}, text VARCHAR(100))")
        self.sql("DELETE FROM note")

    def prepare(self, cursor: Any) -> None:
        """Leave the connection as it is."""

    def values(self) -> int:
        """How many values are stored in all sessions."""
        mark = '"' if self.server["adapter"] == "postgresql" else "`"
        return int(self.sql(f"SELECT count(*) FROM {mark}testEnv_coatcheck_value{mark}")[0][0])  # noqa: S608 (ours)

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        with closing(web_database.connect(**self.server)) as connection:
            cursor = connection.cursor().execute(statement, parameters)
            found = cursor.fetchall() if cursor.description else []
            connection.commit()
        return found


@pytest.fixture(scope="session")
def postgresql(postgresql_server: Any) -> dict[str, Any]:
    """The parameters of a database on PostgreSQL."""
    postgresql_server.create_database("web")
    return _parameters("postgresql", postgresql_server)


@pytest.fixture(scope="session")
def mysql(mariadb_server: Any) -> dict[str, Any]:
    """The parameters of a database on MariaDB."""
    mariadb_server.create_database("web")
    return _parameters("mysql", mariadb_server)


def _parameters(adapter: str, server: Any) -> dict[str, Any]:
    login = {"user": server.user, "password": server.password}
    return {"adapter": adapter, "database": "web", "host": server.host, "port": server.port, **login}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.server) for name in ("postgresql", "mysql")])
def server(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The parameters of a server's database, for each of the servers."""
    found: dict[str, Any] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def server_site(tmp_path: Path, server: dict[str, Any]) -> Iterator[ServerSite]:
    """A site on a server's database, without a session environment in the beginning."""
    driver = web.session.driver("database", "testEnv", cursor=(connection := web_database.connect(**server)).cursor())
    driver.removeSessionEnvironment(ignoreErrors=True)
    connection.commit()
    connection.close()
    site = ServerSite(tmp_path, server)
    yield site
    site.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every manager that a middleware makes in this test."""
    clock = Clock()
    monkeypatch.setattr(web.wsgi.session, "Manager", partial(Manager, clock=clock))
    return clock


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a site with other settings: ``build(expire=10)``."""
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path, **settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(build: Callable[..., Site]) -> Site:
    """A site with the usual settings."""
    return build()


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged about sessions so far, from the level of a warning on."""
    caplog.set_level(logging.INFO, "coatcheck")
    return lambda: [each.getMessage() for each in caplog.records if each.name == "coatcheck" and each.levelno >= 30]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Connect to a database, as a script does; by default to one file of the test."""
    made: list[Any] = []

    def make(file: str = "script.db") -> Any:
        made.append(web_database.connect("sqlite", str(tmp_path / file), autoCreate=True))
        return made[-1]

    yield make
    for connection in made:
        connection.close()
