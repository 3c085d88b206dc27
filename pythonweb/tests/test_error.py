"""The Error middleware: pages, references, the log, and what never appears on them."""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, ARG005, FBT001, FBT002 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from web.error import info
from web.wsgi.base import BaseApplication, BaseMiddleware
from web.wsgi.error import Error, warn_of_debug

SECRET = "s3cr3t-cookie-value"
LOCAL = {
    "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000", "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_CONNECTION": "keep-alive", "HTTP_SEC_FETCH_SITE": "none",
}  # fmt: skip
PLAIN = [("Content-Type", "text/plain")]


class Broken(Exception):
    pass


def fail(text: str = "<b>broken</b>") -> None:
    local_secret = "value-of-a-variable"
    assert local_secret
    raise Broken(text)


# The middleware.


class Failing(BaseApplication):
    def start(self) -> None:
        self.headers.append(("Set-Cookie", SECRET))
        raise Broken(f"<b>broken {self.environ.get('HTTP_COOKIE')}</b>")


def failing_generator(environ, start_response):
    start_response("200 OK", PLAIN)
    fail()
    yield b"never"


def failing_before_start(environ, start_response):
    fail()
    yield b"never"


class Body:
    def __init__(self, items, fail_at: int, fail_close: bool = False) -> None:
        self.items, self.fail_at, self.fail_close, self.closed = items, fail_at, fail_close, 0

    def __iter__(self):
        for number, item in enumerate(self.items):
            if number == self.fail_at:
                fail()
            yield item
        if self.fail_at == len(self.items):
            fail()

    def close(self) -> None:
        self.closed += 1
        if self.fail_close:
            raise Broken("in close")


def serving(body):
    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return body

    return application


def ask(application, *, checked=True, **over: Any):
    environ: dict[str, Any] = {"QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/", **over}
    if "HTTP_HOST" not in over:
        environ["HTTP_HOST"] = "shop.example"
    setup_testing_defaults(environ)
    answer: dict[str, Any] = {}
    sent: list[bytes] = []

    def start_response(status, headers, exc_info=None):
        if exc_info and any(sent):
            raise exc_info[1]
        assert exc_info or not answer
        answer.update(status=status, headers=headers)
        return sent.append

    body: Any = ()
    try:
        body = (validator(application) if checked else application)(environ, start_response)
        for chunk in body:
            assert answer
            sent.append(chunk)
    finally:
        getattr(body, "close", int)()
        answer["sent"] = b"".join(sent)
        ask.sent = answer["sent"]  # type: ignore[attr-defined]
    return answer["status"], dict(answer["headers"]), answer["sent"].decode()


@pytest.mark.parametrize(
    "application",
    [Failing(), failing_generator, failing_before_start, serving(Body([], 0)), serving(Body([b"", b""], 2)),
     BaseMiddleware(Failing()), BaseMiddleware(failing_before_start)],
)  # fmt: skip
def test_a_stranger_gets_a_plain_page_whose_reference_is_in_the_log(application, caplog) -> None:
    status, headers, page = ask(Error(application), HTTP_COOKIE=f"sid={SECRET}", PATH_INFO="/a\nb")
    assert status == "500 Internal Server Error"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(page))
    assert "Set-Cookie" not in headers
    assert "broken" not in page
    assert "Traceback" not in page
    found = re.search(r"<b>([0-9a-f]{12})</b>", page)
    assert found
    assert [(r.name, r.levelno) for r in caplog.records] == [("web.error", logging.ERROR)]
    record = caplog.records[0]
    text = record.getMessage()
    assert f"'GET' '/a\\nb' failed, reference {found[1]}\n    Traceback" in text
    assert "broken" in text
    assert SECRET not in text
    assert record.exc_info is None, "a handler given the exception may log variables"
    assert all(line.startswith("    ") for line in text.splitlines()[1:])


