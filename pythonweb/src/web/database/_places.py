"""Which file a path leads to, as opposed to a removed file, even if both have the same inode number.

A file system gives the number of a removed file to the next one. So the file that was seen last at each path is held:
not open for reading or writing, which would cost the process its locks when it is closed, but so that its number is
not free. A file with that number is that file then.
"""

from __future__ import annotations

import os
import threading
from itertools import count

__all__ = ["FileID", "file_at"]

FileID = tuple[int, int, int]
"""Device, inode, and a number that this process assigns to each file once."""

_serial = count(1)
_lock = threading.Lock()
_held: dict[str, tuple[int, FileID]] = {}  # by path: the handle, and what it is


def file_at(path: str) -> FileID | None:
    """Return the identity of the file at *path*, or None. No two files of a process have the same one."""
    try:
        found = os.stat(path)  # noqa: PTH116 -- called for each request
    except OSError:
        return None
    known = _held.get(path)
    if known is not None and known[1][:2] == (found.st_dev, found.st_ino):
        return known[1]
    return _hold(path)


def _hold(path: str) -> FileID | None:
    with _lock:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None
        found = os.fstat(handle)
        known = _held.get(path)
        if known is not None:
            if known[1][:2] == (found.st_dev, found.st_ino):  # another thread was faster
                os.close(handle)
                return known[1]
            os.close(known[0])
        file = (found.st_dev, found.st_ino, next(_serial))
        _held[path] = (handle, file)
        return file


# A child continues with the handles and numbers of its parent, but not with a lock that another thread held.
def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 -- replaced as a whole, in a process with one thread
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
