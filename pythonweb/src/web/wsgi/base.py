"""The two classes that applications and middleware of the Python Web Modules are made from.

One instance serves any number of threads: each request works on its own shallow copy of it, so what a request sets on
``self`` is seen by that request alone. An attribute that a constructor made (a list, a cache) is shared by all copies.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, groupby
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from wsgiref.types import StartResponse, WSGIApplication

__all__ = ["BaseApplication", "BaseMiddleware", "ClosingBody", "ExcInfo", "Headers", "encode"]

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

T = TypeVar("T")

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s;"']*)""", re.IGNORECASE)
_STATUS = re.compile(r"[1-9][0-9][0-9] [^\x00-\x1f\x7f]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_MARKUP = ("text/html", "text/xml", "application/xhtml+xml", "application/xml")


def encode(text: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Encode a body by the charset that its Content-type names, by default UTF-8.

    A character that the charset does not have becomes a character reference (``&#8364;``) in HTML and XML. Anywhere
    else it is an error: replacing it would lose it silently.

    Args:
        text: The body.
        headers: The response's headers.

    Returns:
        The encoded body.

    Raises:
        ValueError: The charset is unknown, or lacks a character of the body.
    """
    content_type = _header(headers, "content-type") or ""
    found = _CHARSET.search(content_type)
    charset = (found.group(1) if found else "") or "utf-8"
    markup = content_type.partition(";")[0].strip().lower() in _MARKUP
    try:
        codecs.lookup(charset)
        return text.encode(charset, "xmlcharrefreplace" if markup else "strict")
    except UnicodeEncodeError as error:
        lacking = text[error.start : error.start + 1]
        raise ValueError(
            f"the body contains {lacking!a}, which {charset!r} cannot encode: "
            f"name another charset in Content-type ({content_type!r}), for example charset=utf-8"
        ) from None
    except (LookupError, ValueError):
        raise ValueError(
            f"Content-type {content_type!r} names a charset that Python does not know: use for example charset=utf-8"
        ) from None


class ClosingBody:
    """A response body that does something once, when the response has ended.

    Args:
        body: The body; its ``close()``, if there is one, is called first.
        release: Functions called after that, in this order, each of them even if a previous one failed.
    """

    def __init__(self, body: Iterable[bytes], *release: Callable[[], object]) -> None:
        self._body = body
        self._release = release
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        """End the response: close the body, then release what it needed. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:
            for release in reversed(self._release):
                stack.callback(release)
            close = getattr(self._body, "close", None)
            if close is not None:
                stack.callback(close)


class BaseApplication:
    """A WSGI application: subclass it and override `start`.

    A subclass may leave out the call of this constructor, and may set ``status`` and ``headers`` on the class.

    Args:
        status: The status line that a response has unless `start` sets another.
        headers: The headers that a response begins with, as ``(name, value)``.

    Attributes:
        environ: The WSGI environment of the request; there while `start` runs.
        status: The status line of this response.
        headers: The headers of this response: append to it.
    """

    environ: dict[str, Any]
    status: str
    headers: Headers
    _output: list[str | bytes] | None = None

    def __init__(
        self,
        status: str = "200 OK",
        headers: Iterable[tuple[str, str]] = (("Content-type", "text/html"),),
    ) -> None:
        self.status = status
        self.headers = list(headers)

    def start(self) -> None:
        """Make the response: read ``self.environ``, set ``self.status``, append to ``self.headers``, call `output`.

        Raises:
            NotImplementedError: The subclass does not override it.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a start() method that creates the response")

    def output(self, *text: object) -> None:
        """Add to the body of the response.

        Args:
            *text: Anything; each item is added as ``str(item)``, bytes as they are.

        Raises:
            RuntimeError: No request is being answered.
        """
        if self._output is None:
            raise RuntimeError("output() adds to a response: call it from start(), while a request is answered")
        for item in text:
            self._output.append(bytes(item) if isinstance(item, bytes | bytearray | memoryview) else str(item))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request.

        Raises:
            ValueError: The status, a header or the charset cannot be sent.
        """
        call = copy.copy(self)
        call.environ = environ
        call.status = getattr(self, "status", "200 OK")
        call.headers = list(getattr(self, "headers", (("Content-type", "text/html"),)))
        output: list[str | bytes] = []
        call._output = output  # noqa: SLF001 -- a copy of this object
        call.start()
        status, headers = _checked_status(call.status), _checked_headers(call.headers)
        if status[:3] in ("204", "304"):
            # These have no body by definition, and a description of one confuses clients that keep the connection.
            start_response(
                status, [each for each in headers if each[0].lower() not in ("content-type", "content-length")]
            )
            return []
        _name_charset(headers)
        # Text is encoded in as few pieces as there are: some charsets begin each of them with a mark.
        body = b"".join(
            encode("".join(run), headers) if isinstance(run[0], str) else b"".join(run)
            for _, items in groupby(output, lambda item: isinstance(item, str))
            if (run := cast("Any", list(items)))
        )
        if _header(headers, "content-length") is None:
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


class BaseMiddleware:
    """Middleware: subclass it and override the hooks. Each of them gets a thing and returns what takes its place.

    For one request they run on one copy of the instance, in this order: `setup`, `environ`, then the application, then
    `response` (which calls `status`, `headers` and `exc_info`) when the application starts its response, then
    `transform`. An application that starts a second response because of an error passes through `response` again.
    If middleware is stacked, `environ` runs outermost first, and headers and body innermost first.

    Args:
        application: The WSGI application, or other middleware, that this one surrounds.
    """

    application: WSGIApplication

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def setup(self) -> None:
        """Prepare this request's copy of the middleware; called before all other hooks."""

    def environ(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Change the WSGI environment that the application gets."""
        return environ

    def status(self, status: str) -> str:
        """Change the status line of the response."""
        return status

    def headers(self, headers: Headers) -> Headers:
        """Change the headers of the response; the list is this request's own and may be changed in place."""
        return headers

    def exc_info(self, exc_info: ExcInfo | None) -> ExcInfo | None:
        """Change the error that the response reports, or None if it reports none."""
        return exc_info

    def response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> tuple[str, Headers, ExcInfo | None]:
        """Change the start of the response; calls `status`, `headers` and `exc_info`."""
        return self.status(status), self.headers(headers), self.exc_info(exc_info)

    def transform(self, output: Iterable[bytes]) -> Iterable[bytes]:
        """Change the body of the response.

        If a subclass overrides this, a Content-Length that the application set is left out, because it would be
        wrong; what the application sends by ``write()`` is part of *output*.

        Args:
            output: The body; it is closed for you. It may be added to a list, as in ``output + ['</html>']``.

        Returns:
            The new body. It may be a generator, and its ``close()`` is called. Text in it is encoded by the charset of
            Content-type, UTF-8 if that names none.
        """
        return output

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Pass one request to the application, through the hooks."""
        call = copy.copy(self)
        call.setup()
        changed = call.environ(environ)
        return _Passage(call, start_response).run(_given(changed, call, "environ"))


class _Passage:
    """One request on its way through one middleware."""

    def __init__(self, hooks: BaseMiddleware, start_response: StartResponse) -> None:
        self._hooks = hooks
        self._start_response = start_response
        self._transforms = getattr(hooks.transform, "__func__", None) is not BaseMiddleware.transform
        self._queue: deque[bytes] = deque()
        self._headers: Headers = []
        self.started = False

    def start(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Callable[[bytes], object]:
        length = _header(headers, "content-length")
        # A copy: an application may pass one list for all of its responses, and hooks append cookies to it.
        answer = self._hooks.response(status, list(headers), exc_info)
        status, headers, exc_info = _given(answer, self._hooks, "response")
        _given(status, self._hooks, "status")
        _given(headers, self._hooks, "headers")
        if self._transforms and length is not None:
            headers = [each for each in headers if (each[0].lower(), each[1]) != ("content-length", length)]
        self._headers = headers
        write = self._start_response(status, headers, exc_info) if exc_info else self._start_response(status, headers)
        self.started = True
        if not self._transforms:
            return write
        # A response that replaces another because of an error replaces what of it was not sent, too.
        self._queue.clear()
        return self._queue.append

    def run(self, environ: dict[str, Any]) -> Iterable[bytes]:
        output = self._hooks.application(environ, self.start)
        if not self._transforms:
            return output
        source = _Source(output, self._queue)
        try:
            if not self.started:
                # A generator starts its response with its first item; transform() may rely on headers() before it.
                source.prime()
            transformed = _given(self._hooks.transform(source), self._hooks, "transform")
        except BaseException:
            source.close()
            raise
        if transformed is source:
            return source
        close = getattr(transformed, "close", None)
        return ClosingBody(map(self._encoded, transformed), *([close] if close is not None else ()), source.close)

    def _encoded(self, item: bytes | str) -> bytes:
        return encode(item, self._headers) if isinstance(item, str) else item


class _Sum:
    """A body with lists before or after it, which do not close it: that is left to the maker of the body."""

    def __init__(self, *parts: Iterable[bytes | str]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes | str]:
        return chain.from_iterable(self._parts)

    def __add__(self, other: object) -> _Sum:
        return _Sum(*self._parts, other) if isinstance(other, list | tuple | _Sum) else NotImplemented

    def __radd__(self, other: object) -> _Sum:
        return _Sum(other, *self._parts) if isinstance(other, list | tuple) else NotImplemented


class _Source(ClosingBody):
    """The body that transform() gets: what write() was given, then what the application returned."""

    def __add__(self, other: object) -> _Sum:
        return _Sum(self) + other

    def __radd__(self, other: object) -> _Sum:
        return _Sum(self).__radd__(other)

    def __init__(self, body: Iterable[bytes], queue: deque[bytes]) -> None:
        super().__init__(body)
        self._queue = queue

    def prime(self) -> None:
        try:
            self._queue.append(super().__next__())
        except StopIteration:
            return

    def __next__(self) -> bytes:
        if not self._queue:
            self.prime()
        if not self._queue or self._closed:
            raise StopIteration
        return self._queue.popleft()


def _given(value: T | None, hooks: BaseMiddleware, hook: str) -> T:
    if value is None:
        raise TypeError(
            f"{type(hooks).__name__}.{hook}() returned None: it must return what it was given, or a change of it"
        )
    return value


def _header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    return next((str(value) for key, value in headers if str(key).lower() == name), None)


def _checked_status(status: object) -> str:
    if not isinstance(status, str) or not _STATUS.fullmatch(status):
        raise ValueError(f"self.status is {status!r}: it must be a number and a reason, as in '404 Not Found'")
    return status


def _checked_headers(headers: Iterable[tuple[Any, Any]]) -> Headers:
    checked = []
    for header in headers:
        try:
            name, value = (str(part) for part in header)
        except (TypeError, ValueError):
            raise ValueError(f"self.headers holds a {type(header).__name__} that is no (name, value) pair") from None
        # No message shows a value: it may be a cookie.
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header: names consist of letters, digits and hyphens")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name!r} contains a line break or another control character")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(
                f"the value of header {name!r} contains a character outside of Latin-1: encode it first"
            ) from None
        checked.append((name, value))
    return checked


def _name_charset(headers: Headers) -> None:
    """Add the charset UTF-8 to the Content-type of a text without a charset."""
    for position, (name, value) in enumerate(headers):
        if name.lower() == "content-type":
            if value.lower().lstrip().startswith("text/") and not _CHARSET.search(value):
                headers[position] = (name, f"{value.rstrip('; ')}; charset=utf-8")
            return
    headers.append(("Content-type", "text/html; charset=utf-8"))
