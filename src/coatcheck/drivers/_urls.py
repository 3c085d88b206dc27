"""Storage URLs taken apart: `scheme://user:password@host:port,host:port/path?option=value`.

No message here repeats a URL or a part of it that may be a password.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from coatcheck.errors import ConfigurationError

__all__ = ["Options", "Place", "parsed"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads.

    Attributes:
        scheme: What stands before the colon, in lower case.
        username: The user, or None.
        password: The password, or None. Shown nowhere.
        hosts: The hosts with their ports, as they are given; the port is None where there is none.
        path: What follows the hosts, decoded, without its leading slash.
        options: What follows the question mark.
    """

    scheme: str
    username: str | None
    password: str | None = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    options: Options


class Options:
    """The options of a URL, each of them known and given once.

    Args:
        engine: The engine's name, for messages.
        given: The options as text.
    """

    def __init__(self, engine: str, given: Mapping[str, str]) -> None:
        self._engine = engine
        self._given = dict(given)

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def text(self, name: str, default: str = "") -> str:
        """Give an option as it stands there."""
        return self._given.get(name, default)

    def seconds(self, name: str, default: float, *, least: float = 0.001) -> float:
        """Give an option that is a length of time.

        Raises:
            ConfigurationError: It is no number, not finite, or under *least*.
        """
        text = self._given.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise ConfigurationError(f"{name} must be a number of seconds, at least {least:g}, not {text!r}")
        return value

    def whole(self, name: str, default: int, *, least: int = 0, most: int = 2**31) -> int:
        """Give an option that is a whole number.

        Raises:
            ConfigurationError: It is none, or out of range.
        """
        text = self._given.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Give an option that is one of *choices*.

        Raises:
            ConfigurationError: It is something else.
        """
        text = self._given.get(name, default)
        if text not in choices:
            raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {text!r}")
        return text


def parsed(url: str, engine: str, form: str, known: Sequence[str]) -> Place:
    """Take a storage URL apart.

    Args:
        url: The URL.
        engine: The engine's name, for messages.
        form: How a URL of this engine looks, for messages.
        known: The options that the engine takes.

    Raises:
        ConfigurationError: It has another form, or an option that is unknown or given twice.
    """
    scheme, separator, rest = url.partition("://")
    # Not urlsplit: it knows one host, and its errors repeat what may be a password.
    rest, _, query = rest.partition("?")
    if not separator or "#" in rest or "#" in query:
        raise ConfigurationError(f"a URL for {engine} is {form}")
    authority, _, path = rest.partition("/")
    if "@" in path or "@" in query:
        # What looks like a path or an option may be the second half of a password.
        raise ConfigurationError(
            f"the URL for {engine} has an @ after a / or ?: characters that mean something in a URL are written with %,"
            " such as %2F for / and %40 for @"
        )
    login, at, places = authority.rpartition("@")
    username, colon, password = login.partition(":")
    return Place(
        scheme=scheme.lower(),
        username=unquote(username) or None if at else None,
        password=unquote(password) if colon else None,
        hosts=tuple(_host(place, engine, form) for place in places.split(",") if place),
        path=unquote(path),
        options=_options(query, engine, known),
    )


def _host(place: str, engine: str, form: str) -> tuple[str, int | None]:
    host, port = place, ""
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in place:
        host, _, port = place.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigurationError(f"the port in the URL for {engine} is no number from 1 to 65535: a URL is {form}")
    return unquote(host), int(port) if port else None


def _options(query: str, engine: str, known: Sequence[str]) -> Options:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"unknown option {name!r} for {engine}: there are {', '.join(sorted(known))}")
        if name in options:
            raise ConfigurationError(f"the option {name!r} is given twice")
        options[name] = value
    return Options(engine, options)
