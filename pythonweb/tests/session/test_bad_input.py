"""What is wrong is named, and so is the remedy."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import web.session
from coatcheck import CoatcheckError, ConfigurationError
from web.session import SessionError, driver, manager
from web.wsgi.database import Database
from web.wsgi.environment import Environment
from web.wsgi.session import Session

Build = Callable[..., Any]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    environ["web.session.store"]["a"] = 1
    return []


def call(stack: Any) -> None:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = stack(environ, lambda *_: None)
    list(body)
    getattr(body, "close", lambda: None)()


def test_a_missing_environment_middleware() -> None:
    with pytest.raises(SessionError, match=r"needs the Environment middleware.*environment\.Environment\(session"):
        call(Session(app, "app"))


def test_a_missing_database_middleware() -> None:
    stack = Environment(Session(app, "app"), "site", "database")
    with pytest.raises(SessionError, match=r"needs the Database middleware.*database\.Database\(environment"):
        call(stack)


def test_a_session_environment_that_is_not_there(build: Build) -> None:
    site = build(setupEnvironment=False)
    failure = site.browser().get(lambda _request: None).failure
    assert isinstance(failure, SessionError)
    for word in ("'testEnv'", "setupEnvironment=True", "createSessionEnvironment()", "autoCreate=1"):
        assert word in str(failure)
    with pytest.raises(SessionError, match="autoCreate=1"):
        manager("sqlite", environment="site", url=f"sqlite:///{site.path}")


@pytest.mark.parametrize("name", ["", "a b", "a-b", "é", "x" * 33, "a;b", 'a"b', None, 5])
def test_bad_names_of_environments(name: Any) -> None:
    for make in (lambda: driver("memory", name), lambda: Environment(app, name, "memory")):
        with pytest.raises(ValueError, match="environment"):
            make()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"expire": 0}, "expire"),
        ({"expire": "10"}, "expire"),
        ({"expire": float("nan")}, "expire"),
        ({"expire": True}, "expire"),
        ({"maxAge": -1}, "maxAge"),
        ({"maxAge": "5"}, "maxAge"),
        ({"path": "x"}, "path"),
        ({"path": None}, "path"),
        ({"path": ["/"]}, "path"),
        ({"path": "/a; Secure"}, "path"),
        ({"domain": "a b"}, "domain"),
        ({"domain": 5}, "domain"),
        ({"cookie": {"secure": True}}, "'secure'.*path, domain, comment, max-age"),
        ({"cookie": "x"}, "cookie.*mapping"),
        ({"cleanupProbability": 2}, "cleanupProbability"),
        ({"cleanupProbability": "x"}, "cleanupProbability"),
        ({"unknown": 1}, "unknown parameter unknown"),
    ],
)
def test_bad_settings_are_refused_when_they_are_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SessionError, match=words):
        Session(app, "app", **settings)
    with pytest.raises(SessionError, match=words):
        manager(driver("memory", "bad_settings"), **settings)


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 256, 5])
def test_bad_names_of_applications(name: Any) -> None:
    with pytest.raises(SessionError, match="1 to 255 characters"):
        Session(app, name)


def test_bad_drivers(connect: Callable[..., Any], tmp_path: Path) -> None:
    cursor = connect().cursor()
    url = f"sqlite:///{tmp_path}/x.db"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"driver": "database"}, "either cursor= .* or url="),
        ({"driver": "database", "cursor": cursor, "url": url}, "either cursor= .* or url="),
        ({"driver": "database", "cursor": cursor, "table": "x"}, "unknown parameter table"),
        ({"driver": "database", "cursor": object()}, "not a cursor of web.database"),
        ({"driver": "database", "cursor": sqlite3.connect(":memory:").cursor()}, "not a cursor of web.database"),
        ({"driver": "memory", "cursor": cursor}, "takes url=, not cursor="),
        ({"driver": "sqlite"}, "needs url="),
        ({"driver": "sqlite", "url": 5}, "needs url="),
        ({"driver": "sqlite", "url": "memory:"}, "must start with sqlite:"),
        ({"driver": "memory", "url": url}, "must start with memory:"),
        ({"driver": "nosuch"}, "needs url="),
        ({"driver": "nosuch", "url": "nosuch://host"}, "unknown scheme 'nosuch'"),
        ({"driver": 5}, "driver"),
    ]
    for params, words in cases:
        with pytest.raises(CoatcheckError, match=words):
            driver(environment="site", **params)
        if isinstance(params.get("cursor"), sqlite3.Cursor):
            params["cursor"].connection.close()
    with pytest.raises(SessionError, match="environment="):
        manager("memory")
    with pytest.raises(SessionError, match="unknown parameter url"):
        manager(driver("memory", "site"), url="memory:")
    wrong: Any = None
    with pytest.raises(SessionError, match="driver"):
        manager(wrong, environment="site")


def test_wrong_types_of_arguments() -> None:
    session = manager(driver("memory", "wrongTypes"))
    session.create(sendCookieHeaders=False)
    wrong: Any
    for wrong in (None, "5", float("nan"), True):
        with pytest.raises(SessionError, match="setExpire"):
            session.setExpire(wrong)
    for wrong in ("5", [], True):
        with pytest.raises(SessionError, match="cleanup"):
            session.cleanup(min=wrong)
        with pytest.raises(SessionError, match="cleanup"):
            session.cleanup(max=wrong)
    for wrong in (0, -1, "5", True):
        with pytest.raises(SessionError, match="create: expire"):
            session.create(expire=wrong)
    for wrong in (-1, "5", 1.5):
        with pytest.raises(SessionError, match="maxAge"):
            session.setCookie(wrong)


def test_tables_of_another_version(site: Any) -> None:
    site.browser(a=1)
    site.sql("UPDATE testEnv_coatcheck_meta SET value = '77' WHERE key = 'schema'")
    site.session._ready.clear()
    failure = site.browser().get(lambda _request: None).failure
    assert isinstance(failure, ConfigurationError)
    assert "schema version 77" in str(failure)
    assert "coatcheck works with 1" in str(failure)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    own = driver("database", "site", url=f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match=r"notes\.txt is not an SQLite database"):
        own.completeSessionEnvironment()
    assert "is not an SQLite database" in own.createSessionEnvironment()[0]
    assert "is not an SQLite database" in own.removeSessionEnvironment()[0]
    assert own.removeSessionEnvironment(ignoreErrors=True) == []
    stack = Database(Environment(Session(app, "app"), "site", "database"), "sqlite", str(path))
    with pytest.raises(Exception, match="not a database"):
        call(stack)
    assert path.read_text() == "not a database " * 1000


def test_a_folder_where_the_database_should_be(tmp_path: Path) -> None:
    own = driver("database", "site", url=f"sqlite:///{tmp_path}")
    (error,) = own.createSessionEnvironment()
    assert str(tmp_path) in error
    own.core.close()


def test_names_that_differ_in_case_only(build: Build) -> None:
    build(name="shop").browser(a=1)
    failure = build(name="SHOP").browser().get(lambda _request: None).failure
    assert isinstance(failure, ConfigurationError)
    assert "case only" in str(failure)


# -- setting up ----------------------------------------------------------------------------------------------------


def test_two_environments_in_one_database_are_apart(build: Build) -> None:
    one, two = build(name="one"), build(name="two")
    first, second = one.browser(who="one"), two.browser(who="two")
    assert set(first.jar) == {"one"}
    assert set(second.jar) == {"two"}
    both = type(first)(two, {"one": first.token, "two": second.token})
    assert both.read() == {"who": "two"}
    crossed = type(first)(two, {"two": first.token})
    assert crossed.get(lambda request: request.manager.load()).body == b"False"
    two.browser(a=1).get(
        lambda request: (
            request.manager.destroy(first.token, ignoreWarning=True),
            request.manager.cleanup(max=10**11, ignoreWarning=True),
        )
    )
    assert (one.stored("one"), two.stored("two")) == (1, 0)
    assert first.read() == {"who": "one"}
    two.browser(a=1).get(
        lambda request: (
            request.environ["web.session.driver"].removeSessionEnvironment(),
            request.connection.commit(),
        )
    )
    assert first.read() == {"who": "one"}
    assert not two.sql("SELECT name FROM sqlite_master WHERE name LIKE 'two%'")


def test_setting_up_again_drops_nothing(build: Build) -> None:
    browser = build().browser(a=1)
    again = build()
    assert type(browser)(again, browser.jar).read() == {"a": 1}
    # One table is missing: it is made, and the others stay as they are.
    again.sql("DROP TABLE testEnv_coatcheck_fence")
    again.sql("DELETE FROM testEnv_coatcheck_meta")
    third = build()
    assert type(browser)(third, browser.jar).read() == {"a": 1}
    assert third.sql("SELECT count(*) FROM testEnv_coatcheck_fence") == [(0,)]


SET_UP = """
import sys, web.database, web.session
connection = web.database.connect("sqlite", sys.argv[1], autoCreate=True)
sys.stdin.readline()
driver = web.session.driver("database", "site", cursor=connection.cursor())
manager = web.session.manager(driver, autoCreate=1)
manager.create()
connection.commit()
print(manager.driver.completeSessionEnvironment(), driver.createSessionEnvironment())
"""


def test_two_processes_set_up_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    command = [sys.executable, "-c", SET_UP, str(path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert out.endswith("True []\n"), err
    base = sqlite3.connect(path)
    assert base.execute("SELECT count(*) FROM site_coatcheck_session").fetchone() == (3,)
    base.close()


def test_all_errors_are_of_one_family() -> None:
    assert issubclass(web.session.SessionError, CoatcheckError)
