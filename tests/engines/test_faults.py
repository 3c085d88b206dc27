"""Rule 11: what a driver makes of a network that fails in the middle of something, through a proxy that breaks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from testservers import Fault, FaultProxies, FaultProxy, RedisCluster, free_port
from testservers.engines import ROWS, Engine, params
from testservers.fixtures import need

from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Missing, Name, Record
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts

LIMIT: Final = 0.5
"""The limit of connect, read and write in the URL, in seconds."""

MARGIN: Final = 0.4
"""What an operation may take beyond its limit on a busy machine."""

AT_ONCE: Final = 0.1
RECOVERY: Final = 2.0

A: Final[Name] = ("", "a")
N: Final[Name] = ("", "n")

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


@dataclass
class Line:
    """An engine that is reached through a proxy.

    Attributes:
        engine: The engine.
        proxy: The proxy.
        url: The engine's URL through it.
        driver: A driver through the proxy, which has been used.
        beside: Another driver, which looks and prepares.
    """

    engine: Engine
    proxy: FaultProxies
    url: str
    driver: Driver = field(init=False)
    beside: Driver = field(init=False)

    def __post_init__(self) -> None:
        self.beside = self.engine.open()
        self.beside.setup()
        self.driver = self.open()
        self.session = self.started({A: b"here"})
        self.warm()

    def open(self) -> Driver:
        """Give another driver through the proxy."""
        return self.engine.open(self.url, timeout=LIMIT)

    def record(self, values: dict[Name, bytes | int]) -> Record:
        """Make a record; all of them are on the same server of a cluster."""
        return make_record(digest_=bytes(2) + digest()[2:], values=values)

    def started(self, values: dict[Name, bytes | int]) -> Record:
        """Store a new session."""
        record = self.record(values)
        committed(self.beside.create(record, START))
        return loaded(self.beside, record.digest, START)

    def warm(self, driver: Driver | None = None) -> float:
        """Wait until a driver has a connection and finds a session with the right values; give the seconds it took."""
        began = time.monotonic()
        for one in (driver or self.driver, self.beside):  # that one is behind the proxies of a cluster too
            while True:
                try:
                    assert loaded(one, self.session.digest, START).values[A].data == b"here"
                    break
                except DriverUnavailable:
                    if time.monotonic() - began > RECOVERY:
                        raise
                    time.sleep(0.01)
        return time.monotonic() - began


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


@dataclass
class Attempt:
    """How an operation went."""

    error: DriverUnavailable | None
    seconds: float


def attempt(act: Callable[[], object]) -> Attempt:
    began = time.monotonic()
    try:
        act()
    except DriverUnavailable as error:
        return Attempt(error, time.monotonic() - began)
    return Attempt(None, time.monotonic() - began)


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
    values: dict[Name, bytes | int] = {A: b"a", N: 0}
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
            assert line.proxy.fired, name
            line.proxy.heal()
            assert tried.seconds < LIMIT, name
            if operation.done is not None and fault is not Fault.CUT_BEFORE and turn == turns:
                assert tried.error is not None, name
            done = judged(line, operation, record, tried)
            assert line.warm() < RECOVERY
        if operation.done is not None and fault is Fault.CUT_AFTER:
            assert done == 1, f"{name}: the reply that was lost was not the last one"


def test_rule_11_a_reply_that_never_comes(line: Line) -> None:
    """The limit ends the wait; an increment is counted once, and the connection is not used again."""
    for name in ("load", "increment"):
        operation = OPERATIONS[name]
        turns = round_trips(line, operation)
        record = prepared(line, operation)
        line.proxy.inject(Fault.NO_REPLY, turn=turns)
        tried = attempt(lambda: operation.act(line.driver, record))  # noqa: B023 (called at once)
        line.proxy.heal()
        assert tried.seconds < LIMIT + MARGIN
        assert tried.error is not None or operation.done is None
        assert judged(line, operation, record, tried) == (operation.done is not None)
        assert line.warm() < RECOVERY


def test_rule_11_a_reply_that_comes_too_late(line: Line) -> None:
    """What arrives after the limit is nobody's answer: later operations see their own data."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.DELAY, seconds=LIMIT + 0.2)
    tried = attempt(lambda: operation.act(line.driver, record))
    line.proxy.heal()
    assert tried.error is not None
    assert LIMIT * 0.9 < tried.seconds < LIMIT + MARGIN
    assert line.warm() < RECOVERY
    time.sleep(0.3)
    for _ in range(3):
        line.warm()
        assert loaded(line.driver, record.digest, START).values[A].data == b"a"
    judged(line, operation, record, tried)


