"""The end of a session, which parallel requests may move: moves by some seconds add up, and each of them is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Self

import coatcheck
from coatcheck.record import NEVER, Delta, Gone, Reason, Record, ValueKey
from web.session.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.adapter import Exchange

__all__ = ["EndTime", "Ending", "bounded", "just_before", "set_deadline"]

MARK: Final[ValueKey] = ("web:expiry", "changes")
"""A counter in each session whose end was changed, under an app that no store can have.

Storage compares versions of values, and an end has none. Each change of the end changes this counter too, in the same
commit: a change that was worked out from an end that is no longer the stored one is then refused, and worked out again.
"""


class EndTime(float):
    """The moment at which a session ends, in seconds since the epoch: a float that remembers whose end it is.

    A number added to it, or subtracted from it, is the end of the same session, moved by that many seconds. Everything
    else that is calculated with it is an ordinary float.

    Attributes:
        line: What the moves count from.
        moved: By how many seconds this moment lies after the one that they count from.
    """

    __slots__ = ("line", "moved")

    line: object
    moved: float

    def __new__(cls, moment: float, line: object, moved: float) -> Self:
        """Make one."""
        made = super().__new__(cls, moment)
        made.line = line
        made.moved = moved
        return made

    def __add__(self, seconds: float, /) -> float:
        if type(seconds) not in (int, float):
            return super().__add__(seconds)
        return EndTime(super().__add__(seconds), self.line, self.moved + seconds)

    __radd__ = __add__

    def __sub__(self, seconds: float, /) -> float:
        if type(seconds) not in (int, float):
            return super().__sub__(seconds)
        return EndTime(super().__sub__(seconds), self.line, self.moved - seconds)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Copy and pickle as an ordinary float."""
        return float, (float(self),)


class Ending:
    """The end of one request's session, and what the request does to it.

    Attributes:
        exchange: The request with the session.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Final = exchange
        self._line: object = object()
        self._moved = 0.0  # by how many seconds the request moved the end, all in all
        self._pending: list[Callable[[float], float]] = []  # the changes that are not known to last
        self._start = NEVER  # the end that these start from
        self._record: object = None  # the record that this end is from

    def time(self, moment: float) -> EndTime:
        """Return *moment*, the present end, as one that can be moved."""
        return EndTime(moment, self._line, self._moved)

    def set(self, moment: float) -> None:
        """Move the end if *moment* is this session's end plus some seconds; otherwise set it to *moment*."""
        if isinstance(moment, EndTime) and moment.line is self._line:
            seconds = moment.moved - self._moved
            self._moved = moment.moved
            self._change(lambda end: end + seconds)
        else:
            self._line, self._moved = object(), 0.0
            fixed = float(moment)
            self._change(lambda _end: fixed)

    def _change(self, function: Callable[[float], float]) -> None:
        exchange = self.exchange
        if not self._pending:
            self._start = _deadline_of(exchange)
        self._pending.append(function)
        exchange.deadline = bounded(function(_deadline_of(exchange)))
        if exchange.info is not None:  # otherwise it is not stored yet, and no other request can change its end
            self._record = exchange.info
            app, key = MARK
            coatcheck.Store(exchange.session, app).update_with(key, self._counted, 0)

    def _counted(self, number: int) -> int:
        record = self.exchange.info
        if record is not None and record is not self._record:  # read again, since another request changed the end
            self._start, self._record = record.deadline, record
            self.exchange.deadline = self._worked_out()
        return number + 1

    def _worked_out(self) -> float:
        end = self._start
        for function in self._pending:
            end = bounded(function(end))
        return end

    def lasts(self) -> None:
        """Record that the changes so far are stored permanently."""
        self._pending.clear()

    def undone(self) -> None:
        """Write the changes again: the transaction that they were written in did not last."""
        exchange = self.exchange
        if self._pending and exchange.token is not None and not exchange.ended:
            exchange.deadline = self._worked_out()


def _deadline_of(exchange: Exchange) -> float:
    if exchange.deadline is not None:
        return exchange.deadline
    return NEVER if exchange.info is None else exchange.info.deadline


def bounded(moment: object) -> float:
    """Return *moment* as an end that storage can hold.

    Raises:
        SessionError: It is not a number.
    """
    if type(moment) not in (int, float, EndTime) or moment != moment:  # noqa: PLR0124 (NaN)
        raise SessionError("setExpire: expireTime must be a number of seconds since the epoch")
    return min(max(float(moment), 1.0), NEVER)  # type: ignore[arg-type]  # 0 would read as "no change"


def just_before(end: float) -> float:
    """Return the last moment at which a session that ended at *end* was still alive."""
    return math.nextafter(end, 0.0)


def set_deadline(driver: coatcheck.Driver, digest: bytes, moment: float, now: float) -> bool:
    """Set the end of a session to *moment*, also of one that has expired and is still there.

    Returns:
        False if there is no such session.
    """
    delta = Delta(deadline=moment, increments={MARK: 1})
    answer = driver.commit(digest, delta, now)
    if isinstance(answer, Gone) and answer.reason is Reason.EXPIRED:
        found = driver.load(digest, 0.0)
        if isinstance(found, Record) and not found.stale:
            answer = driver.commit(digest, delta, just_before(found.expires))
    return not isinstance(answer, Gone)
