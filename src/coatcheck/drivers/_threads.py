"""An asynchronous driver that has a synchronous one do its work in a few threads: for engines that can only block."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers._pool import PerProcess
from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable

__all__ = ["ThreadedDriver"]

T = TypeVar("T")


class _Threads:
    """The threads of one process, in groups."""

    def __init__(self, name: str, sizes: dict[str, int]) -> None:
        self.groups: Final = {
            group: ThreadPoolExecutor(size, f"coatcheck-{name}-{group}") for group, size in sizes.items()
        }

    def close(self) -> None:
        for group in self.groups.values():
            group.shutdown()


class ThreadedDriver(AsyncFace):
    """Does each operation in one of a few threads, which the loops of a process share.

    An operation that waited too long for its turn is not done any more. One that has begun is done to its end, even
    where the task that waits for it is cancelled: so nothing is left in the middle.

    Args:
        driver: The synchronous driver.
        patience: Seconds that an operation waits for its turn.
        sizes: How many threads each group has, by its name.
    """

    def __init__(self, driver: Driver, patience: float, **sizes: int) -> None:
        self.driver = driver
        self._patience: Final = patience
        self._default: Final = next(iter(sizes))
        self._threads: Final = PerProcess(partial(_Threads, self.name, sizes))

    def _group(self, operation: str) -> str:  # noqa: ARG002 (a subclass of several groups needs it)
        """Return the group of threads that does an operation: the first one, unless a subclass knows better."""
        return self._default

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        threads = self._threads.here().groups[self._group(operation)]
        late = time.monotonic() + self._patience

        def work() -> T:
            if time.monotonic() > late:
                why = f"other operations of this process took longer than {self._patience:g} s"
                raise DriverUnavailable(self.name, operation, why)
            return call()

        inside = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(threads, partial(inside.run, work))

    async def close(self) -> None:
        """Close the synchronous driver, and let the threads end. Using the driver again starts new ones."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Wait for what the threads are doing, and close."""
        self._threads.close()
        self.driver.close()
