"""Sessions in CGI scripts: the environment comes from the process, and cookies go to its standard output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from web.session import Manager, driver, manager, start

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a CGI script in a process of its own; give what it printed."""

    def script(text: str, cookie: str = "", **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=tmp_path,
            env=os.environ | {"HTTP_COOKIE": cookie} | environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return script


def cookies(printed: str) -> list[str]:
    return re.findall(r"^Set-Cookie: (.*)$", printed, re.MULTILINE)


BY_HAND = """
import web.database, web.session
connection = web.database.connect('snakesql', 'cgi.db', autoCreate=1)
driver = web.session.driver('database', environment='site', cursor=connection.cursor())
if not driver.completeSessionEnvironment():
    assert driver.createSessionEnvironment() == []
manager = web.session.manager(driver, expire=50)
if not manager.load():
    manager.create()
    manager.sendCookieHeaders()
store = manager.store('shop')
store['visits'] = store.get('visits', 0) + 1
connection.commit()
manager.sendCookieHeaders()
print('Content-type: text/plain\\n')
print(manager.created, store['visits'], len(manager.sent_headers) == len(manager.response_headers), end='')
connection.close()
"""


def test_a_script_by_hand(run: Run) -> None:
    first = run(BY_HAND)
    (cookie,) = cookies(first)
    assert re.fullmatch(r"site=[\w-]{32}; Max-Age=50; Path=/; HttpOnly; SameSite=Lax", cookie)
    assert first.startswith(f"Set-Cookie: {cookie}\nContent-type: text/plain\n\n")
    assert first.endswith("True 1 True")
    second = run(BY_HAND, cookie.partition(";")[0])
    assert second == "Content-type: text/plain\n\nFalse 2 True"


def test_over_https(run: Run) -> None:
    (cookie,) = cookies(run(BY_HAND, HTTPS="on"))
    assert cookie.startswith("__Host-site=")
    assert "; Secure; HttpOnly" in cookie
    assert "False 2" in run(BY_HAND, cookie.partition(";")[0], HTTPS="on")
    assert "True 1" in run(BY_HAND, cookie.partition(";")[0])


START = """
import web.session
store = web.session.start('shop', 'site', {storage}, expire=50, setupSessionEnvironment=True)
store['list'] = store.get('list', []) + [len(store)]
store.manager.store('other')['x'] = 1
print('Content-type: text/plain\\n')
print(store.manager.created, store['list'], end='')
"""


@pytest.mark.parametrize(
    "storage",
    [
        "adapter='snakesql', database='start.db', autoCreate=1",
        "adapter='sqlite', database='start2.db', autoCreate=True, cleanupProbability=1",
        "environmentType='sqlite', url='sqlite:///start3.db'",
    ],
)
def test_start_does_it_all(run: Run, storage: str) -> None:
    script = START.replace("{storage}", storage)
    first = run(script)
    (cookie,) = cookies(first)
    assert "; Max-Age=50;" in cookie
    assert first.endswith("True [0]")
    second = run(script, cookie.partition(";")[0])
    assert cookies(second) == []
    assert second.endswith("False [0, 1]")


def test_start_commits_what_is_done_to_other_sessions(run: Run) -> None:
    script = START.replace("{storage}", "adapter='sqlite', database='start.db', autoCreate=1")
    (cookie,) = cookies(run(script))
    token = cookie.partition(";")[0].partition("=")[2]
    ending = script + f"\nstore.manager.destroy({token!r}, ignoreWarning=True)"
    run(ending)
    again = run(script, f"site={token}")
    assert again.endswith("True [0]")
    (new,) = cookies(again)  # it began after the end, so it is no late request of the old session
    assert token not in new
    assert run(script, new.partition(";")[0]).endswith("False [0, 1]")


STACK = """
from web.wsgi import *
class App(base.BaseApplication):
    def start(self):
        store = self.environ['web.session.store']
        store['n'] = store.get('n', 0) + 1
        self.headers.append(('X-N', str(store['n'])))
        if self.environ['web.session.manager'].created:
            self.headers.append(self.environ['web.session.manager'].response_headers[-1])
        self.environ['web.database.connection'].commit()
runCGI(error.Error(database.Database(environment.Environment(session.Session(
    cgi.CGI(App()), app='testApp', expire=10, setupEnvironment=1),
    name='testEnv', storage='database'), adapter='snakesql', database='wsgi-session', autoCreate=1)))
"""


def test_run_cgi_with_the_whole_stack(run: Run) -> None:
    request = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    first = run(STACK, **request, SERVER_PROTOCOL="HTTP/1.0")
    assert first.startswith("Status: 200 OK")
    (cookie,) = cookies(first)
    second = run(STACK, cookie.partition(";")[0], **request, SERVER_PROTOCOL="HTTP/1.0")
    assert "X-N: 2" in second
    assert cookies(second) == []


# In one process


@pytest.fixture
def session(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setenv("HTTP_COOKIE", "")
    return manager(driver("database", "site", cursor=connect().cursor()), autoCreate=1, cleanupProbability=0)


def test_create_prints_once(session: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    session.create()
    printed = capsys.readouterr().out
    assert cookies(printed) == [session.response_headers[0][1]]
    assert session.sent_headers == session.response_headers
    session.sendCookieHeaders()
    assert capsys.readouterr().out == ""
    session.create(sendCookieHeaders=False)
    assert capsys.readouterr().out == ""
    assert len(session.response_headers) == 2
    session.sendCookieHeaders()
    assert cookies(capsys.readouterr().out) == [session.response_headers[1][1]]


def test_the_other_cookie_methods_print_where_asked(session: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    session.create(sendCookieHeaders=False)
    session.response_headers.clear()
    session.setCookie(60)
    session.deleteCookie()
    assert capsys.readouterr().out == ""
    assert [f"{name}: {value}" for name, value in session.response_headers] == [
        session.setCookieString(60),
        session.deleteCookieString(),
    ]
    session.sendCookieHeaders()
    assert len(cookies(capsys.readouterr().out)) == 2
    assert session.sent_headers == session.response_headers
    session.setCookie(70, sendCookieHeaders=True)
    assert capsys.readouterr().out == f"{session.setCookieString(70)}\n"
    session.deleteCookie(sendCookieHeaders=True)
    assert capsys.readouterr().out == f"{session.deleteCookieString()}\n"
    assert "; Max-Age=60;" in session.setCookieString(60)
    assert "Max-Age" not in session.setCookieString(0)
    assert "; Max-Age=86400;" in session.setCookieString()
    for line in (session.setCookieString(), session.deleteCookieString()):
        assert line.startswith("Set-Cookie: site=")
        assert "\n" not in line
    assert session.exists()
    session.destroy(ignoreWarning=True, sendCookieHeaders=False)
    assert capsys.readouterr().out == ""


def test_nothing_lasts_without_a_commit_on_a_cursor(
    session: Manager, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = session.driver.connection
    session.create()
    store = session.store("shop")
    store["a"] = 1
    monkeypatch.setenv("HTTP_COOKIE", f"site={session.sessionID}")

    def others_view() -> bool:
        return manager(driver("database", "site", cursor=connect().cursor()), cleanupProbability=0).load()

    assert not others_view()
    connection.rollback()
    connection.commit()
    assert others_view()
    store["a"] = 2
    connection.cursor().execute("CREATE TABLE own (x)")
    connection.cursor().execute("INSERT INTO own VALUES (1)")
    connection.rollback()
    connection.commit()
    assert connection.cursor().execute("SELECT count(*) FROM own").fetchone() == (0,)
    assert store["a"] == 2


def test_two_managers_on_one_connection(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_COOKIE", "")
    connection = connect()
    made = [
        manager(driver("database", name, cursor=connection.cursor()), autoCreate=1, cleanupProbability=0)
        for name in ("one", "two")
    ]
    for each in made:
        each.create()
        each.store("app").increment("n")
    base = connection._base

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(base, name)

        def commit(self) -> None:
            raise RuntimeError("refused")

    for _ in range(2):
        connection._base = Refusing()
        with pytest.raises(RuntimeError, match="refused"):
            connection.commit()
        for each in made:
            each.store("app").increment("n")
        connection._base = base
    connection.commit()
    for each in made:
        other = driver("database", each.driver.environment, cursor=connection.cursor())
        fresh = manager(other, cleanupProbability=0)
        assert fresh.load(each.sessionID)
        assert fresh.store("app")["n"] == 3


def test_a_connection_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from web import database  # noqa: PLC0415

    monkeypatch.setenv("HTTP_COOKIE", "")
    connection = database.connect("sqlite", ":memory:")
    store = start("app", "site", cursor=connection.cursor(), setupSessionEnvironment=1)
    store["a"] = 1
    connection.commit()
    again = manager(driver("database", "site", cursor=connection.cursor()))
    assert again.load(store.manager.sessionID)
    assert again.store("app")["a"] == 1
    connection.close()


@pytest.mark.parametrize("probability", [0, 1])
def test_cleanup_probability(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, probability: int) -> None:
    monkeypatch.setenv("HTTP_COOKIE", "")
    connection = connect()
    made = driver("database", "site", cursor=connection.cursor())
    first = manager(made, autoCreate=1, cleanupProbability=0)
    first.create()
    connection.commit()
    first.setExpire(time.time() - 1)
    connection.commit()
    second = manager(made, cleanupProbability=probability)
    assert second.exists(first.sessionID) is (probability == 0)
    assert not connection.inTransaction


def test_auto_create_leaves_an_open_transaction_to_the_application(connect: Callable[..., Any]) -> None:
    connection = connect()
    connection.cursor().execute("CREATE TABLE own (x)")
    connection.cursor().execute("INSERT INTO own VALUES (1)")
    manager(driver("database", "site", cursor=connection.cursor()), autoCreate=1, cleanupProbability=1)
    assert connection.inTransaction
    connection.rollback()
    assert connection.cursor().execute("SELECT count(*) FROM own").fetchone() == (0,)
