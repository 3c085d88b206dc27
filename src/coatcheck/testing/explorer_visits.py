"""What the explorer lets requests do: the kinds of request, and the sessions that they find when they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from coatcheck.session import Session

__all__ = [
    "BEGINNINGS",
    "EXPIRY",
    "IDLE",
    "KINDS",
    "SEED",
    "USER",
    "Abandoned",
    "Beginning",
    "Guest",
    "VisitKind",
    "mark_of",
]

USER: Final = "ada"
IDLE: Final = 30.0
"""Seconds without use after which each session of an exploration ends."""

SEED: Final[dict[str, Any]] = {"cart": ["seed"], "n": 1, "colour": "seed"}
"""What the browser's session holds in the beginning."""

EXPIRY: Final = "expiry"
"""In place of a request: the clock moves until every session that was made before has expired."""


class Abandoned(Exception):
    """The application failed, so nothing of its request is saved."""


class Guest(Protocol):
    """A request, as its kind sees it.

    Attributes:
        name: What it writes where its writes are to be told from those of others.
        weight: What it adds to a counter, likewise.
        session: Its session.
        seen: The user and the values that it found, or None if there was no session.
    """

    name: str
    weight: int
    session: Session
    seen: tuple[str | None, dict[str, Any]] | None

    async def look(self) -> None:
        """Read the session, and remember what was in it."""

    async def think(self) -> None:
        """Let others go on, as an application does that is busy with something else."""

    async def revoke(self) -> None:
        """End all sessions of `USER`."""


Act = Callable[[Guest], Awaitable[None]]
Effect = Callable[[dict[str, Any], Guest], None]


def mark_of(guest: Guest) -> str:
    """Return the key that only this request writes."""
    return f"by {guest.name}"


def _mark(values: dict[str, Any], guest: Guest) -> None:
    values[mark_of(guest)] = guest.name


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitKind:
    """A kind of request, as a program and as the model has it.

    Attributes:
        name: What it is called in the report.
        act: What it does.
        effect: What its save does to the values of the session that it is written to. It may use what the request saw.
        writes: True if it has something to write.
        logs_in: True if it logs `USER` in.
        keeps: True if the log-in keeps the cart.
        ends: True if it ends the session.
        rotates: True if it asks for a new token.
        renews: True if its manager renews old tokens by itself.
        revokes: True if it revokes `USER`.
        saves: False if it is not saved.
    """

    name: str
    act: Act
    effect: Effect = lambda values, guest: None  # noqa: ARG005 (most of them use both)
    writes: bool = False
    logs_in: bool = False
    keeps: bool = False
    ends: bool = False
    rotates: bool = False
    renews: bool = False
    revokes: bool = False
    saves: bool = True


async def _read(guest: Guest) -> None:
    await guest.look()


async def _write(guest: Guest) -> None:
    await guest.think()
    guest.session["colour"] = guest.name
    guest.session[mark_of(guest)] = guest.name


def _written(values: dict[str, Any], guest: Guest) -> None:
    values["colour"] = guest.name
    _mark(values, guest)


async def _change(guest: Guest) -> None:
    await guest.look()
    guest.session["colour"] = f"{guest.session.get('colour')} {guest.name}"
    guest.session[mark_of(guest)] = guest.name


def _changed(values: dict[str, Any], guest: Guest) -> None:
    values["colour"] = f"{guest.seen[1].get('colour') if guest.seen else None} {guest.name}"
    _mark(values, guest)


async def _append(guest: Guest) -> None:
    await guest.look()
    guest.session.setdefault("cart", []).append(guest.name)


def _appended(values: dict[str, Any], guest: Guest) -> None:
    values["cart"] = [*values.get("cart", []), guest.name]


async def _increment(guest: Guest) -> None:
    await guest.think()
    guest.session.increment("n", guest.weight)


def _incremented(values: dict[str, Any], guest: Guest) -> None:
    values["n"] = values.get("n", 0) + guest.weight


