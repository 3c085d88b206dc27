"""environ['web.cgi']: fields of the query string, of urlencoded forms and of multipart forms, and what is refused."""

# ruff: noqa: ANN001, ANN201, ARG005 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from web.wsgi.base import BaseApplication
from web.wsgi.cgi import CGI, Field, FieldStorage

URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "XyZ"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


class Input(io.BytesIO):
    """A connection: a read past the body would wait for ever."""

    def __init__(self, data: bytes, length: int | None = None) -> None:
        super().__init__(data)
        self.left = len(data) if length is None else length

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert 0 <= size <= self.left, "this read would wait for ever"
        self.left -= size
        return super().read(size)


class Collect(BaseApplication):
    """Keeps the fields, with the values of uploads, since the files are closed after the response."""

    seen: Any
    values: Any
    rest: Any
    read = False

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Any] = []

    def start(self) -> None:
        form = self.environ["web.cgi"]
        rest = None
        if "wsgi.input" in self.environ and self.environ.get("CONTENT_LENGTH"):
            rest = self.environ["wsgi.input"].read(int(self.environ["CONTENT_LENGTH"]))
        self.results.append((form, [(field.name, field.value) for field in form.list], rest))
        self.output("ok")


def ask(application, body: bytes | None = None, content_type: str = "", *, stream=None, checked=True, **over: Any):
    environ: dict[str, Any] = {"QUERY_STRING": "", **over}
    if body is not None:
        environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), **environ}
        environ["wsgi.input"] = Input(body)
    if stream is not None:
        environ["wsgi.input"] = stream
    setup_testing_defaults(environ)
    answer: list[Any] = []
    application = validator(application) if checked else application
    result = application(environ, lambda status, headers, exc_info=None: answer.extend((status, headers)))
    text = b"".join(result).decode()
    getattr(result, "close", int)()
    return answer[0], text, dict(answer[1])


def form_of(body: bytes | None = None, content_type: str = URLENCODED, **over: Any) -> tuple[FieldStorage, list[Any]]:
    collect = Collect()
    status, text, _ = ask(CGI(collect), body, content_type, **over)
    assert (status, text) == ("200 OK", "ok")
    return collect.results[0][:2]


def part(name: str | None, value: bytes, filename: str | None = None, *more: str) -> bytes:
    lines = [f"--{BOUNDARY}", "Content-Disposition: form-data"]
    lines[1] += "" if name is None else f'; name="{name}"'
    lines[1] += "" if filename is None else f'; filename="{filename}"'
    return "\r\n".join([*lines, *more, "", ""]).encode() + value + b"\r\n"


def multipart(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def test_the_page_of_2005() -> None:
    form, _ = form_of(QUERY_STRING="destroy=True")
    assert form.has_key("destroy")
    assert form["destroy"].value == "True"  # type: ignore[union-attr]
    assert not form_of(QUERY_STRING="")[0].has_key("destroy")


def test_every_member_of_the_storage() -> None:
    form, _ = form_of(QUERY_STRING="a=1&b=2&a=3")
    assert "a" in form
    assert "c" not in form
    assert form.keys() == ["a", "b"] == list(form)
    assert (len(form), bool(form)) == (2, True)
    assert [field.value for field in form["a"]] == ["1", "3"]  # type: ignore[union-attr]
    with pytest.raises(KeyError, match="c"):
        form["c"]
    assert (form.getfirst("a"), form.getfirst("b"), form.getfirst("c"), form.getfirst("c", 5)) == ("1", "2", None, 5)
    assert (form.getlist("a"), form.getlist("b"), form.getlist("c")) == (["1", "3"], ["2"], [])
    assert (form.getvalue("a"), form.getvalue("b"), form.getvalue("c", 5)) == (["1", "3"], "2", 5)
    field = form["b"]
    assert isinstance(field, Field)
    assert (field.name, field.filename, field.file, field.type, field.headers.items()) == ("b", None, None, None, [])
    assert "2" not in repr(form)
    assert not FieldStorage()


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("a=1+2%20%C3%A9", [("a", "1 2 é")]),
        ("\xc3\xa9=\xc3\xa9", [("é", "é")]),
        ("a=%FF", [("a", "\ufffd")]),
        ("a=&b", [("a", ""), ("b", "")]),
        ("a=1;b=2", [("a", "1;b=2")]),
        ("&&", []),
    ],
)
def test_query_strings(query: str, fields: list[tuple[str, str]]) -> None:
    assert form_of(QUERY_STRING=query)[1] == fields


def test_urlencoded_form_comes_before_the_query_string_and_is_replayed() -> None:
    collect = Collect()
    ask(CGI(collect), b"a=1&b=%e9&c=", URLENCODED + "; charset=latin-1", QUERY_STRING="a=2")
    _, values, rest = collect.results[0]
    assert values == [("a", "1"), ("b", "é"), ("c", ""), ("a", "2")]
    assert rest == b"a=1&b=%e9&c="


