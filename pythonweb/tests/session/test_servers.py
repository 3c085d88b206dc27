"""Sessions on PostgreSQL, on MariaDB and on every other engine, as the interface of 2005 reaches them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import web.database
import web.session
from coatcheck import ConfigurationError, DriverUnavailable
from web.session import SessionError

Site = Any
Request = Any

ROOT = Path(__file__).resolve().parents[3]
CGI_COOKIE = re.compile(r"Set-Cookie: (shop=[A-Za-z0-9_-]{32})")


# -- the application's transaction --------------------------------------------------------------------------------


def test_a_commit_makes_row_and_session_durable_at_once(server_site: Site) -> None:
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        request.row("order")
        request.store["order"] = 1
        assert server_site.rows() == []
        request.connection.commit()
        assert server_site.rows() == ["order"]
        assert server_site.values() == 2
        raise RuntimeError

    assert isinstance(browser.get(handler).failure, RuntimeError)
    assert browser.read() == {"hits": 0, "order": 1}


def test_a_rollback_undoes_the_row_and_keeps_the_change_of_the_session_for_the_end(server_site: Site) -> None:
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        request.row("order")
        request.store.increment("hits", 1)
        request.connection.rollback()

    assert browser.get(handler).failure is None
    assert server_site.rows() == []
    assert browser.read() == {"hits": 1}


def test_without_a_commit_the_session_is_saved_and_the_row_is_not(server_site: Site) -> None:
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        request.row("order")

    browser.get(handler)
    assert server_site.rows() == []
    assert browser.read() == {"hits": 1}


def test_an_exception_saves_nothing(server_site: Site) -> None:
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        request.row("order")
        raise RuntimeError

    assert isinstance(browser.get(handler).failure, RuntimeError)
    assert server_site.rows() == []
    assert browser.read() == {"hits": 0}


def test_reading_a_session_leaves_no_transaction_open(server_site: Site) -> None:
    """One that only looked for the session would be taken for the application's."""
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        assert request.store["hits"] == 0
        assert not request.connection.inTransaction

    assert browser.get(handler).failure is None


def test_reading_a_session_leaves_the_applications_locks_alone(server_site: Site) -> None:
    browser = server_site.browser(hits=0)
    server_site.sql("INSERT INTO note (text) VALUES (?)", "stock")

    def handler(request: Request) -> None:
        request.connection.cursor().execute("SELECT text FROM note FOR UPDATE").fetchall()
        assert request.store["hits"] == 0
        with pytest.raises(Exception, match=r"(?i)lock"):
            server_site.sql("SELECT text FROM note FOR UPDATE NOWAIT")

    assert browser.get(handler).failure is None


