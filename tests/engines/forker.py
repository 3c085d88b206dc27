"""A process that is number 1 of its PID namespace, and whose children are number 1 of theirs: all use one driver.

    unshare --pid --fork python forker.py URL sync|async

Says the turns that were counted, and those of them that are stored.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.record import Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, started

N: Final[ValueKey] = ("", "n")
TURNS: Final = 10
NEW_PID_NAMESPACE: Final = 0x20000000  # CLONE_NEWPID, for which Python 3.11 has no name

libc: Final = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, which the child needs


def in_namespace(fork: Callable[[], int]) -> int:
    """Fork into a PID namespace of the child's own; what is forked or started later stays in the present one."""
    present = os.open(Path("/proc/self/ns/pid"), os.O_RDONLY)
    if libc.unshare(NEW_PID_NAMESPACE):
        raise OSError(ctypes.get_errno(), "unshare")
    child = fork()
    if child and libc.setns(present, NEW_PID_NAMESPACE):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(present)
    return child


def sockets() -> set[str]:
    """Return what names the sockets that this process has open."""
    found = set()
    for descriptor in os.listdir("/dev/fd"):  # noqa: PTH208
        with suppress(FileNotFoundError):  # that of the list itself
            found.add(os.readlink(f"/dev/fd/{descriptor}"))  # noqa: PTH115
    return {name for name in found if name.startswith("socket:")}


def count(driver: Driver, digest: bytes) -> None:
    for _ in range(TURNS):
        committed(driver.commit(digest, Delta(increments={N: 1}), START))


def work_in_child(driver: Driver, digest: bytes, begun: int) -> None:
    """Count with the parent's driver, alone and then beside the parent, whose event loop does not run here."""
    status = 1
    try:
        assert os.getpid() == 1
        inherited = sockets()
        mine = Blocking(driver.driver) if isinstance(driver, Blocking) else driver
        count(mine, digest)
        assert not inherited or sockets() - inherited, "it speaks on its parent's connection"
        os.close(begun)
        count(mine, digest)
        mine.close()
        gc.collect()
        status = 0
    except BaseException:  # noqa: BLE001 (whatever it is, this process ends here)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main(url: str, way: str) -> None:
    assert os.getpid() == 1
    driver = open_driver(url) if way == "sync" else Blocking(open_async_driver(url))
    driver.setup()
    record = started(driver, values={N: 0})
    # no hook of Python's runs in a child of `libc.fork`, and none of its other threads either
    forks = [os.fork, libc.fork] if way == "sync" else [os.fork]
    for fork in forks:
        waiting, begun = os.pipe()
        child = in_namespace(fork)
        if not child:
            work_in_child(driver, record.digest, begun)
        os.close(begun)
        os.read(waiting, 1)  # until the child closes its end
        os.close(waiting)
        count(driver, record.digest)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    print(3 * TURNS * len(forks), loaded(driver, record.digest, START).values[N].data)  # noqa: T201
    driver.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
