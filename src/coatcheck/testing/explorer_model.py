"""What requests may do to sessions, as a plain model: a few dicts, without storage, codec, cookie or version.

The model takes one step of a request after the other, and raises `Disagreement` where the request came to another
answer. `coatcheck.testing.explorer_judge` looks for the order of the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from coatcheck.events import EventKind
from coatcheck.record import CLOCK_SKEW, REPLY_TIME
from coatcheck.testing.explorer_run import GRACE, Schedule, Step, View, Visit
from coatcheck.testing.explorer_visits import IDLE, USER

__all__ = ["Disagreement", "SessionModel"]

_TOLD: Final = frozenset({EventKind.GONE, EventKind.UNKNOWN_ID, EventKind.EXPIRED, EventKind.LOGIN_REFUSED})
_LIVE, _EXPIRED, _ROTATED, _REVOKED, _NONE = "live", "expired", "rotated", "revoked", "none"


class Disagreement(Exception):
    """The schedule and the model do not agree on a step."""


@dataclass(slots=True)
class _Held:
    """A session of the model."""

    user: str | None
    values: dict[str, Any]
    ends: float
    newest: str
    prior: str | None = None  # the older token that still works, after a renewal
    prior_until: float = 0.0
    is_alive: bool = True
    is_aged: bool = False  # its token is so old that a renewal is due


@dataclass(slots=True)
class _Key:
    """A token of the model, and what it opens or opened."""

    session: int | None
    why: str = _LIVE
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What a request knew of its session after it had looked."""

    is_live: bool
    is_late: bool = False
    was_rotated: bool = False
    is_aged: bool = False
    heir: View = None


