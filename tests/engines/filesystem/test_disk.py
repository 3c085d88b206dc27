"""The filesystem: folders that are missing, disks that are full or fail, and settings that make no sense."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from session_files import below, clean
from stored import LARGE, A, B, data_of

from coatcheck.drivers import _files, open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Delta
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started


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
