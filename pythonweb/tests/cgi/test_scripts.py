"""CGI scripts as the reference of 2005 writes them, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECRET = "s3cr3t-cookie-value"
HERE = {
    "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000", "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_CONNECTION": "keep-alive", "HTTP_SEC_FETCH_SITE": "none",
}  # fmt: skip
Script = Any

STRANGER = {"REMOTE_ADDR": "203.0.113.9", "HTTP_HOST": "www.example.org", "SERVER_PROTOCOL": "HTTP/1.1"}


# -- the error page

BEFORE_HEADERS = "def price(hats):\n    return 10 / hats\n\nsecret = 'value-of-a-variable'\nprice(0)\n"
AFTER_HEADERS = f"import web\nprint(web.header())\nprint('<p>so far</p>')\n{BEFORE_HEADERS}"
AFTER_A_COOKIE = f"print('Set-Cookie: a=b')\n{BEFORE_HEADERS}"
TEXT = f"print('Content-type: text/plain\\n')\nprint('so far')\n{BEFORE_HEADERS}"
CAUGHT = "import web.error\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    web.error.handle()\n"
GIVEN = (
    "import web.error\ntry:\n    1 / 0\nexcept ZeroDivisionError as error:\n    found = error\n"
    "web.error.handle(found)\n"
)

ENABLED = ["import web.error; web.error.enable()\n", "import web.error; web.error.handle()\n"]


@pytest.mark.parametrize("enabled", ENABLED, ids=["enable", "handle"])
@pytest.mark.parametrize("failing", [BEFORE_HEADERS, AFTER_A_COOKIE], ids=["nothing printed", "a cookie printed"])
def test_a_script_that_fails_before_its_headers_answers_with_the_page(
    script: Script, enabled: str, failing: str
) -> None:
    answer = script(enabled + failing)
    assert answer.headers["status"] == "500 Internal Server Error"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert ("set-cookie" in answer.headers) is (failing is AFTER_A_COOKIE)
    assert answer.body.startswith("<!doctype html>")
    assert "ZeroDivisionError: division by zero" in answer.body
    assert "return 10 / hats" in answer.body
    assert "value-of-a-variable" not in re.sub(r"secret = &#x27;.*&#x27;", "", answer.body)
    assert "ZeroDivisionError" in answer.log
    assert answer.code == 1


@pytest.mark.parametrize("failing", [AFTER_HEADERS, TEXT], ids=["html", "text"])
@pytest.mark.parametrize("enabled", ENABLED, ids=["enable", "handle"])
def test_after_the_headers_the_page_follows_what_was_printed(script: Script, enabled: str, failing: str) -> None:
    answer = script(enabled + failing)
    assert list(answer.headers) == ["content-type"]
    so_far, _, page = answer.body.partition("so far")
    assert "ZeroDivisionError" in page
    assert ("<!doctype html>" in page) is (failing is AFTER_HEADERS)
    assert ("<" in so_far) is (failing is AFTER_HEADERS)
    assert "Content-Type" not in answer.body


@pytest.mark.parametrize("failing", [CAUGHT, GIVEN], ids=["caught", "given"])
def test_an_error_that_was_caught_is_answered_and_the_script_goes_on(script: Script, failing: str) -> None:
    answer = script(failing + "print('after')\n")
    assert answer.headers["status"] == "500 Internal Server Error"
    assert "ZeroDivisionError: division by zero" in answer.body
    assert answer.body.rstrip().endswith("after")
    assert answer.code == 0


@pytest.mark.parametrize(
    "failing", [BEFORE_HEADERS, AFTER_HEADERS, TEXT, CAUGHT], ids=["before", "after", "text", "caught"]
)
@pytest.mark.parametrize(
    "client", [STRANGER, {**HERE, "HTTP_X_FORWARDED_FOR": "203.0.113.9"}], ids=["remote", "proxied"]
)
def test_a_stranger_sees_a_reference_that_is_in_the_log(script: Script, failing: str, client: dict[str, str]) -> None:
    answer = script(ENABLED[0] + failing, **client)
    for word in ("ZeroDivisionError", "hats", "script.py", "Traceback"):
        assert word not in answer.body
        assert word in answer.log or failing is CAUGHT
    (reference,) = re.findall(r"reference ([0-9a-f]{12})", answer.body)
    assert f"reference {reference}" in answer.log


@pytest.mark.parametrize(
    ("debug", "client", "shown"), [(True, STRANGER, True), (False, HERE, False), (None, HERE, True)]
)
@pytest.mark.parametrize("name", ["enable", "handle"])
def test_debug_says_who_sees_the_traceback(
    script: Script, name: str, *, debug: bool | None, client: dict[str, str], shown: bool
) -> None:
    answer = script(f"import web.error\nweb.error.{name}(debug={debug})\n{BEFORE_HEADERS}", **client)
    assert ("ZeroDivisionError" in answer.body) is shown


def test_output_without_headers_takes_no_more_time_the_longer_it_gets(script: Script) -> None:
    done = script.raw(f"{ENABLED[0]}for _ in range(200_000):\n    print('x' * 50)\n1 / 0\n")
    assert done.stdout.startswith(b"x" * 50 + b"\n")
    assert b"ZeroDivisionError" in done.stdout
    assert b"Status:" not in done.stdout


def test_cookies_are_on_no_page_and_in_no_log(script: Script) -> None:
    answer = script(f"{ENABLED[0]}import os\nraise ValueError(os.environ['HTTP_COOKIE'])\n")
    assert "ValueError" in answer.body
    assert SECRET not in answer.body + answer.log


@pytest.mark.parametrize(
    ("arguments", "there", "not_there"),
    [
        ("output='traceback'", "<pre>Traceback (most recent call last)", "<title>"),
        ("output='code', context=1", "<b>-&gt;     4  ", "Traceback"),
        ("format='text'", "variables: hats: int", "<pre>"),
    ],
)
def test_what_the_page_shows(script: Script, arguments: str, there: str, not_there: str) -> None:
    answer = script(f"import web.error; web.error.enable({arguments})\n\n{BEFORE_HEADERS}")
    assert there in answer.body
    assert not_there not in answer.body
    assert answer.headers["content-type"].startswith("text/plain" if "format" in arguments else "text/html")


def test_a_page_that_standard_output_cannot_encode(script: Script) -> None:
    answer = script(f"{ENABLED[0]}raise ValueError('\N{EURO SIGN}')\n", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert answer.headers["content-type"] == "text/html; charset=iso8859-1"
    assert "ValueError: &#8364;" in answer.body


@pytest.mark.parametrize("failing", ["raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_an_end_that_is_no_error_is_left_alone(script: Script, failing: str) -> None:
    done = script.raw(f"{ENABLED[0]}print('Content-Type: text/plain\\n\\nx')\n{failing}\n")
    assert done.stdout == b"Content-Type: text/plain\n\nx\n"


def test_on_a_terminal_a_script_fails_as_ever(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("REQUEST_METHOD", "GATEWAY_INTERFACE")}
    done = subprocess.run(
        [sys.executable, "-c", f"{ENABLED[0]}1 / 0"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.stderr.startswith("Traceback (most recent call last)")


@pytest.mark.parametrize("call", ["enable(output='x')", "handle(format='x')", "enable(context=-1)"])
def test_arguments_that_mean_nothing_are_refused_at_once(script: Script, call: str) -> None:
    done = script.raw(f"import web.error; web.error.{call}")
    assert b"ValueError: info(" in done.stderr


# -- header, encode and the fields

FIELDS = """
import web
print(web.header('text/plain'))
print(web.header('text/plain'), end='')
for name in web.cgi.keys():
    print(name, web.cgi.getlist(name))
