"""Count the Python calls of a request on SQLite, and how often they move from one module to another.

    python bench/calls.py              a table of the cases
    python bench/calls.py --trace      and every call, indented by its depth

Each case is counted twice: the manager alone (open, act, save), and the same behind the WSGI middleware. A call is one
of a Python function of coatcheck, resumed generators included; calls of C and of the standard library are not counted.
A move is a call that follows a call of another module. Counts are the same on every machine, so two versions can be
compared on a busy one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import coatcheck
from coatcheck import Session, SessionManager
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

_ROOT: Final = Path(coatcheck.__file__).resolve().parent
_WARM: Final = 3


def _read(session: Session) -> None:
    assert session["seed"] == "here"


def _append(session: Session) -> None:
    session["cart"].append("hat")


def _assign(session: Session) -> None:
    session["colour"] = "red"


def _nothing(_session: Session) -> None:
    pass


CASES: Final[dict[str, Callable[[Session], None]]] = {
    "untouched": _nothing,
    "read": _read,
    "change in place": _append,
    "write unread": _assign,
}


class Call(NamedTuple):
    """One call.

    Attributes:
        depth: How many calls of coatcheck it stands in.
        module: The module of the function.
        function: Its name.
    """

    depth: int
    module: str
    function: str


def traced(run: Callable[[], object]) -> list[Call]:
    """Return the calls of coatcheck's functions that *run* makes."""
    calls: list[Call] = []
    depth = 0

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal depth
        code = frame.f_code
        if event not in {"call", "return"} or not code.co_filename.startswith(str(_ROOT)):
            return
        if event == "return":
            depth -= 1
            return
        module = str(Path(code.co_filename).relative_to(_ROOT).with_suffix(""))
        calls.append(Call(depth, module, code.co_qualname))
        depth += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def moves(calls: list[Call]) -> int:
    """Return how often the next call is of another module than the last one."""
    return sum(one.module != other.module for one, other in pairwise(calls))


def through_manager(manager: SessionManager, cookie: str, act: Callable[[Session], None]) -> None:
    """Do one request as an adapter would."""
    session = manager.open([cookie])
    act(session)
    manager.save(session, final=True)


def through_middleware(site: WSGIApplication, cookie: str) -> None:
    """Do one request as a server would."""
    body: Any = site({"wsgi.url_scheme": "https", "HTTP_COOKIE": cookie}, lambda *_: lambda _data: None)
    list(body)
    if (close := getattr(body, "close", None)) is not None:
        close()


def application(act: Callable[[Session], None]) -> WSGIApplication:
    """Return an application that does one thing with its session."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    return app


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", action="store_true", help="print every call too")
    trace = parser.parse_args().trace
    with tempfile.TemporaryDirectory() as folder:
        manager = SessionManager(f"sqlite:///{folder}/sessions.db")
        visitor = manager.open([])
        visitor.update(seed="here", cart=["umbrella"], colour="blue")
        cookie = str(manager.save(visitor).set_cookie).partition(";")[0]
        print(f"{'':16} {'manager':>13}   {'middleware':>13}")
        print(f"{'case':16} {'calls':>6} {'moves':>6}   {'calls':>6} {'moves':>6}")
        for name, act in CASES.items():
            site = SessionMiddleware(application(act), manager)
            runs = (partial(through_manager, manager, cookie, act), partial(through_middleware, site, cookie))
            os.utime(folder, (0, 0))  # at rest: SQLite's driver looks closer while files come and go beside its own
            for _ in range(_WARM):
                for run in runs:
                    run()
            first, second = map(traced, runs)
            print(f"{name:16} {len(first):6} {moves(first):6}   {len(second):6} {moves(second):6}")
            for call in second if trace else ():
                print(f"    {'  ' * call.depth}{call.module}: {call.function}")
        manager.close()


if __name__ == "__main__":
    main()
