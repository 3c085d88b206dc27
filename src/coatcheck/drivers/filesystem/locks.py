"""Locks between threads and processes, in 256 stripes of each kind.

A lock belongs to an open file of its own, so a thread keeps out the other threads of its process too, and it is gone
with the process. A thread that takes several takes a user's before a session's, and never two of a kind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from coatcheck._pause import drawn
from coatcheck.drivers._process import this_process

__all__ = ["Busy", "Locks"]

STRIPES: Final = 256

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.005

_open_files: set[int] = set()


class Busy(OSError):
    """Others held a lock for too long."""


class Locks:
    """The locks of one folder.

    Args:
        folder: Where the lock files are.
        timeout: Seconds to wait for a lock.
    """

    def __init__(self, folder: str, timeout: float) -> None:
        self._folder: Final = folder
        self._timeout: Final = timeout
        self._process = this_process()
        self._threads: dict[str, threading.Lock] = {}
        self._files: dict[str, int] = {}  # by stripe: the file of the one that is held, if it is

    @contextmanager
    def held(self, kind: str, name: str) -> Iterator[None]:
        """Hold the stripe of what has that *name*, which begins with two hexadecimal digits.

        Raises:
            Busy: Others held it for too long.
            FileNotFoundError: There is no folder for it.
        """
        stripe = kind + name[:2]
        until = time.monotonic() + self._timeout
        # Threads queue here: to look again and again, as processes have to, would leave one of them behind.
        mine = self._of_this_process().setdefault(stripe, threading.Lock())
        if not mine.acquire(timeout=self._timeout):
            raise self._busy()
        try:
            file = self._files[stripe] = self._locked(f"{self._folder}/{stripe}", until)
            try:
                yield
            finally:
                del self._files[stripe]
                fcntl.flock(file, fcntl.LOCK_UN)  # not by closing: a child forked meanwhile has the file open as well
                _open_files.discard(file)
                os.close(file)
        finally:
            mine.release()

    def check(self, kind: str, name: str) -> None:
        """Check that the stripe that is held is still the one that everybody looks for.

        Raises:
            FileNotFoundError: Somebody removed the folder of the locks, or put another in its place.
        """
        stripe = kind + name[:2]
        path = f"{self._folder}/{stripe}"
        if not os.path.samestat(os.fstat(self._files[stripe]), os.lstat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    @contextmanager
    def all_held(self, kind: str) -> Iterator[None]:
        """Hold all stripes of a *kind*."""
        with ExitStack() as stack:
            for number in range(STRIPES):
                stack.enter_context(self.held(kind, f"{number:02x}"))
            yield

    def _of_this_process(self) -> dict[str, threading.Lock]:
        if not self._process.is_this():  # threads that held one are not in the child to let go of it
            self._process, self._threads, self._files = this_process(), {}, {}
        return self._threads

    def _locked(self, path: str, until: float) -> int:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            _open_files.add(file)
            try:
                self._wait_for(file, until)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file), os.lstat(path)):
                        return file
            except BaseException:
                _open_files.discard(file)
                os.close(file)
                raise
            _open_files.discard(file)  # it was removed while we waited: nobody else would wait for this one
            os.close(file)

    def _wait_for(self, file: int, until: float) -> None:
        pause = _FIRST_PAUSE
        while not _flocked(file):
            if time.monotonic() > until:
                raise self._busy()
            time.sleep(drawn(pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _busy(self) -> Busy:
        return Busy(f"another writer held a lock in {self._folder} for longer than {self._timeout:g} s")


def _flocked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_child() -> None:
    # What another thread held belongs to the parent: were the parent killed, this process would go on holding it.
    for file in _open_files:
        with suppress(OSError):
            os.close(file)
    _open_files.clear()


os.register_at_fork(after_in_child=_in_child)
