"""Every order in which two requests of one browser can meet, through the real managers, and judged by a plain model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.testing import Interleaving, explore
from coatcheck.testing.explorer_run import Schedule
from coatcheck.testing.explorer_visits import BEGINNINGS, EXPIRY, KINDS

pytestmark = pytest.mark.slow  # a minute in all, on two processors


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the log of some ten thousand requests out of the report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_the_model_explains_every_order_of_every_pair(beginning: str) -> None:
    found = explore(MemoryDriver, None, [beginning])
    assert found.failures == (), found.failures[0]
    assert found.schedules > 500
    assert found.states > 2 * found.schedules


SAMPLE = [
    ("append", "append"),
    ("append", "log out"),
    ("increment", "log in, keep"),
    ("append, renewal due", "append, renewal due"),
    ("write unread", EXPIRY),
]


@pytest.mark.parametrize("pair", SAMPLE, ids=" + ".join)
def test_the_model_explains_a_sample_of_them(pair: tuple[str, str]) -> None:
    found = explore(MemoryDriver, [pair])
    assert found.failures == (), found.failures[0]


def test_the_same_steps_are_counted_each_time() -> None:
    first, second = (explore(MemoryDriver, [("append", "log out")], ["anonymous"]) for _ in range(2))
    assert first == second
    assert first.schedules > 10


@pytest.mark.parametrize(
    "pair", [("increment", "append"), ("log in", "log out"), ("revoke the user", "log in, keep")], ids=" + ".join
)
def test_it_takes_the_drivers_of_others(pair: tuple[str, str], tmp_path: Path) -> None:
    on_disk = SQLiteDriver(tmp_path / "sessions.db")

    def emptied() -> Driver:
        on_disk.tear_down()
        on_disk.setup()
        return on_disk

    right = explore(MemoryDriver, [pair], ["logged in"])
    assert explore(emptied, [pair], ["logged in"]) == right
    assert explore(AsyncMemoryDriver, [pair], ["logged in"]) == right
    assert right.failures == ()


# -- both managers carry out one plan


class Awaited:
    """A synchronous manager, for requests that await it."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self.open = manager.open

    async def save(self, session: Any) -> Any:
        return self._manager.save(session)

    async def revoke_user(self, user: str) -> int:
        return self._manager.revoke_user(user)


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_synchronous_manager_makes_the_same_calls(kind: str, beginning: str) -> None:
    def run(*, is_sync: bool) -> tuple[list[str], str, set[Any]]:
        driver = Interleaving(MemoryDriver())
        schedule: Any = Schedule(driver, BEGINNINGS[beginning], [kind], 0.01)
        before = len(driver.calls)
        if is_sync:
            for name in ("manager", "renewing"):
                manager = getattr(schedule, name)
                options: Any = {"listeners": manager._listeners, "clock": manager.clock}
                setattr(schedule, name, Awaited(SessionManager(driver, manager.policy, **options)))
        schedule.run([])
        (visit,) = schedule.visits
        assert visit.error is None
        calls, cookie = driver.calls[before:], visit.reply if visit.reply in {None, "deletion"} else "a new token"
        return calls, cookie, visit.told

    assert run(is_sync=True) == run(is_sync=False)


# -- what it has found


FOUND = [
    # Its new session was taken back because a log-in was faster, and its answer deleted the cookie of that log-in.
    ("log in", "revoke own user", "logged in"),
    ("destroy and write", "revoke own user", "logged in"),
    ("revoke own user", "revoke and log in", "logged in"),
    # A log-in that was refused ended the session that another log-in had just got.
    ("log in, keep", "revoke and log in", "anonymous"),
    ("revoke and log in", "revoke and log in", "anonymous"),
]


@pytest.mark.parametrize(("first", "second", "beginning"), FOUND)
def test_what_it_has_found_is_mended(first: str, second: str, beginning: str) -> None:
    found = explore(MemoryDriver, [(first, second)], [beginning])
    assert found.failures == (), found.failures[0]


# -- it can fail


def test_a_failure_tells_the_order_and_shows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[str] = []
    views: Callable[[Schedule], dict[str, Any]] = Schedule.views

    def noted(schedule: Schedule) -> dict[str, Any]:
        found = views(schedule)
        tokens.extend(found)
        return dict.fromkeys(found)

    monkeypatch.setattr(Schedule, "views", noted)
    found = explore(MemoryDriver, [("append", "log out")], ["logged in"], most_failures=3)
    assert len(found.failures) == 3
    report = found.failures[0]
    assert report.startswith("append + log out, logged in: in the end the cookie of bob opens None, and should open")
    assert "\n  A load, A commit, A answers, B load, B revoke, B answers\n" in report
    assert not any(token in failure for failure in found.failures for token in tokens)


def test_an_error_of_a_request_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(MemoryDriver, "commit", broken)
    found = explore(MemoryDriver, [("append", "read")], ["anonymous"], most_failures=1)
    assert "RuntimeError('broken')" in found.failures[0]
