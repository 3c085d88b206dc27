"""How long a connection is used, and how its loss is noticed: the same for every engine whose connections are ours."""

from __future__ import annotations

import socket
from typing import Final

__all__ = [
    "KEEPALIVE",
    "KEEPALIVE_COUNT",
    "KEEPALIVE_IDLE",
    "KEEPALIVE_INTERVAL",
    "LONGEST_IDLE",
    "LONGEST_LIFE",
    "is_worn",
    "keep_alive",
]

LONGEST_IDLE: Final = 240.0
"""Seconds after which an idle connection is not used again: firewalls forget idle ones, the strictest after 300."""

LONGEST_LIFE: Final = 900.0
"""Seconds after which no connection is used again: a name may lead to another server by then."""

KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_COUNT: Final = 3
"""The system asks a silent peer after 15 seconds, and gives the connection up after 30."""

KEEPALIVE: Final[dict[int, int]] = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    )
    if hasattr(socket, name)
}
"""The same as options of a TCP socket, those that the system has: macOS has no TCP_KEEPIDLE."""


def keep_alive(connection: socket.socket) -> None:
    """Make the system check whether the peer of a TCP connection is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_worn(opened: float, used: float, now: float) -> bool:
    """Return whether a connection is too old to be used again; all three are moments of the monotonic clock."""
    return now - used > LONGEST_IDLE or now - opened > LONGEST_LIFE
