"""A list of devices: one of them is ended, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck import AsyncSessionManager, CoatcheckError, Event, EventKind, SessionManager
from coatcheck.testing import Clock

Run = Callable[[Any], Any]


class Devices:
    """The sessions of two users and of a visitor, through either manager."""

    def __init__(self, kind: str, url: str) -> None:
        self.events: list[Event] = []
        self.clock = Clock()
        of = SessionManager if kind == "sync" else AsyncSessionManager
        self.manager: Any = of(url, listeners=[self.events.append], clock=self.clock)
        self._runner = asyncio.Runner()

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the manager, and await what it gives where it has to be."""
        found = getattr(self.manager, name)(*args, **kwargs)
        return self._runner.run(found) if asyncio.iscoroutine(found) else found

    def begins(self, user: str | None) -> tuple[str, str]:
        """Begin a session; return its cookie and its sid."""
        session = self.manager.open([])
        session["n"] = 1
        if user is not None:
            session.login(user)
        cookie = self.call("save", session).set_cookie.partition(";")[0]
        if isinstance(self.manager, AsyncSessionManager):
            self._runner.run(session.load())
        return cookie, session.sid

    def is_live(self, cookie: str) -> bool:
        session = self.manager.open([cookie])
        if isinstance(self.manager, AsyncSessionManager):
            self._runner.run(session.load())
        return not session.is_new

    def close(self) -> None:
        self.call("close")
        self._runner.close()


@pytest.fixture(params=["sync memory", "async memory", "sync sqlite", "async sqlite"])
def devices(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kind, engine = request.param.split()
    devices = Devices(kind, "memory:" if engine == "memory" else f"sqlite:///{tmp_path}/s.db")
    yield devices
    devices.close()


def test_one_device_is_ended(devices: Devices) -> None:
    (phone, phone_sid), (laptop, laptop_sid) = devices.begins("ada"), devices.begins("ada")
    devices.events.clear()
    assert devices.call("end_sessions", "ada", [phone_sid]) == 1
    assert (devices.is_live(phone), devices.is_live(laptop)) == (False, True)
    assert [info.sid for info in devices.call("sessions_of", "ada")] == [laptop_sid]
    assert [(event.kind, event.user) for event in devices.events if event.kind is EventKind.DESTROYED] == [
        (EventKind.DESTROYED, "ada")
    ]
    devices.events.clear()
    assert devices.call("end_sessions", "ada", [phone_sid]) == 0
    assert devices.events == []


def test_nobody_ends_the_session_of_somebody_else(devices: Devices) -> None:
    (bobs, bobs_sid), (visitors, visitors_sid) = devices.begins("bob"), devices.begins(None)
    sent = [bobs_sid, visitors_sid, "", "x" * 1000, "a\0b", "\ud800", "../etc"]
    assert devices.call("end_sessions", "ada", sent) == 0
    assert devices.is_live(bobs)
    assert devices.is_live(visitors)
    assert devices.call("end_sessions", "bob", iter(sent)) == 1
    assert (devices.is_live(bobs), devices.is_live(visitors)) == (False, True)


def test_what_is_not_a_list_of_sids_is_refused(devices: Devices) -> None:
    _, sid = devices.begins("ada")
    for wrong in (sid, [5], [None], [b"x"]):
        with pytest.raises(CoatcheckError, match="takes a list of sids"):
            devices.call("end_sessions", "ada", wrong)
    with pytest.raises(CoatcheckError, match="a user is named by"):
        devices.call("end_sessions", "", [sid])
    assert devices.call("sessions_of", "ada")
