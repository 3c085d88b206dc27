"""What each engine costs, as multiples of what its own client library needs in the same run.

    python bench/engines.py                               every engine
    python bench/engines.py --only redis sqlite --rounds 20
    python bench/engines.py --update-docs                 and put the tables into docs/engines/figures.md

Prints tables and writes bench/results/engines.json. What is measured and what is not: docs/engines/figures.md.
"""

# ruff: noqa: RUF001 (it is the sign of multiplication)

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, Self

import harness
from engine import cases, raw
from engine.places import ENGINES, Engine, Place, versions
from engine.raw import Raw
from engine.timing import Action, AsyncAction, Timed
from harness import table
from testservers import FaultProxy, scratch

from coatcheck import AsyncSessionManager, SessionManager
from coatcheck.drivers import open_async_driver, open_driver

DOCUMENT: Final = harness.FOLDER.parent / "docs" / "engines" / "figures.md"
ROUNDS: Final = 100
PATIENCE: Final = 60.0
"""Seconds after which no further round of an engine begins, on a slow machine."""
_COUNTED: Final = 10  # actions whose bytes are counted

RAW: Final = "raw"
MANAGER: Final = "manager"
DRIVER: Final = "driver"
SYNC: Final = "sync"
ASYNC: Final = "async"

Key = tuple[str, str, str]
"""Who does it (raw, manager, driver), sync or async, and the case."""

Actions = dict[Key, Action | AsyncAction]


class Counted(NamedTuple):
    """What one action sends and receives, on the average."""

    round_trips: float
    sent: float
    received: float


class Figures(NamedTuple):
    """What a run found out about an engine."""

    engine: Engine
    seconds: dict[Key, float]  # the median of the rounds
    best: dict[Key, float]  # the best round
    counted: dict[Key, Counted]
    rounds: int
    versions: dict[str, str]

    def ratio(self, who: str, mode: str, case: str, *, best: bool = False) -> float | None:
        """Give the multiple of the unit, by the median or the best of the rounds; None where there is no unit."""
        seconds = self.best if best else self.seconds
        unit_mode = mode if (RAW, mode, "get") in seconds else SYNC
        if (RAW, unit_mode, "get") not in seconds:
            return None
        return seconds[who, mode, case] / sum(seconds[RAW, unit_mode, name] for name in cases.UNITS[case])


class Contestants:
    """All that is measured of one engine, ready to go. A context manager that closes it."""

    def __init__(self, engine: Engine, place: Place) -> None:
        self.loop = asyncio.new_event_loop()
        self.actions: Actions = {}
        self._stack = ExitStack()
        self._stack.callback(self.loop.close)
        try:
            self._open(engine, place)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, engine: Engine, place: Place) -> None:
        wait = self.loop.run_until_complete
        if engine.raw is not None:
            self._add_raw(SYNC, engine.raw(place))
        if engine.raw_async is not None:
            self._add_raw(ASYNC, wait(engine.raw_async(place)))
        for mode in (SYNC, ASYNC):
            for who in (MANAGER, DRIVER):
                url = place.storage(f"{who}_{mode}")
                if mode == SYNC:
                    driver = open_driver(url)
                    self._stack.callback(driver.close)
                    driver.setup()
                    found: Any = cases.manager_actions(SessionManager(driver)) if who == MANAGER else None
                    found = found or cases.driver_actions(driver)
                else:
                    awaited = open_async_driver(url)
                    self._stack.callback(lambda driver: wait(driver.close()), awaited)
                    wait(awaited.setup())
                    manager = AsyncSessionManager(awaited) if who == MANAGER else None
                    found = wait(
                        cases.async_driver_actions(awaited) if manager is None else cases.async_manager_actions(manager)
                    )
                for case, action in found.items():
                    self.actions[who, mode, case] = action

    def _add_raw(self, mode: str, client: Raw) -> None:
        make: Callable[[Any], Action | AsyncAction] = AsyncAction if client.asynchronous else Action
        for case in raw.CASES:
            self.actions[RAW, mode, case] = make(getattr(client, case))
        if client.asynchronous:
            self._stack.callback(lambda: self.loop.run_until_complete(client.close()))
        else:
            self._stack.callback(client.close)


