"""The session cookie in and out: finding it in a request, writing and deleting it in a response (RFC 6265bis)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice
from math import ceil
from typing import Final
from urllib.parse import quote

from coatcheck.policy import Policy, is_domain, is_path

__all__ = [
    "MAX_AGE",
    "Channel",
    "channel_of",
    "cookie_name",
    "deletion",
    "deletions_of_others",
    "find",
    "is_joined",
    "set_cookie",
]

_MAX_HEADER: Final = 65536
_MAX_PAIRS: Final = 1000
MAX_AGE: Final = 400 * 86400
"""Seconds. No cookie lives longer (RFC 6265bis 5.5)."""
_MAX_OTHERS: Final = 16
_MAX_OTHERS_SIZE: Final = 3072  # characters; proxies refuse a response whose headers are too long
_MAX_PATH: Final = 1024  # RFC 6265bis 5.6: browsers take no longer Path


class Channel(Enum):
    """How a request came, which decides over the cookie's prefix and its Secure attribute."""

    SECURE = "https, or as good as"
    PLAIN = "http"

    __hash__ = object.__hash__  # quicker than an Enum's own, and a member is the only one of its kind


def channel_of(policy: Policy, scheme: str) -> Channel:
    """Return how a request came, by its scheme and the settings.

    Nothing else counts. If a proxy asks for ``http://127.0.0.1:8000`` and adds no header, as nginx does unless it is
    told otherwise, its requests look in every way like those of a browser on this machine.

    Args:
        policy: The settings.
        scheme: "http" or "https" as the server saw it.
    """
    return Channel.SECURE if scheme == "https" or policy.behind_tls_proxy else Channel.PLAIN


def _is_secure(policy: Policy, channel: Channel) -> bool:
    return channel is Channel.SECURE or not policy.insecure_http


def cookie_name(policy: Policy, channel: Channel) -> str:
    """Return the cookie's full name: prefixed wherever it is Secure; over https the plain name is never read."""
    if not _is_secure(policy, channel):
        return policy.cookie_name
    prefix = "__Host-" if policy.path == "/" and policy.domain is None else "__Secure-"
    return prefix + policy.cookie_name


def find(headers: Iterable[str], name: str) -> list[str]:
    """Return the differing values that a request's Cookie headers hold under exactly *name*, in their order.

    Linear in the length of the headers. Names are compared as they stand, case and all; only spaces and tabs are
    stripped; nothing is unquoted or decoded. A header over 64 KiB or 1,000 pairs is passed over.
    """
    found: list[str] = []
    for header in headers:
        if name not in header or len(header) > _MAX_HEADER or header.count(";") >= _MAX_PAIRS:
            continue
        for pair in header.split(";"):
            if name in pair:  # most of the others' cookies need no closer look
                key, equals, value = pair.partition("=")
                if equals and key.strip(" \t") == name:
                    value = value.strip(" \t")
                    if value not in found:
                        found.append(value)
    return found


def is_joined(headers: Iterable[str], name: str) -> bool:
    """Check whether a cookie called *name* stands behind or before a comma, so that `find` finds no token in it.

    Some servers join several Cookie headers by commas, where only "; " goes between cookies (RFC 6265 4.2.1, RFC 9113
    8.2.3). A comma may also stand in a value, so such a header cannot be taken apart for sure.
    """
    for header in headers:
        if name in header and "," in header and len(header) <= _MAX_HEADER:
            parts = (part for pair in header.split(";") if "," in pair for part in pair.split(","))
            if any(part.partition("=")[0].strip(" \t") == name for part in parts):
                return True
    return False


def set_cookie(policy: Policy, channel: Channel, secret: str, lifetime: float | None) -> str:
    """Write the value of a Set-Cookie header.

    Args:
        policy: The settings.
        channel: How the request came.
        secret: The token.
        lifetime: Seconds that the cookie should live, rounded up to whole ones; None until the browser closes.
    """
    attributes = _attributes(policy, channel, _own_place(policy))
    if lifetime is not None:
        attributes = f"; Max-Age={max(0, min(MAX_AGE, ceil(lifetime)))}{attributes}"
    return f"{cookie_name(policy, channel)}={secret}{attributes}"


