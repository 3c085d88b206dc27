"""Memcached."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from testservers.base import Server, find_program

__all__ = ["MemcachedServer"]


class MemcachedServer(Server):
    """Memcached with 64 MB; what it holds is gone when it ends.

    Args:
        folder: For its log.
        port: Where it listens; a free port by itself.
        extra: More arguments of the program.
    """

    programs: ClassVar[dict[str, str]] = {"memcached": "memcached"}

    def __init__(self, folder: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> None:
        super().__init__(folder, port=port)
        self._extra: Final = tuple(extra)

    @property
    def url(self) -> str:
        return f"memcached://{self.address}"

    def command_line(self) -> list[str]:
        program = find_program("memcached") or "memcached"
        return [program, "-l", self.host, "-p", str(self.port), "-U", "0", "-m", "64", "-t", "2", *self._extra]

    def answers(self) -> bool:
        with socket.create_connection((self.host, self.port), 2) as connection:
            connection.sendall(b"version\r\n")
            return connection.recv(100).startswith(b"VERSION")
