"""Which files a connection has open, and what to do when the path of the database leads to another one.

SQLite finds the log of a database and its index (`-wal`, `-shm`) by name, and takes them for the database's own. When
the database is moved away or replaced, a process that has it open continues with the old three files. A process that
opens the new one gets the old log and index with it, and pages of one database appear in the other. So the old log is
removed before a new file is opened: by a process that has it open and notices, and by a process that creates a file.
They do so one at a time, under a lock on the folder. No process removes a log that may be the new file's.

If only the log or its index is removed, a process that has it open still has its content, and processes that open the
database later do not. So the process that notices writes the log into the database and opens all files again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EWOULDBLOCK
from typing import Final, NamedTuple

from coatcheck.drivers._files import PlaceError

__all__ = [
    "Identity",
    "NotNow",
    "Opened",
    "Sight",
    "create_file",
    "identity",
    "is_settled",
    "log_files",
    "opened",
    "save_log",
    "sight",
    "take_log_away",
]

Identity = tuple[int, int]
"""What names a file whatever it is called, as long as somebody has it open: the inode and the device."""

Sight = tuple[int, int, int]
"""What tells whether a name in a folder was made, removed or turned: inode, device, and when it changed last."""

_BESIDE: Final = ("-wal", "-shm")
_SETTLED: Final = 100_000_000  # nanoseconds: many ticks of the clock that file systems date changes by
_PAUSE: Final = 0.005


class NotNow(TimeoutError):
    """Opening the database takes longer than one is willing to wait."""


class Opened(NamedTuple):
    """The files that a connection has open."""

    database: Identity | None
    beside: tuple[tuple[str, Identity | None], ...]  # the log and its index: path and identity

    def has_its_log(self) -> bool:
        """Return whether the log and its index are where they were."""
        return all(which is not None and identity(name) == which for name, which in self.beside)


def identity(path: str) -> Identity | None:
    """Return which file *path* leads to; None if it leads to none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (called for each operation: pathlib takes three times as long)
    except OSError:
        return None
    return found.st_ino, found.st_dev


def sight(folder: str) -> Sight | None:
    """Look at a folder; None if it is not there."""
    try:
        found = os.stat(folder)  # noqa: PTH116 (as above)
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_mtime_ns


def is_settled(seen: Sight) -> bool:
    """Return whether the next change of a folder will show: one within the same tick of the clock would not."""
    return 0 <= seen[2] < time.time_ns() - _SETTLED


def opened(path: str) -> Opened:
    """Return which files a connection has open that was just made to the database at *path* and has read from it."""
    return Opened(identity(path), log_files(path))


def log_files(path: str) -> tuple[tuple[str, Identity | None], ...]:
    """Return which files are the log and its index of the database at *path* now: the path and the identity of each."""
    real = os.path.realpath(path)  # SQLite keeps the log beside the file, not beside a link to it
    return tuple((real + end, identity(real + end)) for end in _BESIDE)


def take_log_away(files: Opened, path: str, is_open: Callable[[], bool], patience: float) -> None:
    """Remove the log of a database to which *path* does not lead any more, if that is what still lies there.

    Args:
        files: What a connection has open. While it is open no other file can have the same identity.
        path: Where the database was.
        is_open: Tells whether that connection is still open.
        patience: Seconds to wait for others who are at the same.

    Raises:
        NotNow: Others took longer than that.
    """
    if not any(_lies_there(name, which) for name, which in files.beside):
        return
    with _one_at_a_time(files.beside[0][0], patience):
        for name, which in files.beside:
            if identity(path) != files.database and _lies_there(name, which) and is_open():
                with suppress(FileNotFoundError):
                    os.unlink(name)  # noqa: PTH108 (as it was made up)


def save_log(files: Opened, connection: sqlite3.Connection, patience: float) -> None:
    """Bring what is in a log that was removed into the database, and take away the index that belongs to that log.

    If somebody made another log meanwhile, theirs is the one that counts: what is in this one is left.

    Args:
        files: What *connection* has open. The path leads to that database still.
        connection: A connection to it, which is closed after this.
        patience: Seconds to wait for others who are at the same.

    Raises:
        NotNow: Others took longer than that.
        sqlite3.Error: The log cannot be read or the database cannot be written.
    """
    (log, _), (index, which) = files.beside
    with _one_at_a_time(log, patience):
        if identity(log) is None:
            connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
            if _lies_there(index, which):
                with suppress(FileNotFoundError):
                    os.unlink(index)  # noqa: PTH108 (as it was made up)


def _lies_there(name: str, which: Identity | None) -> bool:
    return which is not None and identity(name) == which


def create_file(path: str, patience: float) -> None:
    """Make an empty file for the owner alone, unless there is one. SQLite gives its log the same permissions.

    Called under a lock: closing a file takes away all locks that the process holds on it.

    Raises:
        PlaceError: The file cannot be made.
        NotNow: Others have been making it for longer than *patience*, in seconds.
    """
    if os.path.lexists(path):
        return
    try:
        with _one_at_a_time(path, patience):
            if os.path.lexists(path):
                return
            for end in _BESIDE:  # of a file that is gone: SQLite would take it for this one's
                with suppress(FileNotFoundError):
                    os.unlink(path + end)  # noqa: PTH108 (as it was given)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except NotNow:
        raise
    except OSError as error:
        raise PlaceError(
            f"cannot create the database {path!r}: {error.strerror}: make its folder writable for this program, or name"
            " a file in another one"
        ) from error


@contextmanager
def _one_at_a_time(path: str, patience: float) -> Iterator[None]:
    """Hold the lock on the folder of *path*, which is held for some microseconds only."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120 (as it is)
    try:
        _lock(folder, path, patience)
        yield
        # Not by closing alone: a child that was forked meanwhile has the folder open as well
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)
    finally:
        os.close(folder)


def _lock(folder: int, path: str, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != EWOULDBLOCK:
                return  # network file systems lock no folders; those are for one host, where nobody else makes files
            if time.monotonic() >= until:
                raise NotNow(
                    f"another program held the lock on the folder of {path!r} for longer than {patience:g} s"
                ) from error
        else:
            return
        time.sleep(_PAUSE)
