"""Memcached: lost swaps are decided anew, tombstones hold, and creations that come late open nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from memcached_items import before_swaps
from pymemcache.client.base import Client
from stored import A, B, N, data_of
from testservers.engines import with_options

from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached.requests import Get, Request, StoreItem
from coatcheck.errors import CounterOverflow, DriverUnavailable
from coatcheck.record import COUNTER_MAX, Conflict, Delta, Gone, Missing, Reason
from coatcheck.testing import Blocking, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts, started, successor


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
    assert [type(request) for request in asked] == [StoreItem]
    asked.clear()
    committed(driver.commit(record.digest, Delta(puts=puts({A: b"c"}).puts, basis=found.basis), START))
    assert [type(request) for request in asked] == [StoreItem, Get, StoreItem], "lost once, and read again"


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
