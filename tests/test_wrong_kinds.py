"""What is of the wrong kind is refused where it is given, by an error that says what to give instead."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import coatcheck
from coatcheck import AsyncSession, AsyncSessionManager, ConfigurationError, Policy, Session, SessionManager
from coatcheck.errors import CoatcheckError
from coatcheck.wsgi import SessionMiddleware


@pytest.mark.parametrize("storage", [None, Path("x.db"), Policy(), AsyncSessionManager("memory:")])
@pytest.mark.parametrize("made", [SessionManager, AsyncSessionManager, lambda it: SessionMiddleware(lambda *_: (), it)])
def test_storage(made: Any, storage: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"takes a URL.* or a driver .* not a .*{type(storage).__name__}"):
        made(storage)


def test_a_driver_of_the_other_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"^SessionManager takes .* such as coatcheck\.driver\(url\) gives"):
        SessionManager(coatcheck.async_driver("memory:"))  # type: ignore[arg-type]
    with pytest.raises(
        ConfigurationError, match=r"^AsyncSessionManager takes .* such as coatcheck\.async_driver\(url\)"
    ):
        AsyncSessionManager(coatcheck.driver("memory:"))  # type: ignore[arg-type]


def test_settings() -> None:
    with pytest.raises(ConfigurationError, match="must be a Policy"):
        SessionManager("memory:", {"idle": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize("manager", [SessionManager("memory:"), AsyncSessionManager("memory:")])
def test_a_cookie_that_is_in_no_list(manager: Any) -> None:
    """Its letters would be taken for cookies, and a visitor who has a session for a new one."""
    with pytest.raises(CoatcheckError, match=r"call open\(\[header\]\)") as caught:
        manager.open("sid=treasure")
    assert "treasure" not in str(caught.value)


def test_a_url_of_sqlalchemys() -> None:
    with pytest.raises(ConfigurationError, match="the client library is not chosen: say mysql:"):
        coatcheck.driver("mysql+pymysql://shop:secret@db/shop")


COPIES: dict[str, Callable[[Any], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy inside": lambda it: copy.deepcopy({"session": it}),
    **{f"pickle {number}": lambda it, number=number: pickle.dumps(it, number) for number in range(6)},  # type: ignore[misc]
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("used", [True, False])
def test_a_session_is_neither_copied_nor_pickled(copied: Callable[[Any], object], *, used: bool) -> None:
    for session in (SessionManager("memory:").open([]), AsyncSessionManager("memory:").open([])):
        if used:
            session["password"] = "secret of mine"
        for thing, name in ((session, type(session).__name__), (session.store("shop"), "Store")):
            with pytest.raises(
                CoatcheckError, match=rf"a {name} belongs to its request.*dict\(session\).*sid"
            ) as caught:
                copied(thing)
            assert "secret" not in str(caught.value)


def test_a_session_is_saved_by_the_manager_that_opened_it() -> None:
    manager, other = SessionManager("memory:"), SessionManager("memory:")
    session = manager.open([])
    session["a"] = 1
    for final in (True, False):
        with pytest.raises(CoatcheckError, match="another manager opened this session"):
            other.save(session, final=final)
    assert manager.save(session).set_cookie is not None


def test_an_asynchronous_session_is_saved_by_the_manager_that_opened_it() -> None:
    manager = AsyncSessionManager("memory:")

    async def save(by: AsyncSessionManager, session: Session) -> str | None:
        return (await by.save(session)).set_cookie

    for session in (manager.open([]), SessionManager("memory:").open([])):
        session["a"] = 1
        with pytest.raises(CoatcheckError, match="another manager opened this session"):
            asyncio.run(save(AsyncSessionManager("memory:"), session))
        if isinstance(session, AsyncSession):
            assert asyncio.run(save(manager, session)) is not None


def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    environ["coatcheck.session"].increment("visits")
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello"]


def ask(site: Any) -> list[str]:
    environ: dict[str, Any] = {"wsgi.url_scheme": "https"}
    setup_testing_defaults(environ)
    cookies: list[str] = []
    list(site(environ, lambda _, headers: cookies.extend(value for name, value in headers if name == "Set-Cookie")))
    return cookies


def test_two_middlewares_of_one_cookie_around_one_application() -> None:
    manager = SessionManager("memory:")
    for twice in (
        SessionMiddleware(SessionMiddleware(app, "memory:"), "memory:"),
        SessionMiddleware(SessionMiddleware(app, manager), manager),
    ):
        with pytest.raises(ConfigurationError, match=r"two SessionMiddleware .* Policy\(cookie_name="):
            ask(twice)


def test_two_middlewares_of_two_cookies_around_one_application() -> None:
    outer = SessionMiddleware(SessionMiddleware(app, "memory:", Policy(cookie_name="inner")), "memory:")
    assert [cookie.partition("=")[0] for cookie in ask(outer)] == ["__Host-inner"]
