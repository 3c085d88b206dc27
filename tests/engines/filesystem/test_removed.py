"""The filesystem: the folder is removed while programs use it. All sessions are over, and everybody goes on."""

# ruff: noqa: ARG005 -- the operations take the same arguments

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coatcheck.drivers.filesystem import AsyncFilesystemDriver, FilesystemDriver
from coatcheck.drivers.filesystem.tree import FOLDERS, Tree
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Committed, Delta, Gone, Missing, Reason, Record, ValueKey
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, started

N: ValueKey = ("", "n")
ADD = Delta(increments={N: 1})
UNKNOWN = Missing(Reason.UNKNOWN)


def remove(root: Path) -> None:
    shutil.rmtree(root)


def move(root: Path) -> None:
    away = root.with_name("away")
    shutil.rmtree(away, ignore_errors=True)
    root.rename(away)


def remove_what_is_in_it(root: Path) -> None:
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(root: Path) -> None:
    remove(root)
    root.mkdir(0o700)


WAYS = (remove, move, remove_what_is_in_it, replace)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """How the folder goes away."""
    chosen: Callable[[Path], None] = request.param
    return chosen


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def test_all_threads_go_on(root: Path, way: Callable[[Path], None]) -> None:
    driver = FilesystemDriver(root)
    old = started(driver, user="ann", values={N: 1})
    for _ in range(2):
        way(root)
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(driver.load, [old.digest] * 4, [START] * 4)) == [UNKNOWN] * 4
            made = list(threads.map(lambda _: started(driver, user="ann"), range(4)))
            for record in made:
                list(threads.map(lambda _, of=record: committed(driver.commit(of.digest, ADD, START)), range(4)))  # type: ignore[misc]
        assert [loaded(driver, record.digest, START).values[N].data for record in made] == [4] * 4
        assert len(driver.sessions_of("ann", START)) == 4
        old = made[0]
    assert root.stat().st_mode & 0o077 == 0


FIRST: dict[str, Callable[[FilesystemDriver, Record], object]] = {
    "load": lambda driver, old: driver.load(old.digest, START),
    "create": lambda driver, old: driver.create(make_record(user="ann"), START),
    "commit": lambda driver, old: driver.commit(old.digest, ADD, START),
    "rotate": lambda driver, old: driver.rotate(old.digest, digest(), Delta(), 0, START),
    "revoke": lambda driver, old: driver.revoke(old.digest, START),
    "revoke_user": lambda driver, old: driver.revoke_user("ann", START),
    "sessions_of": lambda driver, old: driver.sessions_of("ann", START),
    "missing": lambda driver, old: driver.missing([old.sid], START),
    "sweep": lambda driver, old: driver.sweep(START, 10),
    "tear_down": lambda driver, old: driver.tear_down(),
}
ANSWERS: dict[str, object] = {
    "load": UNKNOWN, "commit": Gone(Reason.UNKNOWN), "rotate": Gone(Reason.UNKNOWN), "revoke": False, "revoke_user": 0,
    "sessions_of": [], "sweep": 0,
}  # fmt: skip


@pytest.mark.parametrize("operation", list(FIRST))
def test_every_operation_may_be_the_first_that_finds_out(
    root: Path, way: Callable[[Path], None], operation: str
) -> None:
    driver = FilesystemDriver(root)
    old = started(driver, user="ann")
    way(root)
    answer = FIRST[operation](driver, old)
    assert operation not in ANSWERS or answer == ANSWERS[operation]
    started(driver, user="bob")
    assert driver.load(old.digest, START).reason in (Reason.UNKNOWN, Reason.REVOKED)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*FOLDERS, "format"])
@pytest.mark.parametrize("operation", list(FIRST))
def test_a_part_of_it_that_is_missing_is_made_again(root: Path, name: str, operation: str) -> None:
    driver = FilesystemDriver(root)
    old = started(driver, user="ann")
    path = root / name
    path.unlink() if name == "format" else shutil.rmtree(path)
    assert not driver.is_set_up()
    with suppress(ConfigurationError):
        FIRST[operation](driver, old)
    record = started(driver, user="bob")
    committed(driver.commit(record.digest, ADD, START))
    driver.setup()
    assert driver.is_set_up()
    driver.revoke_user("bob", START + 1)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED, ended=START + 1)


def test_an_event_loop_goes_on(root: Path, way: Callable[[Path], None]) -> None:
    async def work() -> None:
        driver = AsyncFilesystemDriver(root)
        old, new = make_record(), make_record()
        await driver.create(old, START)
        assert isinstance(await driver.load(old.digest, START), Record)
        way(root)
        assert await asyncio.gather(*(driver.load(old.digest, START) for _ in range(8))) == [UNKNOWN] * 8
        committed(await driver.create(new, START))
        assert isinstance(await driver.load(new.digest, START), Record)
        await driver.close()

    asyncio.run(work())


WORKER = """
import sys
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.record import Delta
from coatcheck.testing.helpers import START, started
driver = FilesystemDriver(sys.argv[1])
for line in sys.stdin:
    what, _, rest = line.strip().partition(" ")
    if what == "start":
        answer = started(driver).digest.hex()
    elif what == "add":
        answer = type(driver.commit(bytes.fromhex(rest), Delta(increments={("", "n"): 1}), START)).__name__
    elif what == "load":
        answer = type(driver.load(bytes.fromhex(rest), START)).__name__
    print(answer, flush=True)
"""


