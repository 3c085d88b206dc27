"""The demo programs beside /session: the form, the environ and the errors on purpose."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Servers
    from selenium.webdriver import Chrome

BOUNDARY = "xYzBoundary"


def fetch(request: str | urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, failure.read().decode()


def browse(url: str, path: str) -> tuple[int, str]:
    """Fetch a page with the headers of a browser on this machine."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    with closing(connection):
        connection.request("GET", path, headers={"Sec-Fetch-Site": "none", "Connection": "keep-alive"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


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


def test_the_form_without_a_file(start_server: Servers) -> None:
    """What Chromium 120 sends where no file was chosen: a part for it all the same, without a name or content."""
    boundary = "----WebKitFormBoundaryhU1Ov6qrRN3oRX1V"
    parts = (
        'name="name"\r\n\r\nAda',
        'name="message"\r\n\r\n',
        'name="upload"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n',
    )
    body = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(start_server().url + "cgi", f"{body}--{boundary}--\r\n".encode(), headers)
    status, page = fetch(request)
    assert status == 200
    assert "<tr><td>name</td><td>Ada</td></tr>" in page
    assert '<tr><td>message</td><td><span class="quiet">empty</span></td></tr>' in page
    assert '<tr><td>upload</td><td><span class="quiet">no file</span></td></tr>' in page


def test_a_broken_form_is_a_400_without_a_traceback(start_server: Servers) -> None:
    status, page = post(start_server().url + "cgi", b"--%s\r\nno end" % BOUNDARY.encode())
    assert status == 400
    assert "Traceback" not in page


def rows_of(browser: Chrome) -> list[str]:
    """The rows of the table on the page that answers the form; the click on its button may not have waited for it."""
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415  # only those who have a browser need it

    WebDriverWait(browser, 20).until(lambda there: there.find_elements("css selector", "tr"))
    return [row.text for row in browser.find_elements("css selector", "tr")][1:]


@pytest.mark.browser
def test_a_browser_sends_the_form_without_a_file(browser: Chrome, start_server: Servers) -> None:
    browser.get(start_server().url + "cgi")
    browser.find_element("name", "name").send_keys("Ada")
    browser.find_element("tag name", "button").click()
    assert rows_of(browser) == ["name Ada", "message empty", "upload no file"]


@pytest.mark.browser
def test_a_browser_sends_the_form(browser: Chrome, start_server: Servers, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Grüße", encoding="utf-8")
    browser.get(start_server().url + "cgi")
    browser.find_element("name", "name").send_keys("Ada & Zoë")
    for box in browser.find_elements("name", "colour")[:2]:
        box.click()
    browser.find_element("name", "upload").send_keys(str(tmp_path / "note.txt"))
    browser.find_element("tag name", "button").click()
    assert rows_of(browser) == [
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
    with urllib.request.urlopen(request, timeout=120) as answer:
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
    url = start_server().url
    status, page = browse(url, f"/error?kind={kind}")
    assert status == 500
    assert named in page
    assert "<script>alert" not in page
    status, page = fetch(url + f"error?kind={kind}")  # gives no sign that it is a browser on this machine
    assert status == 500
    assert named not in page


PHONE = {"width": 375, "height": 667, "deviceScaleFactor": 2, "mobile": True}
PAGES = (
    "",
    "session",
    f"cgi?name={'x' * 80}&colour=red",
    "cgi?" + "&".join(f"a-rather-long-name-of-a-field-number-{n}={n}" for n in range(3)),
    f"environment?{'q' * 200}",
    "error",
    "error?kind=chained",
    "error?kind=markup",
)


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page[:17] or "index")
def test_no_page_is_wider_than_a_phone(browser: Chrome, start_server: Servers, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        browser.get(start_server().url + page)
        widest = "return [innerWidth, document.documentElement.scrollWidth, document.body.scrollWidth]"
        assert browser.execute_script(widest) == [375] * 3
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
