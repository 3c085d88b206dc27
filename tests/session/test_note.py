"""The note of a session: a few bytes for a list of devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck import CoatcheckError, Session, SessionManager
from coatcheck.record import MAX_NOTE
from coatcheck.testing import Clock


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionManager]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/s.db"
    manager = SessionManager(url, clock=Clock())
    yield manager
    manager.close()


def saved(manager: SessionManager, session: Session) -> str:
    """Save a session; return its cookie."""
    cookie = manager.save(session).set_cookie
    assert cookie is not None
    return cookie.partition(";")[0]


def begun(manager: SessionManager, user: str | None = None, note: bytes | None = None) -> str:
    session = manager.open([])
    session["n"] = 1
    if user is not None:
        session.login(user)
    if note is not None:
        session.note = note
    return saved(manager, session)


def test_a_note_is_kept_and_listed(manager: SessionManager) -> None:
    cookie = begun(manager, "ada", b"phone")
    assert manager.open([cookie]).note == b"phone"
    assert [info.note for info in manager.sessions_of("ada")] == [b"phone"]
    session = manager.open([cookie])
    session.note = b"my phone"
    assert session.note == b"my phone"
    manager.save(session)
    assert session.note == b"my phone"
    session["n"] = 2
    manager.save(session)
    assert [info.note for info in manager.sessions_of("ada")] == [b"my phone"]
    session.note = b""
    manager.save(session)
    assert manager.open([cookie]).note == b""


def test_a_rotation_keeps_it_and_a_log_in_empties_it(manager: SessionManager) -> None:
    cookie = begun(manager, "ada", b"assured")
    session = manager.open([cookie])
    session.rotate()
    cookie = saved(manager, session)
    session = manager.open([cookie])
    assert session.note == b"assured"
    session.login("bob")
    assert session.note == b""
    cookie = saved(manager, session)
    assert manager.open([cookie]).note == b""


@pytest.mark.parametrize("first", ["note", "login"])
def test_a_log_in_with_a_note(manager: SessionManager, first: str) -> None:
    session = manager.open([begun(manager, note=b"visitor")])
    if first == "note":
        session.note = b"laptop"
    session.login("ada")
    if first == "login":
        session.note = b"laptop"
    assert manager.open([saved(manager, session)]).note == b"laptop"


def test_a_note_alone_begins_no_session(manager: SessionManager) -> None:
    session = manager.open([])
    session.note = b"phone"
    assert manager.save(session).set_cookie is None
    session["n"] = 1
    assert manager.open([saved(manager, session)]).note == b"phone"


def test_a_log_out_takes_it_along(manager: SessionManager) -> None:
    session = manager.open([begun(manager, "ada", b"phone")])
    session.logout()
    assert session.note == b""
    session["n"] = 1
    assert manager.open([saved(manager, session)]).note == b""


@pytest.mark.parametrize("wrong", ["phone", None, 5, bytearray(b"x"), b"x" * (MAX_NOTE + 1)])
def test_what_is_no_note_is_refused(manager: SessionManager, wrong: Any) -> None:
    session = manager.open([begun(manager)])
    with pytest.raises(CoatcheckError, match=r"takes bytes, at most 1024 of them") as caught:
        session.note = wrong
    assert "xxx" not in str(caught.value)
    session.note = b"x" * MAX_NOTE
    manager.save(session)
    assert session.note == b"x" * MAX_NOTE
