"""Sessions for any WSGI application (PEP 3333)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from coatcheck.cookie import Channel, Origin
from coatcheck.errors import ConfigurationError, DriverUnavailable, SessionUnavailable
from coatcheck.headers import LOGIN_REFUSED, UNAVAILABLE, with_session
from coatcheck.manager import SessionManager
from coatcheck.outcome import Saved
from coatcheck.session import Session, close_headers, finish, manager_of, state_of

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from coatcheck.drivers.base import Driver
    from coatcheck.policy import Policy
    from coatcheck.state import State

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

__all__ = ["Response", "SessionMiddleware", "request_origin", "respond"]

_SECURE: Final = Channel.SECURE
_NOTHING: Final = Saved()


def request_origin(environ: WSGIEnvironment) -> Origin:
    """Return what says how a WSGI request came. It holds no environ, which in turn holds the session."""
    return (
        environ.get("wsgi.url_scheme", "http"),
        environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""),
        f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}",
    )


class SessionMiddleware:
    """Gives the application ``environ["coatcheck.session"]``, a `Session`, and saves it before the headers go out.

    What changes while the body streams is saved when the body is closed, to a session that exists. An exception that
    reaches the middleware saves nothing. If storage fails, the answer is 503 with Retry-After and the client keeps
    its cookie. If a log-in is refused because the user was revoked meanwhile, the answer is 409.

    Two of these around one application need cookies of different names, or each request raises `ConfigurationError`.

    Args:
        app: The application.
        storage: A URL such as ``"sqlite:///sessions.db"``, a driver, or a `SessionManager` (then without *policy*).
        policy: The settings.

    Attributes:
        manager: The `SessionManager`, to list and revoke sessions with.
    """

    def __init__(
        self, app: WSGIApplication, storage: str | Driver | SessionManager, policy: Policy | None = None
    ) -> None:
        self.app: Final = app
        if isinstance(storage, SessionManager):
            if policy is not None:
                raise TypeError("SessionMiddleware: a SessionManager has its own policy; give the policy to it")
            self.manager = storage
        else:
            self.manager = SessionManager(storage, policy)
        self._pair: Final = f"{self.manager.policy.cookie_name}="

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        manager = self.manager
        cookies = environ.get("HTTP_COOKIE")
        # Host and path are asked for only where several cookies of the name may have come.
        if environ.get("wsgi.url_scheme") == "https" and (cookies is None or cookies.count(self._pair) <= 1):
            session = manager.open(() if cookies is None else (cookies,), _SECURE)
        else:
            session = manager.open(() if cookies is None else (cookies,), request_origin(environ))
        if "coatcheck.session" in environ:
            self._check_around(environ["coatcheck.session"])
        environ["coatcheck.session"] = session
        return respond(self.app, environ, _SessionResponse(manager, session, start_response))

    def _check_around(self, outer: object) -> None:
        """Check that the session of a middleware further out has another cookie.

        Raises:
            ConfigurationError: It has the same, so each would undo what the other sends.
        """
        if isinstance(outer, Session) and manager_of(outer).policy.cookie_name == self.manager.policy.cookie_name:
            raise ConfigurationError(
                "there are two SessionMiddleware around one application, with the same cookie: take one away, or give"
                " one a cookie of its own, Policy(cookie_name=...)"
            )


def respond(app: WSGIApplication, environ: WSGIEnvironment, response: Response) -> Iterable[bytes]:
    """Run *app* and give the body, with the session saved by *response* at the right moment."""
    try:
        body = app(environ, response.start)
    except (DriverUnavailable, SessionUnavailable):
        if not response.blames_storage():
            raise
        return response.unavailable()
    if response.started and (isinstance(body, (list, tuple)) or _is_file(body, environ)):
        # Nothing of the application runs any more, so the body goes to the server as it is.
        return response.finish(body)
    return _Streamed(response, body)


def _is_file(body: object, environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class Response(ABC):
    """A response on its way: holds the headers back until the session is saved. Adapters say how it is saved.

    Attributes:
        sent: True once the headers are out.
        instead: The body that was sent in place of the application's answer, or None.
    """

    # One is made for every request, so defaults stand in the class.
    sent = False
    instead: bytes | None = None
    _status: str | None = None
    _headers: list[tuple[str, str]]  # once there is a status
    _exc_info: ExcInfo | None = None
    _server_write: Any = None
    _saved = _NOTHING

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response

    @abstractmethod
    def state(self) -> State | None:
        """Give what is known of the request's session; None where nobody used it."""

    @abstractmethod
    def save(self, *, finished: bool) -> Saved:
        """Save the session.

        Args:
            finished: True where nothing of the application runs any more.
        """

    def headers(self, headers: list[tuple[str, str]], saved: Saved) -> list[tuple[str, str]]:
        """Give the application's headers with the session's added."""
        return with_session(headers, saved)

    def close_headers(self) -> None:
        """Note that the headers are out: from here on the session can set no cookie."""
        if (state := self.state()) is not None:
            state.closed_headers = True

    @abstractmethod
    def sweep_due(self) -> bool:
        """Tell whether to sweep once this response, which wrote something, is out."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove expired sessions."""

    # -- the protocol -------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True once the application called start_response."""
        return self._status is not None

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        """Stand in for the server's start_response."""
        if exc_info is not None and self.sent:
            # Raises the exception again, as PEP 3333 says, unless the server has nothing but empty strings to send yet.
            self._server_write = self._start_response(status, self.headers(list(headers), self._saved), exc_info)
        elif exc_info is None and self._status is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._status, self._headers, self._exc_info = status, list(headers), exc_info
        return self._write

    def _write(self, data: bytes) -> None:
        if not self.sent:
            try:
                self.send(finished=False)
            except DriverUnavailable:
                self.unavailable()
            if self.instead is not None:
                self._server_write(self.instead)
        if self.instead is None:
            self._server_write(data)

    def send(self, *, finished: bool) -> None:
        """Save the session, then send the headers."""
        if self._status is None:
            raise AssertionError("the application did not call start_response")
        if self._status.startswith("500") and self._raised_for_storage():
            self.unavailable()  # a framework inside made its answer to any exception out of ours
            return
        self._saved = self.save(finished=finished)
        if self._saved.login_refused:  # the application's answer says that the user is logged in, which is not so
            self._answer_instead("409 Conflict", LOGIN_REFUSED, self._saved)
        else:
            self._send(self._status, self.headers(self._headers, self._saved))

    def _send(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.sent = True
        self.close_headers()
        exc_info, self._exc_info = self._exc_info, None
        if exc_info is None:
            self._server_write = self._start_response(status, headers)
        else:
            self._server_write = self._start_response(status, headers, exc_info)

    def finish(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Save and send; give the body to hand to the server."""
        if self.instead is not None:
            _close(body)
            return []
        try:
            if self.sent:  # by write(), since when the session may have changed
                self.save(finished=True)
            else:
                self.send(finished=True)
        except BaseException as error:
            _close(body)
            if isinstance(error, DriverUnavailable) and not self.sent:
                return self.unavailable()
            raise
        return self._finished(body)

    def _finished(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self.instead is not None:
            _close(body)
            return [self.instead]
        return _Tail(self, body) if self._is_sweep_due() else body

    def _is_sweep_due(self) -> bool:
        state = self.state()
        return state is not None and state.wrote and self.sweep_due()

    def unavailable(self) -> list[bytes]:
        """Answer 503: storage is down, which is never the same as having no session."""
        self._answer_instead("503 Service Unavailable", UNAVAILABLE, _NOTHING, ("Retry-After", "5"))
        return [UNAVAILABLE]

    def _answer_instead(self, status: str, body: bytes, saved: Saved, *more: tuple[str, str]) -> None:
        self.instead = body
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more]
        self._send(status, with_session([*headers, ("Cache-Control", "no-store")], saved))

    def blames_storage(self) -> bool:
        """Tell whether an error of storage is this session's, at a time when the answer can still be 503."""
        state = self.state()
        return not self.sent and state is not None and state.failure is not None

    def _is_over(self) -> bool:
        """Return whether the session was saved when nothing of the application ran any more."""
        state = self.state()
        return state is not None and state.over

    def _raised_for_storage(self) -> bool:
        """Return whether a use of the session raised an error in the application because storage failed."""
        state = self.state()
        return state is not None and state.raised

    def close(self, *, save: bool) -> None:
        """End the response: save what changed while the body streamed."""
        if save and self.started and self.instead is None:  # what failed once may have been done, and is not done twice
            if self.sent:
                if not self._is_over():
                    self.save(finished=True)
            else:
                self.send(finished=True)  # a body that nobody asked for, as some servers do for HEAD
        if self._is_sweep_due():
            self.sweep()


class _SessionResponse(Response):
    """The response of a request whose session a `SessionManager` opened."""

    def __init__(self, manager: SessionManager, session: Session, start_response: StartResponse) -> None:
        super().__init__(start_response)
        self._manager = manager
        self._session = session

    def state(self) -> State | None:
        return state_of(self._session)

    def finish(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self.sent or self._exc_info is not None or state_of(self._session) is not None:
            return super().finish(body)
        # Nobody used the session and nobody can any more: there is nothing to save and no header to add.
        self.sent = True
        finish(self._session)
        self._start_response(self._status or "", self._headers)
        return body

    def save(self, *, finished: bool) -> Saved:
        return self._manager.save(self._session, final=finished)

    def close_headers(self) -> None:
        close_headers(self._session)

    def sweep_due(self) -> bool:
        return self._manager.sweep_due()

    def sweep(self) -> None:
        self._manager.sweep()


class _Tail:
    """A finished body, with a sweep to do after it."""

    __slots__ = ("_body", "_response")

    def __init__(self, response: Response, body: Iterable[bytes]) -> None:
        self._response = response
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._response.sweep()


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
            if not isinstance(error, (DriverUnavailable, SessionUnavailable)) or self._response.sent:
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
