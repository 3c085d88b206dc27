"""The cookie of one request's session, as the 2005 interface handles it."""

# ruff: noqa: N802, N803, FBT001, FBT002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from coatcheck import Codec, ConfigurationError, Policy, SessionManager
from coatcheck.adapter import Exchange, Incoming, Saved, Token
from coatcheck.record import Record
from web._printed import printed
from web.session.drivers import Driver
from web.session.errors import SessionError
from web.session.expiry import EndTime

__all__ = ["Cookies", "Header", "codec"]

Header = tuple[str, str]

codec: Final = Codec()
"""Turns values into bytes and back, for every session of the process: register an application's own types on it."""
codec.register(EndTime, "web.session.expireTime", float, float, immutable=True)


_log: Final = logging.getLogger("web.session")


@lru_cache(maxsize=1)
def warn_of_http() -> None:
    """Log once in a process what a proxy in front may make of cookies."""
    _log.warning(
        "session cookies are sent over plain http without Secure, so others in the network can read them. If a proxy in"
        " front terminates TLS, set environ['wsgi.url_scheme'] = 'https' for its requests: see 'Behind a proxy that"
        " terminates TLS' in docs/pythonweb.md"
    )


@lru_cache(maxsize=64)
def _policy(environment: str, path: str, domain: str, *, persistent: bool) -> Policy:
    try:
        return Policy(
            idle="never",
            absolute="never",
            cookie_name=environment,
            path=path,
            domain=domain or None,
            persistent=persistent,
            insecure_http=True,
            sweep_every=0,
        )
    except ConfigurationError as error:
        raise SessionError(f"session manager: {error}") from error


class _Sessions(SessionManager):
    """The core's manager. Plain http is usual here, so there is a warning of our own, and none in a script."""

    is_script = False

    def warn_of_http(self) -> None:
        if not self.is_script:
            warn_of_http()


class RequestClock:
    """The clock of one request's session.

    Attributes:
        as_of: A moment that counts as the present one, or None.
    """

    __slots__ = ("_clock", "as_of")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.as_of: float | None = None

    def __call__(self) -> float:
        """Return the present moment."""
        return self._clock() if self.as_of is None else self.as_of


