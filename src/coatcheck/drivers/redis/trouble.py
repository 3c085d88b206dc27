"""What goes wrong on the way to a server, told so that somebody can do something about it."""

from __future__ import annotations

from typing import Final

from coatcheck.errors import DriverUnavailable

__all__ = ["NAME", "SPOILT", "Lost", "NotSent", "refused", "said", "steps_back", "unavailable", "was_begun"]

NAME: Final = "redis"
SPOILT: Final = "WRONGTYPE"
"""What an error begins with that says that a key holds something else."""


class _Trouble(Exception):
    def __init__(self, why: str, *, is_reset: bool = False, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_reset = is_reset
        self.is_timeout = is_timeout


class NotSent(_Trouble):
    """Nothing was done: no command left the process, or the server refused. The cause is chained, if there is one.

    Attributes:
        is_reset: True if the connection was closed, and what was sent would have changed nothing.
        is_timeout: True if it took the whole limit of time to find out.
    """


class Lost(_Trouble):
    """Commands were sent, and the replies did not all come. The cause is chained.

    Attributes:
        is_reset: True if the server, or something on the way, closed the connection.
        is_timeout: True if time ran out.
    """


_SPOILING: Final = "another program wrote to a key of the sessions: delete it, and give one of the two another prefix"
_PERMISSION: Final = (
    "the user in the URL may not do this: it needs the commands and keys that docs/engines/redis.md lists"
)
_ADVICE: Final = {
    "LOADING": "it is still reading its data from disk: try again soon",
    "READONLY": "it is a replica and accepts no writes: use the primary in the URL, or use Sentinel",
    "MASTERDOWN": "its primary is down",
    "CLUSTERDOWN": "some slots of the cluster have no server",
    "BUSY": "a script of another program blocks it",
    "OOM": "its memory is full: raise maxmemory (and keep maxmemory-policy noeviction), or let sessions end sooner",
    "MISCONF": "it cannot write its data to disk, and accepts no writes until it can: see its log",
    "NOREPLICAS": "too few replicas are in touch with it for its setting min-replicas-to-write",
    "NOAUTH": "it wants a password: redis://user:password@host",
    "WRONGPASS": "it does not accept the user name and password in the URL",
    "NOPERM": _PERMISSION,
    "NOSCRIPT": "it loses scripts at once",
    "MOVED": "it is part of a cluster: use redis+cluster://",
    "TRYAGAIN": "the slot is moving to another server: try again soon",
}
_FORBIDDEN: Final = ("the user executing the script can't", "acl failure in script", "noperm")
"""How servers of different versions say it when a script does what its user may not."""
_IN_SCRIPT: Final = "user_script"  # in every error of a script that ran: the place
_AHEAD_OF_SCRIPTS: Final = frozenset(
    {
        "NOSCRIPT", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "CROSSSLOT", "BUSY", "NOAUTH", "WRONGPASS", "NOPERM",
        "MOVED", "ASK", "TRYAGAIN",
    }
)  # fmt: skip
"""What a server says before it runs a script."""
_NO_SUCH_COMMAND: Final = "ERR unknown command"
_OLD_SCRIPT: Final = "ERR Error running script"
"""How Redis 6.2 begins the error of a script; what a command in it said comes last."""
_STEPS_BACK: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "NOREPLICAS"})
"""What a server says whose place another one may have taken, or may be about to take."""
_AHEAD_OF_WRITES: Final = frozenset({"READONLY", "OOM", "MISCONF", "NOREPLICAS"})
"""What it says at the first write of a script, and at no later one."""


def unavailable(operation: str, why: str, *, outcome_unknown: bool) -> DriverUnavailable:
    """Return the error to raise; the caller chains its cause."""
    return DriverUnavailable(NAME, operation, why, outcome_unknown=outcome_unknown)


def refused(error: Exception, place: str) -> str:
    """Return what a server's error reply means, without what it repeats of the command."""
    text = said(error)
    advice = _SPOILING if SPOILT in text else _ADVICE.get(_code(text))
    if advice is None and any(words in text.lower() for words in _FORBIDDEN):
        advice = _PERMISSION
    return f"{place} refused: {text}" + (f" ({advice})" if advice else "")


def was_begun(error: Exception) -> bool:
    """Return whether a script that gave this error may have written something. What is not known counts as yes."""
    text = said(error)
    code = _code(text)
    is_ahead = code in _AHEAD_OF_SCRIPTS or text.startswith(_NO_SUCH_COMMAND)
    return code not in _AHEAD_OF_WRITES and (not is_ahead or _IN_SCRIPT in text)


def steps_back(error: Exception) -> bool:
    """Return whether a server says that it is not the one to ask: the way to the primary may lead elsewhere by now."""
    return _code(said(error)) in _STEPS_BACK


def _code(text: str) -> str:
    if text.startswith(_OLD_SCRIPT) and ": -" in text:
        text = text.rpartition(": -")[2]
    return text.partition(" ")[0]


def said(error: Exception) -> str:
    """Return the text of an error reply, with the code in front that redis-py takes away."""
    code = getattr(error, "status_code", None)
    text = str(error).partition(", with args")[0]
    return f"{code} {text}" if code else text
