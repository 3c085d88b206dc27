"""A session that goes on after a save that gave it a new token, as while a response streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import AsyncSessionManager, Session, SessionManager
from coatcheck.wsgi import SessionMiddleware

Act = Callable[[Session], object]


def log_in(session: Session) -> None:
    session.login("ada")


def log_in_and_assign(session: Session) -> None:
    session.login("ada")
    session["note"] = 1


def rotate(session: Session) -> None:
    session.rotate()


def look_and_log_in(session: Session) -> None:
    assert session.user == "ada"
    session.login("ada")


def write_unread(session: Session) -> None:
    session["note"] = 1


RENEWALS = (log_in, log_in_and_assign, rotate, look_and_log_in, write_unread)


def look(session: Session) -> None:
    assert session.user == "ada"
    assert not session.is_new


def append(session: Session) -> None:
    session.setdefault("pages", []).append("/")


def assign(session: Session) -> None:
    session["pages"] = ["/"]


def log_out(session: Session) -> None:
    assert session.user == "ada"
    session.logout()


LATER = (look, append, assign, log_out)


@pytest.fixture(params=["memory:", "sqlite:///{}/s.db"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two engines: what loads after the save is the same for all."""
    return str(request.param).format(tmp_path)


def check(manager: SessionManager, cookie: str, later: Act) -> None:
    """Check that what was done after the save is stored."""
    session = manager.open([cookie])
    assert (session.user is None) is (later is log_out)
    assert ("pages" in session) is (later in (append, assign))


def pair(set_cookie: str | None) -> str | None:
    return None if set_cookie is None else set_cookie.partition(";")[0]


def begin(manager: SessionManager) -> str:
    session = manager.open(())
    session.login("ada")
    return str(pair(manager.save(session).set_cookie))


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("renew", RENEWALS)
def test_a_session_goes_on_under_its_new_token(url: str, renew: Act, later: Act) -> None:
    manager = SessionManager(url)
    cookie = begin(manager)
    session = manager.open([cookie])
    renew(session)
    cookie = pair(manager.save(session).set_cookie) or cookie
    later(session)
    manager.save(session, final=True)
    check(manager, cookie, later)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("renew", RENEWALS)
def test_so_it_does_while_a_response_streams(url: str, renew: Act, later: Act) -> None:
    manager = SessionManager(url)
    cookie = begin(manager)
    sent: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        renew(environ["coatcheck.session"])
        start_response("200 OK", [])
        yield b"x"
        later(environ["coatcheck.session"])

    def start(_status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Callable[[bytes], object]:
        sent.extend(value for name, value in headers if name == "Set-Cookie")
        return lambda _data: None

    body: Any = SessionMiddleware(app, manager)({"wsgi.url_scheme": "https", "HTTP_COOKIE": cookie}, start)
    assert list(body) == [b"x"]
    body.close()
    check(manager, pair(sent[0]) or cookie if sent else cookie, later)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("renew", [log_in, log_in_and_assign, rotate, write_unread])
def test_so_it_does_in_an_asynchronous_program(tmp_path: Path, renew: Act, later: Act) -> None:
    url = f"sqlite:///{tmp_path}/s.db"

    async def run(cookie: str) -> str:
        manager = AsyncSessionManager(url)
        session = manager.open([cookie])
        renew(session)
        cookie = pair((await manager.save(session)).set_cookie) or cookie
        await session.load()
        later(session)
        await manager.save(session, final=True)
        await manager.close()
        return cookie

    manager = SessionManager(url)
    check(manager, asyncio.run(run(begin(manager))), later)
