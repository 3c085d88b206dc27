"""web.database and the Database middleware."""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, ARG005, FBT001 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import gc
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from web import database
from web.database._placeholders import translate
from web.wsgi.base import BaseApplication, BaseMiddleware
from web.wsgi.database import Database

PLAIN = [("Content-Type", "text/plain")]


def fork() -> int:
    """Fork; Python 3.12 and later warn where other tests left a thread behind, which the child never uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


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


def rows(file: str) -> list[Any]:
    base = sqlite3.connect(file)
    try:
        return base.execute("SELECT b FROM t ORDER BY a").fetchall()
    finally:
        base.close()


# Connecting.


@pytest.mark.parametrize("adapter", ["sqlite", "snakesql", "SQLite"])
def test_a_file_is_made_where_auto_create_is_true(adapter: str, file: str) -> None:
    with pytest.raises(
        database.ConnectionFailed, match=r"shop\.db': there is no such file: create it with autoCreate=True"
    ):
        database.connect(adapter, file)
    assert not Path(file).exists()
    old = os.umask(0)
    try:
        connection = database.connect(adapter, file, autoCreate=1)
        connection.cursor().execute("CREATE TABLE t (a)")
        for name in ("shop.db", "shop.db-wal", "shop.db-shm"):
            assert stat.S_IMODE((Path(file).parent / name).stat().st_mode) == 0o600, name
    finally:
        os.umask(old)
    assert connection.baseConnection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.baseConnection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    assert connection.adapter == adapter.lower()
    connection.close()
    database.connect(adapter, file).close()


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database.connect("sqlite", "wsgi-session", autoCreate=True).close()
    database.connect("sqlite", Path("wsgi-session")).close()  # type: ignore[arg-type]
    assert (tmp_path / "wsgi-session").is_file()


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (lambda p: None, "missing/shop.db", "the folder '.*/missing' does not exist: create it"),
        (lambda p: (p / "file").write_text("x"), "file/shop.db", "'.*/file' is not a folder"),
        (lambda p: (p / "dir").mkdir(), "dir", "it is a folder: name a file"),
        (lambda p: (p / "junk").write_bytes(b"no database " * 99), "junk", "file is not a database; name another"),
        (lambda p: (p / "link").symlink_to(p / "gone"), "link", "a link to a file that does not exist"),
        (lambda p: os.mkfifo(p / "fifo"), "fifo", "not a regular file"),
        (lambda p: None, "/dev/null", "not a regular file"),
        (lambda p: None, "/proc/self/shop.db", "cannot be created: .*; let this process write to the folder"),
        (lambda p: None, "x" * 300, "File name too long; name another"),
    ],
)
def test_a_file_that_cannot_be_a_database(make, path: str, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    whole = str(tmp_path / path)
    with pytest.raises(database.ConnectionFailed, match=message) as raised:
        database.connect("sqlite", whole, autoCreate=True)
    assert whole in str(raised.value)
    assert (raised.value.adapter, raised.value.database) == ("sqlite", whole)


ON_READ_ONLY = """
import subprocess, sys
from web import database

def mount(*options):
    subprocess.run(["mount", *options, sys.argv[1]], check=True)

mount("-t", "tmpfs", "-o", "size=16m", "tmpfs")
database.connect("sqlite", sys.argv[1] + "/shop.db", autoCreate=True).close()
mount("-o", "remount,ro")
for name in ("shop.db", "new.db"):
    try:
        database.connect("sqlite", f"{sys.argv[1]}/{name}", autoCreate=True)
    except database.ConnectionFailed as error:
        print(error)
