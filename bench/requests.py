"""Time that each library adds to a request, over the same application without sessions.

    python bench/requests.py                              every library that bench/requirements.txt pins
    python bench/requests.py --only coatcheck --rounds 20
    python bench/requests.py --update-docs                and put tables and plot into docs/

Prints tables and writes bench/results/requests.json. What is measured and what is not: docs/bench.md.
"""

# ruff: noqa: RUF001 (it is the sign of multiplication)

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import harness
import plot
from harness import RAW, Entry, Worker, table

CASES: Final = {
    "untouched": "untouched",
    "read": "read",
    "write": "read and write",
    "assign": "write unread",
    "create": "create",
    "change_big": "100 KB, one key",
}
RAW_CASES: Final = ("select", "update")
ROUNDS: Final = 100
PATIENCE: Final = 150.0
"""Seconds after which no further round begins, on a slow machine."""

Series = dict[tuple[Entry, str], list[list[float]]]


class Figure(NamedTuple):
    """What one request costs more: in microseconds, and in units."""

    micros: float
    ratio: float


def measure(entries: list[Entry], rounds: int) -> tuple[Series, dict[str, str]]:
    """Measure everything once a round, in turns, so that a slow minute of the machine hits all alike."""
    series: Series = {}
    versions: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(entry, "time")) for entry in (RAW, *entries)]
        for worker in workers:
            versions |= worker.ask("versions")
        until = time.monotonic() + PATIENCE
        for number in range(rounds):
            for worker in workers:
                for case in RAW_CASES if worker.entry is RAW else CASES:
                    series.setdefault((worker.entry, case), []).append(worker.ask("time", case, number))
            if sys.stderr.isatty():
                sys.stderr.write(f"\rround {number + 1} of {rounds}")
            if time.monotonic() > until:
                break
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return series, versions


class Summary:
    """The figures of a run, by one of two statistics: the best round, or the middle one."""

    def __init__(self, series: Series, *, best: bool) -> None:
        self._series = series
        self._best = best
        self.raw = {case: self._of(took[0] for took in series[RAW, case]) for case in RAW_CASES}
        self.raw_after_work = {case: self._raw_after_work(case) for case in RAW_CASES}

    def _of(self, times: Iterable[float]) -> float:
        values = list(times)
        return min(values) if self._best else median(values)

    def _raw_after_work(self, case: str) -> float:
        took = self._series[RAW, case]
        if self._best:
            return min(both for _, _, both in took) - min(work for _, work, _ in took)
        return median(both - work for _, work, both in took)

    def added(self, entry: Entry, case: str) -> float:
        """Give the seconds that sessions add to one request."""
        pairs = self._series[entry, case]
        if self._best:
            return min(pair[1] for pair in pairs) - min(pair[0] for pair in pairs)
        return median(pair[1] - pair[0] for pair in pairs)

    def unit(self, case: str, engine: str) -> float:
        """Give the seconds that a case is measured in."""
        if engine == "memory":
            reference = Entry("coatcheck", "memory")
            return self.added(reference, case) if (reference, case) in self._series else float("nan")
        return self.raw["select"] + (0.0 if case in ("untouched", "read") else self.raw["update"])

    def unit_after_work(self, case: str) -> float:
        """Give the seconds that the same raw statements take in a request that did something else before."""
        raw = self.raw_after_work
        return raw["select"] + (0.0 if case in ("untouched", "read") else raw["update"])

    def figure(self, entry: Entry, case: str) -> Figure:
        """Give what a case costs."""
        added = self.added(entry, case)
        return Figure(added * 1e6, added / self.unit(case, entry.engine))

    def table(self, entries: list[Entry]) -> str:
        """Give the table of one engine's entries."""
        rows = []
        for entry in entries:
            figures = [self.figure(entry, case) for case in CASES]
            rows.append([entry.label, *(f"{_short(ratio)}× ({_short(micros)} µs)" for micros, ratio in figures)])
        return table(["", *CASES.values()], rows)

    def as_json(self, entries: list[Entry]) -> dict[str, Any]:
        """Give all figures."""
        return {
            "raw_us": {case: round(took * 1e6, 3) for case, took in self.raw.items()},
            "raw_after_work_us": {case: round(took * 1e6, 3) for case, took in self.raw_after_work.items()},
            "added": [
                {**entry._asdict(), "case": case, **self.figure(entry, case)._asdict()}
                for entry in entries
                for case in CASES
            ],
        }


def _short(number: float) -> str:
    if number != number:  # noqa: PLR0124 (not a number: there is no unit)
        return "-"
    return f"{number:,.0f}" if abs(number) >= 20 else f"{number:.1f}"


