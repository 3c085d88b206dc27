"""A database with one table, the middleware on it, and a server that keeps what it is given."""

# ruff: noqa: ANN001, ANN201 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from web_databases import FakeBase, FakeError

from web import database
from web.wsgi.database import Database


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "shop.db")


@pytest.fixture
def connection(file: str):
    connection = database.connect("sqlite", file, autoCreate=1)
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    cursor.close()
    yield connection
    connection.close()


@pytest.fixture(params=["postgresql", "mysql"])
def server(request, monkeypatch: pytest.MonkeyPatch):
    package = types.ModuleType({"postgresql": "psycopg", "mysql": "pymysql"}[request.param])
    fake = types.SimpleNamespace(adapter=request.param, given={}, error=None, bases=[], module=package)

    def connect(**given: Any) -> FakeBase:
        fake.given = given
        if fake.error:
            raise fake.error
        fake.bases.append(FakeBase())
        return fake.bases[-1]

    package.connect, package.Error = connect, FakeError  # type: ignore[attr-defined]
    rows_module = types.ModuleType("psycopg.rows")
    rows_module.tuple_row = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, "psycopg.rows", rows_module)
    return fake


@pytest.fixture
def make(connection, file: str):
    """Make the middleware, on a file with one table."""
    made: list[Database] = []

    def make(application, **params: Any) -> Database:
        made.append(Database(application, adapter="sqlite", database=file, **params))
        return made[-1]

    yield make
    for each in made:
        each.close()
