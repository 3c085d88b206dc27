"""BaseApplication, and the two functions of web.wsgi."""

# ruff: noqa: ANN001, ANN201 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from web_answers import Answer, app_of

import web.wsgi
from web.wsgi import base, currentURL


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
        ({"headers": [("X-A", "a\r\nSet-Cookie: b")]}, "a", "value of header 'X-A' contains a line break"),
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
