"""What two requests do to one session, on every engine: through the managers, with threads, tasks and processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import worker
from testservers.engines import Engine

from coatcheck import AsyncSessionManager, Capability, Policy, Session, SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.record import Committed, Delta, Gone, Missing, Put, ValueKey
from coatcheck.testing import Clock, Interleaving, make_record, successor
from coatcheck.token import Token

WORKER = Path(worker.__file__)
CROWD = 8
PROCESSES = 4
TURNS = 100
PAUSE = 0.003


def begun(manager: SessionManager, **values: Any) -> str:
    """Begin a session; give its cookie."""
    session = manager.open(())
    session.update(values or {"look": 1})
    return cookie_of(manager, session)


def cookie_of(manager: SessionManager, session: Session) -> str:
    saved = manager.save(session)
    assert saved.set_cookie is not None
    return saved.set_cookie.partition(";")[0]


def held(manager: SessionManager, cookie: str) -> dict[str, Any]:
    found = dict(manager.open([cookie]))
    assert found.pop("look") == 1
    return found


@pytest.mark.parametrize("job", worker.JOBS)
def test_a_crowd_loses_nothing(engine: Engine, driver: Driver, job: str) -> None:
    """Eight threads or tasks, a hundred turns each, three milliseconds between reading and writing."""
    manager = SessionManager(driver)
    cookie = begun(manager)
    if engine.asynchronous:

        async def race() -> None:
            crowd = AsyncSessionManager(driver.driver)  # type: ignore[attr-defined]  # the driver behind `Blocking`
            await asyncio.gather(
                *(worker.work_async(crowd, cookie, job, number, TURNS, PAUSE) for number in range(CROWD))
            )

        driver.wait_for(race())  # type: ignore[attr-defined]  # likewise
    else:
        with ThreadPoolExecutor(CROWD) as pool:
            list(pool.map(lambda number: worker.work(manager, cookie, job, number, TURNS, PAUSE), range(CROWD)))
    worker.check(job, held(manager, cookie), CROWD, TURNS)


@pytest.mark.parametrize("job", worker.JOBS)
def test_processes_lose_nothing(engine: Engine, driver: Driver, job: str) -> None:
    """Four processes likewise."""
    if Capability.SCOPE_PROCESS in driver.capabilities:
        return  # an engine for one process
    manager = SessionManager(driver)
    cookie = begun(manager)
    way = "async" if engine.asynchronous else "sync"
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", WORKER, engine.url, way, cookie, job, str(number), str(TURNS), str(PAUSE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
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
    assert [child.returncode for child in children] == [0] * PROCESSES, "\n".join(troubles)
    worker.check(job, held(manager, cookie), PROCESSES, TURNS)


def test_two_appends_and_a_removal_leave_each_addition_once(driver: Driver) -> None:
    """Two requests append to a list that both have read, and a third removes it meanwhile."""
    storage = Interleaving(driver)
    manager = SessionManager(storage)
    cookie = begun(manager, look=1, cart=["hat", "scarf"])
    one, two, leaving = (manager.open([cookie]) for _ in range(3))
    one["cart"].append("one")
    two["cart"].append("two")
    del leaving["cart"]
    for call, session in enumerate((leaving, two), 1):
        storage.before("commit", lambda session=session: manager.save(session), call=call)
    manager.save(one)
    assert storage.pending == 0
    assert held(manager, cookie) == {"cart": ["two", "one"]}


@pytest.mark.parametrize("removed_first", [True, False])
def test_what_one_request_adds_to_a_value_that_another_deletes_stays(driver: Driver, removed_first: bool) -> None:  # noqa: FBT001
    """As with messages to show once: one request takes them all out while another adds one."""
    manager = SessionManager(driver)
    cookie = begun(manager, look=1, messages=["old"], cart=Counter(hat=1))
    adding, removing = (manager.open([cookie]) for _ in range(2))
    adding["messages"].append("new")
    adding["cart"]["hat"] += 1
    assert removing.pop("messages") == ["old"]
    del removing["cart"]
    for session in (removing, adding) if removed_first else (adding, removing):
        manager.save(session)
    assert held(manager, cookie) == {"messages": ["new"], "cart": Counter(hat=1)}


# -- a commit in flight, and an end that comes first ------------------------------------------------------------------


def logged_in(manager: SessionManager, user: str) -> str:
    session = manager.open(())
    session.login(user)
    session.update(look=1, items=["a"])
    return cookie_of(manager, session)


def logout(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    session = manager.open([cookie])
    session.logout()
    manager.save(session)


def revoke(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    assert manager.driver.revoke(digest_in(cookie), clock())


def revoke_user(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    if Capability.USER_INDEX in manager.driver.capabilities:
        assert manager.revoke_user(user) == 1
    else:
        revoke(manager, cookie, user, clock)


def log_in_again(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    session = manager.open([cookie])
    session.login(user)
    cookie_of(manager, session)


def rotate(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    session = manager.open([cookie])
    session.rotate()
    cookie_of(manager, session)


def expire(manager: SessionManager, cookie: str, user: str, clock: Clock) -> None:
    clock.advance(601)


def digest_in(cookie: str) -> bytes:
    return Token(cookie.partition("=")[2]).digest


ENDS = (logout, revoke, revoke_user, rotate, log_in_again, expire)


def append(session: Session) -> None:
    session["items"].append("late")


def assign(session: Session) -> None:
    session["late"] = True


def increment(session: Session) -> None:
    session.increment("late")


def assign_after_a_look(session: Session) -> None:
    assert session["look"] == 1
    session["look"] = 2
    session["late"] = True


def clear(session: Session) -> None:
    session.clear()
    session["late"] = 1


CHANGES = (append, assign, increment, assign_after_a_look, clear)


@pytest.mark.parametrize("end", ENDS)
def test_a_commit_in_flight_revives_nothing(driver: Driver, end: Callable[..., None]) -> None:
    """A hundred forced interleavings for each way to end, six ways in all."""
    forced, clock = Interleaving(driver), Clock()
    manager = SessionManager(forced, Policy(idle=600), clock=clock)
    for n in range(100):
        change, user = CHANGES[n % len(CHANGES)], f"user {end.__name__} {n}"
        cookie = logged_in(manager, user)
        clock.advance(1)
        late = manager.open([cookie])
        change(late)
        forced.before("commit", lambda: end(manager, cookie, user, clock))  # noqa: B023 (it runs in this round)
        saved = manager.save(late)
        assert forced.pending == 0, "the commit was not in flight"
        assert saved.set_cookie is None, (change.__name__, "the answer sets a cookie")
        assert isinstance(driver.load(digest_in(cookie), clock()), Missing), (change.__name__, "revived")
        assert dict(manager.open([cookie])) == {}


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_a_commit_and_an_end_at_the_same_moment(driver: Driver, engine: Engine, end: str) -> None:
    """Whichever comes first: the answers fit together, and nothing is left under the digest."""
    now, name = Clock()(), place("late")
    other = driver if Capability.SCOPE_PROCESS in driver.capabilities else engine.open()
    try:
        with ThreadPoolExecutor(2) as pool:
            for n in range(100):
                record = make_record(now, values={place("look"): b"1"})
                assert isinstance(driver.create(record, now), Committed)
                new = successor(driver, record.digest)
                gate = threading.Barrier(2)

                def commit(record: Any = record, gate: Any = gate, n: int = n) -> Any:
                    gate.wait(120)
                    deltas = (
                        Delta(puts={name: Put(b"x")}),
                        Delta(increments={name: 1}, touch=now),
                        Delta(clear_all=True),
                    )
                    return driver.commit(record.digest, deltas[n % 3], now)

                def finish(record: Any = record, gate: Any = gate, new: bytes = new) -> Any:
                    gate.wait(120)
                    if end == "revoke":
                        return other.revoke(record.digest, now)
                    return other.rotate(record.digest, new, Delta(), 0, now)

                late, done = pool.submit(commit), pool.submit(finish)
                assert done.result() if end == "revoke" else isinstance(done.result(), Committed)
                found = driver.load(record.digest, now)
                assert isinstance(found, Missing)
                assert late.result() == Gone(found.reason) or isinstance(late.result(), Committed)
                if end == "rotate":
                    kept = driver.load(new, now)
                    assert not isinstance(kept, Missing)
                    if isinstance(late.result(), Gone):
                        assert {key: value.data for key, value in kept.values.items()} == {place("look"): b"1"}
    finally:
        if other is not driver:
            other.close()


def place(key: str) -> ValueKey:
    return ("", key)
