"""The Manager of one request's session, as the 2005 interface has it."""

# ruff: noqa: N802, N803, FBT001, FBT002, A002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import coatcheck
from coatcheck import CoatcheckError, ConfigurationError, DriverUnavailable
from coatcheck.cookie import set_cookie
from coatcheck.plan import Saved, is_pending
from coatcheck.record import Delta, Missing, Reason, Record
from coatcheck.session import expiry, opened
from coatcheck.state import Mark, State
from coatcheck.token import Token
from web.session.cookies import Cookies
from web.session.drivers import Driver
from web.session.errors import SessionError, SessionWarning
from web.session.store import Store

__all__ = ["Manager"]

_Task = Callable[[coatcheck.Driver, float], Any]
"""Something done to another session, which has to be done again where the transaction it was in did not last."""

_SWEEP: Final = 100


class Manager(Cookies):
    """Loads, makes, keeps and ends the session of one request.

    Under the `web.wsgi.session.Session` middleware the first use loads the session or makes one; in a CGI script
    `load` and `create` do, as in 2005. On a `web.database` cursor the changes become durable with the connection's
    ``commit()``; on storage of their own, at once.

    Attributes:
        driver: The `Driver`.
        expire: The length of a new session in seconds.
        created: True when this request made the session.
        error: Why the load failed, or None.
        response_headers: The cookie headers for the response, as (name, value).
        sent_headers: Those already printed.
        autocommit: True commits the connection after each change, where nobody else holds it.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        expire: float = 86400,
        path: str = "/",
        domain: str = "",
        maxAge: int | None = None,
        environ: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if type(expire) not in (int, float) or expire <= 0:
            raise SessionError("session manager: expire must be a positive number of seconds")
        super().__init__(driver, path=path, domain=domain, maxAge=maxAge, environ=environ, clock=clock)
        self.expire = expire
        self._created = False
        self._error: str | None = None
        self.autocommit = False
        self._session: coatcheck.Session | None = None
        self._ended = False
        self._mark: tuple[State, Mark, Saved] | None = None
        self._saved = Saved()
        self._tasks: list[_Task] = []
        self._done: list[_Task] = []  # tasks in a transaction that is still open
        if driver.connection is not None:
            driver.connection.addHook(self)

    def __repr__(self) -> str:
        return f"<session manager of environment {self.driver.environment!r}>"

    # -- the session of this request ----------------------------------------------------------------------------

    def _session_of(self, what: str) -> coatcheck.Session:
        """Give the session; under the middleware the first use loads or makes it."""
        if self._session is None and self._wsgi and not self.load() and self._session is None:
            self.create()
        if self._session is None or self._ended:
            how = "destroyed" if self._ended else "neither loaded nor created"
            raise SessionError(f"{what}: the session is {how}: call create()" + ("" if self._ended else " or load()"))
        return self._session

    def _state(self, what: str) -> State:
        return opened(self._session_of(what))

    def _begin(self, token: Token | None) -> State:
        """Start with the session that *token* opens, if any."""
        cookies = () if token is None else (f"{self._cookie_name}={token.secret}",)
        self._session = self._core.open(cookies, self._channel)
        return opened(self._session)

    @property
    def sessionID(self) -> str | None:
        """The session's identifier, 32 characters: the secret in the cookie. None before `load` or `create`."""
        if self._session is None and (not self._wsgi or self._ended):
            return None
        token = self._state("sessionID").token
        return None if token is None else token.secret

    @property
    def created(self) -> bool:
        """True when this request made the session."""
        if self._wsgi and not self._ended:
            self._session_of("created")
        return self._created

    @property
    def error(self) -> str | None:
        """Why the load failed, or None."""
        if self._wsgi and not self._ended:
            self._session_of("error")
        return self._error

    @property
    def expireTime(self) -> float:
        """The moment at which the session ends, in seconds since the epoch."""
        return expiry(self._state("expireTime"))

    def load(self, sessionID: str | None = None) -> bool:
        """Load a session.

        Args:
            sessionID: Its identifier; without one, the one in the request's cookie.

        Returns:
            True where it exists and is valid; otherwise `error` says why not.

        Raises:
            DriverUnavailable: Storage failed, which says nothing about the session.
        """
        if sessionID is not None:
            token = Token.parse(sessionID)
            state = self._begin(token)
            state.load()
        else:
            self._session = self._core.open(self._cookies, self._channel)
            state = opened(self._session)
            token = state.token
            state.load()
        self._created = self._ended = False
        if state.record is not None:
            self._error = None
            return True
        self._error = _why_not(sessionID is not None or bool(state.candidates), state.reason)
        if state.dead:
            # Somebody just ended this session. What this request does from here on is kept by nobody, and it sets no
            # cookie: it may be late, and its cookie would take the place of a newer one.
            state.token = Token.new()
            self._created = True
        else:
            self._session = None
        return False

    def create(self, sendCookieHeaders: bool = True, expire: float | None = None) -> None:
        """Make a new session with a new identifier; a client's own is never taken over.

        Args:
            sendCookieHeaders: True prints the cookie in a CGI script; a middleware sends it either way.
            expire: The length of the session in seconds; default the manager's.
        """
        if expire is not None:
            if type(expire) not in (int, float) or expire <= 0:
                raise SessionError("create: expire must be a positive number of seconds")
            self.expire = expire
        # One that was destroyed is still to be ended in storage.
        state = opened(self._session) if self._ended and self._session is not None else self._begin(None)
        state.used = True
        state.wanted = True
        state.token = Token.new()
        state.deadline = state.opened + self.expire
        self._created, self._ended = True, False
        self._append(set_cookie(self._core.policy, self._channel, state.token.secret, self._lifetime(state)))
        self._changed()
        if sendCookieHeaders:
            self.sendCookieHeaders()

    def store(self, app: str) -> Store:
        """Give the values of an application: 1 to 255 characters of ``a-zA-Z0-9-_.``.

        Raises:
            SessionError: The name has another form.
        """
        try:
            coatcheck.Session(_no_state).store(app)
        except ConfigurationError as error:
            raise SessionError(str(error)) from error
        return Store(self, app)

    def destroy(
        self, sessionID: str | None = None, sendCookieHeaders: bool = True, ignoreWarning: bool = False
    ) -> None:
        """End a session in every application that shares it, and delete the cookie where it is this request's own.

        Args:
            sessionID: Default: the session of this request.
            sendCookieHeaders: True prints the cookie's deletion in a CGI script; a middleware sends it either way.
            ignoreWarning: True for yes, do it.

        Raises:
            SessionWarning: Without *ignoreWarning*; nothing was done.
        """
        if not ignoreWarning:
            raise SessionWarning(
                "destroy ends the session for every application of its environment, also for requests that are just"
                " using it: say destroy(ignoreWarning=True)"
            )
        if sessionID is not None and sessionID != self.sessionID:
            self._do(_revoking(self._token(sessionID).digest))
            return
        self._session_of("destroy").destroy()
        self._created = False
        self._by_hand = None
        self._ended = True
        self.response_headers.append(("Set-Cookie", self.deleteCookieString()))
        self._changed()
        if sendCookieHeaders:
            self.sendCookieHeaders()

    def valid(self, id: str | None = None) -> bool:
        """Tell whether a session has not expired.

        Raises:
            SessionError: There is no such session.
        """
        if id is None or id == self.sessionID:
            return expiry(self._state("valid")) > self._core.clock()
        answer = self._look(id)
        if isinstance(answer, Missing) and answer.reason is not Reason.EXPIRED:
            raise SessionError("valid: there is no such session")
        return isinstance(answer, Record)

    def exists(self, id: str | None = None) -> bool:
        """Tell whether a session exists, expired or not."""
        if id is None or id == self.sessionID:
            return self._session is not None or (self._wsgi and not self._ended)
        answer = self._look(id)
        return isinstance(answer, Record) or answer.reason is Reason.EXPIRED

    def setExpire(self, expireTime: float, sessionID: str | None = None) -> None:
        """Set the moment at which a session ends, in seconds since the epoch. Now or earlier ends it at once.

        The cookie's lifetime follows by itself.
        """
        if type(expireTime) not in (int, float):
            raise SessionError("setExpire: expireTime must be a number of seconds since the epoch")
        if sessionID is not None and sessionID != self.sessionID:
            self._do(_ending(self._token(sessionID).digest, expireTime))
            return
        session = self._session_of("setExpire")
        session.expire_at(expireTime)
        self._changed()

    def cleanup(self, min: float = 0, max: float | None = None, ignoreWarning: bool = False) -> None:
        """Remove the sessions that ended between two moments, in seconds since the epoch.

        Args:
            min: The earlier moment.
            max: The later one; default now.
            ignoreWarning: True allows a *max* in the future, which ends live sessions.

        Raises:
            SessionWarning: *max* is in the future, and *ignoreWarning* is not set; nothing was done.
        """
        now = self._core.clock()
        until = now if max is None else max
        if until > now and not ignoreWarning:
            raise SessionWarning(
                "cleanup: max is in the future, which would end live sessions: say ignoreWarning=True if you mean it"
            )
        self._do(_sweeping(min, until))

    # -- other sessions -----------------------------------------------------------------------------------------

    @staticmethod
    def _token(session_id: str) -> Token:
        token = Token.parse(session_id) if isinstance(session_id, str) else None
        if token is None:
            raise SessionError("a session ID is 32 characters of A-Z a-z 0-9 - _")
        return token

    def _look(self, session_id: str) -> Record | Missing:
        token = Token.parse(session_id) if isinstance(session_id, str) else None
        return Missing(Reason.UNKNOWN) if token is None else self.driver.core.load(token.digest, self._core.clock())

    def _do(self, task: _Task) -> None:
        task(self.driver.core, self._core.clock())
        if self.driver.connection is not None:
            self._done.append(task)

    @property
    def state(self) -> State | None:
        """What is known of the session, for the middleware; None before the first use."""
        return None if self._session is None else opened(self._session)

    # -- saving -------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Save at once where nobody else will: in a CGI script, on storage or a connection of its own."""
        if self._wsgi:
            return
        if self.driver.connection is None:
            self.save()
        elif self.autocommit:
            self.driver.connection.commit()

    def save(self) -> Saved:
        """Write what changed. Only a CGI script with storage of its own, which changed a value in place, needs it."""
        if self._session is not None:
            saved = self._core.save(self._session)
            self._saved = Saved(saved.set_cookie or self._saved.set_cookie, vary=saved.vary)
        return self._saved

    def before_commit(self, connection: Any) -> None:  # noqa: ARG002 (the hook's form)
        """Write the changes into the application's transaction, so that they land together with its rows."""
        if self._mark is None and self._session is not None:
            state = opened(self._session)
            self._mark = (state, state.mark(), self._saved)
        self.save()
        while self._tasks:
            task = self._tasks.pop(0)
            task(self.driver.core, self._core.clock())
            self._done.append(task)

    def after_commit(self, connection: Any) -> None:  # noqa: ARG002 (the hook's form)
        """Take note that the transaction lasts."""
        if self._mark is not None:
            self._mark[0].release()
            self._mark = None
        self._done.clear()

    def after_rollback(self, connection: Any) -> None:  # noqa: ARG002 (the hook's form)
        """Take note that the transaction did not last: what was written in it is pending again."""
        if self._mark is not None:
            state, mark, self._saved = self._mark
            state.restore(mark)
            self._mark = None
        self._tasks = [*self._done, *self._tasks]
        self._done.clear()

    def finish(self, *, finished: bool) -> Saved:
        """Save what no commit covered, for the middleware.

        Args:
            finished: True where nothing of the application runs any more. Before, an open transaction is the
                application's, and the changes wait for its commit or for the end.
        """
        if not self._is_pending():
            return self._saved
        connection = self.driver.connection
        if connection is None:
            return self.save()
        if connection.inTransaction:
            if not finished:
                return Saved(self._promised() or self._saved.set_cookie, vary=True)
            connection.rollback()  # the application is through and did not commit its rows: they are not ours to save
        try:
            connection.commit()  # with the changes, by before_commit
        except CoatcheckError:
            connection.rollback()
            raise
        except Exception as error:
            connection.rollback()
            raise DriverUnavailable(self.driver.core.name, "commit", "the database refused the commit") from error
        return self._saved

    def _is_pending(self) -> bool:
        if self._tasks or self._done:
            return True
        return self._session is not None and is_pending(opened(self._session), self._core.clock())

    def sweep(self) -> None:
        """Remove some expired sessions; a connection of the application must be out of its transaction."""
        connection = self.driver.connection
        if connection is None:
            self._core.sweep()
        elif not connection.inTransaction:
            self.driver.core.sweep(self._core.clock(), _SWEEP)
            connection.commit()


def _no_state() -> State:
    raise CoatcheckError("this session is for checking a name only")


def _why_not(asked: bool, reason: Reason | None) -> str:
    if not asked:
        return "no session ID: the request has no session cookie"
    return f"no such session: {reason or Reason.UNKNOWN}"


def _revoking(digest: bytes) -> _Task:
    return lambda driver, now: driver.revoke(digest, now)


def _ending(digest: bytes, moment: float) -> _Task:
    return lambda driver, now: driver.commit(digest, Delta(deadline=moment), now)


def _sweeping(since: float, until: float) -> _Task:
    def sweep(driver: coatcheck.Driver, _now: float) -> None:
        while driver.sweep(until, _SWEEP, since=since) >= _SWEEP:
            pass

    return sweep
