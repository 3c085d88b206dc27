"""When a session gets a new token, which one, and for how long the old one works beside it. No I/O."""

from __future__ import annotations

from typing import Final

from coatcheck.errors import CoatcheckError
from coatcheck.state import MOST_DRAWS, State
from coatcheck.token import Token

__all__ = ["MAX_DRAWS", "check_draws", "is_due", "rotation"]

MAX_DRAWS: Final = 3
"""How many new tokens in a row may be taken already."""


def rotation(state: State, now: float) -> tuple[Token | None, float]:
    """Return the token that is due, or None, and the seconds for which the old one still works."""
    if state.closed_headers:
        return None, 0.0
    if state.wish.rotate or state.wish.login is not None:
        return _successor(state), 0.0
    if not is_due(state, now):
        return None, 0.0
    return _successor(state), _grace(state)


def _successor(state: State) -> Token:
    assert state.token is not None  # noqa: S101 (only a token that is there has a successor)
    for _ in range(MOST_DRAWS):
        token = Token.successor(state.token.digest, state.rotation_bits) if state.rotation_bits else Token.new()
        if state.driver is None or state.driver.takes(token.digest, None):
            break
    return token


def is_due(state: State, now: float) -> bool:
    """Check whether the periodic rotation of a session is due."""
    record, policy = state.record, state.policy
    # A token that is presented for the first time is confirmed first, which starts the grace of the one before it.
    if record is None or record.fresh or not state.used or policy.rotate_after == "never":
        return False
    return now - record.rotated >= (_grace(state) if record.stale else policy.rotate_after)


def _grace(state: State) -> float:
    """Return the grace of a periodic rotation, which is never 0: that would be a rotation without one."""
    return max(state.policy.grace, 0.001)


def check_draws(draws: int) -> None:
    """Check how many newly drawn tokens in a row storage had already.

    Raises:
        CoatcheckError: Too many for chance.
    """
    if draws >= MAX_DRAWS:
        raise CoatcheckError(
            f"{MAX_DRAWS} newly drawn tokens in a row were taken: the system's random generator is broken"
        )
