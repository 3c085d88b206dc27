"""Requests that race on one session, of threads, of tasks, or of a process that does them.

    python worker.py URL sync|async COOKIE JOB NUMBER COUNT PAUSE

The process says "ready", waits for a line, sends itself the requests, and says nothing more.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from coatcheck import AsyncSession, AsyncSessionManager, Session, SessionManager

Step = Callable[[Session, int, int], None]


def own_key(session: Session, number: int, n: int) -> None:
    """Write a key of one's own after a look at another's."""
    session.get("0-0")
    session[f"{number}-{n}"] = n


def count(session: Session, number: int, n: int) -> None:
    """Count without a look."""
    session.increment("count")


def append(session: Session, number: int, n: int) -> None:
    """Change a list and a cart in place that everybody else changes."""
    session.setdefault("items", []).append(number * 1000 + n)
    session.setdefault("cart", Counter())["hat"] += 1


JOBS: dict[str, tuple[Step, ...]] = {"keys and counter": (own_key, count), "appends": (append,)}
"""What is done in each turn, a request for each step."""

BLIND = frozenset({count})
"""The steps that need no load."""


def check(job: str, found: dict[str, Any], workers: int, turns: int) -> None:
    """Say whether the session holds all that so many workers did in so many turns."""
    if job == "appends":
        items = found.pop("items")
        assert found == {"cart": Counter(hat=workers * turns)}
        assert sorted(items) == [number * 1000 + n for number in range(workers) for n in range(turns)]
        for number in range(workers):  # in the order in which they were appended
            assert [item % 1000 for item in items if item // 1000 == number] == list(range(turns))
    else:
        assert found.pop("count") == workers * turns
        assert found == {f"{number}-{n}": n for number in range(workers) for n in range(turns)}


def work(manager: SessionManager, cookie: str, job: str, number: int, turns: int, pause: float) -> None:
    """Send the requests of one thread."""
    for n in range(turns):
        for step in JOBS[job]:
            session = manager.open([cookie])
            if step not in BLIND:
                session.get("look")
                time.sleep(pause)
            step(session, number, n)
            assert manager.save(session).set_cookie is None, "the session was lost"


async def work_async(
    manager: AsyncSessionManager, cookie: str, job: str, number: int, turns: int, pause: float
) -> None:
    """Send the requests of one task."""
    for n in range(turns):
        for step in JOBS[job]:
            session: AsyncSession = manager.open([cookie])
            if step not in BLIND:
                await session.load()
                await asyncio.sleep(pause)
            step(session, number, n)
            assert (await manager.save(session)).set_cookie is None, "the session was lost"


def wait() -> None:
    print("ready", flush=True)  # noqa: T201 (the parent waits for it)
    sys.stdin.readline()


def main(url: str, way: str, cookie: str, job: str, number: int, turns: int, pause: float) -> None:
    if way == "sync":
        manager = SessionManager(url)
        wait()
        work(manager, cookie, job, number, turns, pause)
        manager.close()
        return

    async def run() -> None:
        manager = AsyncSessionManager(url)
        wait()
        await work_async(manager, cookie, job, number, turns, pause)
        await manager.close()

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:7]), float(sys.argv[7]))
