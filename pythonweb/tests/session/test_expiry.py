"""What moves the end of a session: parallel moves add up, moments stand, and a session that just ended lives on."""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import web.session
from coatcheck.testing import Clock
from web.session import Manager, SessionError
from web.session.expiry import EndTime

Browser = Any
Build = Callable[..., Any]
Request = Any
Site = Any

VISITS = 10


# -- what `expireTime` is -------------------------------------------------------------------------------------------


def test_the_end_remembers_moves_by_numbers_and_nothing_else() -> None:
    end = EndTime(100.5, "line", 2.0)
    for moved, expected, by in [
        (end + 5, 105.5, 7.0),
        (5 + end, 105.5, 7.0),
        (end - 0.5, 100.0, 1.5),
        (end + 5 - 1, 104.5, 6.0),
    ]:
        assert isinstance(moved, EndTime)
        assert (moved, moved.line, moved.moved) == (expected, "line", by)
    for plain in (end * 2, end - end, end + end, end / 2, -end, abs(end), round(end, 1), 200 - end):
        assert type(plain) is float
    assert (str(end), f"{end}", f"{end:.2f}", json.dumps(end), int(end)) == ("100.5", "100.5", "100.50", "100.5", 100)
    for copied in (copy.copy(end), copy.deepcopy(end), pickle.loads(pickle.dumps(end))):  # noqa: S301 (our own)
        assert (type(copied), copied) == (float, 100.5)
    assert {end: 1}[100.5] == 1  # type: ignore[index]


def test_the_end_can_be_stored(site: Site) -> None:
    browser = site.browser()
    answer = browser.get(
        lambda request: request.store.update(a=request.manager.expireTime, b=[request.manager.expireTime + 1])
    )
    assert answer.failure is None
    found = browser.read()
    assert (type(found["a"]), type(found["b"][0]), found["b"][0] - found["a"]) == (float, float, 1)


# -- in one request -------------------------------------------------------------------------------------------------

IN_ONE_REQUEST: dict[str, tuple[Callable[[Manager, float], object], float]] = {
    "twice": (lambda m, _: (m.setExpire(m.expireTime + 5), m.setExpire(m.expireTime + 5)), 10),
    "the same one twice": (lambda m, end: (m.setExpire(end + 5), m.setExpire(end + 5)), 5),
    "a larger one instead": (lambda m, end: (m.setExpire(end + 5), m.setExpire(end + 7)), 7),
    "a smaller one instead": (lambda m, end: (m.setExpire(end + 5), m.setExpire(end + 2)), 2),
    "taken back": (lambda m, end: (m.setExpire(end + 5), m.setExpire(end)), 0),
    "shorter": (lambda m, end: m.setExpire(end - 30), -30),
    "by 5 in steps": (lambda m, end: m.setExpire(2 + end + 4 - 1), 5),
    "a moment": (lambda m, end: m.setExpire(float(end) + 50), 50),
    "a moment, then by 5": (lambda m, end: (m.setExpire(float(end) + 50), m.setExpire(m.expireTime + 5)), 55),
    "by 5, then a moment": (lambda m, end: (m.setExpire(end + 5), m.setExpire(float(end) + 50)), 50),
    "an end from before a moment": (lambda m, end: (m.setExpire(float(end) + 50), m.setExpire(end + 5)), 5),
    "by its ID": (lambda m, end: m.setExpire(end + 5, m.sessionID), 5),
}


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("what", IN_ONE_REQUEST)
def test_moves_in_one_request(build: Build, clock: Clock, what: str, *, commits: bool, new: bool) -> None:
    """They come to what the numbers say, also where a commit lies between the reading and the change."""
    site = build(expire=100)
    browser = site.browser() if new else site.browser(a=1)
    change, expected = IN_ONE_REQUEST[what]
    ends: list[float] = []

    def handler(request: Request) -> None:
        end = request.manager.expireTime
        ends.append(float(end))
        if commits:
            request.connection.commit()
        change(request.manager, end)
        ends.append(float(request.manager.expireTime))
        if commits:
            request.connection.commit()

    assert browser.get(handler).failure is None
    browser.get(lambda request: ends.append(float(request.manager.expireTime)))
    assert ends == [clock.now + 100, clock.now + 100 + expected, clock.now + 100 + expected]


def test_a_change_of_the_end_shows_in_no_store(site: Site) -> None:
    browser = site.browser(a=1)
    browser.get(lambda request: request.manager.setExpire(request.manager.expireTime + 5))
    assert browser.get(lambda request: [request.store.keys(), len(request.store)]).body == b"[['a'], 1]"


# -- in requests at once --------------------------------------------------------------------------------------------


def visits_inside(browser: Browser, left: int, act: Callable[[Request], object], commits: bool) -> None:  # noqa: FBT001
    """A visit that reads the end, then has all the others come and go, then changes it."""

    def handler(request: Request) -> None:
        end = request.manager.expireTime
        if left > 1:
            visits_inside(browser, left - 1, act, commits)
        if act is move:
            request.manager.setExpire(end + 5)
        else:
            act(request)
        if commits:
            request.row("visit")
            request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None


