"""What storage holds of a session, what one request changed, and how a driver answers.

Plain data without behaviour of its own: drivers and the session core meet here and know nothing else of each other.
All times are seconds since the epoch, all lengths of time are seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = [
    "ABSENT",
    "CLOCK_SKEW",
    "COUNTER_MAX",
    "COUNTER_MIN",
    "MAX_NOTE",
    "MAX_TOUCH_INTERVAL",
    "NEVER",
    "REPLY_TIME",
    "TOMBSTONE",
    "TOUCHES_PER_IDLE",
    "USER_FENCE",
    "WHOLE",
    "Answer",
    "Committed",
    "Conflict",
    "Delta",
    "Gone",
    "Missing",
    "Put",
    "Reason",
    "Record",
    "SessionInfo",
    "Value",
    "ValueKey",
    "is_spared",
    "touch_interval",
]

NEVER: Final = 253402300800.0
"""A moment or length that is never reached (the year 10000): a number that every engine can store and compare."""

ABSENT: Final = 0
"""The version of a value that is not there. Versions of stored values are positive."""

TOMBSTONE: Final = 60.0
"""Seconds for which storage remembers that a digest was rotated away, revoked or destroyed."""

USER_FENCE: Final = 3600.0
"""Seconds for which storage remembers that a user was revoked, so that a log-in in flight cannot slip by."""

CLOCK_SKEW: Final = 300.0
"""Seconds by which the clocks of hosts may differ: what lies further in the future was dated by a wrong clock."""

REPLY_TIME: Final = 10.0
"""Seconds in which a response that carries a new token is expected to reach the browser. A request that began in this
time after a log-in or a rotation, under the old token, may have been sent before the new cookie arrived."""

WHOLE: Final = ""
"""In place of a key, in `Delta.spare`: all values of that app. No value has an empty key."""

COUNTER_MIN: Final = -(2**63)
COUNTER_MAX: Final = 2**63 - 1

MAX_NOTE: Final = 1024
"""Bytes that the note of a session may have; see `SessionInfo.note`. Checked before a driver is asked."""

MAX_TOUCH_INTERVAL: Final = 900.0
"""Seconds after which activity is recorded again at the latest; see `touch_interval`."""

TOUCHES_PER_IDLE: Final = 20
"""How often activity is recorded within the idle limit of a session in constant use; see `touch_interval`."""

ValueKey = tuple[str, str]
"""A value's place: (app, key). The app of a session's default store is the empty string."""


class Reason(StrEnum):
    """Why there is no session under a digest. Every reason means "no session"."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    ROTATED = "rotated"
    REVOKED = "revoked"
    UNREADABLE = "unreadable"

    @property
    def is_tombstone(self) -> bool:
        """True if a request ended the session or its token on purpose, less than `TOMBSTONE` seconds ago."""
        return self in (Reason.ROTATED, Reason.REVOKED)


class Value(NamedTuple):
    """A stored value: opaque bytes, or a signed 64-bit counter, with the version of its last write."""

    data: bytes | int
    version: int


class Put(NamedTuple):
    """A value to write.

    Attributes:
        data: Opaque bytes, or an int to store as a counter.
        base: The version that the change was based on; `ABSENT` where the key was seen to be missing; None where
            the request did not look, so that the last writer wins.
    """

    data: bytes | int
    base: int | None = None


# One of these is made for every request, and a frozen dataclass takes three times as long to make.
@dataclass(slots=True, kw_only=True)
class SessionInfo:
    """A session without its values, as a list of a user's devices shows it.

    Attributes:
        sid: The public name of the session, for good: 32 hexadecimal digits. It opens nothing.
        created: When the session was made.
        seen: The last recorded activity.
        deadline: A moment at which the session ends whatever happens, or `NEVER`.
        idle: The session ends this long after `seen`, or `NEVER`.
        absolute: The session ends this long after `auth_time` (after `created` before a log-in), or `NEVER`.
        user: The user who is logged in, or None.
        auth_time: When that user last proved who they are, or None.
        note: A few bytes that the application keeps with the session for such a list: the client, a label. Opaque to
            drivers, at most `MAX_NOTE` bytes, kept by a rotation.
    """

    sid: str
    created: float
    seen: float
    deadline: float = NEVER
    idle: float = NEVER
    absolute: float = NEVER
    user: str | None = None
    auth_time: float | None = None
    note: bytes = field(default=b"", repr=False)

    @property
    def expires(self) -> float:
        """The moment at which the session ends if nothing else happens; from that moment on it is no more."""
        start = self.created if self.auth_time is None else self.auth_time
        return min(self.deadline, self.seen + self.idle, start + self.absolute)


