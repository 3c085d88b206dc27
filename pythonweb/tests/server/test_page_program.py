"""The page's own program, unchanged, and our /session: by a real browser, by curl and by http.cookiejar."""

from __future__ import annotations

import http.cookiejar
import itertools
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Servers
    from selenium.webdriver import Chrome

    Program = Callable[[str, str], Path]

COOKIE = "testEnv"
SLACK = 2.0  # seconds between a cookie's life and its session's: whole seconds, and the time a request takes
TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")

# Says whether the session of a cookie is alive, and neither extends it nor makes it live: what it answers to a dead
# one is a new session, whose cookie the caller throws away.
PROBE = """from web.wsgi import base, database, environment, error, session
class Probe(base.BaseApplication):
    def start(self):
        self.output("dead" if self.environ["web.session.manager"].created else "alive")
application = error.Error(database.Database(environment.Environment(
    session.Session(Probe(), app="testApp", expire=10, setupEnvironment=True),
    name="testEnv", storage="database"), adapter="snakesql", database="wsgi-session", autoCreate=True))
"""


@dataclass(frozen=True)
class Seen:
    """What a page of the program says, whoever fetched it."""

    title: str
    text: str

    @classmethod
    def of(cls, page: str) -> Seen:
        title = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
        assert title, page
        # Both programs are read as text: ours shows its facts in a table, the page's in paragraphs.
        text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2] or page)))
        return cls(title[1].strip(), text)

    @property
    def expires(self) -> float:
        found = re.search(r"ExpireTime:? +(\d+(?:\.\d+)?)", self.text)
        assert found, self.text
        return float(found[1])


@pytest.fixture(params=["the page's program", "our /session"])
def url(request: pytest.FixtureRequest, start_server: Servers) -> str:
    """The address of the one program and of the other."""
    if request.param == "our /session":
        return start_server().url + "session"
    return start_server("--mount", f"/page={request.getfixturevalue('page_program')}").url + "page"


def test_the_page_program_is_the_pages(page_program: Path) -> None:
    text = page_program.read_text(encoding="utf-8")
    assert text.startswith("from web.wsgi import *\n")
    assert "class simpleApp(base.BaseApplication):" in text
    assert "adapter = 'snakesql'" in text


# A real browser


def cookie_ends(browser: Chrome) -> float:
    cookie = browser.get_cookie(COOKIE)
    assert cookie is not None
    assert cookie["httpOnly"]
    assert cookie["path"] == "/"
    return float(cookie["expiry"])


def follow(browser: Chrome, link: str) -> Seen:
    browser.find_element("link text", link).click()
    return Seen.of(browser.page_source)


@pytest.mark.browser
def test_a_browser_is_welcomed_back_destroys_and_starts_again(browser: Chrome, url: str) -> None:
    before = time.time()
    browser.get(url)
    assert Seen.of(browser.page_source).title == "New Session Started"
    assert cookie_ends(browser) == pytest.approx(before + 10, abs=SLACK)
    first = browser.get_cookie(COOKIE)
    ends = []
    for _ in range(3):
        seen = follow(browser, "Visit Again")
        assert seen.title == "Welcome back"
        assert "Variable1" in seen.text
        assert "Python Rules!" in seen.text
        assert re.search(r"Store App:? +testApp", seen.text)
        ends.append(seen.expires)
        assert cookie_ends(browser) == pytest.approx(seen.expires, abs=SLACK)
    assert ends[0] == pytest.approx(before + 15, abs=SLACK)
    assert ends[1] - ends[0] == pytest.approx(5, abs=0.01)
    assert ends[2] - ends[1] == pytest.approx(5, abs=0.01)
    assert follow(browser, "Destroy Session").title == "Session Destroyed"
    assert browser.get_cookie(COOKIE) is None
    assert follow(browser, "Start Again").title == "New Session Started"
    again = browser.get_cookie(COOKIE)
    assert first is not None
    assert again is not None
    assert again["value"] != first["value"]


@pytest.mark.browser
def test_our_page_is_html5_and_shows_a_prefix_of_the_id_only(browser: Chrome, start_server: Servers) -> None:
    browser.get(start_server().url + "session")
    follow(browser, "Visit Again")
    token = browser.get_cookie(COOKIE)["value"]
    page = browser.page_source
    assert token not in page
    assert f"{token[:8]}…" in page
    assert browser.execute_script("return document.compatMode") == "CSS1Compat"
    assert browser.title == "Welcome back"


# curl, and Python's cookie jar


