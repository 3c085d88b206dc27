"""The session's changes and the application's rows: together, or each as it must be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from web_commits import fail_commits, repair

Site = Any
Browser = Any
Request = Any
Build = Callable[..., Any]


@pytest.fixture
def browser(site: Site) -> Browser:
    return site.browser(hits=0)


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
