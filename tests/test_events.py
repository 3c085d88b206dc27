"""Each kind of event comes exactly where it should (checklist G2), to the log and to listeners."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Event, EventKind, Policy, Session, SessionManager
from coatcheck.cookie import Channel
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Reason
from coatcheck.token import Token

if TYPE_CHECKING:
    from tests.conftest import House

pytestmark = pytest.mark.usefixtures("at_debug")

WEEK = 7 * 86400


@pytest.fixture
def at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def told(house: House) -> list[tuple[EventKind, str | None, str | None, Reason | None]]:
    return [(event.kind, event.sid, event.user, event.reason) for event in house.events]


# -- where each kind comes from ---------------------------------------------------------------------------------------


def test_a_new_session_is_created(house: House) -> None:
    client = house.client()
    with client.request() as session:
        session["a"] = 1
    assert told(house) == [(EventKind.CREATED, session.sid, None, None)]


@pytest.mark.parametrize("handler", [dict, lambda session: session.get("a"), len, lambda session: session.update(a=2)])
def test_ordinary_use_is_no_event(house: House, handler: Callable[[Session], object]) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        handler(session)
    assert house.events == []
    with house.client().request() as session:
        dict(session)
    assert house.events == []


def test_a_log_in_renews_and_changes_privileges(house: House) -> None:
    client = house.visitor(cart=1)
    with client.request() as session:
        session.login("ada", keep=["cart"])
    sid = client.open().sid
    assert (EventKind.RENEWED, sid, None, None) in [(kind, of, None, why) for kind, of, _, why in told(house)]
    assert (EventKind.PRIVILEGE_CHANGED, sid, "ada", None) in told(house)
    assert set(house.kinds()) == {EventKind.RENEWED, EventKind.PRIVILEGE_CHANGED}
    assert house.kinds().total() == 2


def test_a_first_log_in_creates_and_changes_privileges(house: House) -> None:
    with house.client().request() as session:
        session.login("ada")
    assert [event.kind for event in house.events] == [EventKind.CREATED, EventKind.PRIVILEGE_CHANGED]
    assert {event.user for event in house.events} == {"ada"}


def test_a_rotation_renews(house: House, build: Callable[..., House]) -> None:
    client = house.visitor()
    with client.request() as session:
        session.rotate()
    assert house.kinds() == {EventKind.RENEWED: 1}

    periodic = build(Policy(rotate_after=3600))
    client = periodic.visitor()
    periodic.clock.advance(3600)
    client.read()
    assert periodic.kinds() == {EventKind.RENEWED: 1}


def test_an_expired_session(house: House) -> None:
    client = house.visitor()
    house.clock.advance(WEEK)
    client.read()
    assert told(house) == [(EventKind.EXPIRED, None, None, Reason.EXPIRED)]


def test_a_destroyed_session(house: House) -> None:
    client = house.client()
    with client.request() as session:
        session.login("ada")
    sid = client.open().sid
    for reads in (True, False):
        house.forget()
        with client.request() as session:
            if reads:
                assert session.user == "ada"
            session.logout()
        assert house.kinds() == {EventKind.DESTROYED: 1}
        if reads:
            assert told(house) == [(EventKind.DESTROYED, sid, "ada", None)]
        with client.request() as session:
            session.login("ada")


def test_a_revoked_user(house: House) -> None:
    with house.client().request() as session:
        session.login("ada")
    house.forget()
    assert house.manager.revoke_user("ada") == 1
    assert told(house) == [(EventKind.DESTROYED, None, "ada", None)]


def test_an_unknown_identifier_is_counted_each_time(house: House) -> None:
    """The rate of guesses is observable: one event for each request, and one warning in the log (G2)."""
    for _ in range(10):
        client = house.client()
        client.cookie = f"__Host-sid={Token.new().secret}"
        client.read()
    assert house.kinds() == {EventKind.UNKNOWN_ID: 10}
    assert {event.reason for event in house.events} == {Reason.UNKNOWN}


def test_a_write_under_an_unknown_identifier(house: House, caplog: pytest.LogCaptureFixture) -> None:
    client = house.client()
    client.cookie = f"__Host-sid={Token.new().secret}"
    with client.request() as session:
        session["a"] = 1
    assert [event.kind for event in house.events] == [EventKind.UNKNOWN_ID, EventKind.CREATED]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_a_malformed_cookie_is_no_identifier(house: House) -> None:
    client = house.client()
    client.cookie = "__Host-sid=not-a-token"
    client.read()
    assert house.events == []


def test_duplicate_cookies(house: House) -> None:
    one, two = house.visitor(), house.visitor()
    house.forget()
    session = house.manager.open([f"{one.cookie}; {two.cookie}"])
    assert dict(session) == {}
    house.manager.save(session)
    assert house.kinds() == {EventKind.DUPLICATES: 1}


@pytest.mark.parametrize("live", [1, 2])
def test_duplicates_under_a_name_that_others_can_set(build: Callable[..., House], live: int) -> None:
    house = build(Policy(insecure_http=True))
    clients = [house.client(Channel.PLAIN) for _ in range(2)]
    for client in clients[:live]:
        with client.request() as session:
            session["me"] = 1
    for client in clients[live:]:
        client.cookie = f"sid={Token.new().secret}"
    house.forget()
    session = house.manager.open([f"{clients[0].cookie}; {clients[1].cookie}"], Channel.PLAIN)
    assert dict(session) == ({"me": 1} if live == 1 else {})
    assert house.kinds()[EventKind.DUPLICATES] == 1


def test_an_unreadable_value_and_an_unreadable_session(house: House, tmp_path: Path) -> None:
    client = house.visitor(good=1, bad=b"bytes")
    values = house.driver.values()
    values["", "bad"] = values["", "bad"]._replace(data=b"\xc1")
    assert client.read() == {"good": 1}
    (event,) = house.events
    assert (event.kind, event.keys) == (EventKind.UNREADABLE, (("", "bad"),))
    assert event.sid == client.open().sid

    driver = SQLiteDriver(tmp_path / "s.db")
    events: list[Event] = []
    manager = SessionManager(driver, listeners=[events.append])
    session = manager.open(())
    session["a"] = 1
    cookie = manager.save(session).set_cookie
    with driver._connections.held() as connection:
        connection.execute("UPDATE coatcheck_session SET created = 'yesterday'")
    events.clear()
    assert dict(manager.open([str(cookie).partition(";")[0]])) == {}
    assert [(event.kind, event.reason) for event in events] == [(EventKind.UNREADABLE, Reason.UNREADABLE)]
    manager.close()


def test_a_conflict_tells_the_keys(house: House) -> None:
    client = house.visitor(colour="red", size=1)
    with client.request() as session:
        assert session["colour"] == "red"
        with client.twin().request() as other:
            other["colour"] = other["colour"] + "dish"
        session["colour"] = "blue"
    (event,) = house.events
    assert (event.kind, event.keys) == (EventKind.CONFLICT, (("", "colour"),))
    assert event.sid == session.sid


def test_what_merges_is_no_conflict(house: House) -> None:
    client = house.visitor(items=[1])
    with client.request() as session:
        session["items"].append(2)
        with client.twin().request() as other:
            other["items"].append(3)
    assert house.events == []


@pytest.mark.parametrize("writes", [True, False])
def test_a_session_that_somebody_ended(house: House, *, writes: bool) -> None:
    client = house.visitor(a=1)
    with client.request() as session:
        assert session["a"] == 1
        with client.twin().request() as other:
            other.logout()
        if writes:
            session["a"] = 2
    assert house.kinds() == {EventKind.DESTROYED: 1} | ({EventKind.GONE: 1} if writes else {})
    house.forget()
    client.read()
    assert told(house) == [(EventKind.GONE, None, None, Reason.REVOKED)]


def test_a_token_that_was_rotated_away(house: House) -> None:
    client = house.visitor()
    late = client.twin()
    with client.request() as session:
        session.rotate()
    house.forget()
    late.read()
    assert told(house) == [(EventKind.GONE, None, None, Reason.ROTATED)]


@pytest.mark.parametrize(("down", "handler"), [
    ("load", dict),
    ("load", lambda session: session.user),
    ("commit", lambda session: session.update(a=2)),
    ("commit", lambda session: session.increment("n")),
    ("rotate", lambda session: session.rotate()),
    ("rotate", lambda session: session.login("ada")),
    ("revoke", lambda session: (session.get("a"), session.logout())),
    ("load", lambda session: session.logout()),
])  # fmt: skip
def test_storage_that_is_down(house: House, down: str, handler: Callable[[Session], object], caplog: Any) -> None:
    """Once for each request, whatever failed, and the log says why: the client's 503 does not."""
    client = house.visitor(a=1)
    house.driver.down = frozenset({down})
    session = client.open()

    def request() -> None:
        handler(session)
        house.manager.save(session)

    with pytest.raises(DriverUnavailable):
        request()
    if session._opened is not None and session._opened.failure is not None:
        house.manager.save(session)  # as for an application that swallowed the error: nothing more is told
    assert house.kinds() == {EventKind.UNAVAILABLE: 1}
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "down on purpose" in "".join(traceback.format_exception(*record.exc_info))


