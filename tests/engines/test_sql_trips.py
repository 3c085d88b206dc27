"""How often an operation on a SQL server goes there and back: a network makes each of them dear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from testservers import FaultProxy
from testservers.engines import Engine, params

from coatcheck.drivers.base import Driver
from coatcheck.record import ABSENT, Delta, Put, Record, ValueKey
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
KEPT: Final[ValueKey] = ("shop", "cart")
N: Final[ValueKey] = ("", "n")
LATE: Final = START + 5

Act = Callable[[Driver, Record], object]


def log_in(driver: Driver, record: Record) -> object:
    """What a log-in is: a new token, a user, and nothing left of what was there but the cart."""
    login = Delta(
        puts={A: Put(b"new", record.values[A].version)},
        increments={N: 1},
        clear_all=True,
        spare=frozenset({KEPT}),
        user=user(),
        auth_time=LATE,
    )
    answer = committed(driver.rotate(record.digest, digest(), login, 0, LATE))
    assert answer.counters == {N: 1}
    return answer


def rotate_with_grace(driver: Driver, record: Record) -> object:
    new = digest()
    answer = committed(driver.rotate(record.digest, new, Delta(touch=LATE), 30, LATE))
    assert loaded(driver, new, LATE).fresh
    return answer


def several(driver: Driver, record: Record) -> object:
    delta = Delta(
        puts={A: Put(b"A", record.values[A].version), ("", "new"): Put(b"B", ABSENT)}, increments={N: 1}, touch=LATE
    )
    return committed(driver.commit(record.digest, delta, LATE))


def revoked(driver: Driver, record: Record) -> object:
    assert driver.revoke(record.digest, LATE)
    return None


def revoked_user(driver: Driver, record: Record) -> object:
    assert driver.revoke_user(record.user or "", LATE) == 1
    return None


def ended(driver: Driver, record: Record) -> object:
    assert driver.end([record.sid], LATE, user=record.user) == 1
    return None


OPERATIONS: Final[dict[str, tuple[Act, int, int]]] = {
    # what it is, and the round trips that it may take: on PostgreSQL, and on MariaDB and MySQL
    "create": (lambda driver, _: committed(driver.create(make_record(values={A: b"a", N: 1}), START)), 2, 2),
    "create without values": (lambda driver, _: committed(driver.create(make_record(), START)), 2, 2),
    "create for a user": (lambda driver, _: committed(driver.create(make_record(user=user()), START)), 2, 2),
    "log in": (log_in, 2, 3),
    "rotate": (lambda driver, record: committed(driver.rotate(record.digest, digest(), Delta(), 0, LATE)), 2, 2),
    "rotate with a grace": (rotate_with_grace, 3, 3),  # and a load
    "several values": (several, 2, 2),
    "clear": (lambda driver, record: committed(driver.commit(record.digest, Delta(clear_all=True), LATE)), 2, 2),
    "revoke": (revoked, 2, 2),
    "revoke a user": (revoked_user, 2, 3),
    "end one device": (ended, 2, 3),
    "put": (lambda driver, record: committed(driver.commit(record.digest, puts({B: b"b"}), LATE)), 1, 1),
    "load": (lambda driver, record: loaded(driver, record.digest, LATE), 1, 1),
}


@pytest.mark.parametrize("engine", params("postgresql", "pgbouncer", "mariadb"), indirect=True)
def test_the_round_trips_of_each_operation(engine: Engine) -> None:
    engine.open().setup()
    most = 2 if engine.name.startswith("mariadb") else 1
    with FaultProxy(engine.server.port) as proxy:
        driver = engine.open(engine.url.replace(engine.server.address, proxy.address))
        taken: dict[str, int] = {}
        for name, (act, *_) in OPERATIONS.items():
            for _ in range(7):  # by which the statements are prepared
                record = started(driver, user=user(), values={A: b"a", B: b"b", KEPT: b"hat", N: 5})
                proxy.counted()
                act(driver, record)
                taken[name] = proxy.counted().round_trips
        driver.close()
    assert {name: number for name, number in taken.items() if number > OPERATIONS[name][most]} == {}


@pytest.mark.parametrize("engine", params("postgresql", "mariadb"), indirect=True)
def test_a_refusal_in_the_last_round_trip_leaves_nothing(engine: Engine) -> None:
    """A sid that is in use is found when the values are on their way, too."""
    driver = engine.open()
    driver.setup()
    there = started(driver, values={A: b"a"})
    record = make_record(sid_=there.sid, user=user(), values={A: b"b", B: b"b"})
    assert driver.create(record, START).__class__.__name__ == "Conflict"
    assert dict(loaded(driver, there.digest, START).values) == dict(there.values)
    other = make_record(digest_=record.digest, values={A: b"c"})
    committed(driver.create(other, START))  # the digest is free, with no guard or tombstone of its own
    assert loaded(driver, record.digest, START).values[A].data == b"c"