def test_a_session_that_is_saved_is_there_before_the_body_is_through(server_site: Site) -> None:
    browser = server_site.browser(hits=0)
    seen = []

    def handler(request: Request, start_response: Any) -> Iterator[bytes]:
        request.store.increment("hits", 1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        seen.append(server_site.values())
        yield b"two"

    assert browser.get(handler, raw=True).body == b"onetwo"
    assert seen == [1]


def test_a_transaction_that_was_ended_behind_our_back(server_site: Site) -> None:
    """A logout in it is done again in the next one, and what it wrote of the session lands once."""
    browser, other = server_site.browser(hits=0), server_site.browser(mine=1)
    stolen = other.token

    def handler(request: Request) -> None:
        request.row("undone")
        request.manager.destroy(stolen, ignoreWarning=True)
        request.store.increment("hits", 1)
        request.connection.cursor().execute("ROLLBACK")
        request.row("done")
        request.connection.commit()

    assert browser.get(handler).failure is None
    assert server_site.rows() == ["done"]
    assert browser.read() == {"hits": 1}
    assert other.get(lambda request: request.manager.load()).body == b"False"


def test_a_statement_that_failed(server_site: Site) -> None:
    """On PostgreSQL it spoils the transaction: the commit says so, and the session's change is not lost with it."""
    browser, other = server_site.browser(hits=0), server_site.browser(mine=1)
    stolen = other.token
    spoils = server_site.server["adapter"] == "postgresql"

    def handler(request: Request) -> None:
        request.row("order")
        request.manager.destroy(stolen, ignoreWarning=True)
        request.store.increment("hits", 1)
        with pytest.raises(Exception, match=r"(?i)nowhere"):
            request.connection.cursor().execute("SELECT * FROM nowhere")
        if spoils:
            with pytest.raises(DriverUnavailable):
                request.connection.commit()
            request.connection.rollback()
        request.connection.commit()

    assert browser.get(handler).failure is None
    assert server_site.rows() == ([] if spoils else ["order"])
    assert browser.read() == {"hits": 1}
    assert other.get(lambda request: request.manager.load()).body == b"False"


def test_a_commit_that_the_database_refused_is_no_loss(server_site: Site) -> None:
    """PostgreSQL ends the transaction with it; the session's change lands with the next one, once."""
    if server_site.server["adapter"] == "mysql":
        return  # there, nothing is checked as late as at the commit
    server_site.sql("CREATE TABLE IF NOT EXISTS child (note INTEGER REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
    browser = server_site.browser(hits=0)

    def handler(request: Request) -> None:
        request.connection.cursor().execute("INSERT INTO child VALUES (77)")
        request.store.increment("hits", 1)
        with pytest.raises(Exception, match="foreign key"):
            request.connection.commit()
        request.row("order")
        request.connection.commit()

    assert browser.get(handler).failure is None
    assert server_site.rows() == ["order"]
    assert browser.read() == {"hits": 1}


def test_a_crowd(server_site: Site) -> None:
    """Eight at a time: new sessions, one counter that all count, and a row of each."""
    shared = server_site.browser(hits=0)
    twins = [type(shared)(server_site, dict(shared.jar)) for _ in range(8)]

    def visits(twin: Any) -> None:
        for _ in range(15):

            def handler(request: Request) -> None:
                request.row("order")
                request.store.increment("hits", 1)
                request.connection.commit()

            assert twin.get(handler).failure is None
            assert server_site.browser(fresh=1).read() == {"fresh": 1}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visits, twins))
    assert shared.read() == {"hits": 120}
    assert len(server_site.rows()) == 120


# -- the life of an environment -----------------------------------------------------------------------------------


def test_the_tables_come_and_go(server: dict[str, Any]) -> None:
    with closing(web.database.connect(**server)) as connection:
        driver = web.session.driver("database", "e" * 32, cursor=connection.cursor())
        assert not driver.completeSessionEnvironment()
        assert driver.createSessionEnvironment() == []
        connection.commit()
        assert driver.completeSessionEnvironment()
        assert driver.createSessionEnvironment() == []
        assert driver.removeSessionEnvironment() == []
        connection.commit()
        assert not driver.completeSessionEnvironment()
        assert len(driver.removeSessionEnvironment()) == 1


def test_tables_are_not_made_inside_a_transaction_of_mariadbs(mysql: dict[str, Any]) -> None:
    with closing(web.database.connect(**mysql)) as connection:
        cursor = connection.cursor()
        driver = web.session.driver("database", "late", cursor=cursor)
        cursor.execute("CREATE TEMPORARY TABLE mine (x INTEGER)")
        cursor.execute("INSERT INTO mine VALUES (1)")
        (said,) = driver.createSessionEnvironment()
        assert "commit it first" in said
        assert not driver.completeSessionEnvironment()


def page(server: dict[str, Any]) -> str:
    """The program of the page of 2005, with another database."""
    places = [Path(place) for place in (os.environ.get("COATCHECK_SHARED"), ROOT.parent / "shared") if place]
    found = [place / "seed" / "web.wsgi.session.txt" for place in places]
    text = next((file.read_text(encoding="utf-8") for file in found if file.exists()), None)
    if text is None:
        pytest.skip(f"the page is not at {' or '.join(map(str, found))}")
    start = text.index("from web.wsgi import *")
    text = text[start : text.index("You can test this example", start)]
    old = """        adapter = 'snakesql',
        database = 'wsgi-session',
        autoCreate = 1
"""
    assert old in text
    new = "".join(f"        {name} = {value!r},\n" for name, value in server.items())
    return text.replace(old, new)


