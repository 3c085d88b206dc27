"""Eight processes at one session on SQLite, all through the middleware: nothing is lost and nothing is done twice."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coatcheck import SessionManager

WORKER = Path(__file__).with_name("worker.py")
expected = runpy.run_path(str(WORKER))["expected"]
PROCESSES = 8

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sessions.db"


def started(url: str, **values: Any) -> str:
    """Give the cookie of a new session."""
    manager = SessionManager(url)
    session = manager.open(())
    session.update(values or {"here": True})
    saved = manager.save(session)
    assert saved.set_cookie is not None
    cookie = saved.set_cookie.partition(";")[0]
    if not values:
        session = manager.open([cookie])
        del session["here"]
        manager.save(session)
    manager.close()
    return cookie


def held(url: str, cookie: str) -> dict[str, Any]:
    manager = SessionManager(url)
    found = dict(manager.open([cookie]))
    manager.close()
    return found


def race(url: str, cookie: str, *jobs: tuple[str, int, float]) -> None:
    """Run a process for each job, let go at once; all have to end well."""
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", WORKER, url, cookie, job, str(number), str(count), str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, (job, count, pause) in enumerate(jobs)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        troubles = [child.communicate(timeout=300)[1] for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [child.returncode for child in children] == [0] * len(children), "\n".join(troubles)


@pytest.mark.parametrize(
    ("job", "count", "pause"),
    [
        ("increment", 500, 0),
        ("read_and_increment", 100, 0.003),
        ("write_own_keys", 100, 0),
        ("read_and_write_own_keys", 100, 0.003),
        ("append", 100, 0),
        ("update", 100, 0),
        ("fill_cart", 100, 0),
    ],
)
def test_eight_processes_lose_nothing(url: str, job: str, count: int, pause: float) -> None:
    cookie = started(url)
    race(url, cookie, *[(job, count, pause)] * PROCESSES)
    expected(job, PROCESSES, count)(held(url, cookie))


def test_different_kinds_of_change_at_once(url: str) -> None:
    """Counters, a list, a running total and keys of one's own, all in one session."""
    cookie = started(url)
    jobs = ["increment", "append", "update", "write_own_keys"] * 2
    race(url, cookie, *[(job, 50, 0.0) for job in jobs])
    found = held(url, cookie)
    assert found.pop("hits") == 100
    assert sorted(found.pop("items")) == [number * 1000 + n for number in (1, 5) for n in range(50)]
    assert found.pop("total") == 50 * (3 + 7)
    assert [found.pop(f"last of {number}") for number in (3, 7)] == [49, 49]
    assert found == {f"{number}-{n}": n for number in (3, 7) for n in range(50)}


def test_a_worker_that_fails_is_seen(url: str) -> None:
    """The races above would be worthless if a child's failure went unseen."""
    cookie = started(url, hits="not a number")
    with pytest.raises(AssertionError, match="NotACounter"):
        race(url, cookie, ("increment", 1, 0.0), ("write_own_keys", 1, 0.0))