print(web.cgi.has_key('colour'), len(web.cgi), web.cgi is web.cgi)
"""
URLENCODED = "application/x-www-form-urlencoded"


def test_the_fields_of_the_request(script: Script) -> None:
    answer = script(FIELDS, QUERY_STRING="colour=red&colour=%C3%A9&note=")
    assert answer.headers == {"content-type": "text/plain; charset=utf-8"}
    assert answer.body == "colour ['red', 'é']\nnote ['']\nTrue 2 True\n"
    answer = script(FIELDS, b"colour=blue&note=", CONTENT_TYPE=URLENCODED, QUERY_STRING="page=2")
    assert answer.body == "colour ['blue']\nnote ['']\npage ['2']\nTrue 3 True\n"


def test_an_uploaded_file(script: Script) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\nhats\r\n--x--\r\n'
    text = "import web\nprint(web.header('text/plain'))\nprint(web.cgi['f'].filename, web.cgi['f'].file.read())\n"
    assert script(text, body, CONTENT_TYPE="multipart/form-data; boundary=x").body == "a.txt b'hats'\n"


@pytest.mark.parametrize("enabled", ["", ENABLED[0]], ids=["alone", "with the error page"])
def test_a_bad_form_is_one_line(script: Script, enabled: str) -> None:
    text = enabled + "import web\nname = web.cgi.getfirst('name')\nprint(web.header())\nprint(name)\n"
    kind = "multipart/form-data"
    answer = script(text, b"x", CONTENT_TYPE=kind)
    assert answer.headers["status"] == "400 Bad Request"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == "Content-Type multipart/form-data has no boundary\n"
    assert answer.log == ""
    late = script("import web\nprint(web.header('text/plain'))\nweb.cgi\n", b"x", CONTENT_TYPE=kind)
    assert late.body.strip() == answer.body.strip()
    assert script(text, b"x", CONTENT_TYPE=URLENCODED, CONTENT_LENGTH="99999999999").headers["status"].startswith("413")


def test_outside_of_a_request_the_fields_say_so(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "REQUEST_METHOD"}
    done = subprocess.run(
        [sys.executable, "-c", "import web\nweb.cgi"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "in a WSGI application use environ['web.cgi']" in done.stderr


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "text/html; charset=utf-8"),
        ("'text/plain'", "text/plain; charset=utf-8"),
        ("'text/html; charset=latin-1'", "text/html; charset=latin-1"),
        ("'image/png'", "image/png"),
        ("type='text/xml'", "text/xml; charset=utf-8"),
    ],
)
def test_the_header_line(script: Script, given: str, line: str) -> None:
    answer = script(f"import web\nprint(web.header({given}))\nprint('<p>page</p>')\n")
    assert (answer.headers, answer.body) == ({"content-type": line}, "<p>page</p>\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("print('Content-Type: text/plain\\n')\n", ""), ("print('Set-Cookie: a=b')\n", "Set-Cookie")],
    ids=["called twice", "headers are out", "a cookie was printed"],
)
def test_the_header_line_comes_once(script: Script, before: str, after: str) -> None:
    answer = script(f"{ENABLED[0]}import web\n{before}" + "print(web.header())\n" * 2)
    assert answer.body.strip() == ""
    assert "content-type" in answer.headers
    assert after.lower() in answer.headers or not after


@pytest.mark.parametrize("kind", ["", "text/html\nSet-Cookie: a=b", "text/\N{EURO SIGN}"])
def test_what_is_no_content_type_is_refused(kind: str) -> None:
    import web  # noqa: PLC0415 -- the package is what is tested

    with pytest.raises(ValueError, match="is not a content type"):
        web.header(kind)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("<a href='x'>\"&\"</a>", "&lt;a href=&#x27;x&#x27;&gt;&quot;&amp;&quot;&lt;/a&gt;"), (5, "5")],
)
def test_text_for_a_page(text: Any, encoded: str) -> None:
    import web  # noqa: PLC0415 -- the package is what is tested

    assert web.encode(text) == encoded


def test_the_package_has_nothing_else() -> None:
    import web  # noqa: PLC0415 -- the package is what is tested

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = web.nothing