async def _log_in(guest: Guest) -> None:
    await guest.think()
    guest.session.login(USER)
    guest.session[mark_of(guest)] = guest.name


async def _log_in_keeping(guest: Guest) -> None:
    await guest.look()
    guest.session.login(USER, keep=["cart"])
    guest.session[mark_of(guest)] = guest.name


async def _log_out(guest: Guest) -> None:
    await guest.think()
    guest.session.logout()


async def _destroy(guest: Guest) -> None:
    await guest.look()
    guest.session.destroy()
    guest.session[mark_of(guest)] = guest.name


async def _rotate(guest: Guest) -> None:
    await guest.think()
    guest.session.rotate()
    guest.session[mark_of(guest)] = guest.name


async def _revoke(guest: Guest) -> None:
    await guest.think()
    await guest.revoke()


async def _revoke_own(guest: Guest) -> None:
    await guest.look()
    await guest.revoke()
    guest.session[mark_of(guest)] = guest.name


async def _revoke_and_log_in(guest: Guest) -> None:
    await guest.look()
    await guest.revoke()
    guest.session.login(USER, keep=["cart"])
    guest.session[mark_of(guest)] = guest.name


async def _abandon(guest: Guest) -> None:
    await guest.look()
    guest.session.setdefault("cart", []).append(guest.name)
    raise Abandoned


KINDS: Final = {
    kind.name: kind
    for kind in (
        VisitKind(name="read", act=_read),
        VisitKind(name="write unread", act=_write, effect=_written, writes=True),
        VisitKind(name="read and change", act=_change, effect=_changed, writes=True),
        VisitKind(name="append", act=_append, effect=_appended, writes=True),
        VisitKind(name="increment", act=_increment, effect=_incremented, writes=True),
        VisitKind(name="log in", act=_log_in, effect=_mark, writes=True, logs_in=True),
        VisitKind(name="log in, keep", act=_log_in_keeping, effect=_mark, writes=True, logs_in=True, keeps=True),
        VisitKind(name="log out", act=_log_out, ends=True),
        VisitKind(name="destroy and write", act=_destroy, effect=_mark, writes=True, ends=True),
        VisitKind(name="rotate", act=_rotate, effect=_mark, writes=True, rotates=True),
        VisitKind(name="append, renewal due", act=_append, effect=_appended, writes=True, renews=True),
        VisitKind(name="revoke the user", act=_revoke, revokes=True, saves=False),
        VisitKind(name="revoke own user", act=_revoke_own, effect=_mark, writes=True, revokes=True),
        VisitKind(
            name="revoke and log in",
            act=_revoke_and_log_in,
            effect=_mark,
            writes=True,
            logs_in=True,
            keeps=True,
            revokes=True,
        ),
        VisitKind(name="abandon", act=_abandon, saves=False),
    )
}
"""The kinds of request, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What the requests find when they come.

    Attributes:
        name: What it is called in the report.
        stores: True if the browser has had a session.
        user: Who is logged in there.
        rotated: True if its token was rotated away a moment ago, while the requests were on their way.
        renewed: True if its token was renewed with a grace. The first and the third request bring the old one, the
            second brings the new one.
        ended: True if it was logged out a moment ago.
        expired: True if it has expired.
    """

    name: str
    stores: bool = True
    user: str | None = None
    rotated: bool = False
    renewed: bool = False
    ended: bool = False
    expired: bool = False


BEGINNINGS: Final = {
    beginning.name: beginning
    for beginning in (
        Beginning(name="no session", stores=False),
        Beginning(name="anonymous"),
        Beginning(name="logged in", user=USER),
        Beginning(name="logged in as another", user="eve"),
        Beginning(name="just rotated", user=USER, rotated=True),
        Beginning(name="just renewed", user=USER, renewed=True),
        Beginning(name="just logged out", user=USER, ended=True),
        Beginning(name="expired", expired=True),
    )
}
"""The states in which requests find the session of their browser, by name."""
