"""docs/security.md names a test for each line of the checklist, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
LINES = [
    *(f"A{n}" for n in range(1, 10)),
    *(f"B{n}" for n in range(1, 18)),
    *(f"C{n}" for n in range(1, 12)),
    *(f"D{n}" for n in range(1, 6)),
    *(f"E{n}" for n in range(1, 8)),
    *(f"F{n}" for n in range(1, 11)),
    *(f"G{n}" for n in range(1, 7)),
    "H",
]
LATER = {"B3", "B11", "B12", "B13", "B14", "C11", "E3", "E4", "E5", "E6", "E7", "F3", "F4", "F5", "F6", "F7", "F8"}
PROVEN = [line for line in LINES if line not in LATER | {"G5", "G6", "H"}]


def rows() -> list[tuple[str, str]]:
    table = PAGE.read_text().partition("## The checklist")[2]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines() if line[:2] == "| "]
    return [(cell[0], cell[2]) for cell in cells if re.fullmatch(r"[A-H]\d*", cell[0])]


def test_each_line_of_the_checklist_has_one_row() -> None:
    assert [line for line, _ in rows()] == LINES


def test_each_line_that_is_promised_names_a_test() -> None:
    assert [line for line, proof in rows() if line in PROVEN and "::test_" not in proof] == []


def test_a_line_without_a_test_says_why() -> None:
    for line, proof in rows():
        assert "::test_" in proof or proof.startswith(("later", "not applicable", "the lines above")), line


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"(\S+\.py)::(test_\w+)", PAGE.read_text()))
    assert len(named) > 80
    missing = []
    for file, test in sorted(named):
        tree = ast.parse((ROOT / file).read_text())
        if not any(isinstance(node, ast.FunctionDef) and node.name == test for node in ast.walk(tree)):
            missing.append(f"{file}::{test}")
    assert missing == []
