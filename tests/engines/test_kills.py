"""Servers die by SIGKILL under the hands of several writers: what was acknowledged, and when things work again.

The figures are printed at the end of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from engines.load import Load, Losses
from testservers import (
    MariaDBServer,
    MemcachedServer,
    PgBouncer,
    PostgreSQLServer,
    RedisServer,
    Server,
)
from testservers.engines import Engine, Row, params
from testservers.fixtures import need

from coatcheck.drivers.base import Capability
from coatcheck.testing.helpers import START, digest

LIMIT: Final = 1.0
RECOVERY: Final = 2.0
FAILOVER: Final = 240.0  # seconds; sentinels that the machine let wait do nothing for 30 s, and then may disagree
AWAY: Final = 0.3

Report = Callable[[str], None]

# Redis promises what its settings say: with these a write is in the file before it is acknowledged.
SAFE: Final = ("--appendfsync", "always")

SERVERS: Final[dict[str, Callable[[Path], Server]]] = {
    "redis": lambda folder: RedisServer(folder, appendonly=True, extra=SAFE),
    "postgresql": PostgreSQLServer,
    "mariadb": MariaDBServer,
    "memcached": MemcachedServer,
}


@pytest.fixture
def report(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Report:
    """Print a line with figures at the end of the run."""
    name = request.node.callspec.id
    return lambda figures: record_property("figures", f"{name}: {figures}")


@contextmanager
def own_server(row: Row, folder: Path) -> Iterator[Server]:
    """Start a server of the test's own."""
    with ExitStack() as stack:
        if row.server == "pgbouncer":
            need(PgBouncer)
            behind = stack.enter_context(PostgreSQLServer(folder / "postgresql"))
            yield stack.enter_context(PgBouncer(folder / "pgbouncer", behind))
        else:
            server = SERVERS[row.name.removesuffix("-async")](folder / "server")
            need(type(server))
            yield stack.enter_context(server)


@pytest.mark.parametrize("row", params("redis", "postgresql", "pgbouncer", "mariadb", "memcached"))
def test_a_server_is_killed_and_started_again(
    row: Row, namespace: str, server_folder: Path, tmp_path: Path, report: Report
) -> None:
    """What the driver declares to outlive a crash of the server is there, and nothing is counted twice."""
    with own_server(row, server_folder / namespace) as server:
        engine = Engine.of(row, server, namespace, tmp_path)
        patient, driver = engine.open(), engine.open(timeout=LIMIT)
        patient.setup()
        try:
            with Load(driver) as load:
                load.recovered(0.0)
                load.go_on()
                server.kill()
                time.sleep(AWAY)
                server.start()
                returned = time.monotonic()
                engine.open().load(digest(), START)
                pace = time.monotonic() - returned  # of the machine, which others may keep busy
                seconds = load.recovered(returned)
                load.go_on()
            losses = load.losses(patient)
        finally:
            engine.close()
    report(f"{losses}, {seconds:.2f} s from the server's return to the next write")
    assert losses.acknowledged > 100
    assert losses.doubled == 0
    assert seconds < RECOVERY + 5 * pace
    if Capability.SURVIVES_SERVER_CRASH in driver.capabilities:
        assert losses == Losses(losses.acknowledged)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("durable", [False, True], ids=["plain", "durable"])
@pytest.mark.parametrize("engine", params("redis-sentinel", "redis-cluster"), indirect=True)
def test_a_primary_is_killed(engine: Engine, durable: bool, report: Report) -> None:  # noqa: FBT001 (a parameter)
    """Its replica was cut off a moment before: plain writes of that moment are lost, and durable ones never."""
    options: dict[str, Any] = {"durable": "replicas:1"} if durable else {}
    engine.open().setup()
    driver = engine.open(timeout=LIMIT, **options)
    group = engine.server
    with group.alert():
        try:
            with Load(driver, first=bytes(2)) as load:
                load.recovered(0.0)
                primary = max(group.primaries(), key=sessions)
                replica = group.replica_of(primary)
                load.go_on()
                replica.pause()
                primary.command("CLIENT", "KILL", "TYPE", "replica")
                if durable:  # nothing is acknowledged any more
                    time.sleep(AWAY)
                else:
                    load.go_on()
                primary.kill()
                killed = time.monotonic()
                replica.resume()
                if durable:  # which needs a replica again
                    group.failed_over(primary, FAILOVER)
                    group.heal()
                seconds = load.recovered(killed, FAILOVER)
                if not durable:
                    group.failed_over(primary, FAILOVER)
                    group.heal()
                load.recovered(time.monotonic(), FAILOVER)
            losses = load.losses(engine.open())
        finally:
            group.heal()
    report(f"{losses}, {seconds:.2f} s from the kill to the next write")
    assert losses.acknowledged > 100
    assert losses.doubled == 0
    if durable:
        assert losses == Losses(losses.acknowledged)
    else:
        assert losses.writes > 0, "the cut replica had everything: the test shows nothing"


def sessions(node: RedisServer) -> int:
    """Give how many keys a server has."""
    return int(node.command("DBSIZE"))
