"""Shared parts of the conformance kit: a clock, records, and checks of answers."""

# ruff: noqa: S101 (asserts are what tests are made of)

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import ClassVar, Final

from coatcheck.drivers.base import Capability, Driver
from coatcheck.errors import UnsupportedCapability
from coatcheck.record import NEVER, Answer, Committed, Delta, Missing, Put, Reason, Record, Value, ValueKey

__all__ = [
    "START",
    "Clock",
    "Rules",
    "committed",
    "digest",
    "has_user_index",
    "loaded",
    "make_record",
    "puts",
    "reason",
    "sid",
    "sid_for",
    "started",
    "successor",
    "user",
]

START: Final = 1_800_000_000.0
"""The moment at which the tests begin: far from the engine's own clock, which no rule uses."""


class Clock:
    """A clock that only moves when the test advances it.

    Attributes:
        now: The present moment, in seconds since the epoch.
    """

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Advance the clock by *seconds* and return the new moment."""
        self.now += seconds
        return self.now


class Rules:
    """The base class of the rules.

    Attributes:
        concurrent: Whether threads can share the driver.
    """

    concurrent: ClassVar[bool] = True

    def reopen(self, driver: Driver) -> Driver:
        """Return another handle on the storage of *driver*, or the same driver if there cannot be another one."""
        return driver


def has_user_index(driver: Driver) -> bool:
    """Check whether the driver can list a user's sessions. If not, it must raise `UnsupportedCapability`."""
    if Capability.USER_INDEX in driver.capabilities:
        return True
    for ask in (driver.revoke_user, driver.sessions_of):
        try:
            ask("nobody", START)
        except UnsupportedCapability:
            continue
        raise AssertionError(f"without USER_INDEX, {ask.__name__} must raise UnsupportedCapability")
    return False


def digest() -> bytes:
    """Return an unused digest."""
    return secrets.token_bytes(32)


def sid() -> str:
    """Return an unused session id."""
    return secrets.token_hex(16)


def sid_for(digest: bytes) -> str:
    """Return an unused session id with the leading bits of *digest*, which `rotation_bits` may require."""
    return digest.hex()[:4] + sid()[4:]


def user() -> str:
    """Return an unused user."""
    return f"user-{secrets.token_hex(4)}"


def successor(driver: Driver, old: bytes) -> bytes:
    """Return a new digest that *old* can be rotated to: it keeps the bits that the driver requires."""
    kept = driver.rotation_bits
    new = int.from_bytes(digest(), "big") % (1 << (256 - kept))
    top = int.from_bytes(old, "big") >> (256 - kept) << (256 - kept)
    return (top | new).to_bytes(32, "big")


def make_record(  # noqa: PLR0913 (a record has that many parts)
    now: float = START,
    *,
    digest_: bytes | None = None,
    sid_: str | None = None,
    deadline: float = NEVER,
    idle: float = 600.0,
    absolute: float = 36000.0,
    user: str | None = None,
    auth_time: float | None = None,
    values: Mapping[ValueKey, bytes | int] | None = None,
) -> Record:
    """Return a record of a new session, with ten minutes of idle time and ten hours in all."""
    if digest_ is None:
        digest_ = digest() if sid_ is None else bytes.fromhex(sid_[:4]) + digest()[2:]
    return Record(
        sid=sid_ or sid_for(digest_),
        digest=digest_,
        created=now,
        seen=now,
        rotated=now,
        deadline=deadline,
        idle=idle,
        absolute=absolute,
        user=user,
        auth_time=now if auth_time is None and user is not None else auth_time,
        values={name: Value(data, 1) for name, data in (values or {}).items()},
    )


def started(  # noqa: PLR0913 (a record has that many parts)
    driver: Driver,
    now: float = START,
    *,
    deadline: float = NEVER,
    idle: float = 600.0,
    absolute: float = 36000.0,
    user: str | None = None,
    auth_time: float | None = None,
    values: Mapping[ValueKey, bytes | int] | None = None,
) -> Record:
    """Create a session, and return it as loaded from the driver."""
    record = make_record(
        now, deadline=deadline, idle=idle, absolute=absolute, user=user, auth_time=auth_time, values=values
    )
    committed(driver.create(record, now))
    return loaded(driver, record.digest, now)


def loaded(driver: Driver, digest: bytes, now: float) -> Record:
    """Load a session, and check that it exists."""
    found = driver.load(digest, now)
    assert isinstance(found, Record), f"expected a session, got {found}"
    return found


def committed(answer: Answer) -> Committed:
    """Return *answer*, and check that the write was committed."""
    assert isinstance(answer, Committed), f"expected Committed, got {answer}"
    return answer


def reason(found: Record | Missing) -> Reason:
    """Return the reason why there is no session."""
    assert isinstance(found, Missing), f"expected no session, got {found}"
    return found.reason


def puts(values: Mapping[ValueKey, bytes | int], base: int | None = None) -> Delta:
    """Return a change that writes *values*, all based on the version *base*."""
    return Delta(puts={name: Put(data, base) for name, data in values.items()})