def test_the_page_program(server_site: Site) -> None:
    """It makes its tables itself, welcomes a visitor back, and ends the session."""
    names: dict[str, Any] = {}
    exec(compile(page(server_site.server), "page.py", "exec"), names)  # noqa: S102 (the page's own program)
    jar = ""

    def visit(query: str = "") -> str:
        nonlocal jar
        environ: dict[str, Any] = {"QUERY_STRING": query, "REMOTE_ADDR": "192.0.2.1", "HTTP_COOKIE": jar}
        setup_testing_defaults(environ)
        sent: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            assert status.startswith("200"), status
            sent.extend(value for name, value in headers if name == "Set-Cookie")
            return lambda _: None

        body = names["application"](environ, start_response)
        text = b"".join(body).decode()
        body.close()
        (cookie,) = sent
        jar = "" if "Max-Age=0" in cookie else cookie.partition(";")[0]
        return text

    assert "New Session Started" in visit()
    first = jar
    for _ in range(3):
        text = visit()
        assert "Welcome back" in text
        assert "Python Rules!" in text
        assert jar == first
    assert "Session Destroyed" in visit("destroy=True")
    assert jar == ""
    assert "New Session Started" in visit()
    assert jar != first


def test_a_script(server: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` connects by itself, makes the tables, and saves each value as it is assigned."""

    def run(cookie: str, **how: Any) -> tuple[int, str]:
        monkeypatch.setenv("HTTP_COOKIE", cookie)
        store = web.session.start("shop", "shop", **how, **server)
        store["visits"] = store.get("visits", 0) + 1
        visits = store["visits"]
        store.manager.driver.connection.close()
        found = CGI_COOKIE.search(capsys.readouterr().out)
        return visits, found[1] if found else cookie

    visits, cookie = run("", setupSessionEnvironment=True)
    assert visits == 1
    assert [run(cookie)[0] for _ in range(2)] == [2, 3]


# -- storage of their own -----------------------------------------------------------------------------------------


@contextmanager
def used(name: str, url: str, environment: str) -> Iterator[Any]:
    driver = web.session.driver(name, environment, url=url)
    assert driver.createSessionEnvironment() == []
    yield driver
    assert driver.removeSessionEnvironment() == []
    driver.core.close()


@pytest.mark.server
@pytest.mark.parametrize(
    ("name", "fixture", "scheme"),
    [
        ("redis", "redis_server", None),
        ("valkey", "redis_server", "valkey"),
        ("memcached", "memcached_server", None),
        ("postgresql", "postgresql_server", None),
        ("database", "postgresql_server", None),
        ("mariadb", "mariadb_server", None),
        ("mysql", "mariadb_server", "mysql"),
        ("mysql", "mariadb_server", None),
        ("filesystem", None, None),
    ],
)
def test_every_driver_by_its_name(
    request: pytest.FixtureRequest, tmp_path: Path, namespace: str, name: str, fixture: str | None, scheme: str | None
) -> None:
    """Two environments on one server are apart."""
    url = f"filesystem:///{tmp_path}/sessions" if fixture is None else request.getfixturevalue(fixture).url
    if scheme is not None:
        url = f"{scheme}:{url.partition(':')[2]}"
    one, two = f"{namespace}a", f"{namespace}b"
    with used(name, url, one) as first, used(name, url, two) as second:
        assert web.session.driver(name, one, url=url).core is first.core
        manager = web.session.manager(first)
        manager.create()
        manager.store("shop")["hat"] = 1
        manager.save()
        assert web.session.manager(first).load(manager.sessionID)
        assert not web.session.manager(second).load(manager.sessionID)


@pytest.mark.parametrize(
    ("name", "url"),
    [("redis", "memcached://127.0.0.1"), ("mysql", "postgresql://u@127.0.0.1/d"), ("sqlite", "redis://127.0.0.1")],
)
def test_a_url_of_another_driver(name: str, url: str) -> None:
    with pytest.raises(SessionError, match=f"its url must start with {name}:"):
        web.session.driver(name, "site", url=url)


def test_a_driver_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="unknown scheme 'oracle'"):
        web.session.driver("oracle", "site", url="oracle://127.0.0.1/d")
