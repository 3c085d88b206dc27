"""What a CGI script prints of cookies: on time, as often as asked, and nothing once its headers are out."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from web.session import Manager, SessionError, driver, manager

Connect = Callable[..., Any]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def script(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Manager]:
    """Make the manager of a script, within the test, whose output pytest gives an object of its own."""
    monkeypatch.setenv("HTTP_COOKIE", "")
    chosen = driver("database", "site", cursor=connect().cursor())
    return lambda: manager(chosen, autoCreate=1, cleanupProbability=0)


def cookies(printed: str) -> list[str]:
    return re.findall(r"^Set-Cookie: (.*)$", printed, re.MULTILINE)


HEADERS = {
    "one line and an empty one": ["Content-type: text/html\n\n"],
    "the empty line by itself": ["Content-type: text/html\n", "\n"],
    "in three pieces": ["Content-type: text/html", "\n", "\n"],
    "with carriage returns": ["Content-type: text/html\r\n", "X: y\r\n\r\n"],
    "and a body in one": ["Content-type: text/html\n\n<html>\n"],
    "letter by letter": list("A: b\n\n"),
}
NO_END = {
    "a header": ["Content-type: text/html\n", "X: y\n"],
    "a header in two pieces": ["Content-type:", "", " text/html\n", "", "X: y", "\n"],
    "nothing": [],
}

PRINTERS: dict[str, Callable[[Manager], object]] = {
    "setCookie": lambda m: m.setCookie(60, sendCookieHeaders=True),
    "deleteCookie": lambda m: m.deleteCookie(sendCookieHeaders=True),
    "sendCookieHeaders": lambda m: m.sendCookieHeaders(),
    "setExpire": lambda m: m.setExpire(m.expireTime + 5),
    "destroy": lambda m: m.destroy(ignoreWarning=True),
}


@pytest.mark.parametrize("act", PRINTERS)
@pytest.mark.parametrize("pieces", HEADERS)
def test_nothing_is_printed_once_the_headers_are_out(
    script: Callable[[], Manager], capsys: Capture, pieces: str, act: str
) -> None:
    session = script()
    session.create()
    session.setCookie(5)
    for piece in HEADERS[pieces]:
        sys.stdout.write(piece)
    assert session.closedHeaders
    before = list(session.sent_headers)
    capsys.readouterr()
    PRINTERS[act](session)
    assert capsys.readouterr().out == ""
    assert session.sent_headers == before


@pytest.mark.parametrize("act", PRINTERS)
@pytest.mark.parametrize("pieces", NO_END)
def test_headers_may_be_printed_around_it(
    script: Callable[[], Manager], capsys: Capture, pieces: str, act: str
) -> None:
    session = script()
    session.create()
    session.setCookie(5)
    for piece in NO_END[pieces]:
        sys.stdout.write(piece)
    capsys.readouterr()
    PRINTERS[act](session)
    assert not session.closedHeaders
    assert cookies(capsys.readouterr().out)
    assert session.sent_headers == session.response_headers


def test_create_after_the_headers_says_so(
    script: Callable[[], Manager], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    session = script()
    sys.stdout.write("Content-type: text/html\n\n")
    with pytest.raises(SessionError, match=r"^create: the response has started"):
        session.create()
    session.create(sendCookieHeaders=False)  # a script that passes the ID on by another way needs no cookie
    assert session.exists()
    assert cookies(capsys.readouterr().out) == []


def test_create_in_a_program_that_answers_no_request(script: Callable[[], Manager], capsys: Capture) -> None:
    session = script()
    sys.stdout.write("A report\n\n")
    session.create()
    assert session.exists()
    assert cookies(capsys.readouterr().out) == []


def test_a_manager_that_is_made_after_the_headers(script: Callable[[], Manager], capsys: Capture) -> None:
    script()
    sys.stdout.write("Content-type: text/html\n\n")
    script().create()
    assert cookies(capsys.readouterr().out) == []


def test_output_without_end_is_no_headers(script: Callable[[], Manager], capsys: Capture) -> None:
    session = script()
    for _ in range(1000):
        sys.stdout.write("one of many lines of a report that has no empty one, and is not kept in memory\n")
    assert session.closedHeaders


def lifetimes(printed: str) -> list[float]:
    return [float(found) for found in re.findall(r"Max-Age=(\d+)", printed)]


def test_the_cookie_follows_the_end(
    script: Callable[[], Manager], connect: Connect, capsys: Capture, monkeypatch: Any
) -> None:
    session = script()
    token = session.create(expire=50)
    assert lifetimes(capsys.readouterr().out) == [50]
    session.driver.connection.commit()

    monkeypatch.setenv("HTTP_COOKIE", f"site={token}")
    again = manager(driver("database", "site", cursor=connect().cursor()), cleanupProbability=0)
    assert again.load()
    assert capsys.readouterr().out == ""
    again.setExpire(again.expireTime + 500)
    printed = capsys.readouterr().out
    assert printed.startswith(f"Set-Cookie: site={token}; ")
    assert lifetimes(printed)[0] == pytest.approx(550, abs=60)
    assert again.sent_headers == again.response_headers
    again.setExpire(time.time() - 1)
    assert lifetimes(capsys.readouterr().out) == [0]


def test_what_the_script_asked_of_the_cookie_goes_on(connect: Connect, capsys: Capture, monkeypatch: Any) -> None:
    """A lifetime of its own, a deletion, no lifetime at all; and a cookie that it prints by itself."""
    monkeypatch.setenv("HTTP_COOKIE", "")
    made = driver("database", "site", cursor=connect().cursor())

    def printed(prepare: Callable[[Manager], object], **settings: Any) -> str:
        session = manager(made, autoCreate=1, cleanupProbability=0, **settings)
        prepare(session)
        capsys.readouterr()
        session.setExpire(session.expireTime + 7)
        return capsys.readouterr().out

    assert lifetimes(printed(lambda m: (m.create(), m.setCookie(60)))) == [60, 60]
    assert lifetimes(printed(lambda m: (m.create(), m.deleteCookie(sendCookieHeaders=True)))) == [0]
    assert lifetimes(printed(lambda m: m.create(), maxAge=33)) == [33]
    assert printed(lambda m: m.create(), maxAge=0) == ""
    by_itself = manager(made, cleanupProbability=0)
    by_itself.create(sendCookieHeaders=False)
    by_itself.setExpire(by_itself.expireTime + 7)
    assert capsys.readouterr().out == ""
    assert lifetimes(str(by_itself.response_headers)) == [86400, 86407]


def test_a_session_that_came_without_a_cookie_gets_none(script: Callable[[], Manager], capsys: Capture) -> None:
    session = script()
    token = session.create(sendCookieHeaders=False)
    session.driver.connection.commit()
    other = manager(session.driver, cleanupProbability=0)
    assert other.load(token)
    other.setExpire(other.expireTime + 5)
    assert capsys.readouterr().out == ""
