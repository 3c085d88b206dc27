"""Behind a real nginx that speaks TLS and was told nothing but where to go: no header tells it from a browser here."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from browsers import Jar
from testservers import NginxServer, scratch
from testservers.fixtures import need

from coatcheck import Policy
from coatcheck.wsgi import SessionMiddleware
from web.session.cookies import warn_of_http
from web.wsgi import cgi, database, environment, error, session

# What a browser sends to https://www.example.org/ in a visit whose address was typed in.
BROWSER = {
    "Host": "www.example.org",
    "Connection": "keep-alive",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
}
URL = "https://www.example.org/"
LOCATIONS = {
    "nothing said": "proxy_pass http://127.0.0.1:{port};",
    "localhost": "proxy_pass http://localhost:{port};",
    "HTTP/1.1": "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1;",
    "kept connections": (
        "proxy_pass http://behind; proxy_set_header Host 127.0.0.1:{port}; proxy_http_version 1.1;"
        ' proxy_set_header Connection "";'
    ),
}

pytestmark = pytest.mark.server


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=LOCATIONS.values(), ids=LOCATIONS)
def visit(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[int, list[str], str]]]:
    """A function that sends a browser's request through nginx: status, Set-Cookie headers, body."""
    need(NginxServer)
    current: list[Any] = []
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(dict(environ))
        return current[-1](environ, start_response)

    behind: WSGIServer = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    thread = threading.Thread(target=behind.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    port = behind.server_address[1]
    try:
        with scratch() as folder, NginxServer(folder / "nginx", port, request.param.format(port=port)) as nginx:

            def get(application: Any, cookie: str | None = None) -> tuple[int, list[str], str]:
                current.append(application)
                connection = http.client.HTTPSConnection("127.0.0.1", nginx.port, timeout=60, context=nginx.trust())
                try:
                    connection.request("GET", "/", headers=BROWSER | ({} if cookie is None else {"Cookie": cookie}))
                    answer = connection.getresponse()
                    body = answer.read().decode()
                finally:
                    connection.close()
                # This is the point: whatever the application is told, it could be a browser on this machine.
                environ = seen[-1]
                assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("http", "127.0.0.1")
                assert environ["HTTP_HOST"] in (f"127.0.0.1:{port}", f"localhost:{port}")
                assert not [name for name in environ if name.startswith(("HTTP_X_", "HTTP_FORWARDED", "HTTP_VIA"))]
                return answer.status, answer.msg.get_all("Set-Cookie") or [], body

            yield get
    finally:
        behind.shutdown()
        thread.join()
        behind.server_close()


def _visits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["coatcheck.session"].increment("visits")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ["coatcheck.session"]["visits"]).encode()]


@pytest.mark.parametrize("policy", [Policy(), Policy(behind_tls_proxy=True)], ids=["nothing said", "trusted"])
def test_an_https_sites_cookie_is_secure_and_works(
    visit: Callable[..., tuple[int, list[str], str]], policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    application, jar = SessionMiddleware(_visits, "memory:", policy), Jar()
    for number in (1, 2, 3):
        _, cookies, body = visit(application, jar.header(URL))
        jar.take(URL, *cookies)
        assert body == str(number)
        assert all(cookie.startswith("__Host-sid=") and "; Secure; " in cookie for cookie in cookies)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == (1 if not policy.behind_tls_proxy else 0)
    assert all("Policy(behind_tls_proxy=True)" in text for text in said)


def test_a_setting_for_development_that_was_left_in_is_warned_of(
    visit: Callable[..., tuple[int, list[str], str]], caplog: pytest.LogCaptureFixture
) -> None:
    application = SessionMiddleware(_visits, "memory:", Policy(insecure_http=True))
    for _ in range(2):
        (cookie,) = visit(application)[1]
        assert cookie.startswith("sid=")
    (text,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "Policy(behind_tls_proxy=True)" in text


def _failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise ValueError("secret of the source")


def test_no_visitor_sees_a_traceback(visit: Callable[..., tuple[int, list[str], str]]) -> None:
    status, _, body = visit(error.Error(cgi.CGI(_failing)))
    assert status == 500
    assert "secret of the source" not in body
    assert "_failing" not in body


def test_the_cookie_of_web_is_warned_of_and_secure_where_the_scheme_is_set(
    visit: Callable[..., tuple[int, list[str], str]], tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["web.session.store"]["a"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    made = session.Session(page, app="app", setupEnvironment=True)
    site = database.Database(
        environment.Environment(made, name="site", storage="database"),
        adapter="sqlite", database=str(tmp_path / "site.db"), autoCreate=True,
    )  # fmt: skip

    def over_tls(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.url_scheme"] = "https"
        return site(environ, start_response)

    try:
        warn_of_http.cache_clear()
        (secure,) = visit(over_tls)[1]
        assert secure.startswith("__Host-site=")
        assert "; Secure; " in secure
        assert not [record for record in caplog.records if "plain http" in record.getMessage()]
        for _ in range(2):
            assert visit(site)[1][0].startswith("site=")
        (text,) = [record.getMessage() for record in caplog.records if "plain http" in record.getMessage()]
        assert "environ['wsgi.url_scheme'] = 'https'" in text
    finally:
        site.close()
