"""The conformance kit finds every driver that is broken on purpose, by the rule that it breaks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.testing import DriverContract


def _load(name: str) -> ModuleType:
    # folders of tests are not packages, so the module beside this one is loaded by its path
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [_load(name) for name in ("mutants", "mutants_life", "mutants_rotation", "mutants_devices")]

FOUND_BY = {
    "ErrsOnUnknown": "rule_01_unknown_digest",
    "ForgetsReasons": "rule_01_reasons",
    "LoadIsActivity": "rule_01_loading_is_no_activity",
    "SharesValues": "rule_01_a_loaded_record_is_a_snapshot",
    "CreateOverwrites": "rule_02_create_never_overwrites",
    "CreateTakesAnySid": "rule_02_create_never_overwrites",
    "CreateRevives": "rule_02_create_refuses_a_tombstone",
    "RevokeForgetsTheUnknown": "rule_02_create_refuses_a_digest_revoked_before_it_came",
    "RacyCreate": "rule_02_race_of_creations",
    "WholeRecord": "rule_03_a_commit_touches_what_it_names",
    "IgnoresBases": "rule_05_a_base_that_fails",
    "AbsentIsAnything": "rule_05_race_for_an_absent_key",
    "DropsIgnoreBases": "rule_05_a_base_that_fails",
    "NamesOneConflict": "rule_05_conflict_names_every_key",
    "WritesHalfOfAConflict": "rule_03_a_refused_change_leaves_nothing_behind",
    "TouchesOnConflict": "rule_03_a_refused_change_leaves_nothing_behind",
    "WritesBeforeAnError": "rule_03_an_error_leaves_nothing_behind",
    "VersionsStartAgain": "rule_05_versions_never_come_back",
    "VersionOfContent": "rule_05_versions_are_positive_and_change",
    "IncrementsKeepTheVersion": "rule_05_an_increment_is_a_write",
    "RacyIncrements": "rule_05_race_of_increments",
    "RacyBases": "rule_05_race_of_read_and_write",
    "CountersWrap": "rule_05_counters_have_bounds",
    "CountsDigits": "rule_05_incrementing_bytes",
    "StoresDigits": "rule_10_values_are_opaque",
    "FoldsCase": "rule_10_values_are_opaque",
    "JoinsNames": "rule_10_values_are_opaque",
    "StripsBytes": "rule_10_values_are_opaque",
    "ClearIgnoresSpare": "rule_03_a_clear_spares",
    "ClearSparesNoWholeApp": "rule_03_a_clear_spares",
    "ClearsLast": "rule_03_clears_come_first",
    "ClearIsForAll": "rule_03_clear_of_an_app",
    "ClearsWhatWasLoaded": "rule_03_bases_are_judged_before_the_clear",
    "Revives": "rule_04_no_commit_revives",
    "RevivesTheExpired": "rule_04_no_commit_revives",
    "ConflictBeforeGone": "rule_04_a_based_change_meets_gone_and_no_conflict",
    "SilentlyDropsLateWrites": "rule_04_no_commit_revives",
    "CommitCreates": "rule_04_what_never_was_is_gone",
    "ExpiresWhenSwept": "rule_08_idle_boundary",
    "ExpiresLate": "rule_08_idle_boundary",
    "AbsoluteFromCreation": "rule_08_absolute_counts_from_creation_or_log_in",
    "TouchGoesBackwards": "rule_08_touch_never_goes_backwards",
    "ActivityIsNeverDue": "rule_08_activity_with_a_change_is_recorded_once_it_is_due",
    "EveryWriteIsActivity": "rule_08_only_a_touch_is_activity",
    "ListsTheExpired": "rule_08_the_expired_are_in_no_list",
    "LateIndex": "rule_07_the_index_follows_a_log_in",
    "IndexKeepsTheOldUser": "rule_07_the_index_follows_a_log_in",
    "RevokesOneDigest": "rule_07_a_session_can_be_revoked_by_either_token",
    "LogoutMissesTheSuccessor": "rule_07_a_logout_that_races_a_rotation",
    "RevokesTheKept": "rule_07_revoke_user_keeps_one",
    "NoFence": "rule_07_a_log_in_does_not_slip_by",
    "FenceForCreateOnly": "rule_07_a_log_in_does_not_slip_by",
    "FenceForEver": "rule_07_a_later_log_in_is_welcome",
    "FenceOfAWrongClock": "rule_07_a_revocation_by_a_wrong_clock_locks_nobody_out",
    "FenceMovesBack": "rule_07_of_two_revocations_the_later_counts",
    "RotationKeepsTheOldToken": "rule_06_without_grace_the_old_token_is_dead_at_once",
    "RotationHasNoGrace": "rule_06_fresh_and_stale",
    "RotationIsANewSession": "rule_06_the_session_stays_the_same",
    "RotationRewritesValues": "rule_06_the_session_stays_the_same",
    "RotationForgetsItsChange": "rule_06_the_change_comes_along",
    "RotatesBeforeAConflict": "rule_06_a_refused_change_rotates_nothing",
    "GraceFromTheRotation": "rule_06_fresh_and_stale",
    "GraceStartsAgain": "rule_06_only_the_first_commit_confirms",
    "GraceNeverEnds": "rule_06_the_grace_runs_from_the_confirmation",
    "TheOldTokenConfirms": "rule_06_both_tokens_reach_the_session",
    "AnEmptyCommitConfirmsNothing": "rule_06_the_grace_runs_from_the_confirmation",
    "ARefusedCommitConfirms": "rule_06_a_refused_commit_confirms_nothing",
    "EveryRotationIssues": "rule_06_race_of_rotations",
    "NeverReplacesALostSuccessor": "rule_06_a_lost_successor_is_replaced",
    "ALogInLeavesTheOtherToken": "rule_06_log_in_with_a_stale_token",
    "RotatesToATokenInUse": "rule_06_a_digest_in_use_is_refused",
    "RotationIsActivity": "rule_06_rotation_is_no_activity",
    "SweepsAll": "rule_09_sweep_takes_a_slice",
    "SweepsTombstones": "rule_09_sweep_keeps_what_is_in_use",
    "SweepForgetsTheFloor": "rule_09_sweep_of_a_period",
    "TearDownLeavesSessions": "rule_12_tear_down_and_setup",
    "EndsAnybodys": "rule_07_end_only_the_users_own",
    "EndsNobodys": "rule_07_end_only_the_users_own",
    "EndsOne": "rule_07_end",
    "EndCountsTheExpired": "rule_07_end_of_what_has_expired",
    "EndCountsTwice": "rule_07_end",
    "EndLeavesNoTombstone": "rule_07_end",
    "EndLeavesTheOldToken": "rule_07_end",
    "EndRevokesTheUser": "rule_07_end_refuses_no_log_in",
    "EndFails": "rule_07_end_many",
    "NotesAreText": "rule_10_a_note_is_opaque",
    "NotesAreForgotten": "rule_10_a_note_stays",
    "NotesAreNotListed": "rule_10_a_note_is_opaque",
    "NotesEndWithARotation": "rule_10_a_note_stays",
    "NotesAreNotEmptied": "rule_10_a_note_changes",
    "NotesComeLater": "rule_10_a_note_is_opaque",
    "NotesAreWrittenFirst": "rule_10_a_refused_change_leaves_the_note",
}


def broken() -> dict[str, type[MemoryDriver]]:
    return {
        name: kind
        for module in MODULES
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, MemoryDriver) and kind is not MemoryDriver
    }


def run(test: str, driver: Driver) -> BaseException | None:
    """Run one test of the kit; give what it failed with."""
    try:
        getattr(DriverContract(), f"test_{test}")(driver)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 (a failed test fails in any way)
        return error
    return None


@pytest.mark.parametrize("name", FOUND_BY)
def test_the_kit_finds_it(name: str) -> None:
    found = run(FOUND_BY[name], broken()[name]())
    assert found is not None, f"{name} passes {FOUND_BY[name]}"
    by_the_kit = isinstance(found, (AssertionError, pytest.fail.Exception))
    assert by_the_kit or name == "ErrsOnUnknown", f"{name} does not even run: {found!r}"


def test_every_mutant_is_in_the_table() -> None:
    assert set(broken()) == set(FOUND_BY)


def test_the_kit_passes_a_driver_that_is_right() -> None:
    for test in sorted(set(FOUND_BY.values())):
        assert run(test, MemoryDriver()) is None, test


def test_every_rule_has_a_test() -> None:
    rules = {name.split("_")[2] for name in dir(DriverContract) if name.startswith("test_rule_")}
    engines_own = {"11"}  # how a failure looks is different for each engine
    assert rules | engines_own == {f"{number:02}" for number in range(1, 13)}
