"""Rules 1, 2, 8, 9, 10 and 12: sessions begin, are found, and end when their time is over."""

# ruff: noqa: S101, PLR2004 (asserts and numbers are what tests are made of)

from __future__ import annotations

import logging
from dataclasses import replace

from coatcheck.drivers.base import Capability, Driver
from coatcheck.record import (
    COUNTER_MAX,
    COUNTER_MIN,
    NEVER,
    Conflict,
    Delta,
    Gone,
    Missing,
    Put,
    Reason,
    ValueKey,
    touch_interval,
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

__all__ = ["LifeRules"]

A: ValueKey = ("", "a")
B: ValueKey = ("shop", "b")


class LifeRules(Rules):
    """How sessions begin, are found and expire."""

    def test_rule_01_load_gives_what_create_stored(self, driver: Driver) -> None:
        """Every part of a record comes back as it was given, from another handle too."""
        record = make_record(user=user(), auth_time=START - 5.25, deadline=START + 500.5, values={A: b"one", B: -7})
        done = committed(driver.create(record, START))
        for handle in (driver, self.reopen(driver)):
            found = loaded(handle, record.digest, START)
            for part in ("sid", "digest", "created", "seen", "deadline", "idle", "absolute", "user", "auth_time"):
                assert getattr(found, part) == getattr(record, part), part
            assert found.rotated == record.rotated
            assert found.expires == record.expires
            assert not found.fresh
            assert not found.stale
            assert {name: value.data for name, value in found.values.items()} == {A: b"one", B: -7}
            assert {value.version for value in found.values.values()} == {done.version}

    def test_rule_01_a_session_may_be_bare(self, driver: Driver) -> None:
        """A session without user, values or limits is a session."""
        record = make_record(idle=NEVER, absolute=NEVER)
        committed(driver.create(record, START))
        found = loaded(driver, record.digest, START + 50 * 365 * 86400)
        assert (found.user, found.auth_time, dict(found.values)) == (None, None, {})
        assert found.deadline == found.idle == found.absolute == NEVER

    def test_rule_01_unknown_digest(self, driver: Driver) -> None:
        """A digest that nobody stored is Missing(UNKNOWN)."""
        assert driver.load(digest(), START) == Missing(Reason.UNKNOWN)

    def test_rule_01_reasons(self, driver: Driver) -> None:
        """Expired, rotated and revoked sessions are Missing and say why."""
        expired, revoked, rotated = started(driver), started(driver), started(driver)
        assert driver.load(expired.digest, START + 601) == Missing(Reason.EXPIRED)
        assert driver.revoke(revoked.digest, START)
        committed(driver.rotate(rotated.digest, successor(driver, rotated.digest), Delta(), 0, START))
        for handle in (driver, self.reopen(driver)):
            for now in (START, START + 59):
                assert handle.load(revoked.digest, now) == Missing(Reason.REVOKED)
                assert handle.load(rotated.digest, now) == Missing(Reason.ROTATED)
        for ended in (revoked, rotated):
            assert not isinstance(driver.load(ended.digest, START + 61), type(ended))

    def test_rule_01_loading_is_no_activity(self, driver: Driver) -> None:
        """Loading a session changes nothing of it."""
        record = started(driver)
        before = loaded(driver, record.digest, START + 1)
        assert loaded(driver, record.digest, START + 500) == before
        assert before.seen == START

    def test_rule_01_a_loaded_record_is_a_snapshot(self, driver: Driver) -> None:
        """What was loaded does not change under its holder when somebody writes."""
        record = started(driver, values={A: b"old"})
        committed(driver.commit(record.digest, puts({A: b"new", B: b"more"}), START))
        assert {name: value.data for name, value in record.values.items()} == {A: b"old"}

    def test_rule_02_create_never_overwrites(self, driver: Driver) -> None:
        """A digest or sid that exists is Conflict(), and the first session stays as it was."""
        first = started(driver, values={A: b"first"})
        again = self.reopen(driver)
        assert again.create(make_record(digest_=first.digest, values={A: b"second"}), START) == Conflict()
        other = make_record(sid_=first.sid, values={A: b"third"})
        assert again.create(other, START) == Conflict()
        assert loaded(driver, first.digest, START) == first
        assert reason(driver.load(other.digest, START)) is Reason.UNKNOWN

    def test_rule_02_create_refuses_a_digest_in_grace(self, driver: Driver) -> None:
        """A digest that was rotated away and still works exists."""
        record = started(driver)
        committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START))
        assert driver.create(make_record(digest_=record.digest), START) == Conflict()

    def test_rule_02_create_refuses_a_tombstone(self, driver: Driver) -> None:
        """A digest that was revoked or rotated away does not come back as a new session."""
        revoked, rotated = started(driver), started(driver)
        driver.revoke(revoked.digest, START)
        committed(driver.rotate(rotated.digest, successor(driver, rotated.digest), Delta(), 0, START))
        again = self.reopen(driver)
        for record, why in ((revoked, Reason.REVOKED), (rotated, Reason.ROTATED)):
            assert again.create(make_record(digest_=record.digest), START + 59) == Gone(why)
            assert driver.load(record.digest, START + 59) == Missing(why)

    def test_rule_02_create_refuses_a_digest_revoked_before_it_came(self, driver: Driver) -> None:
        """A revocation overtakes the creation that it is about."""
        late = make_record()
        assert not driver.revoke(late.digest, START)
        assert self.reopen(driver).create(late, START + 5) == Gone(Reason.REVOKED)
        assert reason(driver.load(late.digest, START + 5)) is Reason.REVOKED

    def test_rule_02_create_of_an_expired_session(self, driver: Driver) -> None:
        """A session whose time is over when it arrives is not alive."""
        late = make_record(START - 700)
        driver.create(late, START)
        assert isinstance(driver.load(late.digest, START), Missing)
        assert driver.missing([late.sid], START) == {late.sid}

    def test_rule_08_idle_boundary(self, driver: Driver) -> None:
        """A session is there until idle seconds after its last activity, and from that very moment it is not."""
        record = started(driver, idle=100.0)
        assert loaded(driver, record.digest, START + 99.999).expires == START + 100
        assert driver.load(record.digest, START + 100) == Missing(Reason.EXPIRED)
        committed(driver.commit(record.digest, Delta(touch=START + 90), START + 90))
        loaded(driver, record.digest, START + 189.999)
        assert driver.load(record.digest, START + 190) == Missing(Reason.EXPIRED)

    def test_rule_08_absolute_counts_from_creation_or_log_in(self, driver: Driver) -> None:
        """The absolute limit counts from the creation, and from the log-in once there is one."""
        record = started(driver, idle=NEVER, absolute=100.0)
        loaded(driver, record.digest, START + 99)
        assert driver.load(record.digest, START + 100) == Missing(Reason.EXPIRED)
        committed(driver.commit(record.digest, Delta(user=user(), auth_time=START + 50), START + 50))
        loaded(driver, record.digest, START + 149)
        assert driver.load(record.digest, START + 150) == Missing(Reason.EXPIRED)
        born = started(driver, idle=NEVER, absolute=100.0, user=user(), auth_time=START - 60)
        loaded(driver, born.digest, START + 39)
        assert driver.load(born.digest, START + 40) == Missing(Reason.EXPIRED)

    def test_rule_08_deadline(self, driver: Driver) -> None:
        """The deadline ends a session whatever happens, can be moved, and ends it at once if it moves to the past."""
        record = started(driver, deadline=START + 50)
        assert driver.load(record.digest, START + 50) == Missing(Reason.EXPIRED)
        committed(driver.commit(record.digest, Delta(deadline=START + 80, touch=START + 40), START + 40))
        assert loaded(driver, record.digest, START + 79).deadline == START + 80
        committed(driver.commit(record.digest, Delta(deadline=START + 60), START + 60))
        assert driver.load(record.digest, START + 60) == Missing(Reason.EXPIRED)
        assert driver.missing([record.sid], START + 60) == {record.sid}

    def test_rule_08_touch_never_goes_backwards(self, driver: Driver) -> None:
        """Of two moments of activity the later one counts, whichever arrives last."""
        record = started(driver)
        for touch, seen in ((START + 50, START + 50), (START + 20, START + 50), (START + 51, START + 51)):
            committed(driver.commit(record.digest, Delta(touch=touch), START + 51))
            assert loaded(driver, record.digest, START + 51).seen == seen
            committed(driver.commit(record.digest, Delta(puts=puts({A: b"x"}).puts, touch=touch), START + 51))
            assert loaded(driver, record.digest, START + 51).seen == seen

    def test_rule_08_activity_with_a_change_is_recorded_once_it_is_due(self, driver: Driver) -> None:
        """With `if_due`, `seen` moves at the latest when the touch interval has gone by, and never past the moment."""
        for number, idle in enumerate((600.0, 200_000.0, NEVER)):
            record, interval = started(driver, idle=idle, absolute=NEVER), touch_interval(idle)
            name = ("", str(number))
            for change in (
                Delta(puts={name: Put(b"x")}),
                Delta(increments={B: 1}),
                Delta(drops={name: None}),
                Delta(puts={name: Put(b"x"), A: Put(b"y")}, increments={B: 1}),
            ):
                seen = loaded(driver, record.digest, START).seen
                for moment in (seen + interval / 2, seen + interval, seen + 1.5 * interval):
                    committed(driver.commit(record.digest, replace(change, touch=moment, if_due=True), moment))
                    found = loaded(driver, record.digest, moment).seen
                    assert moment - interval < found <= moment
                    assert found in (seen, moment, seen + interval / 2, seen + interval)

    def test_rule_08_only_a_touch_is_activity(self, driver: Driver) -> None:
        """A change without `touch` leaves `seen` alone."""
        record = started(driver)
        committed(driver.commit(record.digest, puts({A: b"x"}), START + 50))
        committed(driver.commit(record.digest, Delta(increments={B: 1}, deadline=START + 500), START + 51))
        assert loaded(driver, record.digest, START + 51).seen == START

    def test_rule_08_the_expired_are_in_no_list(self, driver: Driver) -> None:
        """Lists and counts know an expired session as dead, swept or not."""
        who = user()
        short = started(driver, user=who, idle=100.0)
        long = started(driver, user=who, idle=1000.0)
        assert driver.missing([short.sid, long.sid], START + 100) == {short.sid}
        assert driver.missing([short.sid, long.sid], START + 99) == set()
        if has_user_index(driver):
            assert [info.sid for info in driver.sessions_of(who, START + 100)] == [long.sid]
            assert driver.revoke_user(who, START + 100) == 1

    def test_rule_09_sweep_takes_a_slice(self, driver: Driver) -> None:
        """A sweep removes at most `limit` expired sessions, says how many, and leaves the others alone."""
        live = started(driver, idle=5000.0, values={A: b"stays"})
        gone = [started(driver, values={A: b"goes"}) for _ in range(5)]
        assert driver.sweep(START + 599, 100) == 0
        if Capability.COLLECTS_GARBAGE not in driver.capabilities:
            assert driver.sweep(START + 600, 2) == 2
            assert driver.sweep(START + 600, 0) == 0
            assert driver.sweep(START + 600, 2) == 2
            assert driver.sweep(START + 600, 2) == 1
        assert driver.sweep(START + 600, 2) == 0
        assert loaded(driver, live.digest, START + 600).values[A].data == b"stays"
        assert all(reason(driver.load(r.digest, START + 600)) in (Reason.UNKNOWN, Reason.EXPIRED) for r in gone)
        assert driver.missing([live.sid, *(record.sid for record in gone)], START + 600) == {r.sid for r in gone}

    def test_rule_09_sweep_of_a_period(self, driver: Driver) -> None:
        """With `since`, sessions that expired before that moment stay where they are."""
        early, late = started(driver, idle=100.0), started(driver, idle=200.0)
        by_sweep = 0 if Capability.COLLECTS_GARBAGE in driver.capabilities else 1
        assert driver.sweep(START + 300, 10, since=START + 150) == by_sweep
        assert driver.load(early.digest, START + 300) == Missing(Reason.EXPIRED)
        assert driver.sweep(START + 300, 10, since=START + 150) == 0
        assert driver.sweep(START + 300, 10, since=START + 50) == by_sweep
        assert isinstance(driver.load(late.digest, START + 300), Missing)

    def test_rule_09_sweep_keeps_what_is_in_use(self, driver: Driver) -> None:
        """Tombstones, fences and graces that still count survive a sweep."""
        who = user()
        revoked, rotated = started(driver), started(driver)
        old = rotated.digest
        driver.revoke(revoked.digest, START)
        if has_user_index(driver):
            driver.revoke_user(who, START)
        committed(driver.rotate(old, successor(driver, old), Delta(), 30, START))
        driver.sweep(START + 59, 100)
        assert driver.load(revoked.digest, START + 59) == Missing(Reason.REVOKED)
        assert loaded(driver, old, START + 59).stale
        if has_user_index(driver):
            assert driver.create(make_record(user=who), START + 59) == Gone(Reason.REVOKED)

    def test_rule_10_values_are_opaque(self, driver: Driver) -> None:
        """Any bytes, counters and names come back exactly."""
        values: dict[ValueKey, bytes | int] = {
            ("", "every byte"): bytes(range(256)) * 2,
            ("", "nothing"): b"",
            ("", "pickle"): b"cos\nsystem\n(S'exit 1'\ntR.",
            ("", "digits"): b"42",
            ("", "zero"): 0,
            ("", "least"): COUNTER_MIN,
            ("", "most"): COUNTER_MAX,
            ("", "large"): b"\x00\xff" * 100_000,
            ("", ""): b"an empty key",
            ("", "case"): b"lower",
            ("", "CASE"): b"upper",
            ("", "case "): b"with a space",
            ("", "caf\u00e9"): b"composed",
            ("", "cafe\u0301"): b"decomposed",
            ("", "'\";--%_\\\n\t"): b"punctuation",
            ("", "\U0001f9e5" * 50): b"coats",
            ("a", "b:c"): b"1",
            ("a:b", "c"): b"2",
            ("A", "b:c"): b"3",
        }
        record = started(driver, values=values)
        found = loaded(self.reopen(driver), record.digest, START)
        assert {name: value.data for name, value in found.values.items()} == values
        empty = started(driver)
        committed(driver.commit(empty.digest, puts(values), START))
        found = loaded(self.reopen(driver), empty.digest, START)
        assert {name: value.data for name, value in found.values.items()} == values
        assert all(type(found.values[name].data) is type(data) for name, data in values.items())

    def test_rule_10_nothing_is_logged(self, driver: Driver) -> None:
        """No log record holds a value or a digest."""
        lines: list[str] = []

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(record.getMessage() + repr(record.args))

        root, listener = logging.getLogger(), Listener(logging.DEBUG)
        level = root.level
        root.addHandler(listener)
        root.setLevel(logging.DEBUG)
        try:
            record = started(driver, values={A: b"treasure"})
            driver.commit(record.digest, puts({A: b"treasure"}, base=1), START)
            driver.revoke(record.digest, START)
            driver.load(record.digest, START)
        finally:
            root.setLevel(level)
            root.removeHandler(listener)
        said = "\n".join(lines)
        assert "treasure" not in said
        assert record.digest.hex() not in said
        assert repr(record.digest) not in said

    def test_rule_12_tear_down_and_setup(self, driver: Driver) -> None:
        """`tear_down` removes every session, and `setup` makes what a new one needs, for every handle."""
        record = started(driver, user="ann", values={A: b"goes"})
        handle = self.reopen(driver)
        loaded(handle, record.digest, START)
        driver.tear_down()
        driver.setup()
        assert driver.is_set_up()
        assert handle.is_set_up()
        for each in (driver, handle):
            assert each.load(record.digest, START) == Missing(Reason.UNKNOWN)
            assert each.commit(record.digest, puts({A: b"late"}), START) == Gone(Reason.UNKNOWN)
            assert not has_user_index(driver) or each.sessions_of("ann", START) == []
        started(handle, values={A: b"new"})

    def test_rule_12_setup_and_close_can_be_repeated(self, driver: Driver) -> None:
        """`setup` drops nothing, and closing twice is no error."""
        record = started(driver, values={A: b"stays"})
        driver.setup()
        driver.setup()
        assert driver.is_set_up()
        assert loaded(driver, record.digest, START).values[A].data == b"stays"
        handle = self.reopen(driver)
        if handle is not driver:
            handle.close()
            handle.close()
        assert loaded(driver, record.digest, START).values[A].data == b"stays"
