"""SQLite between processes: forks, races, and a process that is killed while it writes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver, connect
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Missing, Reason
from coatcheck.testing import digest
from coatcheck.testing.helpers import START, committed, loaded, puts, started

A = ("", "a")
ADD = Delta(increments={A: 1})


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SQLiteDriver]:
    driver = SQLiteDriver(tmp_path / "sessions.db", timeout=120)
    yield driver
    driver.close()


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a forked process that is gone afterwards, and give the process id."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(60)  # a child that waits for a test that failed is not left behind
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001 (the child must not return into the test)
        os.write(2, f"in the child: {error!r}\n".encode())
    finally:
        os._exit(code)


def wait(*pids: int) -> None:
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


def test_a_fork_closes_connections_first(driver: SQLiteDriver) -> None:
    record = started(driver)
    before = driver._connections.held()._connection
    assert before is not None

    def work() -> None:
        assert driver._connections.held()._connection is None
        committed(driver.commit(record.digest, ADD, START))

    wait(in_child(work))
    committed(driver.commit(record.digest, ADD, START))
    assert driver._connections.held()._connection is not before
    assert loaded(driver, record.digest, START).values[A].data == 2


def test_what_a_child_wrote_survives_the_parents_closing(driver: SQLiteDriver) -> None:
    """Without closing before the fork, the parent deletes the log that the child writes to."""
    record = started(driver)
    to_child, to_parent = os.pipe(), os.pipe()

    def work() -> None:
        committed(driver.commit(record.digest, ADD, START))
        os.write(to_parent[1], b"1")
        os.read(to_child[0], 1)
        committed(driver.commit(record.digest, ADD, START))
        os.write(to_parent[1], b"2")
        os.read(to_child[0], 1)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = in_child(work)
    loaded(driver, record.digest, START)
    os.read(to_parent[0], 1)
    driver.close()
    os.write(to_child[1], b"1")
    os.read(to_parent[0], 1)
    assert loaded(SQLiteDriver(driver.path), record.digest, START).values[A].data == 2
    os.write(to_child[1], b"2")
    os.waitpid(pid, 0)
    assert loaded(driver, record.digest, START).values[A].data == 2
    for end in (*to_child, *to_parent):
        os.close(end)


def test_forks_while_threads_write(driver: SQLiteDriver) -> None:
    record = started(driver)
    stop = threading.Event()
    done = [0] * 3

    def write(number: int) -> None:
        while not stop.is_set():
            committed(driver.commit(record.digest, ADD, START))
            done[number] += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()

    def work() -> None:
        for _ in range(10):
            committed(driver.commit(record.digest, ADD, START))
        loaded(driver, record.digest, START)

    begin = time.monotonic()
    try:
        pids = [in_child(work) for _ in range(10)]
        took = time.monotonic() - begin
        wait(*pids)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert took < driver.timeout / 2, "a fork waited for a thread that waited for the fork"
    assert loaded(driver, record.digest, START).values[A].data == sum(done) + 100


def test_a_fork_that_runs_no_hooks(driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some servers fork: the parent's connection is neither used nor closed nor finalized in the child."""
    record = started(driver)
    held = driver._connections.held()
    monkeypatch.setattr(connect, "_pools", [])

    def work() -> None:
        committed(driver.commit(record.digest, ADD, START))
        assert driver._connections.held() is not held
        driver.close()
        assert connect._inherited
        connect._inherited[0].execute("SELECT 1")  # not closed

    wait(in_child(work))
    assert held._connection is not None
    assert loaded(driver, record.digest, START).values[A].data == 1


def test_a_fork_of_a_memory_driver_is_a_copy() -> None:
    driver = MemoryDriver()
    record = started(driver)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            driver.commit(record.digest, ADD, START)

    thread = threading.Thread(target=write)
    thread.start()

    def work() -> None:
        for _ in range(10):
            committed(driver.commit(record.digest, puts({("", "child"): b"c"}), START))
        assert ("", "child") in loaded(driver, record.digest, START).values

    try:
        wait(*(in_child(work) for _ in range(10)))
    finally:
        stop.set()
        thread.join()
    assert ("", "child") not in loaded(driver, record.digest, START).values


def test_four_processes_increment(driver: SQLiteDriver) -> None:
    record = started(driver)

    def work() -> None:
        for n in range(250):
            delta = ADD if n % 2 else Delta(increments={A: 1, ("", str(os.getpid())): 1})
            committed(driver.commit(record.digest, delta, START))

    wait(*(in_child(work) for _ in range(4)))
    values = loaded(driver, record.digest, START).values
    assert values[A].data == 1000
    assert sorted(value.data for name, value in values.items() if name != A) == [125] * 4


