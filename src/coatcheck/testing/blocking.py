"""An asynchronous driver with a synchronous face, for the conformance kit and for tests of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["Blocking"]

T = TypeVar("T")


class Blocking(Driver):
    """Runs every operation of an asynchronous driver to its end, on an event loop in a thread of its own.

    Operations that threads ask for at the same time are tasks of the one loop: so the kit's races are put to it too.

    Args:
        driver: The asynchronous driver, whose name and capabilities this one takes over.

    Attributes:
        driver: The same.
    """

    def __init__(self, driver: AsyncDriver) -> None:
        self.driver = driver
        # of the class elsewhere; here each object takes over what its own driver declares
        vars(self).update(name=driver.name, capabilities=driver.capabilities, rotation_bits=driver.rotation_bits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coatcheck-blocking", daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the loop to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self.wait_for(self.driver.load(digest, now))

    def create(self, record: Record, now: float) -> Answer:
        return self.wait_for(self.driver.create(record, now))

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self.wait_for(self.driver.commit(digest, delta, now))

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self.wait_for(self.driver.rotate(old, new, delta, grace, now))

    def revoke(self, digest: bytes, now: float) -> bool:
        return self.wait_for(self.driver.revoke(digest, now))

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self.wait_for(self.driver.revoke_user(user, now, keep=keep))

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self.wait_for(self.driver.sessions_of(user, now))

    def dead(self, sids: Iterable[str], now: float) -> set[str]:
        return self.wait_for(self.driver.dead(sids, now))

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return self.wait_for(self.driver.sweep(now, limit, since=since))

    def setup(self) -> None:
        self.wait_for(self.driver.setup())

    def is_set_up(self) -> bool:
        return self.wait_for(self.driver.is_set_up())

    def tear_down(self) -> None:
        self.wait_for(self.driver.tear_down())

    def close(self) -> None:
        """Close the driver, and end the loop and its thread."""
        if self._loop.is_closed():
            return
        self.wait_for(self.driver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
