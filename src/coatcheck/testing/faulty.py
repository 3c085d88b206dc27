"""Storage that is slow, that fails, or that does what it was asked and never says so."""

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
    """What goes wrong with some calls.

    Attributes:
        operations: With which operations.
        skip: How many of their calls are spared first.
        times: How many then suffer; None for all.
        delay: Seconds to wait before the call.
        fails: Whether it fails before anything is done.
        loses_reply: Whether it is done, and its answer lost.
    """

    operations: frozenset[str]
    skip: int
    times: int | None
    delay: float = 0.0
    fails: bool = False
    loses_reply: bool = False

    def hits(self, operation: str) -> bool:
        """Count a call; tell whether it suffers."""
        if operation not in self.operations or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class _Faults:
    """What goes wrong with which operations of a driver, and what was asked of it.

    Attributes:
        calls: The operations asked for so far, in order, whatever became of them.
    """

    name: str

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._faults: list[_Fault] = []

    def fail(self, *operations: str, skip: int = 0, times: int | None = None) -> None:
        """Let calls fail before anything is done.

        Args:
            operations: The names of the operations, such as ``"commit"``.
            skip: How many of their calls are spared first.
            times: How many calls fail after that; default all of them.
        """
        self._faults.append(_Fault(_known(operations), skip, times, fails=True))

    def lose_reply(self, *operations: str, skip: int = 0, times: int | None = None) -> None:
        """Let calls be done, and their answers be lost. The arguments are those of `fail`."""
        self._faults.append(_Fault(_known(operations), skip, times, loses_reply=True))

    def delay(self, *operations: str, seconds: float, skip: int = 0, times: int | None = None) -> None:
        """Let calls wait for *seconds* before they are done. The other arguments are those of `fail`."""
        self._faults.append(_Fault(_known(operations), skip, times, delay=seconds))

    def heal(self) -> None:
        """Let nothing go wrong from now on."""
        self._faults.clear()

    def _meet(self, operation: str) -> tuple[float, _Fault | None]:
        """Count a call; return the seconds that it waits and what then goes wrong with it."""
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
    """Passes operations on to another driver, and lets some of them go wrong.

        driver = FaultyDriver(MemoryDriver())
        driver.fail("load")                        # from now on every load fails
        driver.lose_reply("commit", times=1)       # the next commit is done, and nobody hears of it
        driver.delay("commit", "rotate", seconds=0.2)
        driver.heal()

    What fails raises `DriverUnavailable`, as a driver of a broken engine does: with ``outcome_unknown`` where a write
    was done and its reply is lost. Of several faults for one call, delays add up and the first failure counts.

    Args:
        driver: The driver that does the work.
        sleep: Waits; the `Clock.advance` of a test's clock lets the time go by without waiting.

    Attributes:
        calls: The operations asked for so far, in order, whatever became of them.
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
    """`FaultyDriver` for an `AsyncDriver`, as an `AsyncSessionManager` takes it.

    Args:
        driver: The driver that does the work.
        sleep: Waits, or returns what is to be awaited; default `asyncio.sleep`.

    Attributes:
        calls: The operations asked for so far, in order, whatever became of them.
    """

    def __init__(self, driver: AsyncDriver, *, sleep: Callable[[float], object] = asyncio.sleep) -> None:
        super().__init__()
        self.driver = cast("Driver", driver)  # every call of its methods gives a coroutine, for `_do` to await
        vars(self).update(name=driver.name, capabilities=driver.capabilities, rotation_bits=driver.rotation_bits)
        self._sleep = sleep

    @property
    def at_risk(self) -> str | None:  # type: ignore[override]  # it is only read
        """What the other driver has found out."""
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
        ValueError: There is none of such a name, or no name at all.
    """
    names = frozenset(operations)
    if not names or not names <= OPERATIONS:
        raise ValueError(f"name one or more operations of a driver: {', '.join(sorted(OPERATIONS))}")
    return names
