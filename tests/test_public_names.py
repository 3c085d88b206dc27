"""The public names, what is said about them, and what the package must never import or compare."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "coatcheck"
LIST = ROOT / "docs" / "public-names.txt"
MODULES = (
    "coatcheck",
    "coatcheck.adapter",
    "coatcheck.drivers.base",
    "coatcheck.drivers.filesystem",
    "coatcheck.drivers.mariadb",
    "coatcheck.drivers.memcached",
    "coatcheck.drivers.memory",
    "coatcheck.drivers.postgresql",
    "coatcheck.drivers.redis",
    "coatcheck.drivers.sqlite",
    "coatcheck.record",
    "coatcheck.testing",
    "coatcheck.wsgi",
)
FILES = sorted(SOURCE.rglob("*.py"))


def public() -> list[str]:
    """Every public name with its module, sorted."""
    return sorted(f"{name}.{each}" for name in MODULES for each in importlib.import_module(name).__all__)


def test_the_public_names_are_those_of_the_list() -> None:
    # A name that goes, comes or moves is a decision: change docs/public-names.txt with it.
    assert LIST.read_text("utf-8").splitlines() == public()


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_exports_is_there_sorted_and_said_once(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__
    assert len(names) == len(set(names))
    assert all(hasattr(module, each) for each in names)
    # Ruff's order: constants, then classes, then the rest.
    assert names == sorted(names, key=lambda each: (not each.isupper(), not each[0].isupper(), each))
    assert not any(each.startswith("_") for each in names)


def _is_ours(thing: Any) -> bool:
    return getattr(thing, "__module__", "").startswith("coatcheck")


@pytest.mark.parametrize("name", public())
def test_every_public_name_says_what_it_is(name: str) -> None:
    module, _, own = name.rpartition(".")
    thing = getattr(importlib.import_module(module), own)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return  # a constant or an alias: what it is stands below it in the source
    assert inspect.getdoc(thing), f"{name} has no docstring"
    if not inspect.isclass(thing):
        return
    for part, member in inspect.getmembers(thing):
        is_part = inspect.isfunction(member) or inspect.ismethod(member) or isinstance(member, property)
        if part.startswith(("_", "test_")) or not is_part or not _is_ours(getattr(member, "fget", member)):
            continue
        assert inspect.getdoc(getattr(thing, part)) or inspect.getdoc(member), f"{name}.{part} has no docstring"


def test_every_public_constant_is_explained_or_speaks_for_itself() -> None:
    tree = ast.parse((SOURCE / "record.py").read_text("utf-8"))
    explained = set()
    for one, following in zip(tree.body, tree.body[1:], strict=False):
        target = (
            one.target if isinstance(one, ast.AnnAssign) else one.targets[0] if isinstance(one, ast.Assign) else None
        )
        says = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(target, ast.Name) and says:
            explained.add(target.id)
    assert explained >= {"NEVER", "ABSENT", "TOMBSTONE", "USER_FENCE", "ValueKey"}


# -- how it is said -------------------------------------------------------------------------------------------------


def test_docstrings_say_return_and_check() -> None:
    """As the documentation of the standard library does: not "Give", "Tell", "Say" or "Take note"."""
    found = []
    for file in sorted([*FILES, *(ROOT / "pythonweb" / "src").rglob("*.py")]):
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if re.match(r"(Gives?|Tells?|Says?|Take note)\b", text):
                    found.append(f"{name}: {text.splitlines()[0]}")
    assert found == [], "begin with Return, Check, Raise or Record"


# -- what it loads --------------------------------------------------------------------------------------------------

FRESH = """
import sys
import msgspec.msgpack  # with whatever it takes along where that is installed
before = set(sys.modules)
import coatcheck{more}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "\nimport coatcheck.wsgi, coatcheck.record, coatcheck.drivers.base",
        "\ncoatcheck.SessionManager('memory:').open([])['a'] = 1",
        "\ncoatcheck.SessionManager('sqlite:////nonexistent/never-opened.db')",
    ],
    ids=["import", "modules", "memory", "sqlite"],
)
def test_a_fresh_interpreter_loads_msgspec_and_the_standard_library_alone(more: str) -> None:
    script = FRESH.format(more=more)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    strangers = {name for name in loaded - sys.stdlib_module_names if not name.startswith("_sysconfigdata")}
    assert strangers == {"coatcheck"}


@pytest.mark.parametrize("module", ["coatcheck.testing", "pytest", "pickle", "sqlite3", "asyncio", "email"])
def test_what_few_need_is_not_loaded_by_importing_the_package(module: str) -> None:
    script = f"import sys; import coatcheck, coatcheck.wsgi; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what it must never do ------------------------------------------------------------------------------------------


def _imported(tree: ast.AST) -> set[str]:
    """Every module that a file imports, by statement or by name in a string handed to an importing function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("__import__", "import_module")):
            found |= {str(part.value) for part in node.args if isinstance(part, ast.Constant)}
    return found


FORBIDDEN = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dbm", "yaml", "ruamel", "dill", "cloudpickle", "jsonpickle",
    "joblib", "copyreg",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_imports_what_could_run_stored_data_or_forge_a_header(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not {name for name in _imported(tree) if name.partition(".")[0] in FORBIDDEN}
    assert "http.cookies" not in _imported(tree)  # lets line breaks through, and reads cookies that are not there
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "compile"}


SECRET = re.compile(r"secret|token|password|passwd|csrf|signature|(^|_)mac$|cookie_value|sessionid", re.IGNORECASE)
DIGEST = re.compile(r"digest", re.IGNORECASE)


def _compared(tree: ast.AST) -> list[tuple[str, int]]:
    """The variables and attributes that stand directly on a side of == or != (or of in, for a tuple of them)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            for side in (node.left, *node.comparators):
                if isinstance(side, ast.Name):
                    found.append((side.id, node.lineno))
                elif isinstance(side, ast.Attribute):
                    found.append((side.attr, node.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_secret_is_compared_byte_by_byte(path: Path) -> None:
    # Sessions are found by the hash of a token. A driver may compare such hashes, which give nothing away: who knows
    # how much of a hash was right is no nearer to a token. Above the drivers nobody has a reason to.
    in_driver = {"drivers", "testing"} & set(path.relative_to(SOURCE).parts)
    tree = ast.parse(path.read_text("utf-8"))
    for name, line in _compared(tree):
        assert not SECRET.search(name), f"{path}:{line} compares {name}"
        assert in_driver or not DIGEST.search(name), f"{path}:{line} compares {name}"


def test_the_scans_would_find_what_they_look_for() -> None:
    bad = ast.parse(
        "import pickle\nfrom yaml import load\n__import__('marshal')\nif a.token != b: pass\nx = secret == 1"
    )
    assert {"pickle", "yaml", "marshal"} <= _imported(bad)
    assert [name for name, _ in _compared(bad) if SECRET.search(name)] == ["token", "secret"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_randomness_comes_from_secrets_alone(path: Path) -> None:
    imported = _imported(ast.parse(path.read_text("utf-8")))
    assert "uuid.uuid4" not in imported
    # The length of a pause is no secret.
    assert "random" not in imported or path.name == "_pause.py"
