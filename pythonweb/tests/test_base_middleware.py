"""BaseMiddleware: transforms, hooks, and bodies of every kind."""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import sys
from typing import Any

import pytest
from web_answers import PLAIN, Answer

from web.wsgi import base


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
