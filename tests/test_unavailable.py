"""Storage that is really down (checklist G3, G4): the answer is 503, the client keeps its cookie, nobody is let in.

"Down" is never "no session": who was logged in is so again as soon as storage is back, with nothing restarted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outages import (
    ALL_DOWN,
    READ_ONLY,
    Site,
    Trouble,
    edit,
    file_size_limit,
    folder_removed,
    increment,
    locked_for_readers_too,
    locked_for_writers,
    log_in,
    log_out,
    look,
    read,
    rotate,
    write,
)

from coatcheck import DriverUnavailable, EventKind, Session, SessionManager, SessionUnavailable
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.testing import FaultyDriver
from coatcheck.wsgi import SessionMiddleware


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data")
    site.get(lambda session: (session.login("ada"), session.update(cart=["hat"], n=1)))
    yield site
    site.manager.close()


# -- what the client gets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ALL_DOWN)
def test_nothing_goes_when_nothing_can_be_read(site: Site, trouble: Trouble) -> None:
    with trouble(site):
        for handler in (read, look, write, edit, increment, rotate, log_in, log_out):
            for stream in (False, True):
                site.assert_refused(handler, stream=stream)
    # By itself, in the same process, with the same cookie.
    status, _, body = site.get(lambda session: (session["cart"], session["n"], session.user))
    assert (status, body) == ("200 OK", b"(['hat'], 1, 'ada')")
    assert site.get(log_in)[0] == "200 OK"
    assert site.get(lambda session: session.user)[2] == b"'bob'"


@pytest.mark.parametrize("trouble", READ_ONLY)
def test_reads_go_on_where_only_writes_fail(site: Site, trouble: Trouble) -> None:
    with trouble(site):
        assert site.get(read)[::2] == ("200 OK", b"['hat']")
        for handler in (write, edit):
            for stream in (False, True):
                site.assert_refused(handler, stream=stream)
        assert site.get(read)[::2] == ("200 OK", b"['hat']")
    assert site.get(lambda session: (session["cart"], session["n"]))[2] == b"(['hat'], 1)", "half of a change"
    assert site.get(edit)[0] == "200 OK"
    assert site.get(lambda session: len(session["cart"]))[2] == b"2"


@pytest.mark.parametrize("trouble", [*ALL_DOWN, locked_for_writers, file_size_limit])
def test_a_log_in_that_cannot_be_saved_is_no_log_in(site: Site, trouble: Trouble) -> None:
    """No success page, no cookie, and no session of bob's, for a newcomer and for somebody who has a session."""
    for cookie in (site.cookie, None):
        site.cookie = cookie
        with trouble(site):
            site.assert_refused(log_in)
            site.assert_refused(log_in, stream=True)
        assert site.manager.sessions_of("bob") == []
        assert len(site.manager.sessions_of("ada")) == 1
        assert site.get(look)[2] == (b"(True, 'ada')" if cookie else b"(False, None)")


@pytest.mark.parametrize("trouble", [*ALL_DOWN, locked_for_writers, file_size_limit])
def test_a_logout_that_fails_says_so(site: Site, trouble: Trouble) -> None:
    """The page "you are logged out" is not sent and the cookie not deleted: the session is alive."""
    with trouble(site):
        site.assert_refused(log_out)
        site.assert_refused(lambda session: (session.available, session.logout()))
    assert site.get(look)[2] == b"(True, 'ada')"
    status, headers, _ = site.get(log_out)
    assert status == "200 OK"
    assert "Max-Age=0" in headers["Set-Cookie"]
    assert site.manager.sessions_of("ada") == []


@pytest.mark.parametrize("trouble", ALL_DOWN)
def test_pages_without_a_session_stay_up(site: Site, trouble: Trouble) -> None:
    with trouble(site):
        status, headers, body = site.get(lambda _: "public")
        assert (status, body) == ("200 OK", b"'public'")
        assert "Set-Cookie" not in headers
        cookie, site.cookie = site.cookie, None
        assert site.get(read_softly)[0] == "200 OK"  # no cookie, so nothing to look for
        site.cookie = cookie


def read_softly(session: Session) -> object:
    return session.get("cart"), session.user, session.is_new


@pytest.mark.parametrize("trouble", ALL_DOWN)
def test_an_application_that_swallows_the_error_is_not_let_in(site: Site, trouble: Trouble) -> None:
    """It may show a page of its own; but nobody is anonymous by it, nothing is written, and no cookie goes out."""

    def swallow(session: Session) -> object:
        try:
            session["cart"]
        except DriverUnavailable:
            pass
        else:
            raise AssertionError("the first use has to raise")
        for use in (dict, look, write, increment, rotate, log_in, log_out, lambda session: session.sid):
            with pytest.raises(SessionUnavailable):
                use(session)
        return session.available

    with trouble(site):
        status, headers, body = site.get(swallow)
        assert (status, body) == ("200 OK", b"False")
        assert "Set-Cookie" not in headers
    assert site.get(look)[2] == b"(True, 'ada')"


