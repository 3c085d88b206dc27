"""Write the table of what each driver promises into docs/engines/README.md, between its two markers.

python scripts/driver_table.py
"""
# ruff: noqa: INP001  # a script

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from coatcheck import Capability, Driver
from coatcheck.drivers import built_in_drivers

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "engines" / "README.md"
BEGIN: Final = "<!-- drivers: written by scripts/driver_table.py -->"
END: Final = "<!-- end of drivers -->"

_SCOPE: Final = "scope: "


def table() -> str:
    """Give the table as Markdown: a line for each capability, a column for each driver."""
    chosen = built_in_drivers()
    lines = [
        ["", *(f"`{driver.name}`" for driver in chosen)],
        ["---"] * (len(chosen) + 1),
        ["sessions are shared by", *(_scope(driver) for driver in chosen)],
    ]
    lines += [
        [str(capability), *("yes" if capability in driver.capabilities else "no" for driver in chosen)]
        for capability in Capability
        if not capability.startswith(_SCOPE)
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _scope(driver: type[Driver]) -> str:
    scopes = [capability for capability in Capability if capability in driver.capabilities]
    return ", ".join(scope.removeprefix(_SCOPE) for scope in scopes if scope.startswith(_SCOPE))


def filled(page: str) -> str:
    """Give *page* with the table as it is now between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE.name} lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
