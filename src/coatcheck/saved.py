"""What a save means for the response: its cookies. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coatcheck.cookie import MAX_AGE, deletions_of_others, set_cookie

if TYPE_CHECKING:
    from coatcheck.record import Delta, Record, SessionInfo
    from coatcheck.state import State
    from coatcheck.token import Token

__all__ = ["READ", "UNTOUCHED", "Saved", "cookie_end", "is_due_again", "reply", "token_cookie"]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save means for the response.

    Attributes:
        set_cookie: The value of the Set-Cookie header that brings the cookie or deletes it, or None for none at all.
        vary: True if the response depends on the session, so that caches have to tell users apart.
        deletions: The values of further Set-Cookie headers, to be sent before it: if the client sent several cookies
            of the name, they delete those that *set_cookie* does not replace.
        login_refused: True if the request's log-in was not stored, because the user's sessions were revoked after the
            request began. Nobody is logged in; the user has to log in again.
    """

    set_cookie: str | None = field(default=None, repr=False)
    vary: bool = False
    deletions: tuple[str, ...] = field(default=(), repr=False)
    login_refused: bool = False


UNTOUCHED: Final = Saved()
"""A session that nobody used."""

READ: Final = Saved(vary=True)
"""A session that was used, and no cookie to send."""


def reply(state: State, cookie: str | None) -> Saved:
    """Return what goes out with the response, if *cookie* is the one that is to come out of it."""
    if cookie is None or state.closed_headers:
        if state.refused:
            return Saved(vary=state.used, login_refused=True)
        return READ if state.used else UNTOUCHED
    others = deletions_of_others(state.policy, state.channel, *state.place) if state.doubled else ()
    return Saved(cookie, state.used, others, state.refused)


def cookie_end(record: SessionInfo) -> float:
    """Return the moment at which a persistent cookie may go. The idle limit is not counted in.

    A cookie that followed the idle limit would have to be sent again and again, and one that arrives beside the answer
    to a log-in would take the place of the new token. So it outlives an idle session, which storage ends (ASVS 7.3.1).
    """
    start = record.created if record.auth_time is None else record.auth_time
    return min(record.deadline, start + record.absolute)


def is_due_again(state: State, record: Record, delta: Delta, now: float) -> bool:
    """Check whether a persistent cookie is to be sent again under the same token.

    It is when its end changed. And a session without any other limit outlives its cookie, which browsers drop after 400
    days.
    """
    if not state.policy.persistent:
        return False
    return delta.deadline is not None or (cookie_end(record) - now > MAX_AGE and now - record.rotated > MAX_AGE / 2)


def token_cookie(state: State, token: Token, ends: float, now: float) -> str:
    """Return the cookie that brings *token* to the client."""
    lifetime = ends - now if state.policy.persistent else None
    return set_cookie(state.policy, state.channel, token.secret, lifetime)
