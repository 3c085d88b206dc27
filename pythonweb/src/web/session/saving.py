"""How the changes of one request's session last: alone, or with the application's own rows."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import coatcheck
from coatcheck import CoatcheckError, DriverUnavailable
from coatcheck.adapter import Exchange, Saved, Savepoint
from coatcheck.record import REPLY_TIME
from web.session.cookies import Cookies
from web.session.drivers import Driver
from web.session.expiry import Ending, just_before

__all__ = ["SWEEP_LIMIT", "Saving", "Task"]

Task = Callable[[coatcheck.Driver, float], Any]
"""A change of another session, which must be repeated if its transaction was rolled back."""

SWEEP_LIMIT: Final = 100
"""How many sessions one sweep removes at most."""

_log: Final = logging.getLogger("web.session")


class Saving(Cookies):
    """What a `Manager` does to make its changes last.

    Attributes:
        autocommit: True commits the connection after each change, if nothing else uses it.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        path: str,
        domain: str,
        maxAge: int | None,  # noqa: N803 (as in 2005)
        environ: dict[str, Any] | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(driver, path=path, domain=domain, maxAge=maxAge, environ=environ, clock=clock)
        self.autocommit = False
        self._exchange: Exchange | None = None
        self._left: list[Exchange] = []  # used in this request before the present one, and maybe unsaved
        self._destroyed: list[bytes] = []  # digests whose sessions this request ended
        self._endings: list[Ending] = []
        self._saved = Saved()
        self._flushed = False  # the changes stand in a transaction of which it is not known whether it lasts
        self._before = Saved()  # what `_saved` was before that
        self._mark: object = None  # by which that transaction is known again
        self._savepoints: list[Savepoint] = []
        self._tasks: list[Task] = []
        self._done: list[Task] = []  # tasks in a transaction that is still open
        if driver.connection is not None:
            driver.connection.addHook(self)

    @property
    def exchange(self) -> Exchange | None:
        """The request with its present session, for the middleware; None before the first use."""
        return self._exchange

    def _switch(self, exchange: Exchange | None) -> None:
        """Go on with another session; what the request did to the one so far is saved too."""
        if self._exchange is not None and not self._exchange.begun:  # what is made and not stored is simply not made
            self._left.append(self._exchange)
        self._exchange = exchange
        self._by_hand = None

    def _ending(self, exchange: Exchange) -> Ending:
        for ending in self._endings:
            if ending.exchange is exchange:
                return ending
        self._endings.append(Ending(exchange))
        return self._endings[-1]

    def _do(self, task: Task) -> Any:
        done = task(self.driver.core, self._core.clock())
        connection = self.driver.connection
        if connection is not None:
            self._done.append(task)
            self._note_flush()
            self._mark_transaction(connection)
            self._changed()
        return done

    def _note_flush(self) -> None:
        if not self._flushed:
            self._flushed, self._before = True, self._saved

    def _mark_transaction(self, connection: Any) -> None:
        if connection.inTransaction:
            self._mark = connection.mark()

    def _changed(self) -> None:
        """Save at once if nothing else will: in a CGI script, with storage or a connection of its own."""
        if self._wsgi or (self._exchange is not None and self._exchange.ended):
            return  # nothing is kept of a session that was ended, and a save would take its values from the script
        if self.driver.connection is None:
            self.save()
        elif self.autocommit:
            self.driver.connection.commit()

    def save(self) -> Saved:
        """Write what changed. Only a CGI script with storage of its own, which changed a value in place, needs it."""
        for exchange in self._exchanges():
            if exchange.ended and not exchange.ending:  # nothing of it is stored any more
                continue
            if exchange.begun:
                self._hold_others_back()
            late = self._clock.as_of = self._when_alive(exchange)
            try:
                saved = exchange.save(readable=True)
            finally:
                self._clock.as_of = None
            cookie = saved.set_cookie
            if cookie is not None and exchange.token is not None and (self._max_age or late):
                cookie = exchange.cookie(self._lifetime(exchange))
            self._saved = Saved(cookie or self._saved.set_cookie, vary=saved.vary)
        if self.driver.connection is None:
            self._note_endings()
        return self._saved

    def _note_endings(self) -> None:
        for ending in self._endings:
            ending.lasts()

    def _hold_others_back(self) -> None:
        """Have requests that bring the token of a session that is replaced count as late for some time more.

        Programs log in by destroying a session and creating another. The browser may send the old token until it has
        the answer, and a cookie for such a request could arrive after that of the log-in.
        """
        for digest in self._destroyed:
            self.driver.core.revoke(digest, self._core.clock() + REPLY_TIME)

    def _when_alive(self, exchange: Exchange) -> float | None:
        """Return a moment at which a session that has expired meanwhile was alive, if `setExpire` gave it a new end.

        As of that moment the new end is saved: the application asked for it, and the 2005 interface grants it.
        """
        info, deadline, now = exchange.info, exchange.deadline, self._core.clock()
        if info is None or info.expires > now or deadline is None or deadline <= now:
            return None
        return just_before(info.expires)

    def _exchanges(self) -> Iterator[Exchange]:
        yield from self._left
        if self._exchange is not None:
            yield self._exchange

    def _is_pending(self) -> bool:
        return bool(self._tasks or self._done) or any(exchange.pending for exchange in self._exchanges())

    # -- the application's transaction --------------------------------------------------------------------------

    def before_commit(self, connection: Any) -> None:
        """Write the changes into the application's transaction, so that they land together with its rows."""
        self._recover(connection)
        if not self._is_pending():
            return
        self._note_flush()
        for exchange in self._exchanges():
            if not any(savepoint.is_of(exchange) for savepoint in self._savepoints):
                self._savepoints.append(exchange.savepoint())
        try:
            self.save()
            while self._tasks:
                self._tasks[0](self.driver.core, self._core.clock())
                self._done.append(self._tasks.pop(0))
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self._mark_transaction(connection)
            raise
        self._mark_transaction(connection)

    def after_commit(self, connection: Any) -> None:  # noqa: ARG002 (the hook's form)
        """Record that the transaction lasts."""
        for savepoint in self._savepoints:
            savepoint.release()
        self._note_endings()
        self._savepoints.clear()
        self._done.clear()
        self._flushed = False

    def after_rollback(self, connection: Any) -> None:  # noqa: ARG002 (the hook's form)
        """Record that the transaction did not last: what was written in it is pending again."""
        if self._flushed:
            self._flushed, self._saved = False, self._before
        for savepoint in self._savepoints:
            savepoint.rollback()
        for ending in self._endings:
            ending.undone()
        self._savepoints.clear()
        self._tasks = [*self._done, *self._tasks]
        self._done.clear()

    def _recover(self, connection: Any) -> None:
        """Find out whether a transaction has ended without notice, and its changes with it."""
        if not self._flushed:
            return
        if connection.holds(self._mark):
            self._mark_transaction(connection)
        else:
            self.after_rollback(connection)

    def finish(self, *, finished: bool) -> Saved:
        """Save what no commit covered, for the middleware.

        Args:
            finished: True if nothing of the application runs any more. Before, an open transaction is the
                application's, and the changes wait for its commit or for the end.
        """
        connection = self.driver.connection
        if connection is None:
            return self.save()
        if not self._flushed and not self._is_pending():
            return self._saved
        self._recover(connection)
        if connection.inTransaction:
            if not finished:
                return Saved(self._promised() or self._saved.set_cookie, vary=True)
            connection.rollback()  # the application has finished without a commit of its rows
        try:
            connection.commit()  # with the changes, by before_commit
        except CoatcheckError:
            connection.rollback()
            raise
        except Exception as error:
            connection.rollback()
            raise DriverUnavailable(self.driver.core.name, "commit", "the database refused the commit") from error
        return self._saved

    def sweep(self) -> None:
        """Remove some expired sessions. Nothing depends on it, so a failure is logged and goes no further.

        A connection of the application is left alone while a transaction is open on it.
        """
        connection = self.driver.connection
        if connection is None:
            self._core.sweep()
        elif not connection.closed and not connection.inTransaction:
            # Past the hooks: what a failed request changed must not be saved on this occasion.
            base = connection.baseConnection
            try:
                self.driver.core.sweep(self._core.clock(), SWEEP_LIMIT)
                base.commit()
            except Exception:  # noqa: BLE001 (each database has errors of its own)
                _log.warning("could not sweep expired sessions", exc_info=True)
                with contextlib.suppress(Exception):  # if that fails too, the pool notices it
                    base.rollback()
