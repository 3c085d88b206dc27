"""The filesystem's own: who can reach the files, what a crash leaves, what a sweep looks at, and locks."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from coatcheck.drivers import _files, open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.filesystem import AsyncFilesystemDriver, FilesystemDriver, locks
from coatcheck.drivers.filesystem import sessions as files
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import USER_FENCE, Conflict, Delta, Gone, Missing, Put, Reason, Record, ValueKey
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started, successor

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
N: Final[ValueKey] = ("", "n")
LARGE: Final = b"x" * 50_000
LATER: Final = START + 10 * 365 * 86400.0


def data_of(record: Record) -> dict[ValueKey, bytes | int]:
    return {name: value.data for name, value in record.values.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def driver(root: Path) -> FilesystemDriver:
    return FilesystemDriver(root, timeout=120)


def below(folder: Path, *without: str) -> list[Path]:
    """Give all files below a folder, but those in some of its folders."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path for path in found if path.relative_to(folder).parts[0] not in without)


def the_file(root: Path, kind: str) -> Path:
    (found,) = below(root / kind)
    return found


# -- who can reach the files


def test_constructing_does_nothing(tmp_path: Path) -> None:
    FilesystemDriver(tmp_path / "missing" / "sessions")
    open_driver(f"filesystem:///{tmp_path}/sessions")
    open_async_driver(f"filesystem:///{tmp_path}/sessions")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    driver = open_driver("filesystem:///sessions?prefix=x_")
    monkeypatch.chdir(tmp_path / "elsewhere")
    driver.setup()
    assert (tmp_path / "x_sessions" / "format").exists()


def test_everything_is_for_the_owner_alone(driver: FilesystemDriver, root: Path) -> None:
    old = os.umask(0)
    try:
        record = started(driver, user="ann", values={A: LARGE})
        committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START))
        driver.revoke(digest(), START)
        driver.revoke_user("bob", START)
    finally:
        os.umask(old)
    kinds = {path.relative_to(root).parts[0] for path in below(root)}
    assert kinds == {"digest", "due", "fence", "format", "lock", "session", "user"}
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_names_have_nothing_from_outside(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    record = make_record(sid_="0000/../../../escaped\0", user="../../../escaped\0")
    committed(driver.create(record, START))
    assert [info.sid for info in driver.sessions_of(record.user or "", START)] == [record.sid]
    nobody = ["../../x", "\0", "", "\ud800", "a" * 5000]
    assert driver.missing([record.sid, *nobody], START) == set(nobody)
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770, 0o777])
def test_a_folder_that_others_can_reach_is_refused(driver: FilesystemDriver, root: Path, mode: int) -> None:
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        driver.setup()
    root.chmod(0o700)
    driver.setup()