class SessionModel:
    """What is stored, as far as requests know.

    Args:
        schedule: Its beginning is the model's own.
    """

    def __init__(self, schedule: Schedule) -> None:
        beginning, began = schedule.beginning, schedule.began
        self._fence = -math.inf
        self._sessions: list[_Held] = []
        self._keys: dict[str, _Key] = {}
        self._looks: dict[Visit, _Look] = {}
        self._own_ends: dict[Visit, float] = {}
        self._ended: dict[Visit, bool] = {}
        for token, view in list(schedule.known.items())[:3]:
            assert view is not None  # noqa: S101 (each was just made)
            self._keys[token] = _Key(len(self._sessions))
            self._sessions.append(_Held(view[0], dict(view[1]), began if beginning.expired else began + IDLE, token))
        self._old = len(self._sessions)
        if not beginning.stores:
            return
        *_, held = self._sessions
        old, new = held.newest, list(schedule.known)[-1]
        held.is_aged = old == new
        if beginning.rotated or beginning.renewed:
            held.newest, self._keys[new] = new, _Key(self._keys[old].session)
        if beginning.rotated:
            self._keys[old].why, self._keys[old].ended = _ROTATED, began
        if beginning.renewed:
            held.prior, held.prior_until = old, math.inf
        if beginning.ended:
            self._bury(held, began)

    def copy(self) -> SessionModel:
        """Return a copy that changes by itself."""
        other = object.__new__(SessionModel)
        other._fence, other._old = self._fence, self._old
        other._sessions = [replace(held, values=dict(held.values)) for held in self._sessions]
        other._keys = {token: replace(key) for token, key in self._keys.items()}
        other._looks = dict(self._looks)
        other._own_ends = dict(self._own_ends)
        other._ended = dict(self._ended)
        return other

    # -- what is asked in the end

    def view(self, token: str, now: float) -> View:
        """Return what a token opens."""
        why, held, _ = self._find(token, now)
        return (held.user, held.values) if why == _LIVE and held is not None else None

    def holder(self, token: str | None, now: float) -> _Held | None:
        """Return the session that a token opens, if it is alive."""
        why, held, _ = self._find(token, now)
        return held if why == _LIVE else None

    def live(self, now: float, user: str) -> int:
        """Return how many sessions of *user* are alive."""
        return sum(held.is_alive and held.ends > now and held.user == user for held in self._sessions)

    def made(self, now: float) -> int:
        """Return how many of the sessions that the requests made are alive."""
        return sum(held.is_alive and held.ends > now for held in self._sessions[self._old :])

    def has_logged_out(self, visit: Visit) -> bool:
        """Check whether a request ended the session that it came with, on purpose."""
        return self._ended.get(visit, False)

    # -- what a step does

    def take(self, step: Step) -> None:
        """Do a step.

        Raises:
            Disagreement: The schedule came to another answer.
        """
        getattr(self, f"_{step.what}")(step.visit, step.at)

    def _look(self, visit: Visit, now: float) -> None:
        view = None if visit.brought is None else self.view(visit.brought, now)
        self._agree(visit, "what it sees", visit.seen, view)
        self._peek(visit, now)

    def _peek(self, visit: Visit, now: float) -> None:
        """Find out what there is, as a log-out does for itself."""
        why, held, _ = self._find(visit.brought, now)
        if why == _LIVE and held is not None:
            self._looks[visit] = _Look(is_live=True, is_aged=held.is_aged)
            return
        heir = None
        if why == _ROTATED and held is not None and held.is_alive and held.ends > now:
            heir = held.user, dict(held.values)
        late = self._is_late(visit, now)
        self._looks[visit] = _Look(is_live=False, is_late=late, was_rotated=why == _ROTATED, heir=heir)

    def _revoke(self, visit: Visit, now: float) -> None:
        self._agree(visit, "how many sessions it ends", visit.revoked, self.live(now, USER))
        look = self._looks.get(visit)
        if look is not None and look.is_live and visit.seen is not None and visit.seen[0] == USER:
            self._looks[visit] = _Look(is_live=False)
        for held in self._sessions:
            if held.user == USER and held.is_alive:
                self._bury(held, now)
        self._fence = max(self._fence, now)
        self._own_ends[visit] = now

    def _hold(self, visit: Visit, now: float) -> None:
        """Keep other requests with the dead token of a log-in from beginning a session."""
        why, _, _ = self._find(visit.brought, now)
        if why in {_EXPIRED, _REVOKED} and visit.brought is not None:
            self._revoke_key(visit.brought, now + REPLY_TIME)

    def _end(self, visit: Visit, now: float) -> None:
        """End the session of a request that asks for it."""
        look = self._looks[visit]
        if not (look.is_live or look.was_rotated):
            return
        why, held, _ = self._find(visit.brought, now)
        assert visit.brought is not None  # noqa: S101 (a session was found)
        was_live = why in {_LIVE, _ROTATED} and held is not None and held.is_alive and held.ends > now
        self._revoke_key(visit.brought, now)
        self._ended[visit] = was_live
        if was_live:
            self._own_ends[visit] = now

    def _save(self, visit: Visit, now: float) -> None:
        if visit.error is not None:
            raise Disagreement(f"{visit.name}: its save raised {visit.error!r}")
        self._agree(visit, "whether it told of an end", EventKind.DESTROYED in visit.told, self._has_ended(visit))
        if visit.kind.logs_in:
            self._log_in(visit, now)
        elif not visit.kind.writes:
            self._save_nothing(visit, now)
        elif visit.kind.ends and visit in self._ended:
            self._write_after_end(visit, now)
        else:
            self._write(visit, now)

    def _has_ended(self, visit: Visit) -> bool:
        return self._ended.get(visit, False) or visit.revoked > 0

    def _save_nothing(self, visit: Visit, now: float) -> None:
        is_deleted = self._ended.get(visit, False)
        self._agree(visit, "its cookie", visit.reply, "deletion" if is_deleted else None)
        held = self.holder(visit.brought, now)
        if held is not None and visit in self._looks:
            self._use(held, visit, now)

    def _write_after_end(self, visit: Visit, now: float) -> None:
        if not self._ended[visit]:
            self._drop(visit)
        elif self._looks[visit].was_rotated and EventKind.CREATED not in visit.told:
            self._drop(visit, "deletion")  # it came too late to write, but not to log out
        else:
            self._create(visit, None, {}, now)

    def _write(self, visit: Visit, now: float) -> None:
        look, held = self._looks.get(visit), self.holder(visit.brought, now)
        if held is not None and (look is None or look.is_live):
            self._change(visit, held, now)
        elif (look is not None and (look.is_live or look.is_late)) or self._is_late(visit, now):
            self._drop(visit)
        else:
            self._create(visit, None, {}, now)

    def _change(self, visit: Visit, held: _Held, now: float) -> None:
        clashes = visit.kind.name == "read and change" and self._colour(visit.seen) != self._colour((None, held.values))
        self._agree(visit, "whether it told of a conflict", EventKind.CONFLICT in visit.told, clashes)
        self._kept(visit)
        visit.kind.effect(held.values, visit)
        renews = visit.kind.renews and self._looks[visit].is_aged and visit.brought == held.newest
        self._use(held, visit, now)
        if renews:
            token = self._new_token(visit)
            self._keys[token] = _Key(self._keys[held.newest].session)
            held.prior, held.prior_until, held.newest, held.is_aged = held.newest, math.inf, token, False
        elif visit.kind.rotates:
            self._replace_token(held, self._new_token(visit), now)
        else:
            self._agree(visit, "its cookie", visit.reply, None)

    @staticmethod
    def _colour(view: View) -> object:
        return None if view is None else view[1].get("colour")

    def _log_in(self, visit: Visit, now: float) -> None:
        look, held = self._looks.get(visit), self.holder(visit.brought, now)
        moment = visit.opened
        if revoked := [step.at for step in visit.steps if step.what == "revoke"]:
            moment = math.nextafter(revoked[0], math.inf)
        is_refused = moment <= self._fence
        self._agree(visit, "whether it is refused", visit.refused, is_refused)
        if is_refused:
            self._agree(visit, "its cookie", visit.reply, None)
            if EventKind.LOGIN_REFUSED not in visit.told:
                raise Disagreement(f"{visit.name}: nobody was told that it was refused")
            return
        if EventKind.PRIVILEGE_CHANGED not in visit.told:
            raise Disagreement(f"{visit.name}: nobody was told of its log-in")
        if held is not None and (look is None or look.is_live):
            held.values = self._cart_for(visit, (held.user, held.values))
            visit.kind.effect(held.values, visit)
            self._use(held, visit, now)
            held.user = USER
            self._replace_token(held, self._new_token(visit), now)
            return
        why, _, _ = self._find(visit.brought, now)
        values: dict[str, Any] = {}
        if look is not None and look.is_live and why == _ROTATED:
            values = self._cart_for(visit, visit.seen)
        elif look is not None and look.heir is not None and look.heir[0] == USER:
            values = self._cart_for(visit, look.heir)
        self._hold(visit, now)
        self._create(visit, USER, values, now)

    @staticmethod
    def _cart_for(visit: Visit, view: View) -> dict[str, Any]:
        """Return what a log-in keeps of what was there."""
        if view is None or not visit.kind.keeps or (visit.seen is not None and visit.seen[0] not in {None, USER}):
            return {}
        return {"cart": view[1]["cart"]} if "cart" in view[1] else {}

    # -- parts of a step

    def _find(self, given: str | None, now: float) -> tuple[str, _Held | None, float]:
        """Return why a token opens nothing, or that it does; the session; and when it ended."""
        key = None if given is None else self._keys[given]
        if key is None or key.session is None:
            return _NONE, None, 0.0
        held = self._sessions[key.session]
        if key.why != _LIVE:
            return key.why, held, key.ended
        if held.ends <= now:
            return _EXPIRED, held, 0.0
        if given == held.prior and held.prior_until <= now:
            return _ROTATED, held, held.prior_until
        return _LIVE, held, 0.0

    def _is_late(self, visit: Visit, now: float) -> bool:
        why, _, ended = self._find(visit.brought, now)
        if why not in {_ROTATED, _REVOKED} or ended > now + CLOCK_SKEW or self._own_ends.get(visit) == ended:
            return False
        return visit.opened <= ended + (REPLY_TIME if why == _ROTATED else 0.0)

    def _revoke_key(self, token: str, at: float) -> None:
        key = self._keys[token]
        if key.session is not None and self._sessions[key.session].is_alive:
            self._bury(self._sessions[key.session], at)
        key.why, key.ended = _REVOKED, at

    def _bury(self, held: _Held, at: float) -> None:
        held.is_alive = False
        for token in {held.newest, held.prior}:
            if token is not None:
                self._keys[token].why, self._keys[token].ended = _REVOKED, at

    def _replace_token(self, held: _Held, token: str, at: float) -> None:
        for old in {held.newest, held.prior}:
            if old is not None:
                self._keys[old].why, self._keys[old].ended = _ROTATED, at
        index = self._keys[held.newest].session
        held.newest, held.prior, held.prior_until, held.is_aged = token, None, 0.0, False
        self._keys[token] = _Key(index)

    def _use(self, held: _Held, visit: Visit, now: float) -> None:
        """Record activity; the first under a new token starts the grace of the older one."""
        held.ends = max(held.ends, now + IDLE)
        if visit.brought == held.newest and held.prior is not None and held.prior_until == math.inf:
            held.prior_until = now + GRACE

    def _create(self, visit: Visit, user: str | None, values: dict[str, Any], now: float) -> None:
        if EventKind.CREATED not in visit.told:
            raise Disagreement(f"{visit.name}: nobody was told that its session was made")
        visit.kind.effect(values, visit)
        token = self._new_token(visit)
        self._keys[token] = _Key(len(self._sessions))
        self._sessions.append(_Held(user, values, now + IDLE, token))

    def _new_token(self, visit: Visit) -> str:
        if visit.reply in {None, "deletion"} or visit.reply in self._keys:
            raise Disagreement(f"{visit.name}: its cookie should be that of a new token, and is not")
        assert visit.reply is not None  # noqa: S101 (see above)
        return visit.reply

    def _drop(self, visit: Visit, cookie: str | None = None) -> None:
        """Check that a change that came too late was not acknowledged."""
        self._agree(visit, "its cookie", visit.reply, cookie)
        if EventKind.CREATED in visit.told or not visit.told & _TOLD:
            raise Disagreement(f"{visit.name}: nobody was told that it came too late")

    def _kept(self, visit: Visit) -> None:
        """Check that a change that was written was not said to be lost."""
        if visit.told & _TOLD or EventKind.CREATED in visit.told:
            raise Disagreement(f"{visit.name}: its change was written, and its events say otherwise")

    @staticmethod
    def _agree(visit: Visit, what: str, found: object, right: object) -> None:
        if found != right:
            raise Disagreement(f"{visit.name}: {what} is {_shown(found)}, and should be {_shown(right)}")


def _shown(value: object) -> str:
    """Return *value* for a report, without tokens."""
    return "a token" if isinstance(value, str) and value != "deletion" else repr(value)
