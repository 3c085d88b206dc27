"""The database of the whole stack goes away while programs use it. The next request makes it anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults

import pytest

from web.database import connect
from web.wsgi.base import BaseApplication
from web.wsgi.database import Database
from web.wsgi.environment import Environment
from web.wsgi.session import Session


class Visits(BaseApplication):
    def start(self) -> None:
        store = self.environ["web.session.store"]
        store["visits"] = store.get("visits", 0) + 1
        self.output(store["visits"])
        self.environ["web.database.connection"].commit()


class Together(Visits):
    """Holds each request until another one has a connection too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.barrier = Barrier(number)

    def start(self) -> None:
        self.barrier.wait(60)
        super().start()


def stack(application: WSGIApplication, file: Path) -> Database:
    inner = Session(application, app="visits", setupEnvironment=True)
    return Database(Environment(inner, "site", "database"), "sqlite", str(file), autoCreate=True)


def visit(application: WSGIApplication, cookie: str = "") -> tuple[str, str]:
    """Send a request; give the body and the cookie to send with the next one."""
    environ: dict[str, Any] = {"HTTP_COOKIE": cookie}
    setup_testing_defaults(environ)
    found = [cookie]

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[..., None]:
        assert status == "200 OK"
        found.extend(value.partition(";")[0] for name, value in headers if name == "Set-Cookie")
        return print

    body = application(environ, start_response)
    text = b"".join(body).decode()
    if hasattr(body, "close"):
        body.close()
    return text, found[-1]


def remove_all(file: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)


def remove_the_file_alone(file: Path) -> None:
    file.unlink()


def move_the_file_alone(file: Path) -> None:
    file.rename(file.parent / "old.db")


def remove_the_folder(file: Path) -> None:
    remove_all(file)
    file.parent.rmdir()
    file.parent.mkdir()


WAYS = (remove_all, remove_the_file_alone, move_the_file_alone, remove_the_folder)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """How the file goes away."""
    chosen: Callable[[Path], None] = request.param
    return chosen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "site.db"


@pytest.mark.parametrize("size", [1, 3], ids=["one connection", "three connections"])
def test_the_next_request_makes_it_anew(file: Path, way: Callable[[Path], None], size: int) -> None:
    """Also where the new file gets the number of the old one, as on ext4 it does."""
    application = Visits()
    served = stack(application, file)
    if size > 1:
        crowd = stack(Together(size), file)
        crowd._pool = served._pool
        with ThreadPoolExecutor(size) as threads:
            list(threads.map(lambda _: visit(crowd), range(size)))
    cookie = visit(served)[1]
    assert visit(served, cookie)[0] == "2"
    for _ in range(3):
        way(file)
        text, new = visit(served, cookie)
        assert text == "1"  # the sessions are gone with their file
        assert new != cookie
        assert visit(served, new)[0] == "2"
        cookie = new
        (file.parent / "old.db").unlink(missing_ok=True)
    served.close()
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_request_in_flight_keeps_its_file_and_hurts_nobody(file: Path, way: Callable[[Path], None]) -> None:
    served = stack(Visits(), file)
    visit(served)

    class Slow(Visits):
        def start(self) -> None:
            way(file)
            visit(served)  # another request, before this one has written
            super().start()

    visit(stack(Slow(), file))
    for _ in range(2):
        text, cookie = visit(served)
        assert (text, visit(served, cookie)[0]) == ("1", "2")
    served.close()
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("ends", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids=str)
def test_a_log_that_was_removed_alone_takes_nothing_with_it(file: Path, ends: list[str]) -> None:
    served, together = stack(Visits(), file), stack(Together(3), file)
    cookie = visit(served)[1]
    for end in ends:
        Path(f"{file}{end}").unlink()
    assert visit(served, cookie)[0] == "2"
    with ThreadPoolExecutor(3) as threads:  # more connections than before
        assert list(threads.map(lambda _: visit(together)[0], range(3))) == ["1"] * 3
    assert visit(served, cookie)[0] == "3"
    served.close()
    together.close()


@pytest.mark.parametrize(
    ("storage", "url"), [("sqlite", "sqlite:///{}/site.db"), ("filesystem", "filesystem:///{}/sessions")]
)
def test_storage_of_the_sessions_own_is_made_anew(file: Path, storage: str, url: str) -> None:
    class Count(BaseApplication):
        def start(self) -> None:
            store = self.environ["web.session.store"]
            store["visits"] = store.get("visits", 0) + 1
            self.output(store["visits"])

    inner = Session(Count(), app="visits", setupEnvironment=True, url=url.format(file.parent))
    served = Environment(inner, "site", storage)
    cookie = visit(served)[1]
    for _ in range(3):
        assert visit(served, cookie)[0] == "2"
        for path in file.parent.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        text, new = visit(served, cookie)
        assert (text, new != cookie) == ("1", True)
        cookie = new


def test_no_handle_is_left_of_files_that_are_gone(file: Path) -> None:
    served = stack(Visits(), file)
    visit(served)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- the count, with nothing open for it
    for _ in range(20):
        remove_all(file)
        visit(served)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    served.close()


def test_two_connections_to_one_file_know_it(file: Path) -> None:
    one, two = (connect("sqlite", str(file), autoCreate=1) for _ in range(2))
    assert one.identity == two.identity
    remove_all(file)
    three = connect("sqlite", str(file), autoCreate=1)
    assert one.identity != three.identity
    for each in (one, two, three):
        each.close()
