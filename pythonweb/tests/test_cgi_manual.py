"""Forms as the reference of 2005 describes them: blank and repeated fields, in every encoding of a form."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from web.wsgi.base import BaseApplication
from web.wsgi.cgi import CGI, FieldStorage

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xyz"


def multipart(*fields: tuple[str, str]) -> bytes:
    parts = [f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return "".join([*parts, "--xyz--\r\n"]).encode()


BLANK = {
    "a query string": {"QUERY_STRING": "name=&colour=red&note="},
    "an urlencoded form": {"CONTENT_TYPE": URLENCODED, "body": b"name=&colour=red&note="},
    "an urlencoded form of its older name": {
        "CONTENT_TYPE": "application/x-url-encoded", "body": b"name=&colour=red&note=",
    },
    "an urlencoded form in Latin-1": {
        "CONTENT_TYPE": f"{URLENCODED}; charset=latin-1", "body": b"name=&colour=red&note=",
    },
    "a multipart form": {
        "CONTENT_TYPE": MULTIPART, "body": multipart(("name", ""), ("colour", "red"), ("note", "")),
    },
}  # fmt: skip
REPEATED = {
    "a query string": {"QUERY_STRING": "destroy=True&destroy=False"},
    "an urlencoded form": {"CONTENT_TYPE": URLENCODED, "body": b"destroy=True&destroy=False"},
    "a multipart form": {"CONTENT_TYPE": MULTIPART, "body": multipart(("destroy", "True"), ("destroy", "False"))},
    "a form and a query string": {"CONTENT_TYPE": URLENCODED, "body": b"destroy=True", "QUERY_STRING": "destroy=False"},
}


def form_of(body: bytes = b"", **over: Any) -> FieldStorage:
    found = []

    class Collect(BaseApplication):
        def start(self) -> None:
            found.append(self.environ["web.cgi"])

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        **over,
    }
    setup_testing_defaults(environ)
    list(CGI(Collect())(environ, lambda *_: print))
    return found[0]


@pytest.mark.parametrize("request_", BLANK.values(), ids=list(BLANK))
def test_a_blank_field_is_a_field(request_: dict[str, Any]) -> None:
    form = form_of(**request_)
    assert form.keys() == ["name", "colour", "note"]
    assert form.has_key("name")
    assert form["name"].value == ""
    assert form.getvalue("note") == ""
    assert form.getlist("note") == [""]


@pytest.mark.parametrize("request_", REPEATED.values(), ids=list(REPEATED))
def test_a_repeated_field_is_a_list_with_the_value_of_its_first(request_: dict[str, Any]) -> None:
    found = form_of(**request_)["destroy"]
    assert isinstance(found, list)
    assert found.value == "True"
    assert [field.value for field in found] == ["True", "False"]