def move(request: Request) -> None:
    request.manager.setExpire(request.manager.expireTime + 5)


def end_of(browser: Browser) -> float:
    ends: list[float] = []
    browser.get(lambda request: ends.append(float(request.manager.expireTime)))
    return ends[0]


@pytest.mark.parametrize("commits", [False, True])
def test_eleven_visits_of_which_ten_come_at_once(build: Build, clock: Clock, *, commits: bool) -> None:
    browser = build(expire=10).browser(a=1)
    start = clock.now + 10
    browser.get(move)
    visits_inside(browser, VISITS, move, commits)
    assert end_of(browser) == start + 5 * (VISITS + 1)


@pytest.mark.parametrize("commits", [False, True])
def test_eleven_visits_on_a_server(server_site: Site, *, commits: bool) -> None:
    browser = server_site.browser(a=1)
    start = end_of(browser)
    browser.get(move)
    visits_inside(browser, VISITS, move, commits)
    assert end_of(browser) == start + 5 * (VISITS + 1)


def test_a_crowd_of_threads(site: Site) -> None:
    browser = site.browser(a=1)
    check_a_crowd(browser)


def test_a_crowd_of_threads_on_a_server(server_site: Site) -> None:
    check_a_crowd(server_site.browser(a=1))


def check_a_crowd(browser: Browser) -> None:
    start = end_of(browser)
    twins = [type(browser)(browser.site, dict(browser.jar)) for _ in range(5)]

    def visits(twin: Browser) -> None:
        for _ in range(4):
            answer = twin.get(lambda request: (move(request), request.store.increment("n")))
            assert answer.failure is None

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(visits, twins))
    assert end_of(browser) == start + 5 * 20
    assert browser.read() == {"a": 1, "n": 20}


def test_the_cookie_of_the_last_one_has_the_whole_lifetime(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)

    def slow(request: Request) -> None:
        end = request.manager.expireTime
        browser.get(move)
        request.manager.setExpire(end + 5)

    assert "; Max-Age=20;" in browser.get(slow).cookie
    assert end_of(browser) == clock.now + 20


@pytest.mark.parametrize("commits", [False, True])
def test_a_moment_stands_whatever_moves_at_once(build: Build, clock: Clock, *, commits: bool) -> None:
    """The change that is saved later rules: a moment replaces moves, and a move goes on from a moment."""
    browser = build(expire=100).browser(a=1)

    def moment(request: Request) -> None:
        request.manager.setExpire(clock.now + 600)

    def visit(own: Callable[[Request], object], other: Callable[[Request], object]) -> None:
        def handler(request: Request) -> None:
            own(request)
            browser.get(other)
            if commits:
                request.connection.commit()

        assert browser.get(handler).failure is None

    visit(moment, move)
    assert end_of(browser) == clock.now + 600
    visit(move, move)
    visit(move, move)
    visit(moment, moment)
    assert end_of(browser) == clock.now + 600  # moments do not add up
    visit(move, moment)
    assert end_of(browser) == clock.now + 605


def test_a_move_is_not_lost_by_a_rollback_nor_counted_twice(build: Build, clock: Clock) -> None:
    browser = build(expire=100).browser(a=1)

    def slow(request: Request) -> None:
        request.manager.setExpire(request.manager.expireTime + 5)
        request.connection.cursor().execute("INSERT INTO child VALUES (77)")
        for _ in range(2):
            with pytest.raises(Exception, match="FOREIGN KEY"):
                request.connection.commit()
            request.manager.setExpire(request.manager.expireTime + 1)
        request.connection.rollback()
        request.manager.setExpire(request.manager.expireTime + 20)
        browser.get(move, keep=False)
        request.connection.commit()
        assert request.manager.expireTime == clock.now + 100 + 5 + 2 + 20 + 5

    assert browser.get(slow).failure is None
    assert end_of(browser) == clock.now + 132


# -- on every engine of the sessions' own -----------------------------------------------------------------------------

ENGINES = {
    "memory": None,
    "sqlite": None,
    "filesystem": None,
    "redis": "redis_server",
    "memcached": "memcached_server",
    "postgresql": "postgresql_server",
    "mariadb": "mariadb_server",
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.server] if needs else []) for name, needs in ENGINES.items()]
)
def own(request: pytest.FixtureRequest, tmp_path: Path, namespace: str, clock_of_scripts: Clock) -> Iterator[Any]:
    """Make the manager of one more script on an engine; with an ID, one that has loaded its session."""
    fixture = ENGINES[request.param]
    urls = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path}/own.db",
        "filesystem": f"filesystem:///{tmp_path}/own",
    }
    url = urls[request.param] if fixture is None else request.getfixturevalue(fixture).url
    driver = web.session.driver(request.param, namespace, url=url)
    assert driver.createSessionEnvironment() == []

    def make(token: str | None = None) -> Manager:
        made = Manager(driver, expire=100, clock=clock_of_scripts)
        assert token is None or made.load(token)
        return made

    yield make
    driver.removeSessionEnvironment(ignoreErrors=True)
    driver.core.close()