def test_storage_that_is_down_for_a_newcomer(house: House) -> None:
    house.driver.down = frozenset({"create"})
    session = house.client().open()
    session.login("ada")
    with pytest.raises(DriverUnavailable):
        house.manager.save(session)
    assert house.kinds() == {EventKind.UNAVAILABLE: 1}


def test_storage_that_may_lose_sessions_is_told_once(house: House, build: Callable[..., House]) -> None:
    house.driver.at_risk = "it may evict sessions: set maxmemory-policy to noeviction"
    for _ in range(2):
        house.visitor()
    client = house.client()
    with client.request() as session:
        session["a"] = 1
    client.read()
    assert house.kinds() == {EventKind.CREATED: 1}  # told of with the first visitor
    other = build(driver=house.driver)
    other.manager.open([client.cookie or ""]).get("a")
    assert [(event.kind, event.why) for event in other.events] == [(EventKind.AT_RISK, house.driver.at_risk)]


def test_every_kind_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [kind.name for kind in EventKind if f"EventKind.{kind.name}" not in text] == []


# -- the log ----------------------------------------------------------------------------------------------------------

LEVELS = {
    EventKind.CREATED: "INFO",
    EventKind.RENEWED: "INFO",
    EventKind.EXPIRED: "INFO",
    EventKind.DESTROYED: "INFO",
    EventKind.PRIVILEGE_CHANGED: "INFO",
    EventKind.UNKNOWN_ID: "WARNING",
    EventKind.DUPLICATES: "WARNING",
    EventKind.UNREADABLE: "WARNING",
    EventKind.CONFLICT: "WARNING",
    EventKind.GONE: "WARNING",
    EventKind.UNAVAILABLE: "ERROR",
    EventKind.LOGIN_REFUSED: "WARNING",
    EventKind.AT_RISK: "WARNING",
    EventKind.JOINED: "WARNING",
}


