"""What several drivers decide alike: base versions, counters, graces and fences.

Pure functions over plain values, for drivers that hold a lock or a transaction while they decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from coatcheck.errors import CounterOverflow, NotACounter
from coatcheck.record import (
    CLOCK_SKEW,
    COUNTER_MAX,
    COUNTER_MIN,
    NEVER,
    TOMBSTONE,
    USER_FENCE,
    Delta,
    Put,
    Reason,
    ValueKey,
    is_spared,
)

__all__ = [
    "added",
    "checked",
    "cleared",
    "ended_at",
    "failed_bases",
    "has_bases",
    "is_fenced",
    "new_version",
    "prior_state",
    "raised_fence",
    "rotation_refused",
]


def new_version() -> int:
    """Draw a version. 63 random bits are not seen twice, so a value that was dropped needs no memory of its last."""
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1


def has_bases(delta: Delta) -> bool:
    """Return whether any part of *delta* depends on a version."""
    return any(put.base is not None for put in delta.puts.values()) or any(
        base is not None for base in delta.drops.values()
    )


def failed_bases(delta: Delta, version_of: Callable[[ValueKey], int]) -> tuple[ValueKey, ...]:
    """Return every key of *delta* whose base version is not the one that *version_of* finds (`ABSENT` for none)."""
    failed = [name for name, (_, base) in delta.puts.items() if base is not None and version_of(name) != base]
    failed += [name for name, base in delta.drops.items() if base is not None and version_of(name) != base]
    return tuple(failed)


def cleared(delta: Delta, names: Iterable[ValueKey]) -> list[ValueKey]:
    """Return those of *names* that the clears of *delta* remove."""
    if not delta.clear_all and not delta.clears:
        return []
    spare = delta.spare
    return [name for name in names if (delta.clear_all or name[0] in delta.clears) and not is_spared(name, spare)]


def checked(name: ValueKey, put: Put) -> bytes | int:
    """Return the data of *put* as it is stored.

    Raises:
        CounterOverflow: It is a counter outside 64 signed bits.
    """
    data = put.data
    if isinstance(data, int):
        if not COUNTER_MIN <= data <= COUNTER_MAX:
            raise CounterOverflow(*name)
        return int(data)
    return data


def added(name: ValueKey, held: bytes | int | None, amount: int) -> int:
    """Return what the counter *name*, which now holds *held*, holds after adding *amount*.

    Raises:
        NotACounter: It holds bytes.
        CounterOverflow: The result does not fit 64 signed bits.
    """
    if held is not None and not isinstance(held, int):
        raise NotACounter(*name)
    total = (held or 0) + amount
    if not COUNTER_MIN <= total <= COUNTER_MAX:
        raise CounterOverflow(*name)
    return total


def prior_state(until: float, now: float) -> Reason | None:
    """Return why a digest that was rotated away works no more, or None while it still does.

    Args:
        until: The end of its grace; `NEVER` while the successor has not been presented.
        now: The present moment.
    """
    if until > now:
        return None
    return Reason.ROTATED if until + TOMBSTONE > now else Reason.UNKNOWN


def ended_at(until: float) -> float:
    """Return the moment at which a digest stopped working, from the end of its tombstone."""
    return until - TOMBSTONE


def rotation_refused(until: float, issued: float, grace: float, now: float, *, by_prior: bool) -> bool:
    """Check whether a session may not get a new token now.

    A digest whose successor works already is not rotated a second time. The digest in force is not rotated while the
    one before it is in its grace: only one prior digest is stored, so the older one would lose what is left of it.

    Args:
        until: The end of the prior digest's grace; `NEVER` while its successor has not been presented.
        issued: When the digest in force was issued.
        grace: The grace of the rotation that is asked for; a rotation without one is never refused.
        now: The present moment.
        by_prior: True if the prior digest is the one to rotate.
    """
    if grace <= 0:
        return False
    return until < NEVER or issued + grace > now if by_prior else until > now


def is_fenced(fence: float | None, login: float, now: float) -> bool:
    """Return whether a log-in is too old for a user who was revoked.

    Args:
        fence: When the user was last revoked, or None.
        login: The moment of the log-in.
        now: The present moment.
    """
    return fence is not None and login <= fence and fence - CLOCK_SKEW <= now < fence + USER_FENCE


def raised_fence(fence: float | None, now: float) -> float:
    """Return when a user was last revoked who is revoked now.

    Args:
        fence: When that was noted to be so far, or None.
        now: The present moment.
    """
    # A later moment is from a request that was faster, unless a wrong clock dated it.
    return now if fence is None or fence > now + CLOCK_SKEW else max(fence, now)
