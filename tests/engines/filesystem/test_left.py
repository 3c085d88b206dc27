"""The filesystem: what is written, what is left, and what a sweep looks at."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from session_files import below, clean
from stored import LARGE, A, B, N, data_of

from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.drivers.filesystem import sessions as files
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta
from coatcheck.testing import digest
from coatcheck.testing.helpers import START, committed, loaded, puts, started, successor


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