@contextmanager
def workers(root: Path, number: int) -> Iterator[list[Callable[..., str]]]:
    """Other processes that use the folder: functions that ask each of them."""
    command = [sys.executable, "-c", WORKER, str(root)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]

    def asker(process: subprocess.Popen[str]) -> Callable[..., str]:
        def ask(*words: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            print(*words, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        return ask

    try:
        yield [asker(process) for process in started]
    finally:
        for process in started:
            process.communicate(timeout=60)


def test_all_processes_go_on(root: Path, way: Callable[[Path], None]) -> None:
    with workers(root, 3) as ask:
        old = ask[0]("start")
        assert [each("add", old) for each in ask] == ["Committed"] * 3
        way(root)
        made = [each("start") for each in ask]
        for record in made:
            assert [each("add", record) for each in ask] == ["Committed"] * 3
        assert [each("load", old) for each in ask] == ["Missing"] * 3
    driver = FilesystemDriver(root)
    assert [loaded(driver, bytes.fromhex(record), START).values[N].data for record in made] == [3] * 3


@pytest.mark.parametrize("way", [move, remove], ids=["move", "remove"])
def test_nothing_fails_while_it_goes_again_and_again(root: Path, way: Callable[[Path], None]) -> None:
    driver = FilesystemDriver(root, timeout=30)
    wrong: list[str] = []
    stop = threading.Event()

    def visit() -> None:
        record = None
        while not stop.is_set():
            try:
                if record is None:
                    record = make_record()
                    assert isinstance(driver.create(record, START), Committed)
                done = driver.commit(record.digest, ADD, START)
                if isinstance(done, Gone) or isinstance(driver.load(record.digest, START), Missing):
                    record = None
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is wrong
                wrong.append(repr(error))

    threads = [threading.Thread(target=visit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        time.sleep(0.1)  # to let them work; nothing depends on how far they come
        with suppress(OSError):  # nobody has made one again yet, or somebody wrote into it meanwhile
            way(root)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("operation", ["commit", "rotate", "log in"])
def test_a_write_in_flight_brings_nothing_into_the_new_folder(
    root: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read the session before the folder was moved away, and writes once another process has made a new one."""
    driver, other = FilesystemDriver(root), FilesystemDriver(root)
    old = started(driver, values={N: 1})
    new = digest()
    write = Tree._written
    moved = []

    def after_the_move(tree: Tree, data: bytes) -> Any:
        if tree is driver._tree and not moved:
            moved.append(True)
            move(root)
            started(other)
        return write(tree, data)

    monkeypatch.setattr(Tree, "_written", after_the_move)
    if operation == "rotate":
        answer = driver.rotate(old.digest, new, ADD, 0, START)
    else:
        login = Delta(user="ann", auth_time=START) if operation == "log in" else ADD
        answer = driver.commit(old.digest, login, START)
    assert moved
    assert answer == Gone(Reason.UNKNOWN)
    assert driver.load(old.digest, START) == UNKNOWN
    assert driver.load(new, START) == UNKNOWN
    assert driver.sessions_of("ann", START) == []
    assert driver.missing([old.sid], START) == {old.sid}


ON_A_DISK = """
import os, subprocess, sys
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, loaded, started
disk, folder = sys.argv[1:]

def mount(*command):
    subprocess.run(command, check=True)

mount("mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk)
os.makedirs(os.path.dirname(folder), exist_ok=True)
driver = FilesystemDriver(folder)
record = started(driver, user="ann")
mount("mount", "--bind", disk, "/mnt")  # so that the disk stays what it is
mount("umount", disk)
for name, use in {
    "load": lambda: driver.load(record.digest, START),
    "create": lambda: driver.create(make_record(), START),
    "commit": lambda: driver.commit(record.digest, Delta(touch=START), START),
    "rotate": lambda: driver.rotate(record.digest, digest(), Delta(), 0, START),
    "revoke": lambda: driver.revoke(record.digest, START),
    "revoke_user": lambda: driver.revoke_user("ann", START),
    "sessions_of": lambda: driver.sessions_of("ann", START),
    "missing": lambda: driver.missing([record.sid], START),
}.items():
    try:
        print(name, use())
    except DriverUnavailable as error:
        print(name, "unavailable", error.outcome_unknown)
mount("mount", "--bind", "/mnt", disk)
print("back", loaded(driver, record.digest, START) == record)
"""


@pytest.mark.parametrize("inside", ["", "/sessions", "/app/sessions"], ids=["the disk", "a folder", "a folder below"])
def test_a_disk_that_is_gone_is_no_missing_session(tmp_path: Path, inside: str) -> None:
    """A real one, in a mount namespace of the child's own: root may make one, and most others one of their own."""
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    disk = tmp_path / "disk"
    disk.mkdir(0o700)
    command = [*namespace, sys.executable, "-c", ON_A_DISK, str(disk), f"{disk}{inside}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        *(
            f"{name} unavailable False"
            for name in ("load", "create", "commit", "rotate", "revoke", "revoke_user", "sessions_of", "missing")
        ),
        "back True",
    ]
    assert list(disk.iterdir()) == []


def test_a_folder_that_others_can_reach_is_refused_in_its_place(root: Path) -> None:
    driver = FilesystemDriver(root)
    record = started(driver)
    remove(root)
    root.mkdir(0o755)
    root.chmod(0o755)
    with pytest.raises(ConfigurationError, match="is open to others"):
        driver.load(record.digest, START)
    root.chmod(0o700)
    assert driver.load(record.digest, START) == UNKNOWN


def test_the_folder_above_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    driver = FilesystemDriver(tmp_path / "data" / "sessions")
    record = started(driver)
    remove(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(DriverUnavailable, match="does not exist: create it"):
            driver.load(record.digest, START)
    (tmp_path / "data").mkdir()
    assert driver.load(record.digest, START) == UNKNOWN
