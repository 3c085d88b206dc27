"""`make demo` in a fresh copy of the repository, as somebody's first look."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .conftest import ROOT, STOPS_WITHIN, give_up

SETS_UP_WITHIN = 300
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".build", ".demo", ".*_cache", ".hypothesis", "__pycache__", "*.db*"
)


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.status, answer.read().decode()


@pytest.mark.slow
@pytest.mark.timeout(SETS_UP_WITHIN + 60)
def test_make_demo_serves_the_demo_and_ends_when_told(tmp_path: Path) -> None:
    copy, log = tmp_path / "copy", tmp_path / "log"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    # Nothing of the make that may run this suite, and the Python that runs it.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    with log.open("w", encoding="utf-8") as errors:
        demo = subprocess.Popen(
            ["make", "demo", "PORT=0", f"PYTHON={sys.executable}"],
            cwd=copy, env=env, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        assert demo.stdout is not None
        line = demo.stdout.readline()  # the time limit of the test is the one of the setting up
        said = log.read_text(encoding="utf-8")
        if "If the package index did not answer" in said:
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
