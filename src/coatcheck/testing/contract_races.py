"""Rules 2 to 7 with many threads at once, half of them on another handle where there is one."""

# ruff: noqa: S101, PLR2004 (asserts and numbers are what tests are made of)

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from coatcheck.drivers.base import Driver
from coatcheck.record import ABSENT, Committed, Conflict, Delta, Gone, Missing, Reason, ValueKey
from coatcheck.testing.helpers import (
    START,
    Rules,
    committed,
    digest,
    has_user_index,
    loaded,
    make_record,
    puts,
    started,
    successor,
    user,
)

__all__ = ["RaceRules"]

T = TypeVar("T")

A: ValueKey = ("", "a")
THREADS = 8


class RaceRules(Rules):
    """What holds when everybody comes at once."""

    def _together(self, driver: Driver, work: Callable[[Driver, int], T], threads: int = THREADS) -> list[T]:
        """Run *work* in as many threads, let go at the same moment; give the results, or raise the first error.

        A driver that belongs to one thread does the same work in one of the orders that a race may take.
        """
        if not self.concurrent:
            return [work(driver, number) for number in range(threads)]
        other = self.reopen(driver)
        gate = threading.Barrier(threads)

        def run(number: int) -> T:
            gate.wait(120)
            return work(other if number % 2 else driver, number)

        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(run, range(threads)))
        finally:
            if other is not driver:
                other.close()

    def test_rule_05_race_of_increments(self, driver: Driver) -> None:
        """Eight threads that add one a hundred times make eight hundred, and every sum is given once."""
        record = started(driver)

        def add(handle: Driver, _: int) -> list[int]:
            one = Delta(increments={A: 1})
            return [committed(handle.commit(record.digest, one, START)).counters[A] for _ in range(100)]

        sums = [total for totals in self._together(driver, add) for total in totals]
        assert loaded(driver, record.digest, START).values[A].data == 800
        assert sorted(sums) == list(range(1, 801))

    def test_rule_03_race_of_different_keys(self, driver: Driver) -> None:
        """Threads that write different keys keep all their changes."""
        record = started(driver)

        def write(handle: Driver, number: int) -> None:
            for n in range(20):
                delta = puts({("", f"{number}-{n}"): b"%d" % n, ("", f"mine-{number}"): b"%d" % n})
                committed(handle.commit(record.digest, delta, START))

        self._together(driver, write)
        values = loaded(driver, record.digest, START).values
        assert len(values) == THREADS * 21
        assert all(values["", f"mine-{number}"].data == b"19" for number in range(THREADS))

    def test_rule_05_race_of_read_and_write(self, driver: Driver) -> None:
        """Threads that append on the version that they read, and read again on Conflict, lose nothing."""
        record = started(driver)

        def append(handle: Driver, number: int) -> None:
            for _ in range(10):
                while True:
                    held = loaded(handle, record.digest, START).values.get(A)
                    data = b"" if held is None else held.data
                    assert isinstance(data, bytes)
                    base = ABSENT if held is None else held.version
                    answer = handle.commit(record.digest, puts({A: data + b"%d" % number}, base), START)
                    if isinstance(answer, Committed):
                        break
                    assert answer == Conflict((A,))

        self._together(driver, append)
        data = loaded(driver, record.digest, START).values[A].data
        assert isinstance(data, bytes)
        assert sorted(data) == sorted(b"".join(b"%d" % number * 10 for number in range(THREADS)))

    def test_rule_05_race_for_an_absent_key(self, driver: Driver) -> None:
        """Of many threads that saw a key missing and put it, one is done and the others are Conflict."""
        for _ in range(5):
            record = started(driver)
            answers = self._together(
                driver,
                lambda handle, n, of=record: handle.commit(of.digest, puts({A: b"%d" % n}, ABSENT), START),  # type: ignore[misc]
            )
            done = [number for number, answer in enumerate(answers) if isinstance(answer, Committed)]
            assert len(done) == 1
            assert answers.count(Conflict((A,))) == THREADS - 1
            assert loaded(driver, record.digest, START).values[A].data == b"%d" % done[0]

    def test_rule_02_race_of_creations(self, driver: Driver) -> None:
        """Of many threads that create the same digest, one does."""
        shared = digest()
        records = [make_record(digest_=shared, values={A: b"%d" % number}) for number in range(THREADS)]
        answers = self._together(driver, lambda handle, number: handle.create(records[number], START))
        done = [number for number, answer in enumerate(answers) if isinstance(answer, Committed)]
        assert len(done) == 1
        assert answers.count(Conflict()) == THREADS - 1
        found = loaded(driver, shared, START)
        assert (found.sid, found.values[A].data) == (records[done[0]].sid, b"%d" % done[0])

    def test_rule_06_race_of_rotations(self, driver: Driver) -> None:
        """Of twenty rotations of one token at once, one issues a successor; replacing a lost one goes the same way."""
        record = started(driver)
        for now in (START, START + 30):
            new = [successor(driver, record.digest) for _ in range(20)]
            answers = self._together(
                driver,
                lambda handle, number, new=new, now=now: handle.rotate(record.digest, new[number], Delta(), 30, now),  # type: ignore[misc]
                threads=20,
            )
            done = [number for number, answer in enumerate(answers) if isinstance(answer, Committed)]
            assert len(done) == 1
            assert answers.count(Conflict()) == 19
            assert loaded(driver, new[done[0]], now).fresh
            assert sum(not isinstance(driver.load(each, now), Missing) for each in new) == 1
            assert loaded(driver, record.digest, now).stale

    def test_rule_06_race_of_log_ins(self, driver: Driver) -> None:
        """Of many rotations without grace, one is done and the others find the token rotated away."""
        record = started(driver)
        new = [successor(driver, record.digest) for _ in range(THREADS)]
        answers = self._together(
            driver, lambda handle, number: handle.rotate(record.digest, new[number], Delta(), 0, START)
        )
        assert sum(isinstance(answer, Committed) for answer in answers) == 1
        assert answers.count(Gone(Reason.ROTATED)) == THREADS - 1
        assert sum(not isinstance(driver.load(each, START), Missing) for each in new) == 1

    def test_rule_04_race_of_writes_and_a_revocation(self, driver: Driver) -> None:
        """Writers that race a revocation are told Gone from some moment on, and nothing comes back."""
        for _ in range(5):
            record = started(driver)

            def work(handle: Driver, number: int, digest: bytes = record.digest) -> list[bool]:
                if number == 0:
                    return [handle.revoke(digest, START)]
                deltas = (puts({A: b"x"}), Delta(increments={("", "n"): 1}), Delta(touch=START + 1))
                answers = [handle.commit(digest, deltas[n % 3], START) for n in range(30)]
                assert all(isinstance(answer, Committed) or answer == Gone(Reason.REVOKED) for answer in answers)
                return [isinstance(answer, Committed) for answer in answers]

            done = self._together(driver, work)
            assert done[0] == [True]
            assert all(row == sorted(row, reverse=True) for row in done[1:]), "written again after Gone"
            assert driver.load(record.digest, START) == Missing(Reason.REVOKED)

    def test_rule_07_race_of_log_ins_and_a_revocation(self, driver: Driver) -> None:
        """No log-in from before the revocation is alive after it, whichever came first."""
        if not has_user_index(driver):
            return
        for _ in range(5):
            who = user()
            waiting = [started(driver) for _ in range(THREADS)]

            def work(handle: Driver, number: int, who: str = who, mine: list[bytes] | None = None) -> None:
                digests = mine or []
                if number == 0:
                    handle.revoke_user(who, START)
                elif number % 3 == 1:
                    handle.create(make_record(user=who), START)
                else:
                    handle.commit(digests[number], Delta(user=who, auth_time=START), START)

            digests = [record.digest for record in waiting]
            self._together(driver, lambda handle, n, w=who, d=digests, f=work: f(handle, n, w, d))  # type: ignore[misc]
            assert driver.sessions_of(who, START) == []

    def test_rule_01_race_of_a_reader(self, driver: Driver) -> None:
        """A reader sees a change whole or not at all, and finds the session by its old token while it is rotated."""
        record = started(driver, values={A: b"0", ("", "b"): b"0"})
        new = [successor(driver, record.digest) for _ in range(10)]

        def work(handle: Driver, number: int) -> None:
            if number == 0:
                for n in range(50):
                    committed(handle.commit(record.digest, puts({A: b"%d" % n, ("", "b"): b"%d" % n}), START))
            elif number == 1:
                for n, each in enumerate(new):
                    committed(handle.rotate(record.digest, each, Delta(), 30, START + 30 * n))
            else:
                for _ in range(40):
                    values = loaded(handle, record.digest, START).values
                    assert values[A].data == values["", "b"].data

        self._together(driver, work, threads=4)
        assert loaded(driver, record.digest, START).sid == record.sid
