"""Rules 7 and 10: one device of a list can be ended, and each session has a note for such a list."""

# ruff: noqa: S101, PLR2004 (asserts and numbers are what tests are made of)

from __future__ import annotations

from dataclasses import replace

from coatcheck.drivers.base import Driver
from coatcheck.record import MAX_NOTE, Conflict, Delta, Gone, Missing, Put, Reason, ValueKey
from coatcheck.testing.helpers import (
    START,
    Rules,
    committed,
    has_user_index,
    loaded,
    make_record,
    puts,
    sid,
    started,
    successor,
    user,
)

__all__ = ["DeviceRules", "NoteRules"]

A: ValueKey = ("", "a")
N: ValueKey = ("", "n")


class DeviceRules(Rules):
    """How sessions are ended by their sids."""

    def test_rule_07_end(self, driver: Driver) -> None:
        """Sessions end by their sids, those of any user, with both tokens of a grace, and no other does."""
        who = user()
        anonymous, listed, other = started(driver), started(driver, user=who), started(driver, user=who)
        new = successor(driver, listed.digest)
        committed(driver.rotate(listed.digest, new, Delta(), 30, START))
        assert self.reopen(driver).end([listed.sid, anonymous.sid, sid(), listed.sid], START + 1) == 2
        for ended in (anonymous.digest, listed.digest, new):
            assert driver.load(ended, START + 1) == Missing(Reason.REVOKED)
            assert driver.commit(ended, puts({A: b"late"}), START + 1) == Gone(Reason.REVOKED)
            assert driver.create(make_record(digest_=ended), START + 1) == Gone(Reason.REVOKED)
        sids = [anonymous.sid, listed.sid, other.sid]
        assert driver.missing(sids, START + 1) == {anonymous.sid, listed.sid}
        if has_user_index(driver):
            assert [info.sid for info in driver.sessions_of(who, START + 1)] == [other.sid]
        assert loaded(driver, other.digest, START + 1) == other
        assert driver.end([listed.sid, anonymous.sid], START + 1) == 0
        found = driver.load(anonymous.digest, START + 1)
        assert isinstance(found, Missing)
        assert found.ended is not None
        assert abs(found.ended - (START + 1)) < 0.001

    def test_rule_07_end_many(self, driver: Driver) -> None:
        """Any number of sids is taken, none included, and what names no session is left out."""
        live = [started(driver) for _ in range(3)]
        assert driver.end([], START) == 0
        assert driver.end(iter([sid(), "", "x" * 200, "caf\u00e9"]), START) == 0
        nobody = [f"{number:032x}" for number in range(1200)]
        assert driver.end(iter([*nobody, *(record.sid for record in live)]), START) == 3
        assert driver.missing([record.sid for record in live], START) == {record.sid for record in live}

    def test_rule_07_end_only_the_users_own(self, driver: Driver) -> None:
        """With a user, the sessions of other users and of nobody stay, also those that changed hands since."""
        who, other = user(), user()
        mine, theirs, anonymous = started(driver, user=who), started(driver, user=other), started(driver)
        handed_over, handed_to = started(driver, user=who), started(driver)
        committed(driver.commit(handed_over.digest, Delta(user=other, auth_time=START), START))
        committed(driver.commit(handed_to.digest, Delta(user=who, auth_time=START), START))
        records = [mine, theirs, anonymous, handed_over, handed_to]
        assert self.reopen(driver).end([record.sid for record in records], START, user=who) == 2
        assert driver.missing([record.sid for record in records], START) == {mine.sid, handed_to.sid}
        for kept in (theirs, anonymous):
            assert loaded(driver, kept.digest, START) == kept
        assert driver.end([theirs.sid, anonymous.sid], START, user=who.upper()) == 0
        assert driver.end([anonymous.sid], START, user="") == 0

    def test_rule_07_end_of_what_has_expired(self, driver: Driver) -> None:
        """There is no live session to end once it expired, and it stays ended."""
        who = user()
        record, other = started(driver, user=who), started(driver, user=who, idle=1000.0)
        assert driver.end([record.sid, other.sid], START + 600, user=who) == 1
        for ended in (record, other):
            assert isinstance(driver.load(ended.digest, START + 600), Missing)
            assert isinstance(driver.commit(ended.digest, Delta(touch=START + 600), START + 600), Gone)

    def test_rule_07_end_refuses_no_log_in(self, driver: Driver) -> None:
        """The end of one device is not that of its user: a log-in that is under way is done."""
        who = user()
        record, waiting = started(driver, START - 5, user=who), started(driver, START - 5)
        assert driver.end([record.sid], START, user=who) == 1
        committed(driver.create(make_record(START - 1, user=who), START))
        committed(driver.commit(waiting.digest, Delta(user=who, auth_time=START - 1), START))

    def test_rule_07_end_by_a_log_out_of_the_same(self, driver: Driver) -> None:
        """A log-out under a token that was rotated away finds the session ended, and so does a second rotation."""
        record = started(driver)
        new, newer = successor(driver, record.digest), successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(), 0, START))
        assert driver.end([record.sid], START + 1) == 1
        assert not driver.revoke(record.digest, START + 2)
        assert driver.rotate(new, newer, Delta(), 0, START + 2) == Gone(Reason.REVOKED)
        assert driver.create(replace(make_record(START + 2), digest=newer), START + 2) != Conflict()


