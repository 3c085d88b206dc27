"""Three-way merge: what two requests did to one value is kept where it can be, and never lost in silence."""

import copy
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coatcheck.codec import Codec
from coatcheck.merge import MISSING, merge

_CODEC = Codec()


def same(a: Any, b: Any) -> bool:
    assert a is not MISSING
    assert b is not MISSING
    return _CODEC.encode(a) == _CODEC.encode(b)


def exactly(a: Any, b: Any) -> bool:
    return a is b if MISSING in (a, b) else same(a, b)


CASES: list[tuple[str, Any, Any, Any, Any, bool]] = [
    # name, base, mine, theirs, merged, clash
    ("nobody changed it", 1, 1, 1, 1, False),
    ("only mine", 1, 2, 1, 2, False),
    ("only theirs", 1, 1, 2, 2, False),
    ("the same change", "a", "b", "b", "b", False),
    ("two counts from one number are one count lost", 1, 2, 2, 2, True),
    ("a first number that both set is no count", MISSING, 0, 0, 0, False),
    ("two equal appends are two", ["a"], ["a", "b"], ["a", "b"], ["a", "b", "b"], False),
    ("two equal first lists are one", MISSING, ["a"], ["a"], ["a"], False),
    ("two equal changes inside a list are one", ["a"], ["b"], ["b"], ["b"], False),
    ("numbers do not add up", 1, 2, 3, 2, True),
    ("text does not merge", "a", "b", "c", "b", True),
    ("a change of type is a change", 1, True, 1, True, False),
    ("1 and True are no agreement", 0, 1, True, 1, True),
    ("mine deleted", 1, MISSING, 1, MISSING, False),
    ("theirs deleted", 1, 1, MISSING, MISSING, False),
    ("both deleted", 1, MISSING, MISSING, MISSING, False),
    ("mine deleted what theirs changed", 1, MISSING, 2, MISSING, True),
    ("theirs deleted what mine changed", 1, 2, MISSING, 2, True),
    ("both made the same", MISSING, 1, 1, 1, False),
    ("both made different ones", MISSING, 1, 2, 1, True),
    ("only theirs made it", MISSING, MISSING, 2, 2, False),
    ("dicts, different keys", {"a": 1}, {"a": 1, "m": 2}, {"a": 1, "t": 3}, {"a": 1, "t": 3, "m": 2}, False),
    ("dicts, theirs lead", {"a": 1}, {"m": 2, "a": 1}, {"t": 3, "a": 1}, {"t": 3, "a": 1, "m": 2}, False),
    ("dicts, one key", {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 4}, {"a": 2, "b": 4}, True),
    ("dicts, mine deleted a key", {"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}, False),
    ("dicts, theirs deleted a key", {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"b": 1}, {"b": 2}, False),
    ("dicts, both deleted", {"a": 1, "b": 1}, {"b": 1}, {"b": 1, "c": 1}, {"b": 1, "c": 1}, False),
    ("dicts, mine deleted a changed key", {"a": 1}, {}, {"a": 2}, {}, True),
    ("dicts, theirs deleted a changed key", {"a": 1}, {"a": 2}, {}, {"a": 2}, True),
    ("dicts, nested", {"a": {"b": 1}}, {"a": {"b": 1, "m": 1}}, {"a": {"b": 2}}, {"a": {"b": 2, "m": 1}}, False),
    ("dicts, nested new", {}, {"a": {"m": 1}}, {"a": {"t": 1}}, {"a": {"t": 1, "m": 1}}, False),
    ("dicts, no base", MISSING, {"m": 1}, {"t": 1}, {"t": 1, "m": 1}, False),
    ("dicts, base of another type", 7, {"m": 1}, {"t": 1}, {"m": 1}, True),
    ("dicts, keys of any kind", {(1,): 1}, {(1,): 1, 2: 2}, {(1,): 3}, {(1,): 3, 2: 2}, False),
    ("dicts, None is a value", {"a": None}, {"a": None, "m": 1}, {}, {"m": 1}, False),
    ("dicts, another spelling of a key", {1: 0}, {True: 0}, {1: 0, 2: 0}, {True: 0}, True),
    ("dicts, another spelling inside", {(1,): 0}, {(1.0,): 0}, {(1,): 0, 2: 0}, {(1.0,): 0}, True),
    ("sets", {1, 2, 3}, {1, 2, 4}, {1, 3, 5}, {1, 4, 5}, False),
    ("sets, no base", MISSING, {1}, {2}, {1, 2}, False),
    ("frozensets", frozenset({1}), frozenset({1, 2}), frozenset(), frozenset({2}), False),
    ("frozensets, no base", MISSING, frozenset({1}), frozenset({2}), frozenset({1, 2}), False),
    ("sets of two types", {1}, {1, 2}, frozenset({1, 3}), {1, 2}, True),
    ("sets, another spelling", {1}, {True}, {1, 2}, {True}, True),
    ("lists, both appended", [1], [1, "m"], [1, "t"], [1, "t", "m"], False),
    ("lists, mine appended", [1, 2], [1, 2, "m"], [2], [2, "m"], False),
    ("lists, theirs appended", [1, 2], [2], [1, 2, "t"], [2, "t"], False),
    ("lists, mine emptied", [1, 2], [], [1, 2, "t"], ["t"], False),
    ("lists, both edited", [1, 2], [3, 2], [1, 3], [3, 2], True),
    ("lists, no base", MISSING, ["m"], ["t"], ["t", "m"], False),
    ("lists, appended to another type", [1], [True, 2], [1.0, 3], [True, 2], True),
    ("lists in a dict", {"a": []}, {"a": ["m"]}, {"a": ["t"]}, {"a": ["t", "m"]}, False),
    ("counters, both counted", Counter(a=1), Counter(a=2), Counter(a=3), Counter(a=4), False),
    ("counters, equal counts are two", Counter(a=1), Counter(a=2), Counter(a=2), Counter(a=3), False),
    ("counters, equal first counts are two", MISSING, Counter(a=1), Counter(a=1), Counter(a=2), False),
    ("counters, new keys", Counter(), Counter(m=1), Counter(t=2), Counter(t=2, m=1), False),
    ("counters, taken", Counter(a=5), Counter(a=3), Counter(a=4), Counter(a=2), False),
    ("counters, taken by both to below nothing", Counter(a=1), Counter(a=0), Counter(a=0), Counter(a=-1), False),
    ("counters, mine removed a key", Counter(a=2, b=1), Counter(b=1), Counter(a=2, b=2), Counter(b=2), False),
    ("counters, theirs removed a key", Counter(a=2, b=1), Counter(a=2, b=2), Counter(b=1), Counter(b=2), False),
    ("counters, both removed a key", Counter(a=2, b=1), Counter(b=1), Counter(b=3), Counter(b=3), False),
    ("counters, removed while added to", Counter(a=2), Counter(), Counter(a=3), Counter(a=1), False),
    ("counters, added to while removed", Counter(a=2), Counter(a=3), Counter(), Counter(a=1), False),
    ("counters, removed while taken from", Counter(a=2), Counter(), Counter(a=1), Counter(), False),
    ("counters, both emptied", Counter(a=2), Counter(), Counter(), Counter(), False),
    ("counters, a count of nothing stays", Counter(a=1), Counter(a=0), Counter(a=1, b=1), Counter(a=0, b=1), False),
    ("counters, in a dict", {"c": Counter(a=1)}, {"c": Counter(a=2)}, {"c": Counter(a=2)}, {"c": Counter(a=3)}, False),
    ("counters, of two kinds", Counter(a=1), Counter(a=1.5), Counter(a=Decimal(2)), Counter(a=1.5), True),
    ("counters, fractions", Counter(a=Fraction(1, 3)), Counter(a=1), Counter(a=1), Counter(a=Fraction(5, 3)), False),
    ("counters, beside a dict", Counter(a=1), Counter(a=2), {"a": 2}, Counter(a=2), True),
    (
        "counters, another spelling of a key",
        Counter({1: 1}),
        Counter({True: 1}),
        Counter({1: 2}),
        Counter({True: 1}),
        True,
    ),
    ("counters, mine deleted", Counter(a=1, b=1), MISSING, Counter(a=2, b=1), Counter(a=1), False),
    ("counters, theirs deleted", Counter(a=1, b=1), Counter(a=2, b=1), MISSING, Counter(a=1), False),
    ("counters, mine deleted what theirs took from", Counter(a=2), MISSING, Counter(a=1), MISSING, False),
    ("lists, mine deleted", ["x"], MISSING, ["x", "y"], ["y"], False),
    ("lists, theirs deleted", ["x"], ["x", "y"], MISSING, ["y"], False),
    ("lists, mine deleted what theirs rewrote", ["x"], MISSING, ["z"], MISSING, True),
    ("lists, theirs deleted what mine rewrote", ["x"], ["z"], MISSING, ["z"], True),
    ("lists, mine deleted what theirs emptied", ["x"], MISSING, [], MISSING, False),
    ("lists, theirs deleted what mine emptied", ["x"], [], MISSING, [], False),
    ("lists, both deleted", ["x"], MISSING, MISSING, MISSING, False),
    ("lists, mine deleted what theirs made something else", ["x"], MISSING, {"x": 1}, MISSING, True),
    ("lists, mine deleted at depth", {"a": ["x"]}, {}, {"a": ["x", "y"]}, {"a": ["y"]}, False),
    ("lists, theirs deleted at depth", {"a": ["x"]}, {"a": ["x", "y"]}, {}, {"a": ["y"]}, False),
    ("dicts, mine deleted", {"a": 1}, MISSING, {"a": 1, "b": 2}, {"b": 2}, False),
    ("dicts, theirs deleted", {"a": 1}, {"a": 1, "b": 2}, MISSING, {"b": 2}, False),
    ("dicts, mine deleted a whole that theirs changed", {"a": 1}, MISSING, {"a": 2}, MISSING, True),
    ("sets, mine deleted", {1, 2}, MISSING, {1, 2, 3}, {3}, False),
    ("sets, theirs deleted", {1, 2}, {2, 3}, MISSING, {3}, False),
    ("frozensets, mine deleted", frozenset({1}), MISSING, frozenset({1, 2}), frozenset({2}), False),
    ("tuples, mine deleted", (1,), MISSING, (1, 2), MISSING, True),
    ("dicts, two equal counts inside are one lost", {"n": 1}, {"n": 2}, {"n": 2}, {"n": 2}, True),
    (
        "dicts, two equal appends inside are two",
        {"a": ["x"]},
        {"a": ["x", "y"]},
        {"a": ["x", "y"]},
        {"a": ["x", "y", "y"]},
        False,
    ),
    ("tuples do not merge", (1,), (1, 2), (1, 3), (1, 2), True),
]


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged", "clash"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_case(base: Any, mine: Any, theirs: Any, merged: Any, clash: bool) -> None:  # noqa: FBT001
    before = copy.deepcopy((base, mine, theirs))
    value, lost = merge(base, mine, theirs, same)
    assert exactly(value, merged)
    assert lost is clash
    assert all(map(exactly, (base, mine, theirs), before)), "an argument was changed"


def test_missing_has_a_clear_repr_and_stays_itself() -> None:
    assert repr(MISSING) == "MISSING"
    assert copy.deepcopy(MISSING) is MISSING


def test_a_merge_into_a_dict_leaves_the_nested_arguments_alone() -> None:
    base = {"a": {"x": [1]}}
    mine = {"a": {"x": [1, 2]}}
    theirs = {"a": {"x": [1, 3]}}
    value, _ = merge(base, mine, theirs, same)
    assert value == {"a": {"x": [1, 3, 2]}}
    assert (base, mine, theirs) == ({"a": {"x": [1]}}, {"a": {"x": [1, 2]}}, {"a": {"x": [1, 3]}})


leaves = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["a", "b"])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
        | st.sets(leaves, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)
anything = st.just(MISSING) | values


@settings(deadline=None)
@given(anything, anything)
def test_a_side_that_changed_nothing_yields(base: Any, changed: Any) -> None:
    for value, clash in (merge(base, changed, base, same), merge(base, base, changed, same)):
        assert exactly(value, changed)
        assert not clash


@settings(deadline=None)
@given(anything, anything)
def test_identical_changes_agree_but_for_counts_and_appends(base: Any, changed: Any) -> None:
    kinds = {type(base), type(changed)}
    assume(int not in kinds and list not in kinds and dict not in kinds)
    value, clash = merge(base, changed, copy.deepcopy(changed), same)
    assert exactly(value, changed)
    assert not clash


@settings(deadline=None)
@given(anything, anything, anything)
def test_any_three_values_merge_without_touching_them(base: Any, mine: Any, theirs: Any) -> None:
    before = copy.deepcopy((base, mine, theirs))
    value, clash = merge(base, mine, theirs, same)
    assert all(map(exactly, (base, mine, theirs), before))
    if clash and not isinstance(mine, dict):
        assert exactly(value, mine)
    if value is not MISSING:
        _CODEC.encode(value)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), values),
    st.dictionaries(st.sampled_from("mno"), values),
    st.dictionaries(st.sampled_from("tuv"), values),
)
def test_disjoint_edits_of_a_dict_are_both_kept(base: Any, mine: Any, theirs: Any) -> None:
    value, clash = merge(base, {**base, **mine}, {**base, **theirs}, same)
    assert exactly(value, {**base, **theirs, **mine})
    assert not clash


@settings(deadline=None)
@given(st.lists(values, max_size=4), st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_what_both_appended_is_all_there(base: Any, mine: Any, theirs: Any) -> None:
    value, clash = merge(base, base + mine, base + theirs, same)
    if not exactly(mine, theirs):
        assert exactly(value, base + theirs + mine)
    assert not clash


tallies = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3)).map(Counter)


@settings(deadline=None)
@given(tallies, tallies, tallies)
def test_what_both_counted_adds_up(base: Counter[str], mine: Counter[str], theirs: Counter[str]) -> None:
    value, clash = merge(base, mine, theirs, same)
    assert not clash
    for key in "abc":
        total = theirs[key] + mine[key] - base[key]
        if key in value or key not in base:
            assert value[key] == total
        else:
            assert key not in mine or key not in theirs
            assert total <= 0 or (key not in mine and key not in theirs)


@settings(deadline=None)
@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_sets_keep_every_addition_and_every_removal(base: set[int], mine: set[int], theirs: set[int]) -> None:
    value, clash = merge(base, mine, theirs, same)
    assert value >= (mine - base) | (theirs - base)
    assert not value & ((base - mine) | (base - theirs))
    assert not clash
