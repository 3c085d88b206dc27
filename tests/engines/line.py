"""A driver that reaches its engine through a proxy, and a fair limit for it on a machine that others keep busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

from testservers import FaultProxies, ServerError, wait_until
from testservers.base import PATIENCE
from testservers.engines import Engine

from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Record, ValueKey
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded

__all__ = ["Attempt", "Line", "TooSlow", "attempt", "with_a_fair_limit"]

A: Final[ValueKey] = ("", "a")

LIMIT: Final = 0.5
"""The limit of connect, read and write in the URL, in seconds."""

LONG_LIMIT: Final = 6.0
"""The same for a machine that others keep too busy for the short one."""

# As parts of the limit: what an operation may take beyond it, what goes for at once, what the return may take.
MARGIN: Final = 0.8
AT_ONCE: Final = 0.2
RECOVERY: Final = 4.0


@dataclass
class Attempt:
    """How an operation went."""

    error: DriverUnavailable | None
    seconds: float


def attempt(act: Callable[[], object]) -> Attempt:
    began = time.monotonic()
    try:
        act()
    except DriverUnavailable as error:
        return Attempt(error, time.monotonic() - began)
    return Attempt(None, time.monotonic() - began)


class TooSlow(AssertionError):
    """Something took longer than the limit allows, or did not come to pass within it."""


def with_a_fair_limit(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with the short limit, and where that was too short for the machine, once more with the long one.

    What a defect makes late is late whatever the limit; what other programs make late is not.
    """

    @wraps(test)
    def run(line: Line, **more: Any) -> None:
        try:
            test(line, **more)
        except (TooSlow, DriverUnavailable):
            line.restart(LONG_LIMIT)
            test(line, **more)

    return run


@dataclass
class Line:
    """An engine that is reached through a proxy.

    Attributes:
        engine: The engine.
        proxy: The proxy.
        url: The engine's URL through it.
        driver: A driver through the proxy, which has been used.
        beside: Another driver, which looks and prepares; it is patient where it does not go through the proxies too.
        limit: The limit of each driver through the proxy.
    """

    engine: Engine
    proxy: FaultProxies
    url: str
    driver: Driver = field(init=False)
    beside: Driver = field(init=False)
    limit: float = LIMIT

    def __post_init__(self) -> None:
        self.beside = self.engine.open()
        self.beside.setup()
        self.session = self.started({A: b"here"})
        self.restart(self.limit)

    def restart(self, limit: float) -> None:
        """Begin anew with another limit; with the long one if the driver cannot work within the short one."""
        self.proxy.heal()
        self.limit = limit
        self.driver = self.open()
        patience = PATIENCE if limit >= LONG_LIMIT else RECOVERY * limit
        try:
            wait_until(self.works, "a driver that works", patience)
        except ServerError:
            if limit >= LONG_LIMIT:
                raise
            self.restart(LONG_LIMIT)

    def works(self) -> bool:
        """Look whether the drivers find the session."""
        return all(attempt(lambda: self.look(one)).error is None for one in (self.driver, self.beside))  # noqa: B023

    def look(self, driver: Driver) -> None:
        """Have a driver find the session with the right values."""
        assert loaded(driver, self.session.digest, START).values[A].data == b"here"

    def open(self) -> Driver:
        """Return another driver through the proxy; one that logs in where the server wants no password too."""
        url = self.url if "@" in self.url else self.url.replace("://", "://default:any@")
        return self.engine.open(url if self.engine.name.startswith("redis") else self.url, timeout=self.limit)

    def within(self, seconds: float, limits: float, what: str = "") -> None:
        """Check that something took less than so many times the limit."""
        if seconds >= self.limit * limits:
            raise TooSlow(f"{what} took {seconds:.3f} s, and the limit is {self.limit} s")

    def met(self, what: str = "") -> None:
        """Check that the fault has met a request."""
        if not self.proxy.fired:
            raise TooSlow(f"{what}: the request to be met did not come to be sent")

    def record(self, values: dict[ValueKey, bytes | int]) -> Record:
        """Make a record; all of them are on the same server of a cluster."""
        return make_record(digest_=bytes(2) + digest()[2:], values=values)

    def started(self, values: dict[ValueKey, bytes | int]) -> Record:
        """Store a new session."""
        record = self.record(values)
        committed(self.beside.create(record, START))
        return loaded(self.beside, record.digest, START)

    def warm(self, driver: Driver | None = None) -> None:
        """Check that a driver soon has a connection and finds the session."""
        began = time.monotonic()
        for one in (driver or self.driver, self.beside):  # that one is behind the proxies of a cluster too
            while attempt(lambda: self.look(one)).error is not None:  # noqa: B023 (called at once)
                self.within(time.monotonic() - began, RECOVERY, "the return")
                time.sleep(0.01)
        self.within(time.monotonic() - began, RECOVERY, "the return")
