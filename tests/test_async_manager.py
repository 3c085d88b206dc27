"""AsyncSessionManager: the same sessions for asynchronous programs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coatcheck
from coatcheck import (
    AsyncSession,
    AsyncSessionManager,
    DriverUnavailable,
    Event,
    EventKind,
    Policy,
    SessionManager,
    SessionNotLoaded,
    SessionUnavailable,
)
from coatcheck.cookie import Channel
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.record import Answer, Delta
from coatcheck.testing import Clock


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/s.db"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def manager(url: str, events: list[Event]) -> Iterator[AsyncSessionManager]:
    manager = AsyncSessionManager(url, listeners=[events.append], clock=Clock())
    yield manager
    asyncio.run(manager.close())


async def visitor(manager: AsyncSessionManager, **values: Any) -> str:
    """Begin a session; give its cookie."""
    session = manager.open([])
    session.update(values)
    saved = await manager.save(session)
    assert saved.set_cookie is not None
    return saved.set_cookie.partition(";")[0]


async def read(manager: AsyncSessionManager, cookie: str) -> dict[str, Any]:
    return dict(await manager.open([cookie]).load())


def test_a_session_from_beginning_to_end(manager: AsyncSessionManager, events: list[Event]) -> None:
    async def story() -> None:
        cookie = await visitor(manager, cart=["hat"])
        session = await manager.open([cookie]).load()
        assert session["cart"] == ["hat"]
        session["cart"].append("scarf")
        session.increment("visits")
        saved = await manager.save(session)
        assert (saved.set_cookie, saved.vary) == (None, True)
        assert await read(manager, cookie) == {"cart": ["hat", "scarf"], "visits": 1}

        session = manager.open([cookie])
        with pytest.raises(SessionNotLoaded):  # what may be kept depends on who was logged in
            session.login("ada", keep=["cart"])
        await session.load()
        session.login("ada", keep=["cart"])
        saved = await manager.save(session)
        assert saved.set_cookie is not None
        logged_in = saved.set_cookie.partition(";")[0]
        assert logged_in != cookie
        assert await read(manager, cookie) == {}
        assert await read(manager, logged_in) == {"cart": ["hat", "scarf"]}
        (info,) = await manager.sessions_of("ada")
        assert info.user == "ada"

        session = manager.open([logged_in])
        session.logout()
        saved = await manager.save(session)
        assert saved.set_cookie is not None
        assert "Max-Age=0" in saved.set_cookie
        assert await read(manager, logged_in) == {}

    asyncio.run(story())
    kinds = [event.kind for event in events]
    assert kinds[:4] == [EventKind.CREATED, EventKind.RENEWED, EventKind.PRIVILEGE_CHANGED, EventKind.GONE]
    assert kinds.count(EventKind.DESTROYED) == 1


def test_requests_that_meet_keep_both_changes(manager: AsyncSessionManager) -> None:
    async def story() -> dict[str, Any]:
        cookie = await visitor(manager, cart=["hat"])
        slow, fast = await manager.open([cookie]).load(), await manager.open([cookie]).load()
        slow["cart"].append("scarf")
        fast["cart"].append("umbrella")
        fast["colour"] = "red"
        await manager.save(fast)
        await manager.save(slow)
        return await read(manager, cookie)

    assert asyncio.run(story()) == {"cart": ["hat", "umbrella", "scarf"], "colour": "red"}


def test_many_tasks_at_once_lose_nothing(manager: AsyncSessionManager) -> None:
    async def story() -> dict[str, Any]:
        cookie = await visitor(manager, log=[])

        async def request(number: int) -> None:
            session = await manager.open([cookie]).load()
            await asyncio.sleep(0)
            session[f"key {number}"] = number
            session["log"].append(number)
            session.increment("count")
            session.update_with("sum", lambda total: total + number, 0)
            await manager.save(session)

        await asyncio.gather(*map(request, range(60)))
        return await read(manager, cookie)

    values = asyncio.run(story())
    assert values.pop("count") == 60
    assert values.pop("sum") == sum(range(60))
    assert sorted(values.pop("log")) == list(range(60))
    assert values == {f"key {number}": number for number in range(60)}


def test_a_request_in_flight_revives_nothing(manager: AsyncSessionManager) -> None:
    async def story() -> None:
        for end in ("logout", "revoke_user"):
            session = manager.open([])
            session.login("ada")
            session["cart"] = ["hat"]
            saved = await manager.save(session)
            assert saved.set_cookie is not None
            cookie = saved.set_cookie.partition(";")[0]
            late = await manager.open([cookie]).load()
            late["cart"].append("scarf")
            if end == "logout":
                leaving = manager.open([cookie])
                leaving.logout()
                await manager.save(leaving)
            else:
                assert await manager.revoke_user("ada") == 1
            assert (await manager.save(late)).set_cookie is None
            assert await read(manager, cookie) == {}

    asyncio.run(story())


def test_reading_needs_a_load_and_writing_does_not(manager: AsyncSessionManager) -> None:
    async def story() -> None:
        cookie = await visitor(manager, a=1)
        session = manager.open([cookie])
        reads: tuple[Callable[[], Any], ...] = (
            lambda: session["a"],
            lambda: session.get("a"),
            lambda: "a" in session,
            lambda: len(session),
            lambda: session.sid,
            lambda: session.user,
            lambda: session.is_new,
            lambda: session.available,
            lambda: session.expires,
        )
        for each in reads:
            with pytest.raises(SessionNotLoaded, match=r"await session\.load\(\)"):
                each()
        session["b"] = 2
        session.increment("n", 5)
        await manager.save(session)
        assert await read(manager, cookie) == {"a": 1, "b": 2, "n": 5}
        stranger = manager.open([])
        assert (stranger.get("a"), stranger.is_new) == (None, True)  # without a cookie there is nothing to load

    asyncio.run(story())


def test_loading_is_no_use_of_the_session(manager: AsyncSessionManager) -> None:
    async def story() -> None:
        cookie = await visitor(manager, a=1)
        assert isinstance(manager.clock, Clock)
        manager.clock.advance(3 * 86400)
        for _ in range(3):
            saved = await manager.save(await manager.open([cookie]).load())
            assert (saved.set_cookie, saved.vary) == (None, False)
        used = await manager.open([cookie]).load()
        assert used.seen == manager.clock() - 3 * 86400
        assert used["a"] == 1
        assert (await manager.save(used)).vary

    asyncio.run(story())


def test_loading_twice_asks_once_and_undoes_nothing(url: str) -> None:
    class Counting(AsyncMemoryDriver):
        loads = 0

        async def _do(self, operation: str, call: Callable[[], Any]) -> Any:
            self.loads += operation == "load"
            await asyncio.sleep(0)
            return await super()._do(operation, call)

    async def story() -> None:
        driver = Counting()
        manager = AsyncSessionManager(driver)
        cookie = await visitor(manager, cart=["hat"])
        session = await manager.open([cookie]).load()
        session["cart"].append("scarf")
        assert await session.load() is session
        assert driver.loads == 1
        session = manager.open([cookie])

        async def use() -> None:
            await session.load()
            session["cart"].append("gloves")

        await asyncio.gather(use(), use())
        await manager.save(session)
        assert await read(manager, cookie) == {"cart": ["hat", "gloves", "gloves"]}

    asyncio.run(story())


def test_of_several_plain_cookies_the_live_one_is_used(url: str, events: list[Event]) -> None:
    manager = AsyncSessionManager(url, Policy(insecure_http=True), listeners=[events.append], clock=Clock())

    async def story() -> None:
        cookie = (await visitor(manager, a=1)).partition("=")[2]
        header = f"sid={'A' * 32}; sid={cookie}"
        session = await manager.open([header], Channel.PLAIN).load()
        assert dict(session) == {"a": 1}
        leaving = await manager.open([header], Channel.PLAIN).load()
        leaving.logout()
        await manager.save(leaving)
        assert dict(await manager.open([header], Channel.PLAIN).load()) == {}
        await manager.close()

    asyncio.run(story())
    assert EventKind.DUPLICATES in {event.kind for event in events}


class Broken(AsyncMemoryDriver):
    """Storage that is down, or that never answers a commit."""

    down = False
    stuck: asyncio.Event | None = None

    async def _do(self, operation: str, call: Callable[[], Any]) -> Any:
        if self.down:
            raise DriverUnavailable("memory", operation, "down on purpose")
        if operation == "commit" and self.stuck is not None:
            done = call()
            self.stuck.set()
            await asyncio.Event().wait()
            return done
        return await super()._do(operation, call)


def test_storage_that_is_down_is_no_missing_session() -> None:
    async def story() -> None:
        driver = Broken()
        manager = AsyncSessionManager(driver)
        cookie = await visitor(manager, a=1)
        session = await manager.open([cookie]).load()
        driver.down = True
        session["b"] = 2
        with pytest.raises(DriverUnavailable):
            await manager.save(session)
        late = manager.open([cookie])
        with pytest.raises(DriverUnavailable):
            await late.load()
        for use in (lambda: late["a"], lambda: late.update(a=2)):
            with pytest.raises(SessionUnavailable):
                use()
        with pytest.raises(SessionUnavailable):
            await late.load()
        assert (await manager.save(late)).set_cookie is None
        assert await manager.sweep() == 0
        driver.down = False
        assert await read(manager, cookie) == {"a": 1}

    asyncio.run(story())


def test_a_cancelled_save_is_never_sent_again() -> None:
    async def story() -> None:
        driver = Broken()
        manager = AsyncSessionManager(driver)
        cookie = await visitor(manager, n=0)
        session = manager.open([cookie])
        session.increment("n")
        driver.stuck = asyncio.Event()
        saving = asyncio.create_task(manager.save(session))
        await driver.stuck.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        driver.stuck = None
        with pytest.raises(SessionUnavailable):
            await manager.save(session)
        assert await read(manager, cookie) == {"n": 1}

    asyncio.run(story())


def test_what_endangers_sessions_is_told_once() -> None:
    def story(storage: MemoryDriver) -> list[Event]:
        told: list[Event] = []
        storage.at_risk = "maxmemory-policy is allkeys-lru: set it to noeviction"
        manager = SessionManager(storage, listeners=[told.append])
        for _ in range(2):
            session = manager.open([])
            session["a"] = 1
            saved = manager.save(session)
            assert saved.set_cookie is not None
            assert manager.open([saved.set_cookie.partition(";")[0]])["a"] == 1
        return told

    async def again(storage: AsyncMemoryDriver) -> list[Event]:
        told: list[Event] = []
        storage.at_risk = "maxmemory-policy is allkeys-lru: set it to noeviction"
        manager = AsyncSessionManager(storage, listeners=[told.append])
        await visitor(manager, a=1)
        await read(manager, await visitor(manager, a=1))
        return told

    for told in (story(MemoryDriver()), asyncio.run(again(AsyncMemoryDriver()))):
        (risk,) = [event for event in told if event.kind is EventKind.AT_RISK]
        assert risk.why == "maxmemory-policy is allkeys-lru: set it to noeviction"


def test_a_second_event_loop_goes_on_where_the_first_ended(manager: AsyncSessionManager) -> None:
    cookie = asyncio.run(visitor(manager, a=1))
    assert asyncio.run(read(manager, cookie)) == {"a": 1}

    async def closed_and_open_again() -> dict[str, Any]:
        if manager.driver.name == "sqlite":
            await manager.close()
        return await read(manager, cookie)

    assert asyncio.run(closed_and_open_again()) == {"a": 1}


def test_sync_and_async_programs_share_their_sessions(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"

    async def story(work: Callable[[AsyncSessionManager], Awaitable[Any]]) -> Any:
        manager = AsyncSessionManager(url)
        try:
            return await work(manager)
        finally:
            await manager.close()

    cookie = asyncio.run(story(lambda manager: visitor(manager, a=(1, 2))))
    manager = SessionManager(url)
    session = manager.open([cookie])
    assert session["a"] == (1, 2)
    session["b"] = {3}
    manager.save(session)
    assert asyncio.run(story(lambda manager: read(manager, cookie))) == {"a": (1, 2), "b": {3}}
    manager.close()


def test_periodic_renewal(url: str) -> None:
    async def story() -> None:
        clock = Clock()
        manager = AsyncSessionManager(url, Policy(rotate_after=60), clock=clock)
        cookie = await visitor(manager, a=1)
        clock.advance(61)
        session = await manager.open([cookie]).load()
        assert session["a"] == 1
        saved = await manager.save(session)
        assert saved.set_cookie is not None
        renewed = saved.set_cookie.partition(";")[0]
        assert renewed != cookie
        for either in (cookie, renewed):
            assert await read(manager, either) == {"a": 1}
        await manager.close()

    asyncio.run(story())


def test_open_async_gives_a_driver_by_url(url: str) -> None:
    async def story() -> None:
        driver = coatcheck.async_driver(url)
        assert isinstance(driver, coatcheck.AsyncDriver)
        manager = AsyncSessionManager(driver)
        assert isinstance(manager.open([]), AsyncSession)
        answer: Answer = await driver.commit(b"\0" * 32, Delta(), 0.0)
        assert not isinstance(answer, coatcheck.SessionInfo)
        await manager.close()

    asyncio.run(story())
