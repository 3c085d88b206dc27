"""The filesystem: locks, in threads and processes, and what waits for them."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from session_files import below
from stored import A, N

from coatcheck.drivers.filesystem import FilesystemDriver, locks
from coatcheck.drivers.filesystem import sessions as files
from coatcheck.errors import DriverUnavailable
from coatcheck.record import USER_FENCE, Delta, Gone, Missing, Reason
from coatcheck.testing import make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started


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
