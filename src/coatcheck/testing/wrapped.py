"""A driver that wraps another driver, so that tests can act between a session and its storage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from coatcheck.drivers.base import Driver
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["OPERATIONS", "WRITES", "WrappedDriver"]

T = TypeVar("T")

WRITES: Final = frozenset({"create", "commit", "rotate", "revoke", "revoke_user", "end", "sweep", "setup", "tear_down"})
"""The operations that change what is stored."""

OPERATIONS: Final = WRITES | {"load", "sessions_of", "missing", "is_set_up"}
"""All operations that use the storage."""


class WrappedDriver(Driver):
    """Passes every operation on to another driver. A subclass overrides `pass_on`.

    Args:
        driver: The wrapped driver. This driver has the same name and capabilities.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # class attributes in other drivers; here each object has those of its own wrapped driver
        vars(self).update(name=driver.name, capabilities=driver.capabilities, rotation_bits=driver.rotation_bits)

    @property
    def at_risk(self) -> str | None:  # type: ignore[override]  # it is only read
        """The risk that the wrapped driver has detected."""
        return self._driver.at_risk

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:
        """Execute an operation.

        Args:
            operation: Its name, such as ``"commit"``.
            call: Executes it, and returns the answer of the wrapped driver.
        """
        raise NotImplementedError(operation)

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self.pass_on("load", lambda: self._driver.load(digest, now))

    def create(self, record: Record, now: float) -> Answer:
        return self.pass_on("create", lambda: self._driver.create(record, now))

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self.pass_on("commit", lambda: self._driver.commit(digest, delta, now))

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self.pass_on("rotate", lambda: self._driver.rotate(old, new, delta, grace, now))

    def revoke(self, digest: bytes, now: float) -> bool:
        return self.pass_on("revoke", lambda: self._driver.revoke(digest, now))

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self.pass_on("revoke_user", lambda: self._driver.revoke_user(user, now, keep=keep))

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return self.pass_on("end", lambda: self._driver.end(sids, now, user=user))

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self.pass_on("sessions_of", lambda: self._driver.sessions_of(user, now))

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return self.pass_on("missing", lambda: self._driver.missing(sids, now))

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return self.pass_on("sweep", lambda: self._driver.sweep(now, limit, since=since))

    def setup(self) -> None:
        self.pass_on("setup", self._driver.setup)

    def is_set_up(self) -> bool:
        return self.pass_on("is_set_up", self._driver.is_set_up)

    def tear_down(self) -> None:
        self.pass_on("tear_down", self._driver.tear_down)

    def takes(self, digest: bytes, sid: str | None) -> bool:
        return self._driver.takes(digest, sid)

    def advice(self) -> list[str]:
        return self._driver.advice()

    def close(self) -> None:
        """Close the wrapped driver."""
        self._driver.close()

    def borrow(self, connection: object) -> Driver:
        """Return the wrapped driver on *connection*, wrapped like this one. Both share faults, steps and counts."""
        lent = copy.copy(self)
        lent._driver = self._driver.borrow(connection)  # noqa: SLF001 (a copy of this one)
        return lent
