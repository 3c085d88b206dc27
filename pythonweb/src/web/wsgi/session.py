"""Session middleware: every request below it has a session manager and a store."""

# ruff: noqa: N803, FBT002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from coatcheck import CoatcheckError, DriverUnavailable
from coatcheck.adapter import Exchange, Saved
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.wsgi import Response, respond
from web.session import Driver, Manager, SessionError, check_probability, cookie_settings, driver, prepare

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Session"]


class Session:
    """Adds ``web.session.driver``, ``web.session.manager`` and, with *app*, ``web.session.store`` to the environ.

    Needs the Environment middleware above it, and for database storage the Database middleware too. The changes of a
    request become durable with the application's ``connection.commit()``, together with its rows; what no commit
    covered is saved at the end of a successful request, and nothing if the request fails.

    Args:
        application: The application.
        app: The name under which its values are kept, or None for no store.
        setupEnvironment: A true value creates what is missing of the session environment; nothing is ever dropped.
        **params: The parameters of `web.session.manager`; ``url`` for storage other than the request's connection.

    Raises:
        SessionError: A parameter is unknown or cannot be used.
    """

    def __init__(
        self, application: WSGIApplication, app: str | None = None, setupEnvironment: object = False, **params: Any
    ) -> None:
        self.application: Final = application
        self.app: Final = app
        self._setup: Final = bool(setupEnvironment) or bool(params.pop("autoCreate", False))
        self._url: Final[str | None] = params.pop("url", None)
        self._cleanup: Final[float] = params.pop("cleanupProbability", 0.05)
        check_probability(self._cleanup)
        if unknown := params.keys() - _PARAMETERS:
            raise SessionError(
                f"web.wsgi.session.Session: unknown parameter {', '.join(sorted(unknown))}; it takes app,"
                f" setupEnvironment, url, autoCreate, cleanupProbability, {', '.join(sorted(_PARAMETERS))}"
            )
        self._settings: Final = _settings(**params)
        self._ready: set[tuple[str, object]] = set()
        trial = Manager(Driver("trial", MemoryDriver()), **self._settings)  # raises configuration errors at once
        if app is not None:
            trial.store(app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        chosen = self._driver(environ)
        self._prepare(chosen)
        manager = Manager(chosen, environ=environ, cleanupProbability=self._cleanup, **self._settings)
        environ["web.session.driver"] = chosen
        environ["web.session.manager"] = manager
        if self.app is not None:
            environ["web.session.store"] = manager.store(self.app)
        response = _Response(_ManagedExchange(manager), start_response, partial(self._forget, chosen))
        try:
            return respond(self.application, environ, response)
        except CoatcheckError:  # raised if the tables of the storage are missing
            self._forget(chosen)
            raise

    def _driver(self, environ: WSGIEnvironment) -> Driver:
        if "web.environment.name" not in environ:
            raise SessionError(
                "web.wsgi.session.Session needs the Environment middleware above it:"
                " environment.Environment(session.Session(...), name='myEnv', storage='database')"
            )
        storage = environ["web.environment.type"]
        params: dict[str, Any] = {} if self._url is None else {"url": self._url}
        if storage == "database" and not params:
            if "web.database.cursor" not in environ:
                raise SessionError(
                    "web.wsgi.session.Session with database storage needs the Database middleware above it:"
                    " database.Database(environment.Environment(...), adapter='sqlite', database='site.db',"
                    " autoCreate=1)"
                )
            params["cursor"] = environ["web.database.cursor"]
        return driver(storage, environ["web.environment.name"], **params)

    def _prepare(self, chosen: Driver) -> None:
        place = _place_of(chosen)
        if place not in self._ready:
            prepare(chosen, create=self._setup)
            self._ready.add(place)

    def _forget(self, chosen: Driver) -> None:
        """Check the session environment again at the next request, because it may have been removed."""
        self._ready.discard(_place_of(chosen))


def _place_of(chosen: Driver) -> tuple[str, object]:
    return (chosen.environment, None if chosen.connection is None else chosen.connection.identity)


def _settings(
    *,
    expire: float = 86400,
    path: str = "/",
    domain: str = "",
    comment: str = "",
    maxAge: int | None = None,
    seed: object = None,
    cookie: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {"expire": expire, "seed": seed, **cookie_settings(path, domain, comment, maxAge, cookie)}


_PARAMETERS: Final = frozenset(_settings.__kwdefaults__ or ())


class _ManagedExchange(Exchange):
    """A request whose sessions, of which there may be several one after another, are a `Manager`'s."""

    __slots__ = ("_error", "_sweeps", "_web", "failed")

    def __init__(self, web: Manager) -> None:
        super().__init__(web._core, web._incoming)  # noqa: SLF001 (two halves of one interface)
        self._web = web
        self._error: BaseException | None = None  # what a save raised
        self._sweeps: bool | None = None
        self.failed = False  # True once another answer takes the place of the application's

    @property
    def raised(self) -> bool:
        return self._web.exchange is not None and self._web.exchange.raised

    def is_own_failure(self, error: BaseException) -> bool:
        current = self._web.exchange
        return error is self._error or (current is not None and current.is_own_failure(error))

    def finish_untouched(self) -> bool:
        return False  # cookies may be set and other sessions be ended without it

    def save(self, *, final: bool = False, readable: bool = False) -> Saved:  # noqa: ARG002 (it is always readable)
        try:
            self.saved = Saved() if self.failed else self._web.finish(finished=final)
        except DriverUnavailable as error:
            self._error = error
            raise
        return self.saved

    def headers(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        self._web.closedHeaders = True
        foreign = None
        others = []
        for header in headers:
            if self._web.is_own_cookie(header):
                foreign = header[1]
            else:
                others.append(header)
        cookie = None if self.failed else self._web.response_cookie(self.saved, foreign)
        saved, self.saved = self.saved, Saved(cookie, self._web.used, () if cookie is None else self.deletions())
        try:
            return super().headers(others)
        finally:
            self.saved = saved

    def headers_sent(self) -> None:
        if self._web.exchange is not None:
            self._web.exchange.headers_sent()

    @property
    def sweep_due(self) -> bool:
        if self._sweeps is None:
            current = self._web.exchange
            wrote = current is not None and current.wrote
            self._sweeps = wrote and random.random() < self._web.cleanupProbability  # noqa: S311 (no secret)
        return self._sweeps

    def close(self) -> None:
        if self.sweep_due:
            self._web.sweep()


class _Response(Response):
    """A response whose session is a `Manager`'s."""

    exchange: _ManagedExchange

    def __init__(self, exchange: _ManagedExchange, start_response: StartResponse, forget: Callable[[], None]) -> None:
        super().__init__(exchange, start_response)
        self._forget = forget

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        # Error middleware below this one answers for the application: nothing of the failed request is saved.
        self.exchange.failed = self.exchange.failed or exc_info is not None
        return super().start(status, headers, exc_info)

    def unavailable(self) -> list[bytes]:
        self._forget()
        return super().unavailable()
