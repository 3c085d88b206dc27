"""Operations without I/O, and what carries them out: once for synchronous programs, once for asynchronous ones.

An engine with both a synchronous and an asynchronous driver writes its operations once, as generators: each yields what
to ask of the engine (a command, a statement, a script), is sent the reply, and returns the answer of the contract. The
drivers only know how to ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable
from functools import partial
from typing import Any, TypeVar

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["AsyncSteppedDriver", "Operations", "SteppedDriver", "Steps", "drive", "drive_async"]

R = TypeVar("R")
T = TypeVar("T")

Steps = Generator[Any, Any, T]
"""An operation: yields requests, is sent replies (or is thrown the error of one), returns its answer."""


def drive(steps: Generator[R, Any, T], perform: Callable[[R], Any]) -> T:
    """Carry out *steps*.

    Args:
        steps: What yields requests. An error of a request is thrown into it.
        perform: Does what a request asks for, and returns the reply.

    Returns:
        What *steps* returns.
    """
    try:
        request = steps.send(None)
        while True:
            try:
                reply = perform(request)
            except Exception as error:  # noqa: BLE001 (thrown on)
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as done:
        answer: T = done.value
        return answer


async def drive_async(steps: Generator[R, Any, T], perform: Callable[[R], Awaitable[Any]]) -> T:
    """Carry out *steps* where requests are waited for; see `drive`. A cancelled task leaves them as they are."""
    try:
        request = steps.send(None)
        while True:
            try:
                reply = await perform(request)
            except Exception as error:  # noqa: BLE001 (thrown on)
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as done:
        answer: T = done.value
        return answer


class Operations(ABC):
    """The operations of the contract on one engine, without I/O. Free of state, so that threads and tasks share it."""

    @abstractmethod
    def load(self, digest: bytes, now: float) -> Steps[Record | Missing]:
        """See `Driver.load`."""

    @abstractmethod
    def create(self, record: Record, now: float) -> Steps[Answer]:
        """See `Driver.create`."""

    @abstractmethod
    def commit(self, digest: bytes, delta: Delta, now: float) -> Steps[Answer]:
        """See `Driver.commit`."""

    @abstractmethod
    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        """See `Driver.rotate`."""

    @abstractmethod
    def revoke(self, digest: bytes, now: float) -> Steps[bool]:
        """See `Driver.revoke`."""

    @abstractmethod
    def revoke_user(self, user: str, now: float, keep: str | None) -> Steps[int]:
        """See `Driver.revoke_user`."""

    @abstractmethod
    def end(self, sids: Iterable[str], now: float, user: str | None) -> Steps[int]:
        """See `Driver.end`."""

    @abstractmethod
    def sessions_of(self, user: str, now: float) -> Steps[list[SessionInfo]]:
        """See `Driver.sessions_of`."""

    @abstractmethod
    def missing(self, sids: Iterable[str], now: float) -> Steps[set[str]]:
        """See `Driver.missing`."""

    @abstractmethod
    def sweep(self, now: float, limit: int, since: float) -> Steps[int]:
        """See `Driver.sweep`."""

    @abstractmethod
    def setup(self) -> Steps[None]:
        """See `Driver.setup`."""

    @abstractmethod
    def is_set_up(self) -> Steps[bool]:
        """See `Driver.is_set_up`."""

    @abstractmethod
    def tear_down(self) -> Steps[None]:
        """See `Driver.tear_down`."""


class SteppedDriver(Driver):
    """A synchronous driver of `Operations`. A subclass says how one of them is carried out."""

    _operations: Operations

    @abstractmethod
    def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        """Carry out an operation; *begin* starts it, and starts it anew where it has to be done again."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self._carry_out("load", partial(self._operations.load, digest, now))

    def create(self, record: Record, now: float) -> Answer:
        return self._carry_out("create", partial(self._operations.create, record, now))

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self._carry_out("commit", partial(self._operations.commit, digest, delta, now))

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self._carry_out("rotate", partial(self._operations.rotate, old, new, delta, grace, now))

    def revoke(self, digest: bytes, now: float) -> bool:
        return self._carry_out("revoke", partial(self._operations.revoke, digest, now))

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self._carry_out("revoke_user", partial(self._operations.revoke_user, user, now, keep))

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return self._carry_out("end", partial(self._operations.end, list(sids), now, user))

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self._carry_out("sessions_of", partial(self._operations.sessions_of, user, now))

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return self._carry_out("missing", partial(self._operations.missing, list(sids), now))

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return self._carry_out("sweep", partial(self._operations.sweep, now, limit, since))

    def setup(self) -> None:
        self._carry_out("setup", self._operations.setup)

    def is_set_up(self) -> bool:
        return self._carry_out("is_set_up", self._operations.is_set_up)

    def tear_down(self) -> None:
        self._carry_out("tear_down", self._operations.tear_down)


class AsyncSteppedDriver(AsyncDriver):
    """An asynchronous driver of `Operations`. A subclass says how one of them is carried out."""

    _operations: Operations

    @abstractmethod
    async def _carry_out(self, operation: str, begin: Callable[[], Steps[T]]) -> T:
        """Carry out an operation; *begin* starts it, and starts it anew where it has to be done again."""

    async def load(self, digest: bytes, now: float) -> Record | Missing:
        return await self._carry_out("load", partial(self._operations.load, digest, now))

    async def create(self, record: Record, now: float) -> Answer:
        return await self._carry_out("create", partial(self._operations.create, record, now))

    async def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return await self._carry_out("commit", partial(self._operations.commit, digest, delta, now))

    async def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return await self._carry_out("rotate", partial(self._operations.rotate, old, new, delta, grace, now))

    async def revoke(self, digest: bytes, now: float) -> bool:
        return await self._carry_out("revoke", partial(self._operations.revoke, digest, now))

    async def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return await self._carry_out("revoke_user", partial(self._operations.revoke_user, user, now, keep))

    async def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return await self._carry_out("end", partial(self._operations.end, list(sids), now, user))

    async def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return await self._carry_out("sessions_of", partial(self._operations.sessions_of, user, now))

    async def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return await self._carry_out("missing", partial(self._operations.missing, list(sids), now))

    async def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return await self._carry_out("sweep", partial(self._operations.sweep, now, limit, since))

    async def setup(self) -> None:
        await self._carry_out("setup", self._operations.setup)

    async def is_set_up(self) -> bool:
        return await self._carry_out("is_set_up", self._operations.is_set_up)

    async def tear_down(self) -> None:
        await self._carry_out("tear_down", self._operations.tear_down)
