"""Storage engines: the contract in `base`, a module or folder for each engine, and two functions to choose by URL."""

from __future__ import annotations

from importlib import import_module
from typing import Final, TypeVar

from coatcheck.drivers._strangers import check_class, check_driver
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.errors import ConfigurationError

__all__ = ["built_in_drivers", "open_async_driver", "open_driver"]

D = TypeVar("D", Driver, AsyncDriver)

_GROUP: Final = "coatcheck.drivers"
_ASYNC_GROUP: Final = "coatcheck.async_drivers"

_MODULES: Final = {
    "filesystem": ("filesystem", "FilesystemDriver"),
    "mariadb": ("mariadb", "MariaDBDriver"),
    "memcached": ("memcached", "MemcachedDriver"),
    "memory": ("memory", "MemoryDriver"),
    "mysql": ("mariadb", "MariaDBDriver"),
    "postgres": ("postgresql", "PostgreSQLDriver"),
    "postgresql": ("postgresql", "PostgreSQLDriver"),
    "redis": ("redis", "RedisDriver"),
    "redis+cluster": ("redis", "RedisDriver"),
    "redis+sentinel": ("redis", "RedisDriver"),
    "redis+unix": ("redis", "RedisDriver"),
    "rediss": ("redis", "RedisDriver"),
    "rediss+cluster": ("redis", "RedisDriver"),
    "rediss+sentinel": ("redis", "RedisDriver"),
    "sqlite": ("sqlite", "SQLiteDriver"),
    "valkey": ("redis", "RedisDriver"),
}
"""The module and the class of the driver for each scheme; the asynchronous one stands beside it as `Async…`."""

_BUILT_IN: Final = {scheme: f"coatcheck.drivers.{module}:{name}" for scheme, (module, name) in _MODULES.items()}
_ASYNC_BUILT_IN: Final = {
    scheme: f"coatcheck.drivers.{module}:Async{name}" for scheme, (module, name) in _MODULES.items()
}


def open_driver(url: str) -> Driver:
    """Make the driver that *url* names: `memory:`, `sqlite:///sessions.db`, or a scheme of an installed package.

    A package offers a driver as an entry point of the group `coatcheck.drivers`, named like the scheme: a subclass of
    `Driver` with a class method `from_url`. Nothing is connected to yet.

    Raises:
        ConfigurationError: The scheme is unknown, its entry point is no driver, the driver lacks a part of the
            contract, or it refuses the URL. The message does not repeat the URL, which may hold a password.
        MissingExtra: The engine's client library is not installed.
    """
    return _made(url, _GROUP, _BUILT_IN, Driver)  # type: ignore[type-abstract]


def open_async_driver(url: str) -> AsyncDriver:
    """Make the asynchronous driver that *url* names; see `open_driver`. The URLs are the same.

    A package offers one as an entry point of the group `coatcheck.async_drivers`: a subclass of `AsyncDriver`.

    Raises:
        ConfigurationError: As for `open_driver`.
        MissingExtra: The engine's client library is not installed.
    """
    return _made(url, _ASYNC_GROUP, _ASYNC_BUILT_IN, AsyncDriver)  # type: ignore[type-abstract]


def built_in_drivers() -> list[type[Driver]]:
    """Return the drivers that come with coatcheck, by name.

    Raises:
        MissingExtra: The client library of one of them is not installed.
    """
    found = {import_module(f"coatcheck.drivers.{module}").__dict__[name] for module, name in _MODULES.values()}
    return sorted(found, key=lambda driver: str(driver.name))


def _made(url: str, group: str, built_in: dict[str, str], kind: type[D]) -> D:
    from importlib.metadata import EntryPoint, entry_points  # noqa: PLC0415 (slow to import, and needed once)

    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    chosen = EntryPoint(scheme, built_in[scheme], group) if colon and scheme in built_in else None
    if chosen is None:
        offered: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=group)}
        if not colon or scheme not in offered:
            known = ", ".join(f"{name}:" for name in sorted({*offered, *built_in}))
            what = f"unknown scheme {scheme!r} in the storage URL" if colon else "the storage URL has no scheme"
            remedy = "others need their package installed"
            if scheme.partition("+")[0] in built_in:
                remedy = f"the client library is not chosen: say {scheme.partition('+')[0]}:"
            raise ConfigurationError(f"{what}: there are {known} ({remedy})")
        chosen = offered[scheme]
    driver = chosen.load()
    if not (isinstance(driver, type) and issubclass(driver, kind) and hasattr(driver, "from_url")):
        raise ConfigurationError(
            f"the entry point {scheme!r} of {group} names {chosen.value}, which is no {kind.__name__} with from_url()"
        )
    is_strange = scheme not in built_in
    if is_strange:
        check_class(driver)
    made: D = driver.from_url(f"{scheme}:{rest}")
    if is_strange:
        check_driver(made)
    return made
