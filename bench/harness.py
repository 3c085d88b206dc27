"""Starts a process for each library and talks to it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

FOLDER: Final = Path(__file__).resolve().parent
RESULTS: Final = FOLDER / "results"
DOCUMENT: Final = FOLDER.parent / "docs" / "bench.md"


class Entry(NamedTuple):
    """A library with an engine and its settings."""

    name: str
    engine: str
    variant: str = "default"

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name if self.variant == "default" else f"{self.name}, {self.variant}"


ENTRIES: Final = (
    Entry("coatcheck", "sqlite"),
    Entry("Beaker", "sqlite"),
    Entry("Beaker", "sqlite", "tuned"),
    Entry("Django", "sqlite"),
    Entry("Django", "sqlite", "tuned"),
    Entry("Flask-Session", "sqlite"),
    Entry("Flask-Session", "sqlite", "tuned"),
    Entry("coatcheck", "memory"),
    Entry("Beaker", "memory"),
    Entry("Beaker", "memory", "tuned"),
    Entry("Django", "memory"),
    Entry("Flask-Session", "memory"),
    Entry("Flask-Session", "memory", "tuned"),
)
RAW: Final = Entry("raw", "sqlite")


def chosen(only: list[str] | None) -> list[Entry]:
    """Give the entries of the libraries in *only*, or all."""
    names = None if only is None else {name.lower() for name in only}
    found = [entry for entry in ENTRIES if names is None or entry.name.lower() in names]
    if not found:
        sys.exit(f"--only takes some of {', '.join(sorted({entry.name for entry in ENTRIES}))}")
    return found


class Worker:
    """The process of one entry. A context manager that ends it."""

    def __init__(self, entry: Entry, purpose: str) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed in __exit__)
        self.entry: Final = entry
        self._process = subprocess.Popen(  # noqa: S603 (our own script)
            [sys.executable, str(FOLDER / "worker.py"), *entry, purpose],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, command: str, *arguments: object) -> Any:
        """Have the process do something and give its answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([command, *arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            process.wait()
            self._errors.seek(0)
            sys.exit(f"{self.entry.label} ({self.entry.engine}) failed at {command}:\n{self._errors.read()[-4000:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # no more commands: it ends
        self._errors.close()


def machine() -> str:
    """Say what ran, without saying whose machine it was."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}"


def write_results(folder: Path, name: str, results: object) -> None:
    """Keep the figures of a run as JSON."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def today() -> str:
    """Give the date, for the reader of a table to judge its age by."""
    return f"{time.localtime().tm_mday} {time.strftime('%B %Y')}"


def replace_part(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Put *text* between the two markers of that name in the document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(f"{document.name} lacks the markers {begin} and {end}")
    document.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Give a table in Markdown, its columns aligned so that it reads well on a terminal too."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
