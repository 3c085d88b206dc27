"""A browser that still sends a dead token: what requests may do that began before the end, or after it.

Every interleaving of three requests with one token: E ends the session, R is anonymous, L logs in. The clock moves by
hand, so each order is exact on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from testservers.engines import Engine, params

from coatcheck import Capability, Event, EventKind, Session, SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.record import CLOCK_SKEW, REPLY_TIME, TOMBSTONE, Missing
from coatcheck.testing import Clock, Interleaving
from coatcheck.token import Token

A_MOMENT = 0.001


@dataclass
class Place:
    """A manager on an engine, and a session of a user in it."""

    driver: Driver
    forced: Interleaving
    manager: SessionManager
    clock: Clock
    events: list[Event]
    user: str
    cookie: str

    def opens(self, cookie: str) -> bool:
        """Check whether a cookie opens a session."""
        token = Token(cookie.partition("=")[2])
        return not isinstance(self.driver.load(token.digest, self.clock()), Missing)

    def request(self, act: Callable[[Session], object], cookie: str | None = None) -> str | None:
        """Answer one request; return the Set-Cookie."""
        session = self.manager.open([cookie or self.cookie])
        act(session)
        return self.manager.save(session).set_cookie


@pytest.fixture(params=params("memory", "sqlite", "redis", "postgresql", "memcached"))
def engine(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Iterator[Engine]:
    """One engine of each kind: what they have to tell is in the kit, which all of them pass."""
    row = request.param
    engine = Engine.of(row, request.getfixturevalue(row.server) if row.server else None, namespace, tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def place(driver: Driver, namespace: str) -> Place:
    forced, clock, events = Interleaving(driver), Clock(), []
    manager = SessionManager(forced, clock=clock, listeners=[events.append])
    user = f"ada {namespace}"
    session = manager.open(())
    session.login(user)
    session["cart"] = ["hat"]
    place = Place(driver, forced, manager, clock, events, user, pair(manager.save(session).set_cookie))
    clock.advance(1)
    return place


def pair(set_cookie: str | None) -> str:
    assert set_cookie is not None
    assert "Max-Age=0" not in set_cookie
    return set_cookie.partition(";")[0]


# -- E: how a session ends --------------------------------------------------------------------------------------------


def logout(place: Place) -> None:
    place.request(lambda session: session.logout())


def logout_after_a_look(place: Place) -> None:
    place.request(lambda session: (session.get("cart"), session.logout()))


def revoke_user(place: Place) -> None:
    if Capability.USER_INDEX in place.driver.capabilities:
        # in a context of its own, as another request has it
        assert Context().run(place.manager.revoke_user, place.user) == 1
    else:
        logout(place)


def log_in_elsewhere(place: Place) -> None:
    place.request(lambda session: session.login(place.user))


def rotate(place: Place) -> None:
    place.request(lambda session: session.rotate())


def run_out(place: Place) -> None:
    place.request(lambda session: session.expire_at(timedelta(seconds=1)))
    place.clock.advance(2)


def be_forgotten(place: Place) -> None:
    logout(place)
    place.cookie = f"{place.cookie.partition('=')[0]}={Token.new().secret}"


ENDS = (logout, logout_after_a_look, revoke_user)
WAYS_TO_DIE = (*ENDS, run_out, be_forgotten)
RENEWALS = (log_in_elsewhere, rotate)

# -- R: what an anonymous request does --------------------------------------------------------------------------------


def assign(session: Session) -> None:
    session["note"] = "x"


def look_and_assign(session: Session) -> None:
    assert "cart" not in session
    session["note"] = "x"


def increment(session: Session) -> None:
    session.increment("note")


def log_out_and_assign(session: Session) -> None:
    session.logout()
    session["note"] = "x"


def append(session: Session) -> None:
    session.setdefault("note", []).append("x")


WRITES = (assign, look_and_assign, increment, log_out_and_assign, append)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_request_that_begins_after_the_end_begins_anew(
    place: Place, end: Callable[[Place], None], write: Callable[[Session], None]
) -> None:
    end(place)
    for pause in (A_MOMENT, 1, TOMBSTONE - 2):
        place.clock.advance(pause)
        cookie = pair(place.request(write))
        assert cookie != place.cookie
        values = dict(place.manager.open([cookie]))
        assert list(values) == ["note"]
        assert place.manager.open([cookie]).user is None
        assert not place.opens(place.cookie), "the old session is back"


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_request_that_began_before_the_end_keeps_nothing(
    place: Place, end: Callable[[Place], None], write: Callable[[Session], None]
) -> None:
    late = place.manager.open([place.cookie])
    place.clock.advance(A_MOMENT)
    end(place)
    place.clock.advance(A_MOMENT)
    write(late)
    assert place.manager.save(late).set_cookie is None
    assert not place.opens(place.cookie)


@pytest.mark.parametrize("act", [dict, Session.logout], ids=["looks", "logs out"])
@pytest.mark.parametrize("end", [*ENDS, *RENEWALS], ids=lambda end: end.__name__)
def test_a_request_that_writes_nothing_sends_no_cookie(
    place: Place, end: Callable[[Place], None], act: Callable[[Session], object]
) -> None:
    """Its deletion of the dead cookie could arrive after the cookie of a log-in, and nothing needs it."""
    end(place)
    place.clock.advance(A_MOMENT)
    said = place.request(act)
    if end in RENEWALS and act is not dict:
        assert said is not None  # the log-out ended the session that goes on under the new token
    else:
        assert said is None


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("renew", RENEWALS, ids=lambda renew: renew.__name__)
def test_after_a_renewal_the_answer_with_the_new_token_has_time_to_arrive(
    place: Place, renew: Callable[[Place], None], write: Callable[[Session], None]
) -> None:
    renew(place)
    if write is log_out_and_assign:
        return  # ends the session under its new token, as the test above says
    for pause in (A_MOMENT, REPLY_TIME - 1):
        place.clock.advance(pause)
        assert place.request(write) is None
    place.clock.advance(1)  # the answer was lost
    cookie = pair(place.request(write))
    assert list(place.manager.open([cookie])) == ["note"]


# -- L: a log-in of the same browser ----------------------------------------------------------------------------------


def log_in(place: Place) -> str:
    """Log in with the dead token; return the new cookie."""
    return pair(place.request(lambda session: session.login(place.user)))


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("end", WAYS_TO_DIE, ids=lambda end: end.__name__)
def test_an_anonymous_answer_that_leaves_after_a_log_in_sets_no_cookie(
    place: Place, end: Callable[[Place], None], write: Callable[[Session], None]
) -> None:
    end(place)
    place.clock.advance(A_MOMENT)
    slow = place.manager.open([place.cookie])
    write(slow)
    place.clock.advance(A_MOMENT)
    cookie = log_in(place)
    place.clock.advance(A_MOMENT)
    assert place.manager.save(slow).set_cookie is None
    assert place.manager.open([cookie]).user == place.user
    assert len(stored(place)) == 1

    later = place.request(write)  # sent before the answer to the log-in arrived
    assert later is None
    place.clock.advance(REPLY_TIME + 1)
    pair(place.request(write))


@pytest.mark.parametrize("operation", ["create", "load"])
@pytest.mark.parametrize("end", WAYS_TO_DIE, ids=lambda end: end.__name__)
def test_the_log_in_may_come_between_any_two_steps_of_the_anonymous_save(
    place: Place, end: Callable[[Place], None], operation: str
) -> None:
    end(place)
    place.clock.advance(A_MOMENT)
    slow = place.manager.open([place.cookie])
    look_and_assign(slow)
    place.clock.advance(A_MOMENT)
    cookies: list[str] = []
    place.forced.before(operation, lambda: cookies.append(log_in(place)))
    assert place.manager.save(slow).set_cookie is None
    assert place.forced.pending == 0
    assert place.manager.open(cookies).user == place.user
    assert len(stored(place)) == 1


def test_a_log_in_that_is_saved_later_is_answered_later(place: Place) -> None:
    logout(place)
    place.clock.advance(A_MOMENT)
    slow = place.manager.open([place.cookie])
    slow.login(place.user)
    anonymous = pair(place.request(assign))
    place.clock.advance(A_MOMENT)
    cookie = pair(place.manager.save(slow).set_cookie)
    assert place.manager.open([cookie]).user == place.user
    assert place.opens(anonymous)


def test_a_log_out_and_a_log_in_in_one_request_hold_others_back(place: Place) -> None:
    slow = place.manager.open([place.cookie])
    slow.logout()
    slow.login(place.user)
    cookie = pair(place.manager.save(slow).set_cookie)
    place.clock.advance(A_MOMENT)
    assert place.request(assign) is None
    assert place.manager.open([cookie]).user == place.user


def stored(place: Place) -> list[Any]:
    if Capability.USER_INDEX not in place.driver.capabilities:
        return [None]
    return place.manager.sessions_of(place.user)


# -- clocks of several hosts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [2.0, CLOCK_SKEW - 1])
def test_a_clock_that_is_ahead_holds_a_visitor_up_for_as_long_as_it_is_ahead(place: Place, ahead: float) -> None:
    token = Token(place.cookie.partition("=")[2])
    place.driver.revoke(token.digest, place.clock() + ahead)
    assert place.request(assign) is None
    place.clock.advance(ahead + A_MOMENT)
    pair(place.request(assign))


def test_a_clock_that_is_wrong_holds_nobody_up(place: Place) -> None:
    token = Token(place.cookie.partition("=")[2])
    place.driver.revoke(token.digest, place.clock() + CLOCK_SKEW + 60)
    pair(place.request(assign))


def test_a_log_in_that_a_revocation_refuses_is_told(place: Place) -> None:
    if Capability.USER_INDEX not in place.driver.capabilities:
        return
    place.driver.revoke_user(place.user, place.clock() + 2)  # by a host whose clock is two seconds ahead
    session = place.manager.open(())
    session.login(place.user)
    saved = place.manager.save(session)
    assert (saved.set_cookie, saved.login_refused) == (None, True)
    assert [event.user for event in place.events if event.kind is EventKind.LOGIN_REFUSED] == [place.user]
    place.clock.advance(2 + A_MOMENT)
    session = place.manager.open(())
    session.login(place.user)
    saved = place.manager.save(session)
    assert not saved.login_refused
    pair(saved.set_cookie)


@pytest.mark.parametrize("looks", [False, True])
def test_a_log_in_that_is_refused_leaves_the_session_as_it_was(place: Place, looks: bool) -> None:  # noqa: FBT001
    if Capability.USER_INDEX not in place.driver.capabilities:
        return
    visitor = pair(place.request(lambda session: session.update(cart=["shoe"]), "__Host-sid=none"))
    session = place.manager.open([visitor])
    if looks:
        assert session["cart"] == ["shoe"]
    session.login(place.user, keep=["cart"])
    place.clock.advance(1)
    revoke_user(place)
    place.clock.advance(1)
    saved = place.manager.save(session)
    assert (saved.set_cookie, saved.login_refused) == (None, True)
    place.clock.advance(1)
    assert dict(place.manager.open([visitor])) == {"cart": ["shoe"]}
