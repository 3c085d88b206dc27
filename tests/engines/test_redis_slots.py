"""Redis Cluster: slots that move, servers that are down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from testservers import RedisCluster, RedisServer, wait_until

from coatcheck.drivers.redis import RedisDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Record, ValueKey
from coatcheck.testing.helpers import START, committed, loaded, started

A: ValueKey = ("", "a")


@pytest.fixture
def driver(redis_cluster: RedisCluster, open_at: Callable[..., RedisDriver]) -> Iterator[RedisDriver]:
    driver = open_at(redis_cluster.url)
    driver.setup()
    yield driver
    driver.tear_down()


def test_a_slot_that_moves_takes_its_sessions_along(driver: RedisDriver, redis_cluster: RedisCluster) -> None:
    """Before, during and after the move; nothing is done twice."""
    record = started(driver, user="ada", values={A: 0})
    key = driver._operations.keys.of_digest(record.digest)[0] + b"d:" + record.digest
    source = redis_cluster.primary_of(key)
    target = next(node for node in redis_cluster.primaries() if node is not source)
    slot = int(source.command("CLUSTER", "KEYSLOT", key))
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        done = committed(driver.commit(record.digest, Delta(increments={A: 1}), START))
        assert done.counters == {A: count}
        assert loaded(driver, record.digest, START).values[A].data == count

    ids = {node.port: node.command("CLUSTER", "MYID") for node in redis_cluster.nodes}
    try:
        counted()
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
        counted()  # all keys are still where they were
        moved(source, target, slot)
        counted()  # all are on the way: the old server passes the request on
        settle(redis_cluster, slot, ids[target.port])
        counted()
    finally:
        for node in redis_cluster.primaries():
            node.command("CLUSTER", "SETSLOT", slot, "STABLE")
    moved_back(redis_cluster, target, source, slot, ids)
    counted()


def moved(source: RedisServer, target: RedisServer, slot: int) -> None:
    """Move all keys of a slot."""
    for key in source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
        source.command("MIGRATE", target.host, target.port, key, 0, 5000)


def settle(cluster: RedisCluster, slot: int, owner: bytes) -> None:
    """Tell all primaries who has a slot."""
    for node in cluster.primaries():
        node.command("CLUSTER", "SETSLOT", slot, "NODE", owner)


def moved_back(
    cluster: RedisCluster, source: RedisServer, target: RedisServer, slot: int, ids: dict[int, bytes]
) -> None:
    """Put things as they were."""
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    moved(source, target, slot)
    settle(cluster, slot, ids[target.port])
    time.sleep(0.1)


def test_a_server_that_is_down_is_no_matter_to_the_sessions_of_another(
    driver: RedisDriver, redis_cluster: RedisCluster, open_at: Callable[..., RedisDriver]
) -> None:
    """Also for a program that begins in that moment."""
    by_server: dict[int, Record] = {}
    while len(by_server) < 2:
        record = started(driver)
        key = driver._operations.keys.of_digest(record.digest)[0] + b"d:" + record.digest
        by_server.setdefault(redis_cluster.primary_of(key).port, record)
    down, up = by_server
    server = next(node for node in redis_cluster.nodes if node.port == down)
    server.pause()  # nobody takes its place: the cluster is not alert
    try:
        other = open_at(redis_cluster.url, timeout=1)
        for _ in range(20):
            with suppress(DriverUnavailable):
                other.load(by_server[down].digest, START)
            with suppress(DriverUnavailable):  # whoever was asked first who has which slot may have been the one
                loaded(other, by_server[up].digest, START)
                break
            time.sleep(0.05)
        began = time.monotonic()
        for _ in range(8):
            loaded(other, by_server[up].digest, START)
        assert time.monotonic() - began < 8, "each waited for the server that is down"
    finally:
        server.resume()
    wait_until(redis_cluster.ready, "the cluster")
