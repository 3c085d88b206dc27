"""Exactly one Set-Cookie for the session leaves a response, and it says what it has to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coatcheck.testing import Clock

Build = Callable[..., Any]
Request = Any


def attributes(cookie: str) -> list[str]:
    return cookie.split("; ")[1:]


@pytest.mark.parametrize(
    ("scheme", "settings", "name", "expected"),
    [
        ("http", {}, "testEnv", ["Path=/", "HttpOnly", "SameSite=Lax"]),
        ("https", {}, "__Host-testEnv", ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"]),
        ("http", {"path": "/a"}, "testEnv", ["Path=/a", "HttpOnly", "SameSite=Lax"]),
        ("https", {"path": "/a"}, "__Secure-testEnv", ["Path=/a", "Secure", "HttpOnly", "SameSite=Lax"]),
        (
            "https",
            {"domain": "example.org"},
            "__Secure-testEnv",
            ["Path=/", "Domain=example.org", "Secure", "HttpOnly", "SameSite=Lax"],
        ),
        ("http", {"domain": "example.org"}, "testEnv", ["Path=/", "Domain=example.org", "HttpOnly", "SameSite=Lax"]),
        (
            "https",
            {"cookie": {"path": "/b", "domain": "example.net", "comment": "c", "max-age": 7}, "path": "/a"},
            "__Secure-testEnv",
            ["Path=/b", "Domain=example.net", "Secure", "HttpOnly", "SameSite=Lax"],
        ),
        ("http", {"comment": "hello", "seed": "x"}, "testEnv", ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ],
)
def test_name_and_attributes(
    build: Build, scheme: str, settings: dict[str, Any], name: str, expected: list[str]
) -> None:
    browser = build(**settings).browser()
    cookie = browser.get(lambda request: request.store.set("a", 1), scheme=scheme).cookie
    assert cookie.startswith(f"{name}=")
    lifetime, *others = attributes(cookie)
    assert lifetime == ("Max-Age=7" if "cookie" in settings else "Max-Age=100")
    assert others == expected
    assert browser.get(lambda request: request.store["a"], scheme=scheme).body == b"1"
    deletion = browser.get(lambda request: request.manager.destroy(ignoreWarning=True), scheme=scheme).cookie
    assert deletion.startswith(f"{name}=; Max-Age=0; ")
    assert attributes(deletion)[2:] == expected


def test_over_https_the_plain_name_is_not_read(site: Any) -> None:
    browser = site.browser(a=1)
    assert browser.get(lambda request: request.manager.load(), scheme="https").body == b"False"


@pytest.mark.parametrize(("max_age", "expected"), [(None, "Max-Age=100"), (0, None), (33, "Max-Age=33")])
def test_max_age(build: Build, max_age: int | None, expected: str | None) -> None:
    browser = build(maxAge=max_age).browser()
    cookie = browser.get(lambda request: request.store.set("a", 1)).cookie
    assert [each for each in attributes(cookie) if each.startswith("Max-Age")] == ([expected] if expected else [])
    longer = browser.get(lambda request: request.manager.setExpire(request.manager.expireTime + 50)).cookies()
    assert [each.split("; ")[1] for each in longer] == {None: ["Max-Age=150"], 0: [], 33: ["Max-Age=33"]}[max_age]


def line_of(request: Request) -> tuple[str, str]:
    name, _, value = request.manager.setCookieString().partition(": ")
    return name, value


def append_all(request: Request) -> None:
    request.headers.extend(request.manager.response_headers)


# How an application may come by a cookie; each gives exactly one, with the session's ID
WAYS: dict[str, Callable[[Request], object]] = {
    "middleware alone": lambda _request: None,
    "response_headers[-1]": lambda request: request.append_cookie(),
    "twice": lambda request: (request.append_cookie(), request.append_cookie()),
    "setCookie": lambda request: request.manager.setCookie(),
    "setCookie, appended": lambda request: (request.manager.setCookie(), request.append_cookie()),
    "all of them": lambda request: (request.manager.setCookie(5), request.manager.setCookie(), append_all(request)),
    "setCookieString": lambda request: request.headers.append(line_of(request)),
    "in small letters": lambda request: request.headers.append(("set-cookie", line_of(request)[1])),
    "by hand": lambda request: request.headers.append(("Set-Cookie", f"testEnv={request.manager.sessionID}")),
    "and others": lambda request: (request.append_cookie(), request.headers.append(("Set-Cookie", "other=1; Path=/x"))),
}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("what", ["new", "known", "extended"])
@pytest.mark.parametrize("way", WAYS)
def test_exactly_one_cookie(site: Any, clock: Clock, way: str, what: str, *, commits: bool) -> None:
    browser = site.browser() if what == "new" else site.browser(a=1)
    tokens: list[str] = []

    def handler(request: Request) -> None:
        tokens.append(request.manager.sessionID)
        if what == "extended":
            request.manager.setExpire(request.manager.expireTime + 50)
        if what == "new" or request.manager.response_headers or "response_headers" not in way:
            if what != "new" and way in ("twice", "and others"):
                request.manager.setCookie()
            WAYS[way](request)
        if commits:
            request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    ours = answer.cookies("testEnv")
    silent = what == "known" and way in ("middleware alone", "response_headers[-1]")
    assert len(ours) == (0 if silent else 1)
    for cookie in ours:
        assert cookie.startswith(f"testEnv={tokens[0]}; " if way != "by hand" else f"testEnv={tokens[0]}")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes(cookie))
        if way != "by hand":
            assert f"Max-Age={150 if what == 'extended' else 100}" in attributes(cookie)
        assert answer.header("Cache-Control") == "no-store"
    assert answer.cookies("other") == (["other=1; Path=/x"] if way == "and others" else [])


def test_a_cookie_that_is_older_than_the_expiry_is_made_anew(site: Any, clock: Clock) -> None:
    browser = site.browser(a=1)

    def handler(request: Request) -> None:
        request.headers.append(line_of(request))
        request.manager.setExpire(request.manager.expireTime + 50)

    assert "Max-Age=150" in attributes(browser.get(handler).cookie)

    def asked(request: Request) -> None:
        request.manager.setCookie()
        request.append_cookie()
        request.manager.setExpire(request.manager.expireTime + 50)

    assert "Max-Age=200" in attributes(browser.get(asked).cookie)


def test_a_lifetime_that_the_application_chose_stays(site: Any) -> None:
    browser = site.browser(a=1)
    assert "Max-Age=7" in attributes(browser.get(lambda request: request.manager.setCookie(7)).cookie)
    cookie = browser.get(lambda request: request.manager.setCookie(0)).cookie
    assert not any(each.startswith("Max-Age") for each in attributes(cookie))
    strict = f"testEnv={browser.token}; Max-Age=9; SameSite=Strict"
    cookie = browser.get(lambda request: request.headers.append(("Set-Cookie", strict)), scheme="http").cookie
    assert cookie == f"{strict}; Path=/; HttpOnly"


@pytest.mark.parametrize("append", [False, True])
def test_delete_cookie_leaves_the_session(site: Any, *, append: bool) -> None:
    browser = site.browser(a=1)
    jar = dict(browser.jar)

    def handler(request: Request) -> None:
        request.store["b"] = 2
        request.manager.deleteCookie()
        if append:
            request.append_cookie()

    assert "Max-Age=0" in attributes(browser.get(handler).cookie)
    assert browser.jar == {}
    browser.jar = jar
    assert browser.read() == {"a": 1, "b": 2}


@pytest.mark.parametrize("append", ["no", "old", "new", "both"])
@pytest.mark.parametrize("destroys", [False, True])
def test_after_a_change_of_the_id(site: Any, append: str, *, destroys: bool) -> None:
    browser = site.browser(a=1)
    new: list[str] = []

    def handler(request: Request) -> None:
        request.manager.setCookie()
        old = request.manager.response_headers[-1]
        if destroys:
            request.manager.destroy(ignoreWarning=True)
        request.manager.create()
        new.append(request.manager.sessionID)
        request.headers += {"no": [], "old": [old]}.get(append, [request.manager.response_headers[-1]])
        if append == "both":
            request.headers.append(old)

    answer = browser.get(handler)
    assert answer.cookie.startswith(f"testEnv={new[0]}; Max-Age=100; ")
    assert site.stored() == 2 - destroys


def test_other_cookies_are_left_alone(site: Any) -> None:
    others = ["a=1", "testenv=1; Path=/", "testEnv2=2; HttpOnly", "__Host-testEnv=3; Secure; Path=/"]
    answer = site.browser().get(
        lambda request: (request.headers.extend(("Set-Cookie", each) for each in others), request.store.set("a", 1))
    )
    assert [each for each in answer.cookies() if each in others] == others
    assert len(answer.cookies()) == 5


def test_two_environments_on_one_response(build: Build) -> None:
    from web.wsgi.environment import Environment  # noqa: PLC0415
    from web.wsgi.session import Session  # noqa: PLC0415

    def inner(app: Any) -> Any:
        return Environment(Session(app, app="in", setupEnvironment=True, cleanupProbability=0), "inner", "database")

    def middle(app: Any) -> Any:
        def keep(environ: Any, start_response: Any) -> Any:
            return app(environ, start_response)

        return keep

    outer: list[Any] = []

    def between(app: Any) -> Any:
        inside = inner(app)

        def wrapped(environ: Any, start_response: Any) -> Any:
            outer.append(environ["web.session.store"])
            return inside(environ, start_response)

        return wrapped

    site = build(inner=between, middle=middle)
    browser = site.browser()

    def handler(request: Request) -> None:
        request.store["who"] = "inner"
        outer[-1]["who"] = "outer"
        request.row("kept")
        request.connection.commit()

    answer = browser.get(handler)
    assert sorted(cookie.partition("=")[0] for cookie in answer.cookies()) == ["inner", "testEnv"]
    assert browser.get(lambda request: f"{request.store['who']} {outer[-1]['who']}").body == b"inner outer"
    assert site.rows() == ["kept"]


def test_a_destroyed_session_without_a_record_sends_nothing(site: Any) -> None:
    def handler(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True, sendCookieHeaders=False)
        request.append_cookie()

    answer = site.browser().get(handler)
    assert answer.failure is None
    assert answer.cookies() == []
    assert site.stored() == 0


def test_the_new_id_never_appears_on_an_error_page(build: Build) -> None:
    site = build(error=True)
    seen: list[str] = []

    def handler(request: Request) -> None:
        seen.append(request.manager.sessionID)
        raise ValueError(f"session {seen[0]} failed")

    answer = site.browser().get(handler)
    assert answer.status.startswith("500")
    assert b"failed" in answer.body
    assert seen[0].encode() not in answer.body
