"""Programs as the manual of 2005 writes them for CGI, each a process with the environment that a web server gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

Visit = Callable[..., "Answer"]

SET_UP = """#!/usr/bin/env python3
import web.error; web.error.enable()
import web, web.database, web.session

connection = web.database.connect(adapter='snakesql', database='cgi-session', autoCreate=1)
cursor = connection.cursor()
driver = web.session.driver('database', environment='testEnv', cursor=cursor)
if not driver.completeSessionEnvironment():
    driver.removeSessionEnvironment(ignoreErrors=True)
    driver.createSessionEnvironment()
manager = web.session.manager(driver=driver, expire=10)
"""

VISITS = """
if not manager.load():
    newSessionID = manager.create()
    store = manager.store('testApp')
    store['Variable1'] = 'Python Rules!'
    text = 'New Session Started ' + newSessionID
elif web.cgi.has_key('destroy') and web.cgi['destroy'].value == 'True':
    manager.destroy(ignoreWarning=True)
    text = 'Session Destroyed'
else:
    manager.setExpire(manager.expireTime + 5)
    store = manager.store('testApp')
    text = 'Welcome back %s %s %s' % (manager.sessionID, store.keys(), store['Variable1'])
connection.commit()
print(web.header())
print('<html>' + web.encode(text) + '</html>')
connection.close()
"""

COOKIES_BY_HAND = """
if not manager.load():
    manager.create(sendCookieHeaders=False)
    manager.setCookie(maxAge=300)
    for name, value in manager.response_headers[-1:]:
        print('%s: %s' % (name, value))
elif not web.cgi.has_key('leave'):
    print(manager.setCookieString(maxAge=600))
else:
    print(manager.deleteCookieString())
connection.commit()
print('Content-type: text/html\\n')
print(manager.valid(), manager.exists(), manager.created, manager.error)
connection.close()
"""

BY_ID = """
if web.cgi.has_key('end'):
    manager.setExpire(1, sessionID=web.cgi['id'].value)
if web.cgi.has_key('cleanup'):
    manager.cleanup()
if manager.load(sessionID=web.cgi['id'].value):
    text = 'valid'
elif manager.exists(sessionID=web.cgi['id'].value):
    text = 'expired'
else:
    text = 'gone'
connection.commit()
print(web.header('text/plain'))
print(text, end='')
connection.close()
"""

START = """#!/usr/bin/env python3
import web, web.session
store = web.session.start(
    app='testApp',
    environmentName='testEnv',
    environmentType='database',
    expire=20,
    setupSessionEnvironment=1,
    adapter='snakesql',
    database='cgi-start',
    autoCreate=1,
)
if not store.has_key('visits'):
    store['visits'] = 0
store['visits'] = store['visits'] + 1
print(web.header('text/plain'))
print(store.app, store['visits'], end='')
"""


class Answer:
    """What a web server sees of a script's answer."""

    def __init__(self, output: str) -> None:
        head, empty_line, self.body = output.partition("\n\n")
        assert empty_line, output
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head.splitlines())]

    @property
    def cookies(self) -> list[str]:
        return [value for name, value in self.headers if name == "Set-Cookie"]

    @property
    def lifetime(self) -> int:
        (found,) = re.findall(r"; Max-Age=(\d+);", self.cookies[-1])
        return int(found)


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    """Have a web server run a script: ``visit(text, cookie, destroy='True')``; without a text, the one before."""

    def run(text: str | None, cookie: str = "", **fields: str) -> Answer:
        script = tmp_path / "session.py"
        if text is not None:
            script.write_text(text)
        environ = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": urlencode(fields),
            "SCRIPT_NAME": "/cgi-bin/session.py",
            "SERVER_NAME": "www.example.org",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "PATH": os.environ["PATH"],
        }
        if cookie:
            environ["HTTP_COOKIE"] = cookie.partition(";")[0]
        done = subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, env=environ, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return Answer(done.stdout.decode())

    return run


def test_the_page_of_visits(visit: Visit) -> None:
    assert visit(SET_UP + VISITS).lifetime == 10
    script = SET_UP.replace("expire=10", "expire=1000") + VISITS  # a busy machine takes longer for a visit
    first = visit(script)
    (cookie,) = first.cookies
    token = cookie.partition(";")[0].partition("=")[2]
    assert first.body == f"<html>New Session Started {token}</html>\n"
    assert first.lifetime == 1000

    second = visit(script, cookie)
    assert second.body == f"<html>Welcome back {token} [&#x27;Variable1&#x27;] Python Rules!</html>\n"
    assert second.cookies[0].startswith(f"testEnv={token};")
    third = visit(script, cookie)
    assert third.body == second.body
    assert third.lifetime > second.lifetime

    end = visit(script, cookie, destroy="True")
    assert end.body == "<html>Session Destroyed</html>\n"
    assert end.lifetime == 0
    again = visit(script)
    assert "New Session Started" in again.body
    assert token not in again.body


def test_cookies_by_hand(visit: Visit) -> None:
    script = SET_UP.replace("expire=10", "expire=1000") + COOKIES_BY_HAND  # likewise
    first = visit(script)
    assert first.body == "True True True no session ID: the request has no session cookie\n"
    assert (len(first.cookies), first.lifetime) == (1, 300)
    again = visit(script, first.cookies[0])
    assert again.body == "True True False None\n"
    assert (len(again.cookies), again.lifetime) == (1, 600)
    left = visit(script, again.cookies[0], leave="1")
    assert (len(left.cookies), left.lifetime) == (1, 0)
    assert visit(script, again.cookies[0]).body == again.body  # the session itself is still there


def test_sessions_by_their_ids(visit: Visit) -> None:
    token = visit(SET_UP + VISITS).body.split()[-1].removesuffix("</html>")

    def state(identifier: str, **fields: str) -> str:
        answer = visit(SET_UP + BY_ID, id=identifier, **fields)
        assert answer.cookies == []
        return answer.body

    assert state(token) == "valid"
    assert state("A" * 32) == "gone"
    assert state(token, end="1") == "expired"
    assert state(token, cleanup="1") == "gone"


def test_start(visit: Visit) -> None:
    first = visit(START)
    assert (first.body, first.lifetime) == ("testApp 1", 20)
    second = visit(START, first.cookies[0])
    assert (second.body, second.cookies) == ("testApp 2", [])


def test_processes_at_once(visit: Visit, tmp_path: Path) -> None:
    """Each visit moves the end by five seconds, whatever the others do meanwhile."""
    script = SET_UP.replace("expire=10", "expire=1000") + VISITS
    look = SET_UP + "manager.load()\nprint(web.header())\nprint(repr(manager.expireTime))\n"
    (cookie,) = visit(script).cookies
    before = float(visit(look, cookie).body)
    (tmp_path / "session.py").write_text(script)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: visit(None, cookie), range(6)))
    assert {answer.body.split()[0] for answer in answers} == {"<html>Welcome"}
    assert float(visit(look, cookie).body) == pytest.approx(before + 30, abs=0.001)
