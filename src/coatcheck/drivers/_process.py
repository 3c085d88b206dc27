"""Which process this is: connections, locks and threads belong to one, and a child process must not use its parent's.

The number of a process is not enough: in two PID namespaces (containers, `unshare --pid --fork`) parent and child can
both be number 1, and a number comes again once its process has ended. The hooks of `os.fork` are not enough either:
programs in C fork without them. So a process has a page of memory that the kernel clears in the child of every fork.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

__all__ = ["Process", "this_process"]

_WIPE_ON_FORK: Final = 18  # MADV_WIPEONFORK of Linux 4.14, which Python does not name


class Process:
    """One process. Its descendants are others, however they were forked.

    Equal to itself alone, so that it can be a key.
    """

    __slots__ = ("_page", "_pid")

    def __init__(self) -> None:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page[0] = 1
        self._page: Final = page
        self._pid: Final = None if _is_wiped_on_fork(page) else os.getpid()

    def is_this(self) -> bool:
        """Return whether it is the process that asks. Takes less time than `os.getpid`, as it makes no system call."""
        return bool(self._page[0]) and (self._pid is None or self._pid == os.getpid())

    def _wipe(self) -> None:
        self._page[0] = 0


def this_process() -> Process:
    """Return the process that asks."""
    global _current  # noqa: PLW0603 (a fact about the process)
    known = _current
    if known.is_this():
        return known
    # No lock: at a fork, a thread that the child does not have could hold it. Threads that meet here agree.
    _current = heir = _heirs.setdefault(known, Process())
    return heir


def _is_wiped_on_fork(page: mmap.mmap) -> bool:
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # an older kernel: the number has to do, and the hook below
        return False
    return True


def _in_child() -> None:
    _current._wipe()  # noqa: SLF001


_current = Process()
_heirs: Final[dict[Process, Process]] = {}  # by the ancestor: the process that took its place here

os.register_at_fork(after_in_child=_in_child)
