"""Rules 4 and 7: what has ended stays ended, and a user's sessions can be listed and ended."""

# ruff: noqa: S101, PLR2004 (asserts and numbers are what tests are made of)

from __future__ import annotations

from collections.abc import Callable

from coatcheck.drivers.base import Driver
from coatcheck.record import (
    ABSENT,
    USER_FENCE,
    Conflict,
    Delta,
    Gone,
    Missing,
    Put,
    Reason,
    Record,
    SessionInfo,
    ValueKey,
)
from coatcheck.testing.helpers import (
    START,
    Rules,
    committed,
    digest,
    has_user_index,
    loaded,
    make_record,
    puts,
    reason,
    started,
    successor,
    user,
)

__all__ = ["EndRules"]

A: ValueKey = ("", "a")
N: ValueKey = ("", "n")
LATER = START + 10


def _revoked(driver: Driver, record: Record) -> None:
    assert driver.revoke(record.digest, LATER)


def _user_revoked(driver: Driver, record: Record) -> None:
    if not has_user_index(driver):
        _revoked(driver, record)
        return
    assert record.user is not None
    assert driver.revoke_user(record.user, LATER) == 1


def _ended_by_sid(driver: Driver, record: Record) -> None:
    assert driver.end([record.sid], LATER, user=record.user) == 1


def _rotated(driver: Driver, record: Record) -> None:
    committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 0, LATER))


def _rotated_and_over(driver: Driver, record: Record) -> None:
    new = successor(driver, record.digest)
    committed(driver.rotate(record.digest, new, Delta(), 2, START))
    committed(driver.commit(new, Delta(touch=START + 1), START + 1))


def _deadline(driver: Driver, record: Record) -> None:
    committed(driver.commit(record.digest, Delta(deadline=LATER), LATER - 1))


def _nothing(driver: Driver, record: Record) -> None:
    """Let it expire by itself."""


ENDINGS: tuple[tuple[Callable[[Driver, Record], None], Reason, float], ...] = (
    (_revoked, Reason.REVOKED, 600.0),
    (_user_revoked, Reason.REVOKED, 600.0),
    (_ended_by_sid, Reason.REVOKED, 600.0),
    (_rotated, Reason.ROTATED, 600.0),
    (_rotated_and_over, Reason.ROTATED, 600.0),
    (_deadline, Reason.EXPIRED, 600.0),
    (_nothing, Reason.EXPIRED, 10.0),
)

CHANGES = (
    Delta(),
    Delta(touch=LATER),
    Delta(touch=LATER + 100, deadline=LATER + 5000),
    puts({A: b"late"}),
    puts({A: b"late"}, ABSENT),
    puts({("", "new"): b"late"}, ABSENT),
    Delta(puts={A: Put(b"late"), N: Put(b"late")}, touch=LATER),
    Delta(drops={A: None}),
    Delta(increments={N: 1}),
    Delta(increments={("", "new"): 1}),
    Delta(clear_all=True),
    Delta(clears=frozenset({""}), spare=frozenset({A})),
    Delta(auth_time=LATER + 1),
)


