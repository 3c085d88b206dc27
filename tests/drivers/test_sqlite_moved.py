"""SQLite: the file is moved, removed or replaced while programs have it open. Nobody goes on with the old one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from coatcheck.drivers.sqlite import AsyncSQLiteDriver, SQLiteDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Missing, Reason, Record
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, started

T = TypeVar("T")

N = ("", "n")
ADD = Delta(increments={N: 1})
BESIDE = ("-wal", "-shm")


def remove_all(path: Path) -> None:
    for name in (path, *(Path(f"{path}{end}") for end in BESIDE)):
        name.unlink(missing_ok=True)


def remove_the_file_alone(path: Path) -> None:
    path.unlink()


def move_all(path: Path) -> None:
    away = path.parent / "away"
    away.mkdir()
    for name in (path, *(Path(f"{path}{end}") for end in BESIDE)):
        name.rename(away / name.name)


def move_the_file_alone(path: Path) -> None:
    path.rename(path.parent / "old.db")


def replace_by_an_empty_one(path: Path) -> None:
    (path.parent / "empty.db").touch()
    (path.parent / "empty.db").replace(path)


def replace_by_another(path: Path) -> None:
    other = SQLiteDriver(path.parent / "other.db")
    other.setup()
    Path(other.path).replace(path)


WAYS = (
    remove_all, remove_the_file_alone, move_all, move_the_file_alone, replace_by_an_empty_one, replace_by_another,
)  # fmt: skip


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """How the file goes away."""
    chosen: Callable[[Path], None] = request.param
    return chosen


class Crew:
    """A driver and threads, each of which has a connection of its own."""

    def __init__(self, path: Path, size: int) -> None:
        self.driver = SQLiteDriver(path)
        self._threads = [ThreadPoolExecutor(1) for _ in range(size)]

    def on(self, number: int, work: Callable[[SQLiteDriver], T]) -> T:
        return self._threads[number].submit(work, self.driver).result(30)

    def all(self, work: Callable[[SQLiteDriver], T]) -> list[T]:
        return [self.on(number, work) for number in range(len(self._threads))]

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown()
        self.driver.close()


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "sessions.db", 4)
    yield crew
    crew.close()


def check_the_file(path: str | Path, *, sessions: int) -> None:
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("SELECT count(*) FROM coatcheck_session").fetchone() == (sessions,)


@pytest.mark.parametrize("first", [0, 2], ids=["who had it open comes first", "a newcomer comes first"])
def test_all_threads_go_on_with_the_new_file(crew: Crew, way: Callable[[Path], None], first: int) -> None:
    """Whatever one of them is told is stored, all of them see, and it is in the file."""
    old = crew.on(0, started)
    crew.on(1, lambda driver: loaded(driver, old.digest, START))
    way(Path(crew.driver.path))
    missing = Missing(Reason.UNKNOWN)
    assert crew.on(first, lambda driver: driver.load(old.digest, START)) == missing
    made = []
    for number in (2, 0, 3, 1):
        made.append(crew.on(number, started))
        for record in made:
            crew.all(lambda driver, record=record: committed(driver.commit(record.digest, ADD, START)))  # type: ignore[misc]
    assert crew.all(lambda driver: driver.load(old.digest, START)) == [missing] * 4
    counts = [crew.all(lambda driver, r=record: loaded(driver, r.digest, START).values[N].data) for record in made]  # type: ignore[misc]
    assert counts == [[16] * 4, [12] * 4, [8] * 4, [4] * 4]
    crew.driver.close()
    check_the_file(crew.driver.path, sessions=4)
    assert loaded(crew.driver, made[0].digest, START).values[N].data == 16


def test_a_write_goes_to_the_new_file_without_a_read_before(crew: Crew, way: Callable[[Path], None]) -> None:
    old = crew.on(0, started)
    way(Path(crew.driver.path))
    for operation in (
        lambda driver: driver.commit(old.digest, ADD, START).reason,
        lambda driver: driver.rotate(old.digest, digest(), Delta(), 0, START).reason,
        lambda driver: driver.load(old.digest, START).reason,
    ):
        assert crew.on(0, operation) is Reason.UNKNOWN
    assert not crew.on(0, lambda driver: driver.revoke(old.digest, START))
    assert crew.on(0, lambda driver: driver.sessions_of("ann", START)) == []


def test_every_write_alone_notices(tmp_path: Path) -> None:
    record = make_record(user="ann")
    for number, operation in enumerate((
        lambda driver: driver.create(make_record(user="ann"), START),
        lambda driver: driver.commit(record.digest, ADD, START),
        lambda driver: driver.rotate(record.digest, digest(), Delta(), 0, START),
        lambda driver: driver.revoke(record.digest, START),
        lambda driver: driver.revoke_user("ann", START),
        lambda driver: driver.missing([record.sid], START),
        lambda driver: driver.sweep(START, 10),
        lambda driver: driver.tear_down(),
    )):  # fmt: skip
        path = tmp_path / f"{number}.db"
        driver = SQLiteDriver(path)
        driver.create(record, START)
        move_the_file_alone(path)
        operation(driver)
        assert path.exists()
        files = driver._connections.held()._files
        assert files is not None
        assert files.database == (path.stat().st_ino, path.stat().st_dev)
        driver.close()


WORKER = """
import sys
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Delta
from coatcheck.testing.helpers import START, started
driver = SQLiteDriver(sys.argv[1])
ADD = Delta(increments={("", "n"): 1})
for line in sys.stdin:
    what, _, rest = line.strip().partition(" ")
    if what == "start":
        answer = started(driver).digest.hex()
    elif what == "add":
        answer = type(driver.commit(bytes.fromhex(rest), ADD, START)).__name__
    elif what == "load":
        answer = type(driver.load(bytes.fromhex(rest), START)).__name__
    elif what == "close":
        driver.close()
        answer = "closed"
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
        self.process.communicate(timeout=300)