def measure(engine: Engine, rounds: int, folder: Path) -> Figures:
    """Measure one engine: everything once a round, in turns, and then what passes over the wire."""
    with engine.serve(folder) as place:
        with Contestants(engine, place) as contestants:
            timed = {key: Timed(action, contestants.loop) for key, action in contestants.actions.items()}
            series: dict[Key, list[float]] = {key: [] for key in timed}
            gc.collect()
            gc.freeze()
            until = time.monotonic() + PATIENCE
            done = 0
            while done < rounds and (done < 1 or time.monotonic() < until):
                for key in reversed(timed) if done % 2 else timed:
                    series[key].append(timed[key].batch())
                done += 1
            gc.unfreeze()
        middle = {key: median(found) for key, found in series.items()}
        best = {key: min(found) for key, found in series.items()}
        counted = {} if place.port is None else count(engine, place)
    return Figures(engine, middle, best, counted, done, versions(engine.key))


def count(engine: Engine, place: Place) -> dict[Key, Counted]:
    """Count what passes between the clients and the server, with a proxy between them."""
    assert place.port is not None
    found: dict[Key, Counted] = {}
    with FaultProxy(place.port) as proxy, Contestants(engine, place.through(proxy.port)) as contestants:
        for key, action in contestants.actions.items():
            one = Timed(action, contestants.loop)
            one.repeated(_COUNTED)  # what is said once, such as the text of a script or a statement, is said by then
            found[key] = _counted(proxy, action, contestants.loop)
    return found


def _counted(proxy: FaultProxy, action: Action | AsyncAction, loop: asyncio.AbstractEventLoop) -> Counted:
    total = [0, 0, 0]
    for _ in range(_COUNTED):
        if action.prepare is not None:
            Timed(action._replace(run=action.prepare, prepare=None), loop).repeated(1)
        _settled(proxy)
        Timed(action._replace(prepare=None), loop).repeated(1)
        counts = _settled(proxy)
        for place, number in enumerate((counts.round_trips, counts.sent, counts.received)):
            total[place] += number
    return Counted(*(number / _COUNTED for number in total))


def _settled(proxy: FaultProxy) -> Any:
    """Give what has passed, once nothing has for a moment."""
    before = proxy.counts
    while True:
        time.sleep(0.002)
        if (now := proxy.counts) == before:
            return proxy.counted()
        before = now


# -- the tables -------------------------------------------------------------------------------------------------------


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 20 else f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


def _micros(seconds: float) -> str:
    micros = seconds * 1e6
    return f"{micros:,.0f} µs" if micros >= 20 else f"{micros:.1f} µs"


def _label(figures: Figures, mode: str) -> str:
    return figures.engine.name if mode == SYNC else f"{figures.engine.name}, async"


def _cost(figures: Figures, who: str, mode: str, case: str) -> str:
    micros = _micros(figures.seconds[who, mode, case])
    ratio = figures.ratio(who, mode, case)
    return micros if ratio is None else f"{_short(ratio)}× ({micros})"


def times(found: list[Figures], who: str) -> str:
    """Give the table of what each case takes."""
    rows = [
        [_label(figures, mode), *(_cost(figures, who, mode, case) for case in cases.CASES)]
        for figures in found
        for mode in (SYNC, ASYNC)
    ]
    return table(["", *cases.CASES.values()], rows)


def units(found: list[Figures]) -> str:
    """Give the table of the raw operations."""
    rows = [
        [_label(figures, mode), *(_micros(figures.seconds[RAW, mode, name]) for name in raw.CASES)]
        for figures in found
        for mode in (SYNC, ASYNC)
        if (RAW, mode, "get") in figures.seconds
    ]
    return table(["", "read", "write", "write 1 KB of 100"], rows)


