"""The benchmark stays runnable. What it measures passes or fails nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / script), "--only", "coatcheck", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(BENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCH)))
def test_a_bench_script_compiles(script: Path) -> None:
    compile(script.read_text(encoding="utf-8"), str(script), "exec")


@pytest.mark.slow
def test_the_bench_measures_coatcheck_without_its_rivals(tmp_path: Path) -> None:
    printed = run("requests.py", "--rounds", "1", "--results", str(tmp_path))
    assert "| coatcheck |" in printed


@pytest.mark.slow
def test_the_races_lose_no_key_and_no_increment_of_coatcheck(tmp_path: Path) -> None:
    run("races.py", "--results", str(tmp_path))
    results = json.loads((tmp_path / "races.json").read_text(encoding="utf-8"))
    assert [(one["engine"], one["keys"]["lost"], one["increment"]["lost"]) for one in results] == [
        ("sqlite", 0, 0),
        ("memory", 0, 0),
    ]
    assert not any(one[kind]["revived"] for one in results for kind in ("logout_reader", "logout_writer"))
