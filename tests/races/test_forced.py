"""Two requests at once, forced: one request runs as a whole in the middle of another, between any two of its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest

from coatcheck import ConflictError, EventKind, Policy, Session
from coatcheck.headers import LOGIN_REFUSED

Site = Any
Browser = Any


def log_in(browser: Browser, user: str = "ada") -> None:
    browser.get(lambda session: session.login(user))


def test_two_writers_of_different_keys_both_survive(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(first=1))

    def slow(session: Session) -> None:
        assert session["first"] == 1
        browser.get(lambda other: other.update(second=other["first"] + 1))
        session["third"] = 3

    browser.get(slow)
    assert browser.read() == {"first": 1, "second": 2, "third": 3}


def test_two_appends_to_one_list_both_survive(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(cart=["hat"]))

    def slow(session: Session) -> None:
        session["cart"].append("scarf")
        browser.get(lambda other: other["cart"].append("umbrella"))

    browser.get(slow)
    assert browser.read() == {"cart": ["hat", "umbrella", "scarf"]}


def test_two_first_appends_to_a_missing_list_both_survive(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(here=True))

    def slow(session: Session) -> None:
        session.setdefault("cart", []).append("scarf")
        browser.get(lambda other: other.setdefault("cart", []).append("umbrella"))

    browser.get(slow)
    assert sorted(browser.read()["cart"]) == ["scarf", "umbrella"]


def test_increments_and_updates_are_exact(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(hits=1, total=100))

    def slow(session: Session) -> None:
        session.increment("hits", 10)
        session.update_with("total", lambda total: total * 2)
        browser.get(lambda other: (other.increment("hits"), other.update_with("total", lambda total: total + 1)))

    browser.get(slow)
    assert browser.read() == {"hits": 12, "total": 202}


def test_a_slow_reader_never_undoes_a_writer(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(step=1, seen=[]))

    def slow_reader(session: Session) -> None:
        assert dict(session) == {"step": 1, "seen": []}
        browser.get(lambda other: (other.update(step=2), other["seen"].append("x")))

    browser.get(slow_reader)
    assert browser.read() == {"step": 2, "seen": ["x"]}


def test_what_cannot_merge_goes_to_the_later_one_and_is_an_event(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(colour="red"))

    def slow(session: Session) -> None:
        assert session["colour"] == "red"
        browser.get(lambda other: other.update(colour=other["colour"] + "dish"))
        session["colour"] = "blue"

    browser.get(slow)
    assert browser.read() == {"colour": "blue"}
    assert [event.keys for event in site.events if event.kind is EventKind.CONFLICT] == [(("", "colour"),)]


def test_what_cannot_merge_is_an_error_where_the_policy_says_so(site: Site) -> None:
    site.policy = Policy(on_conflict="error")
    site.__post_init__()
    browser = site.browser()
    browser.get(lambda session: session.update(colour="red", other=1))

    def slow(session: Session) -> None:
        assert session["colour"] == "red"
        browser.get(lambda other: other.update(colour=other["colour"] + "dish"))
        session["colour"] = "blue"
        session["other"] = 2

    with pytest.raises(ConflictError) as caught:
        browser.get(slow)
    assert caught.value.keys == (("", "colour"),)
    assert browser.read() == {"colour": "reddish", "other": 1}


# -- a session that ends while a request is using it ------------------------------------------------------------------


def logout(site: Site, browser: Browser) -> None:
    browser.get(lambda session: session.logout(), keep_cookie=False)


def destroy_unread(site: Site, browser: Browser) -> None:
    browser.get(lambda session: session.destroy(), keep_cookie=False)


def revoke_user(site: Site, browser: Browser) -> None:
    # In a context of its own, as another request has it: one that revokes its own user goes on as after a log-out.
    assert Context().run(site.manager.revoke_user, "ada") == 1


def log_in_again(site: Site, browser: Browser) -> None:
    browser.get(lambda session: session.login("ada"), keep_cookie=False)


def rotate(site: Site, browser: Browser) -> None:
    browser.get(lambda session: session.rotate(), keep_cookie=False)


def expire(site: Site, browser: Browser) -> None:
    site.now += 7 * 86400


ENDERS: list[Callable[[Site, Browser], None]] = [logout, destroy_unread, revoke_user, log_in_again, rotate, expire]


def reader(session: Session, end: Callable[[], None]) -> object:
    before = dict(session)
    end()
    return before == dict(session)


def writer(session: Session, end: Callable[[], None]) -> object:
    session["count"] = session["count"] + 1
    end()
    session["more"] = "x" * 1000
    return session["count"] == 2


def appender(session: Session, end: Callable[[], None]) -> object:
    session["list"].append(2)
    end()
    return session["list"] == [1, 2]


def blind_writer(session: Session, end: Callable[[], None]) -> object:
    session["blind"] = True
    end()
    return session["blind"] is True


def incrementer(session: Session, end: Callable[[], None]) -> object:
    session.increment("count")
    end()
    return True


def clearer(session: Session, end: Callable[[], None]) -> object:
    session.clear()
    end()
    return dict(session) == {}


def rotator(session: Session, end: Callable[[], None]) -> object:
    session.rotate()
    end()
    return True


def reading_log_in(session: Session, end: Callable[[], None]) -> object:
    assert session.user == "ada"
    session.login("ada", keep=["list"])
    end()
    return session.user == "ada"


def reading_logout(session: Session, end: Callable[[], None]) -> object:
    assert session.user == "ada"
    session.logout()
    end()
    return True


IN_FLIGHT = [
    reader, writer, appender, blind_writer, incrementer, clearer, rotator, reading_log_in, reading_logout,
]  # fmt: skip


@pytest.mark.parametrize("end", ENDERS)
@pytest.mark.parametrize("in_flight", IN_FLIGHT)
def test_a_request_in_flight_never_revives_a_session_and_sends_no_cookie(
    site: Site, in_flight: Callable[..., object], end: Callable[..., None]
) -> None:
    browser = site.browser()
    log_in(browser)
    browser.get(lambda session: session.update(count=1, list=[1]))
    secret = browser.secret

    answer = browser.get(lambda session: in_flight(session, lambda: end(site, browser)), keep_cookie=False)

    if in_flight in (blind_writer, incrementer) and end is expire:
        # Nothing was read, so nothing is known of the expired session: the write is that of a new visitor.
        assert answer.set_cookies
    elif in_flight is reading_log_in and end is not revoke_user:
        # The user proved who they are: they get a session, and it is a new one.
        browser.secret = answer.set_cookies[0].partition(";")[0].partition("=")[2]
        assert browser.read() == ({"list": [1]} if end in (log_in_again, rotate) else {})
        site.manager.revoke_user("ada")
    elif in_flight is reading_logout and end in (log_in_again, rotate):
        # The logout ends the session under its new token too, and says so.
        assert "Max-Age=0" in answer.set_cookies[0]
        assert site.manager.sessions_of("ada") == []
    else:
        assert answer.set_cookies == []
    if in_flight is reading_log_in and end is revoke_user:
        assert (answer.status, answer.body) == ("409 Conflict", LOGIN_REFUSED)
    else:
        assert answer.status == "200 OK"
        assert answer.body == b"True", "the application got a clean result"
    assert not site.is_alive(secret)
    if end not in (log_in_again, rotate):
        assert site.manager.sessions_of("ada") == []


@pytest.mark.parametrize("end", [logout, destroy_unread, log_in_again, rotate])
@pytest.mark.parametrize("late", [blind_writer, incrementer, clearer, rotator])
def test_a_request_that_starts_just_after_the_end_sends_no_cookie(
    site: Site, late: Callable[..., object], end: Callable[..., None]
) -> None:
    browser = site.browser()
    log_in(browser)
    secret = browser.secret
    end(site, browser)
    browser.secret = secret
    answer = browser.get(lambda session: late(session, lambda: None), keep_cookie=False)
    assert answer.set_cookies == []
    assert not site.is_alive(secret)


@pytest.mark.parametrize("renew", [log_in_again, rotate])
@pytest.mark.parametrize("reads", [True, False])
def test_a_logout_with_a_token_that_was_just_renewed_ends_the_session(
    site: Site, renew: Callable[..., None], *, reads: bool
) -> None:
    browser = site.browser()
    log_in(browser)
    secret = browser.secret
    renew(site, browser)
    assert len(site.manager.sessions_of("ada")) == 1
    browser.secret = secret  # the browser sent this before the answer with the new token came
    browser.get(lambda session: (session.get("x") if reads else None, session.logout()))
    assert site.manager.sessions_of("ada") == []


def test_a_log_in_with_the_cookie_of_an_ended_session_gets_a_new_one(site: Site) -> None:
    browser = site.browser()
    log_in(browser)
    secret = browser.secret
    site.manager.revoke_user("ada")
    site.now += 1
    browser.get(lambda session: session.login("ada"))
    assert browser.secret != secret
    assert not site.is_alive(secret)
    assert site.is_alive(browser.secret)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("overlaps", [True, False])
def test_two_clicks_on_log_in_keep_the_cart(site: Site, *, overlaps: bool, looks: bool) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(cart=["hat"], other=1))
    visitor = browser.secret

    def log_in_with_cart(session: Session) -> None:
        if looks:
            session.get("cart")
        session.login("ada", keep=["cart"])

    def second(session: Session) -> None:
        log_in_with_cart(session)
        if overlaps:
            site.request(log_in_with_cart, visitor)

    if not overlaps:
        site.request(log_in_with_cart, visitor)  # the browser gives up this answer for the second one
    browser.get(second)
    assert browser.read() == {"cart": ["hat"]}


def test_another_users_log_in_gets_nothing_of_it(site: Site) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(cart=["hat"]))
    visitor = browser.secret
    browser.get(lambda session: session.login("ada", keep=["cart"]))
    browser.secret = visitor
    browser.get(lambda session: session.login("bob", keep=["cart"]))
    assert browser.read() == {}


@pytest.mark.parametrize("reads", [True, False])
def test_a_log_in_under_way_does_not_slip_through_a_revocation(site: Site, *, reads: bool) -> None:
    browser = site.browser()
    browser.get(lambda session: session.update(cart=["hat"]))

    def slow_log_in(session: Session) -> None:
        if reads:
            assert session.user is None
        session.login("ada", keep=["cart"])  # the password was right ...
        site.now += 0.5
        site.manager.revoke_user("ada")  # ... and is now another one

    answer = browser.get(slow_log_in)
    assert answer.set_cookies == []
    assert site.manager.sessions_of("ada") == []


def test_a_log_in_by_a_newcomer_does_not_slip_through_either(site: Site) -> None:
    def slow_log_in(session: Session) -> None:
        session.login("ada")
        site.now += 0.5
        site.manager.revoke_user("ada")

    answer = site.browser().get(slow_log_in)
    assert answer.set_cookies == []
    assert site.manager.sessions_of("ada") == []


def test_an_unknown_identifier_is_refused(site: Site) -> None:
    browser = site.browser()
    browser.secret = planted = "A" * 32
    for handler in (lambda session: session.update(a=1), lambda session: session.update(a=session.get("b"))):
        browser.secret = planted
        answer = browser.get(handler)
        assert len(answer.set_cookies) == 1
        assert browser.secret != planted
        assert not site.is_alive(planted)
        assert browser.read()["a"] in (1, None)
    assert {event.kind for event in site.events} >= {EventKind.UNKNOWN_ID}
