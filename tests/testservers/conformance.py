"""What a run found out, at its end: figures that tests recorded, and the table of drivers and rules.

With --write-conformance the table is written into docs/conformance.md too. A test counts for an engine and a rule by
its name, ``test_rule_05_…[redis]``, where it is in one of the files that are about all drivers. A cell is the number of
tests passed. Figures are what a test records as the property `figures`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import pytest

__all__ = ["PAGE", "filled", "rule_of", "table"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
BEGIN: Final = "<!-- conformance: written by pytest --write-conformance -->"
END: Final = "<!-- end of conformance -->"
SEQUENCES: Final = "any order"

_TEST: Final = re.compile(r"tests/engines/test_(?:contract|faults|forks)\.py::(?:.*::)?(test_\w+)\[([\w-]+)\]")
_RULE: Final = re.compile(r"test_rule_(\d\d)_")

Results = Mapping[str, Mapping[str, Counter[str]]]
"""By engine and rule: how many tests ended in which way."""


def rule_of(test: str) -> str | None:
    """Give the rule that the name of a test names."""
    if "any_operations_in_any_order" in test:
        return SEQUENCES
    found = _RULE.match(test)
    return None if found is None else str(int(found[1]))


def table(results: Results) -> str:
    """Give the table as Markdown."""
    rules = sorted({rule for row in results.values() for rule in row}, key=lambda rule: (len(rule), rule))
    lines = [["driver", *rules], ["---"] * (len(rules) + 1)]
    lines += [[f"`{engine}`", *(_cell(row.get(rule)) for rule in rules)] for engine, row in results.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(counts: Counter[str] | None) -> str:
    if not counts:
        return "-"
    parts = [f"{counts[outcome]} {outcome}" for outcome in ("failed", "skipped") if counts[outcome]]
    passed = [str(counts["passed"])] if counts["passed"] or not parts else []
    return ", ".join(passed + parts)


def filled(page: str, results: Results) -> str:
    """Give *page* with the table between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}"


class _Collector:
    """Hears how each test ended."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.figures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (report.when == "call" or not report.passed) and self.outcomes.get(report.nodeid) != "failed":
            self.outcomes[report.nodeid] = report.outcome
        if report.when == "call":
            self.figures += [str(value) for name, value in report.user_properties if name == "figures"]

    def results(self, order: Collection[str]) -> Results:
        found: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        engines = sorted(order, key=len, reverse=True)
        for test, outcome in self.outcomes.items():
            if (match := _TEST.search(test)) is not None and (rule := rule_of(match[1])) is not None:
                of = [engine for engine in engines if f"-{engine}-" in f"-{match[2]}-"]
                found[of[0] if of else match[2]][rule][outcome] += 1
        return {engine: found[engine] for engine in order if engine in found}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-conformance", action="store_true", help="write that table into its page")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Collector(), "conformance-collector")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from testservers.engines import ROWS  # noqa: PLC0415 (the kit asks to be imported late)

    collector = config.pluginmanager.get_plugin("conformance-collector")
    assert isinstance(collector, _Collector)
    if collector.figures:
        terminalreporter.section("figures")
        terminalreporter.write("".join(f"{line}\n" for line in sorted(collector.figures)))
    results = collector.results(ROWS)
    if not results:
        return
    terminalreporter.section("tests passed, by driver and rule")
    terminalreporter.write(_aligned(table(results)))
    if config.getoption("write_conformance"):
        PAGE.write_text(filled(PAGE.read_text("utf-8"), results), "utf-8")


def _aligned(markdown: str) -> str:
    """Give a table for the eye on a terminal."""
    rows = [[cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in markdown.splitlines()]
    rows.pop(1)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line}\n" for line in lines)
