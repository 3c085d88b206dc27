"""One call of an operation: how long it may take, and what a failure of it means. No I/O."""

from __future__ import annotations

import time
from typing import Final

from coatcheck._pause import drawn
from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers.sql.dialect import Dialect, Trouble
from coatcheck.drivers.sql.pool import PoolBusy
from coatcheck.drivers.sql.statement import Again, Statement
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable

__all__ = ["Attempt", "TablesMissing", "trouble_of"]

MOST_TRIES: Final = 12
"""How often a transaction is begun that others make give way."""

LONGEST_PAUSE: Final = 0.1
FIRST_PAUSE: Final = 0.002


class TablesMissing(Exception):
    """A table or a column is not there. Its cause is the client library's error."""


def trouble_of(error: BaseException, dialect: Dialect) -> Trouble:
    """Say what an error means, of the client library or of the operating system."""
    if isinstance(error, dialect.errors):
        return dialect.trouble(error)
    return Trouble.LOST if isinstance(error, OSError) else Trouble.OTHER


class Attempt:
    """One call of an operation on connections of our own, with all its tries.

    Args:
        operation: The operation of the contract.
        dialect: The server.
        breaker: What is known of the server.
        place: What names the server, without a password.
        timeout: How many seconds it may take in all.

    Attributes:
        deadline: When it has to be over, by the monotonic clock.
        is_waiting: True while it waits for a connection to come free.
        is_reused: True while it uses a connection that was idle before.

    Raises:
        DriverUnavailable: The server is known to be down.
    """

    def __init__(self, operation: str, dialect: Dialect, breaker: Breaker, place: str, timeout: float) -> None:
        breaker.check(operation)
        self._operation: Final = operation
        self._dialect: Final = dialect
        self._breaker: Final = breaker
        self._place: Final = place
        self._timeout: Final = timeout
        self.deadline: Final = time.monotonic() + timeout
        self.is_waiting = True
        self.is_reused = False
        self._commits = False
        self._tries = 0
        self._was_lost = False

    def sends(self, statement: Statement) -> None:
        """Note that *statement* is sent. From then on until `answered`, a write may be done unknown to us."""
        self._commits = statement.commits or statement.alone

    def answered(self) -> None:
        """Note that the answer to the last statement came."""
        self._commits = False

    def begins(self) -> None:
        """Note that everything is done from the beginning."""
        self._commits = False
        self.is_waiting = True
        self.is_reused = False

    def failed(self, error: Exception) -> float:
        """Give the seconds after which to try once more, or raise what the caller is to see.

        Args:
            error: `Again`, `PoolBusy`, or an error of the client library or of the operating system.

        Raises:
            DriverUnavailable: It failed.
            TablesMissing: A table or column is not there.
        """
        if isinstance(error, PoolBusy) or (self.is_waiting and isinstance(error, TimeoutError)):
            raise self._unavailable(
                f"all connections to {self._place} were in use for {self._timeout:g} s:"
                " raise max_connections= in the URL"
            ) from error
        self._tries += 1
        if isinstance(error, Again):
            return self._pause(error, "other requests changed the session again and again")
        trouble = trouble_of(error, self._dialect)
        if trouble is Trouble.MISSING:
            raise TablesMissing from error
        said = self._said(error)
        if trouble is Trouble.CLASH:
            return self._pause(error, said)
        if trouble is Trouble.LOST:
            is_late = isinstance(error, TimeoutError) or time.monotonic() >= self.deadline
            if self.is_reused and not (self._commits or self._was_lost or is_late):
                self._was_lost = True  # an idle connection that the server had closed; nothing is done yet
                return 0.0
            self._breaker.failed()
            if is_late:
                said = f"no answer from {self._place} within {self._timeout:g} s"
            elif isinstance(error, self._dialect.errors):
                said = f"{self._place}: {said}"
            raise self._unavailable(said, outcome_unknown=self._commits) from error
        raise self._unavailable(said) from error

    def _pause(self, error: Exception, said: str) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._tries)
        pause = drawn(longest)
        if self._tries >= MOST_TRIES or time.monotonic() + pause >= self.deadline:
            raise self._unavailable(f"{said}; given up after {self._tries} tries") from error
        return pause

    def _said(self, error: Exception) -> str:
        if isinstance(error, self._dialect.errors):
            return self._dialect.said(error)
        return f"{self._place}: {error}"

    def _unavailable(self, why: str, *, outcome_unknown: bool = False) -> CoatcheckError:
        return DriverUnavailable(self._dialect.name, self._operation, why, outcome_unknown=outcome_unknown)

    def without_tables(self) -> CoatcheckError:
        """Give the error to raise where the tables are not there."""
        return tables_missing(self._dialect, self._place)


def tables_missing(dialect: Dialect, place: str) -> ConfigurationError:
    """Give the error to raise where the tables are not there, or not as they should be."""
    prefix = f" with the prefix {dialect.prefix!r}" if dialect.prefix else ""
    return ConfigurationError(
        f"the session tables{prefix} are not in {place}: make them with `coatcheck init URL`, or call setup()"
    )
