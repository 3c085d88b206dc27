"""Every order in which a few requests of one browser can meet in storage, tried one after the other.

A test that runs two requests at once sees the orders that happen; one that forces an order sees that one. The explorer
goes through all of them: it runs the requests through a real manager, lets each of them do one driver call at a time,
and begins anew for each order of these steps. `explain` then says whether the outcome is one that a plain model allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Final

from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.testing.blocking import Blocking
from coatcheck.testing.explorer_judge import explain
from coatcheck.testing.explorer_run import Schedule
from coatcheck.testing.explorer_visits import BEGINNINGS, EXPIRY, KINDS

__all__ = ["Explored", "all_pairs", "explore"]

_TICK: Final = 0.01


@dataclass(frozen=True, slots=True)
class Explored:
    """What `explore` has found.

    Attributes:
        schedules: How many orders of the steps were run.
        states: How many different points were reached on the way: beginnings of an order of the steps.
        failures: A report for each order that the model cannot explain.
    """

    schedules: int
    states: int
    failures: tuple[str, ...]


def explore(
    make_driver: Callable[[], Driver | AsyncDriver],
    requests: Iterable[Sequence[str]] | None = None,
    beginnings: Iterable[str] = BEGINNINGS,
    *,
    tick: float = _TICK,
    most_failures: int = 20,
) -> Explored:
    """Run requests of one browser in every order of their driver calls, and judge each outcome by a plain model.

    Args:
        make_driver: Gives empty storage; called for each order. Each call of the driver has to be atomic, so that only
            the order of the calls counts.
        requests: The kinds of the requests that meet, such as ``[("append", "log out")]``, where "expiry" lets the
            clock move until all that was stored has expired. Default all pairs; `coatcheck.testing.explorer_visits`
            has the list.
        beginnings: What the requests find, such as ``["logged in"]``. Default everything.
        tick: Seconds that a step takes; with 0, everything happens at the same moment.
        most_failures: After how many failures to stop.

    Raises:
        KeyError: There is no kind of request, or beginning, of that name.
    """
    schedules = states = 0
    failures: list[str] = []
    chosen = None if requests is None else [tuple(names) for names in requests]
    for beginning in beginnings:
        for names in all_pairs(beginning) if chosen is None else chosen:
            choices: list[int] | None = []
            while choices is not None and len(failures) < most_failures:
                shared = len(choices)
                schedule = Schedule(_synchronous(make_driver()), BEGINNINGS[beginning], names, tick)
                try:
                    is_new = schedule.run(choices)
                    why = explain(schedule) if is_new else None
                finally:
                    schedule.close()
                if why is not None:
                    failures.append(_report(schedule, names, why))
                schedules += is_new
                states += len(schedule.trail) - max(0, shared - 1)
                choices = _next(schedule.trail)
    return Explored(schedules, states, tuple(failures))


def all_pairs(beginning: str) -> list[tuple[str, ...]]:
    """Return all pairs of kinds of requests, and of each kind and `EXPIRY`; in both orders where that differs."""
    names = [*KINDS, EXPIRY]
    return list(product(names, repeat=2) if BEGINNINGS[beginning].renewed else combinations_with_replacement(names, 2))


def _next(trail: Sequence[tuple[int, tuple[int, ...]]]) -> list[int] | None:
    """Return the choices that lead into the next order, depth first; None after the last one."""
    for at in range(len(trail) - 1, -1, -1):
        chosen, possible = trail[at]
        later = [choice for choice in possible if choice > chosen]
        if later:
            return [*(choice for choice, _ in trail[:at]), later[0]]
    return None


def _synchronous(driver: Driver | AsyncDriver) -> Driver:
    return driver if isinstance(driver, Driver) else Blocking(driver)


def _report(schedule: Schedule, names: Sequence[str], why: str) -> str:
    visits = "".join(
        f"\n  {visit.name} ({visit.kind.name}): saw {visit.seen!r}, answered"
        f" {schedule.named(visit.reply)}{', refused' * visit.refused}, told {sorted(map(str, visit.told))}"
        + (f", raised {visit.error!r}" if visit.error is not None else "")
        for visit in schedule.visits
    )
    return f"{' + '.join(names)}, {schedule.beginning.name}: {why}\n  {', '.join(schedule.log)}{visits}"