class EndRules(Rules):
    """How sessions end, and that they stay ended."""

    def test_rule_04_no_commit_revives(self, driver: Driver) -> None:
        """Whatever the change and however the session ended, the answer is Gone and it stays ended."""
        for end, why, idle in ENDINGS:
            record = started(driver, user=user(), idle=idle, values={A: b"a", N: 1})
            end(driver, record)
            assert driver.load(record.digest, LATER) == Missing(why), end.__name__
            for delta in CHANGES:
                assert self.reopen(driver).commit(record.digest, delta, LATER) == Gone(why), (end.__name__, delta)
                assert driver.load(record.digest, LATER) == Missing(why), (end.__name__, delta)
            logged_in = Delta(user=user(), auth_time=LATER + 1)
            assert driver.commit(record.digest, logged_in, LATER + 1) == Gone(why)
            assert not has_user_index(driver) or driver.sessions_of(logged_in.user or "", LATER + 1) == []

    def test_rule_01_what_ended_on_purpose_says_when(self, driver: Driver) -> None:
        """`Missing.ended` is the moment of the end; a later revocation moves it."""
        for end, why, idle in ENDINGS:
            record = started(driver, user=user(), idle=idle, values={A: b"a"})
            end(driver, record)
            found = self.reopen(driver).load(record.digest, LATER + 5)
            assert isinstance(found, Missing)
            if why is Reason.EXPIRED:
                assert found.ended is None
                continue
            moment = START + 1 + 2 if end is _rotated_and_over else LATER
            assert found.ended is not None
            assert abs(found.ended - moment) < 0.001, end.__name__
            if why is Reason.REVOKED:
                assert not driver.revoke(record.digest, LATER + 20)
                again = self.reopen(driver).load(record.digest, LATER + 5)
                assert isinstance(again, Missing)
                assert again.ended is not None
                assert abs(again.ended - (LATER + 20)) < 0.001, end.__name__

    def test_rule_04_a_based_change_meets_gone_and_no_conflict(self, driver: Driver) -> None:
        """A put with the version that was loaded is Gone, not Conflict, once the session has ended."""
        for end, why, idle in ENDINGS:
            record = started(driver, user=user(), idle=idle, values={A: b"a", N: 1})
            end(driver, record)
            for delta in (puts({A: b"late"}, record.values[A].version), Delta(drops={A: record.values[A].version})):
                assert driver.commit(record.digest, delta, LATER) == Gone(why), end.__name__

    def test_rule_04_no_rotation_revives(self, driver: Driver) -> None:
        """A session that has ended gets no new token."""
        for end, why, idle in ENDINGS:
            record = started(driver, user=user(), idle=idle, values={A: b"a"})
            end(driver, record)
            for grace in (0, 30):
                new = successor(driver, record.digest)
                delta = Delta(touch=LATER, deadline=LATER + 5000)
                assert driver.rotate(record.digest, new, delta, grace, LATER) == Gone(why), end.__name__
                assert reason(driver.load(new, LATER)) is Reason.UNKNOWN

    def test_rule_04_what_never_was_is_gone(self, driver: Driver) -> None:
        """A commit to an unknown digest creates nothing."""
        nobody = digest()
        for delta in CHANGES:
            assert driver.commit(nobody, delta, START) == Gone(Reason.UNKNOWN)
        assert driver.rotate(nobody, successor(driver, nobody), Delta(), 0, START) == Gone(Reason.UNKNOWN)
        assert driver.load(nobody, START) == Missing(Reason.UNKNOWN)

    def test_rule_04_a_successor_outlives_the_old_token(self, driver: Driver) -> None:
        """A change that meets Gone(ROTATED) does not reach the session through its old token."""
        record = started(driver, values={A: b"a"})
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), 0, START))
        for delta in CHANGES:
            assert driver.commit(record.digest, delta, START) == Gone(Reason.ROTATED)
        after = loaded(driver, new, START)
        assert after.values == record.values
        assert (after.seen, after.deadline, after.user) == (record.seen, record.deadline, record.user)

    def test_rule_07_revoke(self, driver: Driver) -> None:
        """Revoking ends the session of a digest, says whether there was one, and touches no other."""
        record, other = started(driver, user=user()), started(driver)
        assert self.reopen(driver).revoke(record.digest, START)
        assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
        assert not driver.revoke(record.digest, START)
        assert not driver.revoke(digest(), START)
        assert driver.missing([record.sid, other.sid], START) == {record.sid}
        assert not has_user_index(driver) or driver.sessions_of(record.user or "", START) == []
        assert loaded(driver, other.digest, START) == other

    def test_rule_07_revoking_what_has_expired(self, driver: Driver) -> None:
        """There is no live session to revoke once it expired, and it stays ended."""
        record = started(driver)
        assert not driver.revoke(record.digest, START + 600)
        assert isinstance(driver.load(record.digest, START + 600), Missing)

    def test_rule_07_a_session_can_be_revoked_by_either_token(self, driver: Driver) -> None:
        """In the period of grace, revoking the old or the new digest ends both."""
        for by_old in (True, False):
            record = started(driver)
            new = successor(driver, record.digest)
            committed(driver.rotate(record.digest, new, Delta(), 30, START))
            assert driver.revoke(record.digest if by_old else new, START + 1)
            for either in (record.digest, new):
                assert driver.load(either, START + 1) == Missing(Reason.REVOKED)
                assert driver.commit(either, Delta(touch=START + 1), START + 1) == Gone(Reason.REVOKED)
            assert driver.missing([record.sid], START + 1) == {record.sid}

    def test_rule_07_a_logout_that_races_a_rotation(self, driver: Driver) -> None:
        """A digest that was rotated away within the last minute still ends the session, whatever came after."""
        for grace, rotations, now in ((0, 1, START), (0, 1, START + 59), (0, 3, START + 50), (30, 2, START + 89)):
            record = started(driver, user=user())
            chain = [record.digest]
            for step in range(rotations):
                moment = START + (15 + grace) * step
                chain.append(successor(driver, record.digest))
                committed(driver.rotate(chain[-2], chain[-1], Delta(), grace, moment))
                committed(driver.commit(chain[-1], Delta(touch=moment), moment))
            late = chain[0] if grace == 0 else chain[-2]
            assert driver.load(late, now) == Missing(Reason.ROTATED)
            assert self.reopen(driver).revoke(late, now), (grace, rotations, now)
            assert driver.load(chain[-1], now) == Missing(Reason.REVOKED)
            assert driver.commit(chain[-1], puts({A: b"late"}), now) == Gone(Reason.REVOKED)
            assert all(isinstance(driver.load(each, now), Missing) for each in chain)
            assert driver.missing([record.sid], now) == {record.sid}
            assert not has_user_index(driver) or driver.sessions_of(record.user or "", now) == []
            assert not driver.revoke(late, now)

    def test_rule_07_sessions_of(self, driver: Driver) -> None:
        """A user's live sessions are listed, oldest first, and nobody else's."""
        if not has_user_index(driver):
            return
        who, other = user(), user()
        records = [started(driver, START + n, user=who) for n in (3, 1, 2)]
        started(driver, user=other)
        started(driver)
        listed = self.reopen(driver).sessions_of(who, START + 5)
        assert [info.sid for info in listed] == [records[n].sid for n in (1, 2, 0)]
        assert all(isinstance(info, SessionInfo) for info in listed)
        info, record = listed[0], records[1]
        assert (info.created, info.seen, info.deadline) == (record.created, record.seen, record.deadline)
        assert (info.idle, info.absolute) == (record.idle, record.absolute)
        assert (info.user, info.auth_time) == (who, record.auth_time)
        assert driver.sessions_of(who.upper(), START + 5) == []
        assert driver.sessions_of(user(), START + 5) == []

    def test_rule_07_the_index_follows_a_log_in(self, driver: Driver) -> None:
        """A session that logs in or changes hands is listed under its new user at once, and under no other."""
        if not has_user_index(driver):
            return
        first, second = user(), user()
        record = started(driver)
        committed(driver.commit(record.digest, Delta(user=first, auth_time=START), START))
        assert [info.sid for info in self.reopen(driver).sessions_of(first, START)] == [record.sid]
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(user=second, auth_time=START + 1), 0, START + 1))
        assert driver.sessions_of(first, START + 1) == []
        assert [info.sid for info in driver.sessions_of(second, START + 1)] == [record.sid]
        assert driver.revoke_user(first, START + 1) == 0
        assert loaded(driver, new, START + 1).user == second
        assert driver.revoke_user(second, START + 1) == 1
        assert driver.load(new, START + 1) == Missing(Reason.REVOKED)

    def test_rule_07_revoke_user(self, driver: Driver) -> None:
        """All sessions of a user end, in grace or not, and nobody else's."""
        if not has_user_index(driver):
            return
        who, other = user(), user()
        records = [started(driver, user=who, values={A: b"a"}) for _ in range(3)]
        stranger, anonymous = started(driver, user=other), started(driver)
        old = records[0].digest
        new = successor(driver, old)
        committed(driver.rotate(old, new, Delta(), 30, START))
        assert self.reopen(driver).revoke_user(who, START + 1) == 3
        for ended in (old, new, records[1].digest, records[2].digest):
            assert driver.load(ended, START + 1) == Missing(Reason.REVOKED)
            assert driver.commit(ended, puts({A: b"late"}), START + 1) == Gone(Reason.REVOKED)
        assert driver.sessions_of(who, START + 1) == []
        assert driver.revoke_user(who, START + 1) == 0
        assert loaded(driver, stranger.digest, START + 1) == stranger
        assert loaded(driver, anonymous.digest, START + 1) == anonymous

    def test_rule_07_revoke_user_keeps_one(self, driver: Driver) -> None:
        """The session with the sid `keep` stays, and works."""
        if not has_user_index(driver):
            return
        who = user()
        records = [started(driver, user=who) for _ in range(3)]
        assert driver.revoke_user(who, START, keep=records[1].sid) == 2
        assert [info.sid for info in driver.sessions_of(who, START)] == [records[1].sid]
        committed(driver.commit(records[1].digest, puts({A: b"a"}), START))
        new = successor(driver, records[1].digest)
        committed(driver.rotate(records[1].digest, new, Delta(), 0, START))
        assert driver.missing([record.sid for record in records], START) == {records[0].sid, records[2].sid}

    def test_rule_07_a_log_in_does_not_slip_by(self, driver: Driver) -> None:
        """A log-in up to the moment of the revocation, arriving afterwards, is refused however it comes."""
        if not has_user_index(driver):
            return
        who = user()
        waiting, kept = started(driver, START - 5), started(driver, START - 5, user=who)
        assert driver.revoke_user(who, START, keep=kept.sid) == 0
        again = self.reopen(driver)
        for auth_time in (START - 5, START):
            for now in (START, START + USER_FENCE - 1):
                login = Delta(user=who, auth_time=auth_time, touch=now, deadline=now + 9000)
                late = make_record(now, user=who, auth_time=auth_time)
                new = successor(driver, waiting.digest)
                assert again.create(late, now) == Gone(Reason.REVOKED)
                assert isinstance(driver.load(late.digest, now), Missing)
                if now < START + 590:
                    assert again.commit(waiting.digest, login, now) == Gone(Reason.REVOKED)
                    assert again.rotate(waiting.digest, new, login, 0, now) == Gone(Reason.REVOKED)
                    assert again.rotate(waiting.digest, new, login, 30, now) == Gone(Reason.REVOKED)
                    assert again.commit(kept.digest, login, now) == Gone(Reason.REVOKED)
                    assert again.commit(kept.digest, Delta(auth_time=auth_time), now) == Gone(Reason.REVOKED)
                    assert isinstance(driver.load(new, now), Missing)
                    assert loaded(driver, waiting.digest, now) == waiting
                    assert loaded(driver, kept.digest, now) == kept
        assert [info.sid for info in driver.sessions_of(who, START + 1)] == [kept.sid]

    def test_rule_07_a_later_log_in_is_welcome(self, driver: Driver) -> None:
        """A log-in after the revocation is done, and so is that of anybody else."""
        if not has_user_index(driver):
            return
        who = user()
        driver.revoke_user(who, START)
        by_commit, by_rotation = started(driver), started(driver)
        login = Delta(user=who, auth_time=START + 0.5)
        committed(driver.commit(by_commit.digest, login, START + 1))
        new = successor(driver, by_rotation.digest)
        committed(driver.rotate(by_rotation.digest, new, login, 0, START + 1))
        started(driver, START + 1, user=who)
        started(driver, START - 1, user=user())
        assert len(driver.sessions_of(who, START + 1)) == 3

    def test_rule_07_of_two_revocations_the_later_counts(self, driver: Driver) -> None:
        """A revocation that arrives with an earlier moment does not lift the fence of a later one."""
        if not has_user_index(driver):
            return
        who = user()
        driver.revoke_user(who, START + 10)
        driver.revoke_user(who, START)
        assert driver.create(make_record(START + 5, user=who), START + 11) == Gone(Reason.REVOKED)
        committed(driver.create(make_record(START + 11, user=who), START + 11))

    def test_rule_07_a_revocation_by_a_wrong_clock_locks_nobody_out(self, driver: Driver) -> None:
        """One that is dated far in the future refuses no log-in, and the next one counts as if it had not been."""
        if not has_user_index(driver):
            return
        who = user()
        driver.revoke_user(who, START + 365 * 86400)
        committed(driver.create(make_record(START + 1, user=who), START + 1))
        assert driver.revoke_user(who, START + 10) == 1
        assert driver.create(make_record(START + 5, user=who), START + 11) == Gone(Reason.REVOKED)
        committed(driver.create(make_record(START + 11, user=who), START + 11))
        ahead = user()  # clocks differ a little
        driver.revoke_user(ahead, START + 30)
        assert driver.create(make_record(START + 5, user=ahead), START + 5) == Gone(Reason.REVOKED)

    def test_rule_07_dead(self, driver: Driver) -> None:
        """Of many sids, those without a live session are named."""
        live = [started(driver).sid for _ in range(3)]
        gone = started(driver)
        driver.revoke(gone.digest, START)
        nobody = [f"{n:032x}" for n in range(2500)]
        assert driver.missing([*live, gone.sid, *nobody], START) == {gone.sid, *nobody}
        assert driver.missing(iter(live), START) == set()
        assert driver.missing([], START) == set()

    def test_rule_07_a_rotated_session_is_alive_once(self, driver: Driver) -> None:
        """A session in grace is one session."""
        who = user()
        record = started(driver, user=who)
        committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START))
        assert driver.missing([record.sid], START) == set()
        assert driver.create(make_record(sid_=record.sid), START) == Conflict()
        if has_user_index(driver):
            assert [info.sid for info in driver.sessions_of(who, START)] == [record.sid]
            assert driver.revoke_user(who, START) == 1
