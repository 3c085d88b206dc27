"""A process that is killed around a commit leaves the row and the session's change both, or neither."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import os, signal, sys
from wsgiref.util import setup_testing_defaults
from web.database import Connection
from web.wsgi import database, environment, session

path, cookie, where, stop = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rounds = 0

def die(moment):
    if where == moment and rounds == stop:
        os.kill(os.getpid(), signal.SIGKILL)

class Hook:
    # added after the session's, so that its changes are in the transaction by now
    def before_commit(self, connection):
        die("flushed")
    def after_commit(self, connection):
        die("committed")
    def after_rollback(self, connection):
        pass

def app(environ, start_response):
    connection = environ["web.database.connection"]
    connection.addHook(Hook())
    store = environ["web.session.store"]
    store.increment("hits")
    store.update_with("list", lambda value: [*value, len(value)], [])
    connection.cursor().execute("INSERT INTO note (text) VALUES (?)", ["hit"])
    die("written")
    connection.commit()
    start_response("200 OK", [])
    return []

stack = database.Database(environment.Environment(session.Session(app, app="testApp"), "testEnv", "database"),
                          "sqlite", path)
while True:
    rounds += 1
    environ = {"HTTP_COOKIE": "testEnv=" + cookie}
    setup_testing_defaults(environ)
    body = stack(environ, lambda status, headers: None)
    list(body)
    body.close()
"""

NONE_OF_THE_LAST = ("written", "flushed")


@pytest.mark.parametrize("where", ["written", "flushed", "committed"])
@pytest.mark.parametrize("stop", [1, 2, 7])
def test_both_or_none(site: Any, where: str, stop: int) -> None:
    browser = site.browser(hits=0)
    command = [sys.executable, "-c", PROGRAM, str(site.path), browser.token, where, str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr
    landed = stop - 1 if where in NONE_OF_THE_LAST else stop
    assert site.rows() == ["hit"] * landed
    found = browser.read()
    assert found["hits"] == landed
    assert found.get("list", []) == list(range(landed))


def test_killed_at_any_moment(site: Any, tmp_path: Path) -> None:
    """Killed from outside, whatever it is just doing: the counts agree."""
    browser = site.browser(hits=0)
    for patience in (0.01, 0.05, 0.12):
        before = len(site.rows())
        command = [sys.executable, "-c", PROGRAM, str(site.path), browser.token, "never", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while len(site.rows()) == before:  # how long it takes to start is the machine's affair
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(patience)
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
        found = browser.read()
        assert found["hits"] == len(site.rows()) == len(found.get("list", [])) > before
