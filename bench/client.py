"""A client that calls a WSGI application in its own process: no server, no network."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_TEMPLATE: Final[dict[str, Any]] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "bench.example",
    "SERVER_PORT": "443",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "HTTP_HOST": "bench.example",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.5",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "https",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": io.StringIO(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: The status code; 500 where an exception reached the client.
        body: The whole body.
        cookie: The Cookie header to send from now on.
        was_set: True where this response set a cookie.
    """

    status: int
    body: bytes
    cookie: str
    was_set: bool


def request_of(path: str, cookie: str = "", argument: str = "") -> dict[str, Any]:
    """Give the environ of a request."""
    environ = {**_TEMPLATE, "PATH_INFO": path, "QUERY_STRING": argument}
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    return environ


def ask(app: WSGIApplication, path: str, cookie: str = "", argument: str = "") -> Reply:
    """Do one request."""
    statuses: list[str] = []
    cookies = dict(pair.split("=", 1) for pair in cookie.split("; ") if pair)
    fresh: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        statuses.append(status)
        fresh.extend(value for name, value in headers if name.lower() == "set-cookie")
        return io.BytesIO().write

    try:
        chunks: Any = app(request_of(path, cookie, argument), start_response)
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
    except Exception:  # noqa: BLE001 (as a server would answer)
        return Reply(500, b"", cookie, was_set=False)
    for line in fresh:
        name, value = line.partition(";")[0].strip().split("=", 1)
        cookies[name] = value
        if not value or "max-age=0" in line.lower() or "1970" in line:
            del cookies[name]
    return Reply(int(statuses[-1][:3]), body, "; ".join(f"{k}={v}" for k, v in cookies.items()), bool(fresh))


def timed(app: WSGIApplication, environ: dict[str, Any], times: int) -> float:
    """Do the same request *times* times and give the seconds that one took."""
    statuses: list[str] = []

    def start_response(status: str, _headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        statuses.append(status)

    start = time.perf_counter()
    for _ in range(times):
        body: Any = app(environ.copy(), start_response)
        for _chunk in body:
            pass
        if hasattr(body, "close"):
            body.close()
    took = (time.perf_counter() - start) / times
    if len(statuses) != times or any(not status.startswith("200") for status in statuses):
        raise RuntimeError(f"{environ['PATH_INFO']} was answered with {sorted(set(statuses))}")
    return took