class Cookies(ABC):
    """What a `Manager` does about cookies.

    Attributes:
        driver: The `Driver`.
        response_headers: The cookie headers for the response, as (name, value).
        sent_headers: Those already printed.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        path: str,
        domain: str,
        maxAge: int | None,
        environ: dict[str, Any] | None,
        clock: Callable[[], float],
    ) -> None:
        _check_max_age(maxAge)
        _check_text("path", path)
        _check_text("domain", domain)
        self.driver = driver
        self.response_headers: list[Header] = []
        self.sent_headers: list[Header] = []
        self._closed_headers = False
        self._max_age = maxAge
        self._wsgi = environ is not None
        self._environ: Mapping[str, Any] = os.environ if environ is None else environ
        self._incoming = Incoming.from_wsgi(dict(self._environ))
        policy = _policy(driver.environment, path, domain, persistent=maxAge != 0)
        self._clock = RequestClock(clock)
        self._began = clock()  # a session that ended after it ended while this request ran
        self._core = _Sessions(driver.core, policy, codec=codec, clock=self._clock)
        if not self._wsgi:
            self._core.is_script = True
            secure = str(self._environ.get("HTTPS", "")).lower() in ("on", "1", "true")
            self._incoming = self._incoming._replace(scheme="https" if secure else "http")
        self._request = Exchange(self._core, self._incoming)  # never loaded: what came, how cookies look
        self._by_hand: Callable[[], str | None] | None = None  # the cookie that the application asked for
        self._given: set[str] = set()  # cookies given to the application whose lifetime is the session's
        self._prints = True  # False if the script sends the cookie itself
        if not self._wsgi:
            printed()  # which looks for the end of the headers from now on

    @property
    @abstractmethod
    def exchange(self) -> Exchange | None:
        """The request with its present session, for the middleware; None before the first use."""

    @abstractmethod
    def _exchange_of(self, what: str) -> Exchange:
        """Return the request with its session, loaded or made if it was not used yet."""

    def _open(self, token: str | None) -> Exchange:
        """Return the request with the session that *token* opens, or its cookie does if that is None."""
        return Exchange(self._core, self._incoming, token=token, began=self._began)

    @property
    def closedHeaders(self) -> bool:
        """True once the response's headers are out, so that no cookie can be set any more."""
        return self._closed_headers or (not self._wsgi and printed().closed)

    @closedHeaders.setter
    def closedHeaders(self, closed: bool) -> None:
        self._closed_headers = closed

    def _lifetime(self, exchange: Exchange) -> float | None:
        if self._max_age == 0:
            return None
        return exchange.expires - self._core.clock() if self._max_age is None else self._max_age

    def _append(self, cookie: str) -> None:
        self._given.add(cookie)
        self.response_headers.extend(("Set-Cookie", each) for each in (*self._request.deletions(), cookie))

    def _promised(self) -> str | None:
        """Return the cookie of a session that is made but not saved yet."""
        exchange = self.exchange
        if exchange is None or exchange.ended:
            return None
        if exchange.token is None:
            return exchange.deletion() if exchange.ending else None
        if exchange.info is not None and exchange.deadline is None:
            return None
        return exchange.cookie(self._lifetime(exchange))

    def response_cookie(self, saved: Saved, foreign: str | None) -> str | None:
        """Return the one cookie to send.

        Args:
            saved: What the save came to.
            foreign: A cookie of the same name that the application put into its headers, or None.
        """
        exchange = self.exchange
        if exchange is not None and exchange.ended:
            return None
        asked = None if self._by_hand is None else self._by_hand()
        if asked is None and foreign is not None:
            asked = self._instead_of(foreign, exchange, saved)
        if asked is None or asked == saved.set_cookie:
            return saved.set_cookie
        return asked if saved.set_cookie is not None or self._is_live(exchange) else None

    def _instead_of(self, foreign: str, exchange: Exchange | None, saved: Saved) -> str | None:
        if foreign not in self._given:
            return self._completed(foreign)
        # This cookie was made here, and may be older than the session's present ID and end.
        if saved.set_cookie is not None or exchange is None or exchange.info is None:
            return None
        return self._written(exchange, None)

    def _is_live(self, exchange: Exchange | None) -> bool:
        """Return whether the session that this request only read is still there; if not, a cookie comes too late."""
        if exchange is None or exchange.info is None or exchange.token is None:
            return True
        return isinstance(self.driver.core.load(exchange.token.digest, self._core.clock()), Record)

    def _completed(self, cookie: str) -> str:
        """Return a cookie of the application's own making with the attributes that keep it safe."""
        named = {part.partition("=")[0].strip().lower() for part in cookie.split(";")[1:]}
        passed_over = {*named, "max-age", "expires"}
        wanted = self._request.deletion().split("; ")[1:]
        return "; ".join([cookie, *(part for part in wanted if part.partition("=")[0].lower() not in passed_over)])

    def _written(self, exchange: Exchange, max_age: int | None) -> str | None:
        """Write the session's cookie with a lifetime as in `setCookie`."""
        return exchange.cookie(self._lifetime(exchange) if max_age is None else max_age or None)

    def is_own_cookie(self, header: Header) -> bool:
        """Return whether a response header sets the session's cookie."""
        name, value = header
        return name.lower() == "set-cookie" and value.partition("=")[0].strip() == self._request.cookie_name

    def cookieSessionID(self, environ: Mapping[str, Any] | None = None, noSessionID: str = "") -> str:
        """Return the session ID in the request's cookie, unchecked, or *noSessionID* if there is none.

        Args:
            environ: The request's environment; default the manager's own.
            noSessionID: what to return instead.
        """
        request = self._request
        if environ is not None:
            header = environ.get("HTTP_COOKIE")
            cookies = () if header is None else (str(header),)
            request = Exchange(self._core, self._incoming._replace(cookies=cookies))
        return request.sent[0].secret if request.sent else noSessionID

    def sendCookieHeaders(self) -> None:
        """Print the cookie headers that were not printed yet, in a CGI script whose headers are not out yet.

        Under WSGI the middleware sends them.
        """
        if self._wsgi or self.closedHeaders:
            return
        for header in self.response_headers[len(self.sent_headers) :]:
            sys.stdout.write(f"{header[0]}: {header[1]}\n")
            self.sent_headers.append(header)

    def setCookie(self, maxAge: int | None = None, sendCookieHeaders: bool = False) -> None:
        """Append the session's cookie, with a lifetime of the application's choice, to `response_headers`.

        Args:
            maxAge: The lifetime in seconds: None for the manager's own, 0 until the browser closes.
            sendCookieHeaders: True prints it too, in a CGI script whose headers are not out yet.
        """

        def asked() -> str | None:
            return None if self.exchange is None else self._written(self.exchange, maxAge)

        self._set_by_hand(self._cookie_value(maxAge), asked, sendCookieHeaders)

    def setCookieString(self, maxAge: int | None = None) -> str:
        """Return the header line ``Set-Cookie: ...`` for the session, ready to be printed; see `setCookie`."""
        return f"Set-Cookie: {self._cookie_value(maxAge)}"

    def _cookie_value(self, max_age: int | None) -> str:
        _check_max_age(max_age)
        cookie = self._written(self._exchange_of("setCookieString"), max_age)
        if cookie is None:
            raise SessionError("setCookieString: there is no session: call create() or load()")
        if max_age is None:
            self._given.add(cookie)
        return cookie

    def deleteCookie(self, sendCookieHeaders: bool = False) -> None:
        """Append a header that deletes the session's cookie to `response_headers`; the session itself stays.

        Args:
            sendCookieHeaders: As for `setCookie`.
        """
        cookie = self._request.deletion()
        self._set_by_hand(cookie, lambda: cookie, sendCookieHeaders)

    def deleteCookieString(self) -> str:
        """Return the header line ``Set-Cookie: ...`` that deletes the session's cookie, ready to be printed."""
        return f"Set-Cookie: {self._request.deletion()}"

    def _set_by_hand(self, cookie: str, asked: Callable[[], str | None], send: bool) -> None:
        self._by_hand = asked
        self._append(cookie)
        if send:
            self.sendCookieHeaders()

    def _renew_cookie(self) -> None:
        """Send the cookie again in a CGI script, after the end of the session was changed."""
        exchange = self.exchange
        if self._wsgi or exchange is None or self._max_age == 0:
            return
        cookie = self._written(exchange, None) if self._by_hand is None else self._by_hand()
        if cookie is None:
            return
        self._append(cookie)
        if self._prints:
            self.sendCookieHeaders()

    def genSessionID(self, seed: object = None) -> str:  # noqa: ARG002 (accepted and not needed)
        """Draw a new session ID from the system's random number generator: 192 bits as 32 characters."""
        return Token.new().secret


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise SessionError(f"session manager: {name} must be a string")


def _check_max_age(value: object) -> None:
    if value is not None and (type(value) is not int or value < 0):
        raise SessionError("session manager: maxAge must be None or a whole number of seconds, not negative")
