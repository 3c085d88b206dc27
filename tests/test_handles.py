"""Forks, threads that come and go, and thousands of managers: no handle leaks, no connection is in two processes."""

from __future__ import annotations

import collections
import gc
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coatcheck import SessionManager
from coatcheck.drivers.sqlite import SQLiteDriver, connect
from coatcheck.wsgi import SessionMiddleware

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),  # such forks are what is tested
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles in /proc"),
]


def handles(path: object = "") -> list[str]:
    """Give what this process has open, of all or of the database at *path* and its companions."""
    found = []
    for link in os.listdir("/proc/self/fd"):  # noqa: PTH208 (a scandir would be one handle more)
        try:
            target = os.readlink(f"/proc/self/fd/{link}")  # noqa: PTH115 (the same)
        except FileNotFoundError:  # the listing's own
            continue
        if str(path) in target:
            found.append(target)
    return sorted(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def manager(path: Path) -> Iterator[SessionManager]:
    manager = SessionManager(f"sqlite:///{path}?timeout=120")
    yield manager
    manager.close()


@pytest.fixture(autouse=True)
def _no_warning_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection or a file that is left to the garbage collector is an error."""
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    assert not lost, [entry.exc_value for entry in lost]


def new(manager: SessionManager) -> str:
    session = manager.open(())
    session["n"] = 0
    saved = manager.save(session)
    assert saved.set_cookie is not None
    return saved.set_cookie.partition(";")[0]


def add(manager: SessionManager, cookie: str) -> None:
    session = manager.open([cookie])
    assert session["n"] >= 0
    session.increment("n")
    manager.save(session)


def read(manager: SessionManager, cookie: str) -> int:
    return int(manager.open([cookie])["n"])


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a forked process that is gone afterwards, and give the process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001 (the child must not return into the test)
        os.write(2, f"in the child: {error!r}\n".encode())
    finally:
        os._exit(code)


def wait(*pids: int) -> None:
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_that_come_and_go_leave_nothing(manager: SessionManager, path: Path) -> None:
    cookie = new(manager)
    for _ in range(60):
        threads = [threading.Thread(target=add, args=(manager, cookie)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read(manager, cookie) == 300
    gc.collect()
    # This thread's connection has three files; SQLite keeps some handles of closed ones for as long as it lives.
    count = collections.Counter(handles(path))
    assert sum(count.values()) <= 3 + 5, count
    manager.close()
    assert handles(path) == []


def test_a_pool_of_many_threads_is_given_back(manager: SessionManager, path: Path) -> None:
    cookie = new(manager)
    gate = threading.Barrier(41)

    def work() -> None:
        add(manager, cookie)
        gate.wait(120)  # all of them have a connection now
        gate.wait(120)

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    gate.wait(120)
    assert len(handles(path)) >= 80, "each thread has a connection of its own"
    gate.wait(120)
    for thread in threads:
        thread.join()
    assert read(manager, cookie) == 40
    manager.close()
    assert handles(path) == []


# -- opening and closing ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_managers_leave_nothing(path: Path) -> None:
    """Opened, used and closed; every tenth is only dropped."""
    keeper = SessionManager(SQLiteDriver(path))  # its connection keeps SQLite from removing the log each time
    cookie = new(keeper)
    before, pools = len(handles()), len(connect._pools)
    highest = 0
    for n in range(10_000):
        manager = SessionManager(SQLiteDriver(path))
        assert manager.open([cookie]).get("n") == 0
        if n % 10:
            manager.close()
        del manager
        if n % 500 == 0:
            highest = max(highest, len(handles()))
    gc.collect()
    assert len(handles()) <= before + 2
    assert highest <= before + 10
    assert len(connect._pools) <= pools
    keeper.close()
    assert handles(path) == []


@pytest.mark.slow
def test_a_manager_that_is_closed_after_each_request(manager: SessionManager, path: Path) -> None:
    """The last to close removes the log, the next to come makes a new one, and nothing is lost between them."""
    cookie = new(manager)
    before = len(handles())
    for n in range(500):
        add(manager, cookie)
        manager.close()
        assert not Path(f"{path}-wal").exists()
        if n % 100 == 0:
            assert handles(path) == []
    assert read(manager, cookie) == 500
    manager.close()
    assert len(handles()) <= before


def test_a_failed_open_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_bytes(b"certainly no database\n" * 100)
    manager = SessionManager(f"sqlite:///{tmp_path}/sessions.db")
    before = handles()
    for _ in range(200):
        with pytest.raises(Exception, match="not an SQLite database"):
            new(manager)
    assert handles() == before


# -- forks ------------------------------------------------------------------------------------------------------------


def test_forks_while_threads_answer_requests(manager: SessionManager, path: Path) -> None:
    """Children start without a single handle on the database, and what everybody wrote is there."""
    cookie = new(manager)
    stop = threading.Event()
    done = [0] * 4

    def answer(number: int) -> None:
        while not stop.is_set():
            add(manager, cookie)
            done[number] += 1

    def child() -> None:
        assert handles(path) == [], "the connections of the parent are open in the child"
        for _ in range(5):
            add(manager, cookie)
        thread = threading.Thread(target=add, args=(manager, cookie))
        thread.start()
        thread.join()
        wait(in_child(lambda: add(manager, cookie)))  # and a grandchild
        manager.close()
        assert handles(path) == []

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait(*[in_child(child) for _ in range(12)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert read(manager, cookie) == sum(done) + 12 * 7
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_a_parent_that_stops_while_its_children_go_on(manager: SessionManager, path: Path) -> None:
    """What a child acknowledged is there after the parent closed its last connection (its log is not deleted)."""
    cookie = new(manager)
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        add(manager, cookie)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        for _ in range(20):
            add(manager, cookie)
        os.kill(os.getpid(), signal.SIGKILL)  # no last checkpoint

    pids = [in_child(child) for _ in range(3)]
    for _ in pids:
        os.read(ready[0], 1)
    read(manager, cookie)
    manager.close()
    os.write(go[1], b"...")
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert read(manager, cookie) == 3 * 21
    for end in (*ready, *go):
        os.close(end)


APP = '''
"""Counts requests in a session. It is loaded once, in the master, which uses its session before it forks."""
import gc
import os
import coatcheck
from coatcheck.wsgi import SessionMiddleware

DATABASE = {path!r}

def handles():
    found = 0
    for link in os.listdir("/proc/self/fd"):
        try:
            found += DATABASE in os.readlink(f"/proc/self/fd/{{link}}")
        except FileNotFoundError:  # another thread's, closed by now
            pass
    return found

def app(environ, start_response):
    session = environ["coatcheck.session"]
    before = handles()
    if environ["PATH_INFO"] == "/add":
        session.increment("n")
        session.setdefault("pids", set()).add(os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{MASTER}} {{FRESH}} {{before}} {{session.get('n')}}".encode()]

MASTER = os.getpid()
FRESH = None
application = SessionMiddleware(app, f"sqlite:///{{DATABASE}}")
session = application.manager.open(())
session["seed"] = 1
application.manager.save(session)
assert handles() > 0, "the master has a connection open as it forks"

def started_worker(server, worker):
    global FRESH
    FRESH = handles()
'''
CONFIG = """
import site_app
post_fork = site_app.started_worker
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def gunicorn(tmp_path: Path, path: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    pytest.importorskip("gunicorn")
    (tmp_path / "site_app.py").write_text(APP.format(path=str(path)))
    (tmp_path / "config.py").write_text(CONFIG)
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error::ResourceWarning", "-m", "gunicorn", "--preload", "--workers", "2"),
            *("--threads", "4", "--config", "config.py", "--bind", f"127.0.0.1:{port}", "site_app"),
        ],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},  # it leaves a control socket there
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
        yield port, process
    finally:
        process.kill()
        print(process.communicate()[0])  # noqa: T201 (shown where the test fails)


