"""Redis behind Sentinel: a primary that goes on answering while another takes its place is left at once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from testservers import RedisSentinel, RedisServer, wait_until
from testservers.engines import PATIENCE, with_options

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.redis.ears import Ears
from coatcheck.drivers.redis.requests import LEAVING, SUBSCRIBED, SWITCHED, Address, Message
from coatcheck.record import Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, started

N: ValueKey = ("", "n")
ONE = Delta(increments={N: 1})


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest, redis_sentinel: RedisSentinel, namespace: str) -> Iterator[Driver]:
    url = with_options(redis_sentinel.url, prefix=namespace, timeout=PATIENCE)
    driver = open_driver(url) if request.param == "sync" else Blocking(open_async_driver(url))
    driver.setup()
    try:
        yield driver
    finally:
        redis_sentinel.heal()
        driver.tear_down()
        driver.close()


@pytest.fixture
def count_on(namespace: str) -> Iterator[Callable[[RedisServer, bytes], int]]:
    """Says what a server has counted in a session."""
    opened: list[Driver] = []

    def count(server: RedisServer, digest: bytes) -> int:
        opened.append(open_driver(with_options(server.url, prefix=namespace)))
        return int(loaded(opened[-1], digest, START).values[N].data)

    yield count
    for driver in opened:
        driver.close()


def is_failing_over(group: RedisSentinel) -> bool:
    """Return whether one of the sentinels is about to make another server the primary."""

    def flags(sentinel: RedisServer) -> bytes:
        told: list[bytes] = sentinel.command("SENTINEL", "MASTER", group.service)
        return dict(zip(told[::2], told[1::2], strict=True))[b"flags"]

    return any(b"failover_in_progress" in flags(sentinel) for sentinel in group.sentinels)


def listening(driver: Driver, group: RedisSentinel, digest: bytes) -> None:
    """Wait until a driver listens to all sentinels."""

    def is_heard() -> bool:
        loaded(driver, digest, START)
        return all(b"sub=4" in sentinel.command("CLIENT", "LIST", "TYPE", "pubsub") for sentinel in group.sentinels)

    wait_until(is_heard, "the driver to listen")


def replicated(group: RedisSentinel, primary: RedisServer) -> None:
    """Wait until the replica has all that the primary has now."""
    replica = group.replica_of(primary)
    wanted = int(primary.info("replication")["master_repl_offset"])
    wait_until(
        lambda: int(replica.info("replication").get("slave_repl_offset", -1)) >= wanted, "the replica to catch up"
    )


def test_an_old_primary_that_answers_is_left_at_once(
    redis_sentinel: RedisSentinel, driver: Driver, count_on: Callable[[RedisServer, bytes], int]
) -> None:
    """After `SENTINEL FAILOVER` it takes writes for some ten seconds more, and they are lost."""
    record = started(driver, values={N: 0})
    listening(driver, redis_sentinel, record.digest)
    old = redis_sentinel.primary()
    redis_sentinel.sentinels[0].command("SENTINEL", "FAILOVER", redis_sentinel.service)
    redis_sentinel.failed_over(old)
    for number in range(1, 9):
        committed(driver.commit(record.digest, ONE, START))
        assert count_on(redis_sentinel.primary(), record.digest) == number


def test_nothing_is_written_to_a_primary_that_is_being_replaced(redis_sentinel: RedisSentinel, driver: Driver) -> None:
    """Also where it comes to nothing: then the writes that waited are done by the old one."""
    record = started(driver, values={N: 0})
    listening(driver, redis_sentinel, record.digest)
    replica = redis_sentinel.replica_of(redis_sentinel.primary())
    leader = redis_sentinel.sentinels[0]
    ears = Ears(is_encrypted=False, ca=None)
    ears.listen(Address(leader.host, leader.port), places(leader))
    hears(ears, Message(SUBSCRIBED, b""))
    replica.pause()  # it is chosen, and never says that it is the primary
    try:
        leader.command("SENTINEL", "FAILOVER", redis_sentinel.service)
        wait_until(lambda: any(message.kind == LEAVING for message in ears.heard()), "the failover to begin")
        with ThreadPoolExecutor(4) as threads:

            def write(_: int) -> bool:
                committed(driver.commit(record.digest, ONE, START))
                return is_failing_over(redis_sentinel)

            assert list(threads.map(write, range(4))) == [False] * 4
    finally:
        replica.resume()
        ears.close()
    assert loaded(driver, record.digest, START).values[N].data == 4


def test_writers_lose_nothing_when_a_failover_is_asked_for(
    redis_sentinel: RedisSentinel, driver: Driver, count_on: Callable[[RedisServer, bytes], int]
) -> None:
    """As far as the machine lets a write that is under way arrive within the tenth of a second that Sentinel leaves."""
    records = [started(driver, values={N: 0}) for _ in range(4)]
    listening(driver, redis_sentinel, records[0].digest)
    old = redis_sentinel.primary()
    replicated(redis_sentinel, old)
    is_over = False

    def count(number: int) -> int:
        counted = 0
        while not is_over:
            committed(driver.commit(records[number].digest, ONE, START))
            counted += 1
        return counted

    with ThreadPoolExecutor(4) as threads:
        counts = [threads.submit(count, number) for number in range(4)]
        redis_sentinel.sentinels[1].command("SENTINEL", "FAILOVER", redis_sentinel.service)
        redis_sentinel.failed_over(old)
        is_over = True
        acknowledged = [one.result() for one in counts]
    found = [count_on(redis_sentinel.primary(), record.digest) for record in records]
    lost = sum(one - other for one, other in zip(acknowledged, found, strict=True))
    assert lost * 20 <= sum(acknowledged), f"{lost} of {sum(acknowledged)} writes were lost"


# Ears


@pytest.fixture(params=["plain", "tls"])
def told(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, Ears]]:
    """A server that publishes as a sentinel does, and ears that listen to it."""
    server: RedisServer = request.getfixturevalue("redis_server" if request.param == "plain" else "redis_tls_server")
    ears = Ears(is_encrypted=request.param == "tls", ca=str(server.certificate) if request.param == "tls" else None)
    ears.listen(Address(server.host, server.port), places(server))
    yield server, ears
    ears.close()


def places(server: RedisServer) -> list[Any]:
    return socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)


def hears(ears: Ears, message: Message) -> None:
    wait_until(lambda: message in ears.heard(), f"{message}")


def test_ears_hear_what_is_published(told: tuple[RedisServer, Ears]) -> None:
    server, ears = told
    hears(ears, Message(SUBSCRIBED, b""))
    assert ears.heard() == ()
    assert server.command("PUBLISH", SWITCHED, "shop 10.0.0.1 1 10.0.0.2 2") == 1
    hears(ears, Message(SWITCHED, b"shop 10.0.0.1 1 10.0.0.2 2"))


def test_ears_that_lost_their_sentinel_listen_again(told: tuple[RedisServer, Ears]) -> None:
    """And say so, since something may have happened meanwhile."""
    server, ears = told
    for _ in range(2):
        hears(ears, Message(SUBSCRIBED, b""))
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
    hears(ears, Message(SUBSCRIBED, b""))
    assert ears.listens_to(Address(server.host, server.port))


def test_ears_do_not_wait_for_a_sentinel_that_is_not_there(redis_server: RedisServer) -> None:
    ears = Ears(is_encrypted=False, ca=None)
    nobody = Address("127.0.0.1", 1)
    ears.listen(nobody, socket.getaddrinfo("127.0.0.1", 1, type=socket.SOCK_STREAM))
    ears.listen(Address(redis_server.host, redis_server.port), places(redis_server))
    hears(ears, Message(SUBSCRIBED, b""))
    assert not ears.listens_to(nobody)
    ears.close()