"""


def test_a_database_on_a_read_only_file_system(tmp_path: Path) -> None:
    """A real one, in a mount namespace of the child's own: root may make one, and most others one of their own."""
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount anything")
    command = [*namespace, sys.executable, "-c", ON_READ_ONLY, str(tmp_path)]
    there, new = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "shop.db' cannot be written: let this process write to it" in there
    assert "the file cannot be created: Read-only file system; let this process write to the folder" in new


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [
        (0o444, 0o777, "the file '.*/shop.db' cannot be written: let this process write to it"),
        (0o666, 0o555, "the folder '.*' cannot be written: let this process write to it"),
        (None, 0o555, "cannot be created: Permission denied; let this process write to the folder"),
        (0o666, 0o000, "cannot be reached: Permission denied"),
    ],
)
def test_a_file_or_folder_that_cannot_be_written(file_mode: int | None, folder_mode: int, message: str) -> None:
    """Permissions do not stop root, so a child process tries it as somebody else."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder) / "shop.db"
        if file_mode is not None:
            database.connect("sqlite", str(file), autoCreate=True).close()
            file.chmod(file_mode)
        Path(folder).chmod(folder_mode)
        reader, writer = os.pipe()
        child = fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                database.connect("sqlite", str(file), autoCreate=True)
            except BaseException as error:  # noqa: BLE001 -- the parent judges it
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as told:
            text = told.read()
        Path(folder).chmod(0o777)
    assert text.startswith(f"ConnectionFailed: sqlite database '{file}'")
    assert re.search(message, text)


def test_a_locked_database_says_so(file: str) -> None:
    database.connect("sqlite", file, autoCreate=True).close()
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("PRAGMA journal_mode=DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(database.ConnectionFailed, match="locked; end the program that keeps it locked"):
        database.connect("sqlite", file, timeout=0.05)
    holder.close()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            ("oracle", "x"),
            database.UnknownAdapter,
            "no adapter 'oracle': use one of mysql, postgresql, snakesql, sqlite",
        ),
        (("", "x"), database.UnknownAdapter, "no adapter ''"),
        (("sqlite", ""), database.ParameterError, "database='' is empty"),
        (("sqlite", None), database.ParameterError, "database=None is"),
        (("sqlite", "a\0b"), database.ParameterError, "is not the path of a file"),
        (("postgresql", ""), database.ParameterError, "the name of the database"),
        (("sqlite", "x", "me"), database.ParameterError, "takes no user: it opens a file, so leave user out"),
        (("sqlite", "x", "", "pw-secret"), database.ParameterError, "takes no password"),
        (("sqlite", "x", "", "", "h"), database.ParameterError, "takes no host"),
        (("sqlite", "x", "", "", "", 5), database.ParameterError, "takes no port"),
        (("sqlite", "x", "", "", "", None, "s"), database.ParameterError, "takes no socket"),
    ],
)
def test_wrong_parameters(arguments: tuple[Any, ...], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        database.connect(*arguments)
    assert isinstance(raised.value, database.DatabaseError)
    assert isinstance(raised.value, ValueError)
    assert "pw-secret" not in str(raised.value)


def test_unknown_parameter() -> None:
    with pytest.raises(database.ParameterError, match="knows no parameter 'pool': it takes timeout"):
        database.connect("sqlite", "x", pool=5)


@pytest.mark.parametrize(
    ("adapter", "package", "command"),
    [("postgresql", "psycopg", r"pip install 'psycopg\[binary\]'"), ("mysql", "pymysql", "pip install pymysql")],
)
def test_a_missing_package_is_named(adapter: str, package: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(database.MissingPackage, match=command) as raised:
        database.connect(adapter, "x")
    assert isinstance(raised.value, ImportError)


# Servers, by a package that keeps what it is given


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


def test_what_a_server_is_given(server) -> None:
    database.connect(server.adapter, "shop", "me", "pw", "host", 99, application_name="x")
    names = {"postgresql": "dbname", "mysql": "database"}
    expected = {names[server.adapter]: "shop", "user": "me", "password": "pw", "host": "host", "port": 99}
    assert expected.items() <= server.given.items()
    assert server.given["application_name"] == "x"
    assert server.given["connect_timeout"] == 10
    assert server.given.get("client_flag") == {"postgresql": None, "mysql": 2}[server.adapter]
    database.connect(server.adapter, "shop", socket="/run/s")
    assert server.given[{"postgresql": "host", "mysql": "unix_socket"}[server.adapter]] == "/run/s"
    assert not {"user", "password", "port"} & server.given.keys()


def test_a_server_that_refuses_is_named_and_no_password_is_shown(server) -> None:
    server.error = FakeError("no entry\nfor me with pw-secret")
    with pytest.raises(database.ConnectionFailed) as raised:
        database.connect(server.adapter, "shop", "me", "pw-secret", "db.example", 99)
    text = str(raised.value)
    assert text.startswith(
        f"{server.adapter} database 'shop': no entry for me with ***; check that the server runs at "
    )
    assert "db.example:99" in text
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    server.error = TypeError("unexpected keyword argument 'colour'")
    with pytest.raises(database.ParameterError, match="unexpected keyword argument 'colour'"):
        database.connect(server.adapter, "shop", colour=1)


def test_statements_for_a_server(server) -> None:
    connection = database.connect(server.adapter, "shop")
    cursor = connection.cursor()
    assert cursor.execute("SELECT '?', ? WHERE b LIKE 'a%'", [1]) is cursor
    cursor.execute("SELECT '100%', '?'")
    cursor.execute("SELECT 1 ?? 2", None)
    cursor.executemany("INSERT INTO t VALUES (?)", iter([[1], [2]]))
    assert server.bases[0].calls == [
        ("SELECT '?', %s WHERE b LIKE 'a%%'", (1,)),
        ("SELECT '100%', '?'",),
        ("SELECT 1 ? 2",),
        ("INSERT INTO t VALUES (%s)", [(1,), (2,)]),
    ]
    assert cursor.fetchall() == [(1,), (2,)]
    assert cursor.lastrowid is None
    assert connection.inTransaction
    assert connection.quoted("a") == {"postgresql": '"a"', "mysql": "`a`"}[server.adapter]


@pytest.mark.parametrize(
    ("sql", "postgresql", "mysql"),
    [
        ("a = ? AND b = ?", "a = %s AND b = %s", None),
        ("'?' ?", "'?' %s", None),
        ("'it''s ?' ?", "'it''s ?' %s", None),
        ('"?" ?', '"?" %s', None),
        ('"a""?" ?', '"a""?" %s', None),
        ("-- ?\n?", "-- ?\n%s", None),
        ("/* ? */ ?", "/* ? */ %s", None),
        ("/* /* ? */ ? */ ?", "/* /* ? */ ? */ %s", "/* /* ? */ %s */ %s"),
        ("$$ ? $$ ?", "$$ ? $$ %s", "$$ %s $$ %s"),
        ("$a$ ? $$ ? $a$ ?", "$a$ ? $$ ? $a$ %s", "$a$ %s $$ %s $a$ %s"),
        ("$1$ ?", "$1$ %s", None),
        ("a$$?", "a$$%s", None),
        (r"'\' ?", r"'\' %s", r"'\' ?"),
        (r"E'\' ?' ?", r"E'\' ?' %s", None),
        (r"'a\'?' ?", r"'a\'%s' ?", r"'a\'?' %s"),
        ("`?` ?", "`%s` %s", "`?` %s"),
        ("# ?\n?", "# %s\n%s", "# ?\n%s"),
        ("1--?", "1--?", "1--%s"),
        ("a ?? b ???", "a ? b ?%s", None),
        ("'50%' % ?", "'50%%' %% %s", None),
        ("-- 50%", "-- 50%%", None),
        ("'open ?", "'open ?", None),
        ("/* open ?", "/* open ?", None),
        ("$$ open ?", "$$ open ?", "$$ open %s"),
        ("", "", None),
    ],
)
def test_placeholders(sql: str, postgresql: str, mysql: str | None) -> None:
    assert translate(sql) == postgresql
    assert translate(sql, mysql=True) == (postgresql if mysql is None else mysql)


def test_placeholders_take_time_in_proportion() -> None:
    for sql in ("'" * 99_999, "/*" * 50_000, "$a$" * 50_001, "E'" * 50_001, "?" * 100_000):
        translate(sql)
        translate(sql, mysql=True)


# Connection and Cursor, on SQLite


def test_every_member_of_the_cursor(connection) -> None:
    cursor = connection.cursor()
    assert cursor.connection is connection
    assert isinstance(cursor.baseCursor, sqlite3.Cursor)
    assert cursor.execute("INSERT INTO t VALUES (?, ?)", (1, "é")) is cursor
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (1, 1, None)
    cursor.executemany("INSERT INTO t (b) VALUES (?)", (["x"] for _ in range(9)))
    assert cursor.rowcount == 9
    cursor.execute("SELECT a, b FROM t ORDER BY a")
    assert [column[0] for column in cursor.description] == ["a", "b"]
    assert cursor.fetchone() == (1, "é")
    assert cursor.fetchmany() == [(2, "x")]
    cursor.arraysize = 2
    assert (cursor.arraysize, cursor.fetchmany(), cursor.fetchmany(1)) == (2, [(3, "x"), (4, "x")], [(5, "x")])
    assert next(cursor) == (6, "x")
    assert list(cursor) == [(n, "x") for n in (7, 8, 9, 10)]
    assert (cursor.fetchone(), cursor.fetchall()) == (None, [])
    cursor.setinputsizes([1])
    cursor.setoutputsize(1)
    cursor.close()
    cursor.close()
    with pytest.raises(
        database.ConnectionClosed, match=r"cursor is closed: take a new one from connection\.cursor\(\)"
    ):
        cursor.fetchone()


@pytest.mark.parametrize("values", ["abc", b"abc", 5, {"a": 1}])
def test_values_that_are_no_list(connection, values: Any) -> None:
    with pytest.raises(TypeError, match="list"):
        connection.cursor().execute("SELECT ?", values)
    with pytest.raises(TypeError, match="list"):
        connection.cursor().executemany("SELECT ?", [values])


def test_transactions(connection, file: str) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1").fetchall()
    assert not connection.inTransaction
    cursor.execute("INSERT INTO t (b) VALUES ('one')")
    assert connection.inTransaction
    assert rows(file) == []
    connection.commit()
    assert not connection.inTransaction
    cursor.execute("INSERT INTO t (b) VALUES ('two')")
    connection.rollback()
    assert rows(file) == [("one",)]
    connection.commit()
    cursor.execute("INSERT INTO t (b) VALUES ('three')")
    connection.close()
    connection.close()
    assert rows(file) == [("one",)]
    assert connection.closed
    for use in ("commit", "rollback", "cursor", "detach"):
        with pytest.raises(database.ConnectionClosed, match="this database connection is closed"):
            getattr(connection, use)()
    for member in ("baseConnection", "inTransaction"):
        with pytest.raises(database.ConnectionClosed):
            getattr(connection, member)
    with pytest.raises(database.ConnectionClosed):
        cursor.execute("SELECT 1")
    assert "closed" in repr(connection)


def test_tables_and_quotes(connection) -> None:
    assert (connection.hasTable("t"), connection.hasTable("T"), connection.hasTable("u")) == (True, True, False)
    name = 'a"b'
    connection.cursor().execute(f"CREATE TABLE {connection.quoted(name)} (a)")
    assert connection.hasTable(name)


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


def test_hooks_join_the_transaction(connection, file: str) -> None:
    events: list[str] = []
    hook = Hook(events)
    connection.addHook(hook)
    connection.addHook(hook)
    connection.commit()
    assert (events, rows(file)) == (["before", "after"], [("hook",)])
    connection.cursor().execute("INSERT INTO t (b) VALUES ('lost')")
    connection.rollback()
    assert (events.pop(), len(rows(file))) == ("rollback", 1)
    connection.removeHook(hook)
    connection.removeHook(hook)
    connection.commit()
    assert events == ["before", "after"]


@pytest.mark.parametrize("fail", ["before", "after", "rollback"])
def test_a_hook_that_fails(fail: str, connection, file: str) -> None:
    events: list[str] = []
    connection.addHook(Hook(events, fail))
    connection.addHook(Hook(events))
    with pytest.raises(LookupError):
        connection.rollback() if fail == "rollback" else connection.commit()
    if fail == "before":
        assert (events, connection.inTransaction, rows(file)) == (["before"], True, [])
        with pytest.raises(LookupError):
            connection.commit()
        connection.rollback()
    else:
        assert events[-2:] == [fail, fail], "the other hook is told too"
        assert len(rows(file)) == (2 if fail == "after" else 0)


def test_a_commit_that_the_database_refuses_leaves_the_transaction_and_the_hooks(connection, file: str) -> None:
    connection.cursor().execute("PRAGMA foreign_keys = ON")
    connection.cursor().execute("CREATE TABLE u (a REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
    events: list[str] = []
    connection.addHook(Hook(events))
    connection.cursor().execute("INSERT INTO u VALUES (99)")
    with pytest.raises(sqlite3.IntegrityError):
        connection.commit()
    assert (events, connection.inTransaction, rows(file)) == (["before"], True, [])
    connection.cursor().execute("DELETE FROM u")
    connection.commit()
    assert events == ["before", "before", "after"]


def test_a_hook_must_not_commit(connection) -> None:
    class Committing(Hook):
        def before_commit(self, connection) -> None:
            connection.commit()

    connection.addHook(Committing([]))
    with pytest.raises(database.DatabaseError, match=r"a hook must not call commit\(\)"):
        connection.commit()


# Middleware.


def ask(application, **over: Any) -> str:
    environ: dict[str, Any] = {"QUERY_STRING": "", **over}
    setup_testing_defaults(environ)
    body = validator(application)(environ, lambda status, headers, exc_info=None: print)
    try:
        return b"".join(body).decode()
    finally:
        body.close()


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


def insert(environ, text: str = "x") -> None:
    environ["web.database.cursor"].execute("INSERT INTO t (b) VALUES (?)", [text])


def idle(middleware: Database) -> int:
    return len(middleware._pool._idle.connections)


class Committing(BaseApplication):
    def start(self) -> None:
        insert(self.environ, "kept")
        self.environ["web.database.connection"].commit()
        insert(self.environ, "lost")


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

    monkeypatch.setattr("web.wsgi.database._Pool.release", release)
    with pytest.raises((AssertionError, sqlite3.Error)):
        concurrent_requests(make(Counting(), timeout=0.2))


def test_eight_threads_open_a_new_file_at_once(file: str) -> None:
    together = threading.Barrier(8)

    def open_it(_: int) -> None:
        together.wait(120)
        database.connect("sqlite", file, autoCreate=True).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_it, range(8)))
