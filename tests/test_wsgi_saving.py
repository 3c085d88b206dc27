"""When the middleware saves: before the headers go out, and at the body's close to a session that exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import AsyncSession, AsyncSessionManager, CoatcheckError, EventKind, Session
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from tests.conftest import House, Site

PLAIN = [("Content-Type", "text/plain")]


def session_of(environ: dict[str, Any]) -> Session:
    session = environ["coatcheck.session"]
    assert isinstance(session, Session)
    return session


def test_an_application_that_raises_saves_nothing(house: House, site: Callable[..., Site]) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 2
        if environ["QUERY_STRING"] == "after":
            start("200 OK", PLAIN)
        raise LookupError

    client = house.visitor(a=1)
    for when in ("before", "after"):
        with pytest.raises(LookupError):
            site(house, app).get(client.cookie, QUERY_STRING=when)
    assert house.driver.asked == []
    assert client.read() == {"a": 1}


@pytest.mark.parametrize("fails_at_close", [True, False])
def test_a_body_that_raises_midway_saves_nothing_more(
    house: House,
    site: Callable[..., Site],
    fails_at_close: bool,  # noqa: FBT001
) -> None:
    class Failing:
        def __init__(self, session: Session) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            self.session["a"] = 3
            yield b"two"
            if not fails_at_close:
                raise LookupError

        def close(self) -> None:
            if fails_at_close:
                raise LookupError

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        session["a"] = 2
        start("200 OK", PLAIN)
        return Failing(session)

    client = house.visitor(a=1)
    with pytest.raises(LookupError):
        site(house, app).get(client.cookie)
    assert client.read() == {"a": 2}


def test_what_changes_while_the_body_streams_is_saved_at_its_close(house: House, site: Callable[..., Site]) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        session["a"] = session["a"] + 1
        start("200 OK", PLAIN)
        for n in range(3):
            session["list"] = [*session.get("list", []), n]
            session.increment("count")
            yield b"."

    client = house.visitor(a=1)
    reply = site(house, app).get(client.cookie)
    assert reply.body == b"..."
    assert house.driver.asked == ["load", "commit", "commit"]
    assert client.read() == {"a": 2, "list": [0, 1, 2], "count": 3}


@pytest.mark.parametrize("gone", ["never there", "ended elsewhere"])
def test_what_changes_while_the_body_streams_makes_no_session(
    house: House, site: Callable[..., Site], gone: str
) -> None:
    client = house.visitor(a=1)

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        assert session.get("nothing") is None
        start("200 OK", PLAIN)
        yield b"one"
        if gone == "ended elsewhere":
            with client.request() as other:
                other.logout()
        session["b"] = 2
        yield b"two"

    reply = site(house, app).get(client.cookie if gone == "ended elsewhere" else None)
    assert reply.body == b"onetwo"
    assert reply.cookie is None
    assert house.driver.stored == (gone == "never there")  # the other one, of the visitor
    assert house.kinds()[EventKind.GONE] == 1


def test_a_client_that_goes_away_leaves_what_was_done_until_then(house: House, site: Callable[..., Site]) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        start("200 OK", PLAIN)
        for n in range(10):
            session["at"] = n
            yield b"."

    client = house.visitor(a=1)
    body: Any = site(house, app, checked=False).start(client.cookie)
    assert [next(body), next(body)] == [b".", b"."]
    body.close()
    assert client.read() == {"a": 1, "at": 1}


def test_changes_after_write_and_before_the_return_are_saved(house: House, site: Callable[..., Site]) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        start("200 OK", PLAIN)(b"one")
        session["late"] = 1
        return [b"two"]

    client = house.visitor(a=1)
    assert site(house, app).get(client.cookie).body == b"onetwo"
    assert client.read() == {"a": 1, "late": 1}


@pytest.mark.parametrize("act", ["login", "rotate"])
@pytest.mark.parametrize("by_write", [True, False])
def test_a_new_token_after_the_headers_is_an_error_that_the_application_sees(
    house: House,
    site: Callable[..., Site],
    act: str,
    by_write: bool,  # noqa: FBT001
) -> None:
    raised: list[CoatcheckError] = []

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        assert session["a"] == 1
        write = start("200 OK", PLAIN)
        if by_write:
            write(b"one")
        else:
            yield b"one"
        try:
            getattr(session, act)(*(["ann"] if act == "login" else []))
        except CoatcheckError as error:
            raised.append(error)
        yield b"two"

    client = house.visitor(a=1)
    assert site(house, app).get(client.cookie).body == b"onetwo"
    assert "the response has started" in str(raised[0])
    assert client.read() == {"a": 1}


def test_a_log_out_while_the_body_streams_ends_the_session(house: House, site: Callable[..., Site]) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        start("200 OK", PLAIN)
        yield b"one"
        session.logout()
        session["after"] = 1

    client = house.visitor(a=1)
    assert site(house, app).get(client.cookie).cookie is None
    assert house.driver.stored == 0


def nothing(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return []


def test_a_manager_brings_its_own_policy(house: House) -> None:
    with pytest.raises(TypeError, match="has its own policy"):
        SessionMiddleware(nothing, house.manager, house.manager.policy)
    assert SessionMiddleware(nothing, "memory:").manager.driver.name == "memory"


LATE: dict[str, Callable[[Session], object]] = {
    "assignment": lambda session: session.update(a=2),
    "deletion": lambda session: session.__delitem__("a"),
    "clear": lambda session: session.clear(),
    "increment": lambda session: session.increment("n"),
    "update_with": lambda session: session.update_with("n", lambda n: n, 1),
    "store": lambda session: session.store("shop").update(a=1),
    "setdefault": lambda session: session.setdefault("new", []),
    "login": lambda session: session.login("ada"),
    "logout": lambda session: session.logout(),
    "rotate": lambda session: session.rotate(),
    "expire_at": lambda session: session.expire_at(9e9),
}
BEFORE: dict[str, Callable[[Session], object]] = {
    "untouched": lambda _: None,
    "read": lambda session: session.get("a"),
    "written": lambda session: session.update(b=1),
    "written as it was": lambda session: session.update(a=session.get("a", 1)),
    "logged in": lambda session: session.login("ada", ["a"]),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("body", ["list", "generator", "save"])
@pytest.mark.parametrize("newcomer", [True, False])
def test_a_change_after_the_last_save_is_an_error_and_not_lost_in_silence(
    house: House,
    site: Callable[..., Site],
    late: Callable[[Session], object],
    before: Callable[[Session], object],
    body: str,
    newcomer: bool,  # noqa: FBT001
) -> None:
    kept: list[Session] = []

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session = session_of(environ)
        kept.append(session)
        before(session)
        start("200 OK", PLAIN)
        return [b"done"] if body == "list" else iter([b"done"])

    client = house.client() if newcomer else house.visitor(a=1)
    if body == "save":
        session = client.open()
        before(session)
        house.manager.save(session, final=True)
    else:
        site(house, app).get(client.cookie)
        session = kept[0]
    house.driver.calls.clear()
    with pytest.raises(CoatcheckError, match="saved for the last time, and this change would be lost"):
        late(session)
    assert session.get("a") == (None if newcomer and before is not BEFORE["written as it was"] else 1)
    assert "commit" not in house.driver.asked


def test_an_asynchronous_session_refuses_late_changes_too() -> None:
    manager = AsyncSessionManager("memory:")
    for before in (lambda _: None, BEFORE["written"]):
        session = manager.open([])
        before(session)
        asyncio.run(_saved(manager, session))
        for late in ("assignment", "increment", "logout"):
            with pytest.raises(CoatcheckError, match="saved for the last time"):
                LATE[late](session)


async def _saved(manager: AsyncSessionManager, session: AsyncSession) -> None:
    await manager.save(session, final=True)
