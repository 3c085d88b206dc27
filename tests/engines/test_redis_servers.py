"""Redis: the server's settings, connections and their limits, copies on replicas."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from testservers import Fault, FaultProxy, RedisSentinel, RedisServer

from coatcheck.drivers.base import Capability
from coatcheck.drivers.redis import RedisDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import (
    Delta,
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


# The server's settings


def test_a_server_that_evicts_is_told_of(server_folder: Path, namespace: str, open_at: Open) -> None:
    options = ("--maxmemory", "50mb", "--maxmemory-policy", "volatile-lru")
    with RedisServer(server_folder / namespace, extra=options) as server:
        driver = open_at(server.url)
        assert driver.at_risk is None
        driver.load(b"?" * 32, START)
        assert driver.at_risk is not None
        assert "volatile-lru" in driver.at_risk
        advice = driver.advice()
        assert any("set maxmemory-policy noeviction" in sentence for sentence in advice)
        assert any("set appendonly yes" in sentence for sentence in advice)
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert [sentence for sentence in driver.advice() if "appendonly" not in sentence] == []
        again = open_at(server.url)
        again.load(b"?" * 32, START)
        assert again.at_risk is None
        assert any("waits for 1" in sentence for sentence in open_at(server.url, durable="replicas:1").advice())


def test_a_full_server_refuses_and_that_is_told(server_folder: Path, namespace: str, open_at: Open) -> None:
    with RedisServer(server_folder / namespace, extra=("--maxmemory", "20mb")) as server:
        driver = open_at(server.url)
        record = started(driver, values={A: b"a"})
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(DriverUnavailable, match="memory is full") as caught:
            driver.commit(record.digest, puts({A: b"b" * 1000}), START)
        assert not caught.value.outcome_unknown
        assert loaded(driver, record.digest, START).values[A].data == b"a"


def test_a_user_with_few_rights(redis_server: RedisServer, driver: RedisDriver, open_at: Open, namespace: str) -> None:
    commands = (
        "evalsha script|load hgetall get set setnx hmget hget hset hdel hkeys rename unlink exists persist pexpire pttl"
        " zadd zrem zrange zcard zremrangebyscore scan"
    )
    rules = [f"+{name}" for name in commands.split()]
    redis_server.command("ACL", "SETUSER", namespace, "on", ">open:sesame", f"~{namespace}:*", "-@all", *rules)
    url = redis_server.url.replace("redis://", f"redis://{namespace}:open%3Asesame@")
    other = open_at(url)
    other.setup()
    record = started(other, user="ada", values={A: b"a"})
    new = successor(other, record.digest)
    committed(other.rotate(record.digest, new, puts({A: b"b"}), 30, START))
    committed(other.commit(new, Delta(clear_all=True, touch=START + 1), START))
    loaded(other, record.digest, START)
    assert other.at_risk is None
    assert any("+info" in sentence for sentence in other.advice())
    assert len(other.sessions_of("ada", START)) == 1
    assert other.revoke_user("ada", START) == 1
    with pytest.raises(DriverUnavailable, match="user name and password") as caught:
        open_at(redis_server.url.replace("redis://", f"redis://{namespace}:closed@")).load(new, START)
    assert "closed" not in str(caught.value)
    assert not caught.value.outcome_unknown
    redis_server.command("ACL", "DELUSER", namespace)


def test_an_error_repeats_nothing_of_the_command(server_folder: Path, namespace: str, open_at: Open) -> None:
    with RedisServer(server_folder / namespace, extra=("--rename-command", "EVALSHA", "")) as server:
        record = make_record(values={A: b"treasure"})
        with pytest.raises(DriverUnavailable, match="unknown command") as caught:
            open_at(server.url).create(record, START)
        assert not caught.value.outcome_unknown
        said = "".join(traceback.format_exception(caught.value))
        assert "with args beginning" not in said
        assert repr(record.digest)[2:10] not in said
        assert "treasure" not in said


def test_tls_wants_the_right_authority(redis_tls_server: RedisServer, open_at: Open) -> None:
    driver = open_at(redis_tls_server.url, ca=redis_tls_server.certificate)
    record = started(driver)
    for _ in range(3):
        loaded(driver, record.digest, START)
    driver.tear_down()
    with pytest.raises(DriverUnavailable, match="certificate verify failed") as caught:
        open_at(redis_tls_server.url).load(record.digest, START)
    assert not caught.value.outcome_unknown


# Connections


def test_a_pool_has_a_limit_and_so_has_the_wait_for_it(proxy: FaultProxy, open_at: Open) -> None:
    driver = open_at(f"redis://{proxy.address}", max_connections=1, timeout=2)
    record = started(driver)
    proxy.inject(Fault.DELAY, seconds=0.02)
    proxy.counted()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: loaded(driver, record.digest, START), range(12)))
    assert len(found) == 12
    assert proxy.counted().connections == 0
    proxy.inject(Fault.BLACK_HOLE)
    began = time.monotonic()
    errors: list[DriverUnavailable] = []

    def count() -> None:
        try:
            driver.commit(record.digest, Delta(increments={A: 1}), START)
        except DriverUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 5  # and not three times the limit
    assert sorted(error.outcome_unknown for error in errors) == [False, False, True]
    proxy.heal()


def test_a_replica_takes_no_writes(redis_sentinel: RedisSentinel, open_at: Open) -> None:
    replica = redis_sentinel.replica_of(redis_sentinel.primary())
    with pytest.raises(DriverUnavailable, match="use the primary in the URL") as caught:
        open_at(replica.url).create(make_record(), START)
    assert not caught.value.outcome_unknown


def test_a_service_that_sentinel_does_not_know(redis_sentinel: RedisSentinel, open_at: Open) -> None:
    with pytest.raises(DriverUnavailable, match="no such service"):
        open_at(redis_sentinel.url + "x").load(b"?" * 32, START)


# Copies on replicas


def test_a_write_waits_for_its_copy(redis_sentinel: RedisSentinel, open_at: Open) -> None:
    driver = open_at(redis_sentinel.url, durable="replicas:1", timeout=2)
    assert Capability.SURVIVES_FAILOVER in driver.capabilities
    assert Capability.SURVIVES_FAILOVER not in RedisDriver.capabilities
    for script in vars(driver._operations.scripts).values():
        redis_sentinel.primary().command("SCRIPT", "LOAD", script.text)
    record = started(driver, user="ada", values={A: b"a"})
    replica = redis_sentinel.replica_of(redis_sentinel.primary())
    assert replica.command("EXISTS", key(driver, "d", record.digest)) == 1
    replica.pause()
    try:
        writes: list[Callable[[], object]] = [
            lambda: driver.commit(record.digest, puts({A: b"b"}), START),
            lambda: driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START),
            lambda: driver.create(make_record(), START),
            lambda: driver.revoke(b"?" * 32, START),
            lambda: driver.revoke_user("eve", START),
        ]
        for write in writes:
            began = time.monotonic()
            with pytest.raises(DriverUnavailable, match="replicas") as caught:
                write()
            assert caught.value.outcome_unknown
            assert 1.2 < time.monotonic() - began < 8
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            assert loaded(driver, record.digest, START).values[A].data == b"b"
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 1.2, "a read waits for no copy"
    finally:
        redis_sentinel.heal()
    driver.tear_down()


def test_more_replicas_than_there_are(redis_server: RedisServer, open_at: Open) -> None:
    driver = open_at(redis_server.url, durable="replicas:1", timeout=0.2)
    with pytest.raises(DriverUnavailable) as caught:
        driver.create(make_record(), START)
    assert caught.value.outcome_unknown
