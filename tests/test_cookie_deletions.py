"""The deletions of other cookies of the name: made of a Host and a path that a client chose, so they are bounded."""

from __future__ import annotations

import re
import tracemalloc
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from coatcheck import Policy, SessionManager
from coatcheck.cookie import Channel, deletions_of_others
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDE = Policy(domain="example.org")
LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
LINE = re.compile(
    r"__Secure-sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/[!#-:<-~]{0,1023}"
    rf"(?:; Domain={LABEL}(?:\.{LABEL})+)?; Secure; HttpOnly; SameSite=Lax(?:; Partitioned)?"
)

PATHS = {
    "empty": "",
    "no slash": "x",
    "an asterisk": "*",
    "slashes": "/" * 60_000,
    "deep": "/a" * 30_000,
    "long": "/" + "a" * 60_000,
    "long, to encode": "/" + "\xff" * 60_000,
    "just too long": "/" + "a" * 1_024,
    "just not too long": "/" + "a" * 1_023,
    "cut within a code": "/" + "a" * 1_021 + "\xff",
    "an end of a line": "/a\r\nSet-Cookie: sid=planted/b",
    "separators": '/a; Domain=evil.org; x=/b,c d"e\\f/',
    "controls": "/a\x00b\x7fc\x0bd\x85e/f",
    "not latin-1": "/☃/a\ud800/",
    "a percent sign": "/a%3B%0d%0a/",
    "dots": "/../../a/./b//c",
}
HOSTS = {
    "none": "",
    "plain": "www.example.org",
    "deep": ".".join("a" * 100) + ".example.org",
    "too long": ".".join("a" * 60_000),
    "an end of a line": "a.example.org\r\nSet-Cookie: x=y",
    "an attribute": "a.example.org; Path=/x",
    "a quote": '"a".example.org',
    "a space": "a b.example.org",
    "an address": "127.0.0.1:8000",
    "an address of version 6": "[::1]:8000",
    "part of one": "::ffff:127.0.0.1",
    "dots": "...",
    "a last dot": "www.example.org.",
    "an end after it": "www.example.org\n",
    "not latin-1": "\u212a.example.org",
    "a port": "www.example.org:80; Path=/x",
    "many colons": ":" * 60_000,
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_deletions_are_well_formed_few_and_short(host: str, path: str) -> None:
    tracemalloc.start()
    try:
        deletions = deletions_of_others(WIDE, Channel.SECURE, host, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [line for line in deletions if LINE.fullmatch(line) is None] == []
    assert len(deletions) == len(set(deletions)) <= 16
    assert sum(map(len, deletions)) <= 3_072
    assert peak < 2_000_000  # bytes
    assert any("Path=/; Secure" in line and "Partitioned" not in line for line in deletions)


def test_a_path_that_browsers_take_no_cookie_for_leaves_the_shorter_ones() -> None:
    deletions = deletions_of_others(WIDE, Channel.SECURE, "www.example.org", "/shop/" + "a" * 60_000)
    assert sorted({line.partition("Path=")[2].partition(";")[0] for line in deletions}) == ["/", "/shop", "/shop/"]


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_response_has_short_headers_whatever_was_asked_for(path: str) -> None:
    environ: dict[str, Any] = {
        "wsgi.url_scheme": "https", "HTTP_HOST": "www.example.org", "SCRIPT_NAME": "", "QUERY_STRING": "",
        "PATH_INFO": path if path.startswith("/") else "", "HTTP_COOKIE": "__Secure-sid=a; __Secure-sid=b",
    }  # fmt: skip
    setup_testing_defaults(environ)
    sent: list[tuple[str, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["coatcheck.session"]["flash"] = "not found"
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found"]

    def start_response(_status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Any:
        sent.extend(headers)
        return lambda _data: None

    body = validator(SessionMiddleware(app, SessionManager("memory:", WIDE)))(environ, start_response)
    assert list(body) == [b"not found"]
    body.close()  # type: ignore[attr-defined]  # the validator insists
    assert sum(len(name) + len(value) + 4 for name, value in sent) < 4_096
