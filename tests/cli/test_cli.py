"""The command line."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testservers import free_port
from typer.testing import CliRunner

from coatcheck import __version__
from coatcheck.cli import app
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver


def run(*words: str, **environ: str) -> Any:
    """Run the command as a program would that reads what it says."""
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "40", **environ})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(result: Any) -> str:
    return re.sub(r"\s+", " ", result.output)


def test_init_makes_what_is_missing_and_drops_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    first = run("init", url)
    assert (first.exit_code, first.stdout) == (0, "sqlite: ready\n")
    driver = SQLiteDriver(tmp_path / "s.db")
    assert driver.is_set_up()
    driver.close()
    assert run("init", url).stdout == "sqlite: already set up\n"


def test_check_tries_the_storage_out_and_says_what_it_promises(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    run("init", url)
    result = run("check", url)
    assert result.exit_code == 0, result.output
    assert "sqlite: reached in" in said(result)
    assert "a session was created, read, changed and ended" in said(result)
    assert "sessions are shared by: the processes of one host\n" in result.stdout
    assert "acknowledged writes and revocations survive a failover: no\n" in result.stdout
    with sqlite3.connect(tmp_path / "s.db") as connection:
        assert connection.execute("SELECT count(*) FROM coatcheck_session").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("scheme", ["sqlite", "filesystem"])
def test_check_of_storage_that_nobody_has_made_yet(scheme: str, tmp_path: Path) -> None:
    result = run("check", f"{scheme}:///{tmp_path}/s")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"coatcheck: {scheme}: nothing is stored there yet, or only by an older coatcheck: check the path. The first"
        " program that uses the storage creates or updates it, if its folder exists, and so does `coatcheck init` with"
        " the same URL\n"
    )
    assert not (tmp_path / "s").exists()


def test_no_internal_names_are_shown() -> None:
    result = run("check", f"redis://127.0.0.1:{free_port()}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is_set_up" not in result.stderr
    assert re.fullmatch(
        r"coatcheck: redis: 127.0.0.1:\d+ cannot be reached: .* \(is the server running.*\)\n", result.stderr
    )


def test_findings_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object whatever the end; the exit status is the same."""
    url = f"sqlite:///{tmp_path}/s.db"
    missing = run("check", "--json", url)
    assert (missing.exit_code, missing.stderr) == (1, "")
    found = json.loads(missing.stdout)
    assert found["error"].startswith("sqlite: nothing is stored there yet")
    run("init", url)
    monkeypatch.setattr(SQLiteDriver, "advice", lambda _: ["mend this"])
    result = run("check", "--json", url)
    assert (result.exit_code, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert (found["driver"], found["error"], found["advice"]) == ("sqlite", None, ["mend this"])
    assert found["promises"]["durable"] is True
    assert [found["promises"][f"scope_{scope}"] for scope in ("process", "host", "shared")] == [False, True, False]
    assert found["reached_in_ms"] > 0


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    command = f"{sys.executable} -m coatcheck.cli check memory:"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=True)
    assert "atomic counters" in done.stdout
    assert "┌" in done.stdout


def test_the_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"coatcheck {__version__}\n")


def test_the_url_may_stand_in_the_environment() -> None:
    assert run("check", COATCHECK_URL="memory:").exit_code == 0


def test_what_should_be_mended_is_said_and_is_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDriver, "advice", lambda _: ["it forgets [/everything]: use sqlite:///sessions.db"])
    result = run("check", "memory:")
    assert result.exit_code == 3
    assert "advice: it forgets [/everything]: use sqlite:///sessions.db" in said(result)


@pytest.mark.parametrize("command", ["init", "check"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosql://ann:s3cret@host/db", "unknown scheme 'nosql'"),
        ("sqlite:///no/such/folder/s.db", "does not exist: create it"),
        ("sessions.db", "the storage URL has no scheme"),
        ("redis://127.0.0.1:99999", "no number from 1 to 65535: a URL is redis://[user:password@]host"),
    ],
)
def test_what_cannot_be_used_is_one_line_on_standard_error(command: str, url: str, says: str) -> None:
    result = run(command, url)
    assert result.exit_code == 1
    if command == "init" or "folder" not in url:
        assert says in re.sub(r"\s+", " ", result.stderr)
    assert "Traceback" not in result.output
    assert "s3cret" not in result.output


def test_without_a_url_the_usage_is_shown() -> None:
    for words in ([], ["check"], ["init"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "Usage" in result.output
