"""What every library is asked to do. The code of each request is here, once; a library's module only carries it."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

Session = MutableMapping[str, Any]
"""What a handler gets: every library's session has these operations of a dict."""

Handler = Callable[[Session, str], str]

SMALL: Final = {"name": "Ada Lovelace", "theme": "dark", "last_page": "/articles/2024/a-page-with-a-name"}
"""A small session: three values."""

_THINK: Final = 0.003
"""Seconds that a handler works between its read and its write, in the races."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One library, ready to be measured.

    Attributes:
        bare: The application without sessions, in the same framework.
        app: The same application with sessions.
        versions: What was measured, by name.
    """

    bare: WSGIApplication
    app: WSGIApplication
    versions: dict[str, str]


def big_values() -> dict[str, str]:
    """Give 100 values of 1,000 characters that hardly compress, the same ones each time."""
    source = random.Random(1)  # noqa: S311 (no secret)
    return {f"key{number:03}": f"{source.getrandbits(4000):01000x}" for number in range(100)}


# -- the requests that are timed ------------------------------------------------------------------------------------


def untouched(_session: Session, _argument: str) -> str:
    """Leave the session alone."""
    return "ok"


def read(session: Session, _argument: str) -> str:
    """Read one value."""
    return str(session["name"])


def write(session: Session, _argument: str) -> str:
    """Read one value and assign another under the same key."""
    name: str = session["name"]
    session["name"] = name[1:] + name[0]
    return "ok"


def assign(session: Session, _argument: str) -> str:
    """Assign a value without looking at the session before."""
    session["last_page"] = f"/articles/{time.perf_counter_ns()}"
    return "ok"


def create(session: Session, _argument: str) -> str:
    """Put the first values into a session; the client comes without a cookie."""
    session.update(SMALL)
    return "ok"


def change_big(session: Session, _argument: str) -> str:
    """Read one of the 100 values of a large session and assign another under the same key."""
    text: str = session["key050"]
    session["key050"] = text[1:] + text[0]
    return "ok"


def fill(session: Session, _argument: str) -> str:
    """Make the large session."""
    session.update(big_values())
    return "ok"


# -- the requests that race -----------------------------------------------------------------------------------------


class Gate:
    """Holds one request in the middle of its handler while another one runs."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        """Tell that the handler is here, and wait."""
        self.reached.set()
        if not self.opened.wait(20):
            raise TimeoutError


gate = Gate()


def close_gate() -> Gate:
    """Give a new gate, through which the next held request goes."""
    global gate  # noqa: PLW0603 (the handlers reach it by name)
    gate = Gate()
    return gate


def own_key(session: Session, argument: str) -> str:
    """Read, work, write a key of its own."""
    session.get("name")
    time.sleep(_THINK)
    session[argument] = "here"
    return "ok"


def count(session: Session, _argument: str) -> str:
    """Read a number, work, write the next number."""
    number: int = session.get("count", 0)
    time.sleep(_THINK)
    session["count"] = number + 1
    return "ok"


def increment(session: Any, _argument: str) -> str:
    """Count with coatcheck's own tool for it."""
    session.get("name")
    time.sleep(_THINK)
    session.increment("count")
    return "ok"


def append(session: Session, argument: str) -> str:
    """Append to a list at once."""
    items: list[str] = session.get("items", [])
    items.append(argument)
    session["items"] = items  # Django and Flask are documented to need the assignment
    return "ok"


def held_append(session: Session, argument: str) -> str:
    """Read a list, be overtaken, append to it."""
    items: list[str] = session.get("items", [])
    gate.pass_through()
    items.append(argument)
    session["items"] = items
    return "ok"


def held_read(session: Session, _argument: str) -> str:
    """Read, be overtaken, end without a change."""
    session.get("name")
    gate.pass_through()
    return "ok"


def held_write(session: Session, _argument: str) -> str:
    """Read, be overtaken, write."""
    session.get("name")
    gate.pass_through()
    session["theme"] = "light"
    return "ok"


def dump(session: Session, _argument: str) -> str:
    """Show all values, as JSON."""
    return json.dumps({key: session[key] for key in list(session.keys())}, default=str)


HANDLERS: Final[dict[str, Handler]] = {
    "/untouched": untouched,
    "/read": read,
    "/write": write,
    "/assign": assign,
    "/create": create,
    "/change_big": change_big,
    "/fill": fill,
    "/own_key": own_key,
    "/count": count,
    "/increment": increment,
    "/append": append,
    "/held_append": held_append,
    "/held_read": held_read,
    "/held_write": held_write,
    "/dump": dump,
}

_READ_ONLY: Final = frozenset({"/untouched", "/read", "/held_read", "/dump"})

PLAIN: Final[Session] = {**SMALL, **big_values()}
"""What the applications without sessions work on instead."""


def answer(
    path: str,
    session: Any,
    argument: str = "",
    *,
    save: Callable[[Any], object] | None = None,
    end: Callable[[Any], object] | None = None,
) -> bytes:
    """Run a request's handler.

    Args:
        path: Which one.
        session: The library's session, or `PLAIN`.
        argument: The query string.
        save: What has to be done with a session after a change, where the library asks for that.
        end: How the library is told to log out.
    """
    if path == "/logout":
        assert end is not None
        end(session)
        return b"ok"
    text = HANDLERS[path](session, argument)
    if save is not None and path not in _READ_ONLY:
        save(session)
    return text.encode()


def plain_wsgi(
    get: Callable[[dict[str, Any]], Any],
    save: Callable[[Any], object] | None = None,
    end: Callable[[Any], object] | None = None,
) -> WSGIApplication:
    """Give a WSGI application without a framework; *get* finds the session in the environ."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = answer(environ["PATH_INFO"], get(environ), environ["QUERY_STRING"], save=save, end=end)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return application


_other_process: Final[list[sqlite3.Connection]] = []


def new_database(folder: Path) -> Path:
    """Make an SQLite file with a write-ahead log, which it keeps. `synchronous` is for each connection to set.

    One more connection stays open and does nothing, as if another process of the server had the file open too.
    Without it a library that opens a connection for each request would pay for a checkpoint at the end of each.
    """
    path = folder / "bench.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # from now on it counts as a user of the log
    _other_process.append(connection)
    return path
