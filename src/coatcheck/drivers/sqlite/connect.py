"""Connections to the database file: one for each thread, and none that outlives its process.

SQLite keeps its table of file locks in the memory of the process. A connection that is open while the process forks
leaves locks in the child's table that the child does not hold, and a new connection there relies on them: when the
parent then closes its own, it deletes the write-ahead log from under the child, whose acknowledged writes are lost. So
all connections are closed before a fork, after waiting for what they are doing, and opened again when they are needed.
A fork that runs no hooks (some servers fork in C) is found out by the process id. Nothing can take the phantom locks
away there, but a connection of the parent is never used, closed or finalized, and `setup` leaves none open.

Before each operation a look at the folder tells whether a name in it changed. If one did, more looks tell whether the
path still leads to the file that the connection has open, with its log beside it: what is moved away, removed or
replaced is not written to any more, nor read; see `opened`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final

from coatcheck.drivers._process import this_process
from coatcheck.drivers.sqlite.connection import Settings, configure, connect
from coatcheck.drivers.sqlite.opened import (
    Identity,
    NotNow,
    Opened,
    Sight,
    identity,
    is_settled,
    opened,
    save_log,
    sight,
    take_log_away,
)

__all__ = ["Connections", "ThreadConnection"]

Prepare = Callable[[sqlite3.Connection], None]
"""Sees to the tables on a new connection."""

_FORK_PATIENCE: Final = 10.0
"""Seconds that a fork waits for each connection to finish what it is doing."""

_ATTEMPTS: Final = 5  # at least, to open a file that somebody moves away while it is opened

_HARMLESS: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CONSTRAINT)

_inherited: list[sqlite3.Connection] = []  # connections of a parent process: kept so that nothing finalizes them
_pools: weakref.WeakSet[Connections] = weakref.WeakSet()
_making = threading.Lock()  # held while a connection is opened, and while the process forks


class Turn:
    """One thread's turn to write: SQLite's own queue for writers sleeps between its looks, and this one does not."""

    __slots__ = ("_lock", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._lock: Final = threading.Lock()

    def __enter__(self) -> None:
        settings = self._settings
        if not self._lock.acquire(timeout=settings.timeout):
            raise sqlite3.OperationalError(
                f"another thread of this process wrote to {settings.path} for longer than {settings.timeout:g} s"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ThreadConnection:
    """The place of one thread's connection. Entering it gives the connection and keeps a fork and `close` away."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_files",
        "_folder",
        "_lock",
        "_path",
        "_prepare",
        "_seen",
        "_settings",
        "_waiting",
        "process",
    )

    def __init__(self, settings: Settings, prepare: Prepare) -> None:
        self.process: Final = this_process()
        self._settings: Final = settings
        self._path: Final = settings.path
        self._folder: Final = os.path.dirname(settings.path)  # noqa: PTH120 (as it is)
        self._prepare: Final = prepare
        self._connection: sqlite3.Connection | None = None
        self._files: Opened | None = None
        self._seen: Sight | None = None  # the folder while all was in its place, if a change would show
        self._lock: Final = threading.Lock()
        self._waiting = False

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            connection = self._connection
            if connection is not None:
                seen = self._seen
                if (seen is not None and seen == sight(self._folder)) or self._is_in_place():
                    return connection
            return self._open()
        except BaseException:
            self._lock.release()
            raise

    def _is_in_place(self) -> bool:
        """Return whether the path leads to the file that is open, and its log lies beside it."""
        seen, files = sight(self._folder), self._files
        if files is None or files.database != identity(self._path) or not files.has_its_log():
            return False
        # A link says nothing of the folder that it leads to.
        watched = seen is not None and is_settled(seen) and not os.path.islink(self._path)  # noqa: PTH114 (as it is)
        self._seen = seen if watched else None
        return True

    def _open(self) -> sqlite3.Connection:
        until, attempts = time.monotonic() + self._settings.timeout, 0
        while attempts < _ATTEMPTS or time.monotonic() < until:
            attempts += 1
            connection, before = self._connect()
            try:
                configure(connection, self._settings)
                self._prepare(connection)
                files = opened(self._path)
            except BaseException as error:
                connection.close()
                if isinstance(error, Exception) and before != identity(self._path):
                    continue  # the log that it read may have been another file's
                raise
            if before is not None and files.database == before and files.has_its_log():
                self._files, self._seen, self._connection = files, None, connection
                return connection
            connection.close()
        raise NotNow(f"{self._path} is being replaced again and again")

    def _connect(self) -> tuple[sqlite3.Connection, Identity | None]:
        """Close what was open, if it is another file, and open what is at the path; say which file that is."""
        self._waiting = True  # anyone who holds `_making` to fork need not wait for us
        try:
            with _making:
                self._waiting = False
                _take_logs_away(self._settings)
                _save_logs(self._settings, self)
                if self._connection is not None:
                    self._close()
                    if self._settings.hasty:
                        raise NotNow(f"{self._path} is another file now")
                return connect(self._settings)
        finally:
            self._waiting = False

    def take_log_away(self, patience: float) -> None:
        """Remove the log of the file that is open here, if the path leads to another one and its log is in the way.

        Raises:
            NotNow: Others were at the same for longer than *patience*, in seconds.
        """
        connection, files = self._connection, self._files
        if connection is not None and files is not None and files.database != identity(self._path):
            take_log_away(files, self._path, lambda: self._connection is connection, patience)

    def has_lost_log(self) -> bool:
        """Return whether the path leads to the file that is open, and its log is not beside it."""
        files = self._files
        return (
            self._connection is not None
            and files is not None
            and files.database == identity(self._path)
            and not files.has_its_log()
        )

    def give_up(self, patience: float, *, is_mine: bool) -> None:
        """Save the log of the file that is open here, if it is lost, and close the connection once it is idle.

        Called with `_making` held, and `_lock` too where it is the caller's own.

        Args:
            patience: How many seconds to wait; the connection is left open after that.
            is_mine: Whether it is the caller's own.
        """
        until = time.monotonic() + patience
        held = False
        while not (is_mine or self._waiting or held):  # who waits for `_making` does nothing with its connection
            held = self._lock.acquire(timeout=0.02)
            if not held and time.monotonic() >= until:
                return
        try:
            if self._connection is not None and self._files is not None and self.has_lost_log():
                with contextlib.suppress(sqlite3.Error, OSError):  # another one of them may manage
                    save_log(self._files, self._connection, patience)
            self._close()
        finally:
            if held:
                self._lock.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A handle in doubt, or one with an open transaction, is not used again. A refused write is no exception here.
        if error is not None and (_is_in_doubt(error) or (self._connection and self._connection.in_transaction)):
            self._close()
        self._lock.release()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # there is nobody left to tell
                connection.close()

    def close(self, patience: float) -> None:
        """Close the connection once it is idle, or leave it after *patience* seconds."""
        if not self.process.is_this():
            return
        until = time.monotonic() + patience
        while not self._lock.acquire(timeout=0.02):
            if self._waiting or time.monotonic() >= until:
                return
        try:
            self._close()
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """Keep the parent's connection from being finalized in this process, a child that forked without hooks."""
        if self._connection is not None:
            _inherited.append(self._connection)

    def __del__(self) -> None:
        # The thread ended. Connections are given back here and not by their own finalizer, which warns.
        if self.process.is_this():
            self._close()
        else:
            self.abandon()


