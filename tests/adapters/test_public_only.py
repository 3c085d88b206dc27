"""Adapters stand on public names alone: what they can do, anybody's adapter can do."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAMES = ROOT / "docs" / "public-names.txt"
PUBLIC = {line.rpartition(".")[::2] for line in NAMES.read_text("utf-8").splitlines()}
MODULES = {module for module, _ in PUBLIC}

ADAPTERS = {
    "coatcheck.wsgi": [ROOT / "src" / "coatcheck" / "wsgi.py"],
    "web": sorted((ROOT / "pythonweb" / "src" / "web").rglob("*.py")),
}
"""The files of each adapter. What is private to an adapter may be used in all of its files."""

ELSEWHERE = {
    ("coatcheck.errors", "ConfigurationError"),
    ("coatcheck.manager", "SessionManager"),
    ("coatcheck.policy", "Policy"),
}
"""Public names that `coatcheck` exports. Its own modules take them from where they are, as `coatcheck` imports them."""

OF_NAMEDTUPLES = {"_asdict", "_fields", "_make", "_replace"}


def private_uses(sources: Iterable[str], *, inside: bool = False) -> Iterator[str]:
    """Yield each use of a private module or name of coatcheck.

    Args:
        sources: The source texts of an adapter.
        inside: True for one that is a part of coatcheck.
    """
    trees = [ast.parse(source) for source in sources]
    own = {name for tree in trees for name in _defined(tree)}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "coatcheck":
                for alias in node.names:
                    place = node.module or "", alias.name
                    if place not in PUBLIC and ".".join(place) not in MODULES and not (inside and place in ELSEWHERE):
                        yield ".".join(place)
            elif isinstance(node, ast.Import):
                yield from (each.name for each in node.names if _is_private_module(each.name))
            elif isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
                yield node.attr


def _is_private_module(name: str) -> bool:
    return name.partition(".")[0] == "coatcheck" and name not in MODULES


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in OF_NAMEDTUPLES


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file gives to functions, classes and attributes of its own objects."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (name for target in targets for name in _assigned(target))
            case ast.AnnAssign(target=target):
                yield from _assigned(target)
            case ast.ImportFrom() | ast.Import():
                yield from (alias.asname or alias.name for alias in node.names)


def _assigned(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            yield name
        case ast.Tuple(elts=parts):
            yield from (name for part in parts for name in _assigned(part))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_uses_public_modules_and_names_alone(adapter: str) -> None:
    sources = [path.read_text("utf-8") for path in ADAPTERS[adapter]]
    assert len(sources) > 0
    assert sorted(set(private_uses(sources, inside=adapter.startswith("coatcheck.")))) == []


@pytest.mark.parametrize(("module", "name"), sorted(ELSEWHERE))
def test_what_an_adapter_inside_takes_from_elsewhere_is_public(module: str, name: str) -> None:
    assert ("coatcheck", name) in PUBLIC
    assert getattr(importlib.import_module("coatcheck"), name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from coatcheck.state import State", ["coatcheck.state.State"]),
        ("import coatcheck.saving", ["coatcheck.saving"]),
        ("from coatcheck import saving", ["coatcheck.saving"]),
        ("from coatcheck.drivers._files import PlaceError", ["coatcheck.drivers._files.PlaceError"]),
        ("session._opened.dead = True", ["_opened"]),
        ("self._manager = exchange._manager", []),
        ("self._mine = exchange._manager", ["_manager"]),
        ("incoming._replace(scheme='https')", []),
        ("from coatcheck.adapter import Exchange\nfrom coatcheck.drivers.sqlite import SQLiteDriver", []),
    ],
)
def test_the_scan_would_find_it(source: str, found: list[str]) -> None:
    assert list(private_uses([source])) == found
