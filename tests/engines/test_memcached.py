"""Memcached's own: several servers, lost swaps, tombstones, lifetimes on the server, and what is said on the wire."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pymemcache.client.base import Client
from testservers import MemcachedServer
from testservers.engines import PATIENCE, with_options
from testservers.fixtures import need

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached import AsyncMemcachedDriver, MemcachedDriver
from coatcheck.drivers.memcached.requests import Delete, Get, Item, Keys, Lines, Request, Store, Touch
from coatcheck.drivers.memcached.wire import Garbled, Refused, feed, put
from coatcheck.errors import ConfigurationError, CounterOverflow, DriverUnavailable, UnsupportedCapability
from coatcheck.record import COUNTER_MAX, NEVER, Conflict, Delta, Gone, Missing, Reason, Record, ValueKey
from coatcheck.testing import Blocking, digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started, successor

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
N: ValueKey = ("", "n")


def data_of(record: Record) -> dict[ValueKey, bytes | int]:
    return {name: value.data for name, value in record.values.items()}


@pytest.fixture
def url(memcached_server: MemcachedServer, namespace: str) -> str:
    return with_options(memcached_server.url, prefix=namespace, timeout=PATIENCE)


@pytest.fixture(params=["sync", "async"])
def open_one(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Driver]]:
    """Opens drivers, synchronous or behind a synchronous face."""
    with ExitStack() as opened:

        def open_(url: str) -> Driver:
            driver = open_driver(url) if request.param == "sync" else Blocking(open_async_driver(url))
            opened.callback(driver.close)
            return driver

        yield open_


@pytest.fixture
def driver(open_one: Callable[[str], Driver], url: str) -> Driver:
    return open_one(url)


@pytest.fixture
def server(server_folder: Path, namespace: str) -> Iterator[Callable[..., MemcachedServer]]:
    """Starts servers of the test's own."""
    need(MemcachedServer)
    with ExitStack() as started:
        count = iter(range(10))
        yield lambda *extra: started.enter_context(
            MemcachedServer(server_folder / f"{namespace}-{next(count)}", extra=extra)
        )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What was asked of a server so far."""
    seen: list[Request] = []
    ask, ask_async = MemcachedDriver._ask, AsyncMemcachedDriver._ask

    def watched(self: MemcachedDriver, operation: str, request: Request) -> Any:
        seen.append(request)
        return ask(self, operation, request)

    async def watched_async(self: AsyncMemcachedDriver, operation: str, request: Request) -> Any:
        seen.append(request)
        return await ask_async(self, operation, request)

    monkeypatch.setattr(MemcachedDriver, "_ask", watched)
    monkeypatch.setattr(AsyncMemcachedDriver, "_ask", watched_async)
    return seen


def before_swaps(monkeypatch: pytest.MonkeyPatch, driver: Driver, act: Callable[[], object], times: int = 1) -> None:
    """Have something done each time that *driver* is about to swap an item, so that the swap is lost."""
    inner = driver.driver if isinstance(driver, Blocking) else driver
    ask = inner._ask  # type: ignore[attr-defined]
    left = times

    def interfere(request: Request) -> None:
        nonlocal left
        if isinstance(request, Store) and request.cas is not None and left:
            left -= 1
            act()

    def watched(operation: str, request: Request) -> Any:
        interfere(request)
        return ask(operation, request)

    async def watched_async(operation: str, request: Request) -> Any:
        interfere(request)
        return await ask(operation, request)

    monkeypatch.setattr(inner, "_ask", watched_async if isinstance(inner, AsyncMemcachedDriver) else watched)


# -- swaps


def test_a_lost_swap_is_decided_anew(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, other = open_one(url), open_driver(url)
    record = started(driver, values={A: b"a", N: 1})
    before_swaps(
        monkeypatch, driver, lambda: committed(other.commit(record.digest, Delta(increments={N: 1}), START)), 3
    )
    done = committed(driver.commit(record.digest, Delta(puts=puts({B: b"b"}).puts, increments={N: 10}), START))
    assert done.counters == {N: 14}
    assert data_of(loaded(driver, record.digest, START)) == {A: b"a", B: b"b", N: 14}
    other.close()


def test_a_swap_lost_to_the_end_of_the_session_is_gone(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was loaded in hand, and without."""
    for by_basis in (True, False):
        driver, other = open_one(url), open_driver(url)
        record = started(driver, values={A: b"a"})
        before_swaps(monkeypatch, driver, lambda by=other, of=record: by.revoke(of.digest, START))  # type: ignore[misc]
        delta = Delta(puts=puts({A: b"late"}).puts, basis=record.basis if by_basis else None)
        assert driver.commit(record.digest, delta, START) == Gone(Reason.REVOKED)
        assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
        assert driver.missing([record.sid], START) == {record.sid}
        other.close()


