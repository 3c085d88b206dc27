"""What races and forced interleavings do to one session of one library."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from client import Reply, ask
from rivals import common
from rivals.common import Subject

CLIENTS: Final = 8
REQUESTS: Final = 100

Counted = Callable[[Callable[[], object]], dict[str, int]]


class _Events(logging.Handler):
    """Counts the conflicts that coatcheck tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.conflicts = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.conflicts += "conflict" in record.getMessage()


def commands(subject: Subject, counted: Counted | None) -> dict[str, Callable[..., Any]]:
    """Give what a worker can be asked for."""
    contest = _Contest(subject)
    known: dict[str, Callable[..., Any]] = {
        "race": contest.race,
        "logout": contest.logout,
        "overtaken_reader": contest.overtaken_reader,
        "two_appends": contest.two_appends,
    }
    if counted is not None:
        known["statements"] = lambda path: contest.statements(path, counted)
    return known


class _Contest:
    def __init__(self, subject: Subject) -> None:
        self._app = subject.app

    def _ask(self, path: str, cookie: str = "", argument: str = "") -> Reply:
        return ask(self._app, path, cookie, argument)

    def _new(self) -> str:
        return self._ask("/create").cookie

    def _values(self, cookie: str) -> dict[str, Any]:
        reply = self._ask("/dump", cookie)
        values: dict[str, Any] = json.loads(reply.body) if reply.status == 200 else {}
        return values

    def race(self, path: str) -> dict[str, int]:
        """Let clients do requests on one session at once; count what was answered with 200 and is not there."""
        cookie = self._new()
        events = _Events()
        logging.getLogger("coatcheck").addHandler(events)
        start = threading.Barrier(CLIENTS)

        def client(number: int) -> int:
            start.wait()
            replies = (self._ask(path, cookie, f"key{number}_{turn}") for turn in range(REQUESTS))
            return sum(reply.status == 200 for reply in replies)

        with ThreadPoolExecutor(CLIENTS) as pool:
            acknowledged = sum(pool.map(client, range(CLIENTS)))
        logging.getLogger("coatcheck").removeHandler(events)
        values = self._values(cookie)
        kept = sum(key.startswith("key") for key in values) if path == "/own_key" else int(values.get("count", 0))
        return {
            "acknowledged": acknowledged,
            "refused": CLIENTS * REQUESTS - acknowledged,
            "lost": acknowledged - kept,
            "told": events.conflicts,
        }

    def _overtaken(self, path: str, cookie: str, overtake: Callable[[], object], argument: str = "") -> Reply:
        """Hold a request in its handler, run *overtake*, let it go on."""
        gate = common.close_gate()
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(self._ask, path, cookie, argument)
            try:
                assert gate.reached.wait(20), path
                overtake()
            finally:
                gate.opened.set()
            return held.result()

    def logout(self, path: str) -> dict[str, Any]:
        """Log out while another request of that session runs; say whether what was stored is there again."""
        cookie = self._new()
        late = self._overtaken(path, cookie, lambda: self._ask("/logout", cookie))
        revived = [known for known in (cookie, late.cookie) if known and "name" in self._values(known)]
        return {"revived": bool(revived), "status": late.status, "set_cookie": late.was_set}

    def overtaken_reader(self) -> dict[str, Any]:
        """Let a request that only reads end after one that wrote; say whether the write is still there."""
        cookie = self._new()
        self._overtaken("/held_read", cookie, lambda: self._ask("/write", cookie))
        return {"kept": self._values(cookie).get("name") == "da LovelaceA"}

    def two_appends(self) -> dict[str, Any]:
        """Let two requests append to one list; say what of it is there."""
        cookie = self._ask("/append", self._new(), "first").cookie
        self._overtaken("/held_append", cookie, lambda: self._ask("/append", cookie, "fast"), "slow")
        return {"items": self._values(cookie).get("items", [])}

    def statements(self, path: str, counted: Counted) -> dict[str, int]:
        """Count the SQL statements of one request of a known visitor."""
        cookie = self._new()
        for _ in range(3):
            self._ask(path, cookie)
        return counted(lambda: self._ask(path, cookie))