def test_multipart_form() -> None:
    big = bytes(range(256)) * 1024
    body = b"preamble\r\n" + multipart(
        part("a", "é".encode()),
        part("empty", b""),
        part("l", b"\xe9", None, "Content-Type: text/plain; charset=latin-1"),
        part("up", big, "../é.bin", "Content-Type: Image/PNG; x=y"),
        part("none", b"", "", "Content-Type: application/octet-stream"),
        part("a", b"2"),
    )
    seen: list[Any] = []

    class Upload(BaseApplication):
        def start(self) -> None:
            form = self.environ["web.cgi"]
            up = form["up"]
            head = up.file.read(3)
            seen.extend((form, head, up.value, up.file.read(2), self.environ["wsgi.input"].read(1)))

    status, _, _ = ask(CGI(Upload()), body + b"epilogue", MULTIPART, QUERY_STRING="a=3")
    assert status == "200 OK"
    form, head, value, after, rest = seen
    assert form.getlist("a") == ["é", "2", "3"]
    assert (form.getfirst("empty"), form.getfirst("l"), rest) == ("", "é", b"")
    up = form["up"]
    assert (head, value, after) == (big[:3], big, big[3:5]), "value leaves the position of file alone"
    assert (up.name, up.filename, up.type, up.headers["content-TYPE"]) == (
        "up", "../é.bin", "image/png", "Image/PNG; x=y"
    )  # fmt: skip
    assert (form["none"].filename, form["none"].file is not None) == ("", True)
    assert up.file.closed, "uploads are closed at the end of the response"
    assert form["none"].file.closed


def test_other_bodies_are_left_unread() -> None:
    for method, kind in (("POST", "application/json"), ("PUT", "text/plain"), ("GET", URLENCODED)):
        collect = Collect()
        ask(CGI(collect), b'{"a": 1}', kind, REQUEST_METHOD=method, QUERY_STRING="q=1")
        assert collect.results[0][1:] == ([("q", "1")], b'{"a": 1}')


def test_two_cgi_around_one_application_read_the_body_once() -> None:
    collect = Collect()
    assert ask(CGI(CGI(collect)), multipart(part("a", b"1")), MULTIPART)[0] == "200 OK"
    assert collect.results[0][1] == [("a", "1")]


def test_a_body_whose_end_the_server_marks() -> None:
    for body, kind in ((b"a=1", URLENCODED), (multipart(part("a", b"1")), MULTIPART)):
        collect = Collect()
        over = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": kind, "wsgi.input_terminated": True}
        assert ask(CGI(collect), stream=io.BytesIO(body), **over)[0] == "200 OK"
        assert collect.results[0][1] == [("a", "1")]


def test_no_length_and_no_end_is_no_body() -> None:
    over = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": URLENCODED}
    assert form_of(stream=Input(b"a=1", 0), **over)[1] == []