def test_rule_11_a_slow_network_within_the_limit(line: Line) -> None:
    """Slow is not down."""
    line.proxy.inject(Fault.DELAY, seconds=0.02)
    for operation in OPERATIONS.values():
        record = prepared(line, operation)
        tried = attempt(lambda: operation.act(line.driver, record))  # noqa: B023 (called at once)
        assert tried.error is None
        judged(line, operation, record, tried)


# The server is away


def test_rule_11_a_black_hole(line: Line) -> None:
    """An open connection that nothing comes through any more: the limit, then failure at once, then recovery."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.BLACK_HOLE)
    tried = attempt(lambda: operation.act(line.driver, record))
    assert tried.seconds < LIMIT + MARGIN
    assert tried.error is not None
    fails_at_once(line)
    line.proxy.heal()
    assert line.warm() < RECOVERY
    judged(line, operation, record, tried)


def test_rule_11_a_black_hole_from_the_beginning(line: Line) -> None:
    """A server that accepts a connection and says nothing."""
    driver = line.open()
    line.proxy.inject(Fault.BLACK_HOLE)
    tried = attempt(lambda: driver.load(line.session.digest, START))
    assert tried.error is not None
    assert tried.error.__cause__ is not None
    assert not tried.error.outcome_unknown
    assert tried.seconds < LIMIT + MARGIN
    line.proxy.heal()
    assert line.warm(driver) < RECOVERY


def test_rule_11_a_server_that_is_away(line: Line) -> None:
    """It is told at once; what was not sent has no unknown outcome; and things recover by themselves."""
    operation = OPERATIONS["increment"]
    record = prepared(line, operation)
    line.proxy.inject(Fault.REFUSE)
    tried = attempt(lambda: operation.act(line.driver, record))
    assert tried.error is not None
    assert tried.seconds < LIMIT
    for driver in (line.driver, line.open()):
        again = attempt(lambda: operation.act(driver, record))  # noqa: B023 (called at once)
        assert again.error is not None
        assert not again.error.outcome_unknown, "nothing was sent"
        assert again.seconds < LIMIT
    fails_at_once(line)
    line.proxy.heal()
    assert line.warm() < RECOVERY
    judged(line, operation, record, tried)


def fails_at_once(line: Line) -> None:
    """While the server is known to be down nobody waits; only one at a time may look whether it is back."""
    operation = OPERATIONS["increment"]
    seconds: list[float] = []
    for _ in range(20):
        tried = attempt(lambda: operation.act(line.driver, line.session))
        assert tried.error is not None
        seconds.append(tried.seconds)
        if tried.seconds < AT_ONCE:
            assert not tried.error.outcome_unknown, "nothing was sent"
    assert sum(took < AT_ONCE for took in seconds) >= 17, seconds
    assert max(seconds) < LIMIT + MARGIN


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
        assert line.warm() < RECOVERY


# Many at once


def test_rule_11_no_acknowledged_write_is_lost_in_a_storm(line: Line) -> None:
    """Threads count and write while the connections break in all ways: what was acknowledged is there, once."""
    counter = line.started({N: 0})
    turns = round_trips(line, OPERATIONS["increment"])
    over = threading.Event()

    def count(number: int) -> tuple[int, int, int]:
        acknowledged = unknown = failed = 0
        key: Name = ("", f"thread{number}")
        while not over.is_set():
            delta = Delta(increments={N: 1}, puts=puts({key: b"%d" % (acknowledged + unknown)}).puts)
            tried = attempt(lambda: committed(line.driver.commit(counter.digest, delta, START)))  # noqa: B023
            if tried.error is None:
                acknowledged += 1
            else:
                unknown += tried.error.outcome_unknown
                failed += 1
                time.sleep(0.005)
        return acknowledged, unknown, failed

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(count, number) for number in range(4)]
        for fault in [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.HALF_REPLY, Fault.REFUSE] * 2:
            time.sleep(0.1)
            line.proxy.inject(fault, turn=turns)
            time.sleep(0.05)
            line.proxy.heal()
            line.warm()
        over.set()
        acknowledged, unknown, failed = (sum(part) for part in zip(*(one.result() for one in counts), strict=True))
    found = int(loaded(line.beside, counter.digest, START).values[N].data)
    assert acknowledged > 0
    assert failed > 0, "no fault met a write"
    assert acknowledged <= found <= acknowledged + unknown