def aims(best: Summary, middle: Summary) -> str:
    """Say what was aimed at and what came out, for coatcheck."""
    disk, memory = Entry("coatcheck", "sqlite"), Entry("coatcheck", "memory")
    lines = [
        ("SQLite, read: times the SELECT", disk, "read", 3.5, "×"),
        ("SQLite, read and write: times SELECT + UPDATE", disk, "write", 2.0, "×"),
        ("SQLite, untouched", disk, "untouched", 2.0, " µs"),
        ("memory, read", memory, "read", 10.0, " µs"),
    ]
    rows = []
    for what, entry, case, most, unit in lines:
        cells = []
        for summary in (best, middle):
            ratio = unit == "×"
            figure = summary.figure(entry, case)
            cells.append(f"{_short(figure.ratio if ratio else figure.micros)}{unit}")
            cells.append(f"{_short(summary.added(entry, case) / summary.unit_after_work(case))}×" if ratio else "")
        reached = best.figure(entry, case).ratio if unit == "×" else best.figure(entry, case).micros
        rows.append([what, f"{most:g}{unit}", *cells, "yes" if reached <= most else "no"])
    head = ["aim", "at most", "best round", "after work", "middle round", "after work", "reached (best round)"]
    return table(head, rows)


def against_rivals(best: Summary, entries: list[Entry]) -> str:
    """Say how many times coatcheck's cost the best and the worst rival of each engine add."""
    rows = []
    for engine in ("sqlite", "memory"):
        ours = Entry("coatcheck", engine)
        rivals = [entry for entry in entries if entry.engine == engine and entry != ours]
        if ours not in entries or not rivals:
            continue
        cells = []
        for case in CASES:
            times = sorted((best.added(entry, case) / best.added(ours, case), entry.label) for entry in rivals)
            cells.append(f"{_short(times[0][0])}× ({times[0][1]}) to {_short(times[-1][0])}×")
        rows.append([engine, *cells])
    return table(["", *CASES.values()], rows) if rows else ""


def _raw_text(summary: Summary) -> str:
    select, update = (summary.raw[case] for case in RAW_CASES)
    later = (summary.raw_after_work[case] / summary.raw[case] for case in RAW_CASES)
    times = " and ".join(f"{_short(ratio)}×" for ratio in later)
    return f"SELECT {select * 1e6:.1f} µs, committed UPDATE {update * 1e6:.1f} µs; after other work {times} as long"


def report(series: Series, versions: dict[str, str], entries: list[Entry]) -> str:
    """Write the part of the document that a run makes."""
    best, middle = Summary(series, best=True), Summary(series, best=False)
    disk = [entry for entry in entries if entry.engine == "sqlite"]
    memory = [entry for entry in entries if entry.engine == "memory"]
    rounds = len(series[RAW, "select"])
    named = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    raw = [_raw_text(best), _raw_text(middle)]
    parts = [
        f"{rounds} rounds. {harness.machine()}. {named}.",
        "### SQLite, best round",
        f"Unit: the raw SELECT for *untouched* and *read*, SELECT + UPDATE for the rest. In this run: {raw[0]}.",
        best.table(disk),
        "### SQLite, middle round",
        f"The same by the median of the rounds, the unit too: {raw[1]}.",
        middle.table(disk),
        "### Memory, best round",
        "Unit: what coatcheck adds in the same case.",
        best.table(memory),
    ]
    if rivals := against_rivals(best, entries):
        parts += ["### How many times what coatcheck adds: from the best rival to the worst", rivals]
    if {Entry("coatcheck", "sqlite"), Entry("coatcheck", "memory")} <= set(entries):
        parts += ["### What was aimed at", aims(best, middle)]
    return "\n\n".join(parts)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="LIBRARY", help="measure these libraries and no others")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often everything is measured; {ROUNDS}")
    parser.add_argument("--update-docs", action="store_true", help="put tables and plot into docs/")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the folder for the figures")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.update_docs and options.only:
        parser.error("--update-docs needs every library, in one run")
    entries = harness.chosen(options.only)
    series, versions = measure(entries, options.rounds)
    text = report(series, versions, entries)
    print(text)
    best, middle = Summary(series, best=True), Summary(series, best=False)
    kept = {"versions": versions, "best": best.as_json(entries), "middle": middle.as_json(entries)}
    harness.write_results(options.results, "requests", kept)
    if options.update_docs:
        harness.replace_part("requests", text)
        disk = [entry for entry in entries if entry.engine == "sqlite"]
        plot.write(
            [
                (entry.label, {case: best.figure(entry, case).ratio for case in ("read", "write", "change_big")})
                for entry in disk
            ]
        )


if __name__ == "__main__":
    main()
