"""The filesystem: spoilt files are unreadable, and nothing raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from session_files import below, the_file
from stored import LARGE, A, N

from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.record import Conflict, Delta, Gone, Missing, Reason
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, loaded, puts, started


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
