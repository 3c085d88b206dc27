"""BaseApplication and BaseMiddleware, and the two functions of web.wsgi."""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, FBT002 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import web.wsgi
from web.wsgi import base, currentURL


class Answer:
    """One response, read as a server reads it: the headers go out with the first byte of the body."""

    def __init__(self, application, checked=True, **over: Any) -> None:
        environ: dict[str, Any] = {"QUERY_STRING": "", **over}
        setup_testing_defaults(environ)
        self.status: str = ""
        self.headers: list[tuple[str, str]] = []
        self.starts: list[str] = []
        self.body = b""
        sent: list[bytes] = []

        def start_response(status, headers, exc_info=None):
            if exc_info and sent:
                raise exc_info[1]
            assert exc_info or not self.status, "start_response called twice"
            self.status, self.headers = status, headers
            self.starts.append(status)
            return sent.append

        body = (validator(application) if checked else application)(environ, start_response)
        try:
            for chunk in body:
                assert self.status, "a chunk before start_response"
                sent.append(chunk)
        finally:
            if hasattr(body, "close"):
                body.close()
            self.body = b"".join(sent)

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) < 2, f"{name} twice"
        return found[0] if found else None


def app_of(*items: Any, **attributes: Any) -> base.BaseApplication:
    class Application(base.BaseApplication):
        def start(self) -> None:
            for name, value in attributes.items():
                setattr(self, name, value)
            self.output(*items)

    return Application()


