"""Periodic rotation: a new token now and then, and nobody is logged out by it, not even by a reply that was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from coatcheck import EventKind, Policy
from coatcheck.session import close_headers

if TYPE_CHECKING:
    from tests.conftest import Client, House

HOUR, GRACE = 3600.0, 30.0
POLICY = Policy(rotate_after=HOUR, grace=GRACE)


def _due(build: Callable[..., House], policy: Policy = POLICY) -> tuple[House, Client]:
    """A client whose token is due for renewal."""
    house = build(policy)
    client = house.client()
    with client.request() as session:
        session.login("ann")
        session["a"] = 1
    house.forget()
    house.clock.advance(HOUR)
    return house, client


def test_a_token_in_use_is_renewed_after_its_time_and_not_before(build: Callable[..., House]) -> None:
    house, client = _due(build)
    first = client.cookie
    house.clock.advance(-1)
    assert client.read() == {"a": 1}
    assert client.cookie == first
    house.clock.advance(1)
    with client.request():
        pass  # a request that does not use the session renews nothing
    assert client.cookie == first
    assert client.read() == {"a": 1}
    second = client.cookie
    assert second != first
    assert client.read() == {"a": 1}
    assert client.cookie == second
    house.clock.advance(HOUR)
    assert client.read() == {"a": 1}
    assert client.cookie not in (first, second)
    assert house.kinds()[EventKind.RENEWED] == 2
    with client.request() as session:
        assert session.user == "ann"


def test_a_renewal_carries_the_change_of_its_request_in_one_operation(build: Callable[..., House]) -> None:
    house, client = _due(build)
    with client.request() as session:
        session["a"] += 1
        session["b"] = 2
    assert house.driver.asked == ["load", "rotate"]
    assert client.read() == {"a": 2, "b": 2}


def test_a_write_that_reads_nothing_renews_too(build: Callable[..., House]) -> None:
    house, client = _due(build)
    before = client.cookie
    with client.request() as session:
        session["b"] = 2
    assert house.driver.asked == ["load", "rotate"]
    assert client.cookie != before
    assert client.read() == {"a": 1, "b": 2}


@pytest.mark.parametrize("order", ["all read, then all answer", "one after another", "in threads"])
def test_of_20_requests_at_once_none_is_logged_out_and_one_renews(build: Callable[..., House], order: str) -> None:
    house, client = _due(build)
    old = client.cookie
    twins = [client.twin() for _ in range(20)]

    def work(number: int) -> None:
        with twins[number].request() as session:
            assert session.user == "ann"
            session[f"key {number}"] = number

    if order == "in threads":
        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif order == "one after another":
        for number in range(20):
            work(number)
    else:
        sessions = [twin.open() for twin in twins]
        assert [session.user for session in sessions] == ["ann"] * 20
        for number, (twin, session) in enumerate(zip(twins, sessions, strict=True)):
            session[f"key {number}"] = number
            twin.answer(session)
    sent = [twin.cookie for twin in twins if twin.replies[-1] is not None]
    assert len(sent) == 1
    assert house.kinds()[EventKind.RENEWED] == 1
    assert house.kinds()[EventKind.GONE] == 0
    for cookie in (old, sent[0]):
        client.cookie = cookie
        assert client.read() == {"a": 1} | {f"key {number}": number for number in range(20)}
    assert house.driver.stored == 1


def test_the_old_token_works_until_the_grace_after_the_new_one_was_used_and_then_is_dead(
    build: Callable[..., House],
) -> None:
    house, client = _due(build)
    old = client.twin()
    client.read()
    house.clock.advance(10 * GRACE)
    client.read()  # the new token is used for the first time
    house.clock.advance(GRACE - 1)
    assert old.read() == {"a": 1}
    assert old.replies == [None]
    house.clock.advance(1)
    assert old.read() == {}
    assert old.replies == [None, None]
    assert house.kinds()[EventKind.GONE] == 1
    assert client.read() == {"a": 1}


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_after_a_lost_reply_the_next_request_brings_another_successor(build: Callable[..., House], lost: int) -> None:
    house, client = _due(build)
    old = client.cookie
    answers = set()
    for _ in range(lost):
        with client.request() as session:
            assert session["a"] == 1
        assert client.cookie != old
        answers.add(client.cookie)
        client.cookie = old  # the reply never came
        house.clock.advance(GRACE)
    assert client.read() == {"a": 1}
    assert client.cookie not in (old, *answers)
    assert len(answers) == lost
    assert client.read() == {"a": 1}
    for cookie in answers:  # whoever has a reply that was replaced has nothing
        stale = client.twin()
        stale.cookie = cookie
        assert stale.read() == {}


def test_what_the_same_request_writes_later_does_not_confirm_the_successor(build: Callable[..., House]) -> None:
    """A body that streams goes on to write after the headers: that does not say that the client has the new token."""
    house, client = _due(build)
    session = client.open()
    assert session["a"] == 1
    assert house.manager.save(session).set_cookie is not None  # and the client never gets it
    close_headers(session)
    session["progress"] = 1
    assert house.manager.save(session).set_cookie is None
    house.clock.advance(2 * GRACE)
    assert client.read() == {"a": 1, "progress": 1}


def test_within_the_grace_a_lost_reply_is_not_yet_replaced(build: Callable[..., House]) -> None:
    house, client = _due(build)
    old = client.twin()
    client.read()
    house.clock.advance(GRACE - 1)
    assert old.read() == {"a": 1}
    assert old.replies == [None]


def test_a_successor_that_was_used_is_not_replaced(build: Callable[..., House]) -> None:
    house, client = _due(build)
    old = client.twin()
    client.read()
    client.read()
    house.clock.advance(GRACE - 1)
    assert old.read() == {"a": 1}
    assert old.replies == [None]
    assert client.read() == {"a": 1}


def test_a_log_out_with_the_old_token_in_its_grace_ends_the_session(build: Callable[..., House]) -> None:
    house, client = _due(build)
    old = client.twin()
    client.read()
    with old.request() as session:
        session.logout()
    assert client.read() == {}
    assert house.driver.stored == 0


def test_a_log_in_with_the_old_token_in_its_grace_kills_both(build: Callable[..., House]) -> None:
    house, client = _due(build)
    old = client.twin()
    before = old.cookie
    client.read()
    with old.request() as session:
        session.login("ann", keep=["a"])
    assert client.read() == {}
    assert old.read() == {"a": 1}
    old.cookie = before
    assert old.read() == {}
    assert house.driver.stored == 1


def test_a_rotation_by_hand_leaves_no_grace(build: Callable[..., House]) -> None:
    house, client = _due(build)
    old = client.twin()
    with client.request() as session:
        session.rotate()
    assert old.read() == {}
    assert client.read() == {"a": 1}
    assert house.kinds()[EventKind.RENEWED] == 1


def test_without_grace_a_renewal_still_logs_nobody_out(build: Callable[..., House]) -> None:
    _, client = _due(build, Policy(rotate_after=HOUR, grace=0))
    one, two = client.twin(), client.twin()
    first, second = one.open(), two.open()
    assert (first["a"], second["a"]) == (1, 1)
    one.answer(first)
    two.answer(second)
    assert one.read() == {"a": 1}


def test_a_host_whose_grace_is_0_rotates_an_old_token_no_second_time(build: Callable[..., House]) -> None:
    """Its new settings come while an old token is in the grace that it was given."""
    house, client = _due(build)
    old = client.twin()
    client.read()
    client.read()  # which confirms the new token
    house.clock.advance(1)
    old.house = build(Policy(rotate_after=HOUR, grace=0), driver=house.driver, clock=house.clock)
    house.forget()
    with old.request() as session:
        session["a"] += 1
    assert house.driver.asked == ["load", "rotate", "commit"]
    assert client.read() == {"a": 2}


def test_by_default_a_token_lives_as_long_as_its_session(house: House) -> None:
    client = house.visitor(a=1)
    before = client.cookie
    for _ in range(29):
        house.clock.advance(86400)
        assert client.read() == {"a": 1}
    assert client.cookie == before


def test_a_token_first_used_when_the_next_is_due_gives_the_one_before_its_grace(build: Callable[..., House]) -> None:
    house = build(Policy(rotate_after=600, grace=30))
    client = house.visitor(a=1)
    old = client.twin()
    house.clock.advance(600)
    client.read()
    assert client.cookie != old.cookie
    house.clock.advance(600)
    house.forget()
    assert client.read() == {"a": 1}
    assert [operation for operation in house.driver.asked if operation != "load"] == ["commit"]  # not rotated again
    house.clock.advance(29)
    assert old.read() == {"a": 1}
    assert client.read() == {"a": 1}  # another rotation would take the rest of the grace away
    assert client.replies[-1] is None
    house.clock.advance(1)
    assert client.read() == {"a": 1}
    assert client.replies[-1] is not None
    assert old.read() == {}
