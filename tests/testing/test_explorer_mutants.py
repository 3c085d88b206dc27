"""The explorer finds what is broken on purpose, in drivers and in the plan of a save."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from coatcheck import creating, reconcile, rotation, saving
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.record import Answer, Committed, Delta, Gone, Missing, Put, Reason, Record
from coatcheck.state import State
from coatcheck.steps import Call
from coatcheck.testing import explore

pytestmark = pytest.mark.slow  # a minute in all, on two processors


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class AcknowledgesTheLost(MemoryDriver):
    """Says that a commit to a session that has ended was done."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        answer = super().commit(digest, delta, now)
        return Committed(1) if isinstance(answer, Gone) else answer


class Revives(MemoryDriver):
    """Brings a session that was logged out back to life when somebody writes to it."""

    def revoke(self, digest: bytes, now: float) -> bool:
        self._buried = self._digests.get(digest)
        return super().revoke(digest, now)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        held = getattr(self, "_buried", None)
        if held is not None and held.digest == digest and digest not in self._digests:
            self._sessions[held.info.sid] = self._digests[digest] = held
        return super().commit(digest, delta, now)


class LosesUpdates(MemoryDriver):
    """Takes every write as if nobody had looked before."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        puts = {name: Put(put.data) for name, put in delta.puts.items()}
        return super().commit(digest, replace(delta, puts=puts), now)


class CountsTwice(MemoryDriver):
    """Adds twice where a session was counted in before."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        counted = self._digests[digest].values.get(("", "n")) if digest in self._digests else None
        answer = super().commit(digest, delta, now)
        if delta.increments and counted is not None and counted.data != 1:
            super().commit(digest, delta, now)
        return answer


class ForgetsFences(MemoryDriver):
    """Lets a log-in slip through a revocation."""

    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        ended = super().revoke_user(user, now, keep=keep)
        self._fences.clear()
        return ended


class KeepsOldTokens(MemoryDriver):
    """Leaves the old token of a log-in alive."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, delta, grace or 30.0, now)


class LogsOutLate(MemoryDriver):
    """Does not end a session by a token that was rotated away."""

    def revoke(self, digest: bytes, now: float) -> bool:
        return digest in self._digests and super().revoke(digest, now)


class SaysNotWhen(MemoryDriver):
    """Does not say when a session ended."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        answer = super().load(digest, now)
        return Missing(answer.reason, answer.heir) if isinstance(answer, Missing) else answer


class MixesUp(MemoryDriver):
    """Opens another session of the same user with a token in its grace."""

    def load(self, digest: bytes, now: float) -> Record | Missing:
        answer = super().load(digest, now)
        if isinstance(answer, Record) and answer.stale:
            other = next(held for held in self._sessions.values() if held.info.user == answer.user)
            return replace(answer, values=dict(other.values))
        return answer


DRIVERS = [
    (AcknowledgesTheLost, ("append", "log out"), "logged in"),
    (Revives, ("write unread", "log out"), "logged in"),
    (LosesUpdates, ("append", "append"), "anonymous"),
    (CountsTwice, ("increment", "increment"), "anonymous"),
    (ForgetsFences, ("log in", "revoke the user"), "anonymous"),
    (KeepsOldTokens, ("write unread", "log in"), "anonymous"),
    (LogsOutLate, ("log out", "rotate"), "logged in"),
    (SaysNotWhen, ("write unread", "log out"), "logged in"),
    (MixesUp, ("read", "read"), "just renewed"),
]


@pytest.mark.parametrize(("driver", "pair", "beginning"), DRIVERS, ids=[each.__name__ for each, *_ in DRIVERS])
def test_a_broken_driver_is_found(driver: type[MemoryDriver], pair: tuple[str, str], beginning: str) -> None:
    assert explore(MemoryDriver, [pair], [beginning]).failures == ()
    assert explore(driver, [pair], [beginning], most_failures=1).failures


def no_steps(*args: object) -> Any:
    """Do nothing, in place of some steps of a plan."""
    yield from ()


def refused_unless_alive(state: Any, answer: Gone, now: float) -> Any:
    """Take a session under a new token for one that has ended, as a version before did."""
    if state.wish.login is None or state.token is None or answer.reason is not Reason.REVOKED:
        return False
    return isinstance((yield Call("load", (state.token.digest, now))), Record)


def mine_wins(base: object, mine: object, theirs: object, same: object) -> tuple[object, bool]:
    """Write over what others have written, in place of a merge."""
    return mine, False


def never(*args: object) -> bool:
    """Find nothing due."""
    return False


def silent(refused: Callable[[Any], None]) -> Callable[[Any], None]:
    """Do not tell the application that its log-in was refused."""

    def told(state: Any) -> None:
        refused(state)
        state.refused = False

    return told


PLANS: list[tuple[Any, str, Any, tuple[str, str], str]] = [
    (creating, "_is_overtaken", no_steps, ("write unread", "log in"), "just logged out"),
    (creating, "_hold_others_back", no_steps, ("write unread", "log in"), "expired"),
    (saving, "_is_login_refused", refused_unless_alive, ("log in", "revoke and log in"), "anonymous"),
    (State, "login_refused", silent(State.login_refused), ("log in", "revoke the user"), "anonymous"),
    (rotation, "is_due", never, ("append, renewal due", "read"), "anonymous"),
    (reconcile, "merge", mine_wins, ("append", "append"), "anonymous"),
]


@pytest.mark.parametrize(("owner", "name", "mutant", "pair", "beginning"), PLANS, ids=[name for _, name, *_ in PLANS])
def test_a_broken_plan_is_found(
    owner: Any, name: str, mutant: Any, pair: tuple[str, str], beginning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    assert explore(MemoryDriver, [pair], [beginning], most_failures=1).failures