@pytest.fixture
def clock_of_scripts(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("HTTP_COOKIE", "")
    return Clock(float(int(time.time())))


def test_moves_at_once_on_every_engine(own: Callable[..., Manager], clock_of_scripts: Clock) -> None:
    token = own().create()
    start = clock_of_scripts.now + 100
    own(token).setExpire(own(token).expireTime + 5)  # of another manager: a moment
    loaded = [own(token) for _ in range(VISITS)]
    for each in loaded:
        each.setExpire(each.expireTime + 5)
    assert own(token).expireTime == start + 5 * (VISITS + 1)
    first, other = own(token), own(token)
    other.setExpire(start + 300, token)
    first.setExpire(first.expireTime + 5)
    assert own(token).expireTime == start + 305
    first, other = own(token), own()
    other.setExpire(start + 400, token)  # by its ID, from outside
    first.setExpire(first.expireTime + 5)
    assert own(token).expireTime == start + 405


def test_a_session_that_ran_out_gets_a_new_end(own: Callable[..., Manager], clock_of_scripts: Clock) -> None:
    """While the script ran; and by its ID, for one that did not load it."""
    session = own()
    token = session.create()
    session.store("app")["a"] = [1]
    clock_of_scripts.advance(101)
    assert session.valid() is False
    assert session.exists()
    session.setExpire(session.expireTime + 5)
    assert session.valid() is True
    session.store("app")["b"] = 2
    again = own(token)
    assert again.expireTime == clock_of_scripts.now + 4
    assert dict(again.store("app")) == {"a": [1], "b": 2}

    clock_of_scripts.advance(50)
    assert own().load(token) is False
    other = own()
    other.setExpire(clock_of_scripts.now + 30, token)
    assert other.valid(token)
    assert own(token).store("app")["a"] == [1]


def test_moves_at_once_of_a_session_that_just_ran_out(own: Callable[..., Manager], clock_of_scripts: Clock) -> None:
    token = own().create()
    loaded = [own(token) for _ in range(5)]
    clock_of_scripts.advance(102)
    for each in loaded:
        each.setExpire(each.expireTime + 5)
    assert own(token).expireTime == clock_of_scripts.now - 2 + 25


def test_there_is_no_new_end_for_a_session_that_is_not_there(
    own: Callable[..., Manager], clock_of_scripts: Clock
) -> None:
    """Unknown, swept or destroyed; and a destroyed one stays destroyed, whether it had expired or not."""
    session = own()
    unknown = session.genSessionID()
    destroyed, expired = session.create(), own().create()
    held = own(destroyed)
    own(destroyed).destroy(ignoreWarning=True)
    clock_of_scripts.advance(101)
    own().destroy(expired, ignoreWarning=True)
    other = own()
    for token in (unknown, destroyed, expired):
        for moment in (clock_of_scripts.now + 50, 0):
            with pytest.raises(SessionError, match="setExpire: there is no such session"):
                other.setExpire(moment, token)
        assert other.load(token) is False
    held.setExpire(held.expireTime + 500)
    assert other.load(destroyed) is False


# -- under the middleware ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [False, True])
def test_a_visit_in_whose_course_the_session_runs_out(build: Build, clock: Clock, *, commits: bool) -> None:
    browser = build(expire=10).browser(a=1)

    def slow(request: Request) -> None:
        assert request.store["a"] == 1
        clock.advance(12)
        request.store["b"] = 2
        request.manager.setExpire(request.manager.expireTime + 5)
        if commits:
            request.connection.commit()
            request.connection.rollback()

    assert "; Max-Age=3;" in browser.get(slow).cookie
    assert browser.read() == {"a": 1, "b": 2}
    clock.advance(3)
    assert browser.get(lambda request: request.manager.load()).body == b"False"


def test_a_new_end_that_is_over_too_ends_it(build: Build, clock: Clock) -> None:
    browser = build(expire=10).browser(a=1)

    def slow(request: Request) -> None:
        request.store["b"] = 2
        clock.advance(20)
        request.manager.setExpire(request.manager.expireTime + 5)

    browser.get(slow)
    assert browser.get(lambda request: request.manager.load()).body == b"False"


def test_set_expire_of_an_unknown_id(site: Site) -> None:
    def handler(request: Request) -> None:
        with pytest.raises(SessionError, match="there is no such session"):
            request.manager.setExpire(1, "A" * 32)

    assert site.browser(a=1).get(handler).failure is None


def test_an_expired_one_by_its_id_in_a_transaction(build: Build, clock: Clock) -> None:
    """It lands with the commit, also where the first one is rolled back."""
    site = build(expire=10)
    old, other = site.browser(a=1), site.browser()
    clock.advance(50)

    def handler(request: Request) -> None:
        request.row("undone")
        request.manager.setExpire(clock.now + 5, old.token)
        request.connection.rollback()
        request.row("done")
        request.connection.commit()

    assert other.get(handler).failure is None
    assert site.rows() == ["done"]
    assert old.read() == {"a": 1}
