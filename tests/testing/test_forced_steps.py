"""A request in flight, and the end of its session forced into it at every step of what it asks of storage.

Each request is run once undisturbed, which has to ask for the operations of its plan. Then it is run again for each of
them: once with another request that ends the session just before that operation, and once just after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import pytest

from coatcheck import EventKind, Policy, Session, SessionManager
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.record import Delta, Missing
from coatcheck.testing import Clock, Interleaving, signed_in
from coatcheck.testing.helpers import START, loaded, puts, started
from coatcheck.token import Token

Web = Any
IDLE = 1000.0
STALE = 400.0
"""After so long a touch is due."""

mornings = itertools.count(START, 100 * IDLE)
"""Each request has a day of its own, so that none meets what another one left behind."""


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One storage for all of them."""
    folder = tmp_path_factory.mktemp("forced")
    driver: Driver = MemoryDriver() if request.param == "memory" else SQLiteDriver(folder / "sessions.db")
    driver.setup()
    yield driver
    driver.close()


class Flight(NamedTuple):
    """A request in flight.

    Attributes:
        act: What it does; a second request of the same client can be sent by the function that it is given.
        asks: The operations of its plan, undisturbed.
        cookie: What it sends undisturbed: nothing, a "new" token, or a "deletion".
        waits: Seconds since the session was last active.
        policy: The settings.
    """

    act: Callable[[Session, Callable[[], object]], object]
    asks: tuple[str, ...]
    cookie: str | None = None
    waits: float = 0.0
    policy: Policy = Policy(idle=IDLE)


def read(session: Session, _: object) -> object:
    return session.get("list", [1]) == [1]


def write(session: Session, _: object) -> object:
    session["count"] = 1 + session.get("count", 1)
    return session["count"] == 2


def append(session: Session, meanwhile: Callable[[], object]) -> object:
    session.setdefault("list", [1]).append(2)
    meanwhile()
    return session["list"] == [1, 2]


def blind(session: Session, _: object) -> object:
    session["blind"] = True
    return session["blind"]


def increment(session: Session, _: object) -> object:
    session.increment("count")
    return True


def rotate(session: Session, _: object) -> object:
    session["rights"] = "more"
    session.rotate()
    return session.get("count", 1) == 1


def log_in(session: Session, _: object) -> object:
    assert session.user in ("ada", None)
    session.login("ada", keep=["list"])
    return session.user == "ada"


def blind_log_in(session: Session, _: object) -> object:
    session.login("ada")
    return session.user == "ada"


def log_out(session: Session, _: object) -> object:
    assert session.get("x") is None
    session.logout()
    return True


def log_out_and_write(session: Session, _: object) -> object:
    assert session.get("x") is None
    session.logout()
    session["message"] = "bye"
    return True


FLIGHTS = {
    "read": Flight(read, ("load",)),
    "read with a touch due": Flight(read, ("load", "commit"), waits=STALE),
    "write": Flight(write, ("load", "commit")),
    "write with a renewal due": Flight(
        write, ("load", "rotate"), "new", STALE, Policy(idle=IDLE, rotate_after=STALE, grace=30)
    ),
    "append": Flight(append, ("load", "commit")),
    "append that merges": Flight(append, ("load", "commit", "load", "commit")),
    "blind write": Flight(blind, ("commit",)),
    "blind write with a renewal possible": Flight(
        blind, ("load", "commit"), None, 0.0, Policy(idle=IDLE, rotate_after=STALE, grace=30)
    ),
    "increment": Flight(increment, ("commit",)),
    "rotate": Flight(rotate, ("load", "rotate"), "new"),
    "log in again": Flight(log_in, ("load", "rotate"), "new"),
    "blind log in": Flight(blind_log_in, ("rotate",), "new"),
    "log out": Flight(log_out, ("load", "revoke"), "deletion"),
    "log out and write": Flight(log_out_and_write, ("load", "revoke", "create"), "new"),
}


