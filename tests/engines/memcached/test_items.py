"""Memcached: what is on the server, how long it stays there, and what is made of it when it is spoilt."""

from __future__ import annotations

import re

import pytest
from memcached_items import exptimes
from pymemcache.client.base import Client
from stored import A
from testservers import MemcachedServer

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached import MemcachedDriver
from coatcheck.drivers.memcached.requests import Request, Touch
from coatcheck.errors import ConfigurationError, UnsupportedCapability
from coatcheck.record import NEVER, Conflict, Delta, Gone, Missing, Reason
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started, successor


def test_the_server_forgets_after_the_end_and_not_before(
    driver: Driver, memcached_server: MemcachedServer, namespace: str
) -> None:
    def left() -> list[int]:
        found = sorted(exptimes(memcached_server, namespace).values())
        driver.tear_down()
        return found

    started(driver, idle=600.0)
    assert all(895 <= seconds <= 901 for seconds in left())
    started(driver, idle=NEVER, absolute=NEVER)
    assert left() == [-1, -1]
    started(driver, idle=90 * 86400.0, absolute=NEVER)  # memcached would take this for a moment in 1970
    assert left() == [-1, -1]
    started(driver, idle=30 * 86400.0, absolute=1000.0)
    pointer, session = left()
    assert pointer == -1, "nothing shorter: a log-in may move the end"
    assert 1295 <= session <= 1301
    record = started(driver)
    driver.revoke(record.digest, START)
    tombstone, pointer = left()
    assert 355 <= tombstone <= 361
    assert 895 <= pointer <= 901
    driver.revoke(digest(), START)
    (tombstone,) = left()
    assert 355 <= tombstone <= 361


def test_activity_gives_the_pointers_more_time(driver: Driver, asked: list[Request]) -> None:
    record = started(driver)
    new = successor(driver, record.digest)
    committed(driver.rotate(record.digest, new, Delta(), 30, START))
    asked.clear()
    committed(driver.commit(new, Delta(touch=START + 100), START + 100))
    touched = {request.key[-64:] for request in asked if isinstance(request, Touch)}
    assert touched == {record.digest.hex(), new.hex()}
    asked.clear()
    committed(driver.commit(new, Delta(touch=START + 50), START + 101))
    committed(driver.commit(new, puts({A: b"a"}), START + 101))
    assert not any(isinstance(request, Touch) for request in asked)


def test_keys_have_nothing_from_outside(driver: Driver, memcached_server: MemcachedServer, namespace: str) -> None:
    record = make_record(sid_="0000" + "é \r\nflush_all\r\n" * 30, user="eve\r\n")
    committed(driver.create(record, START))
    assert driver.missing([record.sid, "x\r\nversion", "", "\ud800"], START) == {"x\r\nversion", "", "\ud800"}
    assert loaded(driver, record.digest, START).sid == record.sid
    keys = exptimes(memcached_server, namespace)
    assert len(keys) == 2
    assert all(re.fullmatch(rf"{namespace}coatcheck_[ds]_[0-9a-f]{{32,64}}", key) for key in keys)
    with pytest.raises(ConfigurationError):
        MemcachedDriver("localhost", prefix="x" * 101)


def test_tear_down_leaves_what_is_not_ours(driver: Driver, memcached_server: MemcachedServer, namespace: str) -> None:
    client = Client(memcached_server.address)
    foreign = [
        f"{namespace}other",
        f"{namespace}coatcheck_x",
        f"{namespace}coatcheck_d_g",
        f"x{namespace}coatcheck_d_00",
    ]
    for key in foreign:
        client.set(key, b"stays", noreply=False)
    other = MemcachedDriver(memcached_server.address, prefix=f"{namespace}coatcheck_d_")
    stays, goes = started(other), started(driver)
    driver.tear_down()
    assert driver.load(goes.digest, START) == Missing(Reason.UNKNOWN)
    assert loaded(other, stays.digest, START) == stays
    assert len(client.get_many(foreign)) == len(foreign)
    client.delete_many(foreign, noreply=False)
    client.close()
    other.tear_down()
    other.close()


def test_spoilt_items_are_unreadable(driver: Driver, memcached_server: MemcachedServer, namespace: str) -> None:
    client = Client(memcached_server.address)
    for kind in "ds":
        for junk in (b"", b"\x00", b"no sense", b"\x93\x01", b"\x92\x03\xc0", b"\xc1" * 50, b"\x92\x03\xa1\xff"):
            driver.tear_down()
            record = started(driver, values={A: b"a"})
            (key,) = (key for key in exptimes(memcached_server, namespace) if f"_{kind}_" in key)
            client.set(key, junk, noreply=False)
            assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
            assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
            assert driver.rotate(record.digest, digest(), Delta(), 0, START) == Gone(Reason.UNREADABLE)
            assert driver.create(make_record(digest_=record.digest), START) == Conflict()
            assert not driver.revoke(record.digest, START)
            assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
            if kind == "s":
                assert driver.missing([record.sid], START) == {record.sid}
    client.close()


def test_spoilt_values_are_unreadable(driver: Driver, memcached_server: MemcachedServer, namespace: str) -> None:
    record = started(driver, values={A: b"treasure"})
    (key,) = (key for key in exptimes(memcached_server, namespace) if "_s_" in key)
    client = Client(memcached_server.address)
    data = client.get(key)
    client.set(key, data.replace(b"\xc4\x08treasure", b"\xc3\xc3treasure"), noreply=False)
    client.close()
    assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
    assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
    committed(driver.commit(record.digest, Delta(touch=START + 1), START + 1))
    assert driver.revoke(record.digest, START + 1)


def test_an_evicted_session_is_unknown(driver: Driver, memcached_server: MemcachedServer, namespace: str) -> None:
    record = started(driver)
    client = Client(memcached_server.address)
    client.delete_many([key for key in exptimes(memcached_server, namespace) if "_s_" in key], noreply=False)
    client.close()
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)
    delta = Delta(puts=puts({A: b"a"}).puts, basis=record.basis)
    assert driver.commit(record.digest, delta, START) == Gone(Reason.UNKNOWN)
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)


def test_what_it_cannot_do(driver: Driver) -> None:
    for ask in (lambda: driver.revoke_user("ann", START), lambda: driver.sessions_of("ann", START)):
        with pytest.raises(UnsupportedCapability, match="use Redis, a SQL engine or the file system"):
            ask()
    assert driver.at_risk is not None
    assert "evicts" in driver.at_risk
