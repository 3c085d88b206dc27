"""A synchronous interface to an asynchronous driver, for the conformance kit and other tests."""

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
    """Runs every operation of an asynchronous driver to its end, on an event loop in a separate thread.

    Concurrent calls from several threads become tasks of this loop, so the kit's races test the driver too.

    Args:
        driver: The asynchronous driver. This driver has the same name and capabilities.

    Attributes:
        driver: The asynchronous driver.
    """

    def __init__(self, driver: AsyncDriver) -> None:
        super().__init__(cast("Driver", driver))  # every call of its methods returns a coroutine, which `pass_on` runs
        self.driver = driver
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coatcheck-blocking", daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:  # noqa: ARG002 (the same for all operations)
        return self.wait_for(cast("Coroutine[Any, Any, T]", call()))

    def advice(self) -> list[str]:
        return self.wait_for(self.driver.advice())

    def close(self) -> None:
        """Close the driver, and stop the loop and its thread."""
        if self._loop.is_closed():
            return
        self.wait_for(self.driver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def borrow(self, connection: object) -> Driver:
        """Raise NotImplementedError: a driver on a lent connection belongs to the event loop of its lender.

        Raises:
            NotImplementedError: Always. Use `wait_for` to create one on the loop.
        """
        raise NotImplementedError("borrow() is not available here: call it on the asynchronous driver, in its loop")
