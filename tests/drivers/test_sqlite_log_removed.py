"""SQLite: the log, its index or both are removed while programs have the database open. Nothing is lost with them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from coatcheck.drivers.sqlite import AsyncSQLiteDriver, SQLiteDriver
from coatcheck.record import Delta, Missing, Reason, Record, ValueKey
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START, committed, loaded, started

T = TypeVar("T")

N: ValueKey = ("", "n")
ADD = Delta(increments={N: 1})
REVOKED = Missing(Reason.REVOKED, ended=START)


@pytest.fixture(params=[("-wal",), ("-shm",), ("-wal", "-shm")], ids=" and ".join)
def remove(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Removes them."""

    def removed(path: Path) -> None:
        for end in request.param:
            Path(f"{os.path.realpath(path)}{end}").unlink()

    return removed


class Crew:
    """A driver and threads, each of which has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.driver = SQLiteDriver(path, timeout=30)
        self._threads = [ThreadPoolExecutor(1) for _ in range(6)]

    def on(self, number: int, work: Callable[[SQLiteDriver], T]) -> T:
        return self._threads[number].submit(work, self.driver).result(60)

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown()
        self.driver.close()


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "s.db")
    yield crew
    crew.close()


def check_the_file(path: str | Path, *, sessions: int) -> None:
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("SELECT count(*) FROM coatcheck_session").fetchone() == (sessions,)


@pytest.mark.parametrize("first", [0, 3], ids=["who had it open comes first", "a newcomer comes first"])
@pytest.mark.parametrize("linked", [False, True], ids=["plain", "through a link"])
def test_all_threads_go_on_and_nothing_is_lost(
    crew: Crew, remove: Callable[[Path], None], first: int, *, linked: bool
) -> None:
    path = Path(crew.driver.path)
    if linked:
        (path.parent / "real").mkdir()
        path.symlink_to(path.parent / "real" / "s.db")
        SQLiteDriver(path.parent / "real" / "s.db").setup()
    record, over = crew.on(0, started), crew.on(1, started)
    for _ in range(3):
        crew.on(2, lambda driver: committed(driver.commit(record.digest, ADD, START)))
    assert crew.on(1, lambda driver: driver.revoke(over.digest, START))
    for turn in range(2):
        remove(path)
        order = (first, *(number for number in range(4 + turn) if number != first))
        for number in order:
            crew.on(number, lambda driver: committed(driver.commit(record.digest, ADD, START)))
            assert crew.on(number, lambda driver: driver.load(over.digest, START)) == REVOKED
        counts = [
            crew.on(number, lambda driver: loaded(driver, record.digest, START)).values[N].data for number in order
        ]
        assert counts == [3 + sum(4 + done for done in range(turn + 1))] * len(order)
    crew.driver.close()
    check_the_file(path, sessions=1)
    assert loaded(crew.driver, record.digest, START).values[N].data == 12


WORKER = """
import sys
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Delta
from coatcheck.testing.helpers import START, started
driver = SQLiteDriver(sys.argv[1], timeout=30)
for line in sys.stdin:
    what, _, rest = line.strip().partition(" ")
    if what == "start":
        answer = started(driver).digest.hex()
    elif what == "add":
        answer = type(driver.commit(bytes.fromhex(rest), Delta(increments={("", "n"): 1}), START)).__name__
    elif what == "revoke":
        answer = driver.revoke(bytes.fromhex(rest), START)
    elif what == "load":
        answer = type(driver.load(bytes.fromhex(rest), START)).__name__
    print(answer, flush=True)
"""


class Worker:
    """Another process with the file open."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", WORKER, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate(timeout=60)


def test_all_processes_go_on_and_nothing_is_lost(tmp_path: Path, remove: Callable[[Path], None]) -> None:
    path = tmp_path / "s.db"
    workers = [Worker(path) for _ in range(3)]
    try:
        record, over = workers[0].ask("start"), workers[1].ask("start")
        assert [worker.ask("add", record) for worker in workers] == ["Committed"] * 3
        assert workers[2].ask("revoke", over) == "True"
        for _ in range(2):
            remove(path)
            # Whoever had the database open is the first: a newcomer cannot know what is missing.
            assert [worker.ask("add", record) for worker in workers] == ["Committed"] * len(workers)
            workers.append(Worker(path))
            assert [worker.ask("add", record) for worker in workers[::-1]] == ["Committed"] * len(workers)
            assert [worker.ask("load", over) for worker in workers] == ["Missing"] * len(workers)
        assert workers[-1].ask("start")
    finally:
        for worker in workers:
            worker.end()
    check_the_file(path, sessions=2)
    assert loaded(SQLiteDriver(path), bytes.fromhex(record), START).values[N].data == 3 + (3 + 4) + (4 + 5)


def test_an_event_loop_goes_on_and_nothing_is_lost(tmp_path: Path, remove: Callable[[Path], None]) -> None:
    path = tmp_path / "s.db"

    async def work() -> None:
        driver = AsyncSQLiteDriver.from_url(f"sqlite:///{path}?timeout=30")
        record, over = make_record(), make_record()
        await driver.create(record, START)
        await driver.create(over, START)
        for _ in range(3):  # the first one in a thread, then in the loop's own
            assert isinstance(await driver.load(record.digest, START), Record)
        assert await driver.revoke(over.digest, START)
        for number in range(2):
            remove(path)
            if number:
                committed(await driver.commit(record.digest, ADD, START))
            assert await driver.load(over.digest, START) == REVOKED
            for _ in range(3):
                committed(await driver.commit(record.digest, ADD, START))
                assert isinstance(await driver.load(record.digest, START), Record)
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 7
        await driver.close()

    asyncio.run(work())
    check_the_file(path, sessions=1)


def test_a_log_that_somebody_made_meanwhile_is_the_one_that_counts(tmp_path: Path) -> None:
    """Both were removed, and a newcomer began without them: what was in the old log alone is gone, and all agree."""
    path = tmp_path / "s.db"
    driver = SQLiteDriver(path)
    kept = started(driver)
    driver.close()  # brings it into the database
    lost = started(driver)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink()
    newcomer = Worker(path)
    made = bytes.fromhex(newcomer.ask("start"))
    for record, there in ((kept.digest, True), (lost.digest, False), (made, True)):
        assert isinstance(driver.load(record, START), Record) is there
        assert (newcomer.ask("load", record.hex()) == "Record") is there
    committed(driver.commit(made, ADD, START))
    assert newcomer.ask("add", made.hex()) == "Committed"
    assert loaded(driver, made, START).values[N].data == 2
    newcomer.end()
    driver.close()
    check_the_file(path, sessions=2)


def test_an_operation_takes_one_look_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SQLiteDriver(tmp_path / "s.db")
    record = started(driver)
    until = time.monotonic() + 60
    held: Any = driver._connections.held()
    while held._seen is None:  # until the folder's last change is some time ago
        loaded(driver, record.digest, START)
        assert time.monotonic() < until
    looked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: looked.append(path) or stat(path, **how))
    loaded(driver, record.digest, START)
    assert looked == [str(tmp_path)]
    (tmp_path / "another").touch()
    looked.clear()
    loaded(driver, record.digest, START)
    assert len(looked) > 1
    driver.close()