ALL_HAD_IT_OPEN = [pytest.param(way, False, id=way.__name__) for way in WAYS]
# Who starts after a file was replaced cannot know that the log beside it is another file's: docs/engines/sqlite.md
ONE_COMES_LATER = [pytest.param(way, True, id=f"{way.__name__}, one comes later") for way in WAYS[:4]]


@pytest.mark.parametrize(("way", "newcomer"), ALL_HAD_IT_OPEN + ONE_COMES_LATER)
def test_all_processes_go_on_with_the_new_file(tmp_path: Path, way: Callable[[Path], None], *, newcomer: bool) -> None:
    path = tmp_path / "sessions.db"
    workers = [Worker(path) for _ in range(3)]
    try:
        old = workers[0].ask("start")
        for worker in workers[newcomer:]:
            assert worker.ask("add", old) == "Committed"
        if newcomer:
            workers[0].end()
        way(path)
        if newcomer:
            workers[0] = Worker(path)
        made = [worker.ask("start") for worker in workers]
        for record in made:
            assert [worker.ask("add", record) for worker in workers] == ["Committed"] * 3
        assert [worker.ask("load", old) for worker in workers] == ["Missing"] * 3
        assert workers[1].ask("close") == "closed"  # whoever closes last of the old ones deletes nothing of the new
        assert [worker.ask("add", made[0]) for worker in workers] == ["Committed"] * 3
    finally:
        for worker in workers:
            worker.end()
    check_the_file(path, sessions=3)
    values = [loaded(SQLiteDriver(path), bytes.fromhex(record), START).values[N].data for record in made]
    assert values == [6, 3, 3]


