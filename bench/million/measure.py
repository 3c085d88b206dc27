"""What is measured of a store: filling, size, loads and commits, a sweep among readers, a revocation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from testservers import FaultProxy

from coatcheck import Policy
from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Driver
from coatcheck.record import Committed, Delta, Put, Record
from million.population import CROWD, LAST_PAGE, Population, page
from million.readers import Readers
from million.stores import RedisStore, Size, Store, set_up

SLICE: Final = Policy().sweep_limit
FEW: Final = 1000
_ROUNDS: Final = 60
_BATCH: Final = 50  # sessions of each storage in a round
_WIRE: Final = 50  # operations whose bytes are counted
_LOAD: Final = 3000  # operations whose processor time is counted
_PATIENCE: Final = 240.0  # seconds that a server gets for removing what expired


@dataclass
class Found:
    """What was found out about a store. Times are seconds; those in a pair are for few sessions and for many.

    Attributes:
        name: The store.
        where: Where its sessions are.
        sessions: How many there were.
        expiring: How many of them expired.
        crowd: How many belonged to one user.
        fill: How long it took to store them.
        size: How large the store was then.
        load: The median of a load.
        commit: The median of a commit.
        slow_load: The 99th percentile of a load.
        slow_commit: The 99th percentile of a commit.
        revoke: How long `revoke_user` took for the user with many devices.
        quiet: The 99th percentile of a reader's load without a sweep.
        disturbed: The same during the sweep.
        sweep: How long the sweep took in all.
        slices: The median and the longest slice; None where the server sweeps by itself.
        wire: Bytes that a load and a commit pass over the wire, where there is a server.
        cpu: Processor time of the server for a load and for a commit, where there is a server.
        log: Bytes that a commit adds to the server's log, where that can be asked.
    """

    name: str
    where: str
    sessions: int
    expiring: int
    crowd: int
    fill: float = 0.0
    size: Size = field(default_factory=lambda: Size(0, {}))
    load: tuple[float, float] = (0.0, 0.0)
    commit: tuple[float, float] = (0.0, 0.0)
    slow_load: tuple[float, float] = (0.0, 0.0)
    slow_commit: tuple[float, float] = (0.0, 0.0)
    revoke: float = 0.0
    quiet: float = 0.0
    disturbed: float = 0.0
    sweep: float = 0.0
    slices: tuple[float, float] | None = None
    wire: tuple[float, float] | None = None
    cpu: tuple[float, float] | None = None
    log: float | None = None


def measure(store: Store, sessions: int, calm: float, say: Callable[[str], None]) -> Found:
    """Find it all out.

    Args:
        store: An empty store.
        sessions: How many sessions to fill it with.
        calm: For how many seconds the readers go on by themselves.
        say: Is told what goes on.
    """
    made = time.time()
    crowd = min(1000, sessions // 10)
    few, many = Population("few", FEW, 0, made), Population("many", sessions, crowd, made)
    found = Found(store.name, store.where, sessions, many.expiring, crowd)
    for population in (few, many):
        say(f"{store.name}: filling with {population.size:,}")
        set_up(store, population)
        before = store.size(population.prefix)
        start = time.perf_counter()
        store.fill(population)
        found.fill = time.perf_counter() - start
        found.size = _grown(before, store.size(population.prefix))
    drivers = [open_driver(store.url(population.prefix)) for population in (few, many)]
    try:
        say(f"{store.name}: loading and committing")
        _time(found, (few, many), drivers)
        if store.port is not None:
            found.cpu = _processor(store, many, drivers[1])
            found.wire = _wire(store, store.port, many)
        found.log = _log(store, many, drivers[1])
        say(f"{store.name}: revoking a user")
        _revoke(found, many, drivers[1])
        say(f"{store.name}: sweeping")
        _sweep(found, store, many, drivers[1], calm)
    finally:
        for driver in drivers:
            driver.close()
    return found


def _grown(before: Size, after: Size) -> Size:
    return Size(after.data - before.data, after.parts)


class _Visits:
    """Loads and commits of sessions drawn at random, the same ones in each run."""

    def __init__(self, population: Population, driver: Driver) -> None:
        self._population = population
        self._driver = driver
        self._random = random.Random(population.prefix)  # noqa: S311 (no secret)
        self._turn = 0
        self.loads: list[float] = []
        self.commits: list[float] = []

    def go(self, visits: int) -> None:
        """Load sessions and change one value of each, based on the version that was loaded."""
        numbers = [self._random.randrange(self._population.size) for _ in range(visits)]
        digests = [self._population.digest(number) for number in numbers]
        for digest in digests:
            start = time.perf_counter()
            record = self._driver.load(digest, time.time())
            self.loads.append(time.perf_counter() - start)
            assert isinstance(record, Record)
            self._turn += 1
            version = record.values[LAST_PAGE].version
            delta = Delta(puts={LAST_PAGE: Put(page(self._turn), version)}, basis=record.basis)
            start = time.perf_counter()
            answer = self._driver.commit(digest, delta, time.time())
            self.commits.append(time.perf_counter() - start)
            assert isinstance(answer, Committed)

    def put(self, number: int) -> Delta:
        """Give a change of a session that was not loaded."""
        self._turn += 1
        return Delta(puts={LAST_PAGE: Put(page(self._turn + number))})


def _time(found: Found, populations: tuple[Population, ...], drivers: list[Driver]) -> None:
    both = [_Visits(population, driver) for population, driver in zip(populations, drivers, strict=True)]
    for visits in both:
        visits.go(_BATCH)
        visits.loads.clear()
        visits.commits.clear()
    for number in range(_ROUNDS):
        for visits in reversed(both) if number % 2 else both:
            visits.go(_BATCH)
    one, other = both
    found.load = median(one.loads), median(other.loads)
    found.commit = median(one.commits), median(other.commits)
    found.slow_load = late(one.loads), late(other.loads)
    found.slow_commit = late(one.commits), late(other.commits)


def late(took: list[float]) -> float:
    """Give the 99th percentile."""
    return sorted(took)[int(len(took) * 0.99)]


def _drawn(population: Population, count: int) -> list[bytes]:
    drawn = random.Random(count)  # noqa: S311 (no secret)
    return [population.digest(drawn.randrange(population.size)) for _ in range(count)]


def _processor(store: Store, population: Population, driver: Driver) -> tuple[float, float]:
    digests = _drawn(population, _LOAD)
    visits = _Visits(population, driver)

    def cost(run: Callable[[bytes], object]) -> float:
        before = store.busy() or 0.0
        for digest in digests:
            run(digest)
        return ((store.busy() or 0.0) - before) / len(digests)

    return (
        cost(lambda digest: driver.load(digest, time.time())),
        cost(lambda digest: driver.commit(digest, visits.put(0), time.time())),
    )


def _wire(store: Store, port: int, population: Population) -> tuple[float, float]:
    digests = _drawn(population, _WIRE)
    with FaultProxy(port) as proxy:
        driver = open_driver(store.url(population.prefix, proxy.port))
        visits = _Visits(population, driver)

        def cost(run: Callable[[bytes], object]) -> float:
            for digest in digests[:10]:
                run(digest)
            time.sleep(0.1)
            proxy.counted()
            for digest in digests:
                run(digest)
            time.sleep(0.1)
            counts = proxy.counted()
            return (counts.sent + counts.received) / len(digests)

        both = (
            cost(lambda digest: driver.load(digest, time.time())),
            cost(lambda digest: driver.commit(digest, visits.put(0), time.time())),
        )
        driver.close()
    return both


def _log(store: Store, population: Population, driver: Driver) -> float | None:
    before = store.log_position()
    if before is None:
        return None
    digests = _drawn(population, _LOAD)
    visits = _Visits(population, driver)
    for digest in digests:
        driver.commit(digest, visits.put(0), time.time())
    return ((store.log_position() or 0) - before) / len(digests)


def _revoke(found: Found, population: Population, driver: Driver) -> None:
    now = time.time()
    assert len(driver.sessions_of(CROWD, now)) == population.crowd
    start = time.perf_counter()
    ended = driver.revoke_user(CROWD, now)
    found.revoke = time.perf_counter() - start
    assert ended == population.crowd, ended
    assert driver.sessions_of(CROWD, now) == []


def _sweep(found: Found, store: Store, population: Population, driver: Driver, calm: float) -> None:
    first = 2 * population.crowd  # those before may have been revoked
    stay = [population.digest(number) for number in range(first, population.size) if not population.expires(number)]
    later = population.later
    with Readers(store.url(population.prefix), stay, later) as readers:
        time.sleep(calm / 5)
        readers.took()
        time.sleep(calm)
        found.quiet = late(readers.took())
        if isinstance(store, RedisStore):
            found.sweep = _collected(store, population, readers)
        else:
            slices, found.sweep = _swept(driver, later)
            found.slices = median(slices), max(slices)
        found.disturbed = late(readers.took())
    sample: list[Any] = [driver.load(population.digest(number), later) for number in range(first, first + 400)]
    alive = [isinstance(one, Record) for one in sample]
    assert alive == [not population.expires(number) for number in range(first, first + 400)][: len(alive)]


def _swept(driver: Driver, later: float) -> tuple[list[float], float]:
    slices = []
    start = time.perf_counter()
    while True:
        before = time.perf_counter()
        removed = driver.sweep(later, SLICE)
        slices.append(time.perf_counter() - before)
        if removed < SLICE:
            return slices, time.perf_counter() - start


def _collected(store: RedisStore, population: Population, readers: Readers) -> float:
    """Let the server remove what has expired, all at one moment; give the seconds that it needed."""
    moment = time.time() + 3 + population.size / 25_000
    left = store.keys() - store.expire(population, moment)
    if time.time() > moment:
        raise TimeoutError("this machine is too slow to tell Redis in time what expires")
    time.sleep(max(0.0, moment - time.time()))
    readers.took()  # what the telling disturbed does not count
    until = time.monotonic() + _PATIENCE
    start = time.perf_counter()
    while store.keys() > left:
        if time.monotonic() > until:
            raise TimeoutError("Redis has not removed what expired")
        time.sleep(0.1)
    return time.perf_counter() - start
