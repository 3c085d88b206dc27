"""One million sessions in SQLite, PostgreSQL and Redis, and what follows from them for a hundred million.

    python bench/capacity.py                              one million in each, about ten minutes
    python bench/capacity.py --sessions 20000 --only sqlite
    python bench/capacity.py --update-docs                and put the tables into docs/capacity.md

Prints tables and writes bench/results/capacity.json. What is measured and what is not: docs/capacity.md.
"""

# ruff: noqa: RUF001 (it is the sign of multiplication)

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import harness
from engine.places import versions
from harness import table
from million import arithmetic
from million.measure import FEW, SLICE, Found, measure
from million.population import content
from million.readers import PACE, READERS
from million.stores import STORES
from testservers import scratch

DOCUMENT: Final = harness.FOLDER.parent / "docs" / "capacity.md"
SESSIONS: Final = 1_000_000
CALM: Final = 10.0
LEAST: Final = 4000


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:,.0f} µs"
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _pair(pair: tuple[float, float]) -> str:
    return f"{_time(pair[0])}, {_time(pair[1])}: {pair[1] / pair[0]:.2f}×"


def _sizes(found: Found) -> str:
    text = f"{found.size.data / found.sessions:,.0f}"
    parts = [f"{name} {size / found.sessions:,.0f}" for name, size in found.size.parts.items()]
    return f"{text} ({', '.join(parts)})" if parts else text


def _slices(found: Found) -> str:
    if found.slices is None:
        return "the server's own"
    return f"{_time(found.slices[0])}, {_time(found.slices[1])}"


def report(all_found: list[Found]) -> str:
    """Write the part of the document that a run makes."""
    sessions = all_found[0].sessions
    named: dict[str, str] = {}
    for found in all_found:
        named |= versions(found.name.lower())
    said = ", ".join(f"{name} {number}" for name, number in sorted(named.items(), key=lambda one: one[0].lower()))
    lines: dict[str, Callable[[Found], str]] = {
        f"to fill it with {sessions:,} sessions": lambda one: f"{_time(one.fill)}",
        "bytes a session": _sizes,
        f"load: {FEW:,}, {sessions:,} sessions": lambda one: _pair(one.load),
        "the same, 99th percentile": lambda one: _pair(one.slow_load),
        f"commit: {FEW:,}, {sessions:,} sessions": lambda one: _pair(one.commit),
        "the same, 99th percentile ": lambda one: _pair(one.slow_commit),
        f"`revoke_user` of {all_found[0].crowd:,} sessions": lambda one: _time(one.revoke),
        f"sweep of {all_found[0].expiring:,} among readers": lambda one: (
            f"{_time(one.sweep)}, {one.expiring / one.sweep:,.0f}/s"
        ),
        f"slice of {SLICE}: median, longest": _slices,
        "readers' 99th percentile: quiet, during the sweep": lambda one: _pair((one.quiet, one.disturbed)),
        "server's processor time: load, commit": lambda one: (
            "" if one.cpu is None else f"{_time(one.cpu[0])}, {_time(one.cpu[1])}"
        ),
        "bytes on the wire: load, commit": lambda one: (
            "" if one.wire is None else f"{one.wire[0]:,.0f}, {one.wire[1]:,.0f}"
        ),
        "bytes that a commit adds to the log": lambda one: "" if one.log is None else f"{one.log:,.0f}",
    }
    rows = [[what.strip(), *(give(found) for found in all_found)] for what, give in lines.items()]
    parts = [
        f"Taken on {harness.today()}. {harness.machine()}. {said}.",
        (
            f"A session's names and values are {content()} bytes on the average. {READERS} readers, each with a pause"
            f" of {PACE * 1e3:g} ms after every load."
        ),
        table(["", *(f"{found.name} ({found.where})" for found in all_found)], rows),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ENGINE", choices=list(STORES), help=f"of {', '.join(STORES)}")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"how many; {SESSIONS:,}, at least {LEAST:,}")
    parser.add_argument("--calm", type=float, default=CALM, help=f"seconds of readers without a sweep; {CALM:g}")
    parser.add_argument("--update-docs", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the folder for the figures")
    options = parser.parse_args()
    if options.sessions < LEAST or options.sessions % 4:
        parser.error(f"--sessions is at least {LEAST} and a multiple of four")
    if options.update_docs and options.only:
        parser.error("--update-docs needs every engine, in one run")
    logging.getLogger("coatcheck").setLevel(logging.ERROR)

    def say(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    found = []
    for key in options.only or STORES:
        with scratch() as folder:
            store = STORES[key](folder)
            try:
                found.append(measure(store, options.sessions, options.calm, say))
            finally:
                store.close()
    text = report(found)
    more = arithmetic.report(found)
    print(text, more, sep="\n\n")
    harness.write_results(options.results, "capacity", [asdict(one) for one in found])
    if options.update_docs:
        harness.replace_part("capacity", text, DOCUMENT)
        harness.replace_part("arithmetic", more, DOCUMENT)


if __name__ == "__main__":
    main()
