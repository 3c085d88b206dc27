"""The demo programs beside /session: the form, the environ and the errors on purpose."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Servers
    from selenium.webdriver import Chrome

BOUNDARY = "xYzBoundary"


def fetch(request: str | urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, failure.read().decode()


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of (Content-Disposition parameters, content)."""
    lines = [
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), head.encode(), content)
        for head, content in parts
    ]
    return b"".join(lines) + b"--%s--\r\n" % BOUNDARY.encode()


def post(url: str, body: bytes) -> tuple[int, str]:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return fetch(urllib.request.Request(url, data=body, headers=headers))


def test_the_form_shows_what_a_link_sends(start_server: Servers) -> None:
    status, page = fetch(start_server().url + "cgi?name=%3Cb%3EAda%3C/b%3E&colour=red&colour=blue")
    assert status == 200
    assert "<tr><td>name</td><td>&lt;b&gt;Ada&lt;/b&gt;</td></tr>" in page
    assert "<tr><td>colour</td><td>red</td></tr>\n<tr><td>colour</td><td>blue</td></tr>" in page
    assert "<b>Ada" not in page


def test_the_form_shows_an_upload(start_server: Servers) -> None:
    content = b"<i>first</i> line\n" + b"x" * 1000
    body = multipart(('name="name"', "Zoë".encode()), ('name="upload"; filename="a<b>.txt"', content))
    status, page = post(start_server().url + "cgi", body)
    assert status == 200
    assert "Zoë" in page
    assert f"the file a&lt;b&gt;.txt, {len(content)} bytes" in page
    assert "&lt;i&gt;first&lt;/i&gt; line" in page
    assert "<i>" not in page


def test_a_broken_form_is_a_400_without_a_traceback(start_server: Servers) -> None:
    status, page = post(start_server().url + "cgi", b"--%s\r\nno end" % BOUNDARY.encode())
    assert status == 400
    assert "Traceback" not in page


@pytest.mark.browser
def test_a_browser_sends_the_form(browser: Chrome, start_server: Servers, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Grüße", encoding="utf-8")
    browser.get(start_server().url + "cgi")
    browser.find_element("name", "name").send_keys("Ada & Zoë")
    for box in browser.find_elements("name", "colour")[:2]:
        box.click()
    browser.find_element("name", "upload").send_keys(str(tmp_path / "note.txt"))
    browser.find_element("tag name", "button").click()
    rows = [row.text for row in browser.find_elements("css selector", "tr")]
    assert rows[1:] == [
        "name Ada & Zoë",
        "message empty",
        "colour red",
        "colour green",
        "upload the file note.txt, 7 bytes, which begins:\nGrüße",
    ]


def test_the_environ_is_shown_without_its_secrets(start_server: Servers) -> None:
    url = start_server().url + "environment/more?x=%3Cb%3E"
    headers = {"Cookie": "testEnv=do-not-show; who=nobody", "Authorization": "Basic do-not-show"}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        page = answer.read().decode()
        assert answer.headers.get_all("Set-Cookie") is None, "a page that asks nothing of the session starts none"
    assert "do-not-show" not in page
    assert "nobody" not in page
    for key, value in {
        "SCRIPT_NAME": "/environment",
        "PATH_INFO": "/more",
        "QUERY_STRING": "x=%3Cb%3E",
        "web.environment.name": "testEnv",
        "HTTP_COOKIE": '<span class="quiet">hidden (31 characters)</span>',
    }.items():
        assert f"<tr><th>{key}</th><td>{value}</td></tr>" in page


def test_the_error_program_lists_what_can_go_wrong(start_server: Servers) -> None:
    status, page = fetch(start_server().url + "error")
    assert status == 200
    for kind in ("divide", "lookup", "markup", "chained", "body"):
        assert f'href="/error?kind={kind}"' in page


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("divide", "ZeroDivisionError"),
        ("lookup", "KeyError"),
        ("markup", "ValueError"),
        ("chained", "RuntimeError"),
        ("body", "KeyError"),
    ],
)
def test_each_failure_is_answered_by_the_error_page(start_server: Servers, kind: str, named: str) -> None:
    status, page = fetch(start_server().url + f"error?kind={kind}")
    assert status == 500
    assert named in page
    assert "<script>alert" not in page
