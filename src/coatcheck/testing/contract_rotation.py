"""Rule 6: a session changes its token, and nobody is logged out by a reply that was lost."""

# ruff: noqa: S101 (asserts are what tests are made of)

from __future__ import annotations

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.errors import CounterError
from coatcheck.record import NEVER, Conflict, Delta, Gone, Missing, Put, Reason, Value, ValueKey
from coatcheck.testing.helpers import (
    START,
    Rules,
    committed,
    has_user_index,
    loaded,
    puts,
    reason,
    started,
    successor,
    user,
)

__all__ = ["RotationRules"]

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
GRACE = 30.0


class RotationRules(Rules):
    """How tokens are replaced."""

    def test_rule_06_the_session_stays_the_same(self, driver: Driver) -> None:
        """A rotation keeps sid, values with their versions, user, times and limits, with or without a grace."""
        for grace in (0.0, GRACE):
            record = started(driver, user=user(), deadline=START + 5000, values={A: b"a", B: 2})
            new = successor(driver, record.digest)
            committed(driver.rotate(record.digest, new, Delta(), grace, START + 10))
            found = loaded(self.reopen(driver), new, START + 10)
            for part in ("sid", "created", "seen", "deadline", "idle", "absolute", "user", "auth_time"):
                assert getattr(found, part) == getattr(record, part), part
            assert found.values == record.values
            assert found.digest == new
            assert found.rotated == START + 10

    def test_rule_06_without_grace_the_old_token_is_dead_at_once(self, driver: Driver) -> None:
        """With grace 0 the old digest opens nothing from that moment on, and the new one needs no confirmation."""
        record = started(driver, values={A: b"a"})
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), 0, START))
        again = self.reopen(driver)
        assert again.load(record.digest, START) == Missing(Reason.ROTATED)
        assert again.commit(record.digest, puts({A: b"late"}), START) == Gone(Reason.ROTATED)
        assert again.rotate(record.digest, successor(driver, new), Delta(), 0, START) == Gone(Reason.ROTATED)
        found = loaded(driver, new, START)
        assert not found.fresh
        assert not found.stale
        assert found.values[A].data == b"a"

    def test_rule_01_a_rotated_token_names_its_heir(self, driver: Driver) -> None:
        """With ROTATED comes what the token opened before, under an empty digest; nothing once that has ended."""
        record = started(driver, user=user(), values={A: b"a"})
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(puts={B: Put(2)}), 0, START))
        for again in (driver, self.reopen(driver)):
            answer = again.load(record.digest, START + 1)
            assert answer == Missing(Reason.ROTATED)
            assert isinstance(answer, Missing)
            assert answer.heir is not None
            assert (answer.heir.sid, answer.heir.user, answer.heir.digest) == (record.sid, record.user, b"")
            assert {name: value.data for name, value in answer.heir.values.items()} == {A: b"a", B: 2}
        driver.revoke(new, START + 2)
        answer = driver.load(record.digest, START + 3)
        assert isinstance(answer, Missing)
        assert answer.heir is None

    def test_rule_06_fresh_and_stale(self, driver: Driver) -> None:
        """Until the new token is presented, both work: the new one is fresh and the old one stale, for any time."""
        record = started(driver, idle=NEVER, values={A: b"a"})
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), GRACE, START))
        for now in (START, START + 1, START + GRACE, START + 1000):
            fresh, stale = loaded(driver, new, now), loaded(driver, record.digest, now)
            assert (fresh.fresh, fresh.stale) == (True, False)
            assert (stale.fresh, stale.stale) == (False, True)
            assert fresh.values == stale.values == record.values
            assert stale.digest == record.digest
            assert stale.rotated == fresh.rotated == START

    def test_rule_06_both_tokens_reach_the_session(self, driver: Driver) -> None:
        """What is written with the old token in grace is there for the new one, and the other way round."""
        record = started(driver)
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), GRACE, START))
        committed(driver.commit(record.digest, puts({A: b"by the old"}), START + 1))
        assert loaded(driver, new, START + 1).fresh, "the old token confirms nothing"
        committed(driver.commit(new, puts({B: b"by the new"}), START + 2))
        committed(driver.commit(record.digest, Delta(increments={("", "n"): 1}, touch=START + 3), START + 3))
        for either in (record.digest, new):
            values = loaded(driver, either, START + 3).values
            assert {name: value.data for name, value in values.items()} == {
                A: b"by the old",
                B: b"by the new",
                ("", "n"): 1,
            }

    def test_rule_06_the_grace_runs_from_the_confirmation(self, driver: Driver) -> None:
        """The first commit under the new digest, whatever it holds, confirms it: the old one has its grace left."""
        for delta in (Delta(), Delta(touch=START + 100), puts({A: b"x"}), Delta(increments={B: 1})):
            record = started(driver)
            new = successor(driver, record.digest)
            committed(driver.rotate(record.digest, new, Delta(), GRACE, START))
            committed(driver.commit(new, delta, START + 100))
            assert not loaded(driver, new, START + 100).fresh
            assert loaded(driver, record.digest, START + 100 + GRACE - 1).stale
            assert driver.load(record.digest, START + 100 + GRACE + 1) == Missing(Reason.ROTATED)
            assert driver.commit(record.digest, puts({A: b"late"}), START + 131) == Gone(Reason.ROTATED)
            assert not loaded(driver, new, START + 131).fresh

    def test_rule_06_only_the_first_commit_confirms(self, driver: Driver) -> None:
        """Later commits under the new digest do not lengthen the old one's grace."""
        record = started(driver)
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), GRACE, START))
        committed(driver.commit(new, Delta(touch=START + 1), START + 1))
        committed(driver.commit(new, puts({A: b"x"}), START + 25))
        committed(driver.commit(new, Delta(deadline=START + 500, touch=START + 29), START + 29))
        assert driver.load(record.digest, START + 1 + GRACE + 1) == Missing(Reason.ROTATED)

    def test_rule_06_a_refused_commit_confirms_nothing(self, driver: Driver) -> None:
        """Conflict and errors leave the new token as fresh as it was."""
        record = started(driver, values={A: b"a"})
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), GRACE, START))
        assert driver.commit(new, puts({A: b"x"}, 77), START) == Conflict((A,))
        with pytest.raises(CounterError):
            driver.commit(new, Delta(increments={A: 1}), START)
        assert loaded(driver, new, START).fresh
        assert loaded(driver, record.digest, START + 500).stale

    def test_rule_06_a_second_rotation_is_refused(self, driver: Driver) -> None:
        """Of two requests that rotate the same token the second gets Conflict(), and the first successor stays."""
        record = started(driver, values={A: b"a"})
        first = successor(driver, record.digest)
        committed(driver.rotate(record.digest, first, Delta(), GRACE, START))
        for now in (START, START + GRACE - 1):
            second = successor(driver, record.digest)
            delta = puts({A: b"not written"})
            assert self.reopen(driver).rotate(record.digest, second, delta, GRACE, now) == Conflict()
            assert reason(driver.load(second, now)) is Reason.UNKNOWN
            found = loaded(driver, first, now)
            assert (found.fresh, found.rotated, found.values) == (True, START, record.values)

    def test_rule_06_a_lost_successor_is_replaced(self, driver: Driver) -> None:
        """A successor that was issued a grace ago and never used gives way, and the old token works on."""
        record = started(driver, values={A: b"a"})
        old = record.digest
        lost, found = successor(driver, old), successor(driver, old)
        committed(driver.rotate(old, lost, Delta(), GRACE, START))
        committed(driver.rotate(old, found, puts({B: b"b"}), GRACE, START + GRACE))
        assert driver.load(lost, START + GRACE) == Missing(Reason.ROTATED)
        assert driver.commit(lost, Delta(touch=START + GRACE), START + GRACE) == Gone(Reason.ROTATED)
        assert loaded(driver, old, START + GRACE).stale
        fresh = loaded(driver, found, START + GRACE)
        assert (fresh.fresh, fresh.rotated, fresh.sid) == (True, START + GRACE, record.sid)
        assert {name: value.data for name, value in fresh.values.items()} == {A: b"a", B: b"b"}
        third = successor(driver, old)
        assert driver.rotate(old, third, Delta(), GRACE, START + GRACE + 1) == Conflict()
        committed(driver.commit(found, Delta(touch=START + 50), START + 50))
        assert driver.load(old, START + 50 + GRACE + 1) == Missing(Reason.ROTATED)

    def test_rule_06_a_used_successor_is_not_replaced(self, driver: Driver) -> None:
        """Once the successor was presented, the old token in its grace gets no other, but by a change of rights."""
        record = started(driver)
        old = record.digest
        new, other = successor(driver, old), successor(driver, old)
        committed(driver.rotate(old, new, Delta(), GRACE, START))
        committed(driver.commit(new, Delta(touch=START + 40), START + 40))
        assert driver.rotate(old, other, Delta(), GRACE, START + 45) == Conflict()
        assert driver.rotate(old, other, Delta(), GRACE, START + 71) == Gone(Reason.ROTATED)
        assert not loaded(driver, new, START + 71).fresh

    def test_rule_06_a_change_of_rights_needs_no_newest_token(self, driver: Driver) -> None:
        """Without grace a rotation takes place under an old token in its grace too, and ends every older one."""
        record = started(driver)
        old = record.digest
        new, other = successor(driver, old), successor(driver, old)
        committed(driver.rotate(old, new, Delta(), GRACE, START))
        committed(driver.commit(new, Delta(touch=START + 40), START + 40))
        committed(driver.rotate(old, other, Delta(), 0, START + 45))
        for dead in (old, new):
            assert driver.load(dead, START + 45) == Missing(Reason.ROTATED)
        assert not loaded(driver, other, START + 45).fresh

    def test_rule_06_log_in_with_a_stale_token(self, driver: Driver) -> None:
        """A rotation without grace kills every other digest of the session, whichever it came by."""
        for by_old in (True, False):
            record = started(driver)
            old = record.digest
            first, new = successor(driver, old), successor(driver, old)
            committed(driver.rotate(old, first, Delta(), GRACE, START))
            used = old if by_old else first
            login = Delta(user=user(), auth_time=START + 1)
            committed(driver.rotate(used, new, login, 0, START + 1))
            for dead in (old, first):
                assert driver.load(dead, START + 1) == Missing(Reason.ROTATED)
                assert driver.commit(dead, Delta(touch=START + 1), START + 1) == Gone(Reason.ROTATED)
            found = loaded(driver, new, START + 1)
            assert (found.fresh, found.stale, found.user, found.sid) == (False, False, login.user, record.sid)

    def test_rule_06_one_rotation_after_the_other(self, driver: Driver) -> None:
        """A session has at most two tokens, and the older one keeps all of its grace: until then, Conflict."""
        record = started(driver, idle=NEVER)
        chain = [record.digest]
        for step in range(3):
            now = START + 100 * step
            chain.append(successor(driver, record.digest))
            committed(driver.rotate(chain[-2], chain[-1], Delta(), GRACE, now))
            assert loaded(driver, chain[-1], now).fresh
            assert loaded(driver, chain[-2], now).stale
            early = successor(driver, record.digest)
            assert driver.rotate(chain[-1], early, Delta(), GRACE, now) == Conflict()  # first used by a rotation
            assert loaded(driver, chain[-2], now + GRACE).stale
            committed(driver.commit(chain[-1], Delta(touch=now), now))
            assert driver.rotate(chain[-1], early, Delta(), GRACE, now + GRACE - 1) == Conflict()
            assert loaded(driver, chain[-2], now + GRACE - 1).stale
            for dead in chain[:-2]:
                assert isinstance(driver.load(dead, now), Missing)
                assert isinstance(driver.commit(dead, Delta(touch=now), now), Gone)
        early = successor(driver, record.digest)
        committed(driver.rotate(chain[-1], early, Delta(), GRACE, START + 200 + GRACE))
        committed(driver.rotate(early, successor(driver, record.digest), Delta(), 0, START + 200 + GRACE))  # a log-in

    def test_rule_06_the_change_comes_along(self, driver: Driver) -> None:
        """A rotation applies its change in the same step."""
        who = user()
        record = started(driver, values={A: b"a", B: 1})
        new = successor(driver, record.digest)
        delta = Delta(
            puts={A: Put(b"A", record.values[A].version)},
            increments={B: 1},
            touch=START + 5,
            deadline=START + 900,
            user=who,
            auth_time=START + 5,
        )
        done = committed(driver.rotate(record.digest, new, delta, 0, START + 5))
        found = loaded(driver, new, START + 5)
        assert found.values == {A: Value(b"A", done.version), B: Value(2, done.version)}
        assert done.counters == {B: 2}
        assert (found.seen, found.deadline) == (START + 5, START + 900)
        assert (found.user, found.auth_time) == (who, START + 5)
        if has_user_index(driver):
            assert [info.sid for info in driver.sessions_of(who, START + 5)] == [record.sid]

    def test_rule_06_a_refused_change_rotates_nothing(self, driver: Driver) -> None:
        """Where the change meets a Conflict or an error, the old token stays and the new one opens nothing."""
        for grace in (0.0, GRACE):
            record = started(driver, values={A: b"a"})
            new = successor(driver, record.digest)
            delta = Delta(puts={A: Put(b"x", 77), B: Put(b"y")})
            assert driver.rotate(record.digest, new, delta, grace, START) == Conflict((A,))
            with pytest.raises(CounterError):
                driver.rotate(record.digest, new, Delta(puts={B: Put(b"y")}, increments={A: 1}), grace, START)
            assert reason(driver.load(new, START)) is Reason.UNKNOWN
            found = loaded(driver, record.digest, START)
            assert found == record

    def test_rule_06_a_digest_in_use_is_refused(self, driver: Driver) -> None:
        """A new digest that exists, in whatever state, is Conflict() and opens what it did before."""
        record, other, ended, turned = (started(driver, values={A: b"a"}) for _ in range(4))
        driver.revoke(ended.digest, START)
        committed(driver.rotate(turned.digest, successor(driver, turned.digest), Delta(), GRACE, START))
        for taken in (record.digest, other.digest, ended.digest, turned.digest):
            if taken[:1] == record.digest[:1] or driver.rotation_bits == 0:
                assert driver.rotate(record.digest, taken, puts({A: b"x"}), 0, START) == Conflict()
        assert loaded(driver, record.digest, START) == record
        assert loaded(driver, other.digest, START) == other
        assert driver.load(ended.digest, START) == Missing(Reason.REVOKED)
        assert loaded(driver, turned.digest, START).sid == turned.sid

    def test_rule_06_rotation_is_no_activity(self, driver: Driver) -> None:
        """A rotation without a touch does not lengthen the session."""
        record = started(driver)
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), GRACE, START + 300))
        loaded(driver, new, START + 599)
        for either in (record.digest, new):
            assert driver.load(either, START + 600) == Missing(Reason.EXPIRED)
            assert driver.commit(either, Delta(touch=START + 600), START + 600) == Gone(Reason.EXPIRED)
