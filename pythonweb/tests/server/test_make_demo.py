"""`make demo` in a fresh copy of the repository, as somebody's first look."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .conftest import ROOT, STOPS_WITHIN, give_up

SETS_UP_WITHIN = 300
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".build", ".demo", ".*_cache", ".hypothesis", "__pycache__", "*.db*"
)


NETWORK_MISSED_WITHIN = 20


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A fresh copy of the repository."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    return copy


def environment(*left_out: str) -> dict[str, str]:
    """The environment without what belongs to the make that may run this suite, and to the Python that runs it."""
    without = ("MAKE", "MFLAGS", "PYTHON", *left_out)
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.status, answer.read().decode()


@pytest.mark.slow
@pytest.mark.timeout(SETS_UP_WITHIN + 60)
def test_make_demo_serves_the_demo_and_ends_when_told(tmp_path: Path, copy: Path) -> None:
    log, env = tmp_path / "log", environment()
    with log.open("w", encoding="utf-8") as errors:
        demo = subprocess.Popen(
            ["make", "demo", "PORT=0", f"PYTHON={sys.executable}"],
            cwd=copy, env=env, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        assert demo.stdout is not None
        line = demo.stdout.readline()  # the time limit of the test is the one of the setting up
        said = log.read_text(encoding="utf-8")
        if "index does not answer" in said or "If the package index did not answer" in said:
            give_up("the package index did not answer")
        found = re.fullmatch(r"Serving on (http://127\.0\.0\.1:\d+/)\n", line)
        assert found, f"make demo said {line!r} and {said!r}"
        url = found[1]
        status, page = get(url)
        assert status == 200
        for path in ("session", "cgi", "environment", "error"):
            assert f'href="/{path}"' in page
        assert "New Session Started" in get(url + "session")[1]
        assert (copy / ".demo" / "wsgi-session").is_file()
        demo.send_signal(signal.SIGTERM)  # to make, which tells the server
        demo.wait(STOPS_WITHIN)
        with pytest.raises(urllib.error.URLError):
            get(url)
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
        if demo.stdout is not None:
            demo.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("index", ["refuses", "is silent"])
def test_make_demo_without_network_soon_says_what_is_missing(tmp_path: Path, copy: Path, index: str) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    making = time.monotonic() - began  # an environment, which make demo does first, however busy the machine is
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if index == "refuses":
            silent.close()
            port = 9  # the discard service, which nobody runs
        else:
            port = silent.getsockname()[1]
        env = environment("PIP_") | {"PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_CONFIG_FILE": os.devnull}
        began = time.monotonic()
        command = ["make", "demo", "PORT=0", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False, timeout=300)
        took = time.monotonic() - began
    assert done.returncode == 2
    making_it, installing, problem, *rest = done.stderr.splitlines()
    assert making_it.startswith("Making .venv")
    assert installing.startswith("Installing into .venv")
    assert problem.startswith("The package index does not answer")
    assert all(line.startswith("make: ***") for line in rest)
    assert took < max(NETWORK_MISSED_WITHIN, NETWORK_MISSED_WITHIN / 2 + 3 * making)
