"""Rule 11: what a driver makes of a network that fails in the middle of something, through a proxy that breaks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from engines.line import AT_ONCE, MARGIN, Attempt, Line, attempt, with_a_fair_limit
from testservers import Fault, FaultProxies, FaultProxy, RedisCluster, free_port, wait_until
from testservers.engines import ROWS, Engine, params
from testservers.fixtures import need

from coatcheck.drivers.base import Driver
from coatcheck.record import Delta, Missing, Record, ValueKey
from coatcheck.testing.helpers import START, committed, loaded, puts

A: Final[ValueKey] = ("", "a")
N: Final[ValueKey] = ("", "n")

CLUSTER: Final = [replace(ROWS[name], server="proxied_cluster") for name in ("redis-cluster", "redis-cluster-async")]

pytestmark = pytest.mark.parametrize(
    "engine",
    [
        *params("redis", "redis-tls", "postgresql", "pgbouncer", "mariadb", "memcached"),
        *(pytest.param(row, id=row.name, marks=pytest.mark.server) for row in CLUSTER),
    ],
    indirect=True,
)


class ProxiedCluster(RedisCluster):
    """A cluster of three primaries, each of which clients know by the address of a proxy."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        super().__init__(folder, announced=ports)
        self.proxies = [FaultProxy(node.port, listen=port) for node, port in zip(self.nodes, ports, strict=True)]


@pytest.fixture(scope="session")
def proxied_cluster(server_folder: Path) -> Iterator[ProxiedCluster]:
    need(RedisCluster)
    cluster = ProxiedCluster(server_folder / "proxied-cluster")
    with ExitStack() as stack:
        for proxy in cluster.proxies:
            stack.enter_context(proxy)
        yield stack.enter_context(cluster)


@pytest.fixture
def line(engine: Engine) -> Iterator[Line]:
    server = engine.server
    with ExitStack() as stack:
        if isinstance(server, ProxiedCluster):
            proxies, url = server.proxies, engine.url
        else:
            proxies = [stack.enter_context(FaultProxy(server.port))]
            url = engine.url.replace(server.address, proxies[0].address)
            assert url != engine.url
        proxy = FaultProxies(proxies)
        try:
            yield Line(engine, proxy, url)
        finally:
            proxy.heal()
            engine.close()


@dataclass(frozen=True)
class Operation:
    """An operation under test.

    Attributes:
        act: Do it. What answers anything but success fails the test: that is how one that was sent twice shows.
        done: How often it was done, as storage has it; None where it only reads.
        stored: Whether it needs a session that is there.
    """

    act: Callable[[Driver, Record], object]
    done: Callable[[Driver, Record], int] | None
    stored: bool = True


def _successor(record: Record) -> bytes:
    """A digest with all the leading bits that a driver may ask for, the same one each time."""
    return record.digest[:16] + bytes(16)


def _based(record: Record) -> Delta:
    return puts({A: b"b"}, record.values[A].version)


OPERATIONS: Final = {
    "load": Operation(lambda driver, record: loaded(driver, record.digest, START).values[A], None),
    "create": Operation(
        lambda driver, record: committed(driver.create(record, START)),
        lambda driver, record: isinstance(driver.load(record.digest, START), Record),
        stored=False,
    ),
    "increment": Operation(
        lambda driver, record: committed(driver.commit(record.digest, Delta(increments={N: 1}), START)),
        lambda driver, record: int(loaded(driver, record.digest, START).values[N].data),
    ),
    "put": Operation(
        lambda driver, record: committed(driver.commit(record.digest, _based(record), START)),
        lambda driver, record: loaded(driver, record.digest, START).values[A].data == b"b",
    ),
    "rotate": Operation(
        lambda driver, record: committed(driver.rotate(record.digest, _successor(record), Delta(), 0, START)),
        lambda driver, record: isinstance(driver.load(_successor(record), START), Record),
    ),
    "revoke": Operation(
        lambda driver, record: driver.revoke(record.digest, START) or pytest.fail("nothing was there to revoke"),
        lambda driver, record: isinstance(driver.load(record.digest, START), Missing),
    ),
}


def prepared(line: Line, operation: Operation) -> Record:
    """Give a session for an operation, which is stored unless the operation is to do that."""
    values: dict[ValueKey, bytes | int] = {A: b"a", N: 0}
    return line.started(values) if operation.stored else line.record(values)


