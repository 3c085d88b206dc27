"""Error pages: what an application raises becomes a response with status 500, and a line in the log."""

from __future__ import annotations

import copy
import ipaddress
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Self, cast
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication

from web.error import cookieSecrets, info
from web.wsgi.base import BaseMiddleware, ExcInfo, Headers, encode

__all__ = ["Error"]

_log = logging.getLogger("web.error")

_END: Any = object()

# How the headers begin that proxies add, and browsers do not.
_OF_PROXIES = tuple(
    f"HTTP_{name}"
    for name in (
        "FORWARDED", "VIA", "X_FORWARDED", "X_REAL_IP", "X_ORIGINAL", "X_CLIENT_IP", "X_CLUSTER_CLIENT_IP",
        "X_REQUEST_ID", "X_SCHEME", "X_PROXY", "X_ENVOY", "X_AMZN", "X_AZURE", "X_CLOUD_TRACE", "X_NGINX", "X_VARNISH",
        "TRUE_CLIENT_IP", "CF_", "FASTLY_", "CLIENT_IP", "PROXY_",
    )
)  # fmt: skip

_PLAIN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Internal Server Error</title></head>
<body><h1>Internal Server Error</h1>
<p>The server could not answer this request. What went wrong is in its log, under the reference <b>{reference}</b>.</p>
</body></html>
"""


@lru_cache(maxsize=1)
def warn_of_debug() -> None:
    """Log once per process what clients see."""
    _log.warning("debug=True shows tracebacks, with source, to every client: omit it if others can reach the server")


class Error(BaseMiddleware):
    """Middleware that answers with an error page if the application raises an error, also while its body is read.

    The page shows the traceback as *debug* allows. Otherwise it shows a reference, which is in the log
    (`logging.getLogger('web.error')`) beside the traceback. Neither of them holds the values of variables or of
    cookies. Middleware inside this one may add texts that must not appear there to the list
    ``environ['web.error.secrets']``.

    If the client has part of the response already, no page can follow: the error is logged and raised again, so
    that the server breaks the connection off and the client does not take the part for the whole.

    Args:
        application: The WSGI application.
        debug: True shows the traceback to every client, with one warning in the log; False to none. None shows it to a
            browser on this machine: its address and the host that it asks for are loopback, it says that it is a
            browser (Sec-Fetch-Site) and that the connection is its own (Connection: keep-alive, which no proxy may pass
            on, RFC 9110 7.6.1), and nothing shows a proxy or a page of another site. A proxy on this machine that
            breaks that rule, asks for a loopback host and adds no header cannot be distinguished from one: set False if
            others can reach the server.

    Attributes:
        request: The WSGI environment of the request; there while `error` runs.
        reference: What names this error on the page and in the log; there while `error` runs.
    """

    request: dict[str, Any]
    reference: str

    def __init__(self, application: WSGIApplication, debug: bool | None = None) -> None:  # noqa: FBT001 -- contract
        super().__init__(application)
        self.debug = debug

    def error(self) -> tuple[str, Headers, Iterable[bytes | str]]:
        """Make the response to the error that is being handled; override it for pages of your own.

        `web.error.info` reports the error when it is called here.

        Returns:
            The status line, the headers and the body; text in it is encoded by the charset of Content-Type.
        """
        if self.showsTraceback():
            page = info("debug", "html", redact=self.secrets())
        else:
            page = _PLAIN.format(reference=self.reference)
        body = page.encode("utf-8", "backslashreplace")
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ]
        return "500 Internal Server Error", headers, [body]

    def showsTraceback(self) -> bool:  # noqa: N802 -- camelCase, as all names here
        """Return whether this request's client may see the traceback."""
        if self.debug is None:
            return _is_local(self.request)
        if self.debug:
            warn_of_debug()
        return bool(self.debug)

    def secrets(self) -> list[str]:
        """List the texts of this request that no page and no log may hold."""
        added: Iterable[object] = self.request.get("web.error.secrets") or ()
        return [*cookieSecrets(self.request.get("HTTP_COOKIE")), *map(str, added)]

    def report(self, what: str, error: Exception) -> None:
        """Write an error to the log. The traceback goes in as text: a handler given the error may log variables.

        Args:
            what: What happened to the request.
            error: The error.
        """
        text = info("traceback", "text", error, redact=self.secrets())
        _log.error(
            "%r %r %s, reference %s\n%s",
            self.request.get("REQUEST_METHOD", ""),
            f"{self.request.get('SCRIPT_NAME', '')}{self.request.get('PATH_INFO', '')}",
            what,
            self.reference,
            # Indented and without control characters: what a client sent cannot pass for a line of the log.
            "\n".join("    " + _printable(line) for line in text.splitlines()),
        )

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Pass one request on, and answer for the application if it fails."""
        call = copy.copy(self)
        call.request = environ
        environ.setdefault("web.error.secrets", [])
        return _Guard(call, start_response).run(super().__call__, environ)


class _Guard:
    """The body of one response, watched."""

    def __init__(self, middleware: Error, start_response: StartResponse) -> None:
        self._middleware = middleware
        self._start_response = start_response
        self._started = False
        self._failed = False
        self._closed = False
        self._body: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] | None = None

    def run(self, application: WSGIApplication, environ: dict[str, Any]) -> Iterable[bytes]:
        try:
            self._body = _checked_body(application(environ, self._start))
            if isinstance(self._body, list | tuple):
                # Reading it cannot fail, and a server makes a Content-Length of a list of one item.
                for chunk in (*self._body, _END):
                    self._check(chunk)
                return self._body
        except Exception as error:  # noqa: BLE001 -- whatever the application raises
            self._answer(error)
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise StopIteration
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            chunk = next(self._iterator, _END)
            self._check(chunk)
        except Exception as error:
            if self._failed:
                raise
            self._answer(error)
            return next(self)
        if chunk is _END:
            raise StopIteration
        return chunk

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close_body()

    def _start(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Callable[[bytes], object]:
        self._started = True
        if exc_info:
            return self._start_response(status, headers, exc_info)
        return self._start_response(status, headers)

    def _check(self, chunk: object) -> None:
        """Refuse what a server would refuse without a page; _END stands for the end of the body."""
        if chunk is not _END:
            _check_bytes(chunk, "the application's body")
        if chunk != b"" and not self._started:
            raise RuntimeError("the application did not call start_response before its body")

    def _answer(self, error: Exception) -> None:
        """Put the error page in the place of the response.

        Called while the error is handled. If part of the response was sent, the server's start_response raises
        the error again, as WSGI asks of it.
        """
        self._failed = True
        self._middleware.reference = secrets.token_hex(6)
        self._middleware.report("failed", error)
        try:
            status, headers, page = self._page()
        finally:
            self._close_body()
        self._start(status, headers, sys.exc_info())
        self._body = [] if self._middleware.request.get("REQUEST_METHOD") == "HEAD" else page
        self._iterator = None

    def _page(self) -> tuple[str, Headers, Iterable[bytes]]:
        try:
            status, headers, page = self._middleware.error()
            return status, headers, [_bytes(item, headers) for item in page]
        except Exception as error:  # noqa: BLE001 -- a subclass's page must not hide the error it is about
            self._middleware.report("failed to create the error page", error)
        plain = copy.copy(self._middleware)
        plain.debug = False
        status, headers, page = Error.error(plain)
        return status, headers, cast("Iterable[bytes]", page)

    def _close_body(self) -> None:
        body, self._body = self._body, ()
        close = getattr(body, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:  # noqa: BLE001 -- the response is over, only the log is left to tell
            if not self._failed:
                self._middleware.reference = secrets.token_hex(6)
            self._middleware.report("failed at the end of its response", error)


def _bytes(item: object, headers: Headers) -> bytes:
    if isinstance(item, str):
        return encode(item, headers)
    _check_bytes(item, "the error page")
    return cast("bytes", item)


def _check_bytes(chunk: object, what: str) -> None:
    if not isinstance(chunk, bytes):
        raise TypeError(f"{what} holds a {type(chunk).__name__}: WSGI takes bytes, so encode it")


def _checked_body(body: Any) -> Iterable[bytes]:
    if body is None or isinstance(body, str | bytes):
        raise TypeError(f"the application returned {type(body).__name__}: it must return a list of bytes")
    return cast("Iterable[bytes]", body)


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def _is_local(environ: dict[str, Any]) -> bool:
    """Return whether the client is a browser on this machine, as far as a request shows."""
    if any(key.startswith(_OF_PROXIES) for key in environ):
        return False
    # nginx uses HTTP/1.0 by default, and no browser does.
    if environ.get("SERVER_PROTOCOL", "") in ("", "HTTP/0.9", "HTTP/1.0"):
        return False
    # Valid for one hop only (RFC 9110 7.6.1), so it proves a browser with a direct connection.
    if "keep-alive" not in environ.get("HTTP_CONNECTION", "").lower():
        return False
    if environ.get("HTTP_SEC_FETCH_SITE") not in ("none", "same-origin", "same-site"):
        return False
    # A browser that came through a proxy sends the page that it came from.
    pages = (environ.get("HTTP_ORIGIN"), environ.get("HTTP_REFERER"))
    if not all(_is_loopback_name(_host_of(page)) for page in pages if page):
        return False
    # The Host header stops a web site whose name was made to point at this machine (DNS rebinding).
    host = re.sub(r":[0-9]*$", "", environ.get("HTTP_HOST") or "localhost").strip("[]")
    return _is_loopback(environ.get("REMOTE_ADDR") or "") and _is_loopback_name(host)


def _host_of(page: str) -> str:
    try:
        return urlsplit(page).hostname or ""
    except ValueError:
        return ""


def _is_loopback_name(host: str) -> bool:
    host = host.lower()
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
