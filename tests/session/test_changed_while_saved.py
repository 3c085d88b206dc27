"""A change by one task of a request while another one awaits the save: it is written by the next save, not lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import AsyncSession, AsyncSessionManager
from coatcheck.drivers.memory import AsyncMemoryDriver

if TYPE_CHECKING:
    from collections.abc import Callable

START = {"n": 1, "name": "ada", "cart": ["hat"], "other": "x", "left": [0]}


class _Held(AsyncMemoryDriver):
    """Holds up a write until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    async def create(self, *args: Any) -> Any:
        self.entered.set()
        await self.go.wait()
        return await super().create(*args)

    async def commit(self, *args: Any) -> Any:
        self.entered.set()
        await self.go.wait()
        return await super().commit(*args)


FIRST: dict[str, Callable[[AsyncSession], object]] = {
    "assign": lambda s: s.update(name="grace"),
    "assign a list": lambda s: s.update(cart=["scarf"]),
    "in place": lambda s: s["cart"].append("scarf"),
    "increment": lambda s: s.increment("n"),
    "update_with": lambda s: s.update_with("name", str.upper),
    "delete": lambda s: s.pop("name"),
    "new": lambda s: s.update(new=1.5),
    "clear": lambda s: s.clear(),
}
THEN: dict[str, Callable[[AsyncSession], object]] = {
    "assign": lambda s: s.update(name="joan"),
    "assign a list": lambda s: s.update(cart=["glove"]),
    "in place": lambda s: s.setdefault("cart", []).append("belt"),
    "increment": lambda s: s.increment("n", 10),
    "assign a counter": lambda s: s.update(n=100),
    "update_with": lambda s: s.update_with("name", lambda name: f"{name}!", "nobody"),
    "delete": lambda s: s.pop("name", None),
    "delete a list": lambda s: s.pop("cart", None),
    "delete a counter": lambda s: s.pop("n", None),
    "new": lambda s: s.update(new=2.5),
    "clear": lambda s: s.clear(),
    "log in": lambda s: s.login("ada", keep=["cart", "n"]),
}


@pytest.mark.parametrize("loads", [True, False], ids=["read", "new"])
@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("first", FIRST)
def test_it_is_written_by_the_next_save(first: str, then: str, loads: bool) -> None:  # noqa: FBT001
    async def run() -> None:
        driver = _Held()
        driver.go.set()
        manager = AsyncSessionManager(driver)
        session = manager.open()
        session.update(START)
        cookies: list[str] = []
        if loads:
            cookies = [str((await manager.save(session)).set_cookie).partition(";")[0]]
            session = await manager.open(cookies).load()
        FIRST[first](session)
        driver.go.clear()
        driver.entered.clear()
        saving = asyncio.create_task(manager.save(session))
        entered = asyncio.create_task(driver.entered.wait())
        await asyncio.wait([entered, saving], return_when=asyncio.FIRST_COMPLETED)  # cleared, a new one is not written
        entered.cancel()
        THEN[then](session)
        told, user = dict(session), session.user
        driver.go.set()
        answers = [await saving, await manager.save(session)]
        sent = [each.set_cookie.partition(";")[0] for each in answers if each.set_cookie is not None]
        assert dict(session) == told
        found = await manager.open((cookies + sent)[-1:]).load()
        assert (dict(found), found.user) == (told, user)

    asyncio.run(run())
