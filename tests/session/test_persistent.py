"""The persistent cookie: it outlives an idle session and no other limit. A new token or a new end sends it again.

A touch never sends it: beside a log-in of the same browser, the cookie that arrives last would hold a dead token.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from coatcheck import Policy, Session
from coatcheck.record import touch_interval

if TYPE_CHECKING:
    from tests.conftest import Client, House

HOUR, DAY = 3600.0, 86400.0
POLICY = Policy(persistent=True, idle=HOUR, absolute=12 * HOUR)


def _age(client: Client) -> int | None:
    """The Max-Age of the last answer, or None where it brought no cookie."""
    reply = client.replies[-1]
    if reply is None:
        return None
    found = re.search(r"; Max-Age=(\d+);", reply)
    assert found is not None
    return int(found[1])


def test_max_age_is_what_the_session_can_live(build: Callable[..., House]) -> None:
    assert _age(build(POLICY).visitor(a=1)) == 12 * HOUR
    assert _age(build(Policy(persistent=True)).visitor(a=1)) == 30 * DAY
    assert _age(build(Policy(persistent=True, idle=HOUR, absolute="never")).visitor(a=1)) == 400 * DAY
    assert _age(build(Policy(persistent=True, idle="never", absolute="never")).visitor(a=1)) == 400 * DAY
    assert _age(build(Policy(persistent=True, absolute=HOUR)).visitor(a=1)) == HOUR


def test_without_persistent_there_is_no_max_age_and_no_second_cookie(build: Callable[..., House]) -> None:
    house = build(Policy(idle=HOUR))
    client = house.visitor(a=1)
    house.clock.advance(HOUR / 2)
    client.read()
    assert client.replies[-1] is None
    assert "Max-Age" not in (client.replies[0] or "")
    assert "Expires" not in (client.replies[0] or "")


def test_a_touch_sends_no_cookie(build: Callable[..., House]) -> None:
    house = build(POLICY)
    client = house.visitor(a=1)
    for advance in (1, touch_interval(HOUR) - 2, 1, 1, 600):
        house.clock.advance(advance)
        assert client.read() == {"a": 1}
        assert _age(client) is None
    assert house.driver.asked.count("commit") == 2


def test_a_touch_beside_a_log_in_leaves_the_browser_logged_in(build: Callable[..., House]) -> None:
    house = build(POLICY)
    client = house.visitor(a=1)
    house.clock.advance(touch_interval(HOUR))
    slow = client.twin()
    slow_session = slow.open()
    assert slow_session["a"] == 1
    touched = slow.answer(slow_session)  # acknowledged first, and its answer arrives last
    with client.request() as session:
        session.login("ann")
    assert touched.set_cookie is None
    assert client.open().user == "ann"


def test_the_cookie_of_a_session_without_limits_is_sent_again_before_browsers_drop_it(
    build: Callable[..., House],
) -> None:
    house = build(Policy(persistent=True, idle=30 * DAY, absolute="never"))
    client = house.visitor(a=1)
    ages = []
    for _ in range(15):
        house.clock.advance(20 * DAY)
        assert client.read() == {"a": 1}
        ages.append(_age(client))
    assert ages == [None] * 10 + [400 * DAY] * 5


def test_a_write_does_not_send_the_cookie_by_itself(build: Callable[..., House]) -> None:
    house = build(POLICY)
    client = house.visitor(a=1)
    with client.request() as session:
        session["a"] = session["a"] + 1
    assert _age(client) is None
    with client.request() as session:
        session["b"] = 1
    assert _age(client) is None


@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
def test_a_change_of_the_deadline_sends_it(build: Callable[..., House], read_first: bool) -> None:  # noqa: FBT001
    house = build(POLICY)
    client = house.visitor(a=1)
    with client.request() as session:
        assert not read_first or session["a"] == 1
        session.expire_at(house.clock.now + 100)
    assert _age(client) == 100
    house.clock.advance(99)
    with client.request() as session:
        assert session["a"] == 1
        session.expire_at(house.clock.now + 600)
    assert _age(client) == 600


def test_a_cookie_whose_end_did_not_move_is_not_sent_again(build: Callable[..., House]) -> None:
    # The absolute limit is nearer than the idle one, so activity moves nothing.
    house = build(Policy(persistent=True, absolute=10 * HOUR))
    client = house.visitor(a=1)
    assert _age(client) == 10 * HOUR
    for _ in range(8):
        house.clock.advance(HOUR)
        assert client.read() == {"a": 1}
        assert _age(client) is None
    assert house.driver.asked.count("commit") == 8  # the activity is recorded all the same


def test_a_log_in_and_a_rotation_bring_the_new_max_age(build: Callable[..., House]) -> None:
    house = build(POLICY)
    client = house.visitor(a=1)
    house.clock.advance(HOUR / 2)
    with client.request() as session:
        session.login("ann")
    assert _age(client) == 12 * HOUR
    house.clock.advance(100)
    with client.request() as session:
        assert session.user == "ann"
        session.rotate()
    assert _age(client) == 12 * HOUR - 100


@pytest.mark.parametrize(
    ("act", "age"),
    [
        (lambda session: session.rotate(), 12 * HOUR),
        (lambda session: session.login("ann"), 12 * HOUR),
        (lambda session: [session.rotate(), session.expire_at(9e9)], 12 * HOUR),
        (lambda session: [session.login("ann"), session.expire_at(1_800_000_100)], 100),
    ],
)
def test_a_new_token_for_a_session_that_the_application_did_not_read_lives_as_long_as_the_session(
    build: Callable[..., House], act: Callable[[Session], object], age: float
) -> None:
    client = build(POLICY).visitor(a=1)
    with client.request() as session:
        act(session)
    assert _age(client) == age


def test_a_token_that_was_renewed_is_never_sent_again(build: Callable[..., House]) -> None:
    house = build(Policy(persistent=True, idle=HOUR, rotate_after=600, grace=300))
    client = house.visitor(a=1)
    old = client.twin()
    house.clock.advance(600)
    client.read()
    assert client.cookie != old.cookie
    house.clock.advance(200)  # the touch is due again, and the old token still works
    with old.request() as session:
        assert session["a"] == 1
        session.expire_at(house.clock.now + 1000)
    assert old.replies == [None]
    assert client.read() == {"a": 1}


def test_a_log_out_deletes_the_persistent_cookie(build: Callable[..., House]) -> None:
    house = build(POLICY)
    client = house.visitor(a=1)
    with client.request() as session:
        session.logout()
    assert _age(client) == 0
    assert client.cookie is None