@pytest.mark.slow
def test_gunicorn_with_preload_and_two_workers(
    gunicorn: tuple[int, subprocess.Popen[str]], manager: SessionManager, path: Path
) -> None:
    """The application is loaded and used before the fork, as --preload does. 200 requests, none lost."""
    port, process = gunicorn

    def get(place: str, cookie: str | None) -> tuple[list[int], str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", place, headers={} if cookie is None else {"Cookie": cookie})
        reply = connection.getresponse()
        body = reply.read().decode()
        connection.close()
        assert reply.status == 200, body
        sent = reply.headers["Set-Cookie"]
        return [int(word) if word.isdigit() else -1 for word in body.split()], sent and sent.partition(";")[0]

    _, cookie = get("/add", None)
    assert cookie is not None
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: get("/add", cookie)[0], range(200)))
    last, _ = get("/", cookie)
    assert last[4] == 201
    workers = {line[0] for line in told}
    master = told[0][1]
    assert workers
    assert master not in workers
    assert {line[2] for line in told} == {0}, "a worker began with a connection of the master's"
    assert max(line[3] for line in told) <= 3 * 4 + 3, "handles pile up"

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "ResourceWarning" not in output
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("SELECT count(*) FROM coatcheck_session").fetchone() == (2,)
    raw.close()
    session = manager.open([cookie])
    assert session["n"] == 201
    assert session["pids"] == workers | ({last[0]} & session["pids"])


def test_a_body_that_is_never_closed_by_the_server(path: Path) -> None:
    """A server that crashes between two chunks: the session's connection is given back with the thread's."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["coatcheck.session"]["n"] = 1
        start_response("200 OK", [])
        yield b"first"
        yield b"never asked for"

    middleware = SessionMiddleware(app, f"sqlite:///{path}")

    def serve() -> None:
        body = middleware({"wsgi.url_scheme": "https"}, lambda *_: None)  # type: ignore[arg-type, return-value]
        assert next(iter(body)) == b"first"

    for _ in range(20):
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
    gc.collect()
    assert len(handles(path)) <= 3
    middleware.manager.close()
    assert handles(path) == []
