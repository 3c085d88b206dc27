"""What is measured of coatcheck: six cases, each through a manager and by the driver alone, sync and async.

The asynchronous ones are the synchronous ones with `await`. They are written twice, since anything that would share
them would be measured too.
"""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any, Final

from rivals.common import SMALL, big_values

from coatcheck import AsyncSessionManager, SessionManager
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.record import Committed, Delta, Put, Record, Value, ValueKey
from coatcheck.token import Token, new_sid
from engine.timing import Action, AsyncAction

CASES: Final = {
    "read": "read",
    "write": "read and write",
    "count": "count unread",
    "create": "create",
    "assign_big": "one of 100 KB unread",
    "save_big": "save one of 100 KB",
}
UNITS: Final = {
    "read": ("get",),
    "write": ("get", "set"),
    "count": ("set",),
    "create": ("set",),
    "assign_big": ("set_big",),
    "save_big": ("set_big",),
}
"""The raw operations that a case is measured in."""

_NAME: Final[ValueKey] = ("", "name")
_BIG: Final[ValueKey] = ("", "key050")
_UNREAD: Final[ValueKey] = ("", "key049")
_VISITS: Final[ValueKey] = ("", "visits")
_STORED: Final = 200  # sessions that are there before anything is measured
_IDLE: Final = 7 * 86400.0
_ABSOLUTE: Final = 30 * 86400.0


def _turned(text: str) -> str:
    return text[1:] + text[0]


def _encoded(values: dict[str, str]) -> dict[ValueKey, Value]:
    # as a driver is given them: bytes whose form it does not know
    return {("", key): Value(text.encode(), 0) for key, text in values.items()}


_SMALL_RECORD: Final = _encoded(SMALL)
_BIG_RECORD: Final = _encoded(big_values())


def _record(values: dict[ValueKey, Value], bits: int) -> Record:
    digest, now = Token.new().digest, time.time()
    sid = new_sid(digest, bits)
    return Record(
        sid=sid, created=now, seen=now, idle=_IDLE, absolute=_ABSOLUTE, digest=digest, values=values, rotated=now
    )


_OTHER: Final = (big_values()["key001"], big_values()["key002"])


def _two(values: dict[ValueKey, Value], name: ValueKey) -> tuple[bytes, bytes]:
    data = values[name].data
    assert isinstance(data, bytes)
    return data, data[::-1]