def test_star_import_gives_the_documented_names() -> None:
    assert set(web.wsgi.__all__) == {
        "base", "cgi", "database", "environment", "error", "session", "runCGI", "currentURL"
    }  # fmt: skip
    for name in set(web.wsgi.__all__) - {"session"}:
        assert getattr(web.wsgi, name).__name__ in (name, f"web.wsgi.{name}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = web.wsgi.nothing


def test_plain_page() -> None:
    answer = Answer(app_of("<p>", 5, None, "é", b"\xff"))
    assert answer.status == "200 OK"
    assert answer.headers == [("Content-type", "text/html; charset=utf-8"), ("Content-Length", "11")]
    assert answer.body == "<p>5Noneé".encode() + b"\xff"


@pytest.mark.parametrize(
    ("content_type", "text", "sent_type", "sent"),
    [
        ("text/html", "é", "text/html; charset=utf-8", b"\xc3\xa9"),
        ("text/plain;", "é", "text/plain; charset=utf-8", b"\xc3\xa9"),
        ("text/html; charset=iso-8859-1", "é", "text/html; charset=iso-8859-1", b"\xe9"),
        ('text/html; Charset="ISO-8859-1"', "é", 'text/html; Charset="ISO-8859-1"', b"\xe9"),
        ("text/html; charset=iso-8859-1", "€", "text/html; charset=iso-8859-1", b"&#8364;"),
        ("application/json", "é", "application/json", b"\xc3\xa9"),
        ("text/html", "\ud800", "text/html; charset=utf-8", b"&#55296;"),
        ("text/html; charset=utf-16", "a", "text/html; charset=utf-16", "a".encode("utf-16")),
    ],
)
def test_charset(content_type: str, text: str, sent_type: str, sent: bytes) -> None:
    answer = Answer(app_of(text, headers=[("Content-type", content_type)]))
    assert (answer.get("content-type"), answer.body) == (sent_type, sent)


@pytest.mark.parametrize(
    ("attributes", "text", "message"),
    [
        ({"headers": [("Content-type", "text/html; charset=nonsense")]}, "a", "charset that Python does not know"),
        ({"headers": [("Content-type", "text/html; charset=zip")]}, "a", "charset that Python does not know"),
        ({"headers": [("Content-type", "text/plain; charset=latin-1")]}, "€", r"'\\u20ac', which 'latin-1' cannot"),
        ({"status": 200}, "a", "self.status is 200: it must be a number and a reason"),
        ({"status": "200 OK\r\nX: y"}, "a", "must be a number and a reason"),
        ({"headers": [("X-A", "a\r\nSet-Cookie: b")]}, "a", "value of header 'X-A' holds a line break"),
        ({"headers": [("X A", "b")]}, "a", "'X A' is not the name of a header"),
        ({"headers": [("X-A", "€")]}, "a", "outside of Latin-1"),
        ({"headers": ["X-A: b"]}, "a", r"no \(name, value\) pair"),
    ],
)
def test_what_cannot_be_sent_is_a_clear_error(attributes: dict[str, Any], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answer(app_of(text, **attributes))


def test_no_error_shows_the_value_of_a_header() -> None:
    with pytest.raises(ValueError, match="Set-Cookie") as raised:
        Answer(app_of("a", headers=[("Set-Cookie", "secret-token\n")]))
    assert "secret-token" not in str(raised.value)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_body_has_none(status: str) -> None:
    answer = Answer(app_of("ignored", status=status))
    assert (answer.status, answer.headers, answer.body) == (status, [], b"")


def test_head_has_the_headers_of_get() -> None:
    get, head = Answer(app_of("abc")), Answer(app_of("abc"), REQUEST_METHOD="HEAD")
    assert (head.headers, head.body) == (get.headers, b"")


def test_missing_content_type_and_given_length() -> None:
    answer = Answer(app_of("abc", headers=[("Content-Length", "3")]))
    assert sorted(answer.headers) == [("Content-Length", "3"), ("Content-type", "text/html; charset=utf-8")]


def test_constructor_takes_status_and_headers_and_shares_neither() -> None:
    class Application(base.BaseApplication):
        def start(self) -> None:
            self.headers.append(("X-A", "b"))

    given = [("Content-type", "text/plain")]
    application = Application("404 Not Found", given)
    for _ in range(2):
        answer = Answer(application)
        assert answer.status == "404 Not Found"
        assert answer.get("x-a") == "b"
        assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert given == [("Content-type", "text/plain")]
    assert Application().headers == [("Content-type", "text/html")]


def test_a_subclass_may_leave_out_the_constructor_or_set_attributes_on_the_class() -> None:
    class Silent(base.BaseApplication):
        def __init__(self) -> None:
            self.greeting = "hello"

        def start(self) -> str:
            self.output(self.greeting)
            return "ignored"

    class Set(base.BaseApplication):
        status = "201 Created"
        headers = [("Content-type", "text/plain")]  # noqa: RUF012 -- as a program of 2005 may

        def __init__(self) -> None:
            pass

        def start(self) -> None:
            self.headers.append(("X-A", "b"))

    assert Answer(Silent()).body == b"hello"
    for _ in range(2):
        assert Answer(Set()).headers == [
            ("Content-type", "text/plain; charset=utf-8"), ("X-A", "b"), ("Content-Length", "0")
        ]  # fmt: skip


def test_start_and_output_out_of_place() -> None:
    with pytest.raises(NotImplementedError, match=r"BaseApplication needs a start\(\) method"):
        Answer(base.BaseApplication())
    with pytest.raises(RuntimeError, match="while a request is answered"):
        app_of().output("a")


class Echo(base.BaseApplication):
    """Sends the request's cookie back, by way of the headers and of an attribute, with others in between."""

    barrier = threading.Barrier(8)

    def start(self) -> None:
        self.cookie = self.environ["HTTP_COOKIE"]
        self.status = f"200 {self.cookie}"
        self.headers.append(("Set-Cookie", self.cookie))
        self.barrier.wait(120)
        self.output(self.cookie, "|", self.environ["HTTP_COOKIE"])


class Marked(base.BaseMiddleware):
    """Keeps the request's cookie on self in environ(), as programs of 2005 did, and uses it in every other hook."""

    def environ(self, environ):
        self.cookie = environ["HTTP_COOKIE"]
        return environ

    def status(self, status):
        return f"{status} {self.cookie}"

    def headers(self, headers):
        return [*headers, ("X-Mark", self.cookie)]

    def transform(self, output):
        yield from output
        yield f"|{self.cookie}".encode()


def test_eight_threads_leak_nothing_between_requests() -> None:
    application = Marked(Marked(Echo()))

    def requests(worker: int) -> None:
        for number in range(60):
            cookie = f"c={worker}-{number}"
            answer = Answer(application, HTTP_COOKIE=cookie)
            assert answer.body.decode().split("|") == [cookie] * 4
            assert answer.status == f"200 {cookie} {cookie} {cookie}"
            mine = {value for name, value in answer.headers if name in ("Set-Cookie", "X-Mark")}
            assert mine == {cookie}
            assert len(answer.headers) == 4

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(requests, worker) for worker in range(8)]:
            result.result()


def test_that_test_fails_where_requests_share_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.wsgi.base.copy.copy", lambda instance: instance)
    with pytest.raises((AssertionError, threading.BrokenBarrierError)):
        test_eight_threads_leak_nothing_between_requests()
    Echo.barrier.reset()


# Middleware


class Closing:
    def __init__(self, items, at=None) -> None:
        self.items, self.at, self.closed = iter(items), at, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == "next":
            raise LookupError("in the body")
        return next(self.items)

    def close(self) -> None:
        self.closed += 1
        if self.at == "close":
            raise LookupError("in close")


PLAIN = [("Content-Type", "text/plain")]


def generator_app(environ, start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    yield b"a"
    yield b"b"


def write_app(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"w1")
    write(b"w2")
    return [b"r"]


def late_writer(environ, start_response):
    write = start_response("200 OK", PLAIN)
    yield b"a"
    write(b"w")
    yield b"b"
    write(b"x")


def retrying_app(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"never sent where a transform holds it back")
    try:
        int("late")
    except ValueError:
        start_response("500 Oops", PLAIN, sys.exc_info())
    return [b"sorry"]


class Upper(base.BaseMiddleware):
    def transform(self, output):
        return (chunk.upper() for chunk in output)


class Brackets(base.BaseMiddleware):
    """Yields before it reads the body."""

    def transform(self, output):
        yield b"["
        yield from output
        yield b"]"


class Eager(base.BaseMiddleware):
    def transform(self, output):
        return [b"".join(output)]


@pytest.mark.parametrize(
    ("middleware", "application", "body"),
    [
        (base.BaseMiddleware, generator_app, b"ab"),
        (base.BaseMiddleware, write_app, b"w1w2r"),
        (base.BaseMiddleware, late_writer, b"awbx"),
        (Upper, generator_app, b"AB"),
        (Upper, write_app, b"W1W2R"),
        (Upper, late_writer, b"AWBX"),
        (Upper, retrying_app, b"SORRY"),
        (Brackets, generator_app, b"[ab]"),
        (Brackets, write_app, b"[w1w2r]"),
        (Eager, generator_app, b"ab"),
        (Eager, late_writer, b"awbx"),
    ],
)
@pytest.mark.parametrize("depth", [1, 2])
def test_bodies_of_every_kind(middleware, application, body: bytes, depth: int) -> None:
    stacked = application
    for _ in range(depth):
        stacked = middleware(stacked)
    expected = body if middleware is not Brackets or depth == 1 else b"[" + body + b"]"
    # The validator takes no write() before the body is iterated, which WSGI allows.
    assert Answer(stacked, checked=application not in (late_writer, retrying_app)).body == expected


def test_a_transform_leaves_out_the_stale_length_and_keeps_its_own() -> None:
    class Sized(Upper):
        def headers(self, headers):
            return [*(each for each in headers if each[0] != "Content-Length"), ("Content-Length", "02")]

    assert Answer(base.BaseMiddleware(generator_app)).get("content-length") == "2"
    assert Answer(Upper(generator_app)).get("content-length") is None
    assert Answer(Sized(generator_app)).get("content-length") == "02"


def test_order_of_hooks() -> None:
    seen: list[str] = []

    class Traced(base.BaseMiddleware):
        def __init__(self, application, name) -> None:
            super().__init__(application)
            self.name = name

        def setup(self) -> None:
            self.mine: list[str] = []
            seen.append(f"{self.name} setup")

        def environ(self, environ):
            seen.append(f"{self.name} environ")
            return {**environ, "trace": [*environ.get("trace", ()), self.name]}

        def status(self, status):
            seen.append(f"{self.name} status")
            return status

        def headers(self, headers):
            seen.append(f"{self.name} headers")
            headers.append(("X-Trace", self.name))
            return headers

        def exc_info(self, exc_info):
            seen.append(f"{self.name} exc_info {exc_info}")
            return exc_info

        def transform(self, output):
            seen.append(f"{self.name} transform")
            return [*output, self.name.encode()]

    constant = [("Content-Type", "text/plain")]

    def application(environ, start_response):
        assert environ["trace"] == ["outer", "inner"]
        start_response("200 OK", constant)
        return []

    answer = Answer(Traced(Traced(application, "inner"), "outer"))
    assert answer.body == b"innerouter"
    assert answer.headers == [("Content-Type", "text/plain"), ("X-Trace", "inner"), ("X-Trace", "outer")]
    steps = ["status", "headers", "exc_info None"]
    assert seen == [
        "outer setup", "outer environ", "inner setup", "inner environ",
        *(f"inner {step}" for step in steps), *(f"outer {step}" for step in steps),
        "inner transform", "outer transform",
    ]  # fmt: skip
    assert constant == [("Content-Type", "text/plain")], "the application's own list was changed"


def test_response_hook_sees_the_error_of_a_second_start() -> None:
    seen: list[Any] = []

    class Watching(base.BaseMiddleware):
        def response(self, status, headers, exc_info=None):
            seen.append((status, exc_info and exc_info[0]))
            return super().response("503 Changed" if exc_info else status, headers, exc_info)

    answer = Answer(Upper(Watching(retrying_app)), checked=False)
    assert seen == [("200 OK", None), ("500 Oops", ValueError)]
    assert answer.starts == ["200 OK", "503 Changed"]


@pytest.mark.parametrize("middleware", [base.BaseMiddleware, Upper, Brackets, Eager])
@pytest.mark.parametrize("at", [None, "next", "close"])
def test_the_body_is_closed_once_whatever_happens(middleware, at: str | None) -> None:
    body = Closing([b"a"], at)

    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return body

    if at:
        with pytest.raises(LookupError):
            Answer(middleware(middleware(application)), checked=False)
    else:
        Answer(middleware(middleware(application)))
    assert body.closed == 1


def test_a_transform_that_is_abandoned_or_fails_closes_everything() -> None:
    events: list[str] = []

    class Watched(base.BaseMiddleware):
        def transform(self, output):
            try:
                yield from output
            finally:
                events.append("transform")

    class Failing(base.BaseMiddleware):
        def transform(self, output):
            raise LookupError("in transform")

    inner = Closing([b"a", b"b"])

    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return inner

    body: Any = Watched(application)({}, lambda *_: events.append)  # type: ignore[arg-type, return-value]
    assert next(body) == b"a"
    body.close()
    body.close()
    assert (events, inner.closed, list(body)) == (["transform"], 1, [])
    inner = Closing([b"a"])
    with pytest.raises(LookupError, match="in transform"):
        Answer(Failing(application), checked=False)
    assert inner.closed == 1


@pytest.mark.parametrize("hook", ["environ", "status", "headers", "response", "transform"])
def test_a_hook_that_returns_nothing_is_named(hook: str) -> None:
    middleware = type("Forgetful", (base.BaseMiddleware,), {hook: lambda *_: None})(generator_app)
    with pytest.raises(TypeError, match=rf"Forgetful\.{hook}\(\) returned None"):
        Answer(middleware)


def test_closing_body_releases_all_in_order() -> None:
    events: list[str] = []

    def fail() -> None:
        events.append("first")
        raise LookupError("first")

    body = base.ClosingBody(Closing([b"a"]), fail, lambda: events.append("second"))
    with pytest.raises(LookupError):
        body.close()
    body.close()
    assert events == ["first", "second"]


# Functions


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HTTP_HOST": "localhost:8000", "SCRIPT_NAME": "/session"}, "http://localhost:8000/session"),
        ({"HTTP_HOST": "a.example", "QUERY_STRING": "destroy=True&a=%20"}, "http://a.example/?destroy=True&a=%20"),
        ({"HTTP_HOST": "[::1]:80", "PATH_INFO": "/a b\xc3\xa9"}, "http://[::1]:80/a%20b%C3%A9"),
        ({"SERVER_NAME": "s", "SERVER_PORT": "80", "PATH_INFO": "/"}, "http://s/"),
        ({"SERVER_NAME": "s", "SERVER_PORT": "81"}, "http://s:81/"),
        ({"SERVER_NAME": "s", "SERVER_PORT": "443", "wsgi.url_scheme": "https"}, "https://s/"),
        ({"HTTP_HOST": 'x"><script>', "SERVER_NAME": "s", "SERVER_PORT": "80"}, "http://s/"),
        ({"HTTP_HOST": "s", "QUERY_STRING": "a=\"'<b>\xe9"}, "http://s/?a=%22%27%3Cb%3E%E9"),
        ({"HTTP_HOST": "s", "PATH_INFO": "/100%"}, "http://s/100%25"),
    ],
)
def test_current_url(environ: dict[str, str], url: str) -> None:
    assert currentURL({"wsgi.url_scheme": "http", **environ}) == url


def test_run_cgi_answers_one_request() -> None:
    program = (
        "from web.wsgi import base, runCGI\n"
        "class App(base.BaseApplication):\n"
        "    def start(self):\n"
        "        e = self.environ\n"
        "        self.output(e['QUERY_STRING'], e['wsgi.multithread'], e['wsgi.multiprocess'])\n"
        "runCGI(App())\n"
    )
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "a=1", "SERVER_NAME": "s", "SERVER_PORT": "80",
               "PYTHONPATH": ":".join(sys.path)}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=True, timeout=300)
    head, _, body = io.BytesIO(done.stdout).getvalue().partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"Status: 200 OK", b"Content-type: text/html; charset=utf-8", b"Content-Length: 12"]
    assert (body, done.stderr) == (b"a=1FalseTrue", b"")
