"""The examples run: driven in-process, as a browser would through WSGI."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

if TYPE_CHECKING:
    from types import ModuleType
    from wsgiref.types import WSGIApplication

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"


@dataclass
class Reply:
    status: str
    headers: list[tuple[str, str]]
    text: str

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Browser:
    """A browser on this machine, with a jar for one cookie."""

    application: WSGIApplication
    cookie: str | None = None

    def get(self, path: str, **more: str) -> Reply:
        return self._ask("GET", path, b"", more)

    def post(self, path: str, form: dict[str, str] | None = None, **more: str) -> Reply:
        return self._ask("POST", path, urlencode(form or {}).encode(), more)

    def _ask(self, method: str, path: str, body: bytes, more: dict[str, str]) -> Reply:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": "127.0.0.1",
        }
        environ |= {
            "HTTP_HOST": "localhost:8000",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
            **more,
        }
        if method == "POST":
            environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = self.cookie
        setup_testing_defaults(environ)
        got: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Callable[[bytes], object]:
            got.append((status, headers))
            return lambda _data: None

        chunks = validator(self.application)(environ, start)
        try:
            text = b"".join(chunks).decode()
        finally:
            chunks.close()  # type: ignore[attr-defined]
        reply = Reply(*got[-1], text)
        cookie = reply.header("Set-Cookie")
        if cookie is not None:
            self.cookie = None if "Max-Age=0;" in cookie else cookie.partition(";")[0]
        return reply


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import an example in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_all_examples_are_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"login", "visits"}


@pytest.mark.parametrize("name", ["login", "visits"])
def test_every_example_takes_a_port(tmp_path: Path, name: str) -> None:
    program = subprocess.Popen(
        [sys.executable, EXAMPLES / f"{name}.py", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        said = re.fullmatch(r"Serving on (http://localhost:(\d+)/)\n", program.stdout.readline())
        assert said is not None
        assert said[2] != "8000"
        with urllib.request.urlopen(f"http://127.0.0.1:{said[2]}/", timeout=120) as page:
            assert page.status == 200
    finally:
        program.kill()
        program.communicate()


def test_visits_counts_each_visitor(example: Callable[[str], ModuleType]) -> None:
    application = example("visits").application
    one, other = Browser(application), Browser(application)
    assert [one.get("/").text for _ in range(3)] == ["visit 1\n", "visit 2\n", "visit 3\n"]
    assert other.get("/").text == "visit 1\n"


ADA: Final = {"user": "ada", "password": "engine"}


@pytest.fixture
def site(example: Callable[[str], ModuleType]) -> Callable[[], Browser]:
    """A new device at the door of the log-in example."""
    application = example("login").application
    return lambda: Browser(application)


def test_login_makes_no_session_for_a_look_at_the_form(site: Callable[[], Browser]) -> None:
    browser = site()
    assert "<h1>Log in</h1>" in browser.get("/").text
    assert browser.cookie is None


def test_login_and_logout(site: Callable[[], Browser]) -> None:
    browser = site()
    reply = browser.post("/login", ADA)
    assert (reply.status, reply.header("Location")) == ("303 See Other", "/")
    assert "Hello ada" in browser.get("/").text
    before = browser.cookie
    browser.post("/logout")
    assert browser.cookie is None
    browser.cookie = before
    assert "<h1>Log in</h1>" in browser.get("/").text, "the cookie from before the log-out opens nothing"


@pytest.mark.parametrize("form", [{"user": "ada", "password": "wrong"}, {"user": "eve", "password": "engine"}, {}])
def test_login_refuses_the_wrong_password_and_the_unknown_name_alike(
    site: Callable[[], Browser], form: dict[str, str]
) -> None:
    browser = site()
    reply = browser.post("/login", form)
    assert reply.status.startswith("403")
    assert "Name or password are wrong." in reply.text
    assert browser.cookie is None


def test_a_second_login_brings_a_new_token(site: Callable[[], Browser]) -> None:
    browser = site()
    browser.post("/login", ADA)
    first = browser.cookie
    browser.post("/login", ADA)
    assert browser.cookie not in (None, first)
    browser.cookie = first
    assert "<h1>Log in</h1>" in browser.get("/").text


def test_a_user_sees_all_devices_and_logs_the_others_out(site: Callable[[], Browser]) -> None:
    phone, laptop, grace = site(), site(), site()
    for browser in (phone, laptop):
        browser.post("/login", ADA)
    grace.post("/login", {"user": "grace", "password": "compiler"})
    page = laptop.get("/").text
    assert len(re.findall("<tr><td>", page)) == 2
    assert page.count("this device") == 1
    laptop.post("/revoke")
    assert "<h1>Log in</h1>" in phone.get("/").text
    assert "Hello grace" in grace.get("/").text
    assert len(re.findall("<tr><td>", laptop.get("/").text)) == 1


def test_what_a_client_sends_is_escaped(site: Callable[[], Browser]) -> None:
    text = site().post("/login", {"user": '"><script>alert(1)</script>', "password": "x"}).text
    assert "<script>" not in text
    assert "&quot;&gt;&lt;script&gt;" in text


@pytest.mark.parametrize("path", ["/login", "/logout", "/revoke"])
def test_only_a_post_of_our_own_pages_changes_anything(site: Callable[[], Browser], path: str) -> None:
    browser, other = site(), site()
    browser.post("/login", ADA)
    other.post("/login", ADA)
    cookie = browser.cookie
    assert browser.get(path).status.startswith("405")
    assert browser.post(path, ADA, HTTP_SEC_FETCH_SITE="cross-site").status.startswith("403")
    assert browser.cookie == cookie
    assert "Hello ada" in browser.get("/").text
    assert "Hello ada" in other.get("/").text


@pytest.mark.parametrize("length", ["", "-1", "1e3", "99999999"])
def test_a_form_of_no_sensible_length_is_an_empty_one(example: Callable[[str], ModuleType], length: str) -> None:
    environ = {"CONTENT_LENGTH": length, "wsgi.input": BytesIO(b"user=ada&password=engine")}
    assert example("login").form_of(environ) == {}
