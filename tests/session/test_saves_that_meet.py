"""Saves and loads of one session that meet, or go wrong and are tried again."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import AsyncSessionManager, CoatcheckError, ConflictError, Policy, SessionManager
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.errors import DriverUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import House


class _Gate(AsyncMemoryDriver):
    """Holds an operation up until it is let through, and fails those that it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, asyncio.Event] = {}
        self.entered = asyncio.Event()
        self.fails: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("load", "create", "commit"):
            return found

        async def wait(*args: Any, **more: Any) -> Any:
            fails = name in self.fails
            if fails:
                self.fails.remove(name)
            if (gate := self.held.get(name)) is not None:
                self.entered.set()
                await gate.wait()
            if fails:
                raise DriverUnavailable("memory", name, "down on purpose")
            return await found(*args, **more)

        return wait


async def _stored(manager: AsyncSessionManager) -> str:
    session = manager.open()
    session["n"] = 1
    return str((await manager.save(session)).set_cookie).partition(";")[0]


@pytest.mark.parametrize("operation", ["create", "commit"])
@pytest.mark.parametrize("tasks", [2, 5])
def test_tasks_that_save_at_once_count_once(operation: str, tasks: int) -> None:
    async def run() -> None:
        driver = _Gate()
        manager = AsyncSessionManager(driver)
        cookies = [] if operation == "create" else [await _stored(manager)]
        session = manager.open(cookies)
        session.increment("n")
        gate = driver.held[operation] = asyncio.Event()
        saves = [asyncio.create_task(manager.save(session)) for _ in range(tasks)]
        await driver.entered.wait()
        gate.set()
        answers = await asyncio.gather(*saves)
        assert sum(saved.set_cookie is not None for saved in answers) == (operation == "create")
        cookie = cookies or [str(next(s.set_cookie for s in answers if s.set_cookie)).partition(";")[0]]
        assert (await manager.open(cookie).load())["n"] == (1 if operation == "create" else 2)

    asyncio.run(run())


def test_what_changed_while_another_task_saved_is_saved_by_the_next(tmp_path: Any) -> None:
    async def run() -> None:
        driver = _Gate()
        manager = AsyncSessionManager(driver)
        cookie = await _stored(manager)
        session = manager.open([cookie])
        session.increment("n")
        gate = driver.held["commit"] = asyncio.Event()
        first = asyncio.create_task(manager.save(session))
        await driver.entered.wait()
        second = asyncio.create_task(manager.save(session))
        gate.set()
        await asyncio.gather(first, second)
        session["note"] = "late"
        await manager.save(session)
        assert dict(await manager.open([cookie]).load()) == {"n": 2, "note": "late"}

    asyncio.run(run())


def test_a_save_by_two_threads_is_refused() -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(MemoryDriver):
        def commit(self, *args: Any) -> Any:
            entered.set()
            assert go.wait(60)
            return super().commit(*args)

    manager = SessionManager(Slow())
    session = manager.open()
    session["n"] = 1
    cookie = str(manager.save(session).set_cookie).partition(";")[0]
    session = manager.open([cookie])
    session.increment("n")
    saver = threading.Thread(target=manager.save, args=(session,))
    saver.start()
    assert entered.wait(60)
    with pytest.raises(CoatcheckError, match="another thread is saving it"):
        manager.save(session)
    go.set()
    saver.join()
    assert manager.open([cookie])["n"] == 2
    manager.save(session)  # once it is over, it may be saved again


@pytest.mark.parametrize("order", ["fails last", "fails first"])
def test_a_load_that_fails_beside_one_that_succeeds_spoils_nothing(order: str) -> None:
    async def run() -> None:
        driver = _Gate()
        manager = AsyncSessionManager(driver)
        cookie = await _stored(manager)
        session = manager.open([cookie])
        gate = driver.held["load"] = asyncio.Event()
        driver.fails = ["load"]
        bad = asyncio.create_task(session.load())  # begins first, and is held up
        await driver.entered.wait()
        del driver.held["load"]
        if order == "fails last":
            await session.load()
            gate.set()
            await bad
        else:
            gate.set()
            with pytest.raises(DriverUnavailable):
                await bad
            return
        session["note"] = "kept"
        await manager.save(session)
        assert dict(await manager.open([cookie]).load()) == {"n": 1, "note": "kept"}

    asyncio.run(run())


@pytest.mark.parametrize("told", [False, True])
def test_after_a_conflict_the_winner_stays_unless_told_otherwise(build: Callable[..., House], told: bool) -> None:  # noqa: FBT001
    house = build(Policy(on_conflict="error"))
    client = house.visitor(plan="basic", tags=["a"])
    slow, fast = client.open(), client.twin().open()
    assert (slow["plan"], fast["plan"], slow["tags"]) == ("basic", "basic", ["a"])
    fast["plan"], slow["plan"] = "gold", "free"
    tags = slow["tags"]
    tags.append("b")
    house.manager.save(fast)
    for _ in range(3):
        with pytest.raises(ConflictError) as caught:
            house.manager.save(slow)
        assert caught.value.keys == (("", "plan"),)
        assert tags == ["a", "b"]
    assert client.read() == {"plan": "gold", "tags": ["a"]}
    if told:
        house.manager.save(slow, on_conflict="last")
        assert client.read() == {"plan": "free", "tags": ["a", "b"]}
    else:
        del slow["plan"]  # that is a conflict, too
        with pytest.raises(ConflictError):
            house.manager.save(slow)


def test_a_session_is_saved_through_the_driver_that_it_was_opened_with() -> None:
    lent, own = MemoryDriver(), MemoryDriver()
    manager = SessionManager(own)
    session = manager.open(driver=lent)
    session["n"] = 1
    cookie = str(manager.save(session).set_cookie).partition(";")[0]
    assert (manager.open([cookie], driver=lent).get("n"), manager.open([cookie]).get("n")) == (1, None)


@pytest.mark.parametrize("used", [False, True])
def test_a_session_of_another_manager_is_refused_used_or_not(used: bool) -> None:  # noqa: FBT001
    one, two = SessionManager("memory:"), SessionManager("memory:")
    other = AsyncSessionManager("memory:")
    for session in (two.open(), other.open()):
        if used:
            session["a"] = 1
        with pytest.raises(CoatcheckError, match="another manager opened this session"):
            one.save(session)
