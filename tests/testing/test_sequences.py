"""The sequences of the conformance kit find broken drivers by themselves, and say how."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from coatcheck.drivers.memory import MemoryDriver
from coatcheck.testing.sequences import check

FOLDER = Path(__file__).parent.parent / "drivers"


def _load(name: str) -> ModuleType:
    # folders of tests are not packages, so a module elsewhere is loaded by its path
    spec = importlib.util.spec_from_file_location(f"sequences_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MUTANTS = {
    name: kind
    for module in map(_load, ("mutants", "mutants_life", "mutants_rotation", "mutants_devices"))
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, MemoryDriver) and kind is not MemoryDriver
}

FOUND = (
    "ARefusedCommitConfirms",
    "AbsentIsAnything",
    "ClearIsForAll",
    "CommitCreates",
    "CreateOverwrites",
    "CreateRevives",
    "CreateTakesAnySid",
    "DropsIgnoreBases",
    "EndLeavesNoTombstone",
    "EndsAnybodys",
    "EndsNobodys",
    "EveryRotationIssues",
    "EveryWriteIsActivity",
    "ExpiresLate",
    "ExpiresWhenSwept",
    "ForgetsReasons",
    "GraceFromTheRotation",
    "GraceNeverEnds",
    "GraceStartsAgain",
    "IgnoresBases",
    "IncrementsKeepTheVersion",
    "LateIndex",
    "ListsTheExpired",
    "LoadIsActivity",
    "NamesOneConflict",
    "NeverReplacesALostSuccessor",
    "NoFence",
    "NotesAreForgotten",
    "NotesAreNotEmptied",
    "NotesEndWithARotation",
    "RevivesTheExpired",
    "Revives",
    "RevokeForgetsTheUnknown",
    "RevokesOneDigest",
    "RevokesTheKept",
    "RotatesBeforeAConflict",
    "RotationForgetsItsChange",
    "RotationHasNoGrace",
    "RotationIsANewSession",
    "RotationIsActivity",
    "RotationKeepsTheOldToken",
    "RotationRewritesValues",
    "SharesValues",
    "SilentlyDropsLateWrites",
    "StoresDigits",
    "SweepsTombstones",
    "TheOldTokenConfirms",
    "TouchGoesBackwards",
    "VersionOfContent",
    "WholeRecord",
    "WritesHalfOfAConflict",
)
"""Those that the sequences find on their own, without the test that was written for them."""


@pytest.mark.parametrize("name", FOUND)
def test_the_sequences_find_it(name: str) -> None:
    driver = MUTANTS[name]()
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(AssertionError):
        check(driver, driver, examples=400, shrink=False)


def test_a_failure_is_a_short_program() -> None:
    driver = MUTANTS["TouchGoesBackwards"]()
    with pytest.raises(AssertionError, match="client_0 loads something else") as caught:
        check(driver, driver)
    steps = [
        line
        for note in caught.value.__notes__
        for line in note.splitlines()
        if "state." in line and "storage_is" not in line and "teardown" not in line
    ]
    assert len(steps) <= 4
    assert steps[0] == "client_0 = state.begins(values={})"
    assert re.search(r"ago=1|'touch': 1", steps[-1])


def test_the_sequences_are_the_same_each_time() -> None:
    def calls() -> list[str]:
        seen: list[str] = []

        class Noted(MemoryDriver):
            def __getattribute__(self, name: str) -> object:
                if name in {"create", "commit", "rotate", "revoke", "revoke_user", "end", "sweep"}:
                    seen.append(name)
                return super().__getattribute__(name)

        driver = Noted()
        check(driver, driver, examples=10)
        return seen

    first = calls()
    assert first == calls()
    assert set(first) >= {"create", "commit", "rotate", "revoke", "revoke_user", "end", "sweep"}
