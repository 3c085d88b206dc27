"""Helpers for the tests of applications: a client that is logged in, and a clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck import AsyncSessionManager, Policy, SessionManager
from coatcheck.cookie import Channel
from coatcheck.drivers.base import Driver
from coatcheck.testing import Clock, DriverContract, FaultyDriver, Interleaving, SessionCookie, signed_in
from coatcheck.testing.helpers import START

Build = Callable[..., Any]


def test_a_signed_in_client_is_logged_in_and_has_its_values(web: Build, storage: Driver) -> None:
    site = web(storage)
    cookie = signed_in(site.manager, "ada", cart=["hat"], user="a value of that name")
    name, value = cookie
    assert (name, value, cookie.header) == (cookie.name, cookie.value, f"{name}={value}")
    reply = site.ask(lambda session: (session.user, session["cart"], session["user"]), value)
    assert reply.body == b"('ada', ['hat'], 'a value of that name')"
    assert [info.user for info in site.manager.sessions_of("ada")] == ["ada"]


def test_a_client_by_plain_http_has_the_plain_name_where_the_policy_allows_it(storage: Driver) -> None:
    manager = SessionManager(storage, Policy(cookie_name="s", insecure_http=True))
    cookie = signed_in(manager, "ada", secure=False)
    assert cookie.name == "s"
    assert manager.open([cookie.header], Channel.PLAIN).user == "ada"
    assert signed_in(manager, "ada").name == "__Host-s"
    assert signed_in(SessionManager(storage), "ada", secure=False).name == "__Host-sid"


def test_two_clients_have_two_sessions(storage: Driver) -> None:
    manager = SessionManager(storage)
    first, second = signed_in(manager, "ada"), signed_in(manager, "ada")
    assert first.value != second.value
    assert len(manager.sessions_of("ada")) == 2


def test_no_repr_shows_the_token(storage: Driver) -> None:
    faulty, forced = FaultyDriver(storage), Interleaving(storage)
    manager = SessionManager(faulty)
    cookie = signed_in(manager, "ada")
    session = manager.open([cookie.header])
    assert session.user == "ada"
    for thing in (cookie, [cookie], {"cookie": cookie}, session, manager, faulty, forced):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert cookie.value not in text
    assert repr(cookie) == "<SessionCookie __Host-sid=...>"
    assert repr(SessionCookie("sid", "secret")) == "<SessionCookie sid=...>"


def test_a_user_who_was_revoked_at_that_moment_cannot_be_signed_in(storage: Driver) -> None:
    clock = Clock()
    manager = SessionManager(storage, clock=clock)
    elsewhere = threading.Thread(target=manager.revoke_user, args=("ada",))
    elsewhere.start()
    elsewhere.join()
    with pytest.raises(RuntimeError, match=r"'ada' was revoked at the current moment .*: advance the clock, "):
        signed_in(manager, "ada")
    clock.advance(1)
    assert signed_in(manager, "ada").name == "__Host-sid"
    manager.revoke_user("ada")
    assert signed_in(manager, "ada").name == "__Host-sid"  # one thing after the other


def test_time_travel_ends_a_session_at_the_very_moment(storage: Driver) -> None:
    clock = Clock()
    manager = SessionManager(storage, Policy(idle=100), clock=clock)
    cookie = signed_in(manager, "ada")
    assert clock.advance(99.5) == clock.now == START + 99.5
    assert manager.open([cookie.header]).user == "ada"
    clock.advance(0.5)
    assert manager.open([cookie.header]).user is None


HELPERS = """
import asyncio, sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None  # as where they are not installed
import coatcheck, coatcheck.wsgi, coatcheck.drivers.memory, coatcheck.drivers.sqlite
from coatcheck.testing import (
    AsyncFaultyDriver, Blocking, Clock, FaultyDriver, Interleaving, digest, make_record, sid, signed_in, successor
)
clock = Clock()
storage = Interleaving(FaultyDriver(coatcheck.driver("memory:")))
manager = coatcheck.SessionManager(storage, clock=clock)
assert manager.open([signed_in(manager, "ada").header]).user == "ada"
manager = coatcheck.AsyncSessionManager(AsyncFaultyDriver(coatcheck.async_driver("memory:")))
assert asyncio.run(signed_in(manager, "ada")).name == "__Host-sid"
try:
    from coatcheck.testing import DriverContract
except coatcheck.MissingExtra as error:
    assert "pip install 'coatcheck[testing]'" in str(error)
else:
    raise AssertionError
try:
    coatcheck.testing.nothing
except AttributeError:
    pass
else:
    raise AssertionError
"""
KIT = """
import sys
from coatcheck.testing import Clock, signed_in
assert not {"pytest", "hypothesis"} & set(sys.modules)
from coatcheck.testing import DriverContract
import coatcheck.testing
assert coatcheck.testing.DriverContract is DriverContract
assert "pytest" in sys.modules
assert "hypothesis" not in sys.modules, "slow to import, and only for the sequences"
"""


@pytest.mark.parametrize("program", [HELPERS, KIT], ids=["helpers", "kit"])
def test_only_who_asks_for_the_kit_imports_pytest_and_hypothesis(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=300)


def test_the_assertions_of_the_kit_explain_themselves() -> None:
    """Pytest rewrites the modules of the kit though they are loaded late."""
    from coatcheck.testing import contract_values  # noqa: PLC0415 (after the kit was asked for)

    assert DriverContract
    assert "@pytest_ar" in vars(contract_values)


def test_an_asynchronous_manager_signs_a_client_in() -> None:
    clock = Clock()
    manager = AsyncSessionManager("memory:", Policy(insecure_http=True), clock=clock)

    async def program() -> None:
        cookie = await signed_in(manager, "ada", cart=["hat"], user="a value of that name")
        session = await manager.open([cookie.header]).load()
        assert (session.user, dict(session)) == ("ada", {"cart": ["hat"], "user": "a value of that name"})
        assert [info.user for info in await manager.sessions_of("ada")] == ["ada"]
        plain = await signed_in(manager, "ada", secure=False)
        assert plain.name == "sid"
        assert (await manager.open([plain.header], Channel.PLAIN).load()).user == "ada"
        await asyncio.create_task(manager.revoke_user("eve"))
        with pytest.raises(RuntimeError, match="'eve' was revoked at the current moment"):
            await signed_in(manager, "eve")

    asyncio.run(program())
