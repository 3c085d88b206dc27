"""The filesystem drivers."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from coatcheck.drivers._files import FILE_OPTIONS, FILE_TIMEOUT, SYNCHRONOUS, PlaceError, file_system_of
from coatcheck.drivers._threads import ThreadedDriver
from coatcheck.drivers._urls import parsed_file
from coatcheck.drivers.base import Capability, Driver
from coatcheck.drivers.filesystem.locks import Locks
from coatcheck.drivers.filesystem.sessions import Sessions
from coatcheck.drivers.filesystem.tree import Tree, Unsure
from coatcheck.drivers.filesystem.work import FileWork
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["AsyncFilesystemDriver", "FilesystemDriver"]

T = TypeVar("T")

NAME: Final = "filesystem"
FORM: Final = "filesystem:///relative/folder or filesystem:////absolute/folder"

_THREADS: Final = 8
_ATTEMPTS: Final = 5  # to do something in a folder that somebody removes meanwhile
_REMEDIES: Final = {
    errno.ENOENT: "it was removed: call setup(), or mount what it is on",
    errno.EACCES: "this program must be able to write to it",
    errno.EROFS: "this program must be able to write to it",
    errno.ENOSPC: "the disk is full, or has no room for more files",
    errno.EDQUOT: "the quota is used up",
    errno.EMFILE: "this process has too many files open: raise its limit (ulimit -n)",
}
_SHORT_LIVED: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 (to warn of them)


class FilesystemDriver(Driver):
    """Sessions in files below one folder, for the processes of one host.

    Nothing is touched before the first use, which makes the folder, for its owner alone.

    Args:
        folder: The folder, for the sessions alone. The one that it is in has to exist. A relative path is taken from
            the present working directory.
        prefix: What the name of the folder is to start with: the sessions of `prefix="x_"` and `folder="a/b"` are in
            `a/x_b`.
        timeout: Seconds to wait for another writer, at most.
        synchronous: `"normal"`: what was acknowledged survives the death of the process; `"full"`: and a loss of power,
            for a few fsyncs a commit.
        network_filesystem: True to allow a folder on a network file system. Only one host may use it, even so.

    Raises:
        ConfigurationError: An argument is out of range. From the first use, where the folder cannot be what it has to
            be (open to others, of somebody else, with other things in it).
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.SCOPE_HOST, Capability.DURABLE, Capability.COUNTERS, Capability.USER_INDEX}
    )

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        prefix: str = "",
        timeout: float = FILE_TIMEOUT,
        synchronous: str = "normal",
        network_filesystem: bool = False,
    ) -> None:
        place = os.fspath(folder)
        if not place or "\0" in place:
            raise ConfigurationError(f"{place!r} names no folder")
        if re.fullmatch(r"[A-Za-z0-9_]*", prefix) is None:
            raise ConfigurationError(f"the prefix {prefix!r} may only have ASCII letters, digits and underscores")
        if not (math.isfinite(timeout) and timeout >= 0):
            raise ConfigurationError(f"timeout must be a number of seconds, not {timeout!r}")
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(f"synchronous must be one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        above, name = os.path.split(os.path.abspath(place))  # noqa: PTH100 (pathlib would look at the file system)
        if not name:
            raise ConfigurationError("the sessions need a folder of their own, and the root folder is none")
        self.folder: Final = os.path.join(above, prefix + name)  # noqa: PTH118 (the same)
        self.timeout: Final = timeout
        self._tree: Final = Tree(self.folder, is_synced=synchronous == "full", network_allowed=network_filesystem)
        locks = Locks(f"{self.folder}/lock", timeout)
        self._work: Final = FileWork(Sessions(self._tree, locks), locks)

    @classmethod
    def from_url(cls, url: str) -> FilesystemDriver:
        """Make a driver from a URL: `filesystem:///relative/folder`, `filesystem:////absolute/folder`.

        Options are those of the constructor: `?timeout=2&prefix=x_&synchronous=full&network_filesystem=allow`.

        Raises:
            ConfigurationError: The URL has no path, an unknown option, or one with a bad value.
        """
        folder, options = parsed_file(url, NAME, FORM, FILE_OPTIONS)
        return cls(folder, **options)

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self._do("load", self._work.load, digest, now)

    def create(self, record: Record, now: float) -> Answer:
        return self._do("create", self._work.create, record, now)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self._do("commit", self._work.commit, digest, delta, now)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self._do("rotate", self._work.rotate, old, new, delta, grace, now)

    def revoke(self, digest: bytes, now: float) -> bool:
        return self._do("revoke", self._work.revoke, digest, now)

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self._do("revoke_user", self._work.revoke_user, user, now, keep)

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return self._do("end", self._work.end, list(sids), now, user)

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self._do("sessions_of", self._work.sessions_of, user, now)

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return self._do("missing", self._work.missing, sids, now)

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return self._do("sweep", self._work.sweep, now, limit, since)

    def setup(self) -> None:
        """Make the folder where it is missing, and check that it can be used. Removes nothing."""
        self._tell("setup", self._tree.make)

    def is_set_up(self) -> bool:
        """Return whether the folder is there with all that `setup` makes, without making it."""
        return self._tell("is_set_up", self._tree.is_complete)

    def tear_down(self) -> None:
        self._tell("tear_down", self._work.tear_down)

    def close(self) -> None:
        """Do nothing: no file stays open between two operations."""

    def advice(self) -> list[str]:
        advice: list[str] = []
        kind = file_system_of(Path(self.folder).parent)
        if kind in ("tmpfs", "ramfs"):
            advice.append(f"{self.folder} is in memory ({kind}): sessions end when the machine restarts; use a disk")
        elif any(self.folder.startswith(f"{place}/") for place in _SHORT_LIVED):
            advice.append(f"{self.folder} is in a place that the system cleans up: put it below /var/lib, for example")
        return advice

    def _do(self, operation: str, work: Callable[..., T], *args: object) -> T:
        def attempt() -> T:
            self._tree.ensure()
            return work(*args)

        def ready() -> T:
            for _ in range(_ATTEMPTS):
                try:
                    return attempt()
                except (FileNotFoundError, PlaceError):
                    # What was not found was not written, so nothing is done twice.
                    if not self._tree.was_removed():
                        raise
            return attempt()

        return self._tell(operation, ready)

    def _tell(self, operation: str, work: Callable[[], T]) -> T:
        """Do some work; tell what the system says in the contract's way."""
        try:
            return work()
        except Unsure as error:
            why = f"{error.strerror} in {self.folder}: the disk may not keep what was written"
            raise DriverUnavailable(NAME, operation, why, outcome_unknown=True) from error
        except OSError as error:
            why = str(error) if error.errno is None else f"{error.strerror} in {self.folder}"
            if error.errno in _REMEDIES:
                why = f"{why}: {_REMEDIES[error.errno]}"
            raise DriverUnavailable(NAME, operation, why) from error


class AsyncFilesystemDriver(ThreadedDriver):
    """Sessions in files, for an asynchronous program; see `FilesystemDriver`, which does the work in a few threads.

    The arguments are the same ones. No system offers files without waiting, so there is nothing better to be had.
    """

    name: ClassVar[str] = NAME
    capabilities: ClassVar[frozenset[Capability]] = FilesystemDriver.capabilities

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        prefix: str = "",
        timeout: float = FILE_TIMEOUT,
        synchronous: str = "normal",
        network_filesystem: bool = False,
    ) -> None:
        driver = FilesystemDriver(
            folder,
            prefix=prefix,
            timeout=timeout,
            synchronous=synchronous,
            network_filesystem=network_filesystem,
        )
        super().__init__(driver, timeout, worker=_THREADS)

    @classmethod
    def from_url(cls, url: str) -> AsyncFilesystemDriver:
        """Make a driver from a URL; see `FilesystemDriver.from_url`.

        Raises:
            ConfigurationError: The URL has no path, an unknown option, or one with a bad value.
        """
        folder, options = parsed_file(url, NAME, FORM, FILE_OPTIONS)
        return cls(folder, **options)