def traffic(found: list[Figures]) -> str:
    """Give the table of round trips and bytes: coatcheck's, and the raw operations' in brackets."""

    def cell(figures: Figures, mode: str, case: str) -> str:
        ours = figures.counted[MANAGER, mode, case]
        theirs = [figures.counted[RAW, mode, name] for name in cases.UNITS[case]]
        trips = sum(one.round_trips for one in theirs)
        size = sum(one.sent + one.received for one in theirs)
        return (
            f"{ours.round_trips:g} ({trips:g}); {ours.sent + ours.received:,.0f} B"
            f" ({(ours.sent + ours.received) / size:.1f}×)"
        )

    rows = [
        [_label(figures, mode), *(cell(figures, mode, case) for case in cases.CASES)]
        for figures in found
        if figures.counted
        for mode in (SYNC, ASYNC)
    ]
    return table(["", *cases.CASES.values()], rows)


_AIMS: Final = (
    ("read: times GET", "read", 1.1),
    ("read and write: times GET + SET", "write", 1.1),
    ("one of 100 KB unread: times HSET", "assign_big", 2.5),
    ("save one of 100 KB: times HSET", "save_big", 2.5),
)


def aims(figures: Figures) -> str:
    """Say what was aimed at on single Redis, and what came out."""
    rows = []
    for what, case, most in _AIMS:
        ratios = [figures.ratio(who, SYNC, case, best=best) for who in (DRIVER, MANAGER) for best in (False, True)]
        cells = [f"{_short(ratio)}×, {'yes' if ratio <= most else 'no'}" for ratio in ratios if ratio is not None]
        rows.append([what, f"{most:g}×", *cells])
    head = ["the driver alone", "the same, best round", "through a manager", "the same, best round"]
    return table(["aim", "at most", *head], rows)


def report(found: list[Figures]) -> str:
    """Write the part of the document that a run makes."""
    named: dict[str, str] = {}
    for figures in found:
        named |= figures.versions
    said = ", ".join(f"{name} {number}" for name, number in sorted(named.items(), key=lambda one: one[0].lower()))
    rounds = sorted({figures.rounds for figures in found})
    span = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    parts = [f"Taken on {harness.today()}, {span} rounds. {harness.machine()}. {said}."]
    redis = [figures for figures in found if figures.engine.key == "redis"]
    if redis:
        parts += ["### What was aimed at, on one Redis server", aims(redis[0])]
    parts += ["### Through a manager", times(found, MANAGER), "### The driver alone", times(found, DRIVER)]
    if any((RAW, SYNC, "get") in figures.seconds for figures in found):
        parts += ["### The units", units(found)]
    if any(figures.counted for figures in found):
        parts += ["### Round trips and bytes", traffic(found)]
    return "\n\n".join(parts)


def as_json(found: list[Figures]) -> list[dict[str, Any]]:
    """Give all figures."""
    return [
        {
            "engine": figures.engine.key,
            "rounds": figures.rounds,
            "versions": figures.versions,
            "microseconds": {" ".join(key): round(seconds * 1e6, 2) for key, seconds in figures.seconds.items()},
            "best_microseconds": {" ".join(key): round(seconds * 1e6, 2) for key, seconds in figures.best.items()},
            "wire": {" ".join(key): counted._asdict() for key, counted in figures.counted.items()},
        }
        for figures in found
    ]


def main() -> None:
    """Do what the command line asks for."""
    known = {engine.key: engine for engine in ENGINES}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ENGINE", choices=list(known), help=f"of {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often everything is measured; {ROUNDS}")
    parser.add_argument("--update-docs", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the folder for the figures")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.update_docs and options.only:
        parser.error("--update-docs needs every engine, in one run")
    logging.getLogger("coatcheck").setLevel(logging.ERROR)  # that memcached forgets is known
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the servers that are started inherit it
    found = []
    for key in options.only or known:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{known[key].name}")
        with scratch() as folder:
            found.append(measure(known[key], options.rounds, folder))
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    text = report(found)
    print(text)
    harness.write_results(options.results, "engines", as_json(found))
    if options.update_docs:
        harness.replace_part("engines", text, DOCUMENT)


if __name__ == "__main__":
    main()
