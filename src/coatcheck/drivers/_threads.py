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
from coatcheck.drivers._process import this_process
from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable

__all__ = ["ThreadedDriver"]

T = TypeVar("T")


class _Pool:
    """The threads of one process: they do not come along over a fork."""

    __slots__ = ("process", "threads")

    def __init__(self, count: int, name: str) -> None:
        self.process: Final = this_process()
        self.threads: Final = ThreadPoolExecutor(count, f"coatcheck-{name}")


class ThreadedDriver(AsyncFace):
    """Does each operation in one of a few threads, which the loops of a process share.

    An operation that waited too long for its turn is not done any more. One that has begun is done to its end, even
    where the task that waits for it is cancelled: so nothing is left in the middle.

    Args:
        driver: The synchronous driver.
        threads: How many.
        patience: Seconds that an operation waits for its turn.
    """

    def __init__(self, driver: Driver, threads: int, patience: float) -> None:
        self.driver = driver
        self._count: Final = threads
        self._patience: Final = patience
        self._pool: _Pool | None = None

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        pool = self._pool
        if pool is None or not pool.process.is_this():
            pool = self._pool = _Pool(self._count, self.name)
        late = time.monotonic() + self._patience

        def work() -> T:
            if time.monotonic() > late:
                why = f"other operations of this process took longer than {self._patience:g} s"
                raise DriverUnavailable(self.name, operation, why)
            return call()

        inside = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(pool.threads, partial(inside.run, work))

    async def close(self) -> None:
        """Close the synchronous driver, and let the threads end. Using the driver again starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.process.is_this():
            pool.threads.shutdown(wait=False)
        self.driver.close()
