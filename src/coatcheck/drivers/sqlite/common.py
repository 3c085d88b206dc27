"""What the two SQLite drivers have in common: the contract's operations, and rows that another program spoilt."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

from coatcheck.drivers.base import Driver
from coatcheck.drivers.sqlite.trouble import NAME
from coatcheck.drivers.sqlite.work import Run, SQLiteWork
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["SQLiteBase", "despite_text", "is_of_text"]

P = ParamSpec("P")
T = TypeVar("T")


class SQLiteBase(Driver):
    """The contract's operations, each as one call of `_read` or `_write`."""

    name: ClassVar[str] = NAME
    _work: SQLiteWork

    @abstractmethod
    def _read(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* outside a write transaction."""

    @abstractmethod
    def _write(self, operation: str, work: Callable[Concatenate[Run, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* in a write transaction, and undo it where the answer is a refusal."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self._read("load", self._work.load, digest, now)

    def create(self, record: Record, now: float) -> Answer:
        return self._write("create", self._work.create, record, now)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self._write("commit", self._work.commit, digest, delta, now)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self._write("rotate", self._work.rotate, old, new, delta, grace, now)

    def revoke(self, digest: bytes, now: float) -> bool:
        return self._write("revoke", self._work.revoke, digest, now)

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self._write("revoke_user", self._work.revoke_user, user, now, keep)

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return self._write("end", self._work.end, list(sids), now, user)

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self._read("sessions_of", self._work.sessions_of, user, now)

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return self._read("missing", self._work.missing, sids, now)

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        if limit <= 0 or not self._read("sweep", self._work.is_dirty, now):
            return 0  # the usual case takes no writer's time
        return self._write("sweep", self._work.sweep, now, limit, since)

    def tear_down(self) -> None:
        self._write("tear_down", self._work.tear_down)


def despite_text(connection: sqlite3.Connection, attempt: Callable[[], T]) -> T:
    """Make an attempt, and another where a row has text that is no UTF-8, which then has a type that nothing has.

    Only a spoilt row costs the slower decoding. The first attempt has to undo what it did.
    """
    try:
        return attempt()
    except sqlite3.OperationalError as error:
        if not is_of_text(error):
            raise
    connection.text_factory = _decoded
    try:
        return attempt()
    finally:
        connection.text_factory = str


def is_of_text(error: Exception) -> bool:
    """Check whether a row has text that is no UTF-8."""
    return isinstance(error, sqlite3.OperationalError) and "Could not decode" in str(error)


def _decoded(data: bytes) -> str | bytearray:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return bytearray(data)  # neither text nor the bytes of a value