class Run:
    """One request in flight, disturbed or not.

    Attributes:
        handled: How many operations were asked for when the application was through.
        merged: Whether another request has written what ours is to merge with.
        other: The token that somebody else got meanwhile.
    """

    def __init__(self, web: Web, storage: Driver, name: str) -> None:
        self.name = name
        self.flight = flight = FLIGHTS[name]
        self.forced = Interleaving(storage)
        self.site = site = web(self.forced, flight.policy, Clock(next(mornings)))
        self.secret = signed_in(site.manager, "ada", count=1, list=[1]).value
        self.sid = site.found(self.secret).sid
        self.old = Token(self.secret).digest
        self.other = Token.new()
        self.handled = 0
        self.merged = False
        site.clock.advance(flight.waits)
        self.forced.calls.clear()
        site.events.clear()

    def go(self) -> Any:
        def handler(session: Session) -> object:
            try:
                return self.flight.act(session, self.meanwhile)
            finally:
                self.handled = len(self.forced.calls)

        return self.site.ask(handler, self.secret)

    def meanwhile(self) -> None:
        """Another request appends to the same list, so that ours meets a Conflict."""
        if self.name == "append that merges":
            session = self.elsewhere.open([f"__Host-sid={self.secret}"])
            if "list" in session:
                session["list"].append(3)
                self.elsewhere.save(session)
                self.merged = True

    @cached_property
    def elsewhere(self) -> SessionManager:
        """The application in another process."""
        return SessionManager(self.site.below, clock=self.site.clock)


def destroy(run: Run) -> None:
    run.site.below.revoke(run.old, run.site.clock.now)


def log_out_elsewhere(run: Run) -> None:
    session = run.elsewhere.open([f"__Host-sid={run.secret}"])
    session.logout()
    run.elsewhere.save(session)


def revoke_user(run: Run) -> None:
    run.elsewhere.revoke_user("ada")


def replace_token(run: Run) -> None:
    run.site.below.rotate(run.old, run.other.digest, Delta(), 0, run.site.clock.now)


def expire_and_sweep(run: Run) -> None:
    run.site.clock.advance(10 * IDLE)
    run.site.below.sweep(run.site.clock.now, 100)


def expire(run: Run) -> None:
    run.site.clock.advance(10 * IDLE)


ENDINGS: list[Callable[[Run], None]] = [
    destroy, log_out_elsewhere, revoke_user, replace_token, expire_and_sweep, expire,
]  # fmt: skip


class Place(NamedTuple):
    """A place in a plan: before or after one of its operations, counted from 1."""

    when: str
    step: int


def places(flight: Flight) -> list[Place]:
    return [Place(when, step) for step in range(1, len(flight.asks) + 1) for when in ("before", "after")]


def is_too_late(flight: Flight, place: Place) -> bool:
    """Whether the request had already done what decides over its answer when its session ended."""
    deciding = 2 if flight.act is log_out_and_write else len(flight.asks)
    return place.step > deciding or place == ("after", deciding)


def cookies_of(run: Run, end: Callable[[Run], None], place: Place) -> set[str | None]:
    """What may be sent."""
    flight = run.flight
    if is_too_late(flight, place):
        return {flight.cookie}
    if end is expire and place.step > run.handled:
        return {flight.cookie}  # a save is judged by the moment at which it began
    if flight.act in (log_in, blind_log_in):
        # They proved who they are, so they get a session: a new one. Unless it is just that which was revoked.
        return {None} if end is revoke_user else {"new"}
    if end is replace_token and flight.act in (log_out, log_out_and_write):
        return {"deletion", flight.cookie}  # the logout ends the session under its new token too, and says so
    if end is expire_and_sweep and place == ("before", 1) and flight.act not in (read, log_out):
        return {"new"}  # nothing is left to tell that there was a session: a new visitor writes
    return {None}


def kind_of(cookie: str | None) -> str | None:
    return None if cookie is None else "deletion" if "Max-Age=0" in cookie else "new"


@pytest.mark.parametrize("name", FLIGHTS)
def test_undisturbed_a_request_asks_for_the_operations_of_its_plan(web: Web, storage: Driver, name: str) -> None:
    run = Run(web, storage, name)
    reply = run.go()
    assert tuple(run.forced.calls) == run.flight.asks
    assert (reply.status, reply.body, kind_of(reply.cookie)) == ("200 OK", b"True", run.flight.cookie)


def test_there_are_five_hundred_of_them() -> None:
    storages = 2
    assert storages * len(ENDINGS) * sum(len(places(flight)) for flight in FLIGHTS.values()) >= 500


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("name", FLIGHTS)
def test_an_end_at_any_step_is_an_end(web: Web, storage: Driver, name: str, end: Callable[[Run], None]) -> None:
    for place in places(FLIGHTS[name]):
        run = Run(web, storage, name)
        getattr(run.forced, place.when)(None, partial(end, run), call=place.step)

        reply = run.go()

        where = f"{place.when} operation {place.step} of {run.flight.asks}, which became {tuple(run.forced.calls)}"
        assert run.forced.pending == 0, where
        refused = end is revoke_user and run.flight.act in (log_in, blind_log_in) and not is_too_late(run.flight, place)
        answer = (reply.status, None if refused else reply.body, reply.error)
        assert answer == (("409 Conflict", None, None) if refused else ("200 OK", b"True", None)), where
        assert isinstance(run.site.found(run.secret), Missing), where
        assert kind_of(reply.cookie) in cookies_of(run, end, place), where
        check_storage(run, reply, end, place, where)


