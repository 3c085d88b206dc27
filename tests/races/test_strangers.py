"""A dead cookie through the middleware: the double click on "log out", and log-ins that meet it.

tests/engines/test_strangers.py has every interleaving, on every kind of engine.
"""

from __future__ import annotations

from contextvars import Context
from typing import Any

import pytest

from coatcheck import Session
from coatcheck.headers import LOGIN_REFUSED
from coatcheck.record import REPLY_TIME

Site = Any
Browser = Any


def log_out(session: Session) -> None:
    session.logout()


def form(session: Session) -> str:
    """Answer with a form that a token in the session protects."""
    return str(session.setdefault("csrf", "a token"))


def logged_in(site: Site) -> Browser:
    browser = site.browser()
    browser.get(lambda session: session.login("ada"))
    site.now += 1
    return browser


def test_a_double_click_on_log_out(site: Site) -> None:
    browser = logged_in(site)
    dead = browser.secret
    answers = []

    def first(session: Session) -> None:
        session.logout()
        site.now += 0.05
        answers.append(browser.get(log_out, keep_cookie=False))  # the browser gives up one of the two answers

    answers.append(browser.get(first))
    deletion, nothing = (answer.set_cookies for answer in answers)
    assert "Max-Age=0" in deletion[0]
    assert nothing == []
    assert browser.secret == dead
    site.now += 0.05
    browser.get(form)
    assert browser.secret not in (None, dead)
    site.now += 1
    assert browser.get(lambda session: session["csrf"]).body == b"a token"
    assert not site.is_alive(dead)


def test_the_other_device_after_a_revocation(site: Site) -> None:
    phone, laptop = logged_in(site), logged_in(site)
    dead = phone.secret
    laptop.get(lambda session: site.manager.revoke_user("ada", keep=session))
    site.now += 0.05
    phone.get(form)
    assert phone.secret != dead
    assert phone.read() == {"csrf": "a token"}
    phone.get(lambda session: session.login("ada", keep=["csrf"]))
    assert phone.read() == {"csrf": "a token"}
    assert laptop.get(lambda session: session.user).body == b"ada"


def test_a_slow_anonymous_answer_leaves_a_log_in_alone(site: Site) -> None:
    browser = logged_in(site)
    dead = browser.secret
    browser.get(log_out)
    site.now += 0.05
    browser.secret = dead

    def slow(session: Session) -> None:
        form(session)
        site.now += 0.05
        browser.get(lambda other: other.login("ada"))

    late = site.request(slow, dead)
    assert late.set_cookies == []
    assert browser.get(lambda session: session.user).body == b"ada"
    assert site.request(form, dead).set_cookies == []  # sent before the cookie of the log-in arrived
    site.now += REPLY_TIME + 1
    assert len(site.request(form, dead).set_cookies) == 1


def test_a_page_that_writes_nothing_leaves_the_dead_cookie(site: Site) -> None:
    browser = logged_in(site)
    dead = browser.secret
    browser.get(log_out)
    site.now += 1
    assert site.request(lambda session: session.get("csrf"), dead).set_cookies == []
    assert site.request(log_out, dead).set_cookies == []


def test_what_streams_after_the_end_begins_nothing(site: Site) -> None:
    """A body cannot set a cookie any more, so what it writes would be kept for nobody."""
    browser = logged_in(site)
    dead = browser.secret
    browser.get(log_out)
    site.now += 1

    def streams(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"x"
        environ["coatcheck.session"]["note"] = 1

    answer = site.serve(streams, dead)
    assert answer.set_cookies == []
    assert browser.read() == {}


def _log_in(environ: dict[str, Any]) -> None:
    """Log in, and have the user revoked before the answer goes out, as another request does."""
    environ["coatcheck.session"].login("ada")
    environ["test.revoke"]()


def _returns(environ: dict[str, Any], start_response: Any) -> Any:
    _log_in(environ)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"Welcome, Ada"]


def _streams(environ: dict[str, Any], start_response: Any) -> Any:
    _log_in(environ)
    start_response("200 OK", [("Content-Type", "text/html")])
    yield b"Welcome, "
    yield b"Ada"


def _streams_nothing(environ: dict[str, Any], start_response: Any) -> Any:
    _log_in(environ)
    start_response("302 Found", [("Location", "/welcome")])
    yield from ()


def _writes(environ: dict[str, Any], start_response: Any) -> Any:
    _log_in(environ)
    write = start_response("200 OK", [("Content-Type", "text/html")])
    write(b"Welcome, ")
    write(b"Ada")
    return [b"!"]


@pytest.mark.parametrize("answer", [_returns, _streams, _streams_nothing, _writes])
def test_no_answer_says_that_a_refused_log_in_was_one(site: Site, answer: Any) -> None:
    def revoke() -> None:
        site.now += 1
        Context().run(site.manager.revoke_user, "ada")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["test.revoke"] = revoke
        return answer(environ, start_response)

    said = site.serve(app, None)
    assert (said.status, said.body) == ("409 Conflict", LOGIN_REFUSED)
    assert said.set_cookies == []
    assert site.manager.sessions_of("ada") == []


def test_a_refused_log_in_after_a_log_out_is_told_and_the_cookie_is_deleted(site: Site) -> None:
    browser = logged_in(site)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        session = environ["coatcheck.session"]
        session.logout()
        session.login("bob")
        site.now += 1
        Context().run(site.manager.revoke_user, "bob")
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"Welcome, Bob!"]

    said = site.serve(app, browser.secret)
    assert (said.status, said.body) == ("409 Conflict", LOGIN_REFUSED)
    (cookie,) = said.set_cookies
    assert "Max-Age=0" in cookie
    assert not site.is_alive(browser.secret)
    assert site.manager.sessions_of("bob") == []
