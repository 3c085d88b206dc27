"""The page with the table of drivers and rules is of this kit and these drivers. No server is needed to see that."""

from __future__ import annotations

from collections import Counter

from testservers.conformance import BEGIN, END, PAGE, rule_of
from testservers.engines import ROWS

from coatcheck.testing import DriverContract


def told() -> dict[str, dict[str, str]]:
    """Give the cells on the page, by driver and rule."""
    section = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if "|" in line]
    (_, *rules), _, *rows = lines
    return {name.strip("`"): dict(zip(rules, cells, strict=True)) for name, *cells in rows}


def test_every_driver_passes_every_test_of_the_kit() -> None:
    """Where this fails, the page says how to write it anew."""
    kit = Counter(rule for name in dir(DriverContract) if (rule := rule_of(name)) is not None)
    page = told()
    assert list(page) == list(ROWS)
    for driver, cells in page.items():
        expected = {**kit, "12": kit["12"] + (not driver.startswith("memory"))}  # a fork besides
        assert {rule: cell for rule, cell in cells.items() if rule != "11"} == {
            rule: str(count) for rule, count in expected.items()
        }, driver


def test_no_driver_fails_when_the_network_does() -> None:
    cells = {driver: cells["11"] for driver, cells in told().items()}
    assert all(cell == "-" or cell.isdigit() for cell in cells.values()), cells
    assert {driver for driver, cell in cells.items() if cell != "-"} >= {"redis", "postgresql-async", "mariadb"}