def test_curl_with_a_cookie_jar(curl: str, url: str, tmp_path: Path) -> None:
    jar = tmp_path / "jar"

    def visit(query: str = "") -> Seen:
        command = [curl, "-sS", "--fail", "-b", jar, "-c", jar, url + query]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return Seen.of(done.stdout)

    def cookie() -> list[str] | None:
        lines = [line.split("\t") for line in jar.read_text(encoding="utf-8").splitlines() if f"\t{COOKIE}\t" in line]
        return lines[0] if lines else None

    assert visit().title == "New Session Started"
    begun = cookie()
    assert begun is not None
    assert begun[0].startswith("#HttpOnly_")
    assert TOKEN.fullmatch(begun[6])
    ends = []
    for _ in range(3):
        seen = visit()
        assert seen.title == "Welcome back"
        ends.append(seen.expires)
        kept = cookie()
        assert kept is not None
        assert kept[6] == begun[6]
        assert float(kept[4]) == pytest.approx(seen.expires, abs=SLACK)
    assert [after - before for before, after in itertools.pairwise(ends)] == pytest.approx([5, 5], abs=0.01)
    assert visit("?destroy=True").title == "Session Destroyed"
    assert cookie() is None
    assert visit().title == "New Session Started"
    started = cookie()
    assert started is not None
    assert started[6] != begun[6]


def test_pythons_cookie_jar(url: str) -> None:
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def visit(query: str = "") -> tuple[Seen, list[str]]:
        with opener.open(url + query, timeout=120) as answer:
            return Seen.of(answer.read().decode()), answer.headers.get_all("Set-Cookie", [])

    seen, headers = visit()
    assert seen.title == "New Session Started"
    assert len(headers) == 1
    (begun,) = jar
    assert begun.name == COOKIE
    assert TOKEN.fullmatch(begun.value or "")
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in headers[0].split("; ")
    for _ in range(3):
        seen, headers = visit()
        assert seen.title == "Welcome back"
        assert len(headers) == 1
        (kept,) = jar
        assert kept.value == begun.value
        assert kept.expires == pytest.approx(seen.expires, abs=SLACK)
    seen, headers = visit("?destroy=True")
    assert seen.title == "Session Destroyed"
    assert len(headers) == 1
    assert list(jar) == []
    assert visit()[0].title == "New Session Started"
    (started,) = jar
    assert started.value != begun.value


def test_an_id_that_the_server_never_gave_is_not_taken_over(url: str) -> None:
    planted = "A" * 32
    request = urllib.request.Request(url, headers={"Cookie": f"{COOKIE}={planted}"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert Seen.of(answer.read().decode()).title == "New Session Started"
        (cookie,) = answer.headers.get_all("Set-Cookie", [])
    assert planted not in cookie


# Left alone


@dataclass
class Waiting:
    """A session that nobody visits any more, and when it must end."""

    name: str
    probe: str
    cookie: str
    ends: float
    slack: float
    last_alive: float = 0.0
    first_dead: float = 0.0

    def look(self) -> None:
        request = urllib.request.Request(self.probe, headers={"Cookie": f"{COOKIE}={self.cookie}"})
        asked = time.time()
        with urllib.request.urlopen(request, timeout=120) as answer:
            state = answer.read().decode()
        if state == "alive":
            self.last_alive = asked
        else:
            self.first_dead = time.time()


@pytest.mark.slow
def test_left_alone_it_ends_ten_seconds_and_five_a_visit_after_its_start(
    start_server: Servers, program: Program, page_program: Path
) -> None:
    server = start_server("--mount", f"/page={page_program}", "--mount", f"/probe={program('probe.py', PROBE)}")
    sessions = []
    for path in ("page", "session"):
        for visits in (0, 1):
            jar = http.cookiejar.CookieJar()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
            began = time.time()
            for number in range(1 + visits):
                with opener.open(server.url + path, timeout=120) as answer:
                    seen = Seen.of(answer.read().decode())
                if not number:
                    took = time.time() - began
            ends, slack = began + 10, took + 1
            if visits:
                assert ends + 5 * visits - 1 < seen.expires < ends + 5 * visits + slack
                ends, slack = seen.expires, 1.0
            (cookie,) = jar
            name = f"/{path} after {visits} more visit(s)"
            sessions.append(Waiting(name, server.url + "probe", cookie.value or "", ends, slack))
    while waiting := [one for one in sessions if not one.first_dead]:
        time.sleep(0.1)
        for one in waiting:
            one.look()
            assert time.time() < one.ends + 120, f"{one.name} does not end"
    for one in sessions:
        assert one.first_dead > one.ends - 1, f"{one.name} ended early"
        assert one.last_alive < one.ends + one.slack, f"{one.name} lived on"


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_that_stays_away_too_long_starts_anew(browser: Chrome, url: str) -> None:
    browser.get(url)
    first = browser.get_cookie(COOKIE)
    assert first is not None
    time.sleep(10.5)
    assert browser.get_cookie(COOKIE) is None
    # As though the browser's clock were slow: the server's own clock decides.
    browser.add_cookie({"name": COOKIE, "value": first["value"], "path": "/"})
    assert follow(browser, "Visit Again").title == "New Session Started"
    again = browser.get_cookie(COOKIE)
    assert again is not None
    assert again["value"] != first["value"]


def test_eleven_visits_add_five_seconds_each_ten_of_them_at_once(url: str) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def visit(_number: int) -> float:
        request = urllib.request.Request(url, headers={"Cookie": cookie})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Seen.of(answer.read().decode()).expires

    start = visit(0)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(visit, range(10)))
    assert visit(11) == pytest.approx(start + 55, abs=0.001)