def manager_actions(manager: SessionManager) -> dict[str, Action]:
    """Give the cases as a framework's adapter would do them: open with the cookie, work, save."""

    def made(values: dict[str, str]) -> str:
        session = manager.open([])
        session.update(values)
        cookie = manager.save(session).set_cookie
        assert cookie is not None
        return cookie.partition(";")[0]

    def read() -> object:
        session = manager.open([small])
        name = session["name"]
        manager.save(session)
        return name

    def write() -> None:
        session = manager.open([small])
        session["name"] = _turned(session["name"])
        manager.save(session)

    def count() -> None:
        session = manager.open([small])
        session.increment("visits")
        manager.save(session)

    def assign_big() -> None:
        session = manager.open([big])
        session["key049"] = next(texts)
        manager.save(session)

    def create() -> None:
        session = manager.open([])
        session.update(SMALL)
        manager.save(session)

    pending: Any = None
    texts = cycle(_OTHER)

    def change_big() -> None:
        nonlocal pending
        pending = manager.open([big])
        pending["key050"] = _turned(pending["key050"])

    small = [made(SMALL) for _ in range(_STORED)][_STORED // 2]
    big = made(big_values())
    actions = {
        "read": Action(read),
        "write": Action(write),
        "count": Action(count),
        "create": Action(create),
        "assign_big": Action(assign_big),
        "save_big": Action(lambda: manager.save(pending), change_big),
    }
    assert read() == SMALL["name"]
    for action in actions.values():
        if action.prepare is not None:
            action.prepare()
        action.run()
    assert dict(manager.open([small])) == {**SMALL, "name": _turned(SMALL["name"]), "visits": 1}
    assert dict(manager.open([big])) == {
        **big_values(),
        "key049": _OTHER[0],
        "key050": _turned(big_values()["key050"]),
    }
    return actions


async def async_manager_actions(manager: AsyncSessionManager) -> dict[str, AsyncAction]:
    """Give the same cases with an asynchronous manager."""

    async def made(values: dict[str, str]) -> str:
        session = manager.open([])
        session.update(values)
        cookie = (await manager.save(session)).set_cookie
        assert cookie is not None
        return cookie.partition(";")[0]

    async def read() -> object:
        session = await manager.open([small]).load()
        name = session["name"]
        await manager.save(session)
        return name

    async def write() -> None:
        session = await manager.open([small]).load()
        session["name"] = _turned(session["name"])
        await manager.save(session)

    async def count() -> None:
        session = manager.open([small])
        session.increment("visits")
        await manager.save(session)

    async def assign_big() -> None:
        session = manager.open([big])
        session["key049"] = next(texts)
        await manager.save(session)

    async def create() -> None:
        session = manager.open([])
        session.update(SMALL)
        await manager.save(session)

    pending: Any = None
    texts = cycle(_OTHER)

    async def change_big() -> None:
        nonlocal pending
        pending = await manager.open([big]).load()
        pending["key050"] = _turned(pending["key050"])

    small = [await made(SMALL) for _ in range(_STORED)][_STORED // 2]
    big = await made(big_values())
    actions = {
        "read": AsyncAction(read),
        "write": AsyncAction(write),
        "count": AsyncAction(count),
        "create": AsyncAction(create),
        "assign_big": AsyncAction(assign_big),
        "save_big": AsyncAction(lambda: manager.save(pending), change_big),
    }
    assert await read() == SMALL["name"]
    for action in actions.values():
        if action.prepare is not None:
            await action.prepare()
        await action.run()
    assert dict(await manager.open([small]).load()) == {**SMALL, "name": _turned(SMALL["name"]), "visits": 1}
    return actions


class _Made:
    """Builds what a driver is given, the same for both kinds of drivers."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._two = {_NAME: _two(_SMALL_RECORD, _NAME), _BIG: _two(_BIG_RECORD, _BIG)}
        self.small = _record(_SMALL_RECORD, bits)
        self.big = _record(_BIG_RECORD, bits)
        self._texts = cycle(text.encode() for text in _OTHER)

    def new(self) -> Record:
        return _record(_SMALL_RECORD, self._bits)

    @staticmethod
    def count() -> Delta:
        # as a manager says it that has not loaded the session: it cannot tell whether the activity is worth a note
        return Delta(increments={_VISITS: 1}, touch=time.time())

    def assign(self) -> Delta:
        return Delta(puts={_UNREAD: Put(next(self._texts))}, touch=time.time())

    def put(self, record: object, name: ValueKey) -> Delta:
        assert isinstance(record, Record)
        was = record.values[name]
        two = self._two[name]
        return Delta(puts={name: Put(two[two[0] == was.data], was.version)}, basis=record.basis)


def _done(answer: object) -> None:
    assert isinstance(answer, Committed), answer


def driver_actions(driver: Driver) -> dict[str, Action]:
    """Give the cases by the driver alone: no cookie, no codec, no plan."""
    made = _Made(driver.rotation_bits)
    small, big = made.small.digest, made.big.digest
    for record in (made.small, made.big, *(made.new() for _ in range(_STORED))):
        _done(driver.create(record, time.time()))

    def read() -> object:
        return driver.load(small, time.time())

    def write() -> None:
        _done(driver.commit(small, made.put(driver.load(small, time.time()), _NAME), time.time()))

    def count() -> None:
        _done(driver.commit(small, made.count(), time.time()))

    record, delta = made.new(), Delta()

    def new_record() -> None:
        nonlocal record
        record = made.new()

    def new_delta() -> None:
        nonlocal delta
        delta = made.put(driver.load(big, time.time()), _BIG)

    return {
        "read": Action(read),
        "write": Action(write),
        "count": Action(count),
        "create": Action(lambda: _done(driver.create(record, time.time())), new_record),
        "assign_big": Action(lambda: _done(driver.commit(big, made.assign(), time.time()))),
        "save_big": Action(lambda: _done(driver.commit(big, delta, time.time())), new_delta),
    }


async def async_driver_actions(driver: AsyncDriver) -> dict[str, AsyncAction]:
    """Give the same cases with an asynchronous driver."""
    made = _Made(driver.rotation_bits)
    small, big = made.small.digest, made.big.digest
    for record in (made.small, made.big, *(made.new() for _ in range(_STORED))):
        _done(await driver.create(record, time.time()))

    async def read() -> object:
        return await driver.load(small, time.time())

    async def write() -> None:
        _done(await driver.commit(small, made.put(await driver.load(small, time.time()), _NAME), time.time()))

    async def count() -> None:
        _done(await driver.commit(small, made.count(), time.time()))

    record, delta = made.new(), Delta()

    async def new_record() -> None:
        nonlocal record
        record = made.new()

    async def new_delta() -> None:
        nonlocal delta
        delta = made.put(await driver.load(big, time.time()), _BIG)

    async def create() -> None:
        _done(await driver.create(record, time.time()))

    async def assign_big() -> None:
        _done(await driver.commit(big, made.assign(), time.time()))

    async def save_big() -> None:
        _done(await driver.commit(big, delta, time.time()))

    return {
        "read": AsyncAction(read),
        "write": AsyncAction(write),
        "count": AsyncAction(count),
        "create": AsyncAction(create, new_record),
        "assign_big": AsyncAction(assign_big),
        "save_big": AsyncAction(save_big, new_delta),
    }
