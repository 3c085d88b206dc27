"""The Database middleware: its transactions, and its pool."""

# ruff: noqa: ANN001, ANN202, ANN204 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import gc
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from web_databases import PLAIN, Committing, Hook, ask, fork, idle, insert, rows

from web import database
from web.wsgi.base import BaseApplication, BaseMiddleware
from web.wsgi.database import Database


def test_what_was_committed_is_kept_and_the_rest_rolled_back(make, file: str) -> None:
    middleware = make(Committing())
    for _ in range(3):
        ask(middleware)
    assert rows(file) == [("kept",)] * 3
    assert idle(middleware) == 1


def test_the_connection_is_there_while_the_body_is_read_and_ends_with_it(make, file: str) -> None:
    held: list[Any] = []
    events: list[str] = []

    def application(environ, start_response):
        connection = environ["web.database.connection"]
        held.append((connection, environ["web.database.cursor"], connection.cursor()))
        connection.addHook(Hook(events))
        start_response("200 OK", PLAIN)
        insert(environ, "a")
        connection.commit()
        yield b"a"
        insert(environ, "b")
        yield b"b"
        connection.commit()
        insert(environ, "lost")
        # Rows that are not fetched keep a snapshot, unless the cursor is closed with the request.
        held[-1][2].execute("SELECT * FROM t")

    middleware = make(application)
    assert ask(middleware) == "ab"
    assert rows(file) == [("a",), ("hook",), ("b",), ("hook",)]
    assert events == ["before", "after"] * 2, "a hook is not told of the rollback at the end of the request"
    connection, cursor, _ = held[0]
    for use in (connection.commit, connection.cursor, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(database.ConnectionClosed, match="ends with its request"):
            use()
    assert idle(middleware) == 1
    ask(middleware)
    assert held[1][0] is not connection
    assert events == ["before", "after"] * 4


def test_a_cursor_that_was_left_open_keeps_no_old_view_of_the_data(make, connection, file: str) -> None:
    held: list[Any] = []

    def application(environ, start_response):
        cursor = environ["web.database.connection"].cursor()
        held.append(cursor.execute("SELECT b FROM t"))
        start_response("200 OK", PLAIN)
        return [repr(cursor.fetchone()).encode()]

    middleware = make(application)
    connection.cursor().executemany("INSERT INTO t (b) VALUES (?)", [["old"], ["old"]])
    connection.commit()
    assert ask(middleware) == "('old',)"
    connection.cursor().execute("UPDATE t SET b = 'new'")
    connection.commit()
    assert ask(middleware) == "('new',)"
    assert len(held) == 2
    assert idle(middleware) == 1


@pytest.mark.parametrize("where", ["call", "first", "body", "close", "abandoned"])
def test_the_connection_comes_back_whatever_happens(  # noqa: C901 -- one application for all places
    where: str, make, file: str
) -> None:
    class Body:
        def __init__(self, environ) -> None:
            self.environ, self.step = environ, 0

        def __iter__(self):
            return self

        def __next__(self) -> bytes:
            self.step += 1
            if where == "first" or (where == "body" and self.step == 2):
                raise LookupError(where)
            if self.step == 3:
                raise StopIteration
            return b"x"

        def close(self) -> None:
            insert(self.environ, "in close")
            if where == "close":
                raise LookupError(where)

    def application(environ, start_response):
        insert(environ)
        if where == "call":
            raise LookupError(where)
        start_response("200 OK", PLAIN)
        return Body(environ)

    middleware = make(BaseMiddleware(application))
    if where == "abandoned":
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body: Any = middleware(environ, lambda *_: print)  # type: ignore[arg-type, return-value]
        next(body)
        body.close()
        body.close()
    else:
        with pytest.raises(LookupError, match=where):
            ask(middleware)
    assert idle(middleware) == 1
    assert rows(file) == []


def test_broken_and_closed_connections_are_not_kept(make) -> None:
    def application(environ, start_response):
        connection = environ["web.database.connection"]
        assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
        {"base": connection.baseConnection.close, "own": connection.close, "": int}[environ["HTTP_X"]]()
        start_response("200 OK", PLAIN)
        return []

    middleware = make(application)
    for how, left in (("", 1), ("base", 0), ("", 1), ("own", 0), ("", 1)):
        ask(middleware, HTTP_X=how)
        assert idle(middleware) == left


def test_settings_of_one_request_do_not_reach_another(make) -> None:
    def application(environ, start_response):
        base = environ["web.database.connection"].baseConnection
        assert (base.row_factory, base.text_factory, base.isolation_level) == (None, str, "")
        base.row_factory, base.text_factory, base.isolation_level = sqlite3.Row, bytes, None
        start_response("200 OK", PLAIN)
        return []

    middleware = make(application)
    ask(middleware)
    ask(middleware)


def test_a_file_that_was_replaced_is_opened_anew(make, file: str) -> None:
    middleware = make(Committing(), autoCreate=True)
    ask(middleware)
    for name in ("", "-wal", "-shm"):
        Path(file + name).unlink(missing_ok=True)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        ask(middleware)
    assert Path(file).exists()


def test_errors_of_connecting_name_the_database(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.db")
    with pytest.raises(
        database.ConnectionFailed, match=r"missing\.db': there is no such file: create it with autoCreate"
    ):
        ask(Database(Committing(), "snakesql", missing))
    assert not Path(missing).exists()
    for arguments, message in (
        (("oracle", "x"), "no adapter 'oracle'"),
        (("sqlite", ":memory:"), "in memory of its own, .*: name a file"),
        (("sqlite", ""), "is empty"),
    ):
        with pytest.raises(database.DatabaseError, match=message):
            Database(Committing(), *arguments)
    with pytest.raises(database.ParameterError, match="poolSize=-1"):
        Database(Committing(), "sqlite", missing, poolSize=-1)


def test_the_path_is_settled_when_the_middleware_is_made(
    connection, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(file).parent)
    middleware = Database(Committing(), "sqlite", "shop.db")
    monkeypatch.chdir("/")
    ask(middleware)
    middleware.close()
    assert rows(file) == [("kept",)]


def test_idle_connections_of_a_server_are_tested(server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("web.wsgi.database.time.monotonic", lambda: now[0])

    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return []

    middleware = Database(application, server.adapter, "shop")
    for moment, broken, bases in ((0, False, 1), (1, True, 1), (20, False, 1), (40, True, 2), (41, False, 2)):
        now[0] = moment
        if server.bases:
            server.bases[0].broken = broken
        ask(middleware)
        assert len(server.bases) == bases
    assert any("SELECT 1" in call or "ping False" in call for call in server.bases[0].calls)
    assert server.bases[0].calls[-1] == "closed"


def test_the_pool_keeps_no_more_than_its_size_and_closes_at_its_end(make, file: str) -> None:
    together = threading.Barrier(6)

    def application(environ, start_response):
        together.wait(120)
        start_response("200 OK", PLAIN)
        return [b"x"]

    middleware = make(application, poolSize=2)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: ask(middleware), range(6))) == ["x"] * 6
    assert idle(middleware) == 2
    base = middleware._pool._idle.connections[0][0]
    middleware.close()
    assert idle(middleware) == 0
    with pytest.raises(sqlite3.ProgrammingError):
        base.execute("SELECT 1")
    for size in (0, 1):
        other = Database(Committing(), "sqlite", file, poolSize=size)
        ask(other)
        assert idle(other) == size
        del other
        gc.collect()  # an unclosed connection would warn here, and a warning fails the test


def test_a_forked_process_has_a_pool_of_its_own(make, file: str) -> None:
    middleware = make(Committing())
    ask(middleware)
    inherited = middleware._pool._idle.connections[0][0]
    child = fork()
    if child == 0:
        code = 1
        try:
            ask(middleware)
            own = middleware._pool._idle.connections[0][0]
            middleware.close()
            inherited.execute("SELECT 1")  # still open: it is the parent's to close
            code = 0 if own is not inherited else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask(middleware)
    assert rows(file) == [("kept",)] * 3


def concurrent_requests(middleware: Database) -> None:
    def requests(worker: int) -> None:
        for number in range(30):
            mine = f"c={worker}-{number}"
            assert ask(middleware, HTTP_COOKIE=mine) == f"{mine}|1"

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(requests, worker) for worker in range(8)]:
            result.result()


