"""Memcached: several servers, and the settings that name them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from memcached_items import exptimes
from pymemcache.client.base import Client
from stored import A, data_of
from testservers import MemcachedServer

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached import AsyncMemcachedDriver, MemcachedDriver
from coatcheck.drivers.memcached.requests import ItemKeys
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Record
from coatcheck.testing import Blocking, digest
from coatcheck.testing.helpers import START, committed, loaded, puts, started


def test_sync_and_async_find_the_same_server(server: Callable[..., MemcachedServer]) -> None:
    servers = [server() for _ in range(3)]
    names = [one.address for one in servers]
    driver, other = MemcachedDriver(",".join(names)), Blocking(AsyncMemcachedDriver(",".join(reversed(names))))
    records = [started(driver if n % 2 else other, values={A: b"%d" % n}) for n in range(40)]
    for n, record in enumerate(records):
        for handle in (driver, other):
            assert data_of(loaded(handle, record.digest, START)) == {A: b"%d" % n}
    for handle in (driver, other):
        assert handle.missing([record.sid for record in records], START) == set()
    assert all(len(exptimes(one, "coatcheck_")) > 5 for one in servers), "one server has nearly nothing"
    driver.close()
    other.close()


def is_there(driver: Driver, record: Record, down: str) -> bool:
    """Tell whether a session is loaded, or its server is known to be *down*: nothing else will do."""
    try:
        assert isinstance(driver.load(record.digest, START), Record), "down is not missing"
    except DriverUnavailable as error:
        if down not in str(error):
            raise
        return False
    return True


def test_a_server_that_is_down_ends_no_session(
    open_one: Callable[[str], Driver], server: Callable[..., MemcachedServer]
) -> None:
    servers = [server() for _ in range(3)]
    driver = open_one(f"memcached://{','.join(one.address for one in servers)}?timeout=0.5")
    records = [started(driver) for _ in range(40)]
    servers[1].kill()
    fine = [record for record in records if is_there(driver, record, servers[1].address)]
    unavailable = [record for record in records if record not in fine]
    assert fine
    assert unavailable
    for record in fine:
        committed(driver.commit(record.digest, puts({A: b"a"}), START))
    for record in unavailable:
        with pytest.raises(DriverUnavailable) as caught:
            driver.commit(record.digest, puts({A: b"a"}), START)
        assert not caught.value.outcome_unknown
    with pytest.raises(DriverUnavailable):
        driver.missing([record.sid for record in records], START)
    with pytest.raises(DriverUnavailable):
        driver.setup()
    servers[1].start()
    deadline = time.monotonic() + 120
    while True:
        try:
            found = [driver.load(record.digest, START) for record in records]
            break
        except DriverUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert sum(isinstance(each, Record) for each in found) == len(fine), "what the server held is gone"
    started(driver)


def test_a_server_that_joins_takes_only_its_share() -> None:
    three = tuple(f"10.0.0.{n}:11211" for n in range(3))
    before, after = ItemKeys("", three), ItemKeys("", (*three, "10.0.0.9:11211"))
    keys = [before.of_digest(digest()) for _ in range(2000)]
    moved = [key for key in keys if before.server(key) != after.server(key)]
    assert all(after.server(key) == 3 for key in moved)
    assert 350 < len(moved) < 650


# -- the servers' settings


def test_a_server_without_swaps_is_refused(server: Callable[..., MemcachedServer], open_one: Any) -> None:
    driver = open_one(server("-C").url)
    with pytest.raises(ConfigurationError, match="without -C"):
        driver.setup()


def test_advice(server: Callable[..., MemcachedServer]) -> None:
    small = server("-I", "512k", "-m", "2")
    driver = MemcachedDriver(small.address)
    (advice,) = driver.advice()
    assert "-I 1m" in advice
    client = Client(small.address)
    for n in range(200):
        client.set(f"k{n}", b"x" * 100_000, noreply=False)
    client.close()
    assert any("evicted" in sentence and "-m" in sentence for sentence in driver.advice())
    driver.close()
    plain = MemcachedDriver(server().address)
    assert plain.advice() == []
    assert plain.is_set_up()
    plain.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memcached:", "host:port"),
        ("memcached://", "host:port"),
        ("memcached://h/path", "path"),
        ("memcached://ann:secret@h", "without a password"),
        ("memcached://h:0", "port"),
        ("memcached://h,h:11211", "twice"),
        ("memcached://h?timeout=0", "timeout"),
        ("memcached://h?prefix=a-b", "prefix"),
        ("memcached://h?pool=3", "unknown option 'pool'"),
    ],
)
def test_urls_that_make_no_sense(url: str, why: str) -> None:
    for open_ in (open_driver, open_async_driver):
        with pytest.raises(ConfigurationError, match=why) as caught:
            open_(url)
        assert "secret" not in str(caught.value)


def test_addresses() -> None:
    driver = MemcachedDriver("one,two:2,[::1],[::1]:3")
    assert [server.name for server in driver._servers] == ["one:11211", "two:2", "[::1]:11211", "[::1]:3"]
