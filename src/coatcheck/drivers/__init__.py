"""Storage engines: the contract in `base`, a module or folder for each engine, and `open_driver` to choose by URL."""

from __future__ import annotations

from typing import Final

from coatcheck.drivers.base import Driver
from coatcheck.errors import ConfigurationError

__all__ = ["open_driver"]

_GROUP: Final = "coatcheck.drivers"
_BUILT_IN: Final = {
    "memory": "coatcheck.drivers.memory:MemoryDriver",
    "sqlite": "coatcheck.drivers.sqlite:SQLiteDriver",
}


def open_driver(url: str) -> Driver:
    """Make the driver that *url* names: `memory:`, `sqlite:///sessions.db`, or a scheme of an installed package.

    A package offers a driver as an entry point of the group `coatcheck.drivers`, named like the scheme: a subclass of
    `Driver` with a class method `from_url`. Nothing is connected to yet.

    Raises:
        ConfigurationError: The scheme is unknown, its entry point is no driver, or the driver refuses the URL. The
            message does not repeat the URL, which may hold a password.
        MissingExtra: The engine's client library is not installed.
    """
    from importlib.metadata import EntryPoint, entry_points  # noqa: PLC0415 (slow to import, and needed once)

    scheme, colon, _ = url.partition(":")
    offered = {entry.name: entry for entry in entry_points(group=_GROUP)}
    offered.update({name: EntryPoint(name, value, _GROUP) for name, value in _BUILT_IN.items()})
    if not colon or scheme not in offered:
        known = ", ".join(f"{name}:" for name in sorted(offered))
        what = f"unknown scheme {scheme!r} in the storage URL" if colon else "the storage URL has no scheme"
        raise ConfigurationError(f"{what}: there are {known} (others need their package installed)")
    driver = offered[scheme].load()
    if not (isinstance(driver, type) and issubclass(driver, Driver) and hasattr(driver, "from_url")):
        raise ConfigurationError(
            f"the entry point {scheme!r} of {_GROUP} names {offered[scheme].value}, which is no Driver with from_url()"
        )
    made: Driver = driver.from_url(url)
    return made
