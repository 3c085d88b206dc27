"""Lifetimes: judged by the clock that was handed in, from limits that the session keeps; and what the facts say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from coatcheck import ConfigurationError, EventKind, Policy
from coatcheck.record import NEVER, touch_interval
from coatcheck.testing.helpers import START

if TYPE_CHECKING:
    from tests.conftest import House

HOUR, DAY = 3600.0, 86400.0


def test_the_facts_of_a_new_session_before_and_after_it_is_stored(house: House) -> None:
    start = house.clock.now
    client = house.client()
    session = client.open()
    facts = (session.is_new, session.sid, session.user, session.auth_time, session.created, session.seen)
    assert facts == (True, None, None, None, start, start)
    assert session.expires == start + 7 * DAY
    assert session.available
    session["a"] = 1
    assert session.is_new
    house.clock.advance(2)
    client.answer(session)
    assert len(session.sid or "") == 32
    assert (session.created, session.seen, session.expires) == (start, start + 2, start + 2 + 7 * DAY)
    assert house.driver.asked == ["create"]


def test_the_facts_of_a_stored_session(house: House) -> None:
    start = house.clock.now
    client = house.client()
    with client.request() as session:
        session.login("ann")
    house.clock.advance(100)
    with client.request() as again:
        facts = (again.is_new, again.user, again.auth_time, again.created, again.seen, again.expires, again.available)
        assert facts == (False, "ann", start, start, start, start + 7 * DAY, True)
        assert again.sid == session.sid


@pytest.mark.parametrize("policy", [Policy(), Policy.aal2(), Policy.aal3(), Policy(idle=1), Policy(absolute="never")])
def test_a_session_dies_when_its_idle_time_is_over_and_not_a_second_before(
    build: Callable[..., House], policy: Policy
) -> None:
    for late, lives in ((-0.5, True), (0, False), (1, False)):
        house = build(policy)
        client = house.visitor(a=1)
        house.clock.advance(policy.idle_seconds + late)
        with client.request() as session:
            assert session.is_new != lives
            assert dict(session) == ({"a": 1} if lives else {})
        assert house.kinds()[EventKind.EXPIRED] == (not lives)


@pytest.mark.parametrize("step", [60.0, 170.0, 1000.0])
def test_use_keeps_a_session_alive_up_to_one_touch_interval_short_of_its_idle_time(
    build: Callable[..., House], step: float
) -> None:
    house = build(Policy(idle=HOUR, absolute="never"))
    client = house.visitor(a=1)
    for _ in range(100):
        house.clock.advance(step)
        assert client.read() == {"a": 1}
    house.clock.advance(HOUR - touch_interval(HOUR) - 1)
    assert client.read() == {"a": 1}
    house.clock.advance(HOUR + 1)
    assert client.read() == {}


def test_a_session_dies_at_its_absolute_limit_however_busy_it_is(build: Callable[..., House]) -> None:
    house = build(Policy(idle=HOUR, absolute=12 * HOUR, rotate_after=HOUR))
    client = house.visitor(a=1)
    start = house.clock.now
    while house.clock.now < start + 12 * HOUR - 60:
        house.clock.advance(60)
        with client.request() as session:
            assert session["a"] == 1
            if house.clock.now % 600 == 0:
                session.rotate()
    house.clock.advance(60)
    assert client.read() == {}
    assert house.kinds()[EventKind.RENEWED] > 10


def test_only_a_log_in_starts_the_absolute_limit_again(build: Callable[..., House]) -> None:
    house = build(Policy(idle="never", absolute=10 * HOUR))
    client = house.visitor(a=1)
    house.clock.advance(9 * HOUR)
    with client.request() as session:
        session.rotate()
        assert session.expires == house.clock.now + HOUR
    with client.request() as session:
        session.login("ann", keep=["a"])
        assert session.expires == house.clock.now + 10 * HOUR
    house.clock.advance(9 * HOUR)
    with client.request() as session:
        assert session["a"] == 1
        session.login("ann", keep=["a"])
    house.clock.advance(10 * HOUR - 1)
    assert client.read() == {"a": 1}
    house.clock.advance(1)
    assert client.read() == {}


def test_limits_are_those_of_the_policy_under_which_the_session_was_made(build: Callable[..., House]) -> None:
    short = build(Policy(idle=HOUR))
    client = short.visitor(a=1)
    long = build(Policy(idle=30 * DAY), driver=short.driver, clock=short.clock)
    other = long.client()
    other.cookie = client.cookie
    with other.request() as session:
        assert session.expires == short.clock.now + HOUR
    short.clock.advance(HOUR)
    assert other.read() == {}


def test_never_is_never(build: Callable[..., House]) -> None:
    house = build(Policy(idle="never", absolute="never"))
    client = house.visitor(a=1)
    house.clock.advance(1000 * 365 * DAY)
    with client.request() as session:
        assert session["a"] == 1
        assert session.expires == NEVER


# -- deadlines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_first", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("new", [True, False], ids=["new", "stored"])
def test_a_deadline_ends_the_session_whatever_happens(house: House, read_first: bool, new: bool) -> None:  # noqa: FBT001
    client = house.client() if new else house.visitor(a=1)
    moment = house.clock.now + 100
    with client.request() as session:
        assert not read_first or dict(session) is not None
        session.expire_at(moment)
        if new:
            session["a"] = 1
        assert session.expires == moment
    house.clock.advance(99.5)
    with client.request() as session:
        assert session["a"] == 1
        assert session.expires == moment
    house.clock.advance(0.5)
    assert client.read() == {}


@pytest.mark.parametrize("passed", [0, 1, 50])
def test_a_deadline_that_has_passed_ends_the_session_when_it_is_saved(house: House, passed: float) -> None:
    client = house.visitor(a=1)
    house.clock.advance(50)
    with client.request() as session:
        session.expire_at(house.clock.now - passed)
    assert client.read() == {}
    assert house.kinds()[EventKind.EXPIRED] == 1


def test_a_deadline_can_be_moved_and_the_limits_go_on_beside_it(house: House) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        session.expire_at(house.clock.now + 100)
    with client.request() as session:
        session.expire_at(float("inf"))
        assert session.expires == house.clock.now + 7 * DAY
    house.clock.advance(200)
    assert client.read() == {"a": 1}
    house.clock.advance(7 * DAY)
    assert client.read() == {}


def test_a_deadline_alone_makes_no_session(house: House) -> None:
    client = house.client()
    with client.request() as session:
        session.expire_at(house.clock.now + 100)
    assert client.replies == [None]
    assert house.driver.asked == []


SPELLINGS: dict[str, Callable[[float], Any]] = {
    "int": int,
    "float": float,
    "datetime": lambda moment: datetime.fromtimestamp(moment, UTC),
    "datetime elsewhere": lambda moment: datetime.fromtimestamp(moment, ZoneInfo("Asia/Kathmandu")),
    "timedelta": lambda moment: timedelta(seconds=moment - START - 7),
}


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("new", [True, False], ids=["new", "stored"])
def test_a_deadline_has_three_spellings(house: House, spelt: Callable[[float], Any], new: bool) -> None:  # noqa: FBT001
    client = house.client() if new else house.visitor(a=1)
    moment = START + 3600
    session = client.open()
    house.clock.advance(7)  # a timedelta counts from now, and not from when the request came
    session.expire_at(spelt(moment))
    session["b"] = 1
    assert session.expires == moment
    client.answer(session)
    house.clock.now = moment - 1
    assert client.read()["b"] == 1
    house.clock.now = moment
    assert client.read() == {}


def test_a_timedelta_back_ends_the_session(house: House) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        session.expire_at(timedelta(days=-9999))
    assert client.read() == {}


@pytest.mark.parametrize("moment", [
    "soon", "3600", None, [1], float("nan"), True, False, 1j, Decimal(3), date(2030, 1, 1), datetime(2030, 1, 1),  # noqa: DTZ001
], ids=repr)  # fmt: skip
def test_what_is_no_moment_is_refused_by_one_error(house: House, moment: Any) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        with pytest.raises(ConfigurationError, match="a datetime with a time zone, or a timedelta from now, not"):
            session.expire_at(moment)
        assert session.expires == START + 7 * DAY
    assert client.read() == {"a": 1}


@pytest.mark.parametrize(
    "moment", [0, 1, 3600, 30 * DAY, -5.0, float("-inf"), START - 1, datetime(1999, 1, 1, tzinfo=UTC)]
)
@pytest.mark.parametrize("visitor", ["new", "stored", "read", "logged out"])
def test_a_moment_before_the_session_began_is_refused(house: House, moment: Any, visitor: str) -> None:
    client = house.client() if visitor == "new" else house.visitor(a=1)
    house.clock.advance(100)
    session = client.open()
    if visitor == "read":
        assert session["a"] == 1
    elif visitor == "logged out":
        session.logout()
    with pytest.raises(ConfigurationError, match=r"before the session began.*timedelta"):
        session.expire_at(moment)
    client.answer(session)
    assert client.read() == ({"a": 1} if visitor in ("stored", "read") else {})


def test_a_moment_since_the_request_came_needs_no_look(house: House) -> None:
    client = house.visitor(a=1)
    session = client.open()
    for moment in (START, START + 1, timedelta(seconds=-3), float("inf")):
        session.expire_at(moment)
    assert house.driver.asked == []


def test_large_numbers_are_never(house: House) -> None:
    with house.visitor(a=1).request() as session:
        for moment in (10**400, 1e300, float("inf"), timedelta.max, datetime.max.replace(tzinfo=UTC)):
            session.expire_at(moment)
            assert session.expires == START + 7 * DAY


# -- activity -------------------------------------------------------------------------------------------------------


def test_seen_moves_only_after_the_touch_interval_and_only_then_a_read_costs_a_write(
    build: Callable[..., House],
) -> None:
    house = build(Policy(idle=HOUR))
    interval = touch_interval(HOUR)
    client = house.visitor(a=1)
    start = house.clock.now
    for advance, asked, seen in (
        (interval - 1, ["load"], start),
        (1, ["load", "commit"], start + interval),
        (interval - 1, ["load"], start + interval),
        (1, ["load", "commit"], start + 2 * interval),
    ):
        house.clock.advance(advance)
        house.driver.calls.clear()
        assert client.read() == {"a": 1}
        assert house.driver.asked == asked
        with client.request() as session:
            assert session.seen == seen


def test_a_request_that_does_not_use_the_session_is_no_activity(build: Callable[..., House]) -> None:
    house = build(Policy(idle=HOUR))
    client = house.visitor(a=1)
    for _ in range(10):
        house.clock.advance(HOUR / 10)
        with client.request():
            pass
    assert house.driver.asked == []
    assert client.read() == {}


def test_a_write_is_activity_too_read_or_not(build: Callable[..., House]) -> None:
    for read_first in (True, False):
        house = build(Policy(idle=HOUR))
        client = house.visitor(a=0)
        for n in range(10):
            house.clock.advance(HOUR - 200)
            with client.request() as session:
                assert not read_first or session["a"] == n
                session["a"] = n + 1
        assert client.read() == {"a": 10}


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.get("a"), lambda s: "a" in s, len, list, lambda s: s.keys(), lambda s: s.sid,
        lambda s: s.user, lambda s: s.is_new, lambda s: s.available, lambda s: s.store("x").get("y"), bool,
    ],
)  # fmt: skip
def test_every_look_at_the_session_is_activity(build: Callable[..., House], use: Callable[[Any], object]) -> None:
    house = build(Policy(idle=HOUR))
    client = house.visitor(a=1)
    house.clock.advance(HOUR / 2)
    with client.request() as session:
        result = use(session)
        if result is not None and not isinstance(result, (int, str)):
            list(result)  # type: ignore[call-overload]
    assert house.driver.asked == ["load", "commit"]


def test_a_clock_that_goes_back_does_not_move_the_activity_back(build: Callable[..., House]) -> None:
    house = build(Policy(idle=HOUR))
    client = house.visitor(a=1)
    start = house.clock.now
    house.clock.advance(-1000)
    with client.request() as session:
        session["a"] = 2
    with client.request() as session:
        assert session.seen == start
    house.clock.advance(1000)
    assert client.read() == {"a": 2}


def test_an_expired_session_is_not_written_to_and_what_was_written_unread_goes_to_a_new_one(house: House) -> None:
    client = house.visitor(a=1)
    house.clock.advance(8 * DAY)
    before = client.cookie
    with client.request() as session:
        session["b"] = 2
    assert client.cookie != before
    assert client.read() == {"b": 2}
    assert house.kinds() == {EventKind.EXPIRED: 1, EventKind.CREATED: 1}