def test_somebody_elses_folder_is_refused(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the owner of a public folder could make it before us."""
    root.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="change the owner"):
        driver.load(digest(), START)


def test_what_is_no_folder_is_refused(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(0o700)
    root.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        driver.setup()
    root.unlink()
    root.touch(0o600)
    with pytest.raises(ConfigurationError, match="not a folder"):
        driver.setup()
    assert list((tmp_path / "target").iterdir()) == []


def test_a_folder_with_other_things_in_it_is_refused(driver: FilesystemDriver, root: Path) -> None:
    root.mkdir(0o700)
    (root / "precious").touch()
    with pytest.raises(ConfigurationError, match="sessions alone"):
        driver.setup()
    driver.tear_down()
    assert list(root.iterdir()) == [root / "precious"]


def test_another_format_is_refused(driver: FilesystemDriver, root: Path) -> None:
    started(driver)
    (root / "format").write_bytes(b"coatcheck sessions, format 2\n")
    other = FilesystemDriver(root)
    for use in (other.setup, other.is_set_up, lambda: other.load(digest(), START), other.tear_down):
        with pytest.raises(ConfigurationError, match="another format"):
            use()


def test_tear_down_removes_what_setup_made_and_nothing_else(driver: FilesystemDriver, root: Path) -> None:
    assert not driver.is_set_up()
    driver.setup()
    assert driver.is_set_up()
    started(driver)
    (root / "precious").touch()
    driver.tear_down()
    assert not driver.is_set_up()
    assert list(root.iterdir()) == [root / "precious"]
    (root / "precious").unlink()
    driver.setup()
    driver.tear_down()
    driver.tear_down()
    assert not root.exists()


def test_links_in_the_place_of_files_are_not_followed(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for kind in ("digest", "session"):
        record = started(driver, values={A: b"a"})
        path = the_file(root, kind)
        target.write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(target)
        before = target.read_bytes()
        assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
        assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
        assert not driver.revoke(record.digest, START)
        assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
        assert target.read_bytes() == before
        driver.tear_down()


def test_a_link_in_the_place_of_a_lock_is_not_followed(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    record = started(driver)
    (lock,) = (path for path in below(root / "lock") if path.name.startswith("session-"))
    lock.unlink()
    lock.symlink_to(tmp_path / "made")
    with pytest.raises(DriverUnavailable):
        driver.commit(record.digest, puts({A: b"a"}), START)
    assert not (tmp_path / "made").exists()


# -- what is spoilt


def spoilings(data: bytes) -> Iterator[bytes]:
    yield from (data[:length] for length in range(len(data)))
    yield from (b"\0" * len(data), b"\xff" * len(data), data + b"x", b"\x93\x01", data[::-1])


@pytest.mark.parametrize("kind", ["digest", "session"])
def test_a_spoilt_file_is_unreadable_and_never_raises(driver: FilesystemDriver, root: Path, kind: str) -> None:
    record = started(driver, user="ann", values={A: b"a", N: 5})
    path = the_file(root, kind)
    data = path.read_bytes()
    for junk in spoilings(data):
        path.write_bytes(junk)
        assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
        assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
        assert driver.rotate(record.digest, digest(), Delta(), 0, START) == Gone(Reason.UNREADABLE)
        assert driver.create(make_record(digest_=record.digest), START) == Conflict()
        if kind == "session":
            assert driver.missing([record.sid], START) == {record.sid}
    path.write_bytes(data)
    assert loaded(driver, record.digest, START) == record
    path.write_bytes(b"")
    assert not driver.revoke(record.digest, START)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_unreadable(driver: FilesystemDriver, root: Path, make: Callable[[Path], None]) -> None:
    record = started(driver, values={A: LARGE})
    for path in (*below(root / "session"), the_file(root, "digest")):
        data = path.read_bytes()
        path.unlink()
        make(path)
        assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
        assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(data)
    assert loaded(driver, record.digest, START) == record


def test_spoilt_values_apart_are_unreadable(driver: FilesystemDriver, root: Path) -> None:
    record = started(driver, values={A: LARGE})
    _, apart = below(root / "session")
    data = apart.read_bytes()
    for junk in (b"", data[:7], data[:8], data[:-1], b"\0" * len(data)):
        apart.write_bytes(junk)
        assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
        assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
    apart.unlink()
    assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
    assert driver.revoke(record.digest, START)


def test_a_spoilt_fence_and_strange_files_are_no_trouble(driver: FilesystemDriver, root: Path) -> None:
    driver.revoke_user("ann", START)
    the_file(root, "fence").write_bytes(b"no number")
    record = started(driver, user="ann")
    (root / "due" / "strange").mkdir()
    (root / "due" / "0").mkdir()
    for name in ("strange", "1_x_y", "nan_s_00", "1.0_d_no hex", "1.0_s_" + "0" * 32):
        (root / "due" / "0" / name).touch()
    assert driver.sweep(START, 100) == 0
    assert driver.sweep(START + 600, 100) == 1
    assert driver.sessions_of("ann", START) == []
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)


# -- what cannot be done


def every_operation(driver: Driver) -> dict[str, Callable[[], object]]:
    some = digest()
    return {
        "load": lambda: driver.load(some, START),
        "create": lambda: driver.create(make_record(), START),
        "commit": lambda: driver.commit(some, puts({A: b"a"}), START),
        "rotate": lambda: driver.rotate(some, digest(), Delta(), 0, START),
        "revoke": lambda: driver.revoke(some, START),
        "setup": driver.setup,
    }


def test_a_missing_folder(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "missing" / "sessions")
    for name, use in every_operation(driver).items():
        with pytest.raises(DriverUnavailable, match=r"missing', for .* does not exist: create it") as caught:
            use()
        assert (caught.value.operation, caught.value.outcome_unknown) == (name, False)


def test_a_folder_that_takes_nothing() -> None:
    """As root no folder is read-only, but /proc takes nothing from anybody."""
    with pytest.raises(DriverUnavailable, match="in /proc/sessions"):
        FilesystemDriver("/proc/sessions").load(digest(), START)


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let no file become larger than *size* bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_write_that_finds_no_room_leaves_all_as_it_was(driver: FilesystemDriver, root: Path) -> None:
    record = started(driver, values={A: b"a" * 500})
    before = {path: path.read_bytes() for path in below(root, "lock")}
    for delta in (puts({B: LARGE}), puts({B: b"b" * 2000})):
        for act in (
            lambda of=delta: driver.commit(record.digest, of, START),  # type: ignore[misc]
            lambda of=delta: driver.create(make_record(values={B: of.puts[B].data}), START),  # type: ignore[misc]
        ):
            with no_room(1000), pytest.raises(DriverUnavailable) as caught:
                act()
            assert not caught.value.outcome_unknown
            assert loaded(driver, record.digest, START) == record
    assert {path: path.read_bytes() for path in below(root, "lock", "due", "digest")} == {
        path: data for path, data in before.items() if path.relative_to(root).parts[0] not in ("due", "digest")
    }
    committed(driver.commit(record.digest, puts({B: LARGE}), START))
    clean(driver, root)


def test_a_disk_that_may_not_keep_it_makes_the_outcome_unknown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FilesystemDriver(root, synchronous="full")
    record = started(driver)
    sync = os.fsync

    def fails_for_folders(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails_for_folders)
        with pytest.raises(DriverUnavailable, match="may not keep") as caught:
            driver.commit(record.digest, puts({A: b"a"}), START)
        assert caught.value.outcome_unknown

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(DriverUnavailable, match="Input/output error") as caught:
            driver.commit(record.digest, puts({A: b"b"}), START)
        assert not caught.value.outcome_unknown
    assert data_of(loaded(driver, record.digest, START)) == {A: b"a"}


def test_what_is_synced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    sync = os.fsync

    def noted(file: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(file).st_mode))
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    record = started(FilesystemDriver(root))
    committed(FilesystemDriver(root).commit(record.digest, puts({A: b"a"}), START))
    assert synced == []
    committed(FilesystemDriver(root, synchronous="full").commit(record.digest, puts({A: b"b"}), START))
    assert synced == [False, True], "the file, and then the folder that it is in"


def test_network_file_systems_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "file_system_of", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match="network_filesystem=allow"):
        FilesystemDriver(root).setup()
    open_driver(f"filesystem:///{root}?network_filesystem=allow").setup()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("filesystem:", "filesystem:///relative"),
        ("filesystem:///", "filesystem:///relative"),
        ("filesystem://host/folder", "filesystem:///relative"),
        ("filesystem:////", "folder of their own"),
        ("filesystem:///a?timeout=soon", "timeout"),
        ("filesystem:///a?synchronous=off", "synchronous"),
        ("filesystem:///a?prefix=../b", "prefix"),
        ("filesystem:///a?mode=777", "unknown option 'mode'"),
        ("filesystem:///a%00b", "names no folder"),
    ],
)
def test_urls_that_make_no_sense(url: str, why: str) -> None:
    for open_ in (open_driver, open_async_driver):
        with pytest.raises(ConfigurationError, match=why):
            open_(url)


def test_advice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coatcheck.drivers.filesystem import driver as module  # noqa: PLC0415

    monkeypatch.setattr(module, "file_system_of", lambda _: "tmpfs")
    assert "in memory" in FilesystemDriver(root).advice()[0]
    monkeypatch.setattr(module, "file_system_of", lambda _: "ext4")
    assert "cleans up" in FilesystemDriver("/tmp/x").advice()[0]  # noqa: S108
    assert FilesystemDriver("/var/lib/x").advice() == []


# -- what is written, and what is left


def clean(driver: Driver, root: Path) -> None:
    """Let all that is there come to its end, and see that nothing is left of it."""
    for _ in range(2):
        driver.sweep(LATER, 10_000)
    assert below(root, "lock", "format") == []
    assert list((root / "due").iterdir()) == []


def test_nothing_is_left_of_anything(driver: FilesystemDriver, root: Path) -> None:
    for values in ({A: b"a"}, {A: LARGE}):
        records = [started(driver, user=f"user-{n % 3}", values=values) for n in range(6)]
        tokens = []
        for n, record in enumerate(records):
            token = record.digest
            for k in range(n):
                new = successor(driver, token)
                committed(driver.rotate(token, new, puts({B: LARGE}), 5 * (k % 2), START + 20 * k))
                token = new
            committed(driver.commit(token, Delta(user=f"user-{n % 2}", auth_time=START + 200), START + 200))
            tokens.append(token)
        driver.revoke(tokens[0], START + 201)
        driver.revoke(digest(), START + 201)
        driver.revoke_user("user-1", START + 202)
        clean(driver, root)


def test_a_rotation_leaves_large_values_alone(driver: FilesystemDriver, root: Path) -> None:
    record = started(driver, values={A: LARGE})
    _, apart = below(root / "session")
    before = apart.stat()
    new = successor(driver, record.digest)
    committed(driver.rotate(record.digest, new, Delta(touch=START + 1), 30, START))
    committed(driver.commit(new, Delta(touch=START + 2), START))
    assert below(root / "session")[1:] == [apart]
    assert (apart.stat().st_ino, apart.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert loaded(driver, new, START).values == record.values
    for n in range(5):
        committed(driver.commit(new, puts({A: LARGE + b"%d" % n}), START))
        assert len(below(root / "session")) == 2
    committed(driver.commit(new, puts({A: b"small"}), START))
    assert len(below(root / "session")) == 1
    assert data_of(loaded(driver, new, START)) == {A: b"small"}


def test_a_reader_never_sees_the_values_of_another_moment(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the document and its look at the values, others write."""
    record = started(driver, values={A: LARGE, N: 0})
    other = FilesystemDriver(driver.folder)
    values = files.Sessions.values
    left = 4

    def after_a_write(self: files.Sessions, *args: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            for _ in range(left):
                committed(
                    other.commit(
                        record.digest, Delta(puts=puts({A: LARGE + b"%d" % left}).puts, increments={N: 1}), START
                    )
                )
        return values(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(driver._work._sessions, "values", after_a_write.__get__(driver._work._sessions))
        found = loaded(driver, record.digest, START)
    assert left == 0
    assert data_of(found) == {A: LARGE + b"1", N: 6}
    assert {value.version for value in found.values.values()} == {7}


def test_a_reader_that_is_always_late_makes_writers_wait(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = started(driver, values={A: LARGE})
    other = FilesystemDriver(driver.folder, timeout=0)
    values = files.Sessions.values
    blocked = 0

    def after_writes(self: files.Sessions, *args: Any) -> Any:
        nonlocal blocked
        try:
            for n in range(2):
                committed(other.commit(record.digest, puts({A: LARGE + b"%d" % n}), START))
        except DriverUnavailable:
            blocked += 1
        return values(self, *args)

    monkeypatch.setattr(driver._work._sessions, "values", after_writes.__get__(driver._work._sessions))
    assert loaded(driver, record.digest, START).values[A].data == LARGE + b"1"
    assert blocked == 1


def test_a_sweep_looks_only_at_what_is_due(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(50):
        started(driver, idle=5000.0 + n)
    gone = [started(driver, idle=100.0) for _ in range(5)]
    for record in gone[1:]:
        committed(driver.commit(record.digest, Delta(touch=START + 90), START + 90))
    opened: list[str] = []
    read = driver._tree.read
    monkeypatch.setattr(driver._tree, "read", lambda path: opened.append(path) or read(path))  # type: ignore[func-returns-value]
    assert driver.sweep(START + 150, 100) == 1
    assert len(opened) == 1
    assert driver.sweep(START + 190, 2) == 2
    assert driver.sweep(START + 190, 100) == 2
    assert len(opened) == 5
    assert driver.sweep(START + 190, 100) == 0
    assert len(opened) == 5


def test_a_list_heals_when_it_is_read(driver: FilesystemDriver) -> None:
    """What a crash left on it: sessions that never came, that are somebody else's, or that are over."""
    record, other = started(driver, user="ann"), started(driver, user="bob")
    sessions = files.Sessions(driver._tree, driver._work._locks)
    for sid in (other.sid, "nobody"):
        driver._tree.mark(sessions._of_user("ann", files.session_name(sid)))
    assert [info.sid for info in driver.sessions_of("ann", START)] == [record.sid]
    assert sessions.of_user("ann") == [files.session_name(record.sid)]
    driver._tree.mark(sessions._of_user("ann", files.session_name(other.sid)))
    assert driver.revoke_user("ann", START) == 1
    assert loaded(driver, other.digest, START) == other
    assert sessions.of_user("ann") == []


def test_leftovers_of_a_process_that_was_killed_are_swept(driver: FilesystemDriver, root: Path) -> None:
    started(driver)
    old, new = root / "temp" / "old", root / "temp" / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    driver.sweep(START, 100)
    assert below(root / "temp") == [new]


# -- a kill at each call of the file system


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a forked process; give what it ended with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 (the child must not return into the test)
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CALLS: Final = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "fcntl.flock")


def die_at(call: int, work: Callable[[], object]) -> bool:
    """Run *work* in a child that is killed at that call of the file system; True where it came through."""

    def counted() -> None:
        left = call

        def count(event: str, _: Any) -> None:
            nonlocal left
            if event in CALLS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    code = in_child(counted)
    assert code in (0, -signal.SIGKILL)
    return code == 0


def write(driver: Driver, record: Record, new: bytes) -> None:
    committed(driver.commit(record.digest, Delta(puts={A: Put(b"new"), B: Put(b"new")}, touch=START + 5), START + 5))


def write_large(driver: Driver, record: Record, new: bytes) -> None:
    committed(driver.commit(record.digest, puts({A: LARGE, B: LARGE}), START + 5))


def log_in(driver: Driver, record: Record, new: bytes) -> None:
    delta = Delta(puts=puts({A: b"new", B: b"new"}).puts, user="bob", auth_time=START + 5)
    committed(driver.rotate(record.digest, new, delta, 0, START + 5))


def renew(driver: Driver, record: Record, new: bytes) -> None:
    committed(driver.rotate(record.digest, new, puts({A: LARGE, B: LARGE}), 30, START + 5))


def log_out(driver: Driver, record: Record, new: bytes) -> None:
    assert driver.revoke(record.digest, START + 5)


def log_out_everywhere(driver: Driver, record: Record, new: bytes) -> None:
    assert driver.revoke_user("ann", START + 5) == 1


def arrive(driver: Driver, record: Record, new: bytes) -> None:
    committed(driver.create(make_record(digest_=new, sid_="0707" + "7" * 28, user="bob", values={A: LARGE}), START + 5))


def sweep(driver: Driver, record: Record, new: bytes) -> None:
    assert driver.sweep(START + 600, 10) == 1


OLD: Final = b"\1" * 32
NEW: Final = b"\7" * 32


def seen(driver: Driver, record: Record, now: float) -> list[Any]:
    """Give all that can be seen of the sessions, apart from what is drawn anew each time."""
    found = [driver.load(each, now) for each in (record.digest, NEW)]
    return [
        *((data_of(each), each.user, each.stale, each.fresh) if isinstance(each, Record) else each for each in found),
        driver.missing([record.sid], now),
        [len(driver.sessions_of(user, now)) for user in ("ann", "bob")],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("act", [write, write_large, log_in, renew, log_out, log_out_everywhere, arrive, sweep])
def test_a_kill_at_each_call(tmp_path: Path, act: Callable[[Driver, Record, bytes], None], *, large: bool) -> None:
    """Up to one of the calls nothing of it is there, and from there on all of it; no lock stays, and nothing else."""
    outcomes: list[str] = []
    moment = START + 600 if act is sweep else START + 5
    for call in range(200):
        root = tmp_path / str(call)
        driver = FilesystemDriver(root, timeout=2)
        values = {A: LARGE if large else b"old", B: b"old"}
        # the same names each time: a folder that two of them share is a call less
        record = make_record(digest_=OLD, sid_="0101" + "1" * 28, user="ann", values=values)
        committed(driver.create(record, START))
        before = seen(driver, record, moment)
        survived = die_at(call, lambda d=driver, r=record: act(d, r, NEW))  # type: ignore[misc]
        after = seen(driver, record, moment)
        outcomes.append("before" if after == before else "after")
        if survived:
            break
        if after == before and act is not sweep:
            act(driver, record, digest())  # whoever comes next can do it
        for path in below(root / "temp"):
            os.utime(path, (0, 0))
        clean(driver, root)
    else:
        pytest.fail("it never came to its end")
    assert len(outcomes) > 5
    if act is not sweep:  # which is not to be seen: the session was over
        assert outcomes[0] == "before"
        assert outcomes[-1] == "after"
        assert outcomes == sorted(outcomes, reverse=True), "it went back and forth"


VICTIM: Final = """
    import os, sys
    from coatcheck.drivers.filesystem import FilesystemDriver
    from coatcheck.record import Committed, Delta, Put

    driver, digest, mine = FilesystemDriver(sys.argv[1], timeout=120), bytes.fromhex(sys.argv[2]), sys.argv[3]
    n = int(sys.argv[4])
    while True:
        n += 1
        data = b"%d " % n * (3000 if n % 3 == 0 else 3)
        puts = {("", mine + "-left"): Put(data), ("", mine + "-right"): Put(data)}
        answer = driver.commit(digest, Delta(puts=puts, increments={("", mine): 1, ("", "all"): 1}), 1_800_000_000.0)
        assert isinstance(answer, Committed), answer
        os.write(1, b"%d\\n" % n)
"""


@pytest.mark.slow
def test_kills_under_writers_lose_nothing_that_was_acknowledged(driver: FilesystemDriver, root: Path) -> None:
    """Three processes write to one session; again and again one is killed wherever it is, and comes back."""
    record = started(driver, values={("", "all"): 0})
    last = {"ann": 0, "bob": 0, "cat": 0}
    kills = dict.fromkeys(last, 0)

    def start(name: str) -> subprocess.Popen[bytes]:
        script = textwrap.dedent(VICTIM)
        command = [sys.executable, "-c", script, str(root), record.digest.hex(), name, str(last[name])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        last[name] = int(process.stdout.readline())
        return process

    def kill(name: str, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        assert process.stdout is not None
        for line in process.stdout:
            last[name] = int(line)
        process.stdout.close()
        process.wait()
        kills[name] += 1

    def check(name: str) -> None:
        values = data_of(loaded(driver, record.digest, START))
        left, right = values["", f"{name}-left"], values["", f"{name}-right"]
        assert isinstance(left, bytes)
        assert left == right, "half of a change"
        written = int(left.split()[0])
        assert last[name] <= written <= last[name] + 1
        count = values["", name]
        assert isinstance(count, int)
        assert count >= written - kills[name]
        last[name] = written

    running = {name: start(name) for name in last}
    try:
        for n in range(30):
            name = list(last)[n % 3]
            time.sleep(0.007 * (n % 5))
            kill(name, running[name])
            check(name)
            running[name] = start(name)
    finally:
        for name, process in running.items():
            kill(name, process)
    for name in last:
        check(name)
    values = data_of(loaded(driver, record.digest, START))
    assert values["", "all"] == sum(values["", name] for name in last)  # type: ignore[misc]
    for path in below(root / "temp"):
        os.utime(path, (0, 0))
    clean(driver, root)


# -- locks


def test_a_writer_that_holds_on_makes_the_driver_unavailable(root: Path) -> None:
    """In another process, and in another thread."""
    driver = FilesystemDriver(root, timeout=0.2)
    record = started(driver, values={A: b"a"})
    name = files.session_name(record.sid)
    for other in (FilesystemDriver(root), driver):
        with other._work._locks.held("session-", name):
            began = time.monotonic()
            with pytest.raises(DriverUnavailable, match=r"longer than 0\.2 s") as caught:
                _in_thread(lambda: driver.commit(record.digest, puts({A: b"x"}), START))
            assert time.monotonic() - began < 20
            assert not caught.value.outcome_unknown
            assert loaded(driver, record.digest, START) == record  # readers do not wait
    committed(driver.commit(record.digest, puts({A: b"b"}), START))


def _in_thread(work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except DriverUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Unnoted(set[int]):
    """A set that takes nothing."""

    def add(self, _: int) -> None:
        """Take nothing."""


@pytest.mark.parametrize("hooks", [True, False])
def test_a_child_takes_no_lock_of_the_parent_along(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch, *, hooks: bool
) -> None:
    """A fork while another thread writes: the child is not stuck, and does not hold what it never took.

    Without the hooks, as some servers fork, the child has the lock's file open too.
    """
    if not hooks:
        monkeypatch.setattr(locks, "_open_files", Unnoted())
    record = started(driver)
    name = files.session_name(record.sid)
    to_child, to_parent = os.pipe(), os.pipe()
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with driver._work._locks.held("session-", name):
            holding.set()
            done.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(120)

    def work() -> None:
        assert os.read(to_child[0], 1) == b"1"
        committed(driver.commit(record.digest, Delta(increments={N: 1}), START))
        os.write(to_parent[1], b"2")
        os.read(to_child[0], 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    done.set()
    thread.join()
    committed(driver.commit(record.digest, Delta(increments={N: 1}), START))
    os.write(to_child[1], b"1")
    assert os.read(to_parent[0], 1) == b"2"
    committed(driver.commit(record.digest, Delta(increments={N: 1}), START))
    os.write(to_child[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert loaded(driver, record.digest, START).values[N].data == 3
    for end in (*to_child, *to_parent):
        os.close(end)


def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(driver: FilesystemDriver) -> None:
    record = started(driver)
    name = files.session_name(record.sid)
    pipe = os.pipe()

    def parent() -> None:
        with driver._work._locks.held("session-", name):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os.write(pipe[1], b"%d" % os.getpid())
                signal.pause()
            signal.pause()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            parent()
        finally:
            os._exit(1)
    grandchild = int(os.read(pipe[0], 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        committed(driver.commit(record.digest, puts({A: b"a"}), START))
    finally:
        os.kill(grandchild, signal.SIGKILL)
    for end in pipe:
        os.close(end)


def test_tear_down_waits_for_writers_and_they_start_anew(driver: FilesystemDriver, root: Path) -> None:
    """A writer that waits for a lock of what is torn down meanwhile brings nothing back."""
    record = started(driver)
    name = files.session_name(record.sid)
    other = FilesystemDriver(root, timeout=10)
    loaded(other, record.digest, START)
    answers: list[object] = []

    def commit() -> None:
        try:
            answers.append(other.commit(record.digest, puts({A: b"late"}), START))
        except DriverUnavailable as error:
            answers.append(error)

    with driver._work._locks.held("session-", name):
        thread = threading.Thread(target=commit)
        thread.start()
        time.sleep(0.1)
        driver._tree.remove_all()  # as `tear_down` does, with this lock among the others
        driver.setup()
    thread.join()
    assert answers == [Gone(Reason.UNKNOWN)]
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)
    assert below(root, "lock", "format") == []


def test_whoever_waited_for_a_lock_that_was_removed_gets_the_new_one(tmp_path: Path) -> None:
    one, two = locks.Locks(str(tmp_path), 120), locks.Locks(str(tmp_path), 120)
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with two.held("session-", "00"):
            inside.set()
            leave.wait(120)

    thread = threading.Thread(target=wait)
    with one.held("session-", "00"):
        thread.start()
        time.sleep(0.1)
        (tmp_path / "session-00").unlink()
    inside.wait(120)
    try:
        with pytest.raises(locks.Busy), locks.Locks(str(tmp_path), 0.05).held("session-", "00"):
            pytest.fail("two hold the same lock")
    finally:
        leave.set()
        thread.join()


def test_log_ins_and_revocations_of_users_on_each_others_stripes(driver: FilesystemDriver) -> None:
    """Locks of users and of sessions are of two kinds, so nobody waits in a circle."""
    people = [f"user-{n}" for n in range(6)]
    records = [started(driver) for _ in range(6)]
    stop = time.monotonic() + 1.5

    def log_in_and_out(number: int) -> None:
        n = 0
        while time.monotonic() < stop:
            n += 1
            who = people[(number + n) % 6]
            if number % 3 == 0:
                driver.revoke_user(who, START)
            else:
                driver.commit(records[(number * n) % 6].digest, Delta(user=who, auth_time=START + n), START + n)

    threads = [threading.Thread(target=log_in_and_out, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)


def test_a_fence_holds_for_an_hour_and_is_swept(driver: FilesystemDriver, root: Path) -> None:
    driver.revoke_user("ann", START)
    driver.sweep(START + USER_FENCE - 1, 100)
    late = make_record(START + USER_FENCE - 1, user="ann", auth_time=START)
    assert driver.create(late, START + USER_FENCE - 1) == Gone(Reason.REVOKED)
    driver.sweep(START + USER_FENCE, 100)
    assert below(root / "fence") == []


# -- asynchronous


def test_a_cancelled_task_leaves_its_operation_whole(root: Path) -> None:
    async def run() -> None:
        driver = AsyncFilesystemDriver(root, timeout=120)
        record = make_record(values={A: b"0", B: b"0"})
        committed(await driver.create(record, START))
        held = driver.driver._work._locks.held  # type: ignore[attr-defined]
        for n in range(10):
            data = b"%d" % n
            with held("session-", files.session_name(record.sid)):
                task = asyncio.create_task(driver.commit(record.digest, puts({A: data, B: data}), START))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            committed(await driver.commit(record.digest, Delta(touch=START + n), START))
            found = await driver.load(record.digest, START)
            assert isinstance(found, Record)
            assert found.values[A].data == found.values[B].data
        await driver.close()

    asyncio.run(run())


def test_what_waited_too_long_for_its_turn_is_not_done(root: Path) -> None:
    async def run() -> None:
        driver = AsyncFilesystemDriver(root, timeout=0.3)
        record = make_record()
        committed(await driver.create(record, START))
        held = driver.driver._work._locks.held  # type: ignore[attr-defined]
        with held("session-", files.session_name(record.sid)):
            tasks = [driver.commit(record.digest, Delta(increments={N: 1}), START) for _ in range(20)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, DriverUnavailable) for outcome in outcomes)
        assert any("other operations of this process" in str(outcome) for outcome in outcomes)
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert not found.values
        await driver.close()

    asyncio.run(run())


def test_loops_and_processes_one_after_the_other(root: Path) -> None:
    driver = AsyncFilesystemDriver(root)
    record = make_record()

    async def create() -> None:
        committed(await driver.create(record, START))

    async def count() -> None:
        committed(await driver.commit(record.digest, Delta(increments={N: 1}), START))

    asyncio.run(create())
    asyncio.run(count())
    assert in_child(lambda: asyncio.run(count())) == 0

    async def look() -> None:
        await count()
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 3
        await driver.close()
        await driver.close()
        await count()
        await driver.close()

    asyncio.run(look())
