"""The sessions on a connection of `web.database`, in the application's transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, TypeVar

import coatcheck
from coatcheck.drivers.base import Driver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["on_connection"]

T = TypeVar("T")

# The drivers whose statements are used. Where their URLs lead does not matter: nothing is ever opened there.
_LENDERS: Final = {
    "mysql": "mariadb://nobody@localhost/nowhere",
    "postgresql": "postgresql://localhost/nowhere",
}


def on_connection(connection: Any, environment: str) -> Driver:
    """Return the core's driver on a connection of `web.database`.

    Args:
        connection: The connection.
        environment: The name of the environment.
    """
    adapter = connection.adapter if connection.adapter in _LENDERS else "sqlite"  # which has another name of 2005
    borrowed = _lender(adapter, environment).borrow(connection.baseConnection)
    return _Tidy(borrowed, connection) if adapter == "postgresql" else borrowed


@lru_cache(maxsize=64)
def _lender(adapter: str, environment: str) -> Driver:
    prefix = f"{environment}_"
    if adapter == "sqlite":
        return SQLiteDriver("the application's database", prefix=prefix)
    return coatcheck.driver(f"{_LENDERS[adapter]}?prefix={prefix}")


class _Tidy(Driver):
    """Ends the transactions that its own reading begins.

    With PostgreSQL every statement begins one. One that only looked for the session would be taken for the
    application's, whose commit the session's changes wait for. With SQLite and MariaDB a transaction shows only after
    a write.
    """

    def __init__(self, driver: Driver, connection: Any) -> None:
        vars(self).update(name=driver.name, capabilities=driver.capabilities)
        self._driver: Final = driver
        self._connection: Final = connection

    def _look(self, call: Callable[[], T]) -> T:
        if self._connection.inTransaction:
            return call()
        try:
            return call()
        finally:
            with contextlib.suppress(Exception):  # the next use of a broken connection reports it
                self._connection.baseConnection.rollback()  # past the hooks: nothing of theirs is in it

    def load(self, digest: bytes, now: float) -> Record | Missing:
        return self._look(lambda: self._driver.load(digest, now))

    def create(self, record: Record, now: float) -> Answer:
        return self._driver.create(record, now)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        return self._driver.commit(digest, delta, now)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return self._driver.rotate(old, new, delta, grace, now)

    def revoke(self, digest: bytes, now: float) -> bool:
        return self._driver.revoke(digest, now)

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        return self._driver.revoke_user(user, now, keep=keep)

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return self._driver.end(sids, now, user=user)

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return self._look(lambda: self._driver.sessions_of(user, now))

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        return self._look(lambda: self._driver.missing(sids, now))

    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        return self._driver.sweep(now, limit, since=since)

    def setup(self) -> None:
        self._driver.setup()

    def is_set_up(self) -> bool:
        return self._look(self._driver.is_set_up)

    def tear_down(self) -> None:
        self._driver.tear_down()

    def close(self) -> None:
        """Do nothing: the connection is the application's."""
