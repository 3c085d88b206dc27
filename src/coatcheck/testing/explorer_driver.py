"""How the explorer suspends requests before each call of a driver, and which steps may change places."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers.base import Driver
from coatcheck.record import Answer, Record

__all__ = ["DrivenDriver", "NextStep", "Suspended"]

T = TypeVar("T")


class Suspended:
    """Awaited, it hands control to the code that drives the coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class DrivenDriver(AsyncFace):
    """A driver that suspends its caller before each call, until the coroutine is resumed by hand.

    Args:
        driver: The driver that does the work; each of its calls has to be atomic.
        called: Called with the name of each operation just before it is done.

    Attributes:
        made: The sids of the sessions that it was told to create.
    """

    def __init__(self, driver: Driver, called: Callable[[str], None]) -> None:
        self.driver = driver
        self.made: list[str] = []
        self._called = called
        # of the class elsewhere; here each object takes over what its own driver declares
        vars(self).update(name=driver.name, capabilities=driver.capabilities, rotation_bits=driver.rotation_bits)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self.driver.takes(digest, sid)

    async def create(self, record: Record, now: float) -> Answer:
        self.made.append(record.sid)
        return await super().create(record, now)

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        await Suspended()
        self._called(operation)
        return call()


class NextStep(NamedTuple):
    """What an actor does when it is its turn, as far as it is known before.

    Attributes:
        is_coming: True for the step in which a request comes and nothing else is done.
        is_quiet: True for one that only reads, and after which no answer with a cookie is sent.
        dates: True if the moment of the step may become that of an end, with which others compare theirs.
        revokes: True if it may become the moment of a revocation, with which others compare theirs, too.
    """

    is_coming: bool = False
    is_quiet: bool = False
    dates: bool = True
    revokes: bool = True

    def commutes(self, other: NextStep) -> bool:
        """Check whether it makes no difference which of two steps comes first, when one follows the other at once.

        Neither may write what the other one reads, and no two moments that are compared may change places: that of a
        request's coming is compared with those of ends and revocations, and revocations are compared with each other.
        """
        if self.is_coming or other.is_coming:
            steady = other if self.is_coming else self
            return steady.is_coming or (steady.is_quiet and not steady.dates)
        return self.is_quiet and other.is_quiet and not (self.revokes and other.revokes)
