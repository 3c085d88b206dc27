"""Sessions for any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from coatcheck.adapter import LOGIN_REFUSED, UNAVAILABLE, Exchange, Incoming
from coatcheck.errors import ConfigurationError
from coatcheck.manager import SessionManager

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from coatcheck.drivers.base import Driver
    from coatcheck.policy import Policy

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

__all__ = ["Response", "SessionMiddleware", "respond"]

_SESSION_KEY: Final = "coatcheck.session"
_AROUND: Final = "coatcheck.cookies"
"""Under it stand the names of the cookies of the middleware that a request has passed."""


class SessionMiddleware:
    """Adds a `Session` to the environ, ``environ["coatcheck.session"]``, and saves it before the headers are sent.

    What changes while the body streams is saved when the body is closed, to a session that exists. An exception that
    reaches the middleware saves nothing. If storage fails, the answer is 503 with Retry-After and the client keeps
    its cookie. If a log-in is refused because the user was revoked meanwhile, the answer is 409.

    Two of these around one application need cookies of different names, or each request raises `ConfigurationError`.

    Args:
        app: The application.
        storage: A URL such as ``"sqlite:///sessions.db"``, a driver, or a `SessionManager` (then without *policy*).
        policy: The settings.
        key: The key of the session in the environ.
        on_unavailable: A WSGI application that makes the answer if storage fails, in place of the plain 503. It gets
            the request without a session, and its status should be 503.

    Attributes:
        manager: The `SessionManager`, to list and revoke sessions with.
    """

    def __init__(
        self,
        app: WSGIApplication,
        storage: str | Driver | SessionManager,
        policy: Policy | None = None,
        *,
        key: str = _SESSION_KEY,
        on_unavailable: WSGIApplication | None = None,
    ) -> None:
        self.app: Final = app
        if isinstance(storage, SessionManager):
            if policy is not None:
                raise TypeError("SessionMiddleware: a SessionManager has its own policy: pass the policy to it")
            self.manager = storage
        else:
            self.manager = SessionManager(storage, policy)
        self._key: Final = key
        self._on_unavailable: Final = on_unavailable
        self._cookie: Final = self.manager.policy.cookie_name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        exchange = Exchange(self.manager, Incoming.from_wsgi(environ))
        around = environ.get(_AROUND, ())
        if self._cookie in around:
            raise ConfigurationError(
                "there are two SessionMiddleware around one application, with the same cookie: remove one, or give"
                " one another cookie name, Policy(cookie_name=...)"
            )
        environ[_AROUND] = (*around, self._cookie)
        environ[self._key] = exchange.session
        response = Response(exchange, start_response)
        if self._on_unavailable is not None:
            response.on_unavailable = self._on_unavailable, environ
        return respond(self.app, environ, response)

    def close(self) -> None:
        """Close the connections to storage. The next request opens new ones."""
        self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def respond(app: WSGIApplication, environ: WSGIEnvironment, response: Response) -> Iterable[bytes]:
    """Run *app* and return the body, with the session saved by *response* at the right moment."""
    try:
        body = app(environ, response.start)
    except Exception as error:
        if response.sent or not response.exchange.is_own_failure(error):
            raise
        return response.unavailable()
    if response.started and (isinstance(body, (list, tuple)) or _is_file(body, environ)):
        # Nothing of the application runs any more, so the body goes to the server as it is.
        return response.finish(body)
    return _Streamed(response, body)


def _is_file(body: object, environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class Response:
    """A response on its way: holds the headers back until the session is saved.

    An adapter that saves differently, or sends other headers, gives it an `Exchange` of its own class.

    Args:
        exchange: The request and its session.
        start_response: The server's.

    Attributes:
        exchange: The request and its session.
        sent: True once the headers are out.
        instead: The body that was sent in place of the application's answer, or None.
        on_unavailable: The application that answers if storage fails, and the environ to call it with; None for a
            plain 503.
    """

    # One is made for every request, so defaults stand in the class.
    sent = False
    instead: bytes | None = None
    on_unavailable: tuple[WSGIApplication, WSGIEnvironment] | None = None
    _status: str | None = None
    _headers: list[tuple[str, str]]  # once there is a status
    _exc_info: ExcInfo | None = None
    _server_write: Any = None

    def __init__(self, exchange: Exchange, start_response: StartResponse) -> None:
        self.exchange = exchange
        self._start_response = start_response

    @property
    def started(self) -> bool:
        """True once the application called start_response."""
        return self._status is not None

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        """Stand in for the server's start_response."""
        if exc_info is not None and self.sent:
            # Raises the exception again, as PEP 3333 says, unless the server has nothing but empty strings to send yet.
            self._server_write = self._start_response(status, self.exchange.headers(list(headers)), exc_info)
        elif exc_info is None and self._status is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._status, self._headers, self._exc_info = status, list(headers), exc_info
        return self._write

    def _write(self, data: bytes) -> None:
        if not self.sent:
            try:
                self.send(finished=False)
            except Exception as error:
                if self.sent or not self.exchange.is_own_failure(error):
                    raise
                self.unavailable()
            if self.instead is not None:
                self._server_write(self.instead)
        if self.instead is None:
            self._server_write(data)

    def send(self, *, finished: bool) -> None:
        """Save the session, then send the headers."""
        if self._status is None:
            raise AssertionError("the application did not call start_response")
        if self._status.startswith("500") and self.exchange.raised:
            self.unavailable()  # a framework inside turned our exception into its own answer
            return
        saved = self.exchange.save(final=finished)
        if saved.login_refused:  # the application's answer says that the user is logged in, which is not so
            self._answer_instead("409 Conflict", LOGIN_REFUSED)
        else:
            self._send(self._status, self.exchange.headers(self._headers))

    def _send(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.sent = True
        self.exchange.headers_sent()
        exc_info, self._exc_info = self._exc_info, None
        if exc_info is None:
            self._server_write = self._start_response(status, headers)
        else:
            self._server_write = self._start_response(status, headers, exc_info)

    def finish(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Save and send; return the body to hand to the server."""
        if not self.sent and self._exc_info is None and self.exchange.finish_untouched():
            self.sent = True
            self._start_response(self._status or "", self._headers)
            return body
        if self.instead is not None:
            _close(body)
            return []
        try:
            if self.sent:  # by write(), since when the session may have changed
                self.exchange.save(final=True)
            else:
                self.send(finished=True)
        except BaseException as error:
            _close(body)
            if not self.sent and self.exchange.is_own_failure(error):
                return self.unavailable()
            raise
        return self._finished(body)

    def _finished(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self.instead is not None:
            _close(body)
            return [self.instead]
        return _Tail(self.exchange, body) if self.exchange.sweep_due else body

    def unavailable(self) -> list[bytes]:
        """Answer 503: storage is down, which is never the same as having no session."""
        if self.on_unavailable is None:
            self._answer_instead("503 Service Unavailable", UNAVAILABLE, ("Retry-After", "5"), forget=True)
            return [UNAVAILABLE]
        app, environ = self.on_unavailable
        written: list[bytes] = []
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Any:
            started[:] = [(status, headers)]
            return written.append

        body = app(environ, start)
        try:
            self.instead = b"".join((*written, *body))
        finally:
            _close(body)
        self._send(*started[0])
        return [self.instead]

    def _answer_instead(self, status: str, body: bytes, *more: tuple[str, str], forget: bool = False) -> None:
        self.instead = body
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more]
        headers.append(("Cache-Control", "no-store"))
        self._send(status, headers if forget else self.exchange.headers(headers))

    def close(self, *, save: bool) -> None:
        """End the response: save what changed while the body streamed."""
        if save and self.started and self.instead is None:  # what failed once may have been done, and is not done twice
            if self.sent:
                if not self.exchange.finished:
                    self.exchange.save(final=True)
            else:
                self.send(finished=True)  # a body that nobody asked for, as some servers do for HEAD
        self.exchange.close()


class _Tail:
    """A finished body, with a sweep to do after it."""

    __slots__ = ("_body", "_exchange")

    def __init__(self, exchange: Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._exchange.close()


class _Streamed:
    """A body that the application makes while it is sent."""

    __slots__ = ("_body", "_failed", "_instead", "_iterator", "_response")

    def __init__(self, response: Response, body: Iterable[bytes]) -> None:
        self._response = response
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._instead: Iterator[bytes] | None = None
        self._failed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._instead is not None:
            return next(self._instead)
        try:
            chunk = self._chunk()
        except StopIteration:
            raise
        except BaseException as error:
            self._failed = True
            if self._response.sent or not self._response.exchange.is_own_failure(error):
                raise
            self._response.unavailable()
            return self._last()
        if chunk is not None:
            return chunk
        return self._last()

    def _chunk(self) -> bytes | None:
        """Return the next piece, with the headers sent before it; None if another answer was sent instead."""
        response = self._response
        if self._iterator is None:
            self._iterator = iter(self._body)
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if response.sent:
                raise
            response.send(finished=not hasattr(self._body, "close"))
            return None
        if response.sent:
            if response.instead is not None:  # sent by write(), with the body
                raise StopIteration
            return chunk
        response.send(finished=False)
        return chunk if response.instead is None else None

    def _last(self) -> bytes:
        """Return what was sent in place of the application's answer, if anything, and end the body."""
        instead = self._response.instead
        self._instead = iter(() if instead is None else (instead,))
        return next(self._instead)

    def close(self) -> None:
        try:
            _close(self._body)
        except BaseException:
            self._failed = True
            raise
        finally:
            self._response.close(save=not self._failed)


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