class Connections:
    """The connections of one driver, a `ThreadConnection` for each thread that used it.

    Args:
        settings: Where the database is and how to open it.
        prepare: Called with each new connection, to see to the tables.
    """

    def __init__(self, settings: Settings, prepare: Prepare) -> None:
        self._settings: Final = settings
        self._prepare: Final = prepare
        self._process = this_process()
        self._local = threading.local()
        self._all: weakref.WeakSet[ThreadConnection] = weakref.WeakSet()
        self.writing = Turn(settings)
        with _making:
            _pools.add(self)

    def held(self) -> ThreadConnection:
        """Return this thread's place, a new one in a new process."""
        held: ThreadConnection | None = getattr(self._local, "held", None)
        if held is None or not held.process.is_this():
            held = self._make_held()
        return held

    def _make_held(self) -> ThreadConnection:
        if not self._process.is_this():
            self.renew_in_child()
        # Nothing in it leads back here, so no cycle waits for the garbage collector.
        held = ThreadConnection(self._settings, self._prepare)
        with _making:
            self._all.add(held)
        self._local.held = held
        return held

    def renew_in_child(self) -> None:
        """Leave behind what belongs to the parent's threads, of which only the present one is left."""
        self._process = this_process()
        for held in list(self._all):
            held.abandon()
        self._all = weakref.WeakSet()
        self._local = threading.local()
        self.writing = Turn(self._settings)

    @property
    def path(self) -> str:
        """The database."""
        return self._settings.path

    def places(self) -> list[ThreadConnection]:
        """Return the places of all threads. Call it with `_making` held."""
        return list(self._all)

    def close(self) -> None:
        """Close the connections of all threads, each once it is idle."""
        with _making:
            places = self.places()
        for held in places:
            held.close(2 * self._settings.timeout + 1)


def _take_logs_away(settings: Settings) -> None:
    """See to it that no log of another file is beside the database, as far as this process has one open."""
    for pool in list(_pools):
        if pool.path == settings.path:
            for held in pool.places():
                held.take_log_away(settings.timeout)


def _save_logs(settings: Settings, mine: ThreadConnection) -> None:
    """Close all connections of this process to the database, if its log was removed, after saving what is in it.

    All of them, because SQLite shares the index of the log between the connections of a process.

    Raises:
        NotNow: *settings* are those of a hasty user.
    """
    places = [held for pool in list(_pools) if pool.path == settings.path for held in pool.places()]
    if not any(held.has_lost_log() for held in places):
        return
    if settings.hasty:
        raise NotNow(f"the log of {settings.path} was removed")
    for held in places:
        held.give_up(settings.timeout, is_mine=held is mine)


def _is_in_doubt(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF not in _HARMLESS


def _before_fork() -> None:
    _making.acquire()
    for pool in list(_pools):
        for held in pool.places():
            held.close(_FORK_PATIENCE)


def _in_parent() -> None:
    _making.release()


def _in_child() -> None:
    _making.release()
    for pool in list(_pools):
        pool.renew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
