"""A site whose database goes away, in every way in which one can."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Event, EventKind, Session, SessionManager
from coatcheck.drivers.sqlite import SQLiteDriver, connect
from coatcheck.wsgi import SessionMiddleware

GENERIC = b"The service is temporarily unavailable. Please try again in a moment.\n"


Handler = Callable[[Session], object]


class Site:
    """An application on an SQLite file in a folder of its own, and one browser."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "sessions.db"
        self.driver = SQLiteDriver(self.path, timeout=0.1)
        self.events: list[Event] = []
        self.manager = SessionManager(self.driver, listeners=[self.events.append])
        self.cookie: str | None = None
        self.reached: list[str] = []

    def get(self, handler: Handler, *, stream: bool = False) -> tuple[str, dict[str, str], bytes]:
        """Send a request; keep the cookie of its answer, as a browser does."""

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            result = handler(environ["coatcheck.session"])
            self.reached.append("the page was made")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return iter([repr(result).encode()]) if stream else [repr(result).encode()]

        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "REQUEST_METHOD": "GET"}
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = self.cookie
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        body = SessionMiddleware(app, self.manager)(environ, lambda *answer: answers.append(answer[:2]))  # type: ignore[arg-type]
        try:
            said = b"".join(body)
        finally:
            if close := getattr(body, "close", None):
                close()
        ((status, headers),) = answers
        assert len({name for name, _ in headers}) == len(headers)
        found = dict(headers)
        if "Set-Cookie" in found:
            pair = found["Set-Cookie"].partition(";")[0]
            self.cookie = None if "Max-Age=0" in found["Set-Cookie"] else pair
        return status, found, said

    def assert_refused(self, handler: Handler, *, stream: bool = False) -> None:
        """The answer is 503 and says when to come again, and neither sets nor deletes a cookie, nor says why."""
        before = self.cookie
        self.events.clear()
        status, headers, body = self.get(handler, stream=stream)
        assert status == "503 Service Unavailable"
        assert int(headers["Retry-After"]) > 0
        assert "Set-Cookie" not in headers
        assert headers["Cache-Control"] == "no-store"
        assert body == GENERIC, "a reason, a path or half a page went to the client (G4)"
        assert self.cookie == before
        assert [event.kind for event in self.events] == [EventKind.UNAVAILABLE]


def read(session: Session) -> object:
    return session["cart"]


def look(session: Session) -> object:
    return "cart" in session, session.user


def write(session: Session) -> None:
    session["cart"] = "x" * 20_000


def edit(session: Session) -> None:
    session["cart"].append("x" * 20_000)


def increment(session: Session) -> None:
    session.increment("n")


def log_in(session: Session) -> object:
    session.login("bob")
    return "welcome, bob"


def log_out(session: Session) -> object:
    session.logout()
    return "you are logged out"


def rotate(session: Session) -> None:
    session.rotate()


@contextmanager
def folder_removed(site: Site) -> Iterator[None]:
    """The folder is away when a process starts to use the driver, as a mount that failed."""
    site.manager.close()
    away = site.path.parent.with_name("away")
    site.path.parent.rename(away)
    yield
    away.rename(site.path.parent)


@contextmanager
def locked_for_readers_too(site: Site) -> Iterator[None]:
    """Another process has the whole file to itself (`locking_mode=EXCLUSIVE`, as some backup tools)."""
    site.manager.close()
    with other_process(site.path, "PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM coatcheck_fence"):
        yield


@contextmanager
def damaged(site: Site) -> Iterator[None]:
    """Every page but the first is overwritten."""
    site.manager.close()
    data = site.path.read_bytes()
    site.path.write_bytes(data[:4096] + b"\x5a" * (len(data) - 4096))
    yield
    site.manager.close()
    site.path.write_bytes(data)


@contextmanager
def tables_missing(site: Site) -> Iterator[None]:
    """Somebody renamed the tables while connections were open."""
    with closing(sqlite3.connect(site.path)) as raw:
        raw.execute("ALTER TABLE coatcheck_session RENAME TO kept")
    yield
    with closing(sqlite3.connect(site.path)) as raw:
        raw.execute("ALTER TABLE kept RENAME TO coatcheck_session")


@contextmanager
def locked_for_writers(site: Site) -> Iterator[None]:
    """Another process is in a long transaction, as a migration or a slow import."""
    with other_process(site.path, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def no_more_pages(site: Site) -> Iterator[None]:
    """The database may not grow: a quota, which every connection has from its beginning."""
    site.manager.close()
    configure = connect.configure

    def limited(connection: sqlite3.Connection, settings: connect.Settings) -> None:
        configure(connection, settings)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "configure", limited)
        yield
    site.manager.close()


@contextmanager
def file_size_limit(site: Site) -> Iterator[None]:
    """The kernel lets no file grow: what SQLite's write to its log gets is a real EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(site.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM coatcheck_session").fetchone()  # so that the log is not begun anew
        site.manager.save(_grown(site))
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{site.path}-wal").stat().st_size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _grown(site: Site) -> Session:
    """Another visitor's session, large enough for the log to be larger than the index beside it."""
    session = site.manager.open(())
    session["large"] = "x" * 50_000
    return session


@contextmanager
def other_process(path: Path, *statements: str) -> Iterator[None]:
    """Another process runs *statements* and holds on to what they locked."""
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n"
        "for statement in sys.argv[2:]: connection.execute(statement)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
        "connection.rollback()\n"
    )
    command = [sys.executable, "-c", program, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        yield
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(120) == 0


Trouble = Callable[[Site], Any]
ALL_DOWN: list[Trouble] = [folder_removed, locked_for_readers_too, damaged, tables_missing]
READ_ONLY: list[Trouble] = [locked_for_writers, no_more_pages, file_size_limit]