def test_a_swap_lost_on_the_same_key_is_a_conflict(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, other = open_one(url), open_driver(url)
    record = started(driver, values={A: b"a"})
    before_swaps(monkeypatch, driver, lambda: other.commit(record.digest, puts({A: b"first"}), START))
    delta = Delta(puts=puts({A: b"second"}, record.values[A].version).puts, basis=record.basis)
    assert driver.commit(record.digest, delta, START) == Conflict((A,))
    assert data_of(loaded(driver, record.digest, START)) == {A: b"first"}
    other.close()


def test_a_rotation_that_loses_its_swap_to_another_is_a_conflict(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, other = open_one(url), open_driver(url)
    record = started(driver)
    first, second = successor(driver, record.digest), successor(driver, record.digest)
    before_swaps(monkeypatch, driver, lambda: committed(other.rotate(record.digest, first, Delta(), 30, START)))
    assert driver.rotate(record.digest, second, Delta(), 30, START) == Conflict()
    assert driver.load(second, START) == Missing(Reason.UNKNOWN)
    assert loaded(driver, first, START).fresh
    other.close()


def test_whoever_always_loses_is_told_that_nothing_was_written(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, other = open_one(with_options(url, timeout=0.3)), open_driver(url)
    record = started(driver)
    one = Delta(increments={N: 1})
    before_swaps(monkeypatch, driver, lambda: committed(other.commit(record.digest, one, START)), 10_000)
    began = time.monotonic()
    with pytest.raises(DriverUnavailable, match="other writers were first") as caught:
        driver.commit(record.digest, puts({A: b"a"}), START)
    assert time.monotonic() - began < 60
    assert not caught.value.outcome_unknown
    assert A not in loaded(other, record.digest, START).values
    other.close()


def test_what_was_loaded_spares_round_trips(driver: Driver, asked: list[Request]) -> None:
    record = started(driver, values={A: b"a"})
    asked.clear()
    found = loaded(driver, record.digest, START)
    assert [type(request) for request in asked] == [Get, Get]
    asked.clear()
    committed(driver.commit(record.digest, Delta(puts=puts({A: b"b"}).puts, basis=found.basis), START))
    assert [type(request) for request in asked] == [Store]
    asked.clear()
    committed(driver.commit(record.digest, Delta(puts=puts({A: b"c"}).puts, basis=found.basis), START))
    assert [type(request) for request in asked] == [Store, Get, Store], "lost once, and read again"


def test_no_refusal_is_based_on_what_was_loaded_long_ago(driver: Driver) -> None:
    record = started(driver, values={A: b"a", N: COUNTER_MAX})
    other = Delta(puts=puts({N: 0}).puts, drops={A: None})
    committed(driver.commit(record.digest, other, START))
    done = committed(driver.commit(record.digest, Delta(increments={N: 1, A: 1}, basis=record.basis), START))
    assert done.counters == {N: 1, A: 1}
    committed(driver.commit(record.digest, puts({N: COUNTER_MAX}), START))
    with pytest.raises(CounterOverflow):
        driver.commit(record.digest, Delta(increments={N: 1}, basis=record.basis), START)
    now = loaded(driver, record.digest, START).values[N].version
    committed(driver.commit(record.digest, Delta(puts=puts({N: 5}, now).puts, basis=record.basis), START))


def test_an_item_that_is_too_large_is_named_and_nothing_is_lost(driver: Driver) -> None:
    record = started(driver, values={A: b"a" * 900_000})
    for act in (
        lambda: driver.commit(record.digest, puts({B: b"b" * 200_000}), START),
        lambda: driver.commit(record.digest, Delta(puts=puts({B: b"b" * 200_000}).puts, basis=record.basis), START),
        lambda: driver.create(make_record(values={A: b"a" * 1_100_000}), START),
    ):
        with pytest.raises(DriverUnavailable, match=r"the session has 11\d\d\d\d\d bytes.*larger -I") as caught:
            act()
        assert not caught.value.outcome_unknown
        assert loaded(driver, record.digest, START) == record
    committed(driver.commit(record.digest, puts({B: b"b"}), START))


# -- tombstones, and creations that come late


def test_a_creation_finds_a_tombstone_in_either_place(
    open_one: Callable[[str], Driver], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation comes before the pointer, and between the pointer and the session."""
    driver, other = open_one(url), open_driver(url)
    inner = driver.driver if isinstance(driver, Blocking) else driver
    store = type(inner._operations)._store  # type: ignore[attr-defined]
    early, late = make_record(), make_record()
    assert not other.revoke(early.digest, START)
    assert driver.create(early, START) == Gone(Reason.REVOKED)

    def revoked_first(self: Any, *args: Any) -> Any:
        assert not other.revoke(late.digest, START)
        return store(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(inner._operations, "_store", revoked_first.__get__(inner._operations))  # type: ignore[attr-defined]
        assert driver.create(late, START) == Gone(Reason.REVOKED)
    for record in (early, late):
        assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
        assert driver.missing([record.sid], START) == {record.sid}
    other.close()


def test_a_creation_that_was_cut_short_opens_nothing(open_one: Callable[[str], Driver], url: str) -> None:
    driver = open_one(url)
    inner = driver.driver if isinstance(driver, Blocking) else driver
    record = make_record()
    steps = inner._operations.create(record, START)  # type: ignore[attr-defined]
    pointer = steps.send(None)
    server = url.partition("://")[2].partition("?")[0]
    client = Client(server)
    assert client.add(pointer.key, pointer.data, noreply=False)
    client.close()
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)
    assert driver.commit(record.digest, puts({A: b"a"}), START) == Gone(Reason.UNKNOWN)
    assert not driver.revoke(record.digest, START)
    assert driver.load(record.digest, START) == Missing(Reason.REVOKED)


# -- what is on the server


def exptimes(server: MemcachedServer, prefix: str) -> dict[str, int]:
    """Give for each key of a prefix the seconds that it has left; -1 for never."""
    with socket.create_connection((server.host, server.port), 5) as connection, connection.makefile("rwb") as file:
        file.write(b"lru_crawler metadump all\r\n")
        file.flush()
        found = {}
        while (line := file.readline()) != b"END\r\n":
            if line == b"OK\r\n":  # so newer servers begin
                continue
            key, exp = re.match(rb"key=(\S+) exp=(-?\d+)", line).groups()  # type: ignore[union-attr]
            if key.startswith(prefix.encode()):
                found[key.decode()] = -1 if exp == b"-1" else int(exp) - int(time.time())
        return found


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


# -- several servers


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
    before, after = Keys("", three), Keys("", (*three, "10.0.0.9:11211"))
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


# -- connections


def test_a_connection_that_was_closed_meanwhile_is_not_used(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver)
    (connection,) = driver._pools.idle[0]
    connection._socket.shutdown(socket.SHUT_RDWR)
    committed(driver.create(make_record(), START))  # begins with a write, which is never sent twice
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools.idle[0]) != [connection]
    driver.close()


def test_what_nobody_asked_for_is_never_taken_for_an_answer(url: str) -> None:
    driver = MemcachedDriver.from_url(url)
    record = started(driver, values={A: b"a"})
    (connection,) = driver._pools.idle[0]
    connection._socket.sendall(b"get nothing\r\n")
    connection._socket.settimeout(120)
    connection._socket.recv(1, socket.MSG_PEEK)  # until the answer is there
    assert loaded(driver, record.digest, START) == record
    assert list(driver._pools.idle[0]) != [connection]
    driver.close()


def test_a_cancelled_task_leaves_no_answer_to_the_next(server: Callable[..., MemcachedServer]) -> None:
    """The server answers after the task is gone: nobody else may be given what it says."""
    one = server()

    async def run() -> None:
        driver = AsyncMemcachedDriver(one.address, timeout=5)
        records = [make_record(values={A: b"%d" % n}) for n in range(8)]
        for record in records:
            committed(await driver.create(record, START))
        for n in range(20):
            one.pause()
            tasks = [asyncio.create_task(driver.load(record.digest, START)) for record in records]
            tasks += [asyncio.create_task(driver.commit(records[0].digest, Delta(increments={N: 1}), START))]
            await asyncio.sleep(0.001 * (n % 3))
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            (pools,) = driver._loops.values()
            assert not pools[0].idle, "a connection whose answer is still to come is offered to others"
            later = [asyncio.create_task(driver.load(record.digest, START)) for record in reversed(records)]
            await asyncio.sleep(0.001)  # they have asked, on whatever connections there are
            one.resume()
            for k, found in zip(reversed(range(8)), await asyncio.gather(*later), strict=True):
                assert isinstance(found, Record)
                assert (found.sid, found.values[A].data) == (records[k].sid, b"%d" % k)
        assert pools[0].turns._value == 32, "a task kept its turn"
        await driver.close()

    asyncio.run(run())


def test_more_tasks_than_connections(url: str, memcached_server: MemcachedServer) -> None:
    async def run() -> None:
        driver = AsyncMemcachedDriver.from_url(url)
        record = make_record()
        committed(await driver.create(record, START))
        found = await asyncio.gather(*(driver.load(record.digest, START) for _ in range(500)))
        assert all(isinstance(each, Record) for each in found)
        (pools,) = driver._loops.values()
        assert len(pools[0].idle) <= 32
        await driver.close()

    asyncio.run(run())


def test_each_loop_has_its_own_connections(url: str) -> None:
    """Also where a loop ends without closing the driver: its connections end with it, without a word."""
    driver = AsyncMemcachedDriver.from_url(url)
    record = make_record()

    async def create() -> None:
        committed(await driver.create(record, START))

    async def count() -> None:
        committed(await driver.commit(record.digest, Delta(increments={N: 1}), START))

    asyncio.run(create())
    for _ in range(3):
        asyncio.run(count())
        gc.collect()
    assert len(driver._loops) <= 1

    async def look() -> None:
        found = await driver.load(record.digest, START)
        assert isinstance(found, Record)
        assert found.values[N].data == 3
        await driver.close()
        await driver.close()

    asyncio.run(look())


# -- the wire


def replied(request: Request, reply: bytes, step: int) -> Any:
    _, parser = put(request)
    for start in range(0, len(reply), step):
        for found in feed(parser, reply[start : start + step]):
            assert start + step >= len(reply)
            return found
    pytest.fail("the reply was not complete")


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_replies_are_put_together_from_any_pieces(step: int) -> None:
    get = Get(0, ("a", "b"))
    assert replied(get, b"END\r\n", step) == {}
    assert replied(get, b"VALUE a 0 0 5\r\n\r\nEND\r\n", step) == {"a": Item(b"", 5)}
    both = b"VALUE b 0 5 12\r\nEND\r\n\r\nVALUE a 0 2 3\r\n\r\n\r\nEND\r\n"
    assert replied(get, both, step) == {"b": Item(b"END\r\n", 12), "a": Item(b"\r\n", 3)}
    store = Store(0, "a", b"x", 0, None)
    assert replied(store, b"STORED\r\n", step) is True
    for word in (b"NOT_STORED", b"EXISTS", b"NOT_FOUND"):
        assert replied(store, word + b"\r\n", step) is False
    assert replied(Touch(0, "a", 1), b"TOUCHED\r\n", step) is True
    assert replied(Delete(0, "a"), b"NOT_FOUND\r\n", step) is False
    assert replied(Lines(0, "stats"), b"STAT a 1\r\nkey=x\nEND\r\n", step) == ["STAT a 1", "key=x"]


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Get(0, ("a",)), b"VALUE b 0 1 5\r\nx\r\nEND\r\n"),  # somebody else's session
        (Get(0, ("a",)), b"STORED\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 1\r\nx\r\nEND\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 -1 5\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 1 5\r\nxyzEND\r\n"),
        (Get(0, ("a",)), b"END\r\nEND\r\n"),
        (Store(0, "a", b"x", 0, 1), b"END\r\n"),
        (Store(0, "a", b"x", 0, 1), b"STORED\r\nSTORED\r\n"),
        (Store(0, "a", b"x", 0, 1), b"SERVER_ERROR a\r\nSTORED\r\n"),
        (Store(0, "a", b"x", 0, 1), b"HTTP/1.1 400 Bad Request\r\n"),
        (Touch(0, "a", 1), b"\x00" * 5000),
    ],
)
def test_what_is_no_answer_is_recognized(request_: Request, reply: bytes) -> None:
    with pytest.raises(Garbled):
        replied(request_, reply, len(reply))


@pytest.mark.parametrize("reply", [b"ERROR", b"CLIENT_ERROR bad", b"SERVER_ERROR out of memory", b"BUSY crawling"])
def test_a_refusal_is_told(reply: bytes) -> None:
    for request in (Get(0, ("a",)), Store(0, "a", b"x", 0, 1), Lines(0, "stats")):
        with pytest.raises(Refused) as caught:
            replied(request, reply + b"\r\n", 1000)
        assert caught.value.said == reply.decode()


def test_another_kind_of_server(open_one: Callable[[str], Driver]) -> None:
    """Whoever listens there: what it says is an error, and never a session or none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        driver = open_one(f"memcached://127.0.0.1:{listener.getsockname()[1]}?timeout=1")

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DriverUnavailable, match="is it memcached"):
            driver.load(digest(), START)
        thread.join()
