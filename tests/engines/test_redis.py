"""What is Redis's own: round trips, scripts, keys and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from testservers import FaultProxy, RedisServer

from coatcheck.drivers.redis import RedisDriver
from coatcheck.errors import ConfigurationError
from coatcheck.record import (
    COUNTER_MAX,
    COUNTER_MIN,
    NEVER,
    TOMBSTONE,
    Conflict,
    Delta,
    Gone,
    Missing,
    Put,
    Reason,
    ValueKey,
)
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started, successor

A: ValueKey = ("", "a")
HOUR = 3600
Open = Callable[..., RedisDriver]


@pytest.fixture
def driver(redis_driver: RedisDriver) -> RedisDriver:
    return redis_driver


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


def key(driver: RedisDriver, kind: str, of: bytes | str) -> bytes:
    base = driver._operations.keys.base
    return base + kind.encode() + b":" + (of.encode() if isinstance(of, str) else of)


# Round trips and bytes


def test_every_operation_is_one_round_trip(proxy: FaultProxy, redis_server: RedisServer, open_at: Open) -> None:
    driver = open_at(f"redis://{proxy.address}")
    driver.setup()
    for script in vars(driver._operations.scripts).values():
        redis_server.command("SCRIPT", "LOAD", script.text)
    record = started(driver, user="ada", values={A: b"a", ("", "n"): 1})
    new = successor(driver, record.digest)
    version = record.values[A].version
    operations: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: loaded(driver, record.digest, START)),
        (1, lambda: committed(driver.create(make_record(user="ada", values={A: b"a"}), START))),
        (1, lambda: committed(driver.commit(record.digest, puts({A: b"b"}, version), START))),
        (1, lambda: committed(driver.commit(record.digest, Delta(increments={("", "n"): 1}, touch=START + 1), START))),
        (1, lambda: committed(driver.commit(record.digest, Delta(user="eve", auth_time=START), START))),
        (1, lambda: committed(driver.rotate(record.digest, new, puts({A: b"c"}), 30, START))),
        (2, lambda: loaded(driver, record.digest, START)),  # in its grace: it leads on to the session
        (1, lambda: driver.load(b"?" * 32, START)),
        (1, lambda: driver.sessions_of("ada", START)),
        (1, lambda: driver.missing([record.sid], START)),
        (1, lambda: driver.revoke(new, START)),
        (1, lambda: driver.load(new, START)),
        (1, lambda: driver.revoke_user("ada", START)),
    ]
    for trips, operation in operations:
        proxy.counted()
        operation()
        assert proxy.counted().round_trips == trips
    driver.tear_down()


def test_a_commit_is_as_large_as_its_change(proxy: FaultProxy, open_at: Open) -> None:
    driver = open_at(f"redis://{proxy.address}")
    driver.setup()
    small = started(driver, values={A: b"x" * 1000})
    large = started(driver, values={A: b"x" * 1000} | {("", f"k{n}"): b"x" * 1000 for n in range(100)})
    first = started(driver)  # with which the server learns the script, whatever it was asked before
    committed(driver.rotate(first.digest, successor(driver, first.digest), Delta(), 0, START))
    sizes = []
    for record in (small, large):
        committed(driver.commit(record.digest, puts({A: b"y" * 1000}), START))
        proxy.counted()
        committed(
            driver.commit(
                record.digest, puts({A: b"z" * 1000}, loaded(driver, record.digest, START).values[A].version), START
            )
        )
        loading = proxy.counted()
        committed(driver.commit(record.digest, puts({A: b"z" * 1000}), START))
        committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 0, START))
        counts = proxy.counted()
        assert counts.sent < 2000
        assert counts.received < 200
        sizes.append((counts.sent, loading.received))
    assert abs(sizes[0][0] - sizes[1][0]) < 10
    assert sizes[1][1] > 100_000
    driver.tear_down()


def test_many_sids_are_asked_for_together(proxy: FaultProxy, open_at: Open) -> None:
    driver = open_at(f"redis://{proxy.address}")
    record = started(driver)
    driver.missing([record.sid], START)
    proxy.counted()
    sids = [
        f"{number:032x}" for number in range(2499)
    ]  # with the other one five commands, which may be answered one by one
    assert driver.missing([*sids, record.sid], START) == set(sids)
    assert proxy.counted().round_trips <= 5
    driver.tear_down()


# Scripts


def test_a_server_that_forgot_its_scripts_learns_them_again(driver: RedisDriver, redis_server: RedisServer) -> None:
    record = started(driver, user="ada")
    new = successor(driver, record.digest)
    for operation in (
        lambda: committed(driver.commit(record.digest, Delta(increments={A: 1}), START)),
        lambda: committed(driver.create(make_record(), START)),
        lambda: committed(driver.rotate(record.digest, new, Delta(), 30, START)),
        lambda: loaded(driver, record.digest, START),
        lambda: driver.missing([record.sid], START),
        lambda: driver.sessions_of("ada", START),
        lambda: driver.revoke_user("ada", START),
        lambda: driver.revoke(new, START),
    ):
        redis_server.command("SCRIPT", "FLUSH")
        operation()
    other = started(driver)
    redis_server.command("SCRIPT", "FLUSH")
    assert committed(driver.commit(other.digest, Delta(increments={A: 1}), START)).counters == {A: 1}


def test_sums_are_exact(driver: RedisDriver) -> None:
    draw = random.Random(4).randrange  # noqa: S311 (examples)
    edges = [0, 1, -1, 999_999_999, 10**9, -(10**9), 2**53, 2**53 + 1, COUNTER_MAX, COUNTER_MIN, COUNTER_MAX - 1]
    pairs = [(one, other) for one in edges for other in edges]
    powers = [10**number for number in range(19)]
    pairs += [(draw(-most, most), draw(-other, other)) for most in powers for other in powers]
    right = [(one, other) for one, other in pairs if COUNTER_MIN <= one + other <= COUNTER_MAX]
    names: list[ValueKey] = [("", f"n{number}") for number in range(len(right))]
    record = started(driver, values={name: one for name, (one, _) in zip(names, right, strict=True)})
    delta = Delta(increments={name: other for name, (_, other) in zip(names, right, strict=True)})
    sums = {name: one + other for name, (one, other) in zip(names, right, strict=True)}
    assert committed(driver.commit(record.digest, delta, START)).counters == sums
    found = loaded(driver, record.digest, START).values
    assert {name: value.data for name, value in found.items()} == sums


# Keys


def test_the_server_collects_what_ended_and_nothing_else(driver: RedisDriver, redis_server: RedisServer) -> None:
    for_ever = started(driver, idle=NEVER, absolute=NEVER, user="ada")
    short = started(driver, idle=600.0, user="bob")
    assert redis_server.command("TTL", key(driver, "d", for_ever.digest)) == -1
    assert redis_server.command("TTL", key(driver, "s", for_ever.sid)) == -1
    assert redis_server.command("TTL", driver._operations.keys.base + b"{u:ada}:u") == -1
    for each in (key(driver, "d", short.digest), key(driver, "s", short.sid)):
        assert 600 + HOUR - 10 < redis_server.command("TTL", each) <= 600 + HOUR
    committed(driver.commit(short.digest, Delta(touch=START + 300), START + 300))
    assert 600 + HOUR - 10 < redis_server.command("TTL", key(driver, "d", short.digest)) <= 600 + HOUR
    committed(driver.commit(short.digest, Delta(deadline=START + 301), START + 300))
    assert redis_server.command("TTL", key(driver, "d", short.digest)) <= HOUR + 1
    new = successor(driver, for_ever.digest)
    committed(driver.rotate(for_ever.digest, new, Delta(), 30, START))
    assert redis_server.command("TTL", key(driver, "d", for_ever.digest)) == -1
    for end in (for_ever.digest, b"never was" + bytes(23)):
        driver.revoke(end, START)
    driver.revoke_user("ada", START)
    left = redis_server.command("KEYS", driver._operations.keys.base + b"*")
    lasting = [each for each in left if redis_server.command("TTL", each) == -1]
    assert lasting == [driver._operations.keys.schema]
    ended = redis_server.command("TTL", key(driver, "d", new))
    assert TOMBSTONE + HOUR - 10 < ended <= TOMBSTONE + HOUR


def test_an_index_loses_what_has_ended(driver: RedisDriver, redis_server: RedisServer) -> None:
    index = driver._operations.keys.base + b"{u:ada}:u"
    for _ in range(200):
        record = started(driver, user="ada", idle=NEVER, absolute=NEVER)
        redis_server.command("DEL", key(driver, "d", record.digest), key(driver, "s", record.sid))  # as if expired
        assert redis_server.command("ZCARD", index) < 70
    for number in range(40):
        now = START + number * 10_000
        started(driver, now, user="bob", absolute=1000.0)
    assert redis_server.command("ZCARD", driver._operations.keys.base + b"{u:bob}:u") <= 2
    assert len(driver.sessions_of("bob", START + 390_000)) == 1
    assert driver.sessions_of("ada", START) == []
    assert redis_server.command("ZCARD", index) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        [("DEL",), ("SET", "text")],
        [("HSET", "h", "short")],
        [("HSET", "h", b"\xff" * 200)],
        [("HDEL", "h")],
        [("DEL",), ("HSET", "m", "x")],
    ],
)
def test_what_is_no_session_opens_nothing(
    driver: RedisDriver, redis_server: RedisServer, spoil: list[tuple[str | bytes, ...]]
) -> None:
    record = started(driver, user="ada", values={A: b"a"})
    for command, *words in spoil:
        redis_server.command(command, key(driver, "d", record.digest), *words)
    found = driver.load(record.digest, START)
    assert isinstance(found, Missing)
    assert not found.reason.is_tombstone
    assert isinstance(driver.commit(record.digest, puts({A: b"b"}), START), Gone)
    assert isinstance(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 0, START), Gone)
    assert driver.sessions_of("ada", START) == []
    assert driver.missing([record.sid], START) == {record.sid}
    assert driver.create(make_record(sid_=record.sid), START) == Conflict()
    assert not driver.revoke(record.digest, START)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)


def test_a_spoilt_value_is_left_out(driver: RedisDriver, redis_server: RedisServer) -> None:
    record = started(driver, values={A: b"a", ("", "kept"): b"k", ("", "n"): 1})
    name = key(driver, "d", record.digest)
    spoilt: dict[bytes, bytes] = {
        b"0:a": b"short",
        b"0:n": b"\1" * 8 + b"inumber",
        b"0:b": bytes(8) + b"b no version",
        b"0:\xff": b"\1" * 8 + b"b no name",
        b"x": b"y",
    }
    for field, text in spoilt.items():
        redis_server.command("HSET", name, field, text)
    assert set(loaded(driver, record.digest, START).values) == {("", "kept")}
    assert driver.commit(record.digest, puts({A: b"b"}, record.values[A].version), START) == Conflict((A,))
    done = committed(driver.commit(record.digest, Delta(puts={A: Put(b"new", 0)}, increments={("", "n"): 3}), START))
    assert done.counters == {("", "n"): 3}
    assert loaded(driver, record.digest, START).values[A].data == b"new"


def test_tear_down_leaves_the_keys_of_others(driver: RedisDriver, redis_server: RedisServer, namespace: str) -> None:
    others = [f"{namespace}x:d:1", f"x{namespace}:d:1", f"{namespace}"]
    for other in others:
        redis_server.command("SET", other, "1")
    for _ in range(30):
        started(driver, user="ada")
    driver.revoke_user("ada", START)
    assert driver.is_set_up()
    driver.tear_down()
    assert redis_server.command("KEYS", f"{namespace}:*") == []
    assert not driver.is_set_up()
    assert redis_server.command("DEL", *others) == len(others)


def test_another_schema_version_is_refused(redis_server: RedisServer, driver: RedisDriver, open_at: Open) -> None:
    redis_server.command("SET", driver._operations.keys.schema, "2")
    for operation in (driver.setup, driver.is_set_up, lambda: open_at(redis_server.url).load(b"?" * 32, START)):
        with pytest.raises(ConfigurationError, match="schema version"):
            operation()
    redis_server.command("SET", driver._operations.keys.schema, "1")
