"""The cookie of one request's session, as the 2005 interface handles it."""

# ruff: noqa: N802, N803, FBT001, FBT002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final

from coatcheck import Codec, ConfigurationError, Policy, SessionManager
from coatcheck.cookie import Channel, channel_of, cookie_name, deletion, deletions_of_others, find, set_cookie
from coatcheck.outcome import Saved
from coatcheck.record import Record
from coatcheck.session import expiry
from coatcheck.state import State
from coatcheck.token import Token
from coatcheck.wsgi import request_origin
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


class Clock:
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
        policy = _policy(driver.environment, path, domain, persistent=maxAge != 0)
        self._clock = Clock(clock)
        self._began = clock()  # a session that ended after it ended while this request ran
        self._core = SessionManager(driver.core, policy, codec=codec, clock=self._clock)
        self._by_hand: Callable[[State | None], str | None] | None = None  # the cookie that the application asked for
        self._given: set[str] = set()  # cookies given to the application whose lifetime is the session's
        self._prints = True  # False where the script said that it sends the cookie itself
        if not self._wsgi:
            printed()  # which looks for the end of the headers from now on

    @property
    @abstractmethod
    def state(self) -> State | None:
        """What is known of the session, for the middleware; None before the first use."""

    @abstractmethod
    def _state(self, what: str) -> State:
        """Return what is known of the session, loaded or made where it was not used yet."""

    @property
    def closedHeaders(self) -> bool:
        """True once the response's headers are out, so that no cookie can be set any more."""
        return self._closed_headers or (not self._wsgi and printed().closed)

    @closedHeaders.setter
    def closedHeaders(self, closed: bool) -> None:
        self._closed_headers = closed

    @cached_property
    def _channel(self) -> Channel:
        if self._wsgi:
            channel = channel_of(self._core.policy, request_origin(dict(self._environ))[0])
            if channel is Channel.PLAIN:
                warn_of_http()
            return channel
        secure = str(self._environ.get("HTTPS", "")).lower() in ("on", "1", "true")
        return Channel.SECURE if secure else Channel.PLAIN

    @property
    def _cookie_name(self) -> str:
        return cookie_name(self._core.policy, self._channel)

    @property
    def _cookies(self) -> tuple[str, ...]:
        header = self._environ.get("HTTP_COOKIE")
        return () if header is None else (header,)

    def _lifetime(self, state: State) -> float | None:
        if self._max_age == 0:
            return None
        return expiry(state) - self._core.clock() if self._max_age is None else self._max_age

    @cached_property
    def _values(self) -> list[str]:
        """What the request's cookies of that name hold: several, where a browser has more than one."""
        return find(self._cookies, self._cookie_name)

    @property
    def _place(self) -> tuple[str, str]:
        _, host, path = request_origin(dict(self._environ))
        return host, path

    def deletions(self) -> tuple[str, ...]:
        """Return the cookie headers that have to go before one that sets or deletes the session's cookie."""
        if len(self._values) < 2:  # noqa: PLR2004 (several)
            return ()
        return deletions_of_others(self._core.policy, self._channel, *self._place)

    def _note_rivals(self, state: State) -> None:
        """Have a session that ends end the others whose cookies came too."""
        if len(self._values) > 1:
            state.rivals = tuple(token for token in map(Token.parse, self._values) if token is not None)

    def _append(self, cookie: str) -> None:
        self._given.add(cookie)
        self.response_headers.extend(("Set-Cookie", each) for each in (*self.deletions(), cookie))

    def _promised(self) -> str | None:
        """Return the cookie of a session that is made but not saved yet."""
        state = self.state
        if state is None or state.dead:
            return None
        if state.token is None:
            return self._deletion() if state.ended else None
        if state.record is not None and state.deadline is None:
            return None
        return set_cookie(self._core.policy, self._channel, state.token.secret, self._lifetime(state))

    def response_cookie(self, saved: Saved, foreign: str | None) -> str | None:
        """Return the one cookie to send.

        Args:
            saved: What the save came to.
            foreign: A cookie of the same name that the application put into its headers, or None.
        """
        state = self.state
        if state is not None and state.dead:
            return None
        asked = None if self._by_hand is None else self._by_hand(state)
        if asked is None and foreign is not None:
            asked = self._instead_of(foreign, state, saved)
        if asked is None or asked == saved.set_cookie:
            return saved.set_cookie
        return asked if saved.set_cookie is not None or self._is_live(state) else None

    def _instead_of(self, foreign: str, state: State | None, saved: Saved) -> str | None:
        if foreign not in self._given:
            return self._completed(foreign)
        # This cookie was made here, and may be older than the session's present ID and end.
        if saved.set_cookie is not None or state is None or state.record is None:
            return None
        return self._written(state, None)

    def _is_live(self, state: State | None) -> bool:
        """Return whether the session that this request only read is still there; if not, a cookie comes too late."""
        if state is None or state.record is None or state.token is None:
            return True
        return isinstance(self.driver.core.load(state.token.digest, self._core.clock()), Record)

    def _completed(self, cookie: str) -> str:
        """Return a cookie of the application's own making with the attributes that keep it safe."""
        named = {part.partition("=")[0].strip().lower() for part in cookie.split(";")[1:]}
        wanted = set_cookie(self._core.policy, self._channel, "", None).split("; ")[1:]
        return "; ".join([cookie, *(part for part in wanted if part.partition("=")[0].lower() not in named)])

    def _written(self, state: State, max_age: int | None) -> str | None:
        """Write the session's cookie with a lifetime as in `setCookie`."""
        if state.token is None:
            return None
        lifetime = self._lifetime(state) if max_age is None else max_age or None
        return set_cookie(self._core.policy, self._channel, state.token.secret, lifetime)

    def is_own_cookie(self, header: Header) -> bool:
        """Return whether a response header sets the session's cookie."""
        name, value = header
        return name.lower() == "set-cookie" and value.partition("=")[0].strip() == self._cookie_name

    def cookieSessionID(self, environ: Mapping[str, Any] | None = None, noSessionID: str = "") -> str:
        """Return the session ID in the request's cookie, unchecked, or *noSessionID* where there is none.

        Args:
            environ: The request's environment; default the manager's own.
            noSessionID: what to return instead.
        """
        header = (self._environ if environ is None else environ).get("HTTP_COOKIE")
        for value in find(() if header is None else (str(header),), self._cookie_name):
            if Token.parse(value) is not None:
                return value
        return noSessionID

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

        def asked(state: State | None) -> str | None:
            return None if state is None else self._written(state, maxAge)

        self._set_by_hand(self._cookie_value(maxAge), asked, sendCookieHeaders)

    def setCookieString(self, maxAge: int | None = None) -> str:
        """Return the header line ``Set-Cookie: ...`` for the session, ready to be printed; see `setCookie`."""
        return f"Set-Cookie: {self._cookie_value(maxAge)}"

    def _cookie_value(self, max_age: int | None) -> str:
        _check_max_age(max_age)
        cookie = self._written(self._state("setCookieString"), max_age)
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
        cookie = self._deletion()
        self._set_by_hand(cookie, lambda _state: cookie, sendCookieHeaders)

    def deleteCookieString(self) -> str:
        """Return the header line ``Set-Cookie: ...`` that deletes the session's cookie, ready to be printed."""
        return f"Set-Cookie: {self._deletion()}"

    def _deletion(self) -> str:
        return deletion(self._core.policy, self._channel)

    def _set_by_hand(self, cookie: str, asked: Callable[[State | None], str | None], send: bool) -> None:
        self._by_hand = asked
        self._append(cookie)
        if send:
            self.sendCookieHeaders()

    def _renew_cookie(self) -> None:
        """Send the cookie again in a CGI script, after the end of the session was changed."""
        state = self.state
        if self._wsgi or state is None or self._max_age == 0:
            return
        cookie = self._written(state, None) if self._by_hand is None else self._by_hand(state)
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
