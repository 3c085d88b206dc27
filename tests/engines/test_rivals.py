"""Several live cookies of one name, on every kind of engine: what a log-in, a log-out and a write leave in storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Jar
from testservers.engines import Engine, params

from coatcheck import Policy, SessionManager
from coatcheck.adapter import Incoming
from coatcheck.drivers.base import Driver
from coatcheck.token import Token

PAGE = "https://www.example.org/"


@pytest.fixture(params=params("memory", "sqlite", "redis", "redis-cluster", "postgresql", "mariadb", "memcached"))
def engine(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Iterator[Engine]:
    """One engine of each kind."""
    row = request.param
    engine = Engine.of(row, request.getfixturevalue(row.server) if row.server else None, namespace, tmp_path)
    yield engine
    engine.close()


@pytest.mark.parametrize("act", ["login", "logout", "write"])
@pytest.mark.parametrize("user", ["ada", "grace"])
def test_which_sessions_are_left(driver: Driver, namespace: str, act: str, user: str) -> None:
    jar, aside = Jar(), Jar()
    wide = SessionManager(driver, Policy(domain="example.org"))
    for browser, manager in ((jar, SessionManager(driver, Policy(domain="www.example.org"))), (aside, wide)):
        session = manager.open([])
        session.login(f"ada {namespace}")
        browser.take(PAGE, str(manager.save(session).set_cookie))
    jar.held.update(aside.held)
    jar._secure |= aside._secure
    before = [Token(secret) for secret in jar.held.values()]
    assert len(before) == 2

    session = wide.open(Incoming([str(jar.header(PAGE))], "https", "www.example.org", "/"))
    assert session.user is None
    if act == "login":
        session.login(f"{user} {namespace}")
    elif act == "logout":
        session.logout()
    else:
        session["a"] = 1
    saved = wide.save(session)
    jar.take(PAGE, *saved.deletions, str(saved.set_cookie))

    live = [wide.open([f"__Secure-sid={token.secret}"]).user is not None for token in before]
    assert live == [act == "write"] * 2
    assert len(jar.held) == (0 if act == "logout" else 1)
    after = wide.open([jar.header(PAGE) or ""])
    assert (after.user, after.get("a")) == {
        "login": (f"{user} {namespace}", None), "logout": (None, None), "write": (None, 1),
    }[act]  # fmt: skip
