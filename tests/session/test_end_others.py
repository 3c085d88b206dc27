"""Ending all other sessions of a user, with a log-in and without: one plan, from wherever it is asked for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import WatchedDriver

from coatcheck import AsyncSessionManager, CoatcheckError, EventKind, Session, SessionManager, UnsupportedCapability
from coatcheck.drivers.base import Capability
from coatcheck.errors import DriverUnavailable
from coatcheck.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Client, House


def _logged_in(house: House, user: str = "ada", **values: object) -> Client:
    client = house.client()
    with client.request() as session:
        session.login(user)
        session.update(values)
    house.clock.advance(1)
    return client


def _here(act: Callable[[], object]) -> None:
    act()


def _in_a_thread(act: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


def _in_a_child_task(act: Callable[[], object]) -> None:
    async def child() -> None:
        act()

    async def request() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    asyncio.run(request())


PLACES = [_here, _in_a_thread, _in_a_child_task]


@pytest.mark.parametrize("looks", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("known", [False, True], ids=["a visitor", "a user"])
@pytest.mark.parametrize("place", PLACES)
def test_a_log_in_ends_the_others(house: House, place: Any, known: bool, looks: bool) -> None:  # noqa: FBT001
    others = [_logged_in(house), _logged_in(house)]
    stranger = _logged_in(house, "bob")
    client = _logged_in(house, cart=["hat"]) if known else house.visitor(cart=["hat"])
    house.clock.advance(1)
    session = client.open()
    if looks:
        _ = session.user
    place(lambda: session.login("ada", keep=["cart"], end_others=True))
    session["note"] = "new password"
    client.answer(session)
    with client.request() as session:
        assert session.user == "ada"
        assert dict(session) == {"cart": ["hat"], "note": "new password"}
    assert [each.open().user for each in others] == [None, None]
    assert stranger.open().user == "bob"
    assert len(house.manager.sessions_of("ada")) == 1


@pytest.mark.parametrize("looks", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("place", PLACES)
def test_a_session_ends_the_others_and_stays(house: House, place: Any, looks: bool) -> None:  # noqa: FBT001
    others = [_logged_in(house), _logged_in(house)]
    client = _logged_in(house, cart=["hat"])
    session = client.open()
    if looks:
        _ = session["cart"]
    place(session.end_others)
    session["note"] = 1
    house.events.clear()
    client.answer(session)
    assert house.kinds()[EventKind.DESTROYED] == 1
    with client.request() as session:
        assert (session.user, dict(session)) == ("ada", {"cart": ["hat"], "note": 1})
    assert [each.open().user for each in others] == [None, None]


def test_it_is_done_once(house: House) -> None:
    client = _logged_in(house)
    session = client.open()
    session.end_others()
    client.answer(session)
    house.clock.advance(1)
    late = _logged_in(house)
    session["note"] = 1
    client.answer(session)
    assert house.driver.asked.count("revoke_user") == 1
    assert late.open().user == "ada"


def test_a_log_in_that_is_refused_ends_nobody(house: House) -> None:
    client = house.visitor(cart=["hat"])
    session = client.open()
    house.clock.advance(1)
    house.manager.revoke_user("ada")  # the password was just changed elsewhere
    house.clock.advance(1)
    other = house.client()
    with _in_another_request(house, other) as later:
        later.login("ada")
    with ThreadPoolExecutor(1) as pool:  # a request that did not make that revocation
        pool.submit(session.login, "ada", end_others=True).result()
        assert pool.submit(house.manager.save, session).result().login_refused
    assert other.open().user == "ada"
    assert client.read() == {"cart": ["hat"]}


def _in_another_request(house: House, client: Client) -> Any:
    return client.request()


def test_what_follows_may_undo_it(house: House) -> None:
    other, client = _logged_in(house), _logged_in(house)
    with client.request() as session:
        session.end_others()
        session.logout()
    assert (client.cookie, other.open().user) == (None, "ada")


def test_nobody_is_logged_in(house: House) -> None:
    with pytest.raises(CoatcheckError, match=r"^end_others\(\): nobody is logged in"):
        house.visitor().open().end_others()


def test_through_a_second_manager(tmp_path: Path) -> None:
    clock = Clock()
    url = f"sqlite:///{tmp_path}/s.db"
    with closing(SessionManager(url, clock=clock)) as one, closing(SessionManager(url, clock=clock)) as other:
        cookies = []
        for manager in (one, other, one):
            session = manager.open()
            session.login("ada")
            cookies.append(str(manager.save(session).set_cookie).partition(";")[0])
            clock.advance(1)
        session = other.open([cookies[0]])
        session.login("ada", end_others=True)
        new = str(other.save(session).set_cookie).partition(";")[0]
        assert [one.open([cookie]).user for cookie in (*cookies, new)] == [None, None, None, "ada"]


def test_a_log_in_of_an_async_session(tmp_path: Path) -> None:
    async def run() -> None:
        manager = AsyncSessionManager(f"sqlite:///{tmp_path}/s.db")
        try:
            cookies = []
            for _ in range(3):
                session = manager.open()
                session.login("ada")
                cookies.append(str((await manager.save(session)).set_cookie).partition(";")[0])
            session = await manager.open([cookies[0]]).load()
            async with asyncio.TaskGroup() as group:
                group.create_task(_log_in(session))
            cookies[0] = str((await manager.save(session)).set_cookie).partition(";")[0]
            found = [(await manager.open([cookie]).load()).user for cookie in cookies]
            assert found == ["ada", None, None]
        finally:
            await manager.close()

    async def _log_in(session: Session) -> None:
        await asyncio.to_thread(session.login, "ada", end_others=True)

    asyncio.run(run())


@pytest.mark.parametrize("again", [False, True])
def test_storage_that_fails_says_so(house: House, again: bool) -> None:  # noqa: FBT001
    other, client = _logged_in(house), _logged_in(house)
    session = client.open()
    session.end_others()
    house.driver.down = frozenset({"revoke_user"})
    with pytest.raises(DriverUnavailable):
        house.manager.save(session)
    house.driver.down = frozenset()
    if again:
        house.manager.save(session)
    assert other.open().user == (None if again else "ada")


class _Plain(WatchedDriver):
    capabilities = WatchedDriver.capabilities - {Capability.USER_INDEX}


@pytest.mark.parametrize("act", [lambda s: s.login("ada", end_others=True), lambda s: s.end_others()])
def test_an_engine_without_an_index_by_user_refuses_at_once(build: Callable[..., House], act: Any) -> None:
    with pytest.raises(UnsupportedCapability, match="sessions by user"):
        act(build(driver=_Plain()).visitor().open())
