"""Eight threads at one session, on memory and SQLite, all through the middleware: nothing is lost or done twice."""

from __future__ import annotations

import runpy
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Session

Site = Any

THREADS = 8
_worker = runpy.run_path(str(Path(__file__).with_name("worker.py")))
JOBS, expected = _worker["JOBS"], _worker["expected"]


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Threads change places every 50 microseconds, so that a race of a few instructions is lost sooner."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    yield
    sys.setswitchinterval(before)


def race(site: Site, secret: str, job: str, count: int, pause: float) -> None:
    gate = threading.Barrier(THREADS)

    def run(number: int) -> None:
        gate.wait(120)
        for n in range(count):
            answer = site.request(lambda session, n=n: JOBS[job](session, number, n, pause), secret)
            assert answer.status == "200 OK"
            assert not answer.set_cookies, "the session was lost"

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))


@pytest.mark.slow
@pytest.mark.parametrize(("job", "count", "pause"), [
    ("increment", 500, 0), ("write_own_keys", 100, 0), ("append", 100, 0), ("update", 100, 0),
    ("read_and_increment", 100, 0.003), ("read_and_write_own_keys", 100, 0.003), ("append", 100, 0.003),
    ("update", 100, 0.003), ("fill_cart", 100, 0),
])  # fmt: skip
def test_eight_threads_lose_nothing(site: Site, job: str, count: int, pause: float) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(here=True))
    browser.get(lambda session: session.pop("here"))
    race(site, browser.secret, job, count, pause)
    expected(job, THREADS, count)(browser.read())


@pytest.mark.parametrize("job", JOBS)
def test_a_few_requests_of_each_kind(site: Site, job: str) -> None:
    """The same in small, for the quick run."""
    browser = site.browser()
    browser.get(lambda session: session.update(here=True))
    browser.get(lambda session: session.pop("here"))
    race(site, browser.secret, job, 10, 0)
    expected(job, THREADS, 10)(browser.read())


@pytest.mark.parametrize("job", ["append", "update"])
def test_newcomers_all_at_once(site: Site, job: str) -> None:
    """Visitors without a cookie get a session each, and not one of another."""
    gate = threading.Barrier(THREADS)

    def first(number: int) -> tuple[str, str]:
        browser = site.browser()
        gate.wait(120)
        browser.get(lambda session: JOBS[job](session, number, 0, 0))
        browser.get(lambda session: session.update(me=number))
        return number, browser.secret

    with ThreadPoolExecutor(THREADS) as pool:
        secrets = dict(pool.map(first, range(THREADS)))
    assert len(set(secrets.values())) == THREADS
    for number, secret in secrets.items():
        browser = site.browser()
        browser.secret = secret
        assert browser.read()["me"] == number


@pytest.mark.slow
def test_threads_that_log_out_and_threads_that_write(site: Site) -> None:
    """Once a logout is answered, no writer that was under way brings the session back (the race is run 40 times)."""
    for _ in range(40):
        browser = site.browser()
        browser.get(lambda session: session.login("ada"))
        gate = threading.Barrier(THREADS)

        def work(number: int, secret: str = browser.secret, gate: threading.Barrier = gate) -> list[str]:
            def write(session: Session) -> None:
                session.setdefault("items", []).append(number)

            gate.wait(120)
            if number == 0:
                return site.request(lambda session: session.logout(), secret).set_cookies
            return [cookie for _ in range(5) for cookie in site.request(write, secret).set_cookies]

        with ThreadPoolExecutor(THREADS) as pool:
            cookies = list(pool.map(work, range(THREADS)))
        assert ["Max-Age=0" in cookie for cookie in cookies[0]] == [True]
        assert cookies[1:] == [[]] * (THREADS - 1), "a late reply would overwrite the cookie of a new log-in"
        assert not site.is_alive(browser.secret)
        assert site.manager.sessions_of("ada") == []