def judged(line: Line, operation: Operation, record: Record, tried: Attempt) -> int:
    """Check what an operation said against what storage has; give how often it was done."""
    if tried.error is not None:
        assert tried.error.__cause__ is not None
    if operation.done is None:
        assert tried.error is None or not tried.error.outcome_unknown, "a read has no unknown outcome"
        return 0
    done = int(operation.done(line.beside, record))
    if tried.error is None:
        assert done == 1, "acknowledged and not done once"
    elif not tried.error.outcome_unknown:
        assert done == 0, "done, and the error says that it was not"
    else:
        assert done in {0, 1}, "done twice"
    return done


# One request


def round_trips(line: Line, operation: Operation) -> int:
    """Give how many requests an operation takes on a connection that is there, when it is not the first of its kind."""
    for _ in range(2):
        record = prepared(line, operation)
        line.proxy.counted()
        operation.act(line.driver, record)
        turns = line.proxy.counted().round_trips
    assert turns >= 1
    return turns


@with_a_fair_limit
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.HALF_REPLY], ids=lambda fault: fault.name)
def test_rule_11_a_connection_that_breaks(line: Line, fault: Fault) -> None:
    """At every round trip of every operation: it is told how it went, nothing is done twice, and the pool is clean."""
    for name, operation in OPERATIONS.items():
        turns = round_trips(line, operation)
        done = 0
        for turn in range(1, turns + 1):
            record = prepared(line, operation)
            line.proxy.inject(fault, turn=turn)
            tried = attempt(lambda: operation.act(line.driver, record))  # noqa: B023 (called at once)
            line.met(name)
            line.proxy.heal()
            line.within(tried.seconds, 1, name)
            if operation.done is not None and fault is not Fault.CUT_BEFORE and turn == turns:
                assert tried.error is not None, name
            done = judged(line, operation, record, tried)
            line.warm()
        if operation.done is not None and fault is Fault.CUT_AFTER:
            assert done == 1, f"{name}: the reply that was lost was not the last one"


@with_a_fair_limit
def test_rule_11_a_reply_that_never_comes(line: Line) -> None:
    """The limit ends the wait; an increment is counted once, and the connection is not used again."""
    for name in ("load", "increment"):
        operation = OPERATIONS[name]
        turns = round_trips(line, operation)
        record = prepared(line, operation)
        line.proxy.inject(Fault.NO_REPLY, turn=turns)
        tried = attempt(lambda: operation.act(line.driver, record))  # noqa: B023 (called at once)
        line.proxy.heal()
        line.within(tried.seconds, 1 + MARGIN)
        assert tried.error is not None or operation.done is None
        assert judged(line, operation, record, tried) == (operation.done is not None)
        line.warm()


@with_a_fair_limit
def test_rule_11_a_reply_that_comes_too_late(line: Line) -> None:
    """What arrives after the limit is nobody's answer: later operations see their own data."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.DELAY, seconds=line.limit + 0.2)
    tried = attempt(lambda: operation.act(line.driver, record))
    line.proxy.heal()
    assert tried.error is not None
    assert line.limit * 0.9 < tried.seconds
    line.within(tried.seconds, 1 + MARGIN)
    line.warm()
    time.sleep(0.3)
    for _ in range(3):
        line.warm()
        assert loaded(line.driver, record.digest, START).values[A].data == b"a"
    judged(line, operation, record, tried)


@with_a_fair_limit
def test_rule_11_a_reply_in_drops(line: Line) -> None:
    """The limit is for the whole operation, a connection that it opens included, and not for each piece that comes."""
    for driver in (line.driver, line.open()):
        line.proxy.inject(Fault.DRIP, seconds=0.9 * line.limit, drop=1)
        tried = attempt(lambda: driver.load(line.session.digest, START))  # noqa: B023 (called at once)
        line.proxy.heal()
        assert tried.error is not None
        line.within(tried.seconds, 1 + MARGIN)


@with_a_fair_limit
def test_rule_11_a_slow_network_within_the_limit(line: Line) -> None:
    """Slow is not down."""
    line.proxy.inject(Fault.DELAY, seconds=0.02)
    for operation in OPERATIONS.values():
        record = prepared(line, operation)
        operation.act(line.driver, record)
        judged(line, operation, record, Attempt(None, 0.0))


# The server is away


@with_a_fair_limit
def test_rule_11_a_black_hole(line: Line) -> None:
    """An open connection that nothing comes through any more: the limit, then failure at once, then recovery."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.BLACK_HOLE)
    tried = attempt(lambda: operation.act(line.driver, record))
    line.within(tried.seconds, 1 + MARGIN)
    assert tried.error is not None
    fails_at_once(line)
    line.proxy.heal()
    line.warm()
    judged(line, operation, record, tried)


