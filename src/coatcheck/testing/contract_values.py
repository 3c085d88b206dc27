"""Rules 3 and 5: changes are whole, touch nothing else, and never lose another's."""

# ruff: noqa: S101, PLR2004 (asserts and numbers are what tests are made of)

from __future__ import annotations

from dataclasses import replace

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.errors import CounterError, CounterOverflow, NotACounter
from coatcheck.record import ABSENT, COUNTER_MAX, COUNTER_MIN, WHOLE, Conflict, Delta, Put, Record, Value, ValueKey
from coatcheck.testing.helpers import START, Rules, committed, has_user_index, loaded, puts, started, user

__all__ = ["ValueRules"]

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
C: ValueKey = ("shop", "c")
D: ValueKey = ("shop", "d")


def data_of(record: Record) -> dict[ValueKey, bytes | int]:
    """Return the values of *record* without their versions."""
    return {name: value.data for name, value in record.values.items()}


class ValueRules(Rules):
    """How values change."""

    def test_rule_03_a_commit_touches_what_it_names(self, driver: Driver) -> None:
        """Values that a change does not name keep their bytes and their versions."""
        record = started(driver, values={A: b"a", B: b"b", C: b"c"})
        done = committed(self.reopen(driver).commit(record.digest, puts({A: b"new"}), START))
        after = loaded(driver, record.digest, START)
        assert after.values == {A: Value(b"new", done.version), B: record.values[B], C: record.values[C]}
        assert after == replace(record, values=after.values)

    def test_rule_03_requests_that_change_different_keys_both_win(self, driver: Driver) -> None:
        """Two requests that read the same state and change different keys both keep their changes."""
        record = started(driver, values={A: b"a", B: b"b"})
        one, two = driver, self.reopen(driver)
        committed(one.commit(record.digest, puts({A: b"A"}, record.values[A].version), START))
        committed(two.commit(record.digest, puts({B: b"B"}, record.values[B].version), START))
        committed(one.commit(record.digest, Delta(increments={C: 1}), START))
        committed(two.commit(record.digest, puts({D: b"D"}, ABSENT), START))
        assert data_of(loaded(driver, record.digest, START)) == {A: b"A", B: b"B", C: 1, D: b"D"}

    def test_rule_03_a_refused_change_leaves_nothing_behind(self, driver: Driver) -> None:
        """One base version that does not hold stops puts, drops, clears, increments, touch, deadline and user."""
        who = user()
        values: dict[ValueKey, bytes | int] = {A: b"a", B: b"b", C: 1, D: b"d"}
        record = started(driver, values=values)
        delta = Delta(
            puts={A: Put(b"new"), ("", "more"): Put(b"more"), ("", "wrong"): Put(b"wrong", 77)},
            drops={B: None},
            clears=frozenset({"shop"}),
            spare=frozenset({C}),
            increments={C: 5},
            touch=START + 5,
            deadline=START + 50,
            user=who,
            auth_time=START + 5,
        )
        assert driver.commit(record.digest, delta, START + 5) == Conflict((("", "wrong"),))
        after = loaded(driver, record.digest, START + 5)
        assert after == record
        assert not has_user_index(driver) or driver.sessions_of(who, START + 5) == []

    def test_rule_03_an_error_leaves_nothing_behind(self, driver: Driver) -> None:
        """A counter that cannot be incremented stops the whole change."""
        record = started(driver, values={A: b"a", B: 5, C: COUNTER_MAX})
        for bad in ({A: 1}, {C: 1}, {B: 1, A: 1}, {B: 1, C: 1}):
            delta = Delta(puts={D: Put(b"d")}, increments=bad, touch=START + 5)
            with pytest.raises(CounterError):
                driver.commit(record.digest, delta, START + 5)
            after = loaded(driver, record.digest, START + 5)
            assert after == record

    def test_rule_03_all_parts_of_a_change(self, driver: Driver) -> None:
        """Puts, drops, increments, touch, deadline and log-in of one change are all done."""
        who = user()
        record = started(driver, values={A: b"a", B: b"b", C: 1})
        delta = Delta(
            puts={A: Put(b"A", record.values[A].version), D: Put(b"D", ABSENT)},
            drops={B: record.values[B].version},
            increments={C: 4},
            touch=START + 5,
            deadline=START + 900,
            user=who,
            auth_time=START + 4,
        )
        done = committed(driver.commit(record.digest, delta, START + 5))
        after = loaded(self.reopen(driver), record.digest, START + 5)
        assert data_of(after) == {A: b"A", C: 5, D: b"D"}
        assert done.counters == {C: 5}
        assert {value.version for value in after.values.values()} == {done.version}
        assert (after.seen, after.deadline) == (START + 5, START + 900)
        assert (after.user, after.auth_time) == (who, START + 4)
        if has_user_index(driver):
            assert [info.sid for info in driver.sessions_of(who, START + 5)] == [record.sid]

    def test_rule_03_an_empty_change(self, driver: Driver) -> None:
        """A change of nothing is done and changes nothing."""
        record = started(driver, values={A: b"a"})
        committed(driver.commit(record.digest, Delta(), START + 5))
        after = loaded(driver, record.digest, START + 5)
        assert after == record

    def test_rule_03_clear_of_an_app(self, driver: Driver) -> None:
        """A clear takes an app's values, those that came meanwhile too, and nobody else's."""
        record = started(driver, values={A: b"a", C: b"c", ("Shop", "c"): b"other"})
        committed(self.reopen(driver).commit(record.digest, puts({D: b"d"}), START))
        committed(driver.commit(record.digest, Delta(clears=frozenset({"shop"})), START))
        assert data_of(loaded(driver, record.digest, START)) == {A: b"a", ("Shop", "c"): b"other"}

    def test_rule_03_clear_all(self, driver: Driver) -> None:
        """A clear of everything takes the values of all apps and leaves the session."""
        record = started(driver, user=user(), values={A: b"a", C: b"c", D: 1})
        committed(driver.commit(record.digest, Delta(clear_all=True), START))
        after = loaded(driver, record.digest, START)
        assert after == replace(record, values={})

    def test_rule_03_a_clear_spares(self, driver: Driver) -> None:
        """Values in `spare`, or in an app that is there as a whole, keep bytes and version through any clear."""
        for delta, left in (
            (Delta(clears=frozenset({"shop"}), spare=frozenset({C, ("shop", "none")})), {A, B, C}),
            (Delta(clears=frozenset({"", "shop"}), spare=frozenset({A})), {A}),
            (Delta(clear_all=True, spare=frozenset({B, D})), {B, D}),
            (Delta(clear_all=True, spare=frozenset({B}), drops={B: None}), set()),
            (Delta(clear_all=True, spare=frozenset({("shop", WHOLE)})), {C, D}),
            (Delta(clear_all=True, spare=frozenset({("", WHOLE), D})), {A, B, D}),
            (Delta(clear_all=True, spare=frozenset({("", WHOLE), ("shop", WHOLE)})), {A, B, C, D}),
            (Delta(clear_all=True, spare=frozenset({("sho", WHOLE), ("shop.", WHOLE)})), set()),
            (Delta(clears=frozenset({"", "shop"}), spare=frozenset({("", WHOLE)})), {A, B}),
            (Delta(clears=frozenset({""}), spare=frozenset({("shop", WHOLE)})), {C, D}),
        ):
            record = started(driver, values={A: b"a", B: b"b", C: 3, D: b"d"})
            committed(driver.commit(record.digest, delta, START))
            after = loaded(driver, record.digest, START)
            assert after.values == {name: record.values[name] for name in left}

    def test_rule_03_clears_come_first(self, driver: Driver) -> None:
        """Puts and increments of a change that also clears are there afterwards, and counters start again."""
        for clear in (Delta(clear_all=True), Delta(clears=frozenset({"shop"}))):
            record = started(driver, values={C: 10, D: b"d", ("shop", "e"): b"e"})
            delta = Delta(clear_all=clear.clear_all, clears=clear.clears, puts={D: Put(b"new")}, increments={C: 2})
            done = committed(driver.commit(record.digest, delta, START))
            assert data_of(loaded(driver, record.digest, START)) == {C: 2, D: b"new"}
            assert done.counters == {C: 2}

    def test_rule_03_bases_are_judged_before_the_clear(self, driver: Driver) -> None:
        """A base version is compared with what is stored, not with what the change's own clear leaves."""
        record = started(driver, values={A: b"a", B: b"b"})
        version = record.values[A].version
        delta = Delta(clear_all=True, puts={A: Put(b"A", version)}, drops={B: record.values[B].version})
        committed(driver.commit(record.digest, delta, START))
        assert data_of(loaded(driver, record.digest, START)) == {A: b"A"}
        refused = Delta(clear_all=True, puts={A: Put(b"again", ABSENT)})
        assert driver.commit(record.digest, refused, START) == Conflict((A,))

    def test_rule_05_versions_are_positive_and_change(self, driver: Driver) -> None:
        """Every write of a value, the same bytes and increments included, gives it another positive version."""
        record = started(driver, values={A: b"a", C: 1})
        seen = {record.values[A].version}
        assert record.values[A].version > ABSENT
        for _ in range(5):
            done = committed(driver.commit(record.digest, puts({A: b"a"}), START))
            assert done.version > ABSENT
            assert loaded(driver, record.digest, START).values[A] == Value(b"a", done.version)
            seen.add(done.version)
        assert len(seen) == 6
        counts = {record.values[C].version}
        for n in range(5):
            done = committed(driver.commit(record.digest, Delta(increments={C: 1}), START))
            assert loaded(driver, record.digest, START).values[C] == Value(n + 2, done.version)
            counts.add(done.version)
        assert len(counts) == 6

    def test_rule_05_versions_never_come_back(self, driver: Driver) -> None:
        """A value that was dropped or cleared and written again does not pass for the old one."""
        for remove in (Delta(drops={A: None}), Delta(clears=frozenset({""})), Delta(clear_all=True)):
            record = started(driver, values={A: b"a"})
            versions = {record.values[A].version}
            for _ in range(4):
                committed(driver.commit(record.digest, remove, START))
                versions.add(committed(driver.commit(record.digest, puts({A: b"a"}), START)).version)
            assert len(versions) == 5
            late = puts({A: b"late"}, record.values[A].version)
            assert self.reopen(driver).commit(record.digest, late, START) == Conflict((A,))
            assert data_of(loaded(driver, record.digest, START)) == {A: b"a"}

    def test_rule_05_a_base_that_holds(self, driver: Driver) -> None:
        """A put or drop with the present version is done."""
        record = started(driver, values={A: b"a"})
        done = committed(driver.commit(record.digest, puts({A: b"b"}, record.values[A].version), START))
        done = committed(driver.commit(record.digest, puts({A: b"c"}, done.version), START))
        committed(driver.commit(record.digest, Delta(drops={A: done.version}), START))
        assert data_of(loaded(driver, record.digest, START)) == {}
        done = committed(driver.commit(record.digest, puts({A: b"d"}, ABSENT), START))
        assert loaded(driver, record.digest, START).values == {A: Value(b"d", done.version)}

    def test_rule_05_a_base_that_fails(self, driver: Driver) -> None:
        """A put or drop on another version, on a value that appeared or on one that vanished is Conflict."""
        record = started(driver, values={A: b"a", B: b"b", C: 1})
        base = {name: value.version for name, value in record.values.items()}
        other = self.reopen(driver)
        committed(other.commit(record.digest, Delta(puts={A: Put(b"A")}, drops={B: None}, increments={C: 1}), START))
        before = loaded(driver, record.digest, START)
        for name in (A, B, C):
            assert driver.commit(record.digest, puts({name: b"late"}, base[name]), START) == Conflict((name,))
            assert driver.commit(record.digest, Delta(drops={name: base[name]}), START) == Conflict((name,))
        assert driver.commit(record.digest, puts({A: b"late"}, ABSENT), START) == Conflict((A,))
        assert driver.commit(record.digest, Delta(drops={A: ABSENT}), START) == Conflict((A,))
        assert loaded(driver, record.digest, START).values == before.values

    def test_rule_05_conflict_names_every_key(self, driver: Driver) -> None:
        """Conflict lists all keys whose base failed and no other."""
        record = started(driver, values={A: b"a", B: b"b", C: b"c"})
        base = record.values[A].version
        committed(driver.commit(record.digest, puts({A: b"1", C: b"2"}), START))
        delta = Delta(
            puts={A: Put(b"x", base), B: Put(b"y", record.values[B].version), D: Put(b"z", base)},
            drops={C: base, ("", "e"): None},
            increments={("", "n"): 1},
        )
        answer = driver.commit(record.digest, delta, START)
        assert isinstance(answer, Conflict)
        assert len(answer.keys) == 3
        assert set(answer.keys) == {A, C, D}
        assert data_of(loaded(driver, record.digest, START)) == {A: b"1", B: b"b", C: b"2"}

    def test_rule_05_without_a_base_the_last_writer_wins(self, driver: Driver) -> None:
        """Puts without a base replace, drops without a base remove, and dropping nothing is no error."""
        record = started(driver, values={A: b"a"})
        committed(driver.commit(record.digest, puts({A: b"b"}), START))
        committed(driver.commit(record.digest, Delta(drops={A: None}), START))
        committed(driver.commit(record.digest, Delta(drops={A: None}), START))
        committed(driver.commit(record.digest, Delta(drops={A: ABSENT, B: None}), START))
        assert data_of(loaded(driver, record.digest, START)) == {}

    def test_rule_05_kinds_replace_each_other(self, driver: Driver) -> None:
        """A counter may be put over bytes and bytes over a counter."""
        record = started(driver, values={A: b"a"})
        for data in (7, b"bytes", -7, b""):
            committed(driver.commit(record.digest, puts({A: data}), START))
            found = loaded(driver, record.digest, START).values[A].data
            assert found == data
            assert type(found) is type(data)

    def test_rule_05_increments(self, driver: Driver) -> None:
        """Increments add up, of either sign, from 0 where there is nothing, several at once."""
        record = started(driver, values={A: 40})
        done = committed(driver.commit(record.digest, Delta(increments={A: 2}), START))
        assert done.counters == {A: 42}
        done = committed(self.reopen(driver).commit(record.digest, Delta(increments={A: -50, B: 3, C: 0}), START))
        assert done.counters == {A: -8, B: 3, C: 0}
        after = loaded(driver, record.digest, START)
        assert data_of(after) == {A: -8, B: 3, C: 0}
        assert {value.version for value in after.values.values()} == {done.version}

    def test_rule_05_an_increment_is_a_write(self, driver: Driver) -> None:
        """A put based on the version before an increment is Conflict."""
        record = started(driver, values={A: 1})
        committed(driver.commit(record.digest, Delta(increments={A: 1}), START))
        assert driver.commit(record.digest, puts({A: 100}, record.values[A].version), START) == Conflict((A,))
        assert data_of(loaded(driver, record.digest, START)) == {A: 2}

    def test_rule_05_incrementing_bytes(self, driver: Driver) -> None:
        """Bytes are no counter, digits included; the error names the key."""
        record = started(driver, values={A: b"42", C: b""})
        for app, key in (A, C):
            with pytest.raises(NotACounter) as caught:
                driver.commit(record.digest, Delta(increments={(app, key): 1}), START)
            assert (caught.value.app, caught.value.key) == (app, key)
        assert loaded(driver, record.digest, START).values == record.values

    def test_rule_05_counters_have_bounds(self, driver: Driver) -> None:
        """A counter takes every signed 64-bit number, and one beyond is an error that changes nothing."""
        record = started(driver, values={A: COUNTER_MAX - 1, B: COUNTER_MIN + 1})
        committed(driver.commit(record.digest, Delta(increments={A: 1}), START))
        committed(driver.commit(record.digest, Delta(increments={B: -1}), START))
        before = loaded(driver, record.digest, START)
        assert data_of(before) == {A: COUNTER_MAX, B: COUNTER_MIN}
        for name, amount in ((A, 1), (A, COUNTER_MAX), (B, -1), (B, COUNTER_MIN), (C, COUNTER_MAX + 1)):
            with pytest.raises(CounterOverflow) as caught:
                driver.commit(record.digest, Delta(increments={name: amount}), START)
            assert (caught.value.app, caught.value.key) == name
            assert loaded(driver, record.digest, START).values == before.values
        committed(driver.commit(record.digest, Delta(increments={A: COUNTER_MIN, B: COUNTER_MAX}), START))
        assert data_of(loaded(driver, record.digest, START)) == {A: -1, B: -1}
        committed(driver.commit(record.digest, Delta(increments={C: COUNTER_MIN}), START))
        assert loaded(driver, record.digest, START).values[C].data == COUNTER_MIN
