"""Two requests of one browser at once: the second runs as a whole in the middle of the first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

Site = Any
Browser = Any
Request = Any


@pytest.fixture
def browser(site: Site) -> Browser:
    return site.browser(step=1, cart=["hat"])


@pytest.mark.parametrize("commits", [False, True])
def test_different_keys_are_both_kept(browser: Browser, *, commits: bool) -> None:
    def slow(request: Request) -> None:
        assert request.store["step"] == 1
        browser.get(lambda other: other.store.update(second=2), keep=False)
        request.store["third"] = 3
        if commits:
            request.row("x")
            request.connection.commit()

    browser.get(slow)
    assert browser.read() == {"step": 1, "cart": ["hat"], "second": 2, "third": 3}


@pytest.mark.parametrize("refused", [False, True])
def test_appends_to_one_list_are_merged(browser: Browser, *, refused: bool) -> None:
    """Also where the merge happens inside a commit that is rolled back and done again."""

    def slow(request: Request) -> None:
        request.store["cart"].append("scarf")
        browser.get(lambda other: other.store["cart"].append("umbrella"), keep=False)
        if refused:
            request.connection.cursor().execute("INSERT INTO child VALUES (77)")
            with pytest.raises(Exception, match="FOREIGN KEY"):
                request.connection.commit()
            request.connection.rollback()
            browser.get(lambda other: other.store["cart"].append("coat"), keep=False)
        request.connection.commit()

    browser.get(slow)
    cart = browser.read()["cart"]
    assert sorted(cart) == sorted(["hat", "umbrella", "scarf"] + ["coat"] * refused)


def test_a_slow_reader_undoes_nothing(browser: Browser) -> None:
    def slow(request: Request) -> None:
        assert dict(request.store) == {"step": 1, "cart": ["hat"]}
        browser.get(lambda other: other.store.update(step=2), keep=False)
        request.connection.commit()

    browser.get(slow)
    assert browser.read()["step"] == 2


def test_increments_are_exact(browser: Browser) -> None:
    def slow(request: Request) -> None:
        request.store.increment("step", 10)
        browser.get(lambda other: other.store.increment("step"), keep=False)
        browser.get(lambda other: other.store.update_with("step", lambda step: step * 2), keep=False)

    browser.get(slow)
    assert browser.read()["step"] == 14


def test_an_update_is_exact_over_a_refused_commit(browser: Browser) -> None:
    """What `update_with` did runs again on what another request wrote, also where it was in a commit that failed."""

    def slow(request: Request) -> None:
        request.store.update_with("step", lambda step: step + 10)
        request.store.update_with("cart", lambda cart: [*cart, "scarf"])
        request.connection.cursor().execute("INSERT INTO child VALUES (77)")
        with pytest.raises(Exception, match="FOREIGN KEY"):
            request.connection.commit()
        request.store.update_with("cart", lambda cart: [*cart, "glove"])
        request.connection.rollback()
        browser.get(lambda other: other.store.update(step=100, cart=[]), keep=False)
        request.connection.commit()

    browser.get(slow)
    assert browser.read() == {"step": 110, "cart": ["scarf", "glove"]}


def test_an_extension_and_a_write_are_both_kept(browser: Browser) -> None:
    ends: list[float] = []

    def slow(request: Request) -> None:
        ends.append(request.manager.expireTime)
        browser.get(lambda other: other.store.update(step=2), keep=False)
        request.manager.setExpire(ends[0] + 50)

    browser.get(slow)
    browser.get(lambda request: ends.append(request.manager.expireTime))
    assert ends[1] == ends[0] + 50
    assert browser.read()["step"] == 2


READERS_AND_WRITERS: dict[str, Callable[[Request], object]] = {
    "writes": lambda request: request.store.update(step=2),
    "writes unread": lambda request: request.store.set("new", 1),
    "edits": lambda request: request.store["cart"].append("x"),
    "counts": lambda request: request.store.increment("step"),
    "reads": lambda request: request.store["step"],
    "extends": lambda request: request.manager.setExpire(request.manager.expireTime + 100),
    "empties": lambda request: request.store.empty(),
    "destroys": lambda request: request.manager.destroy(ignoreWarning=True),
    "sets its cookie": lambda request: request.manager.setCookie(),
}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("what", READERS_AND_WRITERS)
def test_a_session_destroyed_in_flight_is_never_revived(
    site: Site, browser: Browser, what: str, *, commits: bool
) -> None:
    def slow(request: Request) -> str:
        request.store.get("step")
        browser.get(lambda other: other.manager.destroy(ignoreWarning=True), keep=False)
        READERS_AND_WRITERS[what](request)
        if commits:
            request.row("kept")
            request.connection.commit()
        return "clean"

    answer = browser.get(slow, keep=False)
    assert answer.body == b"clean"
    assert site.stored() == 0
    assert site.rows() == ["kept"] * commits
    assert answer.cookies() == []


@pytest.mark.parametrize("what", READERS_AND_WRITERS)
def test_a_request_whose_session_ends_before_it_looks_at_it(site: Site, browser: Browser, what: str) -> None:
    late = type(browser)(site, dict(browser.jar))

    def handler(request: Request) -> str:
        browser.get(lambda other: other.manager.destroy(ignoreWarning=True))
        manager = request.manager
        assert manager.created
        assert len(manager.sessionID) == 32
        assert manager.sessionID != late.token
        assert manager.expireTime == pytest.approx(manager.expire + manager._core.clock(), abs=5)
        request.store.update(step=1, cart=[])
        READERS_AND_WRITERS[what](request)
        request.connection.commit()
        return "clean"

    answer = late.get(handler, keep=False)
    assert answer.body == b"clean"
    assert answer.cookies() == []
    assert site.stored() == 0


def test_destroyed_by_two_requests_at_once(site: Site, browser: Browser) -> None:
    def slow(request: Request) -> None:
        request.manager.destroy(ignoreWarning=True)
        other = browser.get(lambda other: other.manager.destroy(ignoreWarning=True), keep=False)
        assert len(other.cookies()) == 1

    assert browser.get(slow).cookies() == []
    assert site.stored() == 0


# Threads

CLIENTS = 3
ROUNDS = 12
THREADS = 8


def test_threads_on_one_application_see_nothing_of_each_other(site: Site) -> None:
    """Each client's values, headers and cookies are its own, whoever is served at the same time."""
    wrong: list[object] = []
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        clients = [site.browser() for _ in range(CLIENTS)]
        barrier.wait()
        for turn in range(ROUNDS):
            for index, client in enumerate(clients):
                me = f"{number}.{index}"

                def handler(request: Request, me: str = me, turn: int = turn) -> str:
                    request.headers.append(("X-Me", me))
                    request.store.setdefault("me", me)
                    request.store.setdefault("turns", []).append(turn)
                    return f"{request.store['me']} {request.store['turns']} {request.manager.sessionID}"

                before = dict(client.jar)
                answer = client.get(handler)
                expected = f"{me} {list(range(turn + 1))} {client.token}"
                headers = [value for name, value in answer.headers if name == "X-Me"]
                count = 0 if before else 1
                if answer.body.decode() != expected or headers != [me] or len(answer.cookies()) != count:
                    wrong.append((expected, answer))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert site.stored() == THREADS * CLIENTS
