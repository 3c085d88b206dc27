"""A request that revokes the sessions of its own user: it goes on as after a log-out, or keeps itself."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import AsyncSessionManager, CoatcheckError, Session
from coatcheck.testing import Clock

if TYPE_CHECKING:
    from tests.conftest import Client, House


def _logged_in(house: House, user: str = "ada") -> Client:
    client = house.client()
    with client.request() as session:
        session.login(user)
        session["cart"] = ["hat"]
    house.clock.advance(1)
    return client


def _flash(session: Session) -> None:
    session.setdefault("flashes", []).append("all devices are logged out")


def _count(session: Session) -> None:
    session.increment("flashes")


def _token(session: Session) -> None:
    session["flashes"] = "a CSRF token"


@pytest.mark.parametrize("looks", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("write", [_flash, _count, _token])
def test_what_follows_a_revocation_of_ones_own_is_kept(house: House, write: object, looks: bool) -> None:  # noqa: FBT001
    client = _logged_in(house)
    old = client.secret
    session = client.open()
    house.clock.advance(1)
    if looks:
        assert session.user == "ada"
    house.manager.revoke_user("ada")
    write(session)  # type: ignore[operator]
    client.answer(session)
    assert client.secret != old
    with client.request() as session:
        assert list(session) == ["flashes"]
        assert session.user is None
    assert house.driver.stored == 1


def test_nothing_of_the_old_session_is_left(house: House) -> None:
    client = _logged_in(house)
    with client.request() as session:
        session["cart"].append("scarf")
        session["note"] = "before"
        house.manager.revoke_user("ada")
        assert dict(session) == {}
        assert session.user is None
        assert session.is_new
    assert client.cookie is None  # deleted, as a log-out does
    assert house.driver.stored == 0


def test_a_log_out_after_it_deletes_the_cookie(house: House) -> None:
    client = _logged_in(house)
    with client.request() as session:
        assert session.user == "ada"
        house.manager.revoke_user("ada")
        session.logout()
    assert client.cookie is None


def test_the_revocation_of_another_user_changes_nothing(house: House) -> None:
    admin = _logged_in(house, "root")
    _logged_in(house)
    with admin.request() as session:
        house.manager.revoke_user("ada")
        session["note"] = "done"
        assert session["cart"] == ["hat"]
    assert admin.read() == {"cart": ["hat"], "note": "done"}


def test_the_revocation_of_an_earlier_request_changes_nothing(house: House) -> None:
    client = _logged_in(house)
    house.manager.revoke_user("ada")
    house.clock.advance(1)
    with client.request() as session:
        session.login("ada")
        session["note"] = 1
    with client.request() as session:
        assert dict(session) == {"note": 1}


@pytest.mark.parametrize("by", ["sid", "session"])
@pytest.mark.parametrize("known", [False, True], ids=["a visitor", "a user"])
def test_a_log_in_that_keeps_itself_stays(house: House, by: str, known: bool) -> None:  # noqa: FBT001
    other = _logged_in(house)
    client = _logged_in(house) if known else house.client()
    session = client.open()
    house.clock.advance(1)
    session.login("ada")
    sid = session.sid
    assert sid is not None
    assert house.manager.revoke_user("ada", keep=sid if by == "sid" else session) == 1
    session["note"] = 1
    client.answer(session)
    with client.request() as session:
        assert (session.user, session.sid, session["note"]) == ("ada", sid, 1)
    assert other.open().user is None


def test_a_log_in_that_was_kept_stays_whoever_else_is_revoked(house: House) -> None:
    client = _logged_in(house)
    session = client.open()
    house.clock.advance(1)
    session.login("ada")
    for user in ("bob", "ada", "eve"):
        house.manager.revoke_user(user, keep=session)
    client.answer(session)
    assert client.open().user == "ada"


def test_a_log_in_that_was_kept_is_refused_by_the_next_revocation(house: House) -> None:
    client = house.client()
    session = client.open()
    session.login("ada")
    house.clock.advance(1)
    house.manager.revoke_user("ada", keep=session)
    house.clock.advance(1)
    house.manager.revoke_user("ada")
    assert house.manager.save(session).login_refused


@pytest.mark.parametrize("known", [False, True], ids=["a visitor", "a user"])
def test_a_log_in_that_another_thread_keeps_stays(house: House, known: bool) -> None:  # noqa: FBT001
    client = _logged_in(house) if known else house.client()
    session = client.open()
    house.clock.advance(1)
    session.login("ada")
    house.clock.advance(1)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(house.manager.revoke_user, "ada", keep=session).result()
    client.answer(session)
    assert client.open().user == "ada"


@pytest.mark.parametrize("waits", [lambda call: asyncio.wait_for(call, 60), asyncio.gather, asyncio.create_task])
def test_a_log_in_that_another_task_keeps_stays(waits: Any) -> None:
    async def run() -> None:
        manager = AsyncSessionManager("memory:")
        session = manager.open(())
        session.login("ada")
        await waits(manager.revoke_user("ada", keep=session))
        saved = await manager.save(session)
        assert (saved.set_cookie is not None, saved.login_refused) == (True, False)
        assert [info.sid for info in await manager.sessions_of("ada")] == [session.sid]

    asyncio.run(run())


def test_a_session_without_a_sid_is_refused(house: House) -> None:
    _logged_in(house)
    nobody = house.client().open()
    nobody["cart"] = ["hat"]
    assert nobody.sid is None
    for wrong in (nobody, "", 5, b"sid", "\ud800"):
        with pytest.raises(CoatcheckError, match="call login"):
            house.manager.revoke_user("ada", keep=wrong)  # type: ignore[arg-type]
    assert len(house.manager.sessions_of("ada")) == 1


def test_the_same_in_an_asynchronous_program() -> None:
    async def run() -> None:
        clock = Clock()
        manager = AsyncSessionManager("memory:", clock=clock)
        first = await manager.open(()).load()
        first.login("ada")
        saved = await manager.save(first)
        assert saved.set_cookie is not None
        cookie = saved.set_cookie.partition(";")[0]
        clock.advance(1)

        keeps = manager.open([cookie])
        assert await manager.revoke_user("ada", keep=keeps) == 0  # loaded by the call
        fresh = manager.open(())
        fresh.login("ada")
        assert await manager.revoke_user("ada", keep=fresh) == 1
        assert (await manager.save(fresh)).set_cookie is not None

        clock.advance(1)
        (info,) = await manager.sessions_of("ada")
        assert info.sid == fresh.sid
        saved = await manager.save(fresh)
        ends = manager.open(())
        await manager.revoke_user("ada")
        ends["flash"] = 1
        assert (await manager.save(ends)).set_cookie is not None

    asyncio.run(run())
