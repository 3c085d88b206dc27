"""Set up a virtual environment of this repository.

    python scripts/setup_env.py FOLDER demo       both packages, editable, and the server's waitress
    python scripts/setup_env.py FOLDER develop    the same and the development tools
    python scripts/setup_env.py FOLDER wheels     the tools, and both packages from wheels that are built here

Whatever is up to date already is left alone, so a second call costs next to nothing. Needs the standard library only.
"""
# ruff: noqa: INP001, S603  # a script, which starts the tools it names

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = (ROOT, ROOT / "pythonweb")
BUILD = ROOT / ".build"
DIST = BUILD / "dist"
KINDS = ("demo", "develop", "wheels")
INDEX_ANSWERS_WITHIN = 8  # seconds


def project(folder: Path) -> dict[str, Any]:
    """The contents of a folder's pyproject.toml."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def say(text: str) -> None:
    """Tell what takes time, on standard error: standard output belongs to what is run afterwards."""
    sys.stderr.write(f"{text}\n")


def run(*command: str | Path) -> None:
    """Run a command in the repository; a failure ends this script with what to do about it."""
    arguments = [str(part) for part in command]
    status = subprocess.run(arguments, cwd=ROOT, check=False).returncode
    if status:
        say(f"This command failed with status {status}: {' '.join(arguments)}")
        say("If the package index did not answer, run make again: what was downloaded is kept.")
        sys.exit(1)


def digest(kind: str, files: Iterable[Path]) -> str:
    """One value for a kind of work and the contents of files, to tell whether anything changed."""
    total = hashlib.sha256(kind.encode())
    for file in sorted(files):
        total.update(f"\n{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return total.hexdigest()


def fresh(stamp: Path, value: str) -> bool:
    """Whether a stamp says that the work of this value is done."""
    return stamp.is_file() and stamp.read_text(encoding="ascii") == value


def python_of(folder: Path) -> Path:
    """The Python of a virtual environment, which is made, or made again for another Python, where need be."""
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sys; print(sys.version)"]
    if python.exists():
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == sys.version.strip():
            return python
    say(f"Making {folder.name} with Python {sys.version.split()[0]}")
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    return python


def look_for_index(python: Path, needed: list[str]) -> None:
    """End this script with one line where the package index does not answer; pip alone would try for minutes."""
    asked = ("-qqq", "--disable-pip-version-check", "--retries", "0", "--timeout", str(INDEX_ANSWERS_WITHIN))
    look = [str(python), "-m", "pip", "install", *asked, "--dry-run", "--no-deps", "--ignore-installed"]
    try:
        status = subprocess.run(
            [*look, *needed], capture_output=True, timeout=INDEX_ANSWERS_WITHIN, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        status = None
    if status != 0:
        say(
            "The package index does not answer, and the first time needs it: connect to the network, or name a mirror"
            " in PIP_INDEX_URL, and run make demo again"
        )
        sys.exit(1)


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Install with patience: the index may be slow."""
    quiet = ("-qq", "--disable-pip-version-check", "--retries", "10", "--timeout", "60")
    run(python, "-m", "pip", "install", *quiet, *arguments)


def build_wheels(python: Path) -> list[Path]:
    """Build both distributions with ``python -m build``, where their sources changed, and return the wheels."""
    sources = [file for folder in DISTRIBUTIONS for file in (folder / "src").rglob("*") if file.suffix != ".pyc"]
    sources += [file for folder in DISTRIBUTIONS for file in folder.iterdir() if file.suffix in {".md", ".toml", ""}]
    value = digest("build", (file for file in sources if file.is_file()))
    stamp = BUILD / "wheels.stamp"
    if not fresh(stamp, value):
        shutil.rmtree(DIST, ignore_errors=True)
        for folder in DISTRIBUTIONS:
            say(f"Building {project(folder)['project']['name']}")
            # The build tools are in this environment already; an isolated one would download them again.
            run(python, "-m", "build", "--no-isolation", "--outdir", DIST, folder)
        stamp.write_text(value, encoding="ascii")
    return sorted(DIST.glob("*.whl"))


def main() -> None:
    """Do what the command line asks for."""
    if len(sys.argv) != len(("script", "folder", "kind")) or sys.argv[2] not in KINDS:
        sys.exit(__doc__)
    folder, kind = ROOT / sys.argv[1], sys.argv[2]
    python = python_of(folder)
    files = [folder / "pyproject.toml" for folder in DISTRIBUTIONS] + [Path(__file__).resolve()]
    value = digest(kind, files)
    stamp = folder / f"{kind}.stamp"
    tools: list[str] = project(ROOT)["dependency-groups"]["dev"]
    editable: list[str | Path] = [part for folder in DISTRIBUTIONS for part in ("--editable", folder)]
    if not fresh(stamp, value):
        say(f"Installing into {folder.name}; the first time takes a minute")
        if kind == "demo":
            server: list[str] = project(DISTRIBUTIONS[1])["project"]["optional-dependencies"]["server"]
            look_for_index(python, server)
            pip_install(python, *editable, *server)
        elif kind == "develop":
            pip_install(python, *editable, *tools)
        else:
            needed = [need for folder in DISTRIBUTIONS for need in project(folder)["project"]["dependencies"]]
            pip_install(python, *tools, *(need for need in needed if need != "coatcheck"))
        stamp.write_text(value, encoding="ascii")
    if kind == "wheels":
        wheels = build_wheels(python)
        value = digest("installed", wheels)
        stamp = folder / "installed.stamp"
        if not fresh(stamp, value):
            pip_install(python, "--no-index", "--no-deps", "--force-reinstall", *wheels)
            stamp.write_text(value, encoding="ascii")


if __name__ == "__main__":
    main()
