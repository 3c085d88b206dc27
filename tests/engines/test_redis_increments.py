"""What an increment becomes on Redis: the short way through the script and the long one come to the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from testservers import RedisServer
from testservers.engines import params

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.errors import CounterOverflow, NotACounter
from coatcheck.record import COUNTER_MAX, COUNTER_MIN, Conflict, Delta, Gone, Missing, Put, Record, ValueKey
from coatcheck.testing import digest
from coatcheck.testing.helpers import START, committed, loaded, started

A: Final[ValueKey] = ("", "a")
M: Final[ValueKey] = ("shop", "m")
N: Final[ValueKey] = ("", "n")
EXACT: Final = 10**14
"""From here on Lua writes a number of its own with an exponent."""

Values = Mapping[ValueKey, bytes | int]

SUMS: Final = [
    (0, 1),
    (None, 5),
    (None, -5),
    (None, 0),
    (7, 0),
    (5, -5),
    (-3, -4),
    (EXACT - 2, 1),
    (EXACT - 1, 1),
    (1 - EXACT, -1),
    (EXACT, -1),
    (1, EXACT - 1),
    (EXACT - 1, EXACT - 1),
    (None, EXACT - 1),
    (None, EXACT),
    (2**53 - 1, 2),
    (1 - 2**53, -2),
    (COUNTER_MAX - 1, 1),
    (COUNTER_MIN + 1, -1),
    (None, COUNTER_MAX),
    (None, COUNTER_MIN),
    (COUNTER_MAX, COUNTER_MIN),
]
"""What a counter holds, where it is there, and what is added."""

CHANGES: Final[dict[str, tuple[Values, Delta]]] = {
    "overflow": ({N: COUNTER_MAX}, Delta(increments={N: 1})),
    "overflow below": ({N: COUNTER_MIN}, Delta(increments={N: -1})),
    "overflow at once": ({}, Delta(increments={N: COUNTER_MAX + 1})),
    "overflow by far": ({N: 0}, Delta(increments={N: 10**40})),
    "bytes": ({N: b"5"}, Delta(increments={N: 1})),
    "two": ({N: 1, M: 2}, Delta(increments={N: 1, M: EXACT})),
    "two, one of bytes": ({N: 1, M: b"2"}, Delta(increments={N: 1, M: 1})),
    "two, one of them new": ({N: 1}, Delta(increments={M: 1, N: 1})),
    "beside a value": ({N: 1, A: b"a"}, Delta(increments={N: 1}, puts={A: Put(b"b")})),
    "beside a new value": ({N: 1}, Delta(increments={N: 1}, puts={A: Put(b"b", 0)})),
    "beside a value that changed": ({N: 1, A: b"a"}, Delta(increments={N: 1}, puts={A: Put(b"b", 0)})),
    "beside a value where bytes are": ({N: b"1", A: b"a"}, Delta(increments={N: 1}, puts={A: Put(b"b")})),
    "beside a drop": ({N: 1, A: b"a"}, Delta(increments={N: 1}, drops={A: None})),
    "after a clear": ({N: 1, A: b"a"}, Delta(increments={N: 1}, clear_all=True)),
    "beside a note": ({N: 1}, Delta(increments={N: 1}, note=b"phone")),
    "with activity": ({N: 1}, Delta(increments={N: 1}, touch=START + 1)),
    "with activity that is due": ({N: 1}, Delta(increments={N: 1}, touch=START + 1000, if_due=True)),
    "with another end": ({N: 1}, Delta(increments={N: 1}, deadline=START + 5000)),
}

on_all = pytest.mark.parametrize("engine", params("redis", "redis-sentinel", "redis-cluster"), indirect=True)


@dataclass
class Redis:
    """A session with a counter on one server, and the server itself."""

    server: RedisServer
    driver: Driver
    prefix: str
    record: Record

    def count(self, amount: int) -> int:
        answer = self.driver.commit(self.record.digest, Delta(increments={N: amount}), START)
        return committed(answer).counters[N]

    def put(self, raw: bytes) -> None:
        """Write the counter as another program would."""
        self.server.command("HSET", self.prefix.encode() + b":d:" + self.record.digest, "0:n", raw)


@pytest.fixture
def redis(redis_server: RedisServer, redis_driver: Driver, namespace: str) -> Redis:
    return Redis(redis_server, redis_driver, namespace, started(redis_driver, values={N: 0}))


def outcome(driver: Driver, values: Values, delta: Delta) -> object:
    """Return how a change goes on a new session, and what is stored then, apart from versions."""
    record = started(driver, values=dict(values))
    before = {name: value.version for name, value in record.values.items()}
    try:
        answer: Any = driver.commit(record.digest, delta, START)
    except (CounterOverflow, NotACounter) as error:
        answer = type(error), str(error)
    else:
        answer = answer if isinstance(answer, Conflict) else committed(answer)
    after = loaded(driver, record.digest, START + 1)
    version = getattr(answer, "version", None)
    named = {*delta.puts, *delta.increments}
    for name, value in after.values.items():
        assert value.version == (version if version is not None and name in named else before[name]), name
    told = answer if version is None else dict(answer.counters)
    return told, {name: value.data for name, value in after.values.items()}, after.seen, after.expires, after.note


@on_all
def test_sums(driver: Driver) -> None:
    """On every side of the border between the two ways."""
    for held, amount in SUMS:
        values: Values = {} if held is None else {N: held}
        told, stored, *_ = outcome(driver, values, Delta(increments={N: amount}))
        assert told == {N: (held or 0) + amount} == stored, (held, amount)


@on_all
def test_changes(driver: Driver) -> None:
    """What goes with an increment, and what refuses it, is as in memory."""
    for name, (values, delta) in CHANGES.items():
        assert outcome(driver, values, delta) == outcome(MemoryDriver(), values, delta), name


@on_all
def test_an_increment_of_a_session_that_has_ended(driver: Driver) -> None:
    ends: list[Callable[[bytes], object]] = [
        lambda digest: driver.revoke(digest, START),
        lambda digest: driver.rotate(digest, digest[:16] + bytes(16), Delta(), 0, START),
        lambda digest: driver.end([loaded(driver, digest, START).sid], START),
    ]
    for end in ends:
        record = started(driver, values={N: 1})
        end(record.digest)
        assert isinstance(driver.commit(record.digest, Delta(increments={N: 1}), START), Gone)
        assert isinstance(driver.load(record.digest, START), Missing)
    short = started(driver, values={N: 1}, idle=100.0)
    assert isinstance(driver.commit(short.digest, Delta(increments={N: 1}), START + 100), Gone)
    assert isinstance(driver.commit(digest(), Delta(increments={N: 1}), START), Gone)


@on_all
def test_an_increment_under_both_digests_of_a_grace(driver: Driver) -> None:
    """The first one under the new digest begins the grace of the old one, as any change does."""
    record = started(driver, values={N: 1})
    new = record.digest[:16] + bytes(16)
    committed(driver.rotate(record.digest, new, Delta(), 30, START))
    one = Delta(increments={N: 1})
    assert committed(driver.commit(record.digest, one, START + 100)).counters == {N: 2}
    assert committed(driver.commit(new, one, START + 100)).counters == {N: 3}
    assert committed(driver.commit(record.digest, one, START + 129)).counters == {N: 4}
    assert isinstance(driver.commit(record.digest, one, START + 131), Gone)
    assert committed(driver.commit(new, one, START + 131)).counters == {N: 5}


@pytest.mark.parametrize("text", [b"0x10", b" 5", b"5 ", b"1e3", b"", b"-", b"nan", b"9" * 30], ids=repr)
def test_a_counter_that_another_program_spoilt(redis: Redis, text: bytes) -> None:
    """What is no number counts as nothing."""
    redis.put(b"%bi%b" % (bytes(7) + b"v", text))
    assert redis.count(1) == 1
    assert loaded(redis.driver, redis.record.digest, START).values[N].data == 1


def test_the_commands_of_an_increment(redis: Redis) -> None:
    """One script, in which the session is read once and written once, whether or not the counter is there."""
    redis.count(1)  # the server learns the script
    redis.server.command("CONFIG", "RESETSTAT")
    for number in range(2, 12):
        assert redis.count(1) == number
    new = Delta(increments={M: 1}, touch=START + 1, if_due=True)
    committed(redis.driver.commit(redis.record.digest, new, START))
    told = redis.server.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): fields.split(",")[0] for name, fields in told.items()}
    assert {name: calls.get(name) for name in ("evalsha", "hmget", "hset")} == dict.fromkeys(
        ("evalsha", "hmget", "hset"), "calls=11"
    )
    assert set(calls) <= {"evalsha", "hmget", "hset", "hello", "info", "config|resetstat"}
