"""SQLite: the file, its folder, and everything that can be wrong with them."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.drivers import _files
from coatcheck.drivers.sqlite import SQLiteDriver, connect
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable
from coatcheck.record import Delta, Missing, Put, Reason
from coatcheck.testing import digest
from coatcheck.testing.helpers import START, committed, loaded, puts, started

A = ("", "a")
B = ("", "b")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SQLiteDriver]:
    driver = SQLiteDriver(tmp_path / "sessions.db", timeout=0.2)
    yield driver
    driver.close()


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (the count, with nothing open for it)


def test_constructing_does_nothing(tmp_path: Path) -> None:
    SQLiteDriver(tmp_path / "missing" / "s.db")
    SQLiteDriver.from_url(f"sqlite:///{tmp_path}/s.db")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    driver = SQLiteDriver("s.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    driver.setup()
    assert (tmp_path / "s.db").exists()


def test_the_files_are_for_the_owner_alone(driver: SQLiteDriver) -> None:
    old = os.umask(0)
    try:
        started(driver)
    finally:
        os.umask(old)
    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(Path(driver.path + suffix).stat().st_mode) == 0o600


def test_the_mode_of_a_file_that_exists_is_kept(driver: SQLiteDriver) -> None:
    Path(driver.path).touch(0o640)
    Path(driver.path).chmod(0o640)
    started(driver)
    assert stat.S_IMODE(Path(driver.path).stat().st_mode) == 0o640


def test_write_ahead_log_and_synchronous(tmp_path: Path) -> None:
    for word, level in (("normal", 1), ("full", 2)):
        driver = SQLiteDriver(tmp_path / "s.db", synchronous=word)
        driver.setup()
        with driver._connections.held() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        driver.close()


def every_operation(driver: SQLiteDriver) -> dict[str, Callable[[], object]]:
    some = digest()
    return {
        "load": lambda: driver.load(some, START),
        "commit": lambda: driver.commit(some, puts({A: b"a"}), START),
        "rotate": lambda: driver.rotate(some, digest(), Delta(), 0, START),
        "revoke": lambda: driver.revoke(some, START),
        "revoke_user": lambda: driver.revoke_user("ann", START),
        "sessions_of": lambda: driver.sessions_of("ann", START),
        "missing": lambda: driver.missing(["x"], START),
        "sweep": lambda: driver.sweep(START, 1),
        "setup": driver.setup,
    }


def test_a_missing_folder(tmp_path: Path) -> None:
    driver = SQLiteDriver(tmp_path / "missing" / "s.db")
    for name, use in every_operation(driver).items():
        with pytest.raises(DriverUnavailable, match=r"missing' of the database .* does not exist: create it") as caught:
            use()
        assert (caught.value.operation, caught.value.outcome_unknown) == (name, False)
    (tmp_path / "missing").mkdir()
    started(driver)
    driver.close()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        SQLiteDriver(tmp_path).setup()


def test_something_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        SQLiteDriver(tmp_path / "pipe").setup()


def test_another_kind_of_file(driver: SQLiteDriver) -> None:
    Path(driver.path).write_bytes(b"certainly no database\n" * 100)
    for use in every_operation(driver).values():
        with pytest.raises(ConfigurationError, match="is not an SQLite database"):
            use()
    assert Path(driver.path).read_bytes().startswith(b"certainly")


def test_a_damaged_database(driver: SQLiteDriver) -> None:
    record = started(driver, values={A: b"a" * 10_000})
    driver.close()
    data = bytearray(Path(driver.path).read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    Path(driver.path).write_bytes(data)
    with pytest.raises(CoatcheckError) as caught:
        driver.load(record.digest, START)
    assert isinstance(caught.value, DriverUnavailable)
    assert "damaged" in str(caught.value)


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_paths_that_name_no_file(path: str) -> None:
    with pytest.raises(ConfigurationError, match="memory:"):
        SQLiteDriver(path)


@pytest.mark.parametrize("options", [{"timeout": -1.0}, {"timeout": float("nan")}, {"synchronous": "off"}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SQLiteDriver("s.db", **options)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
//pc/share /mnt/my\\040share cifs rw 0 0
tmpfs /home/local tmpfs rw 0 0
server:/x /srv/x ext4 rw 0 0
server:/x /srv/x fuse.sshfs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"), ("/var/lib", "ext4"), ("/home", "nfs4"), ("/home/ann/db", "nfs4"), ("/homes", "ext4"),
        ("/home/local", "tmpfs"), ("/mnt/my share/a", "cifs"), ("/srv/x/y", "fuse.sshfs"),
    ],
)  # fmt: skip
def test_the_file_system_is_found_out(folder: str, kind: str) -> None:
    assert _files.file_system_in(MOUNTS, folder) == kind


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "file_system_of", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match="network_filesystem=allow"):
        SQLiteDriver(tmp_path / "s.db").setup()
    SQLiteDriver.from_url(f"sqlite:///{tmp_path}/s.db?network_filesystem=allow").setup()


def test_another_writer_makes_the_driver_unavailable(driver: SQLiteDriver) -> None:
    record = started(driver, values={A: b"a"})
    other = sqlite3.connect(driver.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for delta in (puts({A: b"x"}), puts({A: b"x", B: b"y"}), Delta(touch=START + 1)):
        with pytest.raises(DriverUnavailable, match=r"longer than 0\.2 s.*timeout=") as caught:
            driver.commit(record.digest, delta, START)
        assert not caught.value.outcome_unknown
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert loaded(driver, record.digest, START).values[A].data == b"a"  # readers do not wait
    other.execute("ROLLBACK")
    committed(driver.commit(record.digest, puts({A: b"b"}), START))
    other.close()


def test_a_thread_that_writes_for_too_long(driver: SQLiteDriver) -> None:
    record = started(driver)
    with driver._connections.writing, pytest.raises(DriverUnavailable, match="another thread") as caught:
        driver.commit(record.digest, puts({A: b"x"}), START)
    assert not caught.value.outcome_unknown


class Failing(sqlite3.Connection):
    """A connection whose COMMIT fails as a bad disk makes it fail."""

    on: str = ""

    def execute(self, text: str, *args: Any) -> sqlite3.Cursor:
        if Failing.on and text.strip().startswith(Failing.on):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return super().execute(text, *args)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    opened = sqlite3.connect
    monkeypatch.setattr(connect.sqlite3, "connect", lambda *args, **more: opened(*args, factory=Failing, **more))
    monkeypatch.setattr(Failing, "on", "")
    return Failing


def test_a_failed_commit_has_an_unknown_outcome(driver: SQLiteDriver, failing: type[Failing]) -> None:
    record = started(driver)
    two = puts({A: b"a", B: b"b"})
    for on, delta, unknown in (
        ("COMMIT", two, True),
        ("BEGIN", two, False),
        ("SELECT", two, False),
        ("INSERT", two, False),
        ("INSERT", puts({A: b"a"}), True),  # commits by itself
    ):
        failing.on = on
        with pytest.raises(DriverUnavailable, match="SQLITE_IOERR_FSYNC") as caught:
            driver.commit(record.digest, delta, START)
        assert caught.value.outcome_unknown is unknown, on
        failing.on = ""
        assert not loaded(driver, record.digest, START).values
    committed(driver.commit(record.digest, two, START))


def test_a_full_disk(driver: SQLiteDriver) -> None:
    record = started(driver, values={A: b"a"})
    with driver._connections.held() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    for delta in (puts({A: b"x" * 50_000}), Delta(puts={B: Put(b"b"), A: Put(b"x" * 50_000)})):
        with driver._connections.held() as connection:
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(DriverUnavailable, match="disk is full") as caught:
            driver.commit(record.digest, delta, START)
        assert not caught.value.outcome_unknown
        assert loaded(driver, record.digest, START) == record
    committed(driver.commit(record.digest, puts({B: b"b"}), START))


def test_an_interrupt_leaves_no_transaction(driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    record = started(driver)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(driver._work), "_clear", interrupted)
        with pytest.raises(KeyboardInterrupt):
            driver.commit(record.digest, puts({A: b"a", B: b"b"}), START)
    other = sqlite3.connect(driver.path, timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()
    committed(driver.commit(record.digest, puts({A: b"a", B: b"b"}), START))


def test_threads_that_end_give_back_their_connections(driver: SQLiteDriver) -> None:
    record = started(driver)
    before = handles()

    def use() -> None:
        loaded(driver, record.digest, START)

    for _ in range(200):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert handles() <= before + 2  # SQLite keeps a handle for reuse while another connection has locks on the file
    assert len(driver._connections.places()) == 1


def test_close_closes_for_all_threads(driver: SQLiteDriver) -> None:
    before = handles()
    gate, go = threading.Barrier(5), threading.Event()
    found: list[object] = []

    def use() -> None:
        driver.load(digest(), START)
        gate.wait(120)
        go.wait(120)
        found.append(driver.load(digest(), START))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.wait(120)
    assert handles() > before
    driver.close()
    driver.close()
    assert handles() == before
    go.set()
    for thread in threads:
        thread.join()
    assert found == [Missing(Reason.UNKNOWN)] * 4


@pytest.mark.slow
def test_opening_and_closing_leaks_nothing(tmp_path: Path) -> None:
    SQLiteDriver(tmp_path / "s.db").setup()
    before = handles()
    for n in range(2000):
        driver = SQLiteDriver(tmp_path / "s.db")
        driver.load(digest(), START)
        if n % 2:
            driver.close()
        del driver
    assert handles() == before
    keeper, driver = SQLiteDriver(tmp_path / "s.db"), SQLiteDriver(tmp_path / "s.db")
    keeper.load(digest(), START)  # so that not every closing is the last one, which takes its time to clean up
    for _ in range(8000):
        driver.close()
        with driver._connections.held():
            pass
    driver.close()
    keeper.close()
    assert handles() == before


def test_a_folder_that_takes_no_file() -> None:
    """As root no folder is read-only, but /proc takes no file from anybody."""
    with pytest.raises(DriverUnavailable, match=r"cannot create the database '/proc/s\.db'.*make its folder writable"):
        SQLiteDriver("/proc/s.db").load(b"x" * 32, 0)