def check_storage(run: Run, reply: Any, end: Callable[[Run], None], place: Place, where: str) -> None:
    site, flight = run.site, run.flight
    kinds = {event.kind for event in site.events}
    in_time = not is_too_late(flight, place)
    logs_out = flight.act in (log_out, log_out_and_write)
    if reply.cookie is None:
        assert EventKind.CREATED not in kinds, where
    if in_time and end is not expire and not logs_out and flight.act is not read:
        assert kinds & {EventKind.GONE, EventKind.UNKNOWN_ID, EventKind.LOGIN_REFUSED}, f"nobody was told: {where}"
    if end is replace_token and not logs_out and in_time:
        # The session goes on under its other token, and nothing of the late request is in it.
        before = {"count": 1, "list": [1, 3] if run.merged else [1]}
        assert site.values(run.other.secret) == before, where
    elif end is not replace_token or logs_out:
        assert site.below.missing([run.sid], site.clock.now) == {run.sid}, where


# -- a periodic renewal ends nothing, and loses nothing


def renew(run: Run) -> None:
    run.site.below.rotate(run.old, run.other.digest, Delta(), 30, run.site.clock.now)


CHANGED: dict[str, dict[str, object]] = {
    "read": {},
    "read with a touch due": {},
    "write": {"count": 2},
    "write with a renewal due": {"count": 2},
    "append": {"list": [1, 2]},
    "append that merges": {"list": [1, 3, 2]},
    "blind write": {"blind": True},
    "blind write with a renewal possible": {"blind": True},
    "increment": {"count": 2},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_renewal_at_any_step_loses_nothing_and_sends_no_second_token(web: Web, storage: Driver, name: str) -> None:
    for place in places(FLIGHTS[name]):
        run = Run(web, storage, name)
        getattr(run.forced, place.when)(None, partial(renew, run), call=place.step)
        reply = run.go()
        where = f"{place.when} operation {place.step}"
        is_ours = run.flight.cookie == "new" and is_too_late(run.flight, place)
        assert (reply.status, reply.body, reply.error) == ("200 OK", b"True", None), where
        assert kind_of(reply.cookie) == ("new" if is_ours else None), where
        for secret in (run.secret, reply.secret if is_ours else run.other.secret):
            assert run.site.values(secret) == {"count": 1, "list": [1], **CHANGED[name]}, where
        assert {event.kind for event in run.site.events} <= {EventKind.RENEWED}, where


# -- a session that is only being made


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_revocation_around_the_creation_by_a_log_in_wins(web: Web, storage: Driver, when: str) -> None:
    forced = Interleaving(storage)
    site = web(forced, clock=Clock(next(mornings)))
    getattr(forced, when)("create", lambda: site.manager.revoke_user("bob"))
    reply = site.ask(lambda session: session.login("bob"))
    assert forced.calls == ["create"]
    assert reply.status == ("409 Conflict" if when == "before" else "200 OK")
    assert storage.sessions_of("bob", site.clock.now) == []
    if when == "before":
        assert reply.cookie is None
    else:
        assert isinstance(site.found(reply.secret), Missing)


# -- the wrapper itself


def test_an_action_runs_once_at_its_step_and_may_use_the_driver_itself(storage: Driver) -> None:
    forced = Interleaving(storage)
    record = started(forced)
    order: list[str] = []

    def commit(name: str) -> None:
        order.append(name)
        forced.commit(record.digest, puts({("", name): b"x"}), START)

    forced.before("commit", lambda: commit("before the second"), call=2)
    forced.after("commit", lambda: commit("after the first"))
    for name in ("first", "second", "third"):
        forced.commit(record.digest, puts({("", name): b"x"}), START)
        order.append(name)
    assert order == ["after the first", "first", "before the second", "second", "third"]
    assert forced.calls == ["create", "load", "commit", "commit", "commit"]
    assert forced.pending == 0
    assert len(loaded(storage, record.digest, START).values) == 5


def test_a_step_that_cannot_be_is_refused() -> None:
    forced = Interleaving(MemoryDriver())
    with pytest.raises(ValueError, match="'comit' is not an operation of a driver: commit"):
        forced.before("comit", list)
    with pytest.raises(ValueError, match="counted from 1"):
        forced.after(None, list, call=0)
    assert forced.pending == 0
