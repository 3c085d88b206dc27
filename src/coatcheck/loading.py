"""What to ask of a driver to find out which session a request belongs to. No I/O: see `steps`."""

from __future__ import annotations

from coatcheck.errors import DriverUnavailable
from coatcheck.events import Event, EventKind
from coatcheck.record import Missing, Record
from coatcheck.state import State
from coatcheck.steps import Call, Steps
from coatcheck.token import Token

__all__ = ["load"]


def load(state: State, now: float) -> Steps:
    """Find out which session, if any, the request belongs to.

    Raises:
        DriverUnavailable: Storage failed.
    """
    found: list[tuple[Token, Record]] = []
    absent: list[tuple[Token, Missing]] = []
    for token in state.candidates:
        try:
            answer: Record | Missing = yield Call("load", (token.digest, now))
        except DriverUnavailable as error:
            if state.loaded:  # another task of the request succeeded
                return
            state.load_failed(error)
            raise
        if isinstance(answer, Record):
            found.append((token, answer))
        else:
            absent.append((token, answer))
    if state.loaded:  # another task of the request was faster
        return
    if len(state.candidates) == 1:
        state.answered(found[0][1] if found else absent[0][1], now)
        return
    state.emit(Event(kind=EventKind.DUPLICATES))
    # The old and the new token of one rotation open the same session; the new one is in force.
    sessions = {record.sid: (token, record) for token, record in sorted(found, key=lambda each: not each[1].stale)}
    if len(sessions) == 1:
        state.adopt(*sessions.popitem()[1], None)
        return
    state.unsettled = tuple(token for token, _ in found)
    state.not_found(absent, now)
