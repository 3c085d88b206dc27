"""What goes wrong on the way to a server, told so that somebody can do something about it."""

from __future__ import annotations

from typing import Final

from coatcheck.errors import DriverUnavailable

__all__ = ["NAME", "Lost", "NotSent", "refused", "said", "unavailable"]

NAME: Final = "redis"


class NotSent(Exception):
    """Nothing was done: no command left the process, or the server refused. The cause is chained, if there is one.

    Attributes:
        is_timeout: True where it took the whole limit of time to find out.
    """

    def __init__(self, why: str, *, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_timeout = is_timeout


class Lost(Exception):
    """Commands were sent, and the replies did not all come. The cause is chained.

    Attributes:
        is_reset: True where the server, or something on the way, closed the connection.
        is_timeout: True where time ran out.
    """

    def __init__(self, why: str, *, is_reset: bool = False, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_reset = is_reset
        self.is_timeout = is_timeout


_ADVICE: Final = {
    "LOADING": "it is still reading its data from disk: try again soon",
    "READONLY": "it is a replica and takes no writes: name the primary in the URL, or use Sentinel",
    "MASTERDOWN": "its primary is down",
    "CLUSTERDOWN": "some slots of the cluster have no server",
    "BUSY": "a script of somebody else's holds it up",
    "OOM": "its memory is full: raise maxmemory (and keep maxmemory-policy noeviction), or let sessions end sooner",
    "MISCONF": "it cannot write its data to disk, and takes no writes until it can: see its log",
    "NOREPLICAS": "too few replicas are in touch with it for its setting min-replicas-to-write",
    "NOAUTH": "it wants a password: redis://user:password@host",
    "WRONGPASS": "it does not accept the user name and password in the URL",
    "NOPERM": "the user in the URL may not do this: it needs the commands and keys that docs/engines/redis.md lists",
    "NOSCRIPT": "it forgets scripts at once",
    "MOVED": "it is part of a cluster: use redis+cluster://",
    "TRYAGAIN": "the slot is moving to another server: try again soon",
}


def unavailable(operation: str, why: str, *, outcome_unknown: bool) -> DriverUnavailable:
    """Give the error to raise; the caller chains its cause."""
    return DriverUnavailable(NAME, operation, why, outcome_unknown=outcome_unknown)


def refused(error: Exception, place: str) -> str:
    """Say what a server's error reply means, without what it repeats of the command."""
    text = said(error)
    advice = _ADVICE.get(text.partition(" ")[0])
    return f"{place} refused: {text}" + (f" ({advice})" if advice else "")


def said(error: Exception) -> str:
    """Give the text of an error reply, with the code in front that redis-py takes away."""
    code = getattr(error, "status_code", None)
    text = str(error).partition(", with args")[0]
    return f"{code} {text}" if code else text
