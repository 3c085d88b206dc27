"""The storage of an environment's sessions."""

# ruff: noqa: N802, N803 -- the names are those of the 2005 reference

from __future__ import annotations

import threading
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import coatcheck
from coatcheck import CoatcheckError, MissingExtra
from web.database import Connection
from web.environment import checkName
from web.session.errors import SessionError
from web.session.lent import on_connection

__all__ = ["Driver", "driver"]

_opened: Final[dict[tuple[str, str], coatcheck.Driver]] = {}
"""The storage of this process by URL and environment: pools and open files serve many requests."""
_lock: Final = threading.Lock()

_EXAMPLES: Final = {
    "database": "sqlite:///sessions.db",
    "filesystem": "filesystem:///sessions",
    "mariadb": "mariadb://user:password@localhost/site",
    "memcached": "memcached://localhost",
    "memory": "memory:",
    "mysql": "mysql://user:password@localhost/site",
    "postgresql": "postgresql://user:password@localhost/site",
    "redis": "redis://localhost",
    "sqlite": "sqlite:///sessions.db",
    "valkey": "valkey://localhost",
}
"""A URL for each name of a driver, for messages."""

_OTHER_NAMES: Final = {"mariadb": "mysql", "redis": "valkey"}
"""Engines that one driver serves: the name of the driver, and the other name."""


class Driver:
    """The storage of one environment's sessions.

    Attributes:
        environment: The environment's name.
        connection: The `web.database` connection that it works on, inside the application's transaction; None if
            the sessions have storage of their own.
    """

    def __init__(self, environment: str, core: coatcheck.Driver, connection: Any = None) -> None:
        self.environment = environment
        self._core = core
        self.connection = connection

    @property
    def core(self) -> coatcheck.Driver:
        """The coatcheck driver that does the work.

        Raises:
            ConnectionClosed: The request that the connection belonged to is over, and another one may have it.
        """
        if self.connection is not None:
            _ = self.connection.baseConnection
        return self._core

    def __repr__(self) -> str:
        return f"<session driver {self._core.name!r} of environment {self.environment!r}>"

    def completeSessionEnvironment(self) -> bool:
        """Return whether everything that stores the sessions is there."""
        return self.core.is_set_up()

    def createSessionEnvironment(self) -> list[str]:
        """Create what is missing; drops nothing. On a lent connection it is part of the open transaction.

        MariaDB and MySQL cannot do that: there, no transaction may be open.

        Returns:
            What went wrong, in words; empty if all is well.
        """
        try:
            self.core.setup()
        except CoatcheckError as error:
            return [str(error)]
        return []

    def removeSessionEnvironment(self, ignoreErrors: bool = False) -> list[str]:  # noqa: FBT001, FBT002 (as in 2005)
        """Remove the environment's sessions and all that stored them.

        Args:
            ignoreErrors: True makes nothing of what was not there.

        Returns:
            What went wrong, in words; empty if all is well.
        """
        try:
            if not ignoreErrors and not self.core.is_set_up():
                return [f"the session environment {self.environment!r} is not complete: there is nothing to remove"]
            self.core.tear_down()
        except CoatcheckError as error:
            return [] if ignoreErrors else [str(error)]
        return []


def driver(driver: str, environment: str, **params: Any) -> Driver:
    """Return the storage of an environment's sessions.

    Args:
        driver: ``"database"``, or the name of a coatcheck driver: ``"filesystem"``, ``"mariadb"``, ``"memcached"``,
            ``"memory"``, ``"mysql"``, ``"postgresql"``, ``"redis"``, ``"sqlite"``, ``"valkey"``.
        environment: The environment's name: it becomes part of the names of tables and keys, and names the cookie.
        **params: For ``"database"`` either ``cursor``, a `web.database` cursor whose transaction the sessions join, or
            ``url``, a database of the sessions' own such as ``"sqlite:///sessions.db"``. For the others ``url``.

    Raises:
        SessionError: A parameter is missing, unknown or of the wrong kind.
        ConfigurationError: The URL or the environment's name cannot be used.
    """
    checkName(environment)
    cursor = params.pop("cursor", None)
    url = params.pop("url", None)
    if params:
        raise SessionError(f"web.session.driver: unknown parameter {', '.join(sorted(params))}; it takes cursor or url")
    if driver == "database" and (cursor is None) == (url is None):
        raise SessionError("web.session.driver('database', ...) takes either cursor= (of web.database) or url=")
    if driver == "database" and cursor is not None:
        return _on_cursor(environment, cursor)
    if cursor is not None:
        raise SessionError(f"web.session.driver({driver!r}, ...) takes url=, not cursor=")
    if url is None and driver == "memory":
        url = "memory:"
    if not isinstance(url, str):
        raise SessionError(_how_to(driver))
    core = _own(url, environment)
    if driver not in ("database", urlsplit(url).scheme, core.name, _OTHER_NAMES.get(core.name)):
        such_as = f", such as {_EXAMPLES[driver]!r}" if driver in _EXAMPLES else ""
        raise SessionError(f"web.session.driver({driver!r}, ...): its url must start with {driver}:{such_as}")
    return Driver(environment, core)


def _how_to(name: str) -> str:
    """Return which URL a driver needs, and which package, if that is missing."""
    if name not in _EXAMPLES:
        known = ", ".join(_EXAMPLES)
        return f"web.session.driver({name!r}, ...): there are {known}; a driver of another package needs url="
    missing = ""
    try:
        coatcheck.driver(_EXAMPLES[name])  # which connects to nothing
    except MissingExtra as error:
        missing = f". {error}"
    return f"web.session.driver({name!r}, ...) needs url=, such as url={_EXAMPLES[name]!r}{missing}"


def _on_cursor(environment: str, cursor: Any) -> Driver:
    connection = getattr(cursor, "connection", None)
    if not isinstance(connection, Connection):
        raise SessionError("web.session.driver('database', cursor=...): this is not a cursor of web.database")
    return Driver(environment, on_connection(connection, environment), connection)


def _own(url: str, environment: str) -> coatcheck.Driver:
    with _lock:
        if (url, environment) not in _opened:
            _opened[url, environment] = coatcheck.driver(_with_prefix(url, environment))
        return _opened[url, environment]


def _with_prefix(url: str, environment: str) -> str:
    if url == "memory:":
        return url  # each environment has a memory of its own
    place, _, options = url.partition("?")
    query = dict(parse_qsl(options, keep_blank_values=True))
    query["prefix"] = f"{query.get('prefix', '')}{environment}_"
    return f"{place}?{urlencode(query)}"
