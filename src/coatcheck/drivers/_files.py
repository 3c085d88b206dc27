"""What the engines that keep files share: their options, which file systems lose data, and how a place is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from coatcheck.drivers._urls import Option, choice, seconds, switch, text

__all__ = [
    "FILE_OPTIONS",
    "FILE_TIMEOUT",
    "SYNCHRONOUS",
    "Mount",
    "PlaceError",
    "file_system_in",
    "file_system_of",
    "mount_of",
    "network_file_system",
]

FILE_TIMEOUT: Final = 5.0
SYNCHRONOUS: Final = ("normal", "full")
FILE_OPTIONS: Final[dict[str, Option]] = {
    "network_filesystem": switch("allow", "refuse"),
    "prefix": text(),
    "synchronous": choice(*SYNCHRONOUS),
    "timeout": seconds(FILE_TIMEOUT, least=0.0),
}
"""The options of a URL: those of the drivers' constructors."""

_NETWORK: Final = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip


Mount = tuple[str, str, str]
"""A device, the place where it is mounted, and the type of its file system."""


class PlaceError(OSError):
    """The folder is missing or cannot be written; the message says so for people."""


def network_file_system(folder: Path) -> str | None:
    """Return the type of the file system that *folder* is on where it is one of a network, and None for a local one."""
    kind = file_system_of(folder)
    return kind if kind in _NETWORK else None


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that *folder* is on, or "" where the system does not tell."""
    return file_system_in(_table(), os.path.realpath(folder))


def file_system_in(table: str, folder: str) -> str:
    """Return the type of the file system of *folder*, an absolute path without links, by a table like /proc/mounts."""
    return _mount_in(table, folder)[2]


def mount_of(folder: Path) -> Mount:
    """Return what is mounted where *folder* is; empty texts if the system does not tell."""
    return _mount_in(_table(), os.path.realpath(folder))


def _table() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _mount_in(table: str, folder: str) -> Mount:
    best, mount = -1, ("", "", "")
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # noqa: PLR2004 (device, place, type)
            continue
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1])
        inside = place in ("/", folder) or folder.startswith(place + "/")
        if inside and len(place) >= best:  # of two on the same place the later one is seen
            best, mount = len(place), (fields[0], place, fields[2])
    return mount
