"""The session's changes and the application's rows: together, or each as it must be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Site = Any
Browser = Any
Request = Any
Build = Callable[..., Any]


@pytest.fixture
def browser(site: Site) -> Browser:
    return site.browser(hits=0)


def fail_commits(request: Request, times: int = 1) -> None:
    """Let the database refuse the next commits: a foreign key is checked at the commit, and there is no such row."""
    request.connection.cursor().execute("INSERT INTO child VALUES (77)")
    for _ in range(times):
        with pytest.raises(sqlite3.IntegrityError):
            request.connection.commit()


def repair(request: Request) -> None:
    request.connection.cursor().execute("DELETE FROM child")


# -- (a) one transaction ------------------------------------------------------------------------------------------


def test_a_commit_makes_row_and_session_durable_at_once(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.row("order")
        request.store["order"] = 1
        request.connection.commit()
        assert site.rows() == ["order"]
        assert ("order",) in site.sql("SELECT key FROM testEnv_coatcheck_value")
        raise RuntimeError

    assert isinstance(browser.get(handler).failure, RuntimeError)
    assert browser.read() == {"hits": 0, "order": 1}


def test_nothing_of_the_session_is_seen_from_outside_before_the_commit(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store["order"] = 1
        request.row("order")
        assert site.rows() == []
        assert site.sql("SELECT key FROM testEnv_coatcheck_value") == [("hits",)]
        request.connection.commit()

    browser.get(handler)
    assert browser.read()["order"] == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_commit_that_the_database_refused_and_that_was_repaired_lands_once(
    site: Site, browser: Browser, times: int
) -> None:
    def handler(request: Request) -> None:
        request.row("order")
        request.store.increment("hits", 1)
        request.store["cart"] = ["hat"]
        fail_commits(request, times)
        repair(request)
        request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    assert site.rows() == ["order"]
    assert browser.read() == {"hits": 1, "cart": ["hat"]}


def test_changes_after_a_refused_commit_land_with_the_repaired_one(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        request.store["cart"] = ["hat"]
        fail_commits(request)
        request.store.increment("hits", 10)
        request.store["cart"].append("scarf")
        repair(request)
        request.connection.commit()

    browser.get(handler)
    assert browser.read() == {"hits": 11, "cart": ["hat", "scarf"]}


@pytest.mark.parametrize("how", ["rollback()", "ROLLBACK in SQL", "swallowed"])
def test_changes_of_a_refused_commit_are_pending_after_a_rollback(site: Site, browser: Browser, how: str) -> None:
    def handler(request: Request) -> None:
        request.row("lost")
        request.store.increment("hits", 1)
        request.store["cart"] = ["hat"]
        fail_commits(request)
        if how == "swallowed":
            return
        if how == "rollback()":
            request.connection.rollback()
        else:
            request.connection.cursor().execute("ROLLBACK")
        request.row("kept")
        request.store["cart"].append("scarf")
        request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    assert site.rows() == ([] if how == "swallowed" else ["kept"])
    assert browser.read() == {"hits": 1, "cart": ["hat"] if how == "swallowed" else ["hat", "scarf"]}


def test_a_full_disk_and_room_again(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        cursor = request.connection.cursor()
        request.store.increment("hits", 1)
        request.row("small")
        ((pages,),) = cursor.execute("PRAGMA page_count").fetchall()
        cursor.execute(f"PRAGMA max_page_count={pages}")
        request.store["large"] = "x" * 200_000
        with pytest.raises(Exception, match="full"):
            request.connection.commit()
        cursor.execute("PRAGMA max_page_count=100000")
        if not request.connection.inTransaction:  # SQLite undid it by itself
            request.row("small")
        request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    assert site.rows() == ["small"]
    found = browser.read()
    assert found["hits"] == 1
    assert len(found["large"]) == 200_000


def test_a_transaction_that_sqlite_undid_by_itself_after_the_flush(site: Site, browser: Browser) -> None:
    """As where the disk is full at the COMMIT itself: nobody calls rollback(), and the next row opens a new one."""

    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        request.row("lost")
        real = request.connection._base

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def commit(self) -> None:
                real.rollback()
                raise sqlite3.OperationalError("database or disk is full")

        request.connection._base = Full()
        with pytest.raises(sqlite3.OperationalError):
            request.connection.commit()
        request.connection._base = real
        request.row("again")
        request.connection.commit()

    assert browser.get(handler).failure is None
    assert site.rows() == ["again"]
    assert browser.read() == {"hits": 1}


def test_a_locked_database_leaves_the_changes_pending(build: Build) -> None:
    site = build(timeout=0.1)
    browser = site.browser(hits=0)
    other = sqlite3.connect(site.path)

    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="locked"):
            request.connection.commit()
        other.rollback()
        request.row("order")
        request.connection.commit()

    assert browser.get(handler).failure is None
    other.close()
    assert browser.read() == {"hits": 1}
    assert site.rows() == ["order"]


def test_a_locked_database_at_the_end_answers_503_and_leaves_the_cookie(build: Build) -> None:
    site = build(timeout=0.1)
    browser = site.browser(hits=0)
    other = sqlite3.connect(site.path)
    other.execute("BEGIN IMMEDIATE")
    answer = browser.get(lambda request: request.store.increment("hits", 1))
    other.rollback()
    other.close()
    assert answer.status.startswith("503")
    assert answer.cookies() == []
    assert browser.read() == {"hits": 0}


def test_rollback_then_commit(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.row("lost")
        request.store["a"] = 1
        request.connection.rollback()
        request.row("kept")
        request.store["b"] = 2
        request.connection.commit()

    browser.get(handler)
    assert site.rows() == ["kept"]
    assert browser.read() == {"hits": 0, "a": 1, "b": 2}


def test_commit_twice_and_changes_after_commit(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store.increment("hits", 1)
        request.connection.commit()
        request.connection.commit()
        request.store.increment("hits", 1)
        request.row("lost")

    browser.get(handler)
    assert site.rows() == []
    assert browser.read() == {"hits": 2}


def test_a_new_session_keeps_its_id_over_a_refused_commit(site: Site) -> None:
    browser = site.browser()
    seen: list[str] = []

    def handler(request: Request) -> None:
        assert request.manager.created
        seen.append(request.manager.sessionID)
        request.store["a"] = 1
        fail_commits(request)
        seen.append(request.manager.sessionID)
        request.connection.rollback()
        seen.append(request.manager.sessionID)

    answer = browser.get(handler)
    assert set(seen) == {browser.token}
    assert len(answer.cookies()) == 1
    assert browser.read() == {"a": 1}
    assert site.stored() == 1


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_destroy_and_create_around_a_refused_commit(site: Site, browser: Browser, when: str) -> None:
    old = browser.token
    new: list[str] = []

    def handler(request: Request) -> None:
        request.store["a"] = 1
        if when == "after":
            fail_commits(request)
        request.manager.destroy(ignoreWarning=True)
        if when == "between":
            fail_commits(request)
        request.manager.create()
        request.store["b"] = 2
        new.append(request.manager.sessionID)
        if when == "before":
            fail_commits(request)
        request.connection.rollback()
        assert request.manager.sessionID == new[0]
        request.connection.commit()

    answer = browser.get(handler)
    assert answer.failure is None
    assert len(answer.cookies()) == 1
    assert browser.token == new[0] != old
    assert browser.read() == {"b": 2}
    browser.jar["testEnv"] = old
    assert browser.get(lambda request: request.manager.load(), keep=False).body == b"False"
    assert site.stored() == 1


@pytest.mark.parametrize("commits", [0, 1])
def test_destroy_lands_with_the_commit(site: Site, browser: Browser, commits: int) -> None:
    def handler(request: Request) -> None:
        request.row("bye")
        request.manager.destroy(ignoreWarning=True)
        if commits:
            request.connection.commit()
            assert site.stored() == 0

    answer = browser.get(handler)
    assert "Max-Age=0" in answer.cookie
    assert browser.jar == {}
    assert site.stored() == 0
    assert site.rows() == ["bye"] * commits


def test_destroy_after_a_commit(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.connection.commit()
        request.manager.destroy(ignoreWarning=True)

    assert "Max-Age=0" in browser.get(handler).cookie
    assert site.stored() == 0


def test_create_commit_destroy_and_create_again(site: Site) -> None:
    browser = site.browser()

    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.connection.commit()
        request.manager.destroy(ignoreWarning=True)
        request.connection.commit()
        request.manager.create()
        request.store["b"] = 2

    answer = browser.get(handler)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"b": 2}
    assert site.stored() == 1


@pytest.mark.parametrize("ended", ["commit", "rollback", "ROLLBACK", "end", "error"])
def test_what_is_done_to_other_sessions_follows_the_transaction(site: Site, browser: Browser, ended: str) -> None:
    others = [site.browser(a=1) for _ in range(3)]

    def handler(request: Request) -> None:
        request.row("order")
        request.manager.destroy(others[0].token, ignoreWarning=True)
        request.manager.setExpire(1, others[1].token)
        if ended == "commit":
            request.connection.commit()
        elif ended == "rollback":
            request.connection.rollback()
        elif ended == "ROLLBACK":
            request.connection.cursor().execute("ROLLBACK")
            request.row("new")
            request.connection.commit()
        elif ended == "error":
            raise RuntimeError

    browser.get(handler)
    alive = [other.get(lambda request: request.manager.load()).body for other in others]
    dead = [b"False", b"False", b"True"]
    assert alive == ([b"True"] * 3 if ended == "error" else dead)
    assert site.rows() == {"commit": ["order"], "ROLLBACK": ["new"]}.get(ended, [])


# -- (b) the end of a successful request ----------------------------------------------------------------------------


def test_changes_without_a_commit_are_saved_and_rows_are_not(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.row("lost")
        request.store["a"] = 1

    assert browser.get(handler).failure is None
    assert site.rows() == []
    assert browser.read() == {"hits": 0, "a": 1}


def test_changes_before_an_applications_transaction_are_saved_without_it(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.store["a"] = 1
        request.row("lost")

    browser.get(handler)
    assert site.rows() == []
    assert browser.read()["a"] == 1


def streaming(
    work: Callable[[Request], object], *, fails: bool = False, commits: bool = False, rows: bool = False
) -> Callable[..., Iterator[bytes]]:
    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        if rows:
            request.row("streamed")
        start_response("200 OK", request.headers)
        work(request)
        yield b"one"
        work(request)
        if commits:
            request.connection.commit()
        if fails:
            raise RuntimeError("while streaming")
        yield b"two"

    return app


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("commits", [False, True])
def test_a_streamed_body_saves_what_it_changes(site: Site, browser: Browser, *, rows: bool, commits: bool) -> None:
    app = streaming(lambda request: request.store.increment("hits"), rows=rows, commits=commits)
    answer = browser.get(app, raw=True)
    assert answer.body == b"onetwo"
    assert browser.read() == {"hits": 2}
    assert site.rows() == (["streamed"] if rows and commits else [])


@pytest.mark.parametrize("rows", [False, True])
def test_a_new_session_in_a_streamed_body_has_the_cookie_that_was_promised(site: Site, *, rows: bool) -> None:
    browser = site.browser()
    answer = browser.get(streaming(lambda request: request.store.increment("hits"), rows=rows), raw=True)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"hits": 2}


def test_a_first_use_after_the_headers_makes_no_session(site: Site, events: Callable[[], list[str]]) -> None:
    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", request.headers)
        yield b"one"
        assert request.manager.created
        assert request.store.get("a") is None
        request.store["a"] = 1
        with pytest.raises(Exception, match="response has started"):
            request.manager.create()

    answer = site.browser().get(app, raw=True)
    assert answer.failure is None
    assert answer.cookies() == []
    assert site.stored() == 0


def test_start_response_may_come_with_the_first_chunk(site: Site) -> None:
    browser = site.browser()

    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        request.store["a"] = 1
        request.row("lost")
        start_response("200 OK", request.headers)
        yield b"late"

    answer = browser.get(app, raw=True)
    assert len(answer.cookies()) == 1
    assert browser.read() == {"a": 1}
    assert site.rows() == []


def test_what_close_changes_is_saved(site: Site, browser: Browser) -> None:
    class Body:
        def __init__(self, request: Request) -> None:
            self.request = request

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            self.request.store["closed"] = True

    def app(request: Request, start_response: Any) -> Any:
        start_response("200 OK", request.headers)
        return Body(request)

    browser.get(app, raw=True)
    assert browser.read() == {"hits": 0, "closed": True}


# -- (c) an error ---------------------------------------------------------------------------------------------------


def failing(request: Request) -> None:
    request.row("lost")
    request.store["a"] = 1
    request.manager.setExpire(request.manager.expireTime + 50)
    raise RuntimeError("boom")


@pytest.mark.parametrize("place", ["none", "outside", "inside"])
def test_an_error_saves_nothing_and_sends_no_cookie(build: Build, place: str) -> None:
    from web.wsgi.error import Error  # noqa: PLC0415 (one test needs it)

    site = build(error=place == "outside", inner=Error if place == "inside" else lambda app: app)
    answer = site.browser().get(failing)
    if place != "none":
        assert answer.status.startswith("500")
    assert answer.cookies() == []
    assert site.rows() == []
    assert site.sql("SELECT name FROM sqlite_master WHERE name = 'testEnv_coatcheck_session'")
    assert site.stored() == 0
    browser = site.browser(hits=0)
    assert browser.get(failing).cookies() == []
    assert browser.read() == {"hits": 0}


@pytest.mark.parametrize("error", [False, True])
def test_an_error_while_streaming_saves_nothing_of_the_open_transaction(build: Build, *, error: bool) -> None:
    site = build(error=error)
    browser = site.browser(hits=0)
    app = streaming(lambda request: request.store.increment("hits"), fails=True, rows=True)
    assert isinstance(browser.get(app, raw=True).failure, RuntimeError)
    assert site.rows() == []
    assert browser.read() == {"hits": 0}


def test_a_sweep_after_an_error_saves_nothing(build: Build) -> None:
    site = build(cleanupProbability=1)
    browser = site.browser(hits=0)

    def app(request: Request, start_response: Any) -> Iterator[bytes]:
        request.store.increment("hits")
        request.connection.commit()
        start_response("200 OK", request.headers)
        yield b"x"
        request.store.increment("hits", 100)
        raise RuntimeError

    browser.get(app, raw=True)
    assert browser.read() == {"hits": 1}


def test_an_error_keeps_a_destroyed_session_alive(site: Site, browser: Browser) -> None:
    def handler(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True)
        raise RuntimeError

    assert browser.get(handler).cookies() == []
    assert browser.read() == {"hits": 0}


# -- (d) SQLite waits for nobody --------------------------------------------------------------------------------------


def test_an_open_write_transaction_does_not_wait_for_itself(site: Site, browser: Browser) -> None:
    started = time.monotonic()

    def handler(request: Request) -> None:
        request.row("first")
        assert request.store["hits"] == 0
        request.store["a"] = 1
        request.manager.setExpire(request.manager.expireTime + 5)
        request.manager.cleanup()
        assert request.manager.valid()
        request.row("second")
        request.connection.commit()
        request.row("third")
        request.store["b"] = 2

    assert browser.get(handler).failure is None
    assert site.browser().get(handler).failure is not None  # no hits there
    assert time.monotonic() - started < site.where["timeout"] / 2
    assert site.rows() == ["first", "second"]
    assert browser.read() == {"hits": 0, "a": 1, "b": 2}


# -- (e) somebody else ended it ----------------------------------------------------------------------------------------


def test_gone_inside_commit(site: Site, browser: Browser, events: Callable[[], list[str]]) -> None:
    twin = type(browser)(site, dict(browser.jar))

    def handler(request: Request) -> str:
        request.store["late"] = 1
        request.manager.setExpire(request.manager.expireTime + 50)
        twin.get(lambda other: other.manager.destroy(ignoreWarning=True))
        request.row("order")
        request.connection.commit()
        request.store["later"] = 2
        request.manager.setCookie()
        request.append_cookie()
        return "done"

    answer = browser.get(handler)
    assert answer.body == b"done"
    assert answer.cookies() == []
    assert site.rows() == ["order"]
    assert site.stored() == 0
    assert any("session gone" in each for each in events())


def test_a_manager_kept_past_its_request_reaches_nobody_elses_transaction(site: Site, browser: Browser) -> None:
    kept: list[Any] = []
    victim = site.browser(a=1)
    browser.get(lambda request: kept.append(request.manager))
    for use in (
        lambda manager: manager.load(),
        lambda manager: manager.destroy(victim.token, ignoreWarning=True),
        lambda manager: manager.cleanup(),
        lambda manager: manager.driver.removeSessionEnvironment(),
    ):
        with pytest.raises(Exception, match="connection is closed"):
            use(kept[0])
    assert victim.read() == {"a": 1}


@pytest.mark.parametrize("refused", [False, True])
def test_a_destroyed_session_cannot_be_loaded_again_before_the_commit(
    site: Site, browser: Browser, *, refused: bool
) -> None:
    token = browser.token

    def handler(request: Request) -> None:
        manager = request.manager
        manager.destroy(ignoreWarning=True)
        if refused:
            fail_commits(request)
            request.connection.rollback()
        assert manager.load() is manager.load(token) is False
        assert manager.exists(token) is False
        with pytest.raises(Exception, match="no such session"):
            manager.valid(token)

    assert browser.get(handler).failure is None
    assert site.stored() == 0
