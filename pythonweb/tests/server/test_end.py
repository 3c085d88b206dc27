"""WSGIServer.py: its end, and what becomes of the requests under way."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Running, Servers

    Program = Callable[[str, str], Path]
    Connect = Callable[["Running"], http.client.HTTPConnection]
    BeginSlow = Callable[..., tuple["Running", http.client.HTTPResponse]]
    Run = Callable[..., subprocess.CompletedProcess[str]]
from web_servers import ECHO, GRACE, SLOW, SLOW_REST, refused, wait_for

BIG_SIZE = 20_000_000
BIG = f"""def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{BIG_SIZE}")])
    return [b"x" * {BIG_SIZE}]
"""


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that sends GET /slow on a connection of its own, which is closed after the test."""
    connections: list[http.client.HTTPConnection] = []

    def send(server: Running) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connections.append(connection)
        connection.request("GET", "/slow")
        return connection

    yield send
    for connection in connections:
        connection.close()


@pytest.fixture
def begin_slow(start_server: Servers, program: Program, connect: Connect) -> BeginSlow:
    """A function that gives a server with one answer under way, of which the first part has arrived."""

    def begin(*options: str) -> tuple[Running, http.client.HTTPResponse]:
        server = start_server("--mount", f"/slow={program('slow.py', SLOW)}", *options)
        answer = connect(server).getresponse()
        assert answer.read(6) == b"first "
        return server, answer

    return begin


# Its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_under_way_is_finished_before_the_end(begin_slow: BeginSlow, number: signal.Signals) -> None:
    server, answer = begin_slow()
    server.process.send_signal(number)
    wait_for(lambda: refused(server), "the end of new connections")
    (server.folder / "go").touch()
    with answer:
        assert answer.read() == SLOW_REST
    assert server.process.wait(120) == 0
    assert (server.folder / "closed").exists()
    assert server.errors == "Finishing 1 request(s), 30 s at most; Ctrl-C ends it at once\n"


def test_a_body_in_the_buffers_is_sent_to_its_last_byte(
    start_server: Servers, program: Program, connect: Connect
) -> None:
    server = start_server("--mount", f"/slow={program('big.py', BIG)}")
    answer = connect(server).getresponse()
    with answer:
        received = len(answer.read(1000))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refused(server), "the end of new connections")
        while part := answer.read(1_000_000):
            received += len(part)
            time.sleep(0.02)
    assert received == BIG_SIZE
    assert server.process.wait(120) == 0


def test_a_request_that_waits_for_a_thread_is_answered_too(
    start_server: Servers, program: Program, connect: Connect
) -> None:
    server = start_server("--mount", f"/slow={program('slow.py', SLOW)}", "--threads", "1")
    first, second = connect(server), connect(server)
    wait_for((server.folder / "begun").exists, "the first request")
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refused(server), "the end of new connections")
    (server.folder / "go").touch()
    for connection in (first, second):
        with connection.getresponse() as answer:
            assert answer.read() == b"first " + SLOW_REST
    assert server.process.wait(120) == 0


def test_a_request_half_received_is_answered_too(start_server: Servers, program: Program) -> None:
    server = start_server("--mount", f"/echo={program('echo.py', ECHO)}")
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as raw:
        raw.sendall(b"GET /echo?half HTTP/1.0\r\n")
        time.sleep(0.3)  # the half has to be in the server's hands, which nothing shows from outside
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refused(server), "the end of new connections")
        raw.sendall(b"\r\n")
        assert b"".join(iter(lambda: raw.recv(65536), b"")).endswith(b"/echo||half")
    assert server.process.wait(120) == 0


def test_an_idle_connection_holds_nothing_up(start_server: Servers, program: Program, connect: Connect) -> None:
    server = start_server("--mount", f"/slow={program('echo.py', ECHO)}")
    connection = connect(server)
    connection.getresponse().read()
    time.sleep(0.5)  # the client has the answer a moment before the server is through with the request
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < GRACE / 2
    assert server.errors == ""


def test_a_program_whose_client_went_away_ends_in_its_own_way(
    start_server: Servers, program: Program, connect: Connect
) -> None:
    text = SLOW.replace('yield b"first "', "").replace("for part", 'pathlib.Path("done").touch()\n        for part')
    server = start_server("--mount", f"/slow={program('slow.py', text)}")
    connection = connect(server)
    wait_for((server.folder / "begun").exists, "the request")
    connection.close()
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refused(server), "the end of new connections")
    (server.folder / "go").touch()
    assert server.process.wait(120) == 0
    assert (server.folder / "done").exists()
    assert (server.folder / "closed").exists()


def test_the_wait_is_bounded_and_what_was_cut_off_is_said(begin_slow: BeginSlow) -> None:
    server, answer = begin_slow("--grace", "0.5")
    begun = time.monotonic()
    assert server.stop() == 1
    assert time.monotonic() - begun < GRACE / 2
    with answer, pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    assert server.errors.endswith("1 request(s) had no answer after 0.5 s and were cut off\n")


def test_a_second_ctrl_c_ends_it_at_once(begin_slow: BeginSlow) -> None:
    server, answer = begin_slow()
    server.process.send_signal(signal.SIGINT)
    wait_for(lambda: refused(server), "the end of new connections")
    assert server.process.poll() is None
    begun = time.monotonic()
    assert server.stop(signal.SIGINT) == 130
    assert time.monotonic() - begun < GRACE / 2
    answer.close()


def test_a_connection_that_nobody_has_accepted_yet_is_answered_too(
    start_server: Servers, program: Program, connect: Connect
) -> None:
    server = start_server("--mount", f"/slow={program('echo.py', ECHO)}", "--threads", "2")
    server.process.send_signal(signal.SIGSTOP)  # asleep, so that the kernel keeps what comes in
    connections = [connect(server) for _ in range(20)]
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    for connection in connections:
        with connection.getresponse() as answer:
            assert answer.read() == b"/slow||"
    assert server.process.wait(120) == 0
