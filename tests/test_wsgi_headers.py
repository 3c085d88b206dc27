"""What the middleware adds to the headers, for caches and for clients: checklist B1, B15, C7, E1 and E2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import EventKind, Policy
from coatcheck.adapter import Saved
from coatcheck.headers import with_session
from coatcheck.token import Token

if TYPE_CHECKING:
    from tests.conftest import House, Site

Act = Callable[[Any], object]
Headers = list[tuple[str, str]]
PLAIN = [("Content-Type", "text/plain")]


def answering(act: Act, status: str = "200 OK", headers: Headers = PLAIN, *, stream: bool = False) -> Any:
    """An application that does *act* with its session and answers so."""

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start(status, list(headers))
        body = [] if status.startswith("304") else [b"x"]
        return iter(body) if stream else body

    return app


USES: dict[str, Act] = {
    "get": lambda s: s.get("nothing"), "getitem": lambda s: s["a"], "in": lambda s: "a" in s, "len": len,
    "iter": list, "keys": lambda s: list(s.keys()), "keys, not listed": lambda s: "a" in s.keys(),  # noqa: SIM118
    "values": lambda s: list(s.values()), "bool": bool, "==": lambda s: s == {}, "copy": lambda s: s.copy(),
    "write": lambda s: s.update(b=1), "write the same": lambda s: s.update(a=1), "del": lambda s: s.pop("a"),
    "clear": lambda s: s.clear(), "increment": lambda s: s.increment("n"), "store": lambda s: s.store("x").get("y"),
    "user": lambda s: s.user, "sid": lambda s: s.sid, "is_new": lambda s: s.is_new, "available": lambda s: s.available,
    "expires": lambda s: s.expires, "deadline": lambda s: s.expire_at(9e9), "login": lambda s: s.login("ann"),
    "logout": lambda s: s.logout(), "rotate": lambda s: s.rotate(),
}  # fmt: skip
NO_USES: dict[str, Act] = {
    "nothing": lambda _: None,
    "repr": repr,
    "store": lambda s: s.store("shop"),
    "app": lambda s: s.app,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "304 Not Modified", "500 Internal Server Error", "stream"])
@pytest.mark.parametrize("who", ["member", "stranger", "unknown"])
def test_whoever_looks_at_the_session_gets_vary_cookie(
    house: House, site: Callable[..., Site], use: Act, status: str, who: str
) -> None:
    client = house.visitor(a=1)
    cookie = {"member": client.cookie, "unknown": "__Host-sid=" + Token.new().secret}.get(who)
    act = (lambda s: s.setdefault("a", 1) and use(s)) if who != "member" else use
    headers: Headers = [] if status.startswith("304") else [*PLAIN, ("Location", "/")]
    app = answering(act, "200 OK" if status == "stream" else status, headers, stream=status == "stream")
    reply = site(house, app).get(cookie)
    assert reply.all("Vary") == ["Cookie"]


@pytest.mark.parametrize("end", ["revoked", "expired", "rotated"])
def test_whoever_looks_at_a_session_that_has_ended_gets_vary_cookie_too(
    house: House, site: Callable[..., Site], end: str
) -> None:
    client = house.visitor(a=1)
    cookie = client.cookie
    if end == "expired":
        house.clock.advance(8 * 86400)
    else:
        with client.request() as session:
            session.rotate() if end == "rotated" else session.logout()
    reply = site(house, answering(lambda session: session.get("a"))).get(cookie)
    assert (reply.all("Vary"), reply.cookie) == (["Cookie"], None)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_stranger_who_is_only_looked_for_gets_vary_cookie_too(
    house: House, site: Callable[..., Site], use: Act
) -> None:
    def act(session: Any) -> None:
        with suppress(KeyError):
            use(session)

    assert site(house, answering(act)).get().all("Vary") == ["Cookie"]


@pytest.mark.parametrize("use", NO_USES.values(), ids=NO_USES)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("member", [True, False])
def test_a_session_that_nobody_used_leaves_the_answer_as_it_is(
    house: House,
    site: Callable[..., Site],
    use: Act,
    stream: bool,  # noqa: FBT001
    member: bool,  # noqa: FBT001
) -> None:
    headers = [*PLAIN, ("Cache-Control", "public, max-age=60"), ("Vary", "Accept")]
    cookie = house.visitor(a=1).cookie if member else None
    reply = site(house, answering(use, headers=headers, stream=stream)).get(cookie)
    assert reply.headers == headers
    assert house.driver.asked == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["Cookie"]),
        (["Accept-Encoding"], ["Accept-Encoding, Cookie"]),
        (["Accept-Encoding", "Accept"], ["Accept-Encoding, Accept, Cookie"]),
        (["Accept-Encoding,Accept ,  Origin"], ["Accept-Encoding, Accept, Origin, Cookie"]),
        (["Cookie"], ["Cookie"]),
        (["cookie"], ["cookie"]),
        (["Accept, COOKIE"], ["Accept, COOKIE"]),
        (["Accept", "Cookie"], ["Accept", "Cookie"]),
        (["*"], ["*"]),
        (["Accept, *"], ["Accept, *"]),
        ([""], ["Cookie"]),
        (["X-Cookie"], ["X-Cookie, Cookie"]),
    ],
)
@pytest.mark.parametrize("name", ["Vary", "vary", "VARY"])
def test_vary_is_merged_with_what_the_application_says(
    house: House, site: Callable[..., Site], before: list[str], after: list[str], name: str
) -> None:
    headers = [*PLAIN, *((name, value) for value in before)]
    reply = site(house, answering(lambda s: s.get("a"), headers=headers)).get()
    assert reply.all("Vary") == after


@pytest.mark.parametrize("said", [["public, max-age=3600"], ["private"], ["no-cache", "max-age=0"], []])
@pytest.mark.parametrize("act", [lambda s: s.update(a=1), lambda s: s.login("ann")], ids=["write", "login"])
def test_with_a_cookie_goes_no_store_whatever_the_application_says(
    house: House, site: Callable[..., Site], said: list[str], act: Act
) -> None:
    headers = [
        *PLAIN, *(("cache-control", value) for value in said),
        ("Expires", "Thu, 01 Jan 2099 00:00:00 GMT"), ("Pragma", "cache"),
    ]  # fmt: skip
    reply = site(house, answering(act, headers=headers)).get()
    assert reply.cookie is not None
    assert reply.all("Cache-Control") == ["no-store"]
    assert reply.all("Expires") == reply.all("Pragma") == []


def test_a_deletion_is_not_cached_either(house: House, site: Callable[..., Site]) -> None:
    headers = [*PLAIN, ("Cache-Control", "public, max-age=60")]
    reply = site(house, answering(lambda s: s.logout(), headers=headers)).get(house.visitor(a=1).cookie)
    assert "Max-Age=0" in (reply.cookie or "")
    assert reply.all("Cache-Control") == ["no-store"]
    assert reply.all("Vary") == ["Cookie"]


def test_without_a_cookie_the_application_decides_over_caching(house: House, site: Callable[..., Site]) -> None:
    headers = [*PLAIN, ("Cache-Control", "private, max-age=60"), ("Expires", "0")]
    reply = site(house, answering(lambda s: s["a"], headers=headers)).get(house.visitor(a=1).cookie)
    assert reply.all("Cache-Control") == ["private, max-age=60"]
    assert reply.all("Expires") == ["0"]


def test_the_applications_own_cookies_stay(house: House, site: Callable[..., Site]) -> None:
    headers = [*PLAIN, ("Set-Cookie", "theme=dark"), ("Set-Cookie", "a=b")]
    reply = site(house, answering(lambda s: s.update(a=1), headers=headers)).get()
    assert reply.all("Set-Cookie")[:2] == ["theme=dark", "a=b"]
    assert len(reply.all("Set-Cookie")) == 3


def test_headers_of_the_application_are_not_changed_in_its_hands() -> None:
    headers = [("Vary", "Accept"), ("Cache-Control", "public")]
    before = list(headers)
    with_session(headers, Saved("__Host-sid=x", vary=True))
    assert headers == before


# -- C7: one cookie, whatever happened --------------------------------------------------------------------------------

MUCH: dict[str, Act] = {
    "log-in, rotation, write": lambda s: [s.login("ann"), s.rotate(), s.update(b=1), s.expire_at(9e9)],
    "write, then log-in": lambda s: [s.update(b=1), s.login("ann")],
    "twice in": lambda s: [s.login("ann"), s.login("bob")],
    "out and in": lambda s: [s.logout(), s.login("ann")],
    "out and written": lambda s: [s.logout(), s.update(b=1)],
    "in and out": lambda s: [s.login("ann"), s.logout()],
    "in, out, in": lambda s: [s.login("ann"), s.logout(), s.login("bob")],
    "out twice": lambda s: [s.logout(), s.logout()],
    "rotated and out": lambda s: [s.rotate(), s.logout()],
}


@pytest.mark.parametrize("act", MUCH.values(), ids=MUCH)
@pytest.mark.parametrize("member", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("policy", [Policy(), Policy(persistent=True, rotate_after=60)], ids=["default", "persistent"])
def test_one_answer_sets_the_cookie_once(
    build: Callable[..., House], site: Callable[..., Site], act: Act, policy: Policy,
    member: bool, stream: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    house = build(policy)
    cookie = house.visitor(a=1).cookie if member else None
    house.clock.advance(3600)
    reply = site(house, answering(act, stream=stream)).get(cookie)
    assert len(reply.all("Set-Cookie")) <= 1
    if reply.cookie is not None:
        names = [part.partition("=")[0].strip().lower() for part in reply.cookie.split(";")]
        assert len(names) == len(set(names))
        assert names[0] == "__host-sid"


# -- B1 and B15: nothing for those who have nothing -------------------------------------------------------------------


def test_1000_requests_of_strangers_leave_no_record_and_get_no_cookie(house: House, site: Callable[..., Site]) -> None:
    acts: list[Act] = [
        lambda s: s.get("a"), lambda s: s.logout(), lambda s: len(s), lambda s: s.rotate(),  # noqa: PLW0108
        lambda s: [s.get("a"), s.logout()], lambda s: s.pop("a", None), lambda s: s.clear(), lambda _: None,
        lambda s: s.expire_at(9e9), lambda s: [s.update(a=1), s.pop("a")],
    ]  # fmt: skip
    cookies: list[Callable[[], str | None]] = [
        lambda: None,
        lambda: "__Host-sid=" + Token.new().secret,
        lambda: "__Host-sid=; __Host-sid=x",
        lambda: "__Host-sid=malformed",
    ]
    for number in range(1000):
        act, cookie = acts[number % len(acts)], cookies[number // len(acts) % len(cookies)]()
        reply = site(house, answering(act), checked=False).get(cookie)
        assert reply.cookie is None
    assert house.driver.stored == 0
    assert house.driver._ended == {}
    assert set(house.driver.asked) == {"load", "commit", "rotate"}


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize(
    "write", [lambda s: s.update(b=1), lambda s: s.increment("b"), lambda s: s.update_with("b", lambda _: 1)]
)
def test_a_write_under_an_identifier_that_the_server_did_not_issue_goes_under_a_fresh_one(
    house: House,
    site: Callable[..., Site],
    write: Act,
    read_first: bool,  # noqa: FBT001
) -> None:
    given = Token.new()

    def act(session: Any) -> None:
        assert not read_first or session.get("a") is None
        write(session)

    reply = site(house, answering(act)).get(f"__Host-sid={given.secret}")
    assert reply.cookie is not None
    assert given.secret not in reply.cookie
    assert given.digest not in house.driver._digests
    assert house.driver.stored == 1
    assert house.kinds() == {EventKind.UNKNOWN_ID: 1, EventKind.CREATED: 1}
    issued = Token(reply.cookie.partition(";")[0].partition("=")[2])
    assert issued.digest in house.driver._digests
    assert house.client().cookie is None


def test_a_log_in_under_an_identifier_that_the_server_did_not_issue_goes_under_a_fresh_one(
    house: House, site: Callable[..., Site]
) -> None:
    given = Token.new()
    reply = site(house, answering(lambda s: s.login("ann"))).get(f"__Host-sid={given.secret}")
    assert given.secret not in (reply.cookie or given.secret)
    assert given.digest not in house.driver._digests
    assert house.kinds()[EventKind.UNKNOWN_ID] == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"QUERY_STRING": "sid={t}&__Host-sid={t}&PHPSESSID={t}"},
        {"SCRIPT_NAME": "", "PATH_INFO": "/page;sid={t};jsessionid={t}"},
        {"HTTP_X_SESSION_ID": "{t}"},
        {"HTTP_AUTHORIZATION": "Bearer {t}"},
        {"HTTP_REFERER": "https://example.org/?sid={t}"},
        {"HTTP_COOKIE2": "__Host-sid={t}"},
        {"HTTP_COOKIE": "sid={t}; Host-sid={t}; __Secure-sid={t}"},
    ],
    ids=lambda environ: [*environ][-1],
)
def test_a_token_counts_in_the_cookie_alone(house: House, site: Callable[..., Site], environ: dict[str, str]) -> None:
    client = house.visitor(a=1)
    seen: list[dict[str, Any]] = []
    app = answering(lambda s: seen.append(dict(s)))
    site(house, app).get(**{name: value.format(t=client.secret) for name, value in environ.items()})
    assert seen == [{}]
    assert house.driver.asked == []