@pytest.mark.parametrize("trouble", [folder_removed, locked_for_readers_too, locked_for_writers])
def test_what_changes_in_the_body_and_cannot_be_saved_is_an_error(site: Site, trouble: Trouble) -> None:
    """The headers are out, so there is no 503 any more: the server is told, and it is an event."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        environ["coatcheck.session"]["late"] = 1

    with trouble(site):
        site.events.clear()
        body = SessionMiddleware(app, site.manager)(
            {"wsgi.url_scheme": "https", "HTTP_COOKIE": site.cookie},
            lambda *_: None,  # type: ignore[arg-type, return-value]
        )
        assert list(body) == [b"first"]
        with pytest.raises(DriverUnavailable):
            body.close()  # type: ignore[attr-defined]
        assert [event.kind for event in site.events] == [EventKind.UNAVAILABLE]
    assert site.get(lambda session: "late" in session)[2] == b"False"


@pytest.mark.parametrize("replaced", ["a folder", "another kind of file"])
def test_something_else_in_the_place_of_the_file(site: Site, replaced: str) -> None:
    """A mistake in the configuration and no outage: an error for the server to answer, and nobody is let in."""
    cookie = site.cookie
    site.manager.close()
    away = site.path.with_suffix(".away")
    site.path.rename(away)
    site.path.mkdir() if replaced == "a folder" else site.path.write_bytes(b"certainly no database\n" * 100)
    for handler in (read, write, rotate, log_in, log_out):
        with pytest.raises(Exception, match=r"is a folder|is not an SQLite database"):
            site.get(handler)
    assert site.cookie == cookie
    assert site.get(lambda _: "public")[0] == "200 OK"
    shutil.rmtree(site.path) if replaced == "a folder" else site.path.unlink()
    away.rename(site.path)
    assert site.get(look)[2] == b"(True, 'ada')"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A real file system of 512 KB, filled up by somebody else."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        site = Site(mount / "data")
        site.get(lambda session: (session.login("ada"), session.update(cart=["hat"])))
        filler = mount / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # until no space is left
            while file.write(b"x" * 4096):
                pass
        assert site.get(read)[::2] == ("200 OK", b"['hat']")
        for handler in (write, edit, log_in):
            site.assert_refused(handler)
        assert site.get(look)[2] == b"(True, 'ada')"
        filler.unlink()
        assert site.get(edit)[0] == "200 OK"
        assert site.get(lambda session: len(session["cart"]))[2] == b"2"
        assert site.get(log_in)[0] == "200 OK"
        site.manager.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_sweep_that_fails_harms_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing depends on a sweep, so a response that was saved is sent although the sweep after it fails."""
    site.manager.clock = lambda: 4e9  # type: ignore[misc]  # far in the future: there is something to sweep
    with locked_for_writers(site):
        assert site.manager.sweep() == 0
    assert "could not sweep" in caplog.text
    assert site.manager.sweep() == 1


def test_a_listing_or_a_revocation_that_fails_is_an_error(site: Site) -> None:
    with folder_removed(site):
        for use in (site.manager.sessions_of, site.manager.revoke_user):
            with pytest.raises(DriverUnavailable):
                use("ada")
    with locked_for_writers(site), pytest.raises(DriverUnavailable):
        site.manager.revoke_user("ada")
    assert len(site.manager.sessions_of("ada")) == 1
    assert site.manager.revoke_user("ada") == 1


def test_an_outage_in_the_middle_of_a_request(site: Site) -> None:
    """Read while storage was up, changed, and not saved: the change is refused as a whole."""

    def lock(session: Session) -> None:
        session["cart"].append("scarf")
        session.increment("n")
        blocker.__enter__()

    blocker = locked_for_writers(site)
    site.assert_refused(lock)
    blocker.__exit__(None, None, None)
    assert site.get(lambda session: (session["cart"], session["n"]))[2] == b"(['hat'], 1)"


@pytest.mark.parametrize("operation", ["commit", "create", "rotate", "revoke"])
def test_a_write_whose_outcome_is_unknown_is_never_sent_by_a_second_save(operation: str) -> None:
    driver = FaultyDriver(MemoryDriver())
    manager = SessionManager(driver)
    session = manager.open([])
    session["n"] = 0
    saved = manager.save(session)
    assert saved.set_cookie is not None
    cookie = saved.set_cookie.partition(";")[0]
    session = manager.open([] if operation == "create" else [cookie])
    if operation == "rotate":
        session.login("ada")
    if operation == "revoke":
        session.logout()
    else:
        session.increment("n")
    driver.calls.clear()
    driver.lose_reply(operation, times=1)
    for error in (DriverUnavailable, SessionUnavailable, SessionUnavailable):
        with pytest.raises(error):
            manager.save(session)
    assert driver.calls.count(operation) == 1
