"""Server-side sessions, as the 2005 interface has them, over coatcheck.

In a CGI script::

    import web.database, web.session

    connection = web.database.connect('sqlite', 'site.db', autoCreate=True)
    driver = web.session.driver('database', environment='site', cursor=connection.cursor())
    if not driver.completeSessionEnvironment():
        driver.createSessionEnvironment()
    manager = web.session.manager(driver)
    if not manager.load():
        manager.create()
    manager.store('shop')['item'] = 'umbrella'
    connection.commit()

Under WSGI the middleware `web.wsgi.session.Session` does all of it.
"""

# ruff: noqa: N803, FBT002 -- names and parameters are those of the 2005 reference

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from web import database
from web.session.cookies import codec
from web.session.drivers import Driver, driver
from web.session.errors import MissingKey, SessionError, SessionWarning
from web.session.manager import Manager
from web.session.store import Store

__all__ = [
    "Driver",
    "Manager",
    "MissingKey",
    "SessionError",
    "SessionWarning",
    "Store",
    "codec",
    "driver",
    "manager",
    "start",
]

_COOKIE_KEYS = {"path": "path", "domain": "domain", "comment": "comment", "max-age": "maxAge", "maxAge": "maxAge"}


def manager(  # noqa: PLR0913, PLR0917 -- the signature is the contract's
    driver: Driver | str,
    expire: float = 86400,
    path: str = "/",
    domain: str = "",
    comment: str = "",
    maxAge: int | None = None,
    seed: object = None,
    cleanupProbability: float = 0.05,
    cookie: Mapping[str, Any] | None = None,
    autoCreate: object = 0,
    **driverParams: Any,
) -> Manager:
    """Return the manager of one request's session.

    Args:
        driver: A `Driver`, or the name of one, with its parameters in *driverParams* (``environment`` among them).
        expire: The length of a new session in seconds.
        path: The cookie's Path.
        domain: The cookie's Domain; empty for the host alone.
        comment: Accepted and not sent: RFC 6265 dropped the attribute.
        maxAge: The cookie's lifetime in seconds: None for what is left of the session, 0 until the browser closes.
        seed: Accepted and not needed: identifiers come from the system's random number generator.
        cleanupProbability: How often, from 0 to 1, this call removes some expired sessions.
        cookie: ``path``, ``domain``, ``comment`` and ``max-age`` in one mapping; they come before the parameters.
        autoCreate: A true value creates what is missing of the session environment.
        **driverParams: See `driver`.

    Raises:
        SessionError: A parameter cannot be used, or the session environment is not there.
    """
    chosen = _chosen(driver, driverParams)
    prepare(chosen, create=bool(autoCreate))
    check_probability(cleanupProbability)
    settings = cookie_settings(path, domain, comment, maxAge, cookie)
    made = Manager(chosen, expire=expire, seed=seed, cleanupProbability=cleanupProbability, **settings)
    if random.random() < cleanupProbability:  # noqa: S311 (no secret)
        made.sweep()
    return made


def cookie_settings(
    path: str, domain: str, comment: str, maxAge: int | None, cookie: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Put the cookie's parameters and the mapping ``cookie`` together; the mapping comes first.

    Raises:
        SessionError: The mapping has an unknown key.
    """
    settings: dict[str, Any] = {"path": path, "domain": domain, "comment": comment, "maxAge": maxAge}
    _check_mapping(cookie)
    for key, value in (cookie or {}).items():
        if key not in _COOKIE_KEYS:
            raise SessionError(f"manager(cookie=...): unknown key {key!r}; it takes {', '.join(_COOKIE_KEYS)}")
        settings[_COOKIE_KEYS[key]] = value
    return settings


def _check_mapping(cookie: object) -> None:
    if cookie is not None and not isinstance(cookie, Mapping):
        raise SessionError("manager(cookie=...) must be a mapping such as {'path': '/', 'max-age': 600}")


def _chosen(storage: Driver | str, params: dict[str, Any]) -> Driver:
    if isinstance(storage, Driver):
        if params:
            raise SessionError(f"manager: unknown parameter {', '.join(sorted(params))}")
        return storage
    if "environment" not in params:
        raise SessionError("manager: a driver given by name needs environment='...' beside it")
    return driver(storage, **params)


def check_probability(value: float) -> None:
    """Refuse a cleanupProbability that is none.

    Raises:
        SessionError: It is not a number from 0 to 1.
    """
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise SessionError("cleanupProbability must be a number from 0 (never) to 1 (always)")


def prepare(chosen: Driver, *, create: bool) -> None:
    """Make sure that a session environment is there.

    Args:
        chosen: Its driver.
        create: True creates what is missing.

    Raises:
        SessionError: It is not there, or could not be made.
    """
    if chosen.completeSessionEnvironment():
        return
    if not create:
        raise SessionError(
            f"the session environment {chosen.environment!r} is not there yet: create it once with"
            " driver.createSessionEnvironment(), or set setupEnvironment=True in the Session middleware"
            " (autoCreate=1 in web.session.manager)"
        )
    was_open = chosen.connection is not None and chosen.connection.inTransaction
    if errors := chosen.createSessionEnvironment():
        raise SessionError(f"could not create the session environment {chosen.environment!r}: {'; '.join(errors)}")
    if chosen.connection is not None and not was_open:
        chosen.connection.commit()  # an open transaction is the application's, and the tables are a part of it


def start(
    app: str,
    environmentName: str,
    environmentType: str = "database",
    expire: float = 0,
    setupSessionEnvironment: object = False,
    **params: Any,
) -> Store:
    """Start or continue a session in a CGI script, and return the values of an application.

    Args:
        app: The name of the application.
        environmentName: The name of the environment.
        environmentType: ``"database"``, or the name of a driver.
        expire: The length of a new session in seconds; 0 for the manager's default.
        setupSessionEnvironment: A true value creates what is missing of the session environment.
        **params: ``cursor`` or ``url`` as in `driver`, or the parameters of `web.database.connect`; the others go to
            `manager`. With the parameters of a connection the values are saved as they are assigned.
    """
    known = {name: params.pop(name) for name in ("cursor", "url") if name in params}
    autocommit = False
    create = bool(setupSessionEnvironment)
    if "adapter" in params:
        connect = {
            name: params.pop(name)
            for name in ("adapter", "database", "user", "password", "host", "port", "socket", "autoCreate")
            if name in params
        }
        known["cursor"] = database.connect(**connect).cursor()
        autocommit = True
    create = bool(params.pop("autoCreate", False)) or create
    chosen = driver(environmentType, environmentName, **known)
    if expire:
        params["expire"] = expire
    made = manager(chosen, autoCreate=create, **params)
    made.autocommit = autocommit
    made.loadOrCreate()
    return made.store(app)
