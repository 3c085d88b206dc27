"""An asynchronous face of a synchronous driver, for engines that have nothing to wait for, or that only block."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["AsyncFace"]

T = TypeVar("T")


class AsyncFace(AsyncDriver):
    """Has a synchronous driver do the work. A subclass says where that runs.

    Attributes:
        driver: The synchronous driver.
    """

    driver: Driver

    @abstractmethod
    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        """Do an operation; *call* does it in the thread that calls it, and may block."""

    async def load(self, digest: bytes, now: float) -> Record | Missing:
        return await self._do("load", partial(self.driver.load, digest, now))

    async def create(self, record: Record, now: float) -> Answer:
        return await self._do("create", partial(self.driver.create, record, now))

    async def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return await self._do("commit", partial(self.driver.commit, digest, delta, now))

    async def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return await self._do("rotate", partial(self.driver.rotate, old, new, delta, grace, now))

    async def revoke(self, digest: bytes, now: float) -> bool:
        return await self._do("revoke", partial(self.driver.revoke, digest, now))

    async def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return await self._do("revoke_user", partial(self.driver.revoke_user, user, now, keep=keep))

    async def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return await self._do("end", partial(self.driver.end, list(sids), now, user=user))

    async def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return await self._do("sessions_of", partial(self.driver.sessions_of, user, now))

    async def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return await self._do("missing", partial(self.driver.missing, list(sids), now))

    async def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return await self._do("sweep", partial(self.driver.sweep, now, limit, since=since))

    async def setup(self) -> None:
        await self._do("setup", self.driver.setup)

    async def is_set_up(self) -> bool:
        return await self._do("is_set_up", self.driver.is_set_up)

    async def tear_down(self) -> None:
        await self._do("tear_down", self.driver.tear_down)

    async def advice(self) -> list[str]:
        return await self._do("advice", self.driver.advice)

    async def close(self) -> None:
        """Close the synchronous driver."""
        await self._do("close", self.driver.close)
