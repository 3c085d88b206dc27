"""Several Cookie headers in one request: what real servers make of them, and what is said of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import waitress.server

from coatcheck import Event, EventKind, SessionManager
from coatcheck.testing import signed_in
from coatcheck.wsgi import SessionMiddleware


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _wsgiref(application: Any) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _waitress(application: Any) -> Iterator[int]:
    sockets: dict[int, Any] = {}
    server = waitress.server.create_server(application, sockets, host="127.0.0.1", port=0, threads=1)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            server.asyncore.loop(timeout=0.05, map=sockets, count=1)
        server.task_dispatcher.shutdown()
        server.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("serve", [_wsgiref, _waitress])
@pytest.mark.parametrize("first", [True, False])
def test_a_session_cookie_in_several_headers_is_refused_and_told_of(serve: Callable[..., Any], *, first: bool) -> None:
    events: list[Event] = []
    manager = SessionManager("memory:", listeners=[events.append])
    lines = [signed_in(manager, "ada").header, "a=b"]
    events.clear()
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.url_scheme"] = "https"
        return list(site(environ, start_response))

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append((environ["HTTP_COOKIE"], environ["coatcheck.session"].user))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    site = SessionMiddleware(page, manager)
    headers = "".join(f"Cookie: {line}\r\n" for line in (lines if first else lines[::-1]))
    with serve(application) as port, socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode())
        while client.recv(4096):
            pass
    ((header, user),) = seen
    assert "," in header
    assert user is None
    assert [event.kind for event in events] == [EventKind.JOINED]