def test_racing_creators(tmp_path: Path) -> None:
    for n in range(5):
        path = tmp_path / f"{n}.db"
        start = time.time() + 0.05

        def work(path: Path = path, start: float = start) -> None:
            time.sleep(max(0, start - time.time()))
            driver = SQLiteDriver(path, timeout=120)
            assert driver.load(digest(), START) == Missing(Reason.UNKNOWN)
            started(driver, user="ann")

        wait(*(in_child(work) for _ in range(6)))
        assert len(SQLiteDriver(path).sessions_of("ann", START)) == 6
        assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import sys
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Delta, Put
path, digest = sys.argv[1], bytes.fromhex(sys.argv[2])
driver = SQLiteDriver(path)
n = int(sys.argv[3])
while True:
    n += 1
    text = b"%d" % n * 50
    delta = Delta(puts={("", "a"): Put(text), ("", "b"): Put(text)}) if n % 2 else Delta(increments={("", "n"): 1})
    driver.commit(digest, delta, 1_800_000_000.0)
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_what_was_acknowledged_survives_a_kill(driver: SQLiteDriver) -> None:
    record = started(driver)
    written = 0
    count = 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, driver.path, record.digest.hex(), str(written)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(random.uniform(0.005, 0.03))  # noqa: S311 (no secret)
            child.kill()
            lines += child.stdout.read().splitlines(keepends=True)
        told = [int(line) for line in lines if line.endswith("\n")]
        values = loaded(SQLiteDriver(driver.path), record.digest, START).values
        assert values["", "a"].data == values["", "b"].data, "half a change"
        stored = int(bytes(values["", "a"].data)[: len(bytes(values["", "a"].data)) // 50])  # type: ignore[arg-type]
        count += sum(n % 2 == 0 for n in told)
        assert stored >= max(n for n in told if n % 2)
        held = values["", "n"].data if ("", "n") in values else 0  # a busy machine does not get as far
        assert isinstance(held, int)
        assert held - count in (0, 1)  # the last may be done and not yet told
        count = held
        written = max(stored, told[-1])
        written += written % 2  # the next one starts with a put


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_places_that_are_not_writable() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        driver = SQLiteDriver(folder / "s.db")
        record = started(driver)
        driver.close()

        def work() -> None:
            os.setuid(65534)
            with pytest.raises(DriverUnavailable, match="is not writable for uid 65534") as caught:
                driver.load(record.digest, START)
            assert str(folder) in str(caught.value)

        wait(in_child(work))
        folder.chmod(0o777)
        Path(driver.path).chmod(0o444)

        def read_only() -> None:
            os.setuid(65534)
            with pytest.raises(DriverUnavailable, match=r"must be writable for|must exist and be writable"):
                driver.commit(record.digest, ADD, START)

        wait(in_child(read_only))
        Path(driver.path).chmod(0o000)

        def unreadable() -> None:
            os.setuid(65534)
            with pytest.raises(DriverUnavailable, match="must exist and be writable") as caught:
                driver.load(record.digest, START)
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)

        wait(in_child(unreadable))


ON_READ_ONLY = """
import subprocess, sys
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta
from coatcheck.testing.helpers import START, loaded, started

def mount(*options):
    subprocess.run(["mount", *options, sys.argv[1]], check=True)

mount("-t", "tmpfs", "-o", "size=16m", "tmpfs")
driver, new = (SQLiteDriver(f"{sys.argv[1]}/{name}") for name in ("s.db", "new.db"))
record = started(driver)
driver.close()
mount("-o", "remount,ro")
for work in (
    lambda: driver.load(record.digest, START),
    lambda: driver.commit(record.digest, Delta(increments={("", "n"): 1}), START),
    lambda: new.setup(),
):
    try:
        work()
    except DriverUnavailable as error:
        print(error.outcome_unknown, error)
mount("-o", "remount,rw")
print(len(loaded(driver, record.digest, START).values))
driver.close()
"""


def test_a_file_system_that_is_mounted_read_only(tmp_path: Path) -> None:
    """A real one, in a mount namespace of the child's own: root may make one, and most others one of their own."""
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount anything")
    command = [*namespace, sys.executable, "-c", ON_READ_ONLY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *refused, at_last = done.stdout.splitlines()
    assert len(refused) == 3, done.stdout
    for line in refused:
        assert line.startswith("False ")
        assert f"the folder {str(tmp_path)!r} of the database" in line
        assert "on a file system that is mounted read-only: mount it for writing, or name a file in another" in line
    assert at_last == "0"
