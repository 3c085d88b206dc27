"""The place of the database: its folder, its permissions, and the file systems that lose data."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from coatcheck.drivers._files import PlaceError, network_file_system
from coatcheck.errors import ConfigurationError

__all__ = ["check_place"]


def check_place(path: str, *, network_allowed: bool) -> None:
    """Check that a database can be at *path*.

    Raises:
        ConfigurationError: Something that is no file is there, or the folder is on a network file system.
        PlaceError: The folder is missing, is not writable, or is on a file system that is not.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise PlaceError(f"the folder {str(folder)!r} of the database {path!r} does not exist: create it")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise PlaceError(
            f"the folder {str(folder)!r} of the database {path!r} is on a file system that is mounted read-only:"
            " mount it for writing, or name a file in another folder"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PlaceError(
            f"the folder {str(folder)!r} of the database {path!r} is not writable for uid {os.geteuid()}, and SQLite"
            " keeps its log beside the database: change the owner or the mode of the folder"
        )
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigurationError(f"{path!r} is {what}: name the file that the database should be in")
    kind = network_file_system(folder)
    if kind is not None and not network_allowed:
        raise ConfigurationError(
            f"{path!r} is on a network file system ({kind}), where SQLite's locks and shared memory do not hold:"
            " put it on a local disk, use a server for sessions that several hosts share, or add"
            " network_filesystem=allow to the URL if only one host ever opens it"
        )
