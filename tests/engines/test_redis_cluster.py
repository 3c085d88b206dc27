"""Redis Cluster: log-ins and revocations in every order, processes that die half-way, slots that move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pytest
from testservers import RedisCluster
from testservers.engines import PATIENCE

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.base import Capability
from coatcheck.drivers.redis import RedisDriver
from coatcheck.drivers.redis.carried import driven
from coatcheck.drivers.redis.cluster_work import ClusterOperations
from coatcheck.record import USER_FENCE, Committed, Delta, Gone, Missing, Reason, Record, ValueKey
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started, successor

A: ValueKey = ("", "a")
LOGIN = Delta(user="ada", auth_time=START, puts=puts({A: b"logged in"}).puts)


class ByHand:
    """An operation that goes on by one request to the servers each time that it is told to.

    Attributes:
        answer: What it returned, once it is over.
        is_over: Whether it is.
    """

    def __init__(self, driver: RedisDriver, steps: Steps[Any]) -> None:
        here = driver._processes.here()
        self._perform = here.perform
        self._work = driven("by hand", steps, here.routes)
        self.answer: Any = None
        self.is_over = False
        self._request: Any = None
        self._go(None)

    def _go(self, reply: Any) -> None:
        try:
            self._request = self._work.send(reply)
        except StopIteration as stop:
            self.answer, self.is_over = stop.value, True

    def step(self) -> None:
        """Go on to the next request."""
        if not self.is_over:
            self._go(self._perform(time.monotonic() + PATIENCE, self._request))

    def finish(self) -> Any:
        """Go on to the end."""
        while not self.is_over:
            self.step()
        return self.answer


@pytest.fixture
def driver(redis_cluster: RedisCluster, open_at: Callable[..., RedisDriver]) -> Iterator[RedisDriver]:
    driver = open_at(redis_cluster.url)
    driver.setup()
    for node in redis_cluster.primaries():
        for script in vars(driver._operations.scripts).values():
            node.command("SCRIPT", "LOAD", script.text)  # so that each request is one step
    yield driver
    driver.tear_down()


def work(driver: RedisDriver) -> ClusterOperations:
    assert isinstance(driver._operations, ClusterOperations)
    return driver._operations


def test_what_a_cluster_promises(driver: RedisDriver) -> None:
    assert Capability.ATOMIC_REVOKE not in driver.capabilities
    assert Capability.USER_INDEX in driver.capabilities
    assert driver.rotation_bits == 8
    assert RedisDriver.rotation_bits == 0


# Log-ins against revocations


@dataclass
class Race:
    """A log-in that somebody else's revocation gets in between.

    Attributes:
        begin: Begins the log-in.
        sid: The sid of its session.
        digests: The digests under which the session may be found.
    """

    begin: Callable[[], ByHand]
    sid: str
    digests: list[bytes]


def by_create(driver: RedisDriver) -> Race:
    record = make_record(user="ada", values={A: b"logged in"})
    return Race(lambda: ByHand(driver, work(driver).create(record, START)), record.sid, [record.digest])


def by_commit(driver: RedisDriver) -> Race:
    record = started(driver)
    return Race(lambda: ByHand(driver, work(driver).commit(record.digest, LOGIN, START)), record.sid, [record.digest])


def by_commit_that_read(driver: RedisDriver) -> Race:
    record = started(driver)
    delta = replace(LOGIN, basis=record.basis)
    return Race(lambda: ByHand(driver, work(driver).commit(record.digest, delta, START)), record.sid, [record.digest])


def by_new_moment(driver: RedisDriver) -> Race:
    record = started(driver, START - 50, user="ada")
    delta = Delta(auth_time=START - 1)
    return Race(lambda: ByHand(driver, work(driver).commit(record.digest, delta, START)), record.sid, [record.digest])


def by_rotation(driver: RedisDriver) -> Race:
    record = started(driver)
    new = successor(driver, record.digest)
    steps = lambda: work(driver).rotate(record.digest, new, LOGIN, 0, START)  # noqa: E731 (begun later)
    return Race(lambda: ByHand(driver, steps()), record.sid, [record.digest, new])


RACES = [by_create, by_commit, by_commit_that_read, by_new_moment, by_rotation]


def length(begin: Callable[[], ByHand]) -> int:
    """Give how many steps an operation takes when nobody gets in between."""
    hand = begin()
    steps = 0
    while not hand.is_over:
        hand.step()
        steps += 1
    return steps


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("is_kept", [False, True], ids=["", "kept"])
def test_a_log_in_slips_by_a_revocation_in_no_order(
    driver: RedisDriver, race: Callable[[RedisDriver], Race], *, is_kept: bool
) -> None:
    """In every order of the steps of both: whoever logged in at or before the moment of the revocation is ended."""
    steps = length(race(driver).begin)
    assert steps >= 4
    driver.revoke_user("ada", START - 1000)  # nothing that the length was taken with is left
    orders = set(combinations(range(steps + 3), 3))  # the places of the revocation's steps among all
    for order in sorted(orders):
        driver.tear_down()
        driver.setup()
        one = race(driver)
        bystander = started(driver, START - 60, user="ada")
        login = one.begin()
        keep = one.sid if is_kept else None
        before = driver.load(one.digests[0], START)
        revocation = ByHand(driver, work(driver).revoke_user("ada", START, keep))
        for place in range(steps + 3):
            (revocation if place in order else login).step()
        revocation.finish()
        answer = login.finish()
        told = (order, answer)
        assert isinstance(answer, Committed) or answer == Gone(Reason.REVOKED), told
        assert isinstance(driver.load(bystander.digest, START), Missing), told
        alive = [digest for digest in one.digests if isinstance(driver.load(digest, START), Record)]
        listed = [info.sid for info in driver.sessions_of("ada", START)]
        as_user = [digest for digest in alive if loaded(driver, digest, START).user == "ada"]
        if not is_kept:
            assert as_user == [], told
            assert listed == [], told
        else:
            assert bool(as_user) == (listed == [one.sid]), told
            if isinstance(answer, Committed):
                assert as_user, told
        was_hers = isinstance(before, Record) and before.user == "ada" and not is_kept
        if isinstance(answer, Gone) and isinstance(before, Record) and not was_hers:
            assert loaded(driver, one.digests[0], START) == before, "the session is not what it was before"
            assert alive == one.digests[:1], told


@pytest.mark.parametrize("race", RACES)
def test_a_process_that_dies_lets_nobody_slip_by(driver: RedisDriver, race: Callable[[RedisDriver], Race]) -> None:
    """Whoever meets the session next does what was left to do, with a revocation at any time before or without one."""
    steps = length(race(driver).begin)
    looks: dict[str, Callable[[Race], Any]] = {
        "load": lambda one: [driver.load(digest, START + 1) for digest in one.digests],
        "commit": lambda one: [driver.commit(digest, Delta(touch=START + 1), START + 1) for digest in one.digests],
        "rotate": lambda one: [
            driver.rotate(digest, successor(driver, digest), Delta(), 30, START + 1) for digest in one.digests
        ],
        "missing": lambda one: driver.missing([one.sid], START + 1),
        "sessions_of": lambda _: driver.sessions_of("ada", START + 1),
        "log_in": lambda one: [driver.commit(digest, LOGIN, START + 1) for digest in one.digests],
    }
    for died in range(steps + 1):
        for revoked in (None, *range(died + 1)):
            for name, look in looks.items():
                driver.tear_down()
                driver.setup()
                one = race(driver)
                login = one.begin()
                for step in range(died):
                    if revoked == step:
                        driver.revoke_user("ada", START)
                    login.step()
                if revoked == died:
                    driver.revoke_user("ada", START)
                ((_, head, _),) = ByHand(driver, work(driver)._heads([one.sid], START + 1)).finish()
                told = look(one)
                if revoked is not None and head is not None and head.user == "ada":
                    right = {
                        "load": [Missing(Reason.REVOKED)],
                        "commit": [Gone(Reason.REVOKED)],
                        "rotate": [Gone(Reason.REVOKED)],
                        "log_in": [Gone(Reason.REVOKED)],
                        "missing": {one.sid},
                        "sessions_of": [],
                    }[name]
                    assert (told[-1:] if isinstance(told, list) else told) == right, (died, revoked, name)
                found = [driver.load(digest, START + 1) for digest in one.digests]
                as_user = [record for record in found if isinstance(record, Record) and record.user == "ada"]
                listed = [info.sid for info in driver.sessions_of("ada", START + 1)]
                if revoked is not None:
                    assert as_user == [], (died, revoked, name)
                    assert listed == [], (died, revoked, name)
                elif as_user:
                    assert listed == [one.sid], (died, revoked, name)


def test_a_log_in_that_was_never_confirmed_has_an_end(driver: RedisDriver) -> None:
    """Once nobody remembers revocations from that time any more, it does not stand."""
    for late, stands in ((USER_FENCE - 1, True), (USER_FENCE, False)):
        who = f"ada-{stands}"
        record = make_record(user=who, idle=100_000.0)
        login = ByHand(driver, work(driver).create(record, START))
        login.step()
        login.step()
        found = driver.load(record.digest, START + late)
        assert isinstance(found, Record) == stands
        assert driver.missing([record.sid], START + late) == (set() if stands else {record.sid})
        assert len(driver.sessions_of(who, START + late)) == stands


def test_a_log_in_that_a_revocation_found_is_told(driver: RedisDriver) -> None:
    """Also where it was the later one by the clock; the next one stands."""
    record = make_record(user="ada")
    login = ByHand(driver, work(driver).create(record, START))
    login.step()
    login.step()
    driver.revoke_user("ada", START - 1)
    assert login.finish() == Gone(Reason.REVOKED)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
    again = make_record(user="ada")
    committed(driver.create(again, START))
    assert [info.sid for info in driver.sessions_of("ada", START)] == [again.sid]


def test_a_list_that_is_looked_through_loses_no_log_in_that_is_under_way(driver: RedisDriver) -> None:
    """Whoever lists the sessions finds none at first, and takes off its list what it did not find at last."""
    for order in combinations(range(7), 3):
        record = make_record(user=f"ada{order}")
        login = ByHand(driver, work(driver).create(record, START))
        look = ByHand(driver, work(driver).sessions_of(f"ada{order}", START))
        for place in range(7):
            (look if place in order else login).step()
        look.finish()
        committed(login.finish())
        assert [info.sid for info in driver.sessions_of(f"ada{order}", START)] == [record.sid], order


def test_a_log_in_finds_another_user_than_it_looked_for(driver: RedisDriver) -> None:
    """A new moment of a log-in is that of whoever is the user when it is written."""
    record = started(driver, START - 50, user="ada")
    late = ByHand(driver, work(driver).commit(record.digest, Delta(auth_time=START - 1), START))
    late.step()
    committed(driver.commit(record.digest, Delta(user="eve", auth_time=START - 2), START))
    committed(late.finish())
    assert driver.revoke_user("ada", START) == 0
    assert [info.sid for info in driver.sessions_of("eve", START)] == [record.sid]
    assert driver.revoke_user("eve", START) == 1


def test_two_log_ins_in_one_session_follow_each_other(driver: RedisDriver) -> None:
    """Step by step in turn; the user of the later one is logged in, and found by a revocation."""
    for first in ("ada", "eve"):
        record = started(driver)
        hands = [
            ByHand(driver, work(driver).commit(record.digest, Delta(user=user, auth_time=START), START))
            for user in (first, "zoe")
        ]
        while not all(hand.is_over for hand in hands):
            for hand in hands:
                hand.step()
        assert all(isinstance(hand.answer, Committed) for hand in hands)
        user = loaded(driver, record.digest, START).user
        assert user in {first, "zoe"}
        assert [info.sid for info in driver.sessions_of(user, START)] == [record.sid]
        driver.revoke_user("zoe", START - 10)
        driver.revoke(record.digest, START)


def test_an_index_loses_what_has_ended(driver: RedisDriver, redis_cluster: RedisCluster) -> None:
    index = driver._operations.keys.of_user("ada")[0] + b"u"
    for _ in range(150):
        record = make_record(user="ada", idle=float(10**12), absolute=float(10**12))
        committed(driver.create(record, START))
        driver.revoke(record.digest, START)
        assert redis_cluster.primary_of(index).command("ZCARD", index) < 70


def test_sids_are_asked_for_server_by_server(driver: RedisDriver) -> None:
    records = [started(driver) for _ in range(20)]
    sids = [f"{number % 256:02x}{number:030x}" for number in range(2500)]
    hand = ByHand(driver, work(driver).missing([*sids, *(record.sid for record in records)], START))
    for _ in range(3):
        hand.step()
    assert hand.is_over
    assert hand.answer == set(sids)
