"""scripts/WSGIServer.py at the root of the project: what the page of 2005 says to run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, STOPS_WITHIN, give_up

SETS_UP_WITHIN = 300
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".build", ".demo", ".*_cache", ".hypothesis", "__pycache__", "*.db*"
)


class Served:
    """A server that was started by the script."""

    def __init__(self, python: str, folder: Path, log: Path, *options: str | Path) -> None:
        # Nothing of the environment that runs this suite, but for its Python.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [python, "scripts/WSGIServer.py", "-p", "0", *options],
                cwd=folder, env=env, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
        self.log = log

    def port(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # the time limit of the test is the one of the setting up
        said = self.log.read_text(encoding="utf-8")
        if "If the package index did not answer" in said:
            give_up("the package index did not answer")
        found = re.fullmatch(r"Serving on http://127\.0\.0\.1:(\d+)/\n", line)
        assert found, f"the script said {line!r} and {said!r}"
        return found[1]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOPS_WITHIN)
            finally:
                if self.process.poll() is None:
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def served() -> Iterator[list[Served]]:
    """The servers of a test, which are ended after it."""
    started: list[Served] = []
    yield started
    for each in started:
        each.end()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts of the project, where nothing is set up."""
    for folder in ("scripts", "pythonweb/scripts"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder, ignore=LEFT_OUT)
    return tmp_path / "clone"


def get(port: str, path: str) -> str:
    with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=60) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def test_it_serves_the_index_and_the_session_page(clone: Path, tmp_path: Path, served: list[Served]) -> None:
    served.append(Served(sys.executable, clone, tmp_path / "log"))
    port = served[0].port()
    assert 'href="/session"' in get(port, "/")
    assert "New Session Started" in get(port, "/session")
    assert (clone / ".demo" / "wsgi-session").is_file()  # not among the files of the project


@pytest.mark.parametrize("spelling", ["--data=there", "--data there"])
def test_it_serves_the_program_of_the_page(
    clone: Path, tmp_path: Path, served: list[Served], page_program: Path, spelling: str
) -> None:
    shutil.copy(page_program, clone / "page.py")
    served.append(Served(sys.executable, clone, tmp_path / "log", *spelling.split(), "--mount", "/page=page.py"))
    port = served[0].port()
    assert "New Session Started" in get(port, "/page")
    assert (clone / "there" / "wsgi-session").is_file()
    assert not (clone / ".demo").exists()


def test_options_and_errors_are_those_of_the_server(clone: Path) -> None:
    command = [sys.executable, "scripts/WSGIServer.py"]
    told = subprocess.run([*command, "--help"], cwd=clone, capture_output=True, text=True, check=True, timeout=120)
    assert "--mount" in told.stdout
    failed = subprocess.run([*command, "-p", "x"], cwd=clone, capture_output=True, text=True, check=False, timeout=120)
    assert (failed.returncode, "'x' is not a port" in failed.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(SETS_UP_WITHIN + 60)
def test_it_sets_up_what_it_needs(tmp_path: Path, served: list[Served]) -> None:
    shutil.copytree(ROOT, tmp_path / "copy", ignore=LEFT_OUT, symlinks=True)
    bare = Path(sys.base_prefix) / "bin" / "python3"  # without the packages of the suite's environment
    served.append(Served(str(bare), tmp_path / "copy", tmp_path / "log"))
    assert "New Session Started" in get(served[0].port(), "/session")
    assert (tmp_path / "copy" / ".venv").is_dir()
