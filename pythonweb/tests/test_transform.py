"""BaseMiddleware.transform(output) as the reference of 2005 uses it: a list of text is added to what it gets."""

# ruff: noqa: RUF005 -- the addition is what is tested

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from web.wsgi.base import BaseApplication, BaseMiddleware, Headers

Transform = Callable[[Any], Iterable[Any]]


class Page(BaseApplication):
    def start(self) -> None:
        self.output("<p>é</p>")


class Parts:
    """A body in two parts, which counts how often it is closed."""

    closed = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Parts:
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield "<p>é".encode()
        yield b"</p>"

    def close(self) -> None:
        self.closed += 1


def writer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    write = start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    write("<p>é".encode())
    yield b"</p>"


def wrapped(application: Any, transform: Transform) -> BaseMiddleware:
    class Wrapped(BaseMiddleware):
        def transform(self, output: Any) -> Iterable[Any]:
            return transform(output)

    return Wrapped(application)


def ask(application: Any) -> tuple[bytes, Headers]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    found: list[Headers] = []
    sent: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: object = None) -> Any:
        found.append(headers)
        return sent.append

    body = application(environ, start_response)
    sent.extend(body)
    body.close()
    assert all(isinstance(chunk, bytes) for chunk in sent)
    return b"".join(sent), found[0]


WAYS: list[tuple[Transform, str]] = [
    (lambda output: output + ["<i>ü</i>"], "<p>é</p><i>ü</i>"),
    (lambda output: output + ["1"] + [b"2"] + ("3",), "<p>é</p>123"),
    (lambda output: ["<i>ü</i>"] + output, "<i>ü</i><p>é</p>"),
    (lambda output: ["1"] + output + ["2"], "1<p>é</p>2"),
    (lambda output: [*output, "<i>ü</i>"], "<p>é</p><i>ü</i>"),
    (lambda output: (item for item in [*output, "<i>ü</i>"]), "<p>é</p><i>ü</i>"),
]


@pytest.mark.parametrize(("transform", "expected"), WAYS, ids=[str(number) for number in range(len(WAYS))])
@pytest.mark.parametrize("application", [Page(), Parts(), writer], ids=["page", "parts", "writer"])
def test_a_list_may_be_added(application: Any, transform: Transform, expected: str) -> None:
    closed = getattr(application, "closed", None)
    body, headers = ask(wrapped(application, transform))
    assert body.decode() == expected
    assert not any(name.lower() == "content-length" for name, _ in headers)
    assert closed is None or application.closed == closed + 1
    assert ask(wrapped(wrapped(application, lambda output: output + ["x"]), transform))[0].decode() == expected.replace(
        "</p>", "</p>x"
    )


def test_text_is_encoded_by_the_charset_of_the_response() -> None:
    class Latin(BaseMiddleware):
        def headers(self, headers: Headers) -> Headers:
            return [("Content-Type", "text/html; charset=latin-1")]

        def transform(self, output: Any) -> Iterable[Any]:
            return output + ["ü€"]

    assert ask(Latin(Page()))[0] == "<p>é</p>".encode() + b"\xfc&#8364;"


@pytest.mark.parametrize("other", ["text", b"bytes", 5, None], ids=repr)
def test_what_is_no_list_cannot_be_added(other: Any) -> None:
    for transform in (lambda output: output + other, lambda output: other + output):
        application = Parts()
        with pytest.raises(TypeError):
            ask(wrapped(application, transform))
        assert application.closed == 1
