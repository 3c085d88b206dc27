"""The session cookie in and out: finding it in a request, writing and deleting it in a response (RFC 6265bis)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import Enum
from math import ceil
from typing import Final

from coatcheck.policy import Policy

__all__ = ["Channel", "Origin", "channel_of", "cookie_name", "deletion", "find", "set_cookie"]

_MAX_HEADER: Final = 65536
_MAX_PAIRS: Final = 1000
_MAX_AGE: Final = 400 * 86400  # RFC 6265bis 5.5: no cookie lives longer

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})  # the usual ones, which need no parsing


class Channel(Enum):
    """How a request came, which decides over the cookie's prefix and its Secure attribute."""

    SECURE = "https, or as good as"
    LOOPBACK = "http on this machine"
    PLAIN = "http"

    __hash__ = object.__hash__  # quicker than an Enum's own, and a member is the only one of its kind


Origin = tuple[str, str, str, bool]
"""The facts that `channel_of` judges by: scheme, client, host, forwarded."""


def channel_of(policy: Policy, scheme: str, client: str, host: str, forwarded: bool) -> Channel:  # noqa: FBT001 (an Origin)
    """Say how a request came.

    Args:
        policy: The settings.
        scheme: "http" or "https" as the server saw it.
        client: The client's address, as in ``REMOTE_ADDR``.
        host: The ``Host`` header, port and all.
        forwarded: True where a header says that a proxy stands between, so that the client is somewhere else.
    """
    if scheme == "https" or policy.trusted_scheme == "https":
        return Channel.SECURE
    if not forwarded and _is_loopback(client) and _is_loopback(_without_port(host)):
        return Channel.LOOPBACK
    return Channel.PLAIN


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_secure(policy: Policy, channel: Channel) -> bool:
    if channel is Channel.LOOPBACK:  # browsers take Secure from loopback, and SameSite=None and Partitioned need it
        return policy.same_site == "None" or policy.partitioned
    return channel is Channel.SECURE or not policy.insecure_http


def cookie_name(policy: Policy, channel: Channel) -> str:
    """Give the cookie's full name: prefixed wherever it is Secure; over https the plain name is never read."""
    if not _is_secure(policy, channel):
        return policy.cookie_name
    prefix = "__Host-" if policy.path == "/" and policy.domain is None else "__Secure-"
    return prefix + policy.cookie_name


def find(headers: Iterable[str], name: str) -> list[str]:
    """Give the differing values that a request's Cookie headers hold under exactly *name*, in their order.

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


def set_cookie(policy: Policy, channel: Channel, secret: str, lifetime: float | None) -> str:
    """Write the value of a Set-Cookie header.

    Args:
        policy: The settings.
        channel: How the request came.
        secret: The token.
        lifetime: Seconds that the cookie should live, rounded up to whole ones; None until the browser closes.
    """
    attributes = _attributes(policy, channel)
    if lifetime is not None:
        attributes = f"; Max-Age={max(0, min(_MAX_AGE, ceil(lifetime)))}{attributes}"
    return f"{cookie_name(policy, channel)}={secret}{attributes}"


def deletion(policy: Policy, channel: Channel) -> str:
    """Write the value of a Set-Cookie header that deletes the cookie: same name, Path, Domain, Secure, Partitioned."""
    expired = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    return f"{cookie_name(policy, channel)}={expired}{_attributes(policy, channel)}"


def _attributes(policy: Policy, channel: Channel) -> str:
    parts = [f"; Path={policy.path}"]
    if policy.domain is not None:
        parts.append(f"; Domain={policy.domain}")
    if _is_secure(policy, channel):
        parts.append("; Secure")
    parts.append(f"; HttpOnly; SameSite={policy.same_site}")
    if policy.partitioned:
        parts.append("; Partitioned")
    return "".join(parts)
