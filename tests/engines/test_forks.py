"""Rule 12: connections belong to one process. After a fork, parent and child each work with their own."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from testservers.engines import Engine, params

from coatcheck.drivers.base import Driver
from coatcheck.record import Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, started

N: Final[ValueKey] = ("", "n")
TURNS: Final = 30
PATIENCE: Final = 120.0
FORKER: Final = Path(__file__).with_name("forker.py")


def forked(work: Callable[[], object]) -> int:
    """Run *work* in a child process; give its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is what is tested
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 (whatever it is, this process ends here)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a child process; give its status."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def count(driver: Driver, digest: bytes) -> None:
    for _ in range(TURNS):
        committed(driver.commit(digest, Delta(increments={N: 1}), START))


@pytest.mark.parametrize("engine", [row for row in params() if not row.id.startswith("memory")], indirect=True)
def test_rule_12_parent_and_child_work_after_a_fork(driver: Driver) -> None:
    """Both count at the same time, and what the child closes or leaves to be collected is its own."""
    record = started(driver, values={N: 0})

    def work() -> None:
        # the event loop of the parent does not run here
        mine = Blocking(driver.driver) if isinstance(driver, Blocking) else driver
        count(mine, record.digest)
        mine.close()
        gc.collect()

    children = [forked(work) for _ in range(2)]
    count(driver, record.digest)
    assert [ended(child) for child in children] == [0, 0]
    count(driver, record.digest)
    assert loaded(driver, record.digest, START).values[N].data == 4 * TURNS


@pytest.mark.parametrize(
    "engine", params("sqlite", "filesystem", "redis", "postgresql", "mariadb", "memcached"), indirect=True
)
def test_parent_and_child_have_the_same_number(engine: Engine) -> None:
    """As in containers: each is process 1 of a PID namespace of its own."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child", *(["--map-root-user"] if os.geteuid() else [])]
    way = "async" if engine.asynchronous else "sync"
    command = [*namespace, sys.executable, "-W", "ignore::DeprecationWarning", FORKER, engine.url, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    turns, stored = done.stdout.split()
    assert stored == turns
