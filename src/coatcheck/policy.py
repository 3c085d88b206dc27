"""The settings of an application's sessions: lifetimes, limits and cookie attributes, checked when they are created."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final, Literal

from coatcheck.errors import ConfigurationError
from coatcheck.record import NEVER

__all__ = ["Policy", "is_domain", "is_path"]

Length = float | Literal["never"]
"""A duration in seconds, or "never" for no such limit, which must be requested explicitly."""

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0
_IDLE: Final = 7 * _DAY
_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)  # RFC 9110 token
_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*", re.ASCII)  # no control character, space or semicolon
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The lifetimes of sessions, the limits of their values and the attributes of their cookie. Immutable.

    The lifetimes are stored in a session when it is created. A changed policy applies to new sessions only.

    Attributes:
        idle: Seconds without use after which a session ends (ASVS 7.3.1), at most *absolute*. Default 7 days.
        absolute: Seconds after log-in (after creation before a log-in) at which it ends in any case (ASVS 7.3.2).
            Default 30 days.
        rotate_after: Seconds after which a session in use gets a new token. Default "never"; a log-in always rotates.
        grace: Seconds for which the old token of such a periodic rotation still works once its successor has been
            used. Default 30.
        on_conflict: The result when two requests changed one key and the changes do not merge: with "last" the later
            one wins and an event reports it, with "error" the later save raises `ConflictError`.
        max_value_bytes: The largest encoded value, in bytes. Default 1 MiB.
        cookie_name: The cookie's name without prefix. A Secure cookie gets the prefix ``__Host-`` (``__Secure-`` with a
            path or domain; ASVS 3.3.3). Default "sid", which names no product.
        path: The cookie's Path. Default "/".
        domain: The cookie's Domain, or None for the host alone.
        same_site: The cookie's SameSite: "Lax" (default), "Strict", or "None", which browsers accept only with Secure.
        partitioned: True sends Partitioned (CHIPS), for a site that is framed by other sites.
        persistent: True sends Max-Age, so that the cookie survives the browser session and ends with the session;
            at most 400 days (RFC 6265bis). Default False.
        insecure_http: True sends the cookie without Secure over plain http, with one warning in the log. For
            development: over http, some browsers and most HTTP libraries do not keep a Secure cookie.
        behind_tls_proxy: True if a proxy in front terminates TLS and every client comes through it. Each request
            then counts as https.
        sweep_every: A sweep of expired sessions follows one commit in this many; 0 leaves sweeping to you.
        sweep_limit: The largest number of sessions that one sweep removes.

    Raises:
        ConfigurationError: A value cannot work. The message names it and the remedy.
    """

    idle: Length = _IDLE
    absolute: Length = 30 * _DAY
    rotate_after: Length = "never"
    grace: float = 30.0
    on_conflict: Literal["last", "error"] = "last"
    max_value_bytes: int = 1024 * 1024
    cookie_name: str = "sid"
    path: str = "/"
    domain: str | None = None
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    partitioned: bool = False
    persistent: bool = False
    insecure_http: bool = False
    behind_tls_proxy: bool = False
    sweep_every: int = 100
    sweep_limit: int = 100

    def __post_init__(self) -> None:
        for name in ("idle", "absolute", "rotate_after"):
            _check_length(name, getattr(self, name))
        _check_number("grace", self.grace, least=0.0, most=_HOUR)
        _check_number("max_value_bytes", self.max_value_bytes, least=1, most=2**30, whole=True)
        _check_number("sweep_every", self.sweep_every, least=0, most=2**31, whole=True)
        _check_number("sweep_limit", self.sweep_limit, least=1, most=100_000, whole=True)
        _check_choice("on_conflict", self.on_conflict, ("last", "error"))
        _check_choice("same_site", self.same_site, ("Lax", "Strict", "None"))
        for field in fields(self):
            if field.type == "bool" and type(getattr(self, field.name)) is not bool:
                raise ConfigurationError(f"Policy({field.name}=...) must be True or False")
        if self.idle not in (_IDLE, "never") and self.absolute_seconds < self.idle_seconds < NEVER:
            raise ConfigurationError(
                "Policy(idle=..., absolute=...): idle is longer than absolute and would have no effect: increase"
                " absolute, or omit idle"
            )
        self._check_cookie()

    def _check_cookie(self) -> None:
        if not isinstance(self.cookie_name, str) or _COOKIE_NAME.fullmatch(self.cookie_name) is None:
            raise ConfigurationError(
                "Policy(cookie_name=...) must be 1 to 64 letters, digits or any of !#$%&'*+-.^_`|~"
            )
        if self.cookie_name.lower().startswith(("__host-", "__secure-", "__http-")):
            raise ConfigurationError(
                "Policy(cookie_name=...) must not have a prefix: __Host- or __Secure- is added automatically"
            )
        if not isinstance(self.path, str) or not is_path(self.path):
            raise ConfigurationError(
                "Policy(path=...) must start with '/' and contain no space, ';' or control character"
            )
        if self.domain is not None and (not isinstance(self.domain, str) or not is_domain(self.domain)):
            raise ConfigurationError("Policy(domain=...) must be a host name such as 'example.org', or None")
        if self.insecure_http and (self.same_site == "None" or self.partitioned):
            raise ConfigurationError(
                "Policy(insecure_http=True) cannot be combined with same_site='None' or partitioned=True:"
                " browsers accept these only with Secure"
            )

    @classmethod
    def aal2(cls) -> Policy:
        """Lifetimes of NIST SP 800-63B-4 at assurance level 2: 1 hour idle, 24 hours in all."""
        return cls(idle=_HOUR, absolute=_DAY)

    @classmethod
    def aal3(cls) -> Policy:
        """Lifetimes of NIST SP 800-63B-4 at assurance level 3: 15 minutes idle, 12 hours in all."""
        return cls(idle=15 * _MINUTE, absolute=12 * _HOUR)

    @property
    def idle_seconds(self) -> float:
        """`idle` as a number; `NEVER` means no limit."""
        return NEVER if self.idle == "never" else float(self.idle)

    @property
    def absolute_seconds(self) -> float:
        """`absolute` as a number; `NEVER` means no limit."""
        return NEVER if self.absolute == "never" else float(self.absolute)


def is_path(text: str) -> bool:
    """Check that *text* can be the Path of a cookie."""
    return _PATH.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """Check that *text* can be the Domain of a cookie."""
    return _DOMAIN.fullmatch(text) is not None


def _check_length(name: str, value: object) -> None:
    if value != "never":
        _check_number(name, value, least=1.0, most=NEVER, hint="; for no limit use 'never'")


def _check_number(name: str, value: object, *, least: float, most: float, whole: bool = False, hint: str = "") -> None:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if type(value) not in kinds or not least <= value <= most:  # type: ignore[operator]  # the type is checked first
        upper = "" if most >= NEVER else f" and at most {most:g}"
        what = "a whole number" if whole else "a number of seconds"
        raise ConfigurationError(f"Policy({name}=...) must be {what}, at least {least:g}{upper}{hint}")


def _check_choice(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"Policy({name}=...) must be one of {', '.join(map(repr, choices))}")
