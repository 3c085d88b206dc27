"""Redis with its memory full: what ends sessions works, since that is what makes room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testservers import RedisCluster, RedisServer
from testservers.engines import with_options
from testservers.fixtures import need

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Gone, Missing, Reason, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, loaded, make_record, puts, started

A: ValueKey = ("", "a")

Servers = RedisServer | RedisCluster


@pytest.fixture(scope="module", params=["one server", "cluster"])
def servers(request: pytest.FixtureRequest, server_folder: Path) -> Iterator[Servers]:
    """Servers of these tests alone: a full one would trouble others."""
    need(RedisServer)
    kinds: dict[str, Callable[[Path], Servers]] = {"one server": RedisServer, "cluster": RedisCluster}
    with ExitStack() as stack:
        yield stack.enter_context(kinds[request.param](server_folder / f"full-{request.param.replace(' ', '-')}"))


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest, servers: Servers, namespace: str) -> Iterator[Driver]:
    url = with_options(servers.url, prefix=namespace)
    driver = open_driver(url) if request.param == "sync" else Blocking(open_async_driver(url))
    driver.setup()
    yield driver
    fill(servers, full=False)
    driver.tear_down()
    driver.close()


def fill(servers: Servers, *, full: bool) -> None:
    for node in [servers] if isinstance(servers, RedisServer) else servers.primaries():
        node.command("CONFIG", "SET", "maxmemory", "1mb" if full else "0")


def test_what_ends_sessions_works_on_a_full_server(driver: Driver, servers: Servers) -> None:
    sessions = [started(driver, user="ada", values={A: b"a"}) for _ in range(5)]
    other = started(driver, user="eve", values={A: b"a"})
    fill(servers, full=True)
    with pytest.raises(DriverUnavailable, match="memory is full"):
        driver.commit(sessions[0].digest, puts({A: b"b"}), START)
    assert driver.revoke(sessions[0].digest, START)
    assert driver.revoke_user("ada", START, keep=sessions[1].sid) == 3
    assert [info.sid for info in driver.sessions_of("ada", START)] == [sessions[1].sid]
    for ended in (sessions[0], *sessions[2:]):
        assert driver.load(ended.digest, START) == Missing(Reason.REVOKED)
    assert loaded(driver, other.digest, START).values[A].data == b"a"
    assert driver.revoke_user("nobody", START) == 0
    fill(servers, full=False)
    late = driver.create(make_record(user="ada"), START)
    assert late == Gone(Reason.REVOKED), "the fence was not set"
    assert driver.commit(other.digest, Delta(user="nobody", auth_time=START), START) == Gone(Reason.REVOKED)
