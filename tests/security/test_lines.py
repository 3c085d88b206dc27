"""Lines of the security checklist that no other room of the suite covers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from coatcheck import CoatcheckError, Policy, SessionManager
from coatcheck.cookie import Channel, set_cookie
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.token import Token
from coatcheck.wsgi import SessionMiddleware


def ask(app: Any, cookie: str | None, **more: str) -> tuple[list[tuple[str, str]], bytes]:
    environ: dict[str, Any] = {"wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1", **more}
    setup_testing_defaults(environ)
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie
    sent: list[list[tuple[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        sent.append(headers)

    result = app(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        if close := getattr(result, "close", None):
            close()
    return sent[-1], body


def cookie_of(headers: Iterable[tuple[str, str]]) -> str | None:
    return next((value.partition(";")[0] for name, value in headers if name == "Set-Cookie"), None)


@pytest.mark.parametrize("storage", ["memory:", "sqlite"])
def test_b16_interleaved_requests_see_their_own_data_alone(  # noqa: C901 (an application and its visitors)
    storage: str, tmp_path: Path
) -> None:
    """1,000 requests of 40 visitors on 8 threads: lists, streams and failures, each sees what its visitor wrote."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session, who, kind = environ["coatcheck.session"], environ["WHO"], environ["KIND"]
        assert session.setdefault("who", who) == who
        session.increment("visits")
        if kind == "error":
            session["who"] = "nobody"
            raise RuntimeError(who)
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Who", who)])
        if kind == "list":
            return [session["who"].encode()]

        def stream() -> Iterator[bytes]:
            yield session["who"].encode()
            session["streamed"] = session["who"]

        return stream()

    url = storage if storage == "memory:" else f"sqlite:///{tmp_path}/s.db"
    site = SessionMiddleware(app, url)
    wrong: list[str] = []

    def visitor(name: str) -> None:
        cookie = None
        for turn in range(25):
            kind = ("list", "stream", "error")[turn % 3]
            try:
                headers, body = ask(site, cookie, WHO=name, KIND=kind)
            except Exception as error:  # noqa: BLE001 (whatever reaches a visitor is looked at)
                if repr(error) != repr(RuntimeError(name)):
                    wrong.append(f"{name} got {error!r}")
                continue
            cookie = cookie_of(headers) or cookie
            if body.decode() != name or ("X-Who", name) not in headers:
                wrong.append(f"{name} got {body!r}")

    names = [f"visitor-{number}" for number in range(40)]

    def thread(share: list[str]) -> None:
        for name in share:
            visitor(name)

    threads = [threading.Thread(target=thread, args=(names[start::8],)) for start in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    site.manager.close()
    assert wrong == []


def test_c9_the_largest_cookie_is_far_below_the_limit() -> None:
    policy = Policy(cookie_name="n" * 64, persistent=True)
    cookie = set_cookie(policy, Channel.SECURE, Token.new().secret, 400 * 86400)
    assert len(cookie.partition(";")[0].encode()) < 4096


def test_e2_a_cache_never_serves_one_visitors_cookie_to_another() -> None:
    """A shared cache that obeys RFC 9111, before an application that says its pages may be cached."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = environ["coatcheck.session"]
        if environ["PATH_INFO"] == "/write":
            session["visited"] = True
        name = str(session.get("name", "stranger"))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "public, max-age=3600")])
        return [name.encode()]

    site = SessionMiddleware(app, "memory:")
    stored: list[tuple[str, str | None, tuple[list[tuple[str, str]], bytes]]] = []

    def cached(path: str, cookie: str | None) -> tuple[list[tuple[str, str]], bytes]:
        for kept_path, kept_cookie, answer in stored:
            varies = "cookie" in str(dict(answer[0]).get("Vary", "")).lower()
            if kept_path == path and (not varies or kept_cookie == cookie):
                return answer
        answer = ask(site, cookie, PATH_INFO=path)
        if "no-store" not in dict(answer[0])["Cache-Control"]:
            stored.append((path, cookie, answer))
        return answer

    ada, bob = cookie_of(cached("/write", None)[0]), cookie_of(cached("/write", None)[0])
    assert ada is not None
    assert bob is not None
    assert ada != bob
    for cookie, name in ((ada, "ada"), (bob, "bob")):
        session = site.manager.open([cookie])
        session["name"] = name
        site.manager.save(session)
    assert [cached("/read", cookie)[1] for cookie in (ada, bob, None, ada)] == [b"ada", b"bob", b"stranger", b"ada"]
    assert len(stored) == 3, "the cache does cache"


def test_f9_names_that_look_alike_stay_apart(tmp_path: Path) -> None:
    """Keys and apps that differ in case, Unicode form or where they are cut are different values, on every driver."""
    names = [
        ("", "a"), ("", "A"), ("a", "b"), ("a.b", "c"), ("a", "b.c"), ("", "\u212a"), ("", "K"), ("", "k"),
        ("", "\u00e9"), ("", "e\u0301"), ("", "../x"), ("", "x y"), ("", "x\r\ny"), ("", "%2e"), ("", "a:b"),
    ]  # fmt: skip
    for storage in ("memory:", f"sqlite:///{tmp_path}/s.db"):
        manager = SessionManager(storage)
        session = manager.open([])
        for number, (app, key) in enumerate(names):
            (session.store(app) if app else session)[key] = number
        cookie = str(manager.save(session).set_cookie).partition(";")[0]
        again = manager.open([cookie])
        found = [(again.store(app) if app else again)[key] for app, key in names]
        assert found == list(range(len(names)))
        manager.close()


def test_f9_prefixes_cannot_reach_each_others_tables(tmp_path: Path) -> None:
    token = Token.new()
    one, other = (SQLiteDriver(tmp_path / "s.db", prefix=prefix) for prefix in ("a", "a_"))
    manager = SessionManager(one)
    session = manager.open([])
    session["x"] = 1
    cookie = str(manager.save(session).set_cookie).partition(";")[0]
    assert not SessionManager(other).open([cookie])
    assert token.secret not in str(cookie)
    one.close()
    other.close()


@pytest.mark.parametrize("late", ["login", "rotate", "write"])
def test_b2_a_session_first_used_after_the_headers_makes_no_token_that_nobody_gets(late: str) -> None:
    """A rotation whose cookie cannot be sent any more would log the visitor out."""
    manager = SessionManager("memory:")
    session = manager.open([])
    session["a"] = 1
    cookie = str(manager.save(session).set_cookie).partition(";")[0]
    raised: list[type] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        session = environ["coatcheck.session"]
        try:
            if late == "login":
                session.login("ada")
            elif late == "rotate":
                session.rotate()
            else:
                session["b"] = 2
        except CoatcheckError as error:
            raised.append(type(error))
        yield b"last"

    site = SessionMiddleware(app, manager)
    headers, body = ask(site, cookie)
    assert body == b"firstlast"
    assert cookie_of(headers) is None
    assert bool(raised) == (late != "write")
    assert dict(manager.open([cookie])) == ({"a": 1, "b": 2} if late == "write" else {"a": 1})
    ask(site, None)
    assert manager.sessions_of("ada") == []