@with_a_fair_limit
def test_rule_11_a_black_hole_from_the_beginning(line: Line) -> None:
    """A server that accepts a connection and says nothing."""
    driver = line.open()
    line.proxy.inject(Fault.BLACK_HOLE)
    tried = attempt(lambda: driver.load(line.session.digest, START))
    assert tried.error is not None
    assert tried.error.__cause__ is not None
    assert not tried.error.outcome_unknown
    line.within(tried.seconds, 1 + MARGIN)
    line.proxy.heal()
    line.warm(driver)


@with_a_fair_limit
def test_rule_11_a_server_that_is_away(line: Line) -> None:
    """It is told at once; what was not sent has no unknown outcome; and things recover by themselves."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.REFUSE)
    tried = attempt(lambda: operation.act(line.driver, record))
    assert tried.error is not None
    line.within(tried.seconds, 1)
    for driver in (line.driver, line.open()):
        again = attempt(lambda: operation.act(driver, record))  # noqa: B023 (called at once)
        assert again.error is not None
        assert not again.error.outcome_unknown, "nothing was sent"
        line.within(again.seconds, 1)
    fails_at_once(line)
    line.proxy.heal()
    line.warm()
    judged(line, operation, record, tried)


def fails_at_once(line: Line) -> None:
    """While the server is known to be down nobody waits; only one at a time may look whether it is back."""
    operation = OPERATIONS["increment"]
    seconds: list[float] = []
    for _ in range(20):
        tried = attempt(lambda: operation.act(line.driver, line.session))
        assert tried.error is not None
        seconds.append(tried.seconds)
        if tried.seconds < AT_ONCE * line.limit:
            assert not tried.error.outcome_unknown, "nothing was sent"
    line.within(sorted(seconds)[16], AT_ONCE, "what fails at once")
    line.within(max(seconds), 1 + MARGIN)


@with_a_fair_limit
def test_rule_11_connections_that_broke_while_nobody_used_them(line: Line) -> None:
    """As after a restart of the server: a read does not notice, and no write is done twice."""
    for name in ("load", "increment"):
        operation = OPERATIONS[name]
        record = prepared(line, operation)
        line.warm()
        line.proxy.cut()
        time.sleep(0.05)
        tried = attempt(lambda: operation.act(line.driver, record))  # noqa: B023 (called at once)
        assert operation.done is not None or tried.error is None
        judged(line, operation, record, tried)
        line.warm()


# Many at once


# Python leaves a socket to the garbage collector whose peer resets it a moment before the handshake of TLS.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@with_a_fair_limit
def test_rule_11_no_acknowledged_write_is_lost_in_a_storm(line: Line) -> None:
    """Threads count and write while the connections break in all ways: what was acknowledged is there, once."""
    counter = line.started({N: 0})
    turns = round_trips(line, OPERATIONS["increment"])
    over = threading.Event()
    acknowledged, unknown, failed = [0] * 4, [0] * 4, [0] * 4

    def count(number: int) -> None:
        key: ValueKey = ("", f"thread{number}")
        while not over.is_set():
            written = b"%d" % (acknowledged[number] + unknown[number])
            delta = Delta(increments={N: 1}, puts=puts({key: written}).puts)
            tried = attempt(lambda: committed(line.driver.commit(counter.digest, delta, START)))  # noqa: B023
            if tried.error is None:
                acknowledged[number] += 1
            else:
                unknown[number] += tried.error.outcome_unknown
                failed[number] += 1
                time.sleep(0.005)

    def wait_for_more(tally: list[int], by: int, what: str, or_if: Callable[[], object] = bool) -> None:
        before = sum(tally)
        wait_until(lambda: or_if() or any(one.done() for one in counts) or sum(tally) >= before + by, what)

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(count, number) for number in range(4)]
        try:
            for fault in [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.HALF_REPLY, Fault.REFUSE] * 2:
                wait_for_more(acknowledged, 20, "writes")
                line.proxy.inject(fault, turn=turns)
                wait_for_more(failed, 1, "a write that the fault meets", or_if=lambda: line.proxy.fired)
                line.proxy.heal()
                line.warm()
        finally:
            over.set()
        for one in counts:
            one.result()
    found = int(loaded(line.beside, counter.digest, START).values[N].data)
    assert sum(failed) > 0, "no fault met a write"
    assert sum(acknowledged) <= found <= sum(acknowledged) + sum(unknown)