@pytest.mark.parametrize("application", [Failing(), failing_generator, failing_before_start])
@pytest.mark.parametrize(
    ("over", "debug", "shown"),
    [
        (LOCAL, None, True),
        (LOCAL | {"REMOTE_ADDR": "127.9.8.7"}, None, True),
        (LOCAL | {"REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:8000"}, None, True),
        (LOCAL | {"REMOTE_ADDR": "::ffff:127.0.0.1", "HTTP_HOST": "127.0.0.1"}, None, True),
        (LOCAL | {"HTTP_HOST": "my.localhost"}, None, True),
        (LOCAL, False, False),
        (LOCAL | {"REMOTE_ADDR": "10.0.0.1"}, None, False),
        (LOCAL | {"REMOTE_ADDR": "10.0.0.1"}, True, True),
        (LOCAL | {"REMOTE_ADDR": ""}, None, False),
        (LOCAL | {"REMOTE_ADDR": "localhost"}, None, False),
        (LOCAL | {"HTTP_HOST": "rebound.example"}, None, False),
        (LOCAL | {"HTTP_FORWARDED": "for=1.2.3.4"}, None, False),
        (LOCAL | {"HTTP_X_FORWARDED_FOR": "1.2.3.4"}, None, False),
        (LOCAL | {"HTTP_X_FORWARDED_PROTO": "https"}, None, False),
        (LOCAL | {"HTTP_X_REAL_IP": "1.2.3.4"}, None, False),
        (LOCAL | {"HTTP_VIA": "1.1 proxy"}, None, False),
        (LOCAL | {"HTTP_CF_CONNECTING_IP": "1.2.3.4"}, None, False),
        (LOCAL | {"HTTP_X_REQUEST_ID": "1"}, None, False),
        (LOCAL | {"HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS": "1"}, None, False),
        # nginx with `proxy_pass http://127.0.0.1:8000;` and no more: its own Host, and HTTP/1.0
        (
            LOCAL | {"HTTP_HOST": "127.0.0.1:8000", "SERVER_PROTOCOL": "HTTP/1.0", "HTTP_CONNECTION": "close"},
            None,
            False,
        ),
        (LOCAL | {"SERVER_PROTOCOL": "HTTP/1.0"}, True, True),
        # with HTTP/1.1, and with connections that it keeps, it says close or nothing of a browser's own connection
        (LOCAL | {"HTTP_HOST": "127.0.0.1:8000", "HTTP_CONNECTION": "close"}, None, False),
        (LOCAL | {"HTTP_HOST": "127.0.0.1:8000", "HTTP_CONNECTION": ""}, None, False),
        (LOCAL | {"HTTP_CONNECTION": "Keep-Alive"}, None, True),
        # no sign of a browser
        (LOCAL | {"HTTP_SEC_FETCH_SITE": ""}, None, False),
        # what a browser tells through any proxy: the page that it comes from
        (LOCAL | {"HTTP_REFERER": "https://shop.example/cart"}, None, False),
        (LOCAL | {"HTTP_ORIGIN": "https://shop.example"}, None, False),
        (LOCAL | {"HTTP_ORIGIN": "null"}, None, False),
        (LOCAL | {"HTTP_REFERER": "http://["}, None, False),
        (LOCAL | {"HTTP_SEC_FETCH_SITE": "cross-site"}, None, False),
        (LOCAL | {"HTTP_REFERER": "http://localhost:8000/a", "HTTP_ORIGIN": "http://127.0.0.1:8000"}, None, True),
        (LOCAL | {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_REFERER": ""}, None, True),
        (LOCAL | {"HTTP_SEC_FETCH_SITE": "none"}, None, True),
    ],
)
def test_who_sees_the_traceback(application, over: dict[str, str], debug: bool | None, shown: bool) -> None:
    _, headers, page = ask(Error(application, debug=debug), HTTP_COOKIE=f"sid={SECRET}", **over)
    assert ("Traceback" in page or "raise Broken" in page) is shown
    assert ("&lt;b&gt;broken" in page) is shown
    assert "<b>broken" not in page
    assert SECRET not in page
    assert "no-store" in headers["Cache-Control"]


def test_that_every_client_sees_tracebacks_is_warned_of_once(caplog) -> None:
    warn_of_debug.cache_clear()
    for _ in range(2):
        ask(Error(Failing(), debug=True))
        ask(Error(Failing()))
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["debug=True shows tracebacks, with source, to every client: omit it if others can reach the server"]


def test_middleware_may_name_more_that_must_not_appear(caplog) -> None:
    def application(environ, start_response):
        environ["web.error.secrets"].append("token-of-this-request")
        raise Broken("token-of-this-request")

    page = ask(Error(application, debug=True))[2]
    assert "[hidden]" in page
    assert "token-of-this-request" not in page.replace("&quot;token-of-this-request&quot;", ""), "but in the source"
    assert "Broken: [hidden]" in caplog.text


def test_what_was_sent_already_is_broken_off(caplog) -> None:
    body = Body([b"first", b"second"], 1)
    with pytest.raises(Broken):
        ask(Error(BaseMiddleware(serving(body))), checked=False)
    assert ask.sent == b"first"  # type: ignore[attr-defined]
    assert body.closed == 1
    assert "failed, reference" in caplog.text


@pytest.mark.parametrize("fail_at", [-1, 0, 1])
def test_the_body_is_closed_once_and_errors_of_that_are_logged(fail_at: int, caplog) -> None:
    for fail_close in (False, True):
        caplog.clear()
        body = Body([b"", b"x"], fail_at, fail_close)
        status, _, page = ask(Error(serving(body)))
        assert body.closed == 1
        assert status == ("200 OK" if fail_at < 0 else "500 Internal Server Error")
        assert page == "x" or fail_at >= 0
        assert len(caplog.records) == (fail_at >= 0) + fail_close
        assert ("failed at the end of its response" in caplog.text) is fail_close


@pytest.mark.parametrize(
    ("application", "message"),
    [
        (lambda e, s: s("200 OK", PLAIN) and None, "the application returned None"),
        (lambda e, s: s("200 OK", PLAIN) and "text", "the application returned str"),
        (lambda e, s: s("200 OK", PLAIN) and ["text"], "body holds a str: WSGI takes bytes"),
        (lambda e, s: s("200 OK", PLAIN) and iter(["text"]), "body holds a str: WSGI takes bytes"),
        (lambda e, s: s("200 OK", PLAIN) and iter([None]), "body holds a NoneType: WSGI takes bytes"),
        (lambda e, s: [b"text"], "did not call start_response"),
        (lambda e, s: [], "did not call start_response"),
        (lambda e, s: iter([]), "did not call start_response"),
        (lambda e, s: iter([b"text"]), "did not call start_response"),
    ],
)
def test_slips_of_programs_for_python_2_are_named(application, message: str) -> None:
    status, _, page = ask(Error(application, debug=True), checked=False)
    assert status == "500 Internal Server Error"
    assert message in page


def test_what_works_passes_through_untouched() -> None:
    assert ask(Error(serving([b"a", b"b"]))) == ("200 OK", dict(PLAIN), "ab")
    assert ask(Error(serving(Body([b"a"], -1))))[2] == "a"
    body = [b"a"]
    environ: dict[str, Any] = {}
    assert Error(serving(body))(environ, lambda *_: bytes) is body  # type: ignore[arg-type, return-value]

    class Redirect(BaseApplication):
        def start(self) -> None:
            self.status = "304 Not Modified"

    assert ask(Error(Redirect())) == ("304 Not Modified", {}, "")


def test_head_has_no_body_and_write_breaks_off() -> None:
    _, headers, page = ask(Error(Failing()), REQUEST_METHOD="HEAD")
    assert page == ""
    assert int(headers["Content-Length"]) > 0

    def application(environ, start_response):
        start_response("200 OK", PLAIN)(b"part")
        fail()

    with pytest.raises(Broken):
        ask(Error(application), checked=False)
    assert ask.sent == b"part"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass(kind: type[BaseException], caplog) -> None:
    def application(environ, start_response):
        raise kind

    with pytest.raises(kind):
        ask(Error(application))
    assert not caplog.records


class Own(Error):
    def error(self):
        text = info("traceback", "text").splitlines()[-1]
        return "503 Busy", [("Content-Type", "text/plain; charset=utf-16")], [f"{text} {self.request['PATH_INFO']} é"]


def test_a_subclass_makes_its_own_page() -> None:
    environ: dict[str, Any] = {"PATH_INFO": "/x"}
    setup_testing_defaults(environ)
    seen: list[Any] = []
    body = b"".join(Own(failing_generator)(environ, lambda *a: seen.append(a)))  # type: ignore[arg-type, return-value]
    assert seen[-1][0] == "503 Busy"
    assert body.decode("utf-16").endswith("Broken: <b>broken</b> /x é")


@pytest.mark.parametrize("page_of", [lambda: 1 / 0, lambda: None, lambda: ("500 E", PLAIN, [5]), lambda: "500 E"])
@pytest.mark.parametrize("application", [Failing(), failing_generator])
def test_a_page_that_fails_leaves_the_plain_one(application, page_of, caplog) -> None:
    class Bad(Error):
        def error(self):
            return page_of()

    status, _, page = ask(Bad(application), **LOCAL)
    assert status == "500 Internal Server Error"
    assert "Broken" not in page
    assert [("failed to create the error page" in r.getMessage()) for r in caplog.records] == [False, True]


def test_eight_threads_get_their_own_page() -> None:
    class Named(Error):
        def error(self):
            return "500 E", PLAIN, [info("traceback", "text").splitlines()[-1], "|", self.request["HTTP_X"]]

    class Application(BaseApplication):
        def start(self) -> None:
            raise Broken(self.environ["HTTP_X"])

    application = Named(Application())

    def requests(worker: int) -> None:
        for number in range(40):
            mine = f"{worker}-{number}"
            assert ask(application, HTTP_X=mine)[2] == f"{__name__}.Broken: {mine}|{mine}"

    logging.getLogger("web.error").disabled = True
    try:
        with ThreadPoolExecutor(8) as pool:
            for result in [pool.submit(requests, worker) for worker in range(8)]:
                result.result()
    finally:
        logging.getLogger("web.error").disabled = False
