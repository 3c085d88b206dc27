"""Storage URLs taken apart: `scheme://user:password@host:port,host:port/path?option=value`.

No message here repeats a URL or a part of it that may be a password.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from coatcheck.errors import ConfigurationError

__all__ = ["Option", "Place", "choice", "parsed", "parsed_file", "seconds", "switch", "text", "whole"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option that a URL may have.

    Attributes:
        default: Its value where the URL does not give it.
        read: Returns the value that a text stands for, or raises ValueError.
        wanted: What it has to be, for messages.
    """

    default: Any
    read: Callable[[str], Any]
    wanted: str = ""


def text(default: str | None = "") -> Option:
    """Return an option that is taken as it stands there."""
    return Option(default, str)


def seconds(default: float, *, least: float = 0.001) -> Option:
    """Return an option that is a length of time, of at least *least*."""

    def read(given: str) -> float:
        value = float(given)
        if not (math.isfinite(value) and value >= least):
            raise ValueError
        return value

    return Option(default, read, f"a number of seconds, at least {least:g}")


def whole(default: int, *, least: int = 0, most: int = 2**31) -> Option:
    """Return an option that is a whole number from *least* to *most*."""

    def read(given: str) -> int:
        if not (given.isascii() and given.isdigit() and least <= int(given) <= most):
            raise ValueError
        return int(given)

    return Option(default, read, f"a whole number from {least} to {most}")


def choice(*choices: str) -> Option:
    """Return an option that is one of *choices*, the first of them by default."""
    return Option(choices[0], lambda given: choices[choices.index(given)], f"one of {', '.join(choices)}")


def switch(on: str, off: str) -> Option:
    """Return an option that is True where it is *on*, and False where it is *off*, the default."""
    return Option(default=False, read=lambda given: (off, on).index(given) == 1, wanted=f"one of {on}, {off}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads.

    Attributes:
        scheme: What stands before the colon, in lower case.
        username: The user, or None.
        password: The password, or None. Shown nowhere.
        hosts: The hosts with their ports, as they are given; the port is None where there is none.
        path: What follows the hosts, decoded, without its leading slash.
        options: The values of all options that there are, by name.
    """

    scheme: str
    username: str | None
    password: str | None = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    options: Mapping[str, Any]


def parsed(url: str, engine: str, form: str, options: Mapping[str, Option]) -> Place:
    """Take a storage URL apart.

    Args:
        url: The URL.
        engine: The engine's name, for messages.
        form: How a URL of this engine looks, for messages.
        options: The options that the engine takes, by name.

    Raises:
        ConfigurationError: It has another form, or an option that is unknown, given twice or of a wrong value.
    """
    scheme, authority, path, query = _split_url(url, engine, form)
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
        options=_option_values(query, engine, options),
    )


def parsed_file(url: str, engine: str, form: str, options: Mapping[str, Option]) -> tuple[str, dict[str, Any]]:
    """Take a storage URL apart that names a file or folder; see `parsed`. Return its path, and the options."""
    _, authority, path, query = _split_url(url, engine, form)
    if authority or not path:
        raise ConfigurationError(
            f"a URL for {engine} is {form}" + ("" if authority else ", and this one names no file")
        )
    return unquote(path), _option_values(query, engine, options)


def _split_url(url: str, engine: str, form: str) -> tuple[str, str, str, str]:
    """Return the scheme, the authority, the path without its slash and the query."""
    # Not urlsplit: it knows one host, and its errors repeat what may be a password.
    scheme, separator, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    if not separator or "#" in rest or "#" in query:
        raise ConfigurationError(f"a URL for {engine} is {form}")
    authority, _, path = rest.partition("/")
    return scheme, authority, path, query


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


def _option_values(query: str, engine: str, options: Mapping[str, Option]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, given in parse_qsl(query, keep_blank_values=True):
        if name not in options:
            raise ConfigurationError(f"unknown option {name!r} for {engine}: there are {', '.join(sorted(options))}")
        if name in values:
            raise ConfigurationError(f"the option {name!r} is given twice")
        try:
            values[name] = options[name].read(given)
        except ValueError:
            raise ConfigurationError(f"{name} must be {options[name].wanted}, not {given!r}") from None
    return {name: values.get(name, option.default) for name, option in options.items()}
