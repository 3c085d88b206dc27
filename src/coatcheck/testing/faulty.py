"""Storage that is slow, that fails, or that loses its replies."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.testing.wrapped import OPERATIONS, WRITES, WrappedDriver

__all__ = ["AsyncFaultyDriver", "FaultyDriver"]

T = TypeVar("T")


@dataclass
class _Fault:
    """A fault of some calls.

    Attributes:
        operations: The operations that it affects.
        skip: How many of their calls are not affected at first.
        times: How many of the following calls are affected; None for all.
        delay: Seconds to wait before the call.
        fails: Whether the call fails before it does anything.
        loses_reply: Whether the call is executed and its answer lost.
    """

    operations: frozenset[str]
    skip: int
    times: int | None
    delay: float = 0.0
    fails: bool = False
    loses_reply: bool = False

    def hits(self, operation: str) -> bool:
        """Count a call, and return whether it is affected."""
        if operation not in self.operations or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class _Faults:
    """The faults of a driver's operations, and a record of its calls.

    Attributes:
        calls: The operations called so far, in order, with any result.
    """

    name: str

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._faults: list[_Fault] = []

    def fail(self, *operations: str, skip: int = 0, times: int | None = None) -> None:
        """Make calls fail before they do anything.

        Args:
            operations: The names of the operations, such as ``"commit"``.
            skip: How many of their calls succeed first.
            times: How many calls fail after that. Default: all of them.
        """
        self._faults.append(_Fault(_known(operations), skip, times, fails=True))

    def lose_reply(self, *operations: str, skip: int = 0, times: int | None = None) -> None:
        """Execute calls, but lose their answers. The arguments are those of `fail`."""
        self._faults.append(_Fault(_known(operations), skip, times, loses_reply=True))

    def delay(self, *operations: str, seconds: float, skip: int = 0, times: int | None = None) -> None:
        """Delay calls by *seconds*. The other arguments are those of `fail`."""
        self._faults.append(_Fault(_known(operations), skip, times, delay=seconds))

    def heal(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def _meet(self, operation: str) -> tuple[float, _Fault | None]:
        """Count a call, and return its delay in seconds and its fault, or None."""
        self.calls.append(operation)
        hits = [fault for fault in self._faults if fault.hits(operation)]
        failure = next((fault for fault in hits if fault.fails or fault.loses_reply), None)
        return sum(fault.delay for fault in hits), failure

    def _error(self, operation: str, failure: _Fault) -> DriverUnavailable:
        why = "the reply was lost on purpose" if failure.loses_reply else "down on purpose"
        unknown = failure.loses_reply and operation in WRITES
        error = DriverUnavailable(self.name, operation, why, outcome_unknown=unknown)
        error.__cause__ = ConnectionError(why)
        return error


class FaultyDriver(_Faults, WrappedDriver):
    """Passes operations on to another driver, and makes some of them fail.

        driver = FaultyDriver(MemoryDriver())
        driver.fail("load")                        # from now on every load fails
        driver.lose_reply("commit", times=1)       # the next commit is executed, but its reply is lost
        driver.delay("commit", "rotate", seconds=0.2)
        driver.heal()

    A failing call raises `DriverUnavailable`, as the driver of a broken engine does. ``outcome_unknown`` is set if a
    write was executed and its reply is lost. If several faults affect one call, delays add up and the first failure
    counts.

    Args:
        driver: The driver that does the work.
        sleep: Waits for a number of seconds. `Clock.advance` advances a test's clock instead of waiting.

    Attributes:
        calls: The operations called so far, in order, with any result.
    """

    def __init__(self, driver: Driver, *, sleep: Callable[[float], object] = time.sleep) -> None:
        _Faults.__init__(self)
        WrappedDriver.__init__(self, driver)
        self._sleep = sleep

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:
        seconds, failure = self._meet(operation)
        if seconds:
            self._sleep(seconds)
        if failure is None:
            return call()
        if failure.loses_reply:
            call()
        raise self._error(operation, failure)


class AsyncFaultyDriver(_Faults, AsyncFace):
    """`FaultyDriver` for an `AsyncDriver`, for use with an `AsyncSessionManager`.

    Args:
        driver: The driver that does the work.
        sleep: Waits for a number of seconds, or returns an awaitable. Default: `asyncio.sleep`.

    Attributes:
        calls: The operations called so far, in order, with any result.
    """

    def __init__(self, driver: AsyncDriver, *, sleep: Callable[[float], object] = asyncio.sleep) -> None:
        super().__init__()
        self.driver = cast("Driver", driver)  # every call of its methods returns a coroutine, which `_do` awaits
        vars(self).update(name=driver.name, capabilities=driver.capabilities, rotation_bits=driver.rotation_bits)
        self._sleep = sleep

    @property
    def at_risk(self) -> str | None:  # type: ignore[override]  # it is only read
        """The risk that the wrapped driver has detected."""
        return self.driver.at_risk

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self.driver.takes(digest, sid)

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        work = cast("Callable[[], Awaitable[T]]", call)
        if operation not in OPERATIONS:
            return await work()
        seconds, failure = self._meet(operation)
        if seconds and inspect.isawaitable(waits := self._sleep(seconds)):
            await waits
        if failure is None:
            return await work()
        if failure.loses_reply:
            await work()
        raise self._error(operation, failure)


def _known(operations: Iterable[str]) -> frozenset[str]:
    """Check the names of operations.

    Raises:
        ValueError: A name is not that of an operation, or there is no name.
    """
    names = frozenset(operations)
    if not names or not names <= OPERATIONS:
        raise ValueError(f"pass the names of one or more driver operations: {', '.join(sorted(OPERATIONS))}")
    return names
