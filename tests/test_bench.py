"""The benchmark stays runnable. What it measures passes or fails nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from testservers import RedisServer

BENCH = Path(__file__).resolve().parent.parent / "bench"


def run(script: str, *arguments: str, only: tuple[str, ...] = ("coatcheck",)) -> str:
    command = [sys.executable, str(BENCH / script), "--only", *only, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(BENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCH)))
def test_a_bench_script_compiles(script: Path) -> None:
    compile(script.read_text(encoding="utf-8"), str(script), "exec")


def test_the_calls_of_each_case_are_counted() -> None:
    done = subprocess.run([sys.executable, str(BENCH / "calls.py")], capture_output=True, text=True, check=True)
    counts = {line[:16].strip(): [int(word) for word in line[16:].split()] for line in done.stdout.splitlines()[2:]}
    assert list(counts) == ["untouched", "read", "change in place", "write unread"]
    for calls, moves, more_calls, more_moves in counts.values():
        assert 0 < moves < calls < more_calls
        assert moves <= more_moves


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


@pytest.mark.slow
def test_the_bench_of_the_engines_measures_those_without_a_server(tmp_path: Path) -> None:
    local = ("memory", "sqlite", "filesystem")
    printed = run("engines.py", "--rounds", "1", "--results", str(tmp_path), only=local)
    for name in ("memory", "memory, async", "SQLite", "SQLite, async", "filesystem", "filesystem, async"):
        assert f"\n| {name} " in printed
    results = json.loads((tmp_path / "engines.json").read_text(encoding="utf-8"))
    assert [(one["engine"], one["rounds"], one["wire"]) for one in results] == [(name, 1, {}) for name in local]


@pytest.mark.slow
@pytest.mark.server
def test_the_bench_of_the_engines_counts_one_round_trip_for_a_read_of_redis(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    assert redis_server.answers(), "the bench starts its own, where the programs are there"
    run("engines.py", "--rounds", "1", "--results", str(tmp_path), only=("redis",))
    (redis,) = json.loads((tmp_path / "engines.json").read_text(encoding="utf-8"))
    for mode in ("sync", "async"):
        trips = {
            case: redis["wire"][f"manager {mode} {case}"]["round_trips"]
            for case in ("read", "write", "count", "create", "assign_big", "save_big")
        }
        assert trips == {"read": 1, "write": 2, "count": 1, "create": 1, "assign_big": 1, "save_big": 1}


@pytest.mark.slow
def test_the_bench_of_capacity_goes_through_with_a_few_sessions(tmp_path: Path) -> None:
    run("capacity.py", "--sessions", "4000", "--calm", "1", "--results", str(tmp_path), only=("sqlite",))
    (found,) = json.loads((tmp_path / "capacity.json").read_text(encoding="utf-8"))
    assert (found["sessions"], found["expiring"], found["crowd"]) == (4000, 2000, 400)
