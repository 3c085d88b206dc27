"""What each library does when requests of one session meet: races, forced interleavings, statements a request.

    python bench/races.py                      every library that bench/requirements.txt pins
    python bench/races.py --only coatcheck
    python bench/races.py --update-docs        and put the tables into docs/bench.md

Each library as it comes, without tuning. Prints tables and writes bench/results/races.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import harness
from contest import CLIENTS, REQUESTS
from harness import Entry, Worker, table

_STATEMENTS: Final = ("untouched", "read", "write")


def contest(entry: Entry) -> dict[str, Any]:
    """Put one library through everything."""
    with Worker(entry, "races") as worker:
        results: dict[str, Any] = {"versions": worker.ask("versions")}
        if entry.engine == "sqlite":  # first, while the connections are fresh
            results["statements"] = {case: worker.ask("statements", f"/{case}") for case in _STATEMENTS}
        results["keys"] = worker.ask("race", "/own_key")
        results["count"] = worker.ask("race", "/count")
        if entry.name == "coatcheck":
            results["increment"] = worker.ask("race", "/increment")
        results["logout_reader"] = worker.ask("logout", "/held_read")
        results["logout_writer"] = worker.ask("logout", "/held_write")
        results["overtaken_reader"] = worker.ask("overtaken_reader")
        results["two_appends"] = worker.ask("two_appends")
    return results


def _lost(result: dict[str, int]) -> str:
    notes = [f"{result['told']} told"] if result["told"] else []
    notes += [f"{result['refused']} refused"] if result["refused"] else []
    return f"{result['lost']} ({', '.join(notes)})" if notes else str(result["lost"])


def _logout(result: dict[str, Any]) -> str:
    if result["revived"]:
        return "revived"
    return "stays ended" if result["status"] == 200 else f"stays ended, answer {result['status']}"


def _statements(counts: dict[str, int]) -> str:
    parts = [f"{counts[kind]} {kind}" for kind in ("connections", "reads", "writes") if counts[kind]]
    return ", ".join(part.removesuffix("s") if part.startswith("1 ") else part for part in parts) or "none"


def report(found: dict[Entry, dict[str, Any]]) -> str:
    """Write the part of the document that a run makes."""
    versions = {name: number for results in found.values() for name, number in results["versions"].items()}
    lost, forced, statements = [], [], []
    for entry, results in found.items():
        label = [entry.name, entry.engine]
        lost.append([*label, _lost(results["keys"]), _lost(results["count"])])
        if "increment" in results:
            lost.append([f"{entry.name}, `increment`", entry.engine, "", _lost(results["increment"])])
        items = results["two_appends"]["items"]
        forced.append(
            [
                *label,
                _logout(results["logout_reader"]),
                _logout(results["logout_writer"]),
                "kept" if results["overtaken_reader"]["kept"] else "undone",
                "both kept" if {"first", "fast", "slow"} == set(items) and len(items) == 3 else "one lost",
            ]
        )
        if "statements" in results:
            statements.append([entry.name, *(_statements(results["statements"][case]) for case in _STATEMENTS)])
    total = CLIENTS * REQUESTS
    return "\n\n".join(
        [
            ", ".join(f"{name} {number}" for name, number in sorted(versions.items())) + ".",
            f"### Lost updates of {total}",
            table(["", "engine", "different keys", "one counter"], lost),
            "### Forced interleavings",
            table(
                ["", "engine", "logout during a reader", "logout during a writer", "slow reader's answer", "appends"],
                forced,
            ),
            "### SQL statements of one request",
            table(["", "untouched", "read", "read and write"], statements),
        ]
    )


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="LIBRARY", help="these libraries and no others")
    parser.add_argument("--update-docs", action="store_true", help="put the tables into docs/bench.md")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the folder for the figures")
    options = parser.parse_args()
    if options.update_docs and options.only:
        parser.error("--update-docs needs every library, in one run")
    found = {entry: contest(entry) for entry in harness.chosen(options.only) if entry.variant == "default"}
    text = report(found)
    print(text)
    results = [{**entry._asdict(), **results} for entry, results in found.items()]
    harness.write_results(options.results, "races", results)
    if options.update_docs:
        harness.replace_part("races", text)


if __name__ == "__main__":
    main()
