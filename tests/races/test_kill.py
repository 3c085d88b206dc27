"""Processes that die by SIGKILL while they write: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import os
import random
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Session, SessionManager
from coatcheck.record import Record
from coatcheck.token import Token

VICTIM = Path(__file__).with_name("victim.py")
Browser: Any = runpy.run_path(str(VICTIM))["Browser"]
KILLS = 50
LOOK_BACK = 200
"""As many acknowledged ends as are looked at again after each kill."""


def secret_of(cookie: str) -> str:
    return cookie.partition("=")[2]


def digest_of(cookie: str) -> bytes:
    return Token(secret_of(cookie)).digest


def is_alive(manager: SessionManager, cookie: str) -> bool:
    return isinstance(manager.driver.load(digest_of(cookie), time.time()), Record)


def read(manager: SessionManager, cookie: str) -> dict[str, Any]:
    return dict(manager.open([cookie]))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def raw(url: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    yield connection
    connection.close()


def new_session(url: str) -> str:
    browser = Browser(url, "")
    browser.send(lambda session: session.update(here=True))
    browser.site.manager.close()
    return str(browser.cookie)


@dataclass
class Victim:
    """A writing process and what it acknowledged so far, over all its lives."""

    url: str
    role: str
    name: str
    cookie: str
    kills: int = 0
    last: int = 0
    told: list[list[str]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, str(VICTIM), self.url, self.cookie, self.role, self.name, str(self.last)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._hear(self.process.stdout.readline())

    def kill(self) -> None:
        """Kill the process wherever it is, and hear what it had acknowledged."""
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()[1]
        self.process.kill()
        assert self.process.stdout is not None
        # Not `communicate`: it reads past the buffer, in which a `readline` may have left lines.
        for line in self.process.stdout:
            self._hear(line)
        trouble = self.process.communicate()[1]
        assert self.process.returncode == -signal.SIGKILL, trouble
        self.kills += 1

    def _hear(self, line: str) -> None:
        assert line.endswith("\n"), self.process.communicate()[1] if self.process else line
        words = line.split()
        self.told.append(words)
        self.last = int(words[1])
        if words[0] == "rotated":
            self.cookie = words[2]

    def check(self, manager: SessionManager, raw: sqlite3.Connection) -> None:
        CHECKS[self.role](self, manager, raw)


def check_pair(found: dict[str, Any], name: str) -> int:
    """Give the number in a pair of values that one commit wrote."""
    left, right = found.get(f"{name}-left"), found.get(f"{name}-right")
    assert left == right, "half of a change"
    return 0 if left is None else int(left.split()[0])


def check_writer(victim: Victim, manager: SessionManager, raw: sqlite3.Connection) -> None:
    told = [int(words[1]) for words in victim.told]
    found = read(manager, victim.cookie)
    odd = [n for n in told if n % 2]
    pair = check_pair(found, victim.name)
    assert max(odd, default=0) <= pair <= victim.last + 1
    items = found.get(f"{victim.name}-list", [])
    assert len(items) == len(set(items)), "done twice"
    acknowledged = {n for n in told if n % 2 == 0}
    assert acknowledged <= set(items), "an acknowledged write is lost"
    assert len(items) <= len(acknowledged) + victim.kills
    # A write that was done and not acknowledged is not written again: the next life goes on after it.
    victim.last = max(victim.last, pair, *items, 0)


def check_rotator(victim: Victim, manager: SessionManager, raw: sqlite3.Connection) -> None:
    """The last acknowledged token works, or the rotation to the next one was done as a whole."""
    if is_alive(manager, victim.cookie):
        assert check_pair(read(manager, victim.cookie), victim.name) == victim.last
    else:
        (sid, reason), *_ = raw.execute(
            "SELECT sid, reason FROM coatcheck_ended WHERE digest = ?", (digest_of(victim.cookie),)
        )
        assert reason == "rotated"
        ((session, digest),) = raw.execute("SELECT id, digest FROM coatcheck_session WHERE sid = ?", (sid,))
        record = manager.driver.load(digest, time.time())
        assert isinstance(record, Record)
        rows = raw.execute(
            "SELECT data FROM coatcheck_value WHERE session = ? AND key LIKE '%t'", (session,)
        ).fetchall()
        left, right = [manager.codec.decode(data) for (data,) in rows]
        assert left == right == f"{victim.last + 1} {'x' * 300}"
        victim.cookie = new_session(victim.url)
    older = {words[2] for words in victim.told[-LOOK_BACK:]} - {victim.cookie}
    assert not any(is_alive(manager, cookie) for cookie in older), "a token that was rotated away opens a session"


def check_leaver(victim: Victim, manager: SessionManager, raw: sqlite3.Connection) -> None:
    """Whoever was told of the logout is logged out; nothing but one session in flight is left."""
    left = {words[2]: None for words in victim.told if words[0] == "left"}
    arrived = {words[2] for words in victim.told if words[0] == "arrived"}
    assert not any(is_alive(manager, cookie) for cookie in list(left)[-LOOK_BACK:]), "a logout did not last"
    assert len(arrived - left.keys()) <= victim.kills
    for cookie in arrived - left.keys():
        if is_alive(manager, cookie):
            assert check_pair(read(manager, cookie), victim.name) > 0
    # At most one session for each kill was created or still to be ended.
    assert len(manager.sessions_of(f"user-{victim.name}")) <= victim.kills


CHECKS: dict[str, Callable[[Victim, SessionManager, sqlite3.Connection], None]] = {
    "writer": check_writer,
    "rotator": check_rotator,
    "leaver": check_leaver,
}


def check_file(raw: sqlite3.Connection) -> None:
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    orphans = "SELECT count(*) FROM coatcheck_value WHERE session NOT IN (SELECT id FROM coatcheck_session)"
    assert raw.execute(orphans).fetchone() == (0,)


@pytest.mark.slow
def test_fifty_kills_under_concurrent_writers(url: str, raw: sqlite3.Connection) -> None:
    """Five processes write; fifty times one of them is killed, looked after by the others, and started again."""
    seed = random.randrange(10**9)  # noqa: S311 (no secret)
    print("seed", seed)  # noqa: T201 (shown where the test fails)
    choose = random.Random(seed)  # noqa: S311 (the same)
    shared = new_session(url)
    victims = [Victim(url, "writer", name, shared) for name in ("ann", "bob")]
    victims += [Victim(url, "rotator", "cat", new_session(url)), Victim(url, "rotator", "dan", new_session(url))]
    victims.append(Victim(url, "leaver", "eve", ""))
    manager = SessionManager(url)
    try:
        for victim in victims:
            victim.start()
        for round_ in range(KILLS):
            victim = victims[round_ % len(victims)]
            time.sleep(choose.uniform(0.0, 0.02))  # the moment of the kill
            victim.kill()
            victim.check(manager, raw)
            check_file(raw)
            victim.start()
        for victim in victims:
            victim.kill()
            victim.check(manager, raw)
    finally:
        for victim in victims:
            if victim.process is not None:
                victim.process.kill()
                victim.process.communicate()
    check_file(raw)
    writers = victims[:2]
    pairs = sum(int(words[1]) % 2 for victim in writers for words in victim.told)
    total = read(manager, shared)["total"]
    assert pairs <= total <= pairs + sum(victim.kills for victim in writers)
    assert sum(victim.kills for victim in victims) == KILLS + len(victims)
    manager.close()


# -- a kill at each statement of an operation -------------------------------------------------------------------------


def write_pair(session: Session) -> None:
    session["left"] = session["right"] = "new"
    session.increment("count")


def log_in(session: Session) -> None:
    write_pair(session)
    session.login("ada", keep=["left", "right", "count"])
    write_pair(session)


def rotate(session: Session) -> None:
    write_pair(session)
    session.rotate()


def log_out(session: Session) -> None:
    session.logout()


def start_anew(session: Session) -> None:
    session.logout()
    write_pair(session)


def die_at(browser: Any, statement: int, handler: Callable[[Session], object]) -> bool:
    """Answer a request in a child that is killed as it begins that statement; True where it came through."""
    pid = os.fork()
    if pid == 0:
        try:
            left = statement

            def count(_: str) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            with browser.site.manager.driver._connections.held() as connection:
                connection.set_trace_callback(count)
            browser.send(handler)
        except BaseException as error:  # noqa: BLE001 (the child must not return into the test)
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), "the request failed"
    return code == 0


def state_of(raw: sqlite3.Connection) -> tuple[int, list[Any], list[Any]]:
    """Everything but what is drawn anew each time: digests, versions and the moments."""
    sessions = raw.execute("SELECT user, prior IS NULL FROM coatcheck_session ORDER BY created").fetchall()
    values = raw.execute("SELECT key, data FROM coatcheck_value ORDER BY key").fetchall()
    ended = raw.execute("SELECT count(*) FROM coatcheck_ended").fetchone()[0]
    return ended, sessions, values


@pytest.mark.slow
@pytest.mark.parametrize("handler", [write_pair, rotate, log_in, log_out, start_anew])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_kill_at_each_statement(tmp_path: Path, handler: Callable[[Session], object]) -> None:
    """Before the commit nothing of the request is there, and after it everything is.

    `start_anew` takes two commits (the old session ends, a new one begins), so it has a state in between.
    """
    outcomes = []
    for statement in range(40):
        folder = tmp_path / str(statement)
        folder.mkdir()
        url = f"sqlite:///{folder}/sessions.db"
        browser = Browser(url, "")
        browser.send(lambda session: session.update(left="old", right="old", count=1))
        raw = sqlite3.connect(folder / "sessions.db", isolation_level=None)
        before = state_of(raw)
        survived = die_at(browser, statement, handler)
        check_file(raw)
        after = state_of(raw)
        raw.close()
        outcomes.append("before" if after == before else str(after))
        values = dict(after[2])
        assert values.get("left") == values.get("right"), "half of a change"
        browser.site.manager.close()
        if survived:
            break
    else:
        pytest.fail("the request never came to its end")
    assert len(outcomes) > 1, "no statement was killed"
    assert outcomes[0] == "before"
    assert outcomes[-1] != "before"
    steps = 3 if handler is start_anew else 2
    assert len(dict.fromkeys(outcomes)) == steps, outcomes
    assert outcomes == sorted(outcomes, key=list(dict.fromkeys(outcomes)).index), "it went back and forth"
