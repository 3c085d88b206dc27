"""How long a connection is used, and how its loss is noticed: the same for every engine whose connections are ours."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["KEEPALIVE", "LONGEST_IDLE", "LONGEST_LIFE", "is_worn", "keep_alive"]

LONGEST_IDLE: Final = 240.0
"""Seconds after which an idle connection is not used again: firewalls forget idle ones, the strictest after 300."""

LONGEST_LIFE: Final = 900.0
"""Seconds after which no connection is used again: a name may lead to another server by then."""

KEEPALIVE: Final[dict[int, int]] = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""Options of a TCP socket: the system asks a silent peer after 15 seconds, and gives the connection up after 30."""


def keep_alive(connection: socket.socket) -> None:
    """Have the system look whether the peer of a TCP connection is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_worn(opened: float, used: float, now: float) -> bool:
    """Return whether a connection is too old to be used again; all three are moments of the monotonic clock."""
    return now - used > LONGEST_IDLE or now - opened > LONGEST_LIFE