STORM = """
import sys, threading, time
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Committed, Delta, Gone, Missing, Put
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START
driver, until, wrong = SQLiteDriver(sys.argv[1], timeout=120), time.time() + 3, []

def visit(number):
    record, visits = None, open(f"{sys.argv[2]}-{number}", "ab", buffering=0)
    while time.time() < until:
        visits.write(b".")
        try:
            if record is None:
                record = make_record()
                assert isinstance(driver.create(record, START), Committed)
            done = driver.commit(record.digest, Delta(puts={("", key): Put(b"x" * 3000) for key in "ab"}), START)
            seen = driver.load(record.digest, START)
            if isinstance(done, Gone) or isinstance(seen, Missing):
                record = None
        except Exception as error:
            wrong.append(repr(error))

threads = [threading.Thread(target=visit, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
driver.close()
sys.exit("; ".join(wrong))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", [move_the_file_alone, remove_all, replace_by_another], ids=lambda way: way.__name__)
def test_nothing_fails_while_the_file_goes_again_and_again(tmp_path: Path, way: Callable[[Path], None]) -> None:
    path = tmp_path / "sessions.db"
    SQLiteDriver(path).setup()
    notes = [tmp_path / f"visits-{number}" for number in range(2)]
    storms = [
        subprocess.Popen([sys.executable, "-c", STORM, path, note], stderr=subprocess.PIPE, text=True) for note in notes
    ]
    visits: list[int] = []
    while any(storm.poll() is None for storm in storms):
        time.sleep(0.1)
        now = [file.stat().st_size for note in notes for file in sorted(tmp_path.glob(f"{note.name}-*"))]
        if len(now) != 6 or any(count <= before for count, before in zip(now, visits, strict=False)):
            continue  # one has not been there since the last time: it tries five times and no more
        visits = now
        with suppress(FileNotFoundError):  # nobody has made one again yet
            way(path)
    assert [storm.communicate()[1] for storm in storms] == ["\n", "\n"]
    driver = SQLiteDriver(path)
    driver.setup()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_log_that_was_left_behind_is_not_taken_for_the_new_files(tmp_path: Path) -> None:
    """After a crash the log holds everything; the file that belongs to it is gone."""
    path = tmp_path / "sessions.db"
    driver = SQLiteDriver(path)
    old = started(driver)
    for name in ("sessions.db", "sessions.db-wal", "sessions.db-shm"):
        shutil.copy(tmp_path / name, tmp_path / f"copy-{name}")
    driver.close()
    for end in BESIDE:
        (tmp_path / f"copy-sessions.db{end}").rename(f"{path}{end}")
    path.unlink()
    again = SQLiteDriver(path)
    assert again.load(old.digest, START) == Missing(Reason.UNKNOWN)
    new = started(again)
    again.close()
    check_the_file(path, sessions=1)
    loaded(again, new.digest, START)
    again.close()


@pytest.mark.parametrize("first", [0, 1], ids=["who had it open comes first", "a newcomer comes first"])
def test_a_backup_in_its_place_is_what_everybody_sees(crew: Crew, tmp_path: Path, first: int) -> None:
    kept, later = crew.on(0, started), None
    with closing(sqlite3.connect(crew.driver.path)) as raw, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        raw.backup(copy)
    later = crew.on(0, started)
    (tmp_path / "copy.db").replace(crew.driver.path)
    assert isinstance(crew.on(first, lambda driver: driver.load(kept.digest, START)), Record)
    assert crew.all(lambda driver: type(driver.load(later.digest, START))) == [Missing] * 4
    assert crew.on(2, lambda driver: driver.revoke(kept.digest, START))
    assert crew.all(lambda driver: driver.load(kept.digest, START)) == [Missing(Reason.REVOKED)] * 4
    crew.driver.close()
    check_the_file(crew.driver.path, sessions=0)


def test_a_backup_through_sqlite_is_seen_as_it_is(crew: Crew, tmp_path: Path) -> None:
    """What `.restore` of the command line does, while threads have the file open: the file stays the same one."""
    kept = crew.on(0, started)
    with closing(sqlite3.connect(crew.driver.path)) as raw, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        raw.backup(copy)
        later = crew.on(1, started)
        copy.backup(raw)
    assert crew.all(lambda driver: type(driver.load(kept.digest, START))) == [Record] * 4
    assert crew.all(lambda driver: type(driver.load(later.digest, START))) == [Missing] * 4
    crew.on(3, lambda driver: committed(driver.commit(kept.digest, ADD, START)))
    crew.driver.close()
    check_the_file(crew.driver.path, sessions=1)


def test_a_link_that_is_turned_to_another_file(crew: Crew, tmp_path: Path) -> None:
    """The logs lie beside the files, not beside the link, and both stay what they are."""
    path = Path(crew.driver.path)
    for name in ("blue", "green"):
        (tmp_path / name).mkdir()
        SQLiteDriver(tmp_path / name / "s.db").setup()
    path.symlink_to(tmp_path / "blue" / "s.db")
    blue = crew.on(0, started)
    (tmp_path / "new").symlink_to(tmp_path / "green" / "s.db")
    (tmp_path / "new").replace(path)
    green = crew.on(0, started)
    assert crew.all(lambda driver: type(driver.load(blue.digest, START))) == [Missing] * 4
    assert crew.all(lambda driver: type(driver.load(green.digest, START))) == [Record] * 4
    loaded(SQLiteDriver(tmp_path / "blue" / "s.db"), blue.digest, START)


def test_a_folder_that_is_gone_is_an_outage(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    driver = SQLiteDriver(folder / "s.db")
    record = started(driver)
    folder.rename(tmp_path / "moved")
    for _ in range(2):
        with pytest.raises(DriverUnavailable, match="does not exist: create it"):
            driver.load(record.digest, START)
    (tmp_path / "moved").rename(folder)
    loaded(driver, record.digest, START)
    driver.close()


def test_who_makes_the_file_waits_for_who_is_making_it(tmp_path: Path) -> None:
    driver = SQLiteDriver(tmp_path / "s.db", timeout=0.1)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(DriverUnavailable, match=r"another program .* for longer than 0\.1 s") as caught:
        driver.load(digest(), START)
    assert not caught.value.outcome_unknown
    assert not Path(driver.path).exists()
    os.close(folder)
    started(driver)
    driver.close()


def test_handles_of_the_old_file_are_given_back(tmp_path: Path) -> None:
    driver = SQLiteDriver(tmp_path / "s.db")
    started(driver)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (the count, with nothing open for it)
    for _ in range(20):
        remove_all(Path(driver.path))
        started(driver)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    driver.close()


def test_an_event_loop_goes_on_with_the_new_file(tmp_path: Path, way: Callable[[Path], None]) -> None:
    path = tmp_path / "sessions.db"

    async def work() -> None:
        driver = AsyncSQLiteDriver.from_url(f"sqlite:///{path}")
        old, new = make_record(), make_record()
        await driver.create(old, START)
        for _ in range(3):  # the first one in a thread, then in the loop's own
            assert isinstance(await driver.load(old.digest, START), Record)
        way(path)
        assert await driver.load(old.digest, START) == Missing(Reason.UNKNOWN)
        committed(await driver.create(new, START))
        for _ in range(3):
            committed(await driver.commit(new.digest, ADD, START))
            assert isinstance(await driver.load(new.digest, START), Record)
        await driver.close()

    asyncio.run(work())
    check_the_file(path, sessions=1)


def test_an_event_loop_makes_no_file_in_its_own_thread(tmp_path: Path) -> None:
    """That takes milliseconds, and as long as somebody else makes one."""
    driver = SQLiteDriver(tmp_path / "s.db")
    hasty = driver.hasty()
    record = started(driver)
    loaded(hasty, record.digest, START)
    remove_all(Path(driver.path))
    with pytest.raises(DriverUnavailable, match="another file"):
        hasty.load(record.digest, START)
    assert not Path(driver.path).exists()
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)
    assert hasty.load(record.digest, START) == Missing(Reason.UNKNOWN)
    hasty.close()
    driver.close()
