"""The filesystem: what a process leaves that is killed, at each call and under load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from session_files import below, clean, in_child
from stored import LARGE, A, B, data_of

from coatcheck.drivers.base import Driver
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.record import Delta, Put, Record
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started

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
