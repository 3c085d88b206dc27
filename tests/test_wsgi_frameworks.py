"""Frameworks inside the middleware, which make a 500 of every exception: where storage failed, the answer is 503."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testservers import RedisServer, wait_until
from testservers.base import PATIENCE
from testservers.engines import with_options

from coatcheck import DriverUnavailable, SessionManager, SessionUnavailable

if TYPE_CHECKING:
    from tests.conftest import House, Reply, Site

Act = Callable[[Any], object]
PLAIN = [("Content-Type", "text/html"), ("Set-Cookie", "mine=1")]


def listed(act: Act, status: str) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start(status, PLAIN)
        return [b"page"]

    return app


def streamed(act: Act, status: str) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start(status, PLAIN)
        yield b"page"

    return app


def written(act: Act, status: str) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start(status, PLAIN)(b"page")
        return [b"rest"]

    return app


def empty(act: Act, status: str) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start(status, PLAIN)
        return iter(())

    return app


def with_exc_info(act: Act, status: str) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        try:
            int("x")
        except ValueError:
            act(environ["coatcheck.session"])
            start(status, PLAIN, sys.exc_info())
        return [b"page"]

    return app


def is_unavailable(reply: Reply) -> None:
    assert reply.status == "503 Service Unavailable"
    assert reply.body == b"The service is temporarily unavailable. Please try again in a moment.\n"
    assert (reply.all("Retry-After"), reply.all("Set-Cookie")) == (["5"], [])


@pytest.mark.parametrize(
    ("act", "status", "answered"),
    [
        (lambda s: s["a"], "500 Internal Server Error", "503 Service Unavailable"),
        (lambda s: s["a"], "500 INTERNAL SERVER ERROR", "503 Service Unavailable"),
        (lambda s: s.available and s["a"], "500 Internal Server Error", "500 Internal Server Error"),
        (lambda s: s.available or s["a"], "500 Internal Server Error", "503 Service Unavailable"),
        (lambda s: s["a"], "503 Busy", "503 Busy"),
        (lambda s: s["a"], "502 Bad Gateway", "502 Bad Gateway"),
        (lambda s: s["a"], "200 OK", "200 OK"),
        (lambda _: None, "500 Internal Server Error", "500 Internal Server Error"),
    ],
)
@pytest.mark.parametrize("shape", [listed, streamed, written, empty, with_exc_info])
def test_a_500_that_a_framework_makes_of_our_error_is_503(
    house: House, site: Callable[..., Site], shape: Callable[..., Any], act: Act, status: str, answered: str
) -> None:
    """Whatever a program answers otherwise is its own, also a 500 where `available` told it that storage failed."""

    def swallowed(session: Any) -> None:
        with suppress(DriverUnavailable, SessionUnavailable):
            act(session)

    client = house.visitor(a=1)
    house.driver.down = frozenset({"load"})
    reply = site(house, shape(swallowed, status)).get(client.cookie)
    assert reply.status == answered
    if status != answered:
        is_unavailable(reply)
    else:
        assert reply.all("Set-Cookie") == ["mine=1"]
    house.driver.down = frozenset()
    assert client.read() == {"a": 1}


# -- real frameworks, and real Redis that is killed


def read(environ: dict[str, Any]) -> str:
    return str(environ["coatcheck.session"]["a"])


def read_on_the_way(environ: dict[str, Any]) -> Iterable[str]:
    """A body that reads the session before its first piece."""
    yield read(environ)


def fail(_environ: dict[str, Any]) -> str:
    raise ValueError("a mistake of the program's")


def do_without(environ: dict[str, Any]) -> str:
    return "with" if environ["coatcheck.session"].available else "without"


def do_without_and_fail(environ: dict[str, Any]) -> str:
    assert not environ["coatcheck.session"].available
    return fail(environ)


VIEWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    view.__name__: view for view in (read, read_on_the_way, fail, do_without, do_without_and_fail)
}


def flask_site() -> Any:
    from flask import Flask, Response, request  # noqa: PLC0415 (slow to import)

    site = Flask("site")

    def answer(name: str) -> Response:
        return Response(VIEWS[name](request.environ))

    def own_answer(name: str) -> Response:
        try:
            return answer(name)
        except DriverUnavailable:
            return Response("busy", status=503)

    site.add_url_rule("/<name>", view_func=answer)
    site.add_url_rule("/own/<name>", view_func=own_answer)
    return site


def django_site() -> Any:
    from django.conf import settings  # noqa: PLC0415 (slow to import)
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.http import HttpResponse, StreamingHttpResponse  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    def answer(request: Any, name: str) -> Any:
        content = VIEWS[name](request.environ)
        return HttpResponse(content) if isinstance(content, str) else StreamingHttpResponse(content)

    def own_answer(request: Any, name: str) -> Any:
        try:
            return answer(request, name)
        except DriverUnavailable:
            return HttpResponse("busy", status=503)

    if not settings.configured:
        settings.configure()
    settings.ALLOWED_HOSTS = ["*"]
    settings.ROOT_URLCONF = (path("own/<name>", own_answer), path("<name>", answer))
    return get_wsgi_application()


EXPECTED = {
    "read": "503 Service Unavailable",
    "read_on_the_way": "503 Service Unavailable",
    "fail": "500 Internal Server Error",
    "do_without": "200 OK",
    "do_without_and_fail": "500 Internal Server Error",
    "own/read": "503 Service Unavailable",
}


@pytest.mark.parametrize("framework", [flask_site, django_site])
def test_real_frameworks_over_redis_that_is_killed(
    framework: Callable[[], Any], site: Callable[..., Site], server_folder: Path, namespace: str
) -> None:
    """The cookie of the client is never touched, and opens its session when storage is back."""
    with RedisServer(server_folder / namespace, appendonly=True, extra=("--appendfsync", "always")) as server:
        manager = SessionManager(with_options(server.url, timeout=PATIENCE))
        with closing(manager):
            session = manager.open(())
            session["a"] = 1
            cookie = (manager.save(session).set_cookie or "").partition(";")[0]
            visited = site(Storage(manager), framework())

            def get(name: str) -> Reply:
                reply: Reply = visited.get(cookie, SCRIPT_NAME="", PATH_INFO=f"/{name}")
                return reply

            assert get("read").body == b"1"
            server.kill()
            replies = {name: get(name) for name in EXPECTED}
            server.start()
            wait_until(lambda: get("read").body == b"1", "the session to be back")
    assert {name: reply.status.title().replace("Ok", "OK") for name, reply in replies.items()} == EXPECTED
    assert {name for name, reply in replies.items() if reply.all("Retry-After")} == {"read", "read_on_the_way"}
    assert replies["own/read"].body == b"busy"
    assert not any(reply.all("Set-Cookie") for reply in replies.values())


class Storage:
    """What a `Site` needs of a house."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
