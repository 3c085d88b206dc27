"""The documents: their examples run, their links lead somewhere, and their commands exist.

How a block of code is treated can be seen from its first lines:

- ```pycon: run as a doctest; the blocks of a page share one namespace.
- ```python that begins with ``#!``: a CGI script, run by itself as a web server would.
- ```python that begins with ``# test_name.py``: saved under that name and run by pytest.
- ```python that begins with an import: a whole program, which runs in a namespace of its own.
- any other ```python: a part of a program, which has to compile.

Each page runs in an empty folder.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import pytest

from coatcheck import Capability, EventKind, Policy
from coatcheck.drivers import built_in_drivers

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "pythonweb" / "README.md",
]
ALL_PAGES: Final = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

FENCE: Final = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
SAVED: Final = re.compile(r"# (test_\w+\.py)\n")
MAKE: Final = re.compile(r"\bmake (?:[A-Z]+=\S+ )*([a-z][a-z-]*)")


class Block(NamedTuple):
    """A block of code on a page."""

    language: str
    text: str
    line: int


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(found[2], found[3], text[: found.start(3)].count("\n")) for found in FENCE.finditer(text)]


PROGRAMS: Final = [(page, block) for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The examples


@pytest.mark.parametrize("page", [page for page in PAGES if "```pycon" in page.read_text("utf-8")], ids=name_of)
def test_what_a_page_types_gives_what_it_shows(page: Path) -> None:
    examples: list[doctest.Example] = []
    for block in blocks(page):
        if block.language == "pycon":
            found = doctest.DocTestParser().get_examples(block.text, name_of(page))
            for example in found:
                example.lineno += block.line
            examples += found
    assert examples
    test = doctest.DocTest(examples, {"__name__": "__main__"}, name_of(page), str(page), 0, None)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def is_program(block: Block) -> bool:
    first = next(iter(ast.parse(block.text).body), None)
    return isinstance(first, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize(
    ("page", "block"), PROGRAMS, ids=[f"{name_of(page)}:{block.line + 1}" for page, block in PROGRAMS]
)
def test_a_program_on_a_page_runs(page: Path, block: Block, empty_folder: Path) -> None:
    code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
    if block.text.startswith("#!"):
        run_as_cgi(block, empty_folder)
    elif (saved := SAVED.match(block.text)) is not None:
        run_by_pytest(block, empty_folder / saved[1])
    elif is_program(block):
        exec(code, {"__name__": "example"})  # noqa: S102 (our own pages)


def run_as_cgi(block: Block, folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(block.text, encoding="utf-8")
    request = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "HTTPS": "on"}
    cookie = ""
    for visit in ("1", "2"):
        done = subprocess.run(
            [sys.executable, script],
            env={**os.environ, **request, "HTTP_COOKIE": cookie},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        assert headers["Content-Type"].startswith("text/")
        assert "Status" not in headers
        assert body.split()[-1] == visit or "web.session" not in block.text
        cookie = headers.get("Set-Cookie", cookie).partition(";")[0]


def run_by_pytest(block: Block, file: Path) -> None:
    file.write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9][0-9]* passed", done.stdout, re.MULTILINE), done.stdout


def test_every_fence_is_closed_and_named() -> None:
    for page in ALL_PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) % 2 == 0, name_of(page)
        assert all(fences[::2]), f"{name_of(page)}: a block of code does not say its language"


# Links and commands


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{name_of(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}, and there is no such heading"


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_every_make_command_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.+)$", text, re.MULTILINE)
    code += [block.text for block in blocks(page) if block.language in {"console", "sh", "bash"}]
    named = {target for line in code for target in MAKE.findall(line.partition("#")[0])}
    assert named <= targets, f"{name_of(page)} names make targets that are not there: {named - targets}"


def test_the_first_screen_of_the_readme_says_what_how_and_shows_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    in_order = [
        "# coatcheck\n",
        "\nServer-side sessions",
        "make demo",
        "make test",
        "```python\n",
        "```pycon\n",
        "](docs/",
    ]
    places = [text.index(part) for part in in_order]
    assert places == sorted(places)
    assert text.startswith(in_order[0])
    assert text[: text.index("```python\n")].count("\n") < 15, "the first code comes too late"


# What the pages say of the code


def rows(page: Path, heading: str) -> dict[str, list[str]]:
    """The table under a heading: the first cell of each row, without its backticks, and the other cells."""
    section = page.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"^#{1,6} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in section.partition("| --- |")[2].splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_settings_page_has_every_field_of_policy_with_its_default() -> None:
    told = {
        name: ast.literal_eval(row[0].strip("`")) for name, row in rows(ROOT / "docs/settings.md", "## Policy").items()
    }
    real = {field.name: field.default for field in dataclasses.fields(Policy)}
    assert list(told) == list(real)
    assert told == real
    assert all(type(told[name]) is type(real[name]) for name in real if not isinstance(real[name], float))


def test_the_sessions_page_has_every_kind_of_event() -> None:
    assert list(rows(ROOT / "docs/sessions.md", "## Events")) == [kind.name for kind in EventKind]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_drivers_is_current() -> None:
    table = script("driver_table")
    page = (ROOT / "docs" / "engines" / "README.md").read_text(encoding="utf-8")
    assert table.filled(page) == page, "run python scripts/driver_table.py"
    for driver in built_in_drivers():
        scopes = [scope for scope in driver.capabilities if scope.startswith("scope: ")]
        assert len(scopes) == 1, "a driver has one scope"
        assert driver.capabilities <= frozenset(Capability)


def test_the_options_of_the_server_are_those_of_the_page() -> None:
    text = (ROOT / "docs" / "pythonweb.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `-")]
    told = re.findall(r"(?<![\w-])--?[a-z]+", " ".join(cells))
    server = ROOT / "pythonweb" / "scripts" / "WSGIServer.py"
    done = subprocess.run([sys.executable, server, "--help"], capture_output=True, text=True, check=True, timeout=300)
    real = re.findall(r"(?:^  |, )(--?[a-z]+)", done.stdout.partition("options:")[2], re.MULTILINE)
    assert real
    assert sorted(told) == sorted(real)