@pytest.mark.parametrize("kind", EventKind)
def test_each_kind_is_one_line_of_its_level(house: House, caplog: pytest.LogCaptureFixture, kind: EventKind) -> None:
    event = Event(kind=kind, sid="5" * 32, user="ada", reason=Reason.EXPIRED, keys=(("", "cart"),))
    house.manager.emit(event)
    assert house.events == [event]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("coatcheck", LEVELS[kind])
    line = record.getMessage()
    assert line == f"session {kind} sid='{'5' * 32}' user='ada' keys=(('', 'cart'),) reason=expired"


FORGERIES = [
    "ada\r\nERROR coatcheck session destroyed", "ada\n", "\rada", "ada\x0b\x0cx", "ada\x1b[2K\x1b[1A", "ada\x85b",
    "a\u2028b", "a\u2029b", "ada' user='root", "%s %d %(sid)s", "ada\u202egnp",
]  # fmt: skip


@pytest.mark.parametrize("text", FORGERIES)
def test_a_name_cannot_forge_a_line(house: House, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Neither a user's name nor a key brings a line break or an escape into the log, or passes for another field."""
    client = house.client()
    with client.request() as session:
        session.login(text)
        session[text] = b"x"
    values = house.driver.values()
    values["", text] = values["", text]._replace(data=b"\xc1")
    client.read()
    house.manager.revoke_user(text)
    assert {EventKind.PRIVILEGE_CHANGED, EventKind.UNREADABLE, EventKind.DESTROYED} <= set(house.kinds())
    handler = logging.Formatter("%(levelname)s %(message)s")
    for record in caplog.records:
        line = handler.format(record)
        assert line.isprintable(), line
        assert len(line.splitlines()) == 1
        assert ("user=" not in line and "keys=" not in line) or repr(text) in line


def test_a_listener_that_fails_harms_nothing(build: Callable[..., House], caplog: pytest.LogCaptureFixture) -> None:
    heard: list[EventKind] = []

    def fails(event: Event) -> None:
        raise RuntimeError("in the listener")

    manager = SessionManager(MemoryDriver(), listeners=[fails, lambda event: heard.append(event.kind)])
    session = manager.open(())
    session["a"] = 1
    saved = manager.save(session)
    assert saved.set_cookie is not None
    assert manager.open([saved.set_cookie.partition(";")[0]])["a"] == 1
    assert heard == [EventKind.CREATED], "the next listener is told all the same"
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert "in the listener" in str(caplog.records[1].exc_info)


def test_without_a_handler_nothing_is_configured() -> None:
    """A library leaves the root logger and its own logger's handlers and level to the application."""
    log = logging.getLogger("coatcheck")
    assert (log.handlers, log.level, log.propagate) == ([], logging.NOTSET, True)
