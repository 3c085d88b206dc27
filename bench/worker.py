"""One library in one process. Reads commands from standard input, one JSON object a line, and answers likewise.

Every library has a process of its own, so that none runs with another one's modules, garbage or settings. The
processes take turns: while one works, the others wait.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import contest
from client import ask, request_of, timed
from rivals import raw_sqlite
from rivals.common import Subject

MODULES: Final = {
    "coatcheck": "rivals.coatcheck_wsgi",
    "Beaker": "rivals.beaker_wsgi",
    "Django": "rivals.django_wsgi",
    "Flask-Session": "rivals.flask_wsgi",
}
_STORED: Final = 500  # sessions that are there before anything is measured
_WARM_UP: Final = 2
_BATCH: Final = 0.004  # seconds that a batch of requests takes, about
_MOST: Final = 1000  # requests in a batch


class Timing:
    """Times batches of one kind of request, with sessions and without, right after each other."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        small = [ask(subject.app, "/create").cookie for _ in range(_STORED)][_STORED // 2]
        big = ask(subject.app, "/fill", ask(subject.app, "/create").cookie).cookie
        self._cookies = {"create": "", "change_big": big}
        self._small = small
        self._sizes: dict[str, tuple[int, int]] = {}
        assert ask(subject.app, "/read", small).body == b"Ada Lovelace"
        before = json.loads(ask(subject.app, "/dump", big).body)
        assert ask(subject.app, "/change_big", big).status == 200
        after = json.loads(ask(subject.app, "/dump", big).body)
        assert [key for key in after if after[key] != before.get(key) and key[0] != "_"] == ["key050"]
        assert ask(subject.app, "/write", small).status == 200
        assert ask(subject.app, "/read", small).body == b"da LovelaceA"

    def __call__(self, case: str, round_number: int) -> list[float]:
        """Give the seconds for one request without and with sessions."""
        environ = request_of(f"/{case}", self._cookies.get(case, self._small))
        pairs = [(self._subject.bare, 0), (self._subject.app, 1)]
        if case not in self._sizes:
            without, with_them = (_size(partial(timed, app, environ)) for app, _ in pairs)
            self._sizes[case] = (without, with_them)
        took = [0.0, 0.0]
        for app, place in reversed(pairs) if round_number % 2 else pairs:
            timed(app, environ, _WARM_UP)
            took[place] = timed(app, environ, self._sizes[case][place])
        return took


class RawTiming:
    """Times batches of the raw statements."""

    def __init__(self, statements: dict[str, Callable[[], object]], work: Callable[[], object]) -> None:
        self._runs = {
            case: (statement, work, _one_after_another(work, statement)) for case, statement in statements.items()
        }
        self._sizes: dict[Callable[[], object], int] = {}

    def __call__(self, case: str, _round_number: int) -> list[float]:
        """Give the seconds for one statement in a loop, for some other work, and for one after the other."""
        took = []
        for run in self._runs[case]:
            if run not in self._sizes:
                self._sizes[run] = _size(partial(_repeated, run))
            _repeated(run, _WARM_UP)
            took.append(_repeated(run, self._sizes[run]))
        return took


def _one_after_another(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    def both() -> None:
        first()
        second()

    return both


def _repeated(statement: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        statement()
    return (time.perf_counter() - start) / times


def _size(run: Callable[[int], float]) -> int:
    """Say how many make a batch."""
    run(_WARM_UP)
    return max(3, min(_MOST, round(_BATCH / min(run(3), run(3)))))


class Trace:
    """Counts the SQL statements that reach SQLite, whichever library sends them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._lock = threading.Lock()
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            self._note("CONNECT")
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.set_trace_callback(self._note)
            return connection

        # Libraries ask for `connect` under either name.
        vars(sqlite3)["connect"] = vars(sqlite3.dbapi2)["connect"] = traced

    def _note(self, text: str) -> None:
        with self._lock:
            self.seen.append(text.upper())

    def counted(self, run: Callable[[], object]) -> dict[str, int]:
        """Give what *run* sends: connections, reads, writes."""
        self.seen.clear()
        run()
        flat = [" ".join(text.split()) for text in self.seen]  # not those that read no table, as Django's at a start
        return {
            "connections": self.seen.count("CONNECT"),
            "reads": sum(text.startswith("SELECT") and " FROM " in text for text in flat),
            "writes": sum(text.startswith(("INSERT", "UPDATE", "DELETE", "REPLACE")) for text in flat),
        }


def main() -> None:
    """Serve the commands."""
    name, engine, variant, purpose = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # a library that prints does not get between
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.captureWarnings(capture=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coatcheck-bench-")))
        commands: dict[str, Callable[..., Any]] = {}
        if name == "raw":
            timing = RawTiming(raw_sqlite.statements(folder), raw_sqlite.work)
            commands = {"versions": lambda: {"SQLite": sqlite3.sqlite_version}, "time": timing}
        else:
            trace = Trace() if purpose == "races" and engine == "sqlite" else None
            subject: Subject = importlib.import_module(MODULES[name]).build(engine, variant == "tuned", folder)
            commands["versions"] = lambda: subject.versions
            if purpose == "races":
                commands |= contest.commands(subject, None if trace is None else trace.counted)
            else:
                commands["time"] = Timing(subject)
        gc.collect()
        gc.freeze()  # what the libraries loaded is not looked through again and again
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            answers.write(json.dumps(commands[command](*arguments)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
