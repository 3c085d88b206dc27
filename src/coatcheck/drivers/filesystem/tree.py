"""The folder of the sessions: who may use it, and what is done in it.

Only the owner can reach anything below it, so nobody else can put a link in the way. A file is replaced as a whole or
made as a whole: a reader, and anyone who comes after a crash, finds the old one or the new one.
"""

# A Path takes longer to make than most calls here, and paths are made for every operation.
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH120, PTH208

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from coatcheck.drivers._files import Mount, PlaceError, mount_of, network_file_system
from coatcheck.errors import ConfigurationError

__all__ = ["Tree", "Unsure"]

T = TypeVar("T")

FORMAT: Final = b"coatcheck sessions, format 1\n"
FOLDERS: Final = ("digest", "due", "fence", "lock", "session", "temp", "user")

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = 1 << 20
_TRIES: Final = 10
_LEFTOVER: Final = 3600.0
"""Seconds by the file system's clock after which nobody writes to a temporary file any more."""


class Unsure(OSError):
    """A file was replaced, and the disk would not say that it has it."""


class Tree:
    """The folder.

    Args:
        root: Its absolute path.
        is_synced: Whether what is written must be on the disk before it counts.
        network_allowed: Whether it may be on a network file system.

    Attributes:
        root: The same.
    """

    def __init__(self, root: str, *, is_synced: bool, network_allowed: bool) -> None:
        self.root: Final = root
        self._is_synced: Final = is_synced
        self._network_allowed: Final = network_allowed
        self._is_checked = False
        self._mount: Mount | None = None  # where the folder was made or found

    # -- the place

    def ensure(self) -> None:
        """Make the folder where it is missing, and check that it can be used, once.

        Raises:
            ConfigurationError: Others can reach it, it is something else, or it is on a network file system.
            OSError: It cannot be made.
        """
        if not self._is_checked:
            self.make()

    def make(self) -> None:
        """Do what `ensure` does, whether it was done before or not."""
        above = Path(self.root).parent
        if not above.is_dir():
            raise PlaceError(f"the folder {str(above)!r}, for {self.root!r} to be in, does not exist: create it")
        with suppress(FileExistsError):
            os.mkdir(self.root, 0o700)
        self._check()
        is_made = self.is_made()
        if not is_made:
            strange = set(os.listdir(self.root)) - {*FOLDERS, "format"}
            if strange:
                raise ConfigurationError(
                    f"{self.root!r} has other things in it: name a folder that is for the sessions alone"
                )
        for name in FOLDERS:
            with suppress(FileExistsError):
                os.mkdir(f"{self.root}/{name}", 0o700)
        if not is_made:
            self.replace(f"{self.root}/format", FORMAT)
        self._mount = mount_of(Path(self.root))
        self._is_checked = True

    def was_removed(self) -> bool:
        """Return whether what is missing was removed, as opposed to a disk that is gone; `ensure` makes it again then.

        A disk that is not mounted any more leaves another file system in its place.
        """
        if self._mount is None:
            return False
        there = Path(self.root) if os.path.lexists(self.root) else Path(self.root).parent
        if mount_of(there) != self._mount:
            return False
        self._is_checked = False
        return True

    def is_made(self) -> bool:
        """Return whether the folder is there.

        Raises:
            ConfigurationError: It has another format.
        """
        found = self.read(f"{self.root}/format")
        if found is not None and found != FORMAT:
            raise ConfigurationError(
                f"{self.root!r} has sessions in another format than this coatcheck writes: name another folder"
            )
        return found is not None

    def is_complete(self) -> bool:
        """Return whether the folder is there with all that `make` makes.

        Raises:
            ConfigurationError: It has another format.
        """
        return self.is_made() and all(Path(self.root, name).is_dir() for name in FOLDERS)

    def check_there(self) -> None:
        """Check that the folder is there, so that what is not in it is really not there.

        Raises:
            PlaceError: It is not.
        """
        if not os.path.lexists(f"{self.root}/format"):
            raise PlaceError(f"the session folder {self.root!r} is missing: call setup(), or mount what it is on")

    def _check(self) -> None:
        found = os.lstat(self.root)
        if not stat.S_ISDIR(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a folder"
            raise ConfigurationError(f"{self.root!r} is {what}: name the folder that the sessions should be in")
        if found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{self.root!r} belongs to uid {found.st_uid}, and this program has {os.geteuid()}: change the owner"
            )
        if found.st_mode & 0o077:
            raise ConfigurationError(
                f"{self.root!r} is open to others (mode {stat.S_IMODE(found.st_mode):o}), who could read or"
                " create sessions: chmod 700 it"
            )
        kind = network_file_system(Path(self.root))
        if kind is not None and not self._network_allowed:
            raise ConfigurationError(
                f"{self.root!r} is on a network file system ({kind}), whose locks cannot be relied upon: put it on a"
                " local disk, use a server for sessions that several hosts share, or add network_filesystem=allow to"
                " the URL if only one host ever uses it"
            )

    def remove_all(self) -> None:
        """Remove everything that `make` makes."""
        self._is_checked = False
        with suppress(FileNotFoundError):
            os.unlink(f"{self.root}/format")
        for name in FOLDERS:
            with suppress(FileNotFoundError):
                shutil.rmtree(f"{self.root}/{name}")
        with suppress(OSError):  # not there, or the owner put something in it
            os.rmdir(self.root)

    # -- files

    def read(self, path: str) -> bytes | None:
        """Return what is in a file; None if there is none, and nothing of what is no file at all."""
        try:
            file = os.open(path, _READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return b""  # a link, a socket
            raise
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return b""
            parts = []
            while part := os.read(file, _CHUNK):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(file)

    def replace(self, path: str, data: bytes, check: Callable[[], None] | None = None) -> None:
        """Put *data* in the place of a file, or make one.

        Args:
            path: The file.
            data: What will be in it.
            check: Called when everything is ready; an error that it raises prevents the change.

        Raises:
            Unsure: It was done, and may not last.
            OSError: It was not done.
        """
        with self._written(data) as temporary:
            if check is not None:
                check()
            self._in_folder(path, lambda: os.replace(temporary, path))
        self._sync_folder(path)

    def add(self, path: str, data: bytes) -> bool:
        """Make a file; False if there is one."""
        with self._written(data) as temporary:
            try:
                self._in_folder(path, lambda: os.link(temporary, path, follow_symlinks=False))
            except FileExistsError:
                return False
        self._sync_folder(path)
        return True

    def mark(self, path: str, *, may_be_lost: bool = False) -> None:
        """Make an empty file, unless there is one.

        Args:
            path: Its path.
            may_be_lost: True if it does no harm if a loss of power takes it away.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(self._in_folder(path, lambda: os.open(path, flags, 0o600)))
        if not may_be_lost:
            self._sync_folder(path)

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none where there is none."""
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_leftovers(self, limit: int) -> None:
        """Remove temporary files that a process left behind when it was killed."""
        before = time.time() - _LEFTOVER
        for name in self.names(f"{self.root}/temp")[:limit]:
            path = f"{self.root}/temp/{name}"
            with suppress(FileNotFoundError):
                if os.lstat(path).st_mtime < before:
                    os.unlink(path)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[str]:
        """Return the path of a file with *data* in it, which is not there afterwards."""
        temporary = f"{self.root}/temp/{secrets.token_hex(12)}"
        file = os.open(temporary, _WRITE, 0o600)
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
                if self._is_synced:
                    os.fsync(file)
            finally:
                os.close(file)
            yield temporary
        finally:
            with suppress(OSError):  # gone by replacing; otherwise a leftover
                os.unlink(temporary)

    def _in_folder(self, path: str, make: Callable[[], T]) -> T:
        """Make something at *path*, and its folder where that is missing, or was removed just now for being empty."""
        for _ in range(_TRIES):
            try:
                return make()
            except FileNotFoundError:
                folder = os.path.dirname(path)
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                    self._sync_folder(folder)
        return make()

    def _sync_folder(self, path: str) -> None:
        if not self._is_synced:
            return
        try:
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Unsure(error.errno, error.strerror, path) from error
