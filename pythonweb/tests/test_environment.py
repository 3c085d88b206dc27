"""web.environment and the Environment middleware."""

# ruff: noqa: ANN001, ANN201, FBT001 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from web import database
from web.environment import EnvironmentNameError, checkName, driver
from web.wsgi.base import BaseApplication
from web.wsgi.environment import Environment


@pytest.fixture
def connection(tmp_path: Path):
    connection = database.connect("sqlite", str(tmp_path / "e.db"), autoCreate=True)
    yield connection
    connection.close()


def tables(connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return [row[0] for row in connection.cursor().execute(query)]


GOOD = ["testEnv", "a", "_", "9", "A" * 32]
BAD = ["", "A" * 33, "a-b", "a b", "a.b", "é", "a\n", "a;DROP", None, 5, b"a"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert checkName(name) == name


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: Any, connection) -> None:
    for use in (
        checkName,
        lambda name: driver("database", name, cursor=connection.cursor()),
        lambda name: Environment(BaseApplication(), name, "database"),
    ):
        with pytest.raises(EnvironmentNameError, match="cannot name an environment: use 1 to 32 letters") as raised:
            use(name)
        assert isinstance(raised.value, ValueError)
        assert repr(name) in str(raised.value)


def test_an_environment_is_made_completed_and_removed(connection) -> None:
    connection.cursor().execute("CREATE TABLE testEnv_other (a)")
    setup = driver("database", "testEnv", cursor=connection.cursor())
    assert (setup.storage, setup.name) == ("database", "testEnv")
    assert setup.completeEnvironment() is False
    assert setup.createEnvironment() == []
    assert setup.completeEnvironment() is True
    assert setup.createEnvironment() == [], "a second time changes nothing"
    assert set(tables(connection)) > {"testEnv_environment", "testEnv_other", "testEnv_coatcheck_session"}
    other = driver("database", "other", cursor=connection.cursor())
    assert other.completeEnvironment() is False
    assert other.removeEnvironment() == [
        "the session environment 'other' is not complete: there is nothing to remove",
        "table 'other_environment' does not exist",
    ]
    assert other.removeEnvironment(ignoreErrors=True) == []
    assert setup.removeEnvironment() == []
    assert tables(connection) == ["testEnv_other"]
    assert setup.completeEnvironment() is False


def test_creation_leaves_the_open_transaction_alone(connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a)")
    cursor.execute("INSERT INTO t VALUES (1)")
    setup = driver("database", "e", cursor=cursor)
    assert setup.createEnvironment() == []
    assert connection.inTransaction
    connection.rollback()
    assert (tables(connection), setup.completeEnvironment()) == (["t"], False)
    assert setup.createEnvironment() == []
    assert not connection.inTransaction
    assert setup.completeEnvironment()


def test_half_made_and_foreign_tables(connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE e_environment (version INTEGER)")
    setup = driver("database", "e", cursor=connection.cursor())
    assert setup.completeEnvironment() is False
    assert setup.createEnvironment() == []
    assert setup.completeEnvironment() is True
    cursor.execute("UPDATE e_environment SET version = 7")
    connection.commit()
    assert setup.completeEnvironment() is False
    assert setup.createEnvironment() == [
        "table 'e_environment' is of version 7, this program knows 1: install the other release"
    ]
    cursor.execute("CREATE TABLE f_environment (something TEXT)")
    cursor.execute("INSERT INTO f_environment VALUES ('precious')")
    errors = driver("database", "f", cursor=connection.cursor()).createEnvironment()
    assert len(errors) == 1
    assert "table 'f_environment' could not be created: no such column: version" in errors[0]
    assert cursor.execute("SELECT * FROM f_environment").fetchall() == [("precious",)]


@pytest.mark.parametrize("open_transaction", [False, True])
def test_what_fails_half_way_leaves_nothing(open_transaction: bool, connection, monkeypatch) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a)")
    if open_transaction:
        cursor.execute("INSERT INTO t VALUES (1)")
    setup = driver("database", "e", cursor=cursor)
    monkeypatch.setattr(setup, "_versions", lambda: 1 / 0)
    assert setup.createEnvironment() == ["table 'e_environment' could not be created: division by zero"]
    assert tables(connection) == ["t"]
    assert connection.inTransaction is open_transaction
    connection.commit()
    assert cursor.execute("SELECT count(*) FROM t").fetchone() == (int(open_transaction),)


def test_errors_are_returned_as_text(connection) -> None:
    setup = driver("database", "e", cursor=connection.cursor())
    assert setup.createEnvironment() == []
    connection.close()
    for errors in (setup.createEnvironment(), setup.removeEnvironment()):
        assert errors
        assert all("database connection is closed" in error for error in errors)
    assert setup.removeEnvironment(ignoreErrors=True) == []


def test_many_create_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "many.db")
    database.connect("sqlite", path, autoCreate=True).close()
    together = threading.Barrier(8)

    def create(_: int) -> list[str]:
        connection = database.connect("sqlite", path)
        try:
            together.wait(120)
            return driver("database", "e", cursor=connection.cursor()).createEnvironment()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(create, range(8))) == [[]] * 8


@pytest.mark.parametrize("storage", ["redis", "memcached", "filesystem", "memory"])
def test_other_storages_need_no_setting_up(storage: str) -> None:
    for name in ("", "testEnv"):
        setup = driver(storage, name)
        assert setup.completeEnvironment() is True
        assert setup.createEnvironment() == []
        assert setup.removeEnvironment() == []
        assert storage in repr(setup)
    with pytest.raises(EnvironmentNameError):
        driver(storage, "a-b")


@pytest.mark.parametrize(
    ("arguments", "params", "kind", "message"),
    [
        (("database", "e"), {}, TypeError, "needs cursor=, a cursor of web.database"),
        (("database", "e"), {"cursor": object()}, TypeError, "needs cursor=, a cursor of web.database"),
        (("", "e"), {}, ValueError, "names no storage"),
        ((None, "e"), {}, ValueError, "names no storage"),
    ],
)
def test_wrong_arguments_of_driver(arguments: Any, params: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        driver(*arguments, **params)


def test_unknown_parameter_of_driver(connection) -> None:
    with pytest.raises(TypeError, match="knows no parameter 'colour': it takes cursor="):
        driver("database", "e", cursor=connection.cursor(), colour=1)


class Show(BaseApplication):
    def start(self) -> None:
        keys = ("web.environment.name", "web.environment.type", "web.environment.params")
        self.output(*(f"{self.environ[key]};" for key in keys))


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"name": "testEnv", "storage": "database"}, "testEnv;database;{};"),
        ({"name": "testEnv", "type": "database"}, "testEnv;database;{};"),
        ({"name": "a", "storage": "redis", "type": "redis", "url": "x"}, "a;redis;{'url': 'x'};"),
    ],
)
def test_the_middleware_adds_name_and_type(params: dict[str, Any], shown: str) -> None:
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    body = validator(Environment(Show(), **params))(environ, lambda *_: print)  # type: ignore[arg-type, return-value]
    assert b"".join(body).decode() == shown
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"names no storage: add for example storage='database'"),
        ({"storage": ""}, "names no storage"),
        ({"storage": 5}, "names no storage"),
        ({"storage": "redis", "type": "database"}, "both mean the same, so pass only one of them"),
    ],
)
def test_wrong_arguments_of_the_middleware(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(Show(), "testEnv", **params)