REFUSED: list[tuple[str, bytes, str, dict[str, Any], str, str]] = [
    ("length over the limit", b"a" * 101, URLENCODED, {}, "413", "larger than 100 bytes"),
    ("multipart over the limit", multipart(part("a", b"x" * 100)), MULTIPART, {}, "413", "larger than 100 bytes"),
    ("huge length", b"", URLENCODED, {"CONTENT_LENGTH": "9" * 5000}, "413", "larger than 100 bytes"),
    ("chunked over the limit", b"a=" + b"b" * 200, URLENCODED, {"chunked": True}, "413", "larger than 100 bytes"),
    ("chunked multipart", multipart(part("a", b"x" * 200)), MULTIPART, {"chunked": True}, "413", "larger than 100"),
    ("no number", b"a=1", URLENCODED, {"CONTENT_LENGTH": "abc"}, "400", "Content-Length is not a number"),
    ("negative", b"a=1", URLENCODED, {"CONTENT_LENGTH": "-1"}, "400", "Content-Length is not a number"),
    ("other digits", b"a=1", URLENCODED, {"CONTENT_LENGTH": "\xb2"}, "400", "Content-Length is not a number"),
    ("short", b"a=1", URLENCODED, {"CONTENT_LENGTH": "10"}, "400", "ended 7 bytes before its Content-Length"),
    ("charset", b"a=1", URLENCODED + "; charset=nonsense", {}, "400", "charset 'nonsense' of the form is unknown"),
    ("codec", b"a=1", URLENCODED + "; charset=zip", {}, "400", "charset 'zip' of the form is unknown"),
    ("idna", b"a=1", URLENCODED + "; charset=idna", {}, "400", "charset 'idna' of the form is unknown"),
    ("fields", b"a&b&c&d&e", URLENCODED, {}, "413", "the form has more than 4 fields"),
    ("query", b"", URLENCODED, {"QUERY_STRING": "a&b&c&d&e"}, "400", "the query string has more than 4 fields"),
    ("no boundary", b"a", "multipart/form-data", {}, "400", "has no boundary"),
    ("empty", b"", MULTIPART, {}, "400", "the multipart form is malformed"),
    ("no parts", b"nothing of the kind", MULTIPART, {}, "400", "the multipart form is malformed"),
    ("truncated", part("a", b"1"), MULTIPART, {}, "400", "the multipart form is malformed"),
    ("no name", multipart(part(None, b"1")), MULTIPART, {}, "400", "a part has no name"),
    ("bad header", multipart(b"--XyZ\r\nnonsense\r\n\r\n1\r\n"), MULTIPART, {}, "400", "Malformed segment header"),
    ("no disposition", multipart(b"--XyZ\r\nA: b\r\n\r\n1\r\n"), MULTIPART, {}, "400", "Missing Content-Disposition"),
    ("header bytes", multipart(b"--XyZ\r\nA: \xff\r\n\r\n1\r\n"), MULTIPART, {}, "400", "failed to decode"),
    ("many parts", multipart(*[part("", b"")] * 5), MULTIPART, {"maxBody": 999}, "400", "no name"),
    ("parts", multipart(*[part("a", b"")] * 5), MULTIPART, {"maxBody": 999}, "413", "segment count exceeded"),
    ("files", multipart(*[part("a", b"", "f")] * 3), MULTIPART, {"maxBody": 999}, "413", "more than 2 files"),
    ("header", multipart(part("a" * 9999, b"")), MULTIPART, {"maxBody": 99999}, "413", "header length exceeded"),
    ("part charset", multipart(part("a", b"", None, "Content-Type: a/b; charset=zip")), MULTIPART, {"maxBody": 999},
     "400", "charset 'zip' of the form is unknown"),
    ("no length", b"", URLENCODED, {"raw": True}, "411", "without Content-Length cannot be read by this server"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "over", "status", "line"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_refused(body: bytes, kind: str, over: dict[str, Any], status: str, line: str) -> None:
    collect = Collect()
    application = CGI(collect, maxBody=over.get("maxBody", 100), maxFields=4, maxFiles=2)
    over = {key: value for key, value in over.items() if key != "maxBody"}
    if over.pop("chunked", False):
        over |= {"REQUEST_METHOD": "POST", "CONTENT_TYPE": kind, "wsgi.input_terminated": True}
        got, text, headers = ask(application, stream=Input(body, 101), **over)
    elif over.pop("raw", False):
        over |= {"REQUEST_METHOD": "POST", "CONTENT_TYPE": kind, "HTTP_TRANSFER_ENCODING": "chunked"}
        got, text, headers = ask(application, stream=Input(b"3\r\na=1\r\n", 0), **over)
    else:
        # The validator stops at a wrong length, before the middleware can refuse it.
        stream, checked = Input(body, 99), "CONTENT_LENGTH" not in over
        got, text, headers = ask(application, body, kind, stream=None if checked else stream, checked=checked, **over)
    assert got[:3] == status
    assert line in text
    assert text.count("\n") == 1
    assert text.endswith("\n"), "one line"
    assert "Traceback" not in text
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert collect.results == [], "the application must not be called"


def test_uploads_are_closed_where_the_rest_is_refused_or_the_application_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import web.wsgi.cgi as module  # noqa: PLC0415 -- to wrap what it opens

    opened: list[Any] = []
    real = module.SpooledTemporaryFile
    monkeypatch.setattr(module, "SpooledTemporaryFile", lambda *a: opened.append(real(*a)) or opened[-1])
    assert ask(CGI(Collect()), part("a", b"1", "f") + b"--XyZ", MULTIPART)[0] == "400 Bad Request"

    class Failing(BaseApplication):
        def start(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        ask(CGI(Failing()), multipart(part("a", b"1", "f")), MULTIPART)
    assert [file.closed for file in opened] == [True, True]


@pytest.mark.parametrize("limit", [0, -1, "5", None, 1.5])
@pytest.mark.parametrize("name", ["maxBody", "maxFields", "maxFiles"])
def test_limits_are_whole_numbers(name: str, limit: Any) -> None:
    with pytest.raises(ValueError, match=rf"CGI\({name}={limit!r}\): pass a whole number"):
        CGI(Collect(), **{name: limit})


def test_eight_threads_get_their_own_fields() -> None:
    class Echo(BaseApplication):
        def start(self) -> None:
            form = self.environ["web.cgi"]
            self.output(form["a"].value, "|", form["up"].value.decode())

    application = CGI(Echo())

    def requests(worker: int) -> None:
        for number in range(60):
            mine = f"{worker}-{number}"
            body = multipart(part("a", mine.encode()), part("up", mine.encode(), "f"))
            assert ask(application, body, MULTIPART)[1] == f"{mine}|{mine}"

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(requests, worker) for worker in range(8)]:
            result.result()
