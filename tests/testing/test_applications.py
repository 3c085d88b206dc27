"""Helpers for the tests of applications: a client that is logged in, and a clock."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck import Policy, SessionManager
from coatcheck.cookie import Channel
from coatcheck.drivers.base import Driver
from coatcheck.testing import Clock, FaultyDriver, Interleaving, SessionCookie, signed_in
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
    with pytest.raises(RuntimeError, match="'ada' was just revoked"):
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


def test_only_who_asks_for_the_kit_imports_pytest_and_hypothesis() -> None:
    program = (
        "import sys, coatcheck, coatcheck.wsgi, coatcheck.drivers.memory, coatcheck.drivers.sqlite\n"
        "assert not {'pytest', 'hypothesis'} & set(sys.modules)\n"
        "import coatcheck.testing\n"
        "assert 'hypothesis' not in sys.modules, 'slow to import, and only for the sequences'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
