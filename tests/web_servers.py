"""What the tests of WSGIServer.py share: programs, and ways to ask."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Running

    Program = Callable[[str, str], Path]
    Connect = Callable[["Running"], http.client.HTTPConnection]
    BeginSlow = Callable[..., tuple["Running", http.client.HTTPResponse]]
    Run = Callable[..., subprocess.CompletedProcess[str]]


ECHO = '''"""Echo <b>bold</b> & co."""
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{environ['QUERY_STRING']}".encode()]
'''


GRACE = 30  # seconds that a server waits for its last requests, where nothing else is asked for
# Sends the first part at once and the rest when the test has made a file, and notes that it was closed.
DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"


SLOW = """import pathlib, time
class Body:
    def __iter__(self):
        pathlib.Path("begun").touch()
        yield b"first "
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        for part in range(1000):
            yield b"%06d " % part
    def close(self):
        pathlib.Path("closed").touch()
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body()
"""
SLOW_REST = b"".join(b"%06d " % part for part in range(1000))


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, failure.read().decode()


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def refused(server: Running) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) != 0