class Counting(BaseApplication):
    """Writes the request's cookie and reads it back; uncommitted rows of another request must not be seen."""

    pause = threading.Event()

    def start(self) -> None:
        connection, cursor = self.environ["web.database.connection"], self.environ["web.database.cursor"]
        mine = self.environ["HTTP_COOKIE"]
        assert not connection.inTransaction
        seen = cursor.execute("SELECT count(*) FROM t WHERE b NOT LIKE 'kept%'").fetchone()[0]
        assert seen == 0, "uncommitted rows leaked"
        cursor.execute("INSERT INTO t (b) VALUES (?)", [f"kept {mine}"])
        connection.commit()
        cursor.execute("INSERT INTO t (b) VALUES (?)", [mine])
        count = cursor.execute("SELECT count(*) FROM t WHERE b = ?", [mine]).fetchone()[0]
        self.output(mine, "|", count)


def test_eight_threads_share_a_pool_and_nothing_else(make, file: str) -> None:
    concurrent_requests(make(Counting()))
    found = rows(file)
    assert len(found) == len(set(found)) == 240
    assert all(text.startswith("kept c=") for (text,) in found)


def test_that_test_fails_where_nothing_is_rolled_back(make, monkeypatch: pytest.MonkeyPatch) -> None:
    def release(pool, connection) -> None:
        pool._idle.connections.append((connection.detach(), 0.0))

    monkeypatch.setattr("web.wsgi.database._RequestPool.release", release)
    with pytest.raises((AssertionError, sqlite3.Error)):
        concurrent_requests(make(Counting(), timeout=0.2))


def test_eight_threads_open_a_new_file_at_once(file: str) -> None:
    together = threading.Barrier(8)

    def open_it(_: int) -> None:
        together.wait(120)
        database.connect("sqlite", file, autoCreate=True).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_it, range(8)))
