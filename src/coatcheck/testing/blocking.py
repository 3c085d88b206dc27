"""An asynchronous driver with a synchronous face, for the conformance kit and for tests of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.testing.wrapped import WrappedDriver

__all__ = ["Blocking"]

T = TypeVar("T")


class Blocking(WrappedDriver):
    """Runs every operation of an asynchronous driver to its end, on an event loop in a thread of its own.

    Operations that threads ask for at the same time are tasks of the one loop: so the kit's races are put to it too.

    Args:
        driver: The asynchronous driver, whose name and capabilities this one takes over.

    Attributes:
        driver: The same.
    """

    def __init__(self, driver: AsyncDriver) -> None:
        super().__init__(cast("Driver", driver))  # every call of its methods gives a coroutine, for `pass_on` to run
        self.driver = driver
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coatcheck-blocking", daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the loop to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:  # noqa: ARG002 (all of them alike)
        return self.wait_for(cast("Coroutine[Any, Any, T]", call()))

    def advice(self) -> list[str]:
        return self.wait_for(self.driver.advice())

    def close(self) -> None:
        """Close the driver, and end the loop and its thread."""
        if self._loop.is_closed():
            return
        self.wait_for(self.driver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def borrow(self, connection: object) -> Driver:
        """Give nothing: a driver on a lent connection is an asynchronous one, and belongs to the loop of its lender.

        Raises:
            NotImplementedError: Always; make one with `wait_for`.
        """
        raise NotImplementedError("borrow from the asynchronous driver, on its loop")