@dataclass(slots=True, kw_only=True)
class Record(SessionInfo):
    """All that storage holds of one session.

    Attributes:
        digest: SHA-256 of the token, 32 bytes: what the session is filed under.
        values: The values by (app, key).
        rotated: When the present token was issued.
        fresh: True if the token asked for came from a periodic rotation and no commit has yet confirmed that the
            client has it. The first commit under it does.
        stale: True if the token asked for has a successor and is in its period of grace.
        basis: Whatever the driver wants back in the `Delta`. Opaque to everybody else.
    """

    digest: bytes = field(repr=False)
    values: Mapping[ValueKey, Value] = field(default_factory=dict, repr=False)
    rotated: float = 0.0
    fresh: bool = False
    stale: bool = False
    basis: object = field(default=None, repr=False, compare=False)


@dataclass(slots=True, kw_only=True)
class Delta:
    """What one request changed: the unit of writing. A driver writes all of it or nothing.

    Every base version is judged against what is stored before any part of the Delta is applied. Then the parts apply
    in this order: clears, puts and drops, increments. No key is in two of `puts`, `drops` and `increments`.

    Attributes:
        puts: Values to write.
        drops: Keys to delete, with the base version as in `Put.base`. Dropping what is not there is no error.
        clears: Apps whose values all go, apart from those in `spare`.
        clear_all: True if the values of every app go, apart from those in `spare`.
        spare: Values that a clear leaves alone; (app, `WHOLE`) stands for all of that app. See `is_spared`.
        increments: Amounts to add to counters, atomically; a missing counter starts at 0.
        touch: Activity at that moment: `seen` becomes the later of the two. None for no activity.
        if_due: True if the activity must be recorded only once the session's touch interval has gone by since
            `seen`. The driver may record it earlier.
        deadline: The new `deadline`, or None to keep it.
        user: The user to set, together with `auth_time`; None for no change.
        auth_time: The moment of the log-in, or None for no change.
        note: The new note, or None to keep it.
        basis: What the driver gave with the `Record`, or None.
    """

    puts: Mapping[ValueKey, Put] = field(default_factory=dict, repr=False)
    drops: Mapping[ValueKey, int | None] = field(default_factory=dict)
    clears: frozenset[str] = frozenset()
    clear_all: bool = False
    spare: frozenset[ValueKey] = frozenset()
    increments: Mapping[ValueKey, int] = field(default_factory=dict)
    touch: float | None = None
    if_due: bool = False
    deadline: float | None = None
    user: str | None = None
    auth_time: float | None = None
    note: bytes | None = field(default=None, repr=False)
    basis: object = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """True if there is something to write."""
        return bool(
            self.puts
            or self.drops
            or self.increments
            or self.clears
            or self.clear_all
            or self.touch is not None
            or self.deadline is not None
            or self.user is not None
            or self.auth_time is not None
            or self.note is not None
        )


@dataclass(frozen=True, slots=True)
class Missing:
    """The answer to a load that finds no live session.

    Attributes:
        reason: Why.
        heir: With `ROTATED`, the live session that the digest opened before, under an empty digest: it opens nothing,
            and is there for a log-in that comes twice. Otherwise None.
        ended: With `ROTATED` and `REVOKED`, the moment at which the digest stopped working, in seconds since the
            epoch, by the clock of the host that ended it. Otherwise None.
    """

    reason: Reason
    heir: Record | None = field(default=None, repr=False, compare=False)
    ended: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Committed:
    """The write was done, all of it.

    Attributes:
        version: The version that every value written by this Delta, counters included, has now.
        counters: The new value of each counter that was incremented.
    """

    version: int
    counters: Mapping[ValueKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another request got there first; nothing was written.

    Attributes:
        keys: The values whose base version no longer holds. Empty if the conflict is over a digest: from `create`
            and `rotate`, the new digest exists already, or another rotation of the same token just issued a successor.
    """

    keys: tuple[ValueKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Gone:
    """The session has ended or its token is no longer good; nothing was written and nothing came back to life."""

    reason: Reason


Answer = Committed | Conflict | Gone


def is_spared(name: ValueKey, spare: Collection[ValueKey]) -> bool:
    """Return whether a clear that leaves *spare* alone leaves the value of that name alone; see `Delta.spare`."""
    return name in spare or (name[0], WHOLE) in spare


def touch_interval(idle: float) -> float:
    """Return the seconds between two recordings of activity, for a session with the limit *idle*."""
    interval = idle / TOUCHES_PER_IDLE
    return interval if interval < MAX_TOUCH_INTERVAL else MAX_TOUCH_INTERVAL  # noqa: FURB136 (thrice as fast as min)
