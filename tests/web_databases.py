"""What the tests of web.database share: applications, a look at what is stored, a stand-in for a server."""

# ruff: noqa: ANN001, ARG005, FBT001 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import os
import sqlite3
import types
import warnings
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from web.wsgi.base import BaseApplication
from web.wsgi.database import Database

PLAIN = [("Content-Type", "text/plain")]


def fork() -> int:
    """Fork; Python 3.12 and later warn where other tests left a thread behind, which the child never uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def rows(file: str) -> list[Any]:
    base = sqlite3.connect(file)
    try:
        return base.execute("SELECT b FROM t ORDER BY a").fetchall()
    finally:
        base.close()


class FakeCursor:
    description = None
    rowcount = 1
    arraysize = 1

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def execute(self, *arguments: Any) -> None:
        self.calls.append(arguments)

    executemany = execute

    def fetchall(self) -> tuple[tuple[int], ...]:
        return ((1,), (2,))

    def close(self) -> None:
        self.calls.append("close")


class FakeBase:
    closed = False
    open = True
    autocommit = False
    server_status = 3
    info = types.SimpleNamespace(transaction_status=2)
    pings = 0
    broken = False

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def cursor(self) -> FakeCursor:
        return FakeCursor(self.calls)

    def execute(self, sql: str) -> None:
        if self.broken:
            raise FakeError
        self.calls.append(sql)

    def ping(self, reconnect: bool) -> None:
        self.execute(f"ping {reconnect}")

    def get_autocommit(self) -> bool:
        return False

    def rollback(self) -> None:
        self.calls.append("rollback")

    commit = rollback

    def close(self) -> None:
        self.calls.append("closed")


class FakeError(Exception):
    pass


class Hook:
    def __init__(self, events: list[str], fail: str = "") -> None:
        self.events, self.fail = events, fail

    def step(self, name: str) -> None:
        self.events.append(name)
        if self.fail == name:
            raise LookupError(name)

    def before_commit(self, connection) -> None:
        connection.baseConnection.execute("INSERT INTO t (b) VALUES ('hook')")
        self.step("before")

    def after_commit(self, connection) -> None:
        assert not connection.inTransaction
        self.step("after")

    def after_rollback(self, connection) -> None:
        assert not connection.inTransaction
        self.step("rollback")


def ask(application, **over: Any) -> str:
    environ: dict[str, Any] = {"QUERY_STRING": "", **over}
    setup_testing_defaults(environ)
    body = validator(application)(environ, lambda status, headers, exc_info=None: print)
    try:
        return b"".join(body).decode()
    finally:
        body.close()


def insert(environ, text: str = "x") -> None:
    environ["web.database.cursor"].execute("INSERT INTO t (b) VALUES (?)", [text])


def idle(middleware: Database) -> int:
    return len(middleware._pool._idle.connections)


class Committing(BaseApplication):
    def start(self) -> None:
        insert(self.environ, "kept")
        self.environ["web.database.connection"].commit()
        insert(self.environ, "lost")
