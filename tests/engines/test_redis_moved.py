"""Redis: an address that comes to lead to another server, connections whose peer vanished, connections that are old."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Barrier
from typing import Final

import pytest
from redis.exceptions import ResponseError
from testservers import FaultProxy, RedisServer, free_port, wait_until
from testservers.engines import PATIENCE, with_options
from testservers.fixtures import need

from coatcheck.drivers import _lifetimes, open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.redis import lines
from coatcheck.drivers.redis.trouble import steps_back, was_begun
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Missing, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started

A: ValueKey = ("", "a")
N: ValueKey = ("", "n")

AT_ONCE: Final = ("--repl-diskless-sync-delay", "0")

Open = Callable[..., Driver]
WAYS = {"sync": open_driver, "async": lambda url: Blocking(open_async_driver(url))}


@pytest.fixture(params=WAYS)
def open_by(request: pytest.FixtureRequest, namespace: str) -> Iterator[Open]:
    """Opens drivers on an address, sync or async, in one namespace."""
    opened: list[Driver] = []

    def open_one(url: str, **options: object) -> Driver:
        url = with_options(url, **{"prefix": namespace, "timeout": PATIENCE, **options})
        opened.append(WAYS[request.param](url))
        return opened[-1]

    yield open_one
    for driver in opened:
        driver.close()


@pytest.fixture(scope="module")
def pair(server_folder: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    need(RedisServer)
    with ExitStack() as stack:
        one, other = (stack.enter_context(RedisServer(server_folder / f"moved-{n}", extra=AT_ONCE)) for n in range(2))
        yield one, other


@contextmanager
def replicating(pair: tuple[RedisServer, RedisServer]) -> Iterator[tuple[RedisServer, RedisServer]]:
    primary, replica = pair
    primary.command("REPLICAOF", "NO", "ONE")
    follow(replica, primary)
    try:
        yield pair
    finally:
        for server in pair:
            server.resume()
            server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
            server.command("REPLICAOF", "NO", "ONE")


def follow(replica: RedisServer, primary: RedisServer) -> None:
    replica.command("REPLICAOF", primary.host, primary.port)
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica")
    wait_until(lambda: "state=online" in primary.info("replication")["slave0"], "the replica's first word")


def caught_up(replica: RedisServer, primary: RedisServer) -> None:
    def is_equal() -> bool:
        told = replica.info("replication")["slave_repl_offset"], primary.info("replication")["master_repl_offset"]
        return told[0] == told[1]

    wait_until(is_equal, "the copy")


def in_parallel(driver: Driver, digest: bytes, connections: int) -> None:
    """Have a driver open so many connections, which are idle then."""
    together = Barrier(connections)

    def look() -> None:
        together.wait()
        loaded(driver, digest, START)

    with ThreadPoolExecutor(connections) as threads:
        for one in [threads.submit(look) for _ in range(connections)]:
            one.result()


def failures(acts: int, act: Callable[[], object]) -> int:
    """Return how many of so many tries failed."""
    failed = 0
    for _ in range(acts):
        try:
            act()
        except DriverUnavailable:
            failed += 1
    return failed


@pytest.mark.parametrize("first", ["write", "read", "crowd"])
def test_an_address_that_moves(pair: tuple[RedisServer, RedisServer], open_by: Open, first: str) -> None:
    """The old primary becomes a replica and keeps its connections: one request fails, then all go to the new."""
    with replicating(pair) as (old, new), FaultProxy(old.port) as proxy:
        driver = open_by(f"redis://{proxy.address}")
        record = started(driver, values={A: b"a", N: 0})
        in_parallel(driver, record.digest, 8)
        caught_up(new, old)
        new.command("REPLICAOF", "NO", "ONE")
        proxy.lead_to(new.port)
        follow(old, new)

        def write() -> None:
            committed(driver.commit(record.digest, Delta(increments={N: 1}), START))

        if first == "read":
            seen_from_new(driver, record.digest, old, new)
        failed = failures(12, write)
        assert failed <= 1
        assert loaded(driver, record.digest, START).values[N].data == 12 - failed
        assert int(new.info("clients")["connected_clients"]) > 0


def seen_from_new(driver: Driver, digest: bytes, old: RedisServer, new: RedisServer) -> None:
    """Wait until reads go to the new server, though nothing was written yet."""

    def reads(server: RedisServer) -> int:
        found = server.info("commandstats").get("cmdstat_hgetall", "calls=0,")
        return int(found.partition("=")[2].partition(",")[0])

    def looked_at_new() -> bool:
        before = reads(old), reads(new)
        with suppress(DriverUnavailable):
            loaded(driver, digest, START)
        return (reads(old), reads(new)) == (before[0], before[1] + 1)

    wait_until(looked_at_new, "a read from the new primary")
    for _ in range(8):
        assert looked_at_new()


def test_a_replica_is_not_read_from(pair: tuple[RedisServer, RedisServer], open_by: Open) -> None:
    with replicating(pair) as (primary, replica):
        record = started(open_by(primary.url))
        driver = open_by(replica.url)
        for _ in range(3):
            with pytest.raises(DriverUnavailable, match="use the primary in the URL") as caught:
                driver.load(record.digest, START)
            assert not caught.value.outcome_unknown


def test_a_replica_that_takes_writes_is_not_written_to(pair: tuple[RedisServer, RedisServer], open_by: Open) -> None:
    """What it acknowledged would be lost."""
    with replicating(pair) as (primary, replica):
        record = started(open_by(primary.url))
        replica.command("CONFIG", "SET", "replica-read-only", "no")
        try:
            with pytest.raises(DriverUnavailable, match="use the primary in the URL"):
                open_by(replica.url).commit(record.digest, puts({A: b"b"}), START)
        finally:
            replica.command("CONFIG", "SET", "replica-read-only", "yes")


def test_a_replica_that_lost_its_primary(pair: tuple[RedisServer, RedisServer], open_by: Open) -> None:
    """It answers MASTERDOWN to all commands; the address leads to the new primary by now."""
    with replicating(pair) as (old, new), FaultProxy(old.port) as proxy:
        driver = open_by(f"redis://{proxy.address}")
        record = started(driver, values={N: 0})
        in_parallel(driver, record.digest, 4)
        caught_up(new, old)
        new.command("REPLICAOF", "NO", "ONE")
        proxy.lead_to(new.port)
        old.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        old.command("REPLICAOF", old.host, 1)
        assert failures(4, lambda: loaded(driver, record.digest, START)) <= 1
        assert failures(4, lambda: committed(driver.commit(record.digest, Delta(increments={N: 1}), START))) <= 1


def test_a_primary_without_replicas_is_left(pair: tuple[RedisServer, RedisServer], open_by: Open) -> None:
    """With `min-replicas-to-write` an old primary says NOREPLICAS, not that it is none."""
    with replicating(pair) as (old, new), FaultProxy(old.port) as proxy:
        driver = open_by(f"redis://{proxy.address}")
        record = started(driver, values={N: 0})
        in_parallel(driver, record.digest, 4)
        caught_up(new, old)
        new.command("REPLICAOF", "NO", "ONE")
        proxy.lead_to(new.port)
        old.command("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            wait_until(lambda: old.info("replication")["connected_slaves"] == "0", "the old primary to be alone")
            assert failures(6, lambda: committed(driver.commit(record.digest, Delta(increments={N: 1}), START))) <= 1
        finally:
            old.command("CONFIG", "SET", "min-replicas-to-write", 0)


def test_copies_that_fall_short_are_a_reason_to_look_anew(pair: tuple[RedisServer, RedisServer], open_by: Open) -> None:
    """An old primary that nobody told waits in vain for its replica, which is the new primary."""
    with replicating(pair) as (old, new), FaultProxy(old.port) as proxy:
        driver = open_by(f"redis://{proxy.address}", durable="replicas:1", timeout=1)
        record = started(driver, values={N: 0})
        in_parallel(driver, record.digest, 4)
        caught_up(new, old)
        new.command("REPLICAOF", "NO", "ONE")
        proxy.lead_to(new.port)
        with RedisServer(new.folder.with_name(f"moved-{free_port()}"), extra=AT_ONCE) as third:
            follow(third, new)
            assert failures(6, lambda: committed(driver.commit(record.digest, Delta(increments={N: 1}), START))) <= 1


# Peers that vanished


@pytest.mark.parametrize("engine", ["redis", "memcached"])
def test_idle_connections_whose_peer_vanished_cost_one_request(
    request: pytest.FixtureRequest, open_by: Open, engine: str
) -> None:
    server = request.getfixturevalue(f"{engine}_server")
    with FaultProxy(server.port) as proxy:
        driver = open_by(f"{engine}://{proxy.address}", timeout=2)
        record = make_record(values={N: 0})
        committed(driver.create(record, START))
        in_parallel(driver, record.digest, 8)
        proxy.vanish()
        waited = done = 0

        def is_done() -> bool:
            """Try once; return whether so many writes were done as there were idle connections."""
            nonlocal waited, done
            try:
                committed(driver.commit(record.digest, Delta(increments={N: 1}), START))
            except DriverUnavailable as error:
                waited += "did not answer" in error.why and "a moment ago" not in error.why
            else:
                done += 1
            return done == 8

        wait_until(is_done, "the writes")
        assert 1 <= waited <= 3, "each idle connection was waited for"
        assert loaded(driver, record.digest, START).values[N].data == 8


@pytest.mark.parametrize("engine", ["redis", "memcached"])
@pytest.mark.parametrize("limit", ["LONGEST_IDLE", "LONGEST_LIFE"])
def test_an_old_connection_is_not_used_again(
    request: pytest.FixtureRequest, open_by: Open, monkeypatch: pytest.MonkeyPatch, engine: str, limit: str
) -> None:
    server = request.getfixturevalue(f"{engine}_server")
    with FaultProxy(server.port) as proxy:
        driver = open_by(f"{engine}://{proxy.address}")
        record = make_record(values={A: b"a"})
        committed(driver.create(record, START))
        loaded(driver, record.digest, START)
        proxy.counted()
        loaded(driver, record.digest, START)
        assert proxy.counted().connections == 0
        monkeypatch.setattr(_lifetimes, limit, 0.0)
        assert isinstance(driver.load(b"?" * 32, START), Missing)
        assert proxy.counted().connections == 1


@pytest.mark.parametrize("engine", ["redis", "memcached"])
def test_the_system_watches_over_connections(
    request: pytest.FixtureRequest, open_by: Open, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """With TCP keepalive, a peer that vanished is noticed though nobody sends anything."""
    watched: set[int] = set()
    plain = socket.socket.setsockopt

    def noted(self: socket.socket, level: int, option: int, value: int) -> None:
        plain(self, level, option, value)
        if level == socket.IPPROTO_TCP and option in _lifetimes.KEEPALIVE:
            watched.add(option)

    monkeypatch.setattr(socket.socket, "setsockopt", noted)
    server = request.getfixturevalue(f"{engine}_server")
    open_by(server.url).load(b"?" * 32, START)
    assert watched == set(_lifetimes.KEEPALIVE)


# What servers say


@pytest.mark.parametrize(
    "said",
    [
        "READONLY You can't write against a read only replica. script: 1f, on @user_script:12.",
        "ERR Error running script (call to f_1f): @user_script:12: @user_script: 12: -READONLY You can't write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOREPLICAS Not enough good replicas to write.",
        "LOADING Redis is loading the dataset in memory",
        "CLUSTERDOWN The cluster is down",
    ],
)
def test_what_says_that_another_server_has_to_be_asked(said: str) -> None:
    assert steps_back(ResponseError(said))
    assert not was_begun(ResponseError(said))


@pytest.mark.parametrize("said", ["ERR syntax error", "OOM command not allowed", "BUSY Redis is busy running a script"])
def test_what_says_nothing_of_that(said: str) -> None:
    assert not steps_back(ResponseError(said))


def test_a_reply_without_a_role_is_taken_for_a_primary() -> None:
    assert lines.is_primary(ResponseError("ERR unknown command 'HELLO'"))
    assert lines.is_primary([b"server", b"redis"])
    assert lines.is_primary([b"role", b"master"])
    assert not lines.is_primary([b"role", b"slave"])
    assert not lines.is_primary([b"server", b"redis", b"role", b"replica"])
