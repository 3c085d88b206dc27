"""The Manager of one request's session, as the 2005 interface has it."""

# ruff: noqa: N802, N803, FBT001, FBT002, A002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import coatcheck
from coatcheck import DriverUnavailable
from coatcheck.adapter import Exchange, Token
from coatcheck.record import NEVER, Missing, Reason, Record
from web.session.drivers import Driver
from web.session.errors import SessionError, SessionWarning
from web.session.expiry import EndTime, bounded, set_deadline
from web.session.saving import SWEEP_LIMIT, Saving, Task
from web.session.store import Store

__all__ = ["Manager"]


class Manager(Saving):
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
        used: True once this request asked for a session, so that the response depends on the cookie.
        closedHeaders: True once the response's headers are out, so that no cookie can be sent any more.
        autocommit: True commits the connection after each change, if nothing else uses it.
    """

    def __init__(  # noqa: PLR0913 (the parameters of `web.session.manager`)
        self,
        driver: Driver,
        *,
        expire: float = 86400,
        path: str = "/",
        domain: str = "",
        comment: str = "",
        maxAge: int | None = None,
        seed: object = None,
        cleanupProbability: float = 0.05,
        environ: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_expire("session manager", expire)
        super().__init__(driver, path=path, domain=domain, maxAge=maxAge, environ=environ, clock=clock)
        self.expire = expire
        self.seed = seed
        self.cleanupProbability = cleanupProbability
        self.cookie = {"path": path, "domain": domain, "comment": comment, "max-age": maxAge}
        self.used = False
        self._created = False
        self._error: str | None = None
        self._missed: Exchange | None = None  # the last load that found no session
        self._ended = False
        self._planned_end = NEVER  # of the session that this request made last

    def __repr__(self) -> str:
        return f"<session manager of environment {self.driver.environment!r}>"

    # -- the session of this request ----------------------------------------------------------------------------

    def _exchange_of(self, what: str) -> Exchange:
        """Return the request with its session; under the middleware the first use loads or makes it."""
        if self._exchange is None and self._wsgi:
            self.loadOrCreate()
        if self._exchange is None or self._ended:
            how = "destroyed" if self._ended else "neither loaded nor created"
            raise SessionError(f"{what}: the session is {how}: call create()" + ("" if self._ended else " or load()"))
        self._exchange.use()
        return self._exchange

    def loadOrCreate(self) -> None:
        """Load the session of the request's cookie, or make one: what the first use does under the middleware."""
        if self.load():
            return
        exchange = self._missed
        assert exchange is not None  # noqa: S101 (the load above)
        if not exchange.ended and not self.closedHeaders:
            self._create(exchange, sends=True)
            return
        # The session was ended while this request ran, or there is no way left to tell the client of a new one. What
        # this request does from here on is not stored, and it sets no cookie: it would take the place of a newer one.
        self._switch(exchange)
        self._begin(exchange, stored=False)
        self._created = True
        self._exchange_of("loadOrCreate")

    @property
    def sessionID(self) -> str | None:
        """The session's identifier, 32 characters: the secret in the cookie. None before `load` or `create`."""
        if self._ended or (self._exchange is None and not self._wsgi):
            return None
        token = self._exchange_of("sessionID").token
        return None if token is None else token.secret

    @property
    def created(self) -> bool:
        """True when this request made the session."""
        if self._wsgi and not self._ended:
            self._exchange_of("created")
        return self._created

    @property
    def error(self) -> str | None:
        """Why the load failed, or None."""
        if self._wsgi and not self._ended:
            self._exchange_of("error")
        return self._error

    @property
    def expireTime(self) -> EndTime:
        """The moment at which the session ends, in seconds since the epoch; see `setExpire` for what adds to it."""
        exchange = self._exchange_of("expireTime")
        return self._ending(exchange).time(self._end(exchange))

    def _end(self, exchange: Exchange) -> float:
        return self._planned_end if exchange.ended and exchange.info is None else exchange.expires

    def load(self, sessionID: str | None = None) -> bool:
        """Load a session.

        Args:
            sessionID: Its identifier; without one, the one in the request's cookie.

        Returns:
            True if it exists and is valid; otherwise `error` has the reason.

        Raises:
            DriverUnavailable: Storage failed. The session may exist.
        """
        exchange = self._open("" if sessionID is not None and not isinstance(sessionID, str) else sessionID)
        own = self._own(exchange.sent)
        self.used = True
        if own is not None and own.info is None and not own.ended:
            self._error = None
            return True  # it was made in this request and is not stored yet
        _ = self.driver.core  # which raises an error if the request is over
        try:
            found = exchange.load()
            exchange.use()
        except DriverUnavailable:
            if self._exchange is None:
                self._exchange = exchange
            raise
        if found and exchange.token is not None and not self._was_ended(exchange.token):
            self._error = None
            if own is None or not _is_one(own.token, exchange.token):
                self._switch(exchange)
                self._created = self._ended = False
                self._prints = sessionID is None or sessionID == self.cookieSessionID()
            return True
        self._missed = exchange
        self._error = _why_not(sessionID is not None or bool(exchange.sent), exchange.reason)
        if own is not None:
            self._switch(None)
            self._created = False
        return False

    def _own(self, tokens: tuple[Token, ...]) -> Exchange | None:
        """Return the request with the session in use, if that is one of those that *tokens* open."""
        own = None if self._ended else self._exchange
        return own if own is not None and any(_is_one(own.token, token) for token in tokens) else None

    def _was_ended(self, token: Token) -> bool:
        """Return whether this request destroyed a session, even if that is still to be written."""
        return any(_is_one(each, token) for exchange in self._exchanges() for each in exchange.ending)

    def create(self, sendCookieHeaders: bool = True, expire: float | None = None) -> str:
        """Make a new session with a new identifier, and return it; a client's own is never taken over.

        Args:
            sendCookieHeaders: True prints the cookie in a CGI script; a middleware sends it either way.
            expire: The length of the session in seconds; default the manager's.

        Raises:
            SessionError: The response's headers are out, so that the cookie cannot be sent.
        """
        if expire is not None:
            _check_expire("create", expire)
            self.expire = expire
        answers = self._wsgi or (sendCookieHeaders and "REQUEST_METHOD" in self._environ)
        if answers and self.closedHeaders:
            raise SessionError("create: the response has started, so its cookie cannot be sent: create it before")
        _ = self.driver.core  # which raises an error if the request is over
        return self._create(Exchange(self._core, self._incoming, token=""), sends=sendCookieHeaders)

    def _create(self, exchange: Exchange, *, sends: bool) -> str:
        self._switch(exchange)
        self._created, self._ended, self.used = True, False, True
        token = self._begin(exchange)
        secrets = self._environ.get("web.error.secrets") if self._wsgi else None
        if isinstance(secrets, list):
            secrets.append(token.secret)  # no error page shows it
        if (cookie := exchange.cookie(self._lifetime(exchange))) is not None:
            self._append(cookie)
        self._prints = sends
        self._changed()
        if sends:
            self.sendCookieHeaders()
        return token.secret

    def _begin(self, exchange: Exchange, *, stored: bool = True) -> Token:
        self._planned_end = min(self._core.clock() + self.expire, NEVER)
        return exchange.begin(deadline=self._planned_end, stored=stored)

    def store(self, app: str) -> Store:
        """Return the values of an application: 1 to 255 characters of ``a-zA-Z0-9-_.``.

        Raises:
            SessionError: The name has another form.
        """
        return Store(self, app)

    def destroy(
        self, sessionID: str | None = None, sendCookieHeaders: bool = True, ignoreWarning: bool = False
    ) -> None:
        """End a session in every application that shares it, and delete the cookie if it is that of this request.

        Args:
            sessionID: Default: the session of this request.
            sendCookieHeaders: True prints the cookie's deletion in a CGI script; a middleware sends it either way.
            ignoreWarning: True for yes, do it.

        Raises:
            SessionWarning: Without *ignoreWarning*; nothing was done.
        """
        if not ignoreWarning:
            raise SessionWarning(
                "destroy ends the session for every application of its environment, including requests that are"
                " using it now: call destroy(ignoreWarning=True)"
            )
        if sessionID is not None and sessionID != self.sessionID:
            self._do(_revoking(self._token(sessionID).digest))
            return
        exchange = self._exchange_of("destroy")
        exchange.session.destroy()
        self._destroyed += [token.digest for token in exchange.ending]
        self._created = False
        self._by_hand = None
        self._ended = True
        self._append(exchange.deletion())
        self._changed()
        if sendCookieHeaders:
            self.sendCookieHeaders()

    def valid(self, sessionID: str | None = None) -> bool:
        """Return whether a session has not expired.

        Raises:
            SessionError: There is no such session.
        """
        if sessionID is None or sessionID == self.sessionID:
            exchange = self._exchange_of("valid")
            return not exchange.ended and self._end(exchange) > self._core.clock()
        answer = self._look(sessionID)
        if isinstance(answer, Missing) and answer.reason is not Reason.EXPIRED:
            raise SessionError("valid: there is no such session")
        return isinstance(answer, Record)

    def exists(self, sessionID: str | None = None) -> bool:
        """Return whether a session exists, expired or not."""
        if sessionID is None or sessionID == self.sessionID:
            if self._wsgi and not self._ended:
                self._exchange_of("exists")
            return self._exchange is not None and not self._exchange.ended and not self._ended
        answer = self._look(sessionID)
        return isinstance(answer, Record) or answer.reason is Reason.EXPIRED

    def setExpire(self, expireTime: float, sessionID: str | None = None) -> None:
        """Set the moment at which a session ends, in seconds since the epoch. Now or earlier ends it at once.

        `expireTime` and a number of seconds is a move: ``setExpire(expireTime + 5)`` in several requests at once makes
        the session longer by five seconds for each of them. Any other moment stands as it is, until the next change. A
        session that has expired and is still in storage lives on. The cookie's lifetime follows automatically.

        Args:
            expireTime: The moment.
            sessionID: Default: the session of this request.

        Raises:
            SessionError: There is no such session, or *expireTime* is no number.
        """
        moment = bounded(expireTime)
        if sessionID is not None and sessionID != self.sessionID:
            if not self._do(_limiting(self._token(sessionID).digest, moment)):
                raise SessionError("setExpire: there is no such session")
            return
        self._ending(self._exchange_of("setExpire")).set(expireTime)
        self._changed()
        self._renew_cookie()

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
        if not all(type(moment) in (int, float) for moment in (min, until)):
            raise SessionError("cleanup: min and max must be numbers of seconds since the epoch")
        if until > now and not ignoreWarning:
            raise SessionWarning(
                "cleanup: max is in the future, which would end live sessions: pass ignoreWarning=True to confirm"
            )
        self._do(_sweeping(min, until))

    # -- other sessions -----------------------------------------------------------------------------------------

    @staticmethod
    def _token(session_id: str) -> Token:
        token = _parsed(session_id)
        if token is None:
            raise SessionError("a session ID is 32 characters of A-Z a-z 0-9 - _")
        return token

    def _look(self, session_id: str) -> Record | Missing:
        token = _parsed(session_id)
        if token is None or self._was_ended(token):
            return Missing(Reason.UNKNOWN)
        return self.driver.core.load(token.digest, self._core.clock())


def _is_one(token: Token | None, other: Token) -> bool:
    return token is not None and token.digest == other.digest


def _parsed(session_id: object) -> Token | None:
    return Token.parse(session_id) if isinstance(session_id, str) else None


def _check_expire(what: str, seconds: object) -> None:
    if not (isinstance(seconds, int | float) and type(seconds) is not bool and seconds > 0):
        raise SessionError(f"{what}: expire must be a positive number of seconds")


def _why_not(asked: bool, reason: Reason | None) -> str:
    if not asked:
        return "no session ID: the request has no session cookie"
    return f"no such session: {reason or Reason.UNKNOWN}"


def _revoking(digest: bytes) -> Task:
    return lambda driver, now: driver.revoke(digest, now)


def _limiting(digest: bytes, moment: float) -> Task:
    return lambda driver, now: set_deadline(driver, digest, moment, now)


def _sweeping(since: float, until: float) -> Task:
    def sweep(driver: coatcheck.Driver, _now: float) -> None:
        while driver.sweep(until, SWEEP_LIMIT, since=since) >= SWEEP_LIMIT:
            pass

    return sweep
