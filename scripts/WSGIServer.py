#!/usr/bin/env python3
"""Serve the programs of the 2005 reference in a clone: http://localhost:8000/session is its session page.

    python scripts/WSGIServer.py [OPTION...]

Runs pythonweb/scripts/WSGIServer.py, which has the options, with a Python that has what it needs: this one, that of
`.venv`, or that of a `.venv` which is set up first. The databases of the programs lie in `.demo` unless `--data` names
another folder.
"""
# ruff: noqa: S603, S606  # a script, which starts the program that it is named after

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "pythonweb" / "scripts" / "WSGIServer.py"
OWN = ROOT / ".venv" / "bin" / "python"


def serves(python: Path) -> bool:
    """Return whether a Python has what the server and its programs import."""
    if not python.exists():
        return False
    asked = [str(python), "-c", "import waitress, web.wsgi.session"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Become the server."""
    python = next((each for each in (Path(sys.executable), OWN) if serves(each)), None)
    if python is None:
        done = subprocess.run([sys.executable, str(ROOT / "scripts" / "setup_env.py"), ".venv", "demo"], check=False)
        if done.returncode:
            sys.exit(done.returncode)
        python = OWN
    given = sys.argv[1:]
    if not any(each.partition("=")[0] == "--data" for each in given):
        given = ["--data", str(ROOT / ".demo"), *given]
    os.execv(python, [str(python), str(SERVER), *given])


if __name__ == "__main__":
    main()