class NoteRules(Rules):
    """What is kept of a session beside its values."""

    def test_rule_10_a_note_is_opaque(self, driver: Driver) -> None:
        """Any bytes up to the limit come back as they were, from `create` and from a change, and are listed."""
        who = user()
        for note in (b"phone", bytes(range(256)) * (MAX_NOTE // 256), b"\0", b"caf\xc3\xa9", b"42", b" "):
            record = replace(make_record(user=who), note=note)
            committed(driver.create(record, START))
            changed = started(driver, user=who)
            assert changed.note == b""
            committed(driver.commit(changed.digest, Delta(note=note), START))
            for stored in (record, changed):
                found = loaded(self.reopen(driver), stored.digest, START)
                assert (found.note, type(found.note)) == (note, bytes)
            if has_user_index(driver):
                assert [info.note for info in driver.sessions_of(who, START)] == [note, note]
                driver.revoke_user(who, START)
                who = user()

    def test_rule_10_a_note_stays(self, driver: Driver) -> None:
        """No change but one of its own touches the note: no value, clear, activity, log-in or rotation."""
        who = user()
        record = replace(make_record(values={A: b"a", N: 1}), note=b"laptop")
        committed(driver.create(record, START))
        digest = record.digest
        changes = (
            Delta(),
            puts({A: b"b"}),
            Delta(drops={A: None}),
            Delta(increments={N: 1}),
            Delta(clear_all=True),
            Delta(touch=START + 1),
            Delta(puts={A: Put(b"c")}, touch=START + 900, deadline=START + 5000),
            Delta(user=who, auth_time=START + 1, clear_all=True),
        )
        for delta in changes:
            committed(driver.commit(digest, delta, START + 1))
            assert loaded(driver, digest, START + 1).note == b"laptop", delta
        for grace in (0, 30):
            new = successor(driver, digest)
            committed(driver.rotate(digest, new, puts({A: b"d"}), grace, START + 2))
            for each in (new, *([digest] if grace else [])):
                assert loaded(driver, each, START + 2).note == b"laptop"
            digest = new
        if has_user_index(driver):
            assert [info.note for info in self.reopen(driver).sessions_of(who, START + 2)] == [b"laptop"]

    def test_rule_10_a_note_changes(self, driver: Driver) -> None:
        """A note is replaced and emptied, by a commit and a rotation, alone and beside other changes."""
        record = started(driver, values={A: b"a"})
        committed(driver.commit(record.digest, Delta(note=b"one"), START))
        assert loaded(driver, record.digest, START).note == b"one"
        committed(driver.commit(record.digest, Delta(puts={A: Put(b"b")}, note=b"two"), START))
        found = loaded(driver, record.digest, START)
        assert (found.note, found.values[A].data) == (b"two", b"b")
        new = successor(driver, record.digest)
        committed(driver.rotate(record.digest, new, Delta(note=b"three"), 0, START))
        assert loaded(driver, new, START).note == b"three"
        committed(driver.commit(new, Delta(note=b""), START))
        assert loaded(driver, new, START).note == b""

    def test_rule_10_a_refused_change_leaves_the_note(self, driver: Driver) -> None:
        """A note is part of its change: all of it is written, or nothing."""
        record = started(driver, values={A: b"a"})
        committed(driver.commit(record.digest, Delta(note=b"kept"), START))
        wrong = record.values[A].version + 1
        assert driver.commit(record.digest, Delta(puts={A: Put(b"b", wrong)}, note=b"lost"), START) == Conflict((A,))
        new = successor(driver, record.digest)
        delta = Delta(puts={A: Put(b"b", wrong)}, note=b"lost")
        assert driver.rotate(record.digest, new, delta, 0, START) == Conflict((A,))
        assert loaded(driver, record.digest, START).note == b"kept"
        assert driver.revoke(record.digest, START)
        assert driver.commit(record.digest, Delta(note=b"late"), START) == Gone(Reason.REVOKED)
