"""What the races do in each request, and a process that does it: `python worker.py URL COOKIE JOB NUMBER COUNT PAUSE`.

The process says "ready", waits for a line, sends itself COUNT requests through the middleware, and says nothing more.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

from coatcheck import Session
from coatcheck.wsgi import SessionMiddleware

Job = Callable[[Session, int, int, float], None]


def increment(session: Session, number: int, n: int, pause: float) -> None:
    session.increment("hits")
    time.sleep(pause)


def read_and_increment(session: Session, number: int, n: int, pause: float) -> None:
    """Count up after looking, as most applications do."""
    assert session.get("hits", 0) >= n
    time.sleep(pause)
    session.increment("hits")


def write_own_keys(session: Session, number: int, n: int, pause: float) -> None:
    session[f"{number}-{n}"] = n
    session[f"last of {number}"] = n
    time.sleep(pause)


def read_and_write_own_keys(session: Session, number: int, n: int, pause: float) -> None:
    """Write a key of one's own after listing them all."""
    assert sum(key.startswith(f"{number}-") for key in session) == n
    time.sleep(pause)
    session[f"{number}-{n}"] = n


def append(session: Session, number: int, n: int, pause: float) -> None:
    """Change a list in place that everybody else changes."""
    items = session.setdefault("items", [])
    time.sleep(pause)
    items.append(number * 1000 + n)


def update(session: Session, number: int, n: int, pause: float) -> None:
    session.update_with("total", lambda total: total + number + 1, 0)
    time.sleep(pause)


def fill_cart(session: Session, number: int, n: int, pause: float) -> None:
    """Count in a cart as everybody writes it."""
    cart = session.setdefault("cart", Counter())
    time.sleep(pause)
    cart["hat"] += 1
    cart[f"{number}"] += n


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (increment, read_and_increment, write_own_keys, read_and_write_own_keys, append, update, fill_cart)
}


def expected(job: str, workers: int, count: int) -> Callable[[dict[str, Any]], None]:
    """Give the check of what the session has to hold when all of them are through."""

    def check(found: dict[str, Any]) -> None:
        if "increment" in job:
            assert found == {"hits": workers * count}
        elif "own_keys" in job:
            if job == "write_own_keys":  # a key that is there already is not set back by somebody else's write
                assert [found.pop(f"last of {number}") for number in range(workers)] == [count - 1] * workers
            assert found == {f"{number}-{n}": n for number in range(workers) for n in range(count)}
        elif job == "append":
            items = found.pop("items")
            assert not found
            assert len(items) == workers * count
            for number in range(workers):  # each once, and in the order in which they were appended
                assert [item % 1000 for item in items if item // 1000 == number] == list(range(count))
        elif job == "fill_cart":
            total = sum(range(count))
            assert found == {"cart": Counter(hat=workers * count, **{f"{n}": total for n in range(workers)})}
        else:
            assert found == {"total": count * sum(range(1, workers + 1))}

    return check


def main(url: str, cookie: str, job: str, number: int, count: int, pause: float) -> None:
    turns = iter(range(count))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        JOBS[job](environ["coatcheck.session"], number, next(turns), pause)
        start_response("200 OK", [])
        return [b"done"]

    site = SessionMiddleware(app, url)
    print("ready", flush=True)  # noqa: T201 (the parent waits for it)
    sys.stdin.readline()
    for _ in range(count):
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTP_COOKIE": cookie}
        setup_testing_defaults(environ)
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        body = site(environ, lambda *answer, into=answers: into.append(answer[:2]))  # type: ignore[arg-type]
        list(body)
        if close := getattr(body, "close", None):
            close()
        status, headers = answers[-1]
        assert status == "200 OK", status
        assert "Set-Cookie" not in dict(headers), "the session was lost"


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]), float(sys.argv[6]))