def deletion(policy: Policy, channel: Channel) -> str:
    """Write the value of a Set-Cookie header that deletes the cookie: same name, Path, Domain, Secure, Partitioned."""
    return _deletion(policy, channel, _own_place(policy))


def deletions_of_others(policy: Policy, channel: Channel, host: str = "", path: str = "") -> tuple[str, ...]:
    """Write the values of Set-Cookie headers that delete every other cookie of that name that a browser may send along.

    A cookie is told from another by its name, Domain, Path and partition (RFC 6265bis 5.7), and a request does not say
    which came. Those that can come with a request have no Domain, or the host or a parent of it, and a Path that the
    request's begins with. There are 16 at most, with 3,072 characters in all, the likeliest first.

    Args:
        policy: The settings.
        channel: How the request came.
        host: The ``Host`` header, port and all; empty if it is not known.
        path: The path of the request, decoded; empty if it is not known.
    """
    own = _own_place(policy)
    wanted = [place for place in dict.fromkeys(_places(policy, channel, host, path)) if place != own]
    deletions, size = [], 0
    for place in wanted[:_MAX_OTHERS]:
        line = _deletion(policy, channel, place)
        size += len(line)
        if size > _MAX_OTHERS_SIZE:
            break
        deletions.append(line)
    return tuple(deletions)


_Place = tuple[str, str, bool]
"""What tells cookies of one name apart: Path, Domain (empty for none), Partitioned."""


def _own_place(policy: Policy) -> _Place:
    return policy.path, policy.domain or "", policy.partitioned


def _places(policy: Policy, channel: Channel, host: str, path: str) -> Iterator[_Place]:
    own_path, own_domain, partitioned = _own_place(policy)
    if not _is_secure(policy, channel):  # Partitioned needs Secure
        partitions: tuple[bool, ...] = (False,)
    else:
        partitions = (partitioned, not partitioned)
        yield own_path, own_domain, not partitioned
    if cookie_name(policy, channel).startswith("__Host-"):  # of which no other Path or Domain is ever taken
        return
    paths = dict.fromkeys([own_path, "/", *islice(_paths(path), _MAX_OTHERS)])
    domains = dict.fromkeys(["", own_domain, *(each for each in _domains(host) if each != own_domain.lower())])
    yield from ((path, domain, each) for each in partitions for path in paths for domain in domains)


def _paths(path: str) -> Iterator[str]:
    """Yield the Paths of cookies that come with a request for *path*, the shortest first."""
    some = path[: _MAX_PATH + 1]
    encoded = quote(some, safe="/!$&'()*+,=:@~", encoding="latin-1", errors="replace")  # as WSGI has decoded it
    for at, character in enumerate(encoded[:_MAX_PATH]):
        if character == "/" and at > 0:
            yield encoded[:at]
            yield encoded[: at + 1]
    if len(encoded) <= _MAX_PATH and is_path(encoded):
        yield encoded


def _domains(host: str) -> Iterator[str]:
    """Yield the Domains of cookies that come to *host*, the longest first; none for an address."""
    labels = host.partition(":")[0].lower().split(".")
    if labels[-1].isdecimal() or not is_domain(".".join(labels)):
        return
    for at in range(len(labels) - 1):  # no browser takes a Domain of one label
        yield ".".join(labels[at:])


def _deletion(policy: Policy, channel: Channel, place: _Place) -> str:
    expired = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    return f"{cookie_name(policy, channel)}={expired}{_attributes(policy, channel, place)}"


def _attributes(policy: Policy, channel: Channel, place: _Place) -> str:
    path, domain, partitioned = place
    parts = [f"; Path={path}"]
    if domain:
        parts.append(f"; Domain={domain}")
    if _is_secure(policy, channel):
        parts.append("; Secure")
    parts.append(f"; HttpOnly; SameSite={policy.same_site}")
    if partitioned:
        parts.append("; Partitioned")
    return "".join(parts)
