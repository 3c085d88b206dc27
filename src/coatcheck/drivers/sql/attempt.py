"""One call of an operation: how long it may take, and what a failure of it means. No I/O."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from coatcheck._pause import drawn
from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers._pool import PoolBusy
from coatcheck.drivers.sql.dialect import Dialect, Trouble
from coatcheck.drivers.sql.statement import Again, Statement
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable

__all__ = ["Attempt", "TablesMissing", "trouble_of"]

MOST_TRIES: Final = 12
"""How often a transaction is begun that others make give way."""

LONGEST_BACKOFF: Final = 0.1
FIRST_BACKOFF: Final = 0.002

SHORT_SILENCE: Final = 0.1
"""The part of an operation's limit that has to go by without an answer before it says that the server is down."""


class TablesMissing(Exception):
    """A table or a column is not there. Its cause is the client library's error."""


def trouble_of(error: BaseException, dialect: Dialect) -> Trouble:
    """Return what an error means, of the client library or of the operating system."""
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
        is_inside: True while its transaction is open.

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
        self.is_inside = False
        self._sent = self.deadline
        self._commits = False
        self._tries = 0
        self._was_lost = False
        self._was_refused = False
        self._waits = False  # for a lock, maybe
        self._patience = 0.0

    def sends(self, statements: Sequence[Statement]) -> None:
        """Record that *statements* are sent. From then on until `answered`, a write may be done unknown to us."""
        self._commits = statements[-1].is_final
        self.is_inside = self.is_inside or statements[0].begins
        self._waits = statements[-1].alone or self.is_inside
        self._sent = time.monotonic()

    def answered(self) -> None:
        """Record that the answers came."""
        self._commits = False

    def check_over(self, *, is_clean: bool) -> None:
        """Check that no transaction is open after a statement that commits.

        Raises:
            DriverUnavailable: One is, and what was written is not committed.
        """
        if not is_clean:
            raise self._unavailable(
                "the server left a transaction open after a statement that commits, and nothing was written: see which"
                " setting or which proxy turns autocommit off on its connections"
            )

    def failed_with(self, patience: float) -> None:
        """Record that the last statement failed, on a connection whose server waits *patience* seconds for a lock."""
        self._patience = patience

    def begins(self) -> None:
        """Record that everything is done from the beginning."""
        self._commits = False
        self.is_waiting = True
        self.is_reused = False
        self.is_inside = False
        self._waits = False

    def entered(self) -> None:
        """Record that a place in the pool is free: from now on the server is asked, to open a connection at first."""
        self.is_waiting = False
        self._sent = time.monotonic()

    def casts_doubt(self, error: BaseException) -> bool:
        """Check whether the other connections may be as useless as the one on which *error* came."""
        if isinstance(error, asyncio.CancelledError):  # by the limit, or by somebody else
            return time.monotonic() >= self.deadline
        return isinstance(error, (OSError, *self._dialect.errors)) and (
            trouble_of(error, self._dialect) in {Trouble.LOST, Trouble.READ_ONLY}
        )

    def failed(self, error: Exception) -> float:
        """Return the seconds after which to try once more, or raise what the caller is to see.

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
        if trouble is Trouble.READ_ONLY and not self._was_refused:
            self._was_refused = (
                True  # nothing is done, and a new connection may lead to the server that is the primary now
            )
            return 0.0
        if trouble is Trouble.LOST:
            return self._lost(error, said)
        raise self._unavailable(said) from error

    def _lost(self, error: Exception, said: str) -> float:
        is_late = isinstance(error, TimeoutError) or time.monotonic() >= self.deadline
        if self.is_reused and not (self._commits or self._was_lost or is_late):
            self._was_lost = True  # an idle connection that the server had closed; nothing is done yet
            return 0.0
        # An old connection that is lost says nothing of the server: the next one is opened anew, and does.
        if not self.is_reused and not (is_late and self._is_quiet_for_a_reason()):
            self._breaker.failed()
        if is_late:
            said = f"no answer from {self._place} within {self._timeout:g} s"
        elif isinstance(error, self._dialect.errors):
            said = f"{self._place}: {said}"
        raise self._unavailable(said, outcome_unknown=self._commits) from error

    def _is_quiet_for_a_reason(self) -> bool:
        """Check whether the server was silent for less time than it waits for a lock, or had none to answer in."""
        silence = time.monotonic() - self._sent
        return silence < self._timeout * SHORT_SILENCE + (self._patience if self._waits else 0.0)

    def _pause(self, error: Exception, said: str) -> float:
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**self._tries)
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
        """Return the error to raise where the tables are not there."""
        return tables_missing(self._dialect, self._place)


def tables_missing(dialect: Dialect, place: str) -> ConfigurationError:
    """Return the error to raise where the tables are not there, or not as they should be."""
    prefix = f" with the prefix {dialect.prefix!r}" if dialect.prefix else ""
    return ConfigurationError(
        f"the session tables{prefix} are not in {place}, or are those of an older coatcheck: make them, or bring them"
        " up to date, with `coatcheck init URL` or setup(), which keeps what is stored"
    )
