"""Several cookies of one name: what a browser keeps after a log-in, a log-out and a write, and what storage does.

A change of domain, path or partition leaves the old cookie in the browser beside the new one, and a sub-domain can
plant one. The jar tells cookies apart as browsers do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import pytest
from browsers import Jar

from coatcheck import AsyncSessionManager, Event, EventKind, Policy, Session, SessionManager
from coatcheck.adapter import Channel, Incoming, Saved
from coatcheck.wsgi import SessionMiddleware

Handler = Callable[[Session], Any]
Ask = Callable[[str, str | None, Handler], list[str]]


@dataclass
class Site:
    """One application under one policy, asked in one of three ways.

    Attributes:
        manager: What looks into storage, past the application.
        events: What happened.
        ask: Sends a request with a Cookie header; answers with the Set-Cookie headers.
    """

    manager: SessionManager
    events: list[Event]
    ask: Ask

    def user(self, secret: str, policy: Policy) -> str | None:
        """Give the user of a session, by its token."""
        looker = SessionManager(self.manager.driver, policy)
        return looker.open([f"__Host-sid={secret}"]).user


def _environ(url: str, cookie: str | None) -> dict[str, Any]:
    target = urlsplit(url)
    environ: dict[str, Any] = {
        "wsgi.url_scheme": target.scheme, "HTTP_HOST": target.netloc, "PATH_INFO": target.path, "SCRIPT_NAME": "",
    }  # fmt: skip
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie
    setup_testing_defaults(environ)
    return environ


def _lines(saved: Saved) -> list[str]:
    return [] if saved.set_cookie is None else [*saved.deletions, saved.set_cookie]


def _sync(manager: SessionManager) -> Ask:
    def ask(url: str, cookie: str | None, handler: Handler) -> list[str]:
        session = manager.open(Incoming.from_wsgi(_environ(url, cookie)))
        handler(session)
        return _lines(manager.save(session))

    return ask


def _wsgi(manager: SessionManager) -> Ask:
    def ask(url: str, cookie: str | None, handler: Handler) -> list[str]:
        sent: list[tuple[str, str]] = []

        def app(environ: Any, start_response: Any) -> list[bytes]:
            handler(environ["coatcheck.session"])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b""]

        def start(_status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Callable[[bytes], object]:
            sent.extend(headers)
            return lambda _data: None

        list(SessionMiddleware(app, manager)(_environ(url, cookie), start))
        lines = [value for name, value in sent if name == "Set-Cookie"]
        assert not lines or ("Cache-Control", "no-store") in sent
        return lines

    return ask


def _async(manager: AsyncSessionManager) -> Ask:
    async def asked(url: str, cookie: str | None, handler: Handler) -> list[str]:
        session = manager.open(Incoming.from_wsgi(_environ(url, cookie)))
        await session.load()
        handler(session)
        return _lines(await manager.save(session))

    return lambda url, cookie, handler: asyncio.run(asked(url, cookie, handler))


@pytest.fixture(params=["sync", "async", "wsgi"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Policy], Site]]:
    """A function that makes a site of a policy; all of one test share their storage."""
    url = f"sqlite:///{tmp_path}/s.db"
    opened: list[AsyncSessionManager] = []

    def make(policy: Policy) -> Site:
        events: list[Event] = []
        manager = SessionManager(url, policy, listeners=[events.append])
        if request.param == "sync":
            return Site(manager, events, _sync(manager))
        if request.param == "wsgi":
            return Site(manager, events, _wsgi(manager))
        opened.append(AsyncSessionManager(url, policy, listeners=[events.append]))
        return Site(manager, events, _async(opened[-1]))

    yield make
    for each in opened:
        asyncio.run(each.close())


def send(jar: Jar, site: Site, url: str, handler: Handler) -> Any:
    """Send a request of this browser; give what the handler gave."""
    found: list[Any] = []
    jar.take(url, *site.ask(url, jar.header(url), lambda session: found.append(handler(session))))
    return found[0]


def user(session: Session) -> str | None:
    """Read who is logged in."""
    return session.user


# The policy that was, where its cookie was set, the one that is now, where its was; and where the browser goes then.
# In each case both come there under one name.
WWW, SHOP = "https://www.example.org", "https://shop.example.org"
CASES: dict[str, tuple[Policy, str, Policy, str, str]] = {
    "domain added, path": (
        Policy(path="/app"), f"{WWW}/app/", Policy(path="/app", domain="example.org"), f"{SHOP}/app/", f"{WWW}/app/x"),
    "domain dropped, path": (
        Policy(path="/app", domain="example.org"), f"{SHOP}/app/", Policy(path="/app"), f"{WWW}/app/", f"{WWW}/app/x"),
    "domain narrowed": (
        Policy(domain="example.org"), f"{SHOP}/", Policy(domain="www.example.org"), f"{WWW}/", f"{WWW}/"),
    "domain widened": (
        Policy(domain="www.example.org"), f"{WWW}/", Policy(domain="example.org"), f"{SHOP}/", f"{WWW}/"),
    "path widened": (
        Policy(path="/app/x", domain="example.org"), f"{WWW}/app/x/", Policy(path="/app", domain="example.org"),
        f"{WWW}/app/", f"{WWW}/app/x/"),
    "path narrowed": (
        Policy(path="/app"), f"{WWW}/app/", Policy(path="/app/x"), f"{WWW}/other", f"{WWW}/app/x/y"),
    "slash added": (Policy(path="/app"), f"{WWW}/app/", Policy(path="/app/"), f"{WWW}/app/", f"{WWW}/app/"),
    "plain http, domain added": (
        Policy(insecure_http=True), "http://www.example.org/", Policy(insecure_http=True, domain="example.org"),
        "http://shop.example.org/", "http://www.example.org/"),
    "partitioned since": (Policy(), f"{WWW}/", Policy(partitioned=True), f"{WWW}/", f"{WWW}/"),
    "partitioned before": (Policy(partitioned=True), f"{WWW}/", Policy(), f"{WWW}/", f"{WWW}/"),
    "partitioned and domain": (
        Policy(domain="example.org", partitioned=True), f"{SHOP}/", Policy(domain="www.example.org"), f"{WWW}/",
        f"{WWW}/"),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, build: Callable[[Policy], Site]) -> tuple[Jar, Site, str, list[str]]:
    """A browser with two live cookies, the site as it is now, the page where both come, and both tokens."""
    then, first, now, second, page = request.param
    jar = Jar()
    old, new = build(then), build(now)
    send(jar, old, first, lambda session: session.login("ada"))
    secrets = list(jar.held.values())
    aside = Jar()  # a browser without the old cookie, so that the new site makes a session of its own
    send(aside, new, second, lambda session: session.login("grace"))
    jar.held.update(aside.held)
    jar._secure |= aside._secure
    secrets += aside.held.values()
    header = jar.header(page)
    assert header is not None
    assert Counter(pair.partition("=")[0] for pair in header.split("; ")).most_common(1)[0][1] == 2, header
    new.events.clear()
    return jar, new, page, secrets


def live(site: Site, secrets: Sequence[str]) -> list[str | None]:
    """Give the users of sessions, past all cookies of the browser."""
    looker = SessionManager(site.manager.driver)
    return [looker.open([f"__Host-sid={secret}"], Channel.SECURE).user for secret in secrets]


def test_two_live_ones_are_nobodys(case: tuple[Jar, Site, str, list[str]]) -> None:
    jar, site, page, secrets = case
    before = dict(jar.held)
    assert send(jar, site, page, user) is None
    assert jar.held == before
    assert live(site, secrets) == ["ada", "grace"]
    assert {event.kind for event in site.events} == {EventKind.DUPLICATES} | (
        {EventKind.UNKNOWN_ID} if jar.header(page) and "__Host-" not in str(jar.header(page)) else set()
    )


@pytest.mark.parametrize("read_first", [False, True])
def test_a_log_in_is_the_only_one_left(case: tuple[Jar, Site, str, list[str]], *, read_first: bool) -> None:
    jar, site, page, secrets = case

    def log_in(session: Session) -> None:
        assert not read_first or session.user is None
        session.login("ann")

    send(jar, site, page, log_in)
    assert send(jar, site, page, user) == "ann"
    assert len(jar.held) == 1
    assert live(site, secrets) == [None, None]
    assert Counter(event.kind for event in site.events)[EventKind.DESTROYED] == 2
    send(jar, site, page, lambda session: session.logout())
    assert send(jar, site, page, user) is None
    assert jar.held == {}


@pytest.mark.parametrize("read_first", [False, True])
def test_a_log_out_leaves_none(case: tuple[Jar, Site, str, list[str]], *, read_first: bool) -> None:
    jar, site, page, secrets = case

    def log_out(session: Session) -> None:
        assert not read_first or session.user is None
        session.logout()

    send(jar, site, page, log_out)
    assert live(site, secrets) == [None, None]
    assert jar.held == {}


def test_a_log_out_after_a_write_that_was_saved_ends_all(case: tuple[Jar, Site, str, list[str]]) -> None:
    jar, site, page, secrets = case
    header = jar.header(page)
    session = site.manager.open(Incoming.from_wsgi(_environ(page, header)))
    session["a"] = 1
    jar.take(page, *_lines(site.manager.save(session)))
    secrets += jar.held.values()
    session.logout()
    jar.take(page, *_lines(site.manager.save(session)))
    assert jar.held == {}
    assert live(site, secrets) == [None, None, None]


def test_a_write_is_kept_and_ends_no_session(case: tuple[Jar, Site, str, list[str]]) -> None:
    jar, site, page, secrets = case
    send(jar, site, page, lambda session: session.update(csrf="x"))
    assert send(jar, site, page, dict) == {"csrf": "x"}
    assert len(jar.held) == 1
    assert live(site, secrets) == ["ada", "grace"]


def test_a_log_in_that_is_refused_ends_no_session(case: tuple[Jar, Site, str, list[str]]) -> None:
    jar, site, page, secrets = case

    def refused(session: Session) -> None:
        session.login("ann")
        asker = SessionManager(site.manager.driver, clock=lambda: session_opened(session) + 1)
        asker.revoke_user("ann")

    send(jar, site, page, refused)
    assert live(site, secrets) == ["ada", "grace"]


def session_opened(session: Session) -> float:
    """Give the moment when a request came."""
    from coatcheck.session import opened  # noqa: PLC0415 (not for applications)

    return opened(session).opened


def test_a_browser_that_does_not_know_partitioned_keeps_the_new_cookie(build: Callable[[Policy], Site]) -> None:
    site = build(Policy(path="/app", domain="example.org"))
    page = f"{WWW}/app/"
    jar = Jar(partitions=False)
    send(jar, site, page, lambda session: session.login("ada"))
    tossed = f"__Secure-sid={next(iter(jar.held.values()))[::-1]}; Path=/app; Secure"
    jar.take(page, tossed)
    send(jar, site, page, lambda session: session.login("ada"))
    assert send(jar, site, page, user) == "ada"
    assert len(jar.held) == 1


def test_the_old_and_the_new_token_of_one_session_are_one(build: Callable[[Policy], Site]) -> None:
    """A periodic rotation under a new policy: the old cookie stays beside the new one, and works for the grace."""
    jar, page = Jar(), f"{WWW}/app/"
    old, new = build(Policy(path="/app")), build(Policy(path="/app", domain="example.org", rotate_after=1))
    send(jar, old, page, lambda session: session.login("ada"))
    held = dict(jar.held)
    new.manager = SessionManager(new.manager.driver, new.manager.policy)
    later = SessionManager(new.manager.driver, new.manager.policy, clock=lambda: __import__("time").time() + 5)
    jar.take(page, *_sync(later)(page, jar.header(page), user))
    assert len(jar.held) == 2
    assert held.items() < jar.held.items()
    assert send(jar, new, page, user) == "ada"
    send(jar, new, page, lambda session: session.update(a=1))
    assert send(jar, new, page, lambda session: (session.user, session["a"])) == ("ada", 1)


def test_a_log_in_after_partitioned_was_switched_on_replaces_the_cookie_from_before(
    build: Callable[[Policy], Site],
) -> None:
    jar, old, new = Jar(), build(Policy()), build(Policy(partitioned=True))
    send(jar, old, f"{WWW}/", lambda session: session.update(cart=["hat"]))
    send(jar, new, f"{WWW}/", lambda session: session.login("ada", keep=["cart"]))
    assert send(jar, new, f"{WWW}/", lambda session: (session.user, session["cart"])) == ("ada", ["hat"])
    assert len(jar.held) == 1


# A neighbour at evil.example.org, who has a session of their own under the same name
TOSSED = ["Domain=example.org; Path=/", "Domain=example.org; Path=/app", "Domain=example.org; Path=/app/account"]


@pytest.mark.parametrize("tossed", TOSSED)
@pytest.mark.parametrize("act", ["read", "write", "login", "logout"])
def test_a_neighbours_session_is_never_used(build: Callable[[Policy], Site], tossed: str, act: str) -> None:
    site, page = build(Policy(path="/app")), f"{WWW}/app/account"
    victim, mallory = Jar(), Jar()
    send(victim, site, page, lambda session: session.login("ada"))
    send(mallory, site, page, lambda session: session.login("mallory"))
    theirs = next(iter(mallory.held.values()))
    victim.take("https://evil.example.org/", f"__Secure-sid={theirs}; {tossed}; Secure")
    acts: dict[str, Handler] = {
        "read": user,
        "write": lambda session: session.update(a="private"),
        "login": lambda session: session.login("ada"),
        "logout": lambda session: session.logout(),
    }
    send(victim, site, page, acts[act])
    after = send(victim, site, page, user)
    assert after == ("ada" if act == "login" else None)
    looker = SessionManager(site.manager.driver)
    assert "a" not in looker.open([f"__Host-sid={theirs}"])


@pytest.mark.parametrize("number", [5, 9])
@pytest.mark.parametrize("act", ["login", "logout"])
def test_of_more_than_are_tried_all_are_ended(build: Callable[[Policy], Site], number: int, act: str) -> None:
    site, page = build(Policy(domain="example.org")), f"{WWW}/a/b/c/d"
    jar, secrets = Jar(), []
    for count in range(number):
        other = Jar()
        send(other, site, page, lambda session: session.login("ada"))
        secrets.append(next(iter(other.held.values())))
        path = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/", "/a/b/c/d"][count % 8]
        domain = "; Domain=example.org" if count < 8 else ""
        jar.take(page, f"__Secure-sid={secrets[-1]}; Path={path}{domain}; Secure")
    assert len(jar.held) == number
    send(jar, site, page, lambda session: session.login("ann") if act == "login" else session.logout())
    assert send(jar, site, page, user) == ("ann" if act == "login" else None)
    assert live(site, secrets) == [None] * number


def test_what_else_comes_beside_the_live_one_is_deleted_with_the_next_cookie(build: Callable[[Policy], Site]) -> None:
    site, page = build(Policy()), f"{WWW}/"
    jar = Jar()
    send(jar, site, page, lambda session: session.login("ada"))
    jar.take(page, "__Host-sid=garbage; Path=/; Secure; Partitioned")
    send(jar, site, page, lambda session: session.login("ada"))
    assert send(jar, site, page, user) == "ada"
    jar.take(page, "__Host-sid=garbage; Path=/; Secure; Partitioned")
    assert send(jar, site, page, user) is None
    secret = next(iter(jar.held.values()))
    send(jar, site, page, lambda session: session.logout())
    assert jar.held == {}
    assert live(site, [secret]) == [None]
