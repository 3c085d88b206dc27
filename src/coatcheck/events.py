"""What happened to sessions, as typed events: to the log and to callbacks (ASVS 16.3.3). No token is in any of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coatcheck.record import Reason, ValueKey

__all__ = ["Event", "EventKind", "Listener", "emit"]

_log: Final = logging.getLogger("coatcheck")


class EventKind(StrEnum):
    """What an event tells of."""

    CREATED = "created"
    RENEWED = "renewed"
    EXPIRED = "expired"
    DESTROYED = "destroyed"
    PRIVILEGE_CHANGED = "privilege changed"
    LOGIN_REFUSED = "login refused"
    UNKNOWN_ID = "unknown id"
    DUPLICATES = "duplicate cookies"
    JOINED = "joined cookies"
    UNREADABLE = "unreadable"
    CONFLICT = "conflict"
    GONE = "gone"
    UNAVAILABLE = "unavailable"
    AT_RISK = "at risk"


_LEVELS: Final = {
    EventKind.LOGIN_REFUSED: logging.WARNING,
    EventKind.UNKNOWN_ID: logging.WARNING,
    EventKind.DUPLICATES: logging.WARNING,
    EventKind.JOINED: logging.WARNING,
    EventKind.UNREADABLE: logging.WARNING,
    EventKind.CONFLICT: logging.WARNING,
    EventKind.GONE: logging.WARNING,
    EventKind.UNAVAILABLE: logging.ERROR,
    EventKind.AT_RISK: logging.WARNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a session.

    Attributes:
        kind: What happened.
        sid: The session's public name, or None where there is no session or it is not known.
        user: The user who is logged in, or None.
        reason: Why the session is gone, where that is known.
        keys: The values concerned, as (app, key).
        why: With `AT_RISK`, what may lose sessions and how to mend it; with `JOINED`, what was not read and the remedy.
    """

    kind: EventKind
    sid: str | None = None
    user: str | None = None
    reason: Reason | None = None
    keys: tuple[ValueKey, ...] = ()
    why: str | None = None


Listener = Callable[[Event], None]
"""A function that is told of each event, on the thread of the request. An error in it is logged and goes no further."""


def emit(listeners: Iterable[Listener], event: Event) -> None:
    """Write *event* to the logger ``coatcheck`` and hand it to each listener."""
    # repr keeps a key or user name with line breaks in it on one line, so that nobody forges a second one.
    details = "".join(
        f" {name}={value!r}"
        for name, value in (("sid", event.sid), ("user", event.user), ("keys", event.keys or None), ("why", event.why))
        if value is not None
    )
    reason = f" reason={event.reason}" if event.reason is not None else ""
    cause = sys.exception() if event.kind is EventKind.UNAVAILABLE else None  # the client's 503 does not say why
    _log.log(_LEVELS.get(event.kind, logging.INFO), "session %s%s%s", event.kind, details, reason, exc_info=cause)
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 (whatever a listener does, the request goes on)
            _log.exception("a session event listener failed")
