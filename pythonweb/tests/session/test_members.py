"""Every member of the interface of 2005, with its meaning and its result, as CGI scripts use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from coatcheck import UnstorableValue
from web.session import Driver, Manager, MissingKey, SessionError, SessionWarning, driver, manager

Make = Callable[[], Manager]


# One manager after another on each storage, as CGI scripts have them


@pytest.fixture(params=["cursor", "url", "sqlite", "memory"])
def chosen(
    request: pytest.FixtureRequest, connect: Callable[..., Any], tmp_path: Path
) -> Iterator[Callable[[], Driver]]:
    """Make the driver of another request, on the same storage."""
    number = id(tmp_path) % 10**9
    connection = connect() if request.param == "cursor" else None

    def make() -> Driver:
        if connection is not None:
            return driver("database", f"env{number}", cursor=connection.cursor())
        if request.param == "url":
            return driver("database", f"env{number}", url=f"sqlite:///{tmp_path}/own.db")
        if request.param == "sqlite":
            return driver("sqlite", f"env{number}", url=f"sqlite:///{tmp_path}/other.db")
        return driver("memory", f"env{number}")

    yield make
    make().removeSessionEnvironment(ignoreErrors=True)
    if connection is None:
        make().core.close()


@pytest.fixture
def make(chosen: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Make:
    """Make the manager of another request; ``make(cookie)`` one that sends a cookie."""
    assert not chosen().completeSessionEnvironment() or chosen().core.name == "memory"
    assert chosen().createSessionEnvironment() == []
    assert chosen().completeSessionEnvironment()
    environment = chosen().environment

    def another(token: str | None = None, **settings: Any) -> Manager:
        made = chosen()
        if made.connection is not None:
            made.connection.commit()
        monkeypatch.setenv("HTTP_COOKIE", "" if token is None else f"other=1; {environment}={token}")
        return manager(made, **{"cleanupProbability": 0} | settings)

    return another


def test_drivers_life(chosen: Callable[[], Driver]) -> None:
    made = chosen()
    is_memory = made.core.name == "memory"
    assert made.completeSessionEnvironment() is is_memory
    if not is_memory:
        errors = made.removeSessionEnvironment()
        assert len(errors) == 1
        assert made.environment in errors[0]
        assert made.removeSessionEnvironment(ignoreErrors=True) == []
    assert made.createSessionEnvironment() == []
    assert made.createSessionEnvironment() == []
    assert made.completeSessionEnvironment() is True
    session = manager(made)
    session.create()
    if made.connection is not None:
        made.connection.commit()
    token = session.sessionID
    assert made.removeSessionEnvironment() == []
    assert made.completeSessionEnvironment() is is_memory
    made.createSessionEnvironment()
    assert manager(made).load(token) is False
    assert token not in repr(session)
    assert made.environment in repr(session)
    assert made.environment in repr(made)


def test_before_load_or_create(make: Make) -> None:
    session = make()
    assert session.sessionID is None
    assert session.created is False
    assert session.error is None
    assert session.response_headers == session.sent_headers == []
    assert session.exists() is False
    for use in (session.valid, lambda: session.expireTime, lambda: session.setExpire(1), session.setCookieString):
        with pytest.raises(SessionError, match=r"neither loaded nor created: call create\(\) or load\(\)"):
            use()
    with pytest.raises(SessionError, match="neither"):
        session.store("app")["a"] = 1
    with pytest.raises(SessionError, match="neither"):
        session.destroy(ignoreWarning=True)


def test_create_and_load(make: Make) -> None:
    first = make(expire=50)
    before = time.time()
    first.create()
    assert first.created is True
    assert first.expire == 50
    assert before + 50 <= first.expireTime <= time.time() + 50
    assert first.exists()
    assert first.valid()
    token = first.sessionID
    assert token is not None
    assert len(token) == 32
    first.store("app")["a"] = [1]

    second = make(token)
    assert second.cookieSessionID() == token
    assert second.load() is True
    assert (second.created, second.error, second.sessionID) == (False, None, token)
    assert second.expireTime == pytest.approx(first.expireTime)
    assert second.store("app")["a"] == [1]
    assert second.store("another").keys() == []
    assert second.load() is True  # again, and nothing is lost

    third = make()
    assert third.load() is False
    assert third.error == "no session ID: the request has no session cookie"
    assert third.load(token) is True
    assert third.error is None
    assert third.sessionID == token


@pytest.mark.parametrize("token", ["", "x" * 31, "A" * 32, "../../etc/passwd", "é" * 32, "a b" * 10, None])
def test_an_id_that_is_unknown_or_of_a_foreign_form(make: Make, token: str | None) -> None:
    session = make(token)
    assert session.load() is False
    assert session.error
    assert session.load("x" if token is None else token) is False
    assert session.exists(token or "x") is False
    with pytest.raises(SessionError, match="no such session"):
        session.valid(token or "x")
    session.create()
    assert session.sessionID != token


def test_an_id_of_the_wrong_type(make: Make) -> None:
    wrong: Any = 5
    session = make()
    assert session.load(wrong) is False
    assert session.exists(wrong) is False
    for use in (lambda: session.destroy(wrong, ignoreWarning=True), lambda: session.setExpire(1, wrong)):
        with pytest.raises(SessionError, match="32 characters"):
            use()


def test_loading_again_loses_nothing(make: Make) -> None:
    first, other = make(), make()
    first.create()
    other.create()
    other.store("app")["is"] = "other"
    session = make(first.sessionID)
    session.load()
    session.store("app")["a"] = 1
    assert session.load()
    assert session.store("app")["a"] == 1
    assert session.load("A" * 32) is False
    assert session.store("app")["a"] == 1
    assert session.load(other.sessionID)
    assert session.store("app").items() == [("is", "other")]
    session.store("app")["b"] = 2
    again = make(first.sessionID)
    assert again.load()
    assert again.store("app").items() == [("a", 1)]
    assert again.load(other.sessionID)
    assert sorted(again.store("app").items()) == [("b", 2), ("is", "other")]


def test_a_new_session_can_be_loaded_by_its_own_id_at_once(make: Make) -> None:
    session = make()
    session.create()
    session.store("app")["a"] = 1
    assert session.load(session.sessionID)
    assert session.store("app")["a"] == 1
    assert session.created


def test_create_twice_gives_two_sessions(make: Make) -> None:
    session = make()
    session.create()
    first = session.sessionID
    session.store("app")["a"] = 1
    session.create(expire=7)
    assert session.expire == 7
    assert session.sessionID != first
    assert session.store("app").keys() == []


def test_destroy(make: Make) -> None:
    session = make()
    session.create()
    token = session.sessionID
    with pytest.raises(SessionWarning, match="ignoreWarning=True"):
        session.destroy()
    assert session.exists()
    session.destroy(ignoreWarning=True)
    assert session.sessionID is None
    assert session.created is False
    assert session.exists() is session.exists(token) is False
    with pytest.raises(SessionError, match=r"destroyed: call create\(\)"):
        session.store("app").keys()
    with pytest.raises(SessionError, match="no such session"):
        session.valid(token)
    assert session.load(token) is False  # also where that is not committed yet
    session.create()
    assert session.sessionID != token
    assert make(token).load() is False


def test_destroying_another_session(make: Make) -> None:
    other = make()
    other.create()
    session = make()
    session.create()
    with pytest.raises(SessionWarning):
        session.destroy(other.sessionID)
    session.destroy(other.sessionID, ignoreWarning=True)
    assert session.exists()
    assert session.exists(other.sessionID) is False
    assert make(other.sessionID).load() is False
    session.destroy("A" * 32, ignoreWarning=True)  # unknown: nothing to do


def test_valid_exists_and_set_expire(make: Make) -> None:
    other = make()
    other.create()
    session = make()
    session.create()
    now = time.time()
    session.setExpire(now + 500.5)
    assert session.expireTime == now + 500.5
    session.setExpire(now + 300, other.sessionID)
    assert session.valid(other.sessionID)
    again = make(other.sessionID)
    again.load()
    assert again.expireTime == now + 300
    for moment in (0, -5, now - 1, now):
        third = make()
        third.create()
        token = third.sessionID
        third.setExpire(moment)
        assert third.valid() is False
        assert third.exists()
        assert make(token).load() is False
    session.setExpire(0, other.sessionID)
    assert session.valid(other.sessionID) is False
    assert session.exists(other.sessionID) is True  # ended, and not swept yet
    gone = make(other.sessionID)
    assert gone.load() is False
    assert gone.error == "no such session: expired"
    session.setExpire(float("inf"))
    assert session.valid()


def test_cleanup(make: Make) -> None:
    now = int(time.time())
    tokens = {}
    for ends in (now - 300, now - 200, now - 100, now + 300):
        each = make()
        each.create()
        tokens[ends] = each.sessionID
        session = make()
        session.setExpire(ends, tokens[ends])

    def left(session: Manager) -> list[int]:
        return [ends - now for ends, token in tokens.items() if session.exists(token)]

    session = make()
    with pytest.raises(SessionWarning, match="max is in the future"):
        session.cleanup(max=now + 1000)
    assert left(session) == [-300, -200, -100, 300]
    session.cleanup(min=now - 250, max=now - 150)
    assert left(session) == [-300, -100, 300]
    session.cleanup(max=now - 250)
    assert left(session) == [-100, 300]
    session.cleanup()
    assert left(session) == [300]
    session.cleanup(max=now + 1000, ignoreWarning=True)
    assert left(session) == []


def test_more_sessions_than_one_sweep_takes(make: Make) -> None:
    session = make()
    for _ in range(230):
        session.create(sendCookieHeaders=False)
        session.setExpire(1)
    session = make()
    session.cleanup()
    connection = session.driver.connection
    if connection is not None:
        connection.commit()
    assert session.driver.core.sweep(time.time(), 1000) == 0


def test_gen_session_id(make: Make) -> None:
    session = make(seed="the same")
    drawn = {session.genSessionID() for _ in range(1000)}
    assert len(drawn) == 1000
    assert {len(each) for each in drawn} == {32}


def test_cookie_session_id(make: Make) -> None:
    session = make("A" * 32)
    name = session.driver.environment
    assert session.cookieSessionID() == "A" * 32
    assert session.cookieSessionID({"HTTP_COOKIE": f"{name}={'B' * 32}"}) == "B" * 32
    assert session.cookieSessionID({}) == ""
    assert session.cookieSessionID({}, noSessionID="none") == "none"
    assert session.cookieSessionID({"HTTP_COOKIE": f"{name}=short"}, "none") == "none"
    assert session.sessionID is None


def test_store(make: Make) -> None:
    session = make()
    session.create()
    store = session.store("a-Z_0.9")
    assert isinstance(store, MutableMapping)
    assert (store.app, store.manager) == ("a-Z_0.9", session)
    store.set("k", 1)
    store["l"] = [1]
    assert (store.get("k"), store["l"], store.get("none"), store.get("none", 5)) == (1, [1], None, 5)
    assert type(store.keys()) is type(store.values()) is type(store.items()) is list
    assert str(store.keys()) == "['k', 'l']"
    assert store.values() == [1, [1]]
    assert store.items() == [("k", 1), ("l", [1])]
    assert store.has_key("k")
    assert "k" in store
    assert not store.has_key("none")
    assert 5 not in store
    assert (len(store), list(store)) == (2, ["k", "l"])
    store.delete("k")
    del store["l"]
    for use in (lambda: store["k"], lambda: store.delete("k"), lambda: store.__delitem__("k"), lambda: store.pop("k")):
        with pytest.raises(MissingKey, match=r"^no value under 'k' in the session store 'a-Z_0.9'$") as caught:
            use()
        assert isinstance(caught.value, SessionError)
        assert isinstance(caught.value, KeyError)
    store.update(a=1, b=2)
    store |= {"c": 3}
    assert store.setdefault("d", 4) == 4
    assert store.pop("d") == 4
    assert store == {"a": 1, "b": 2, "c": 3}
    assert store.popitem()[0] in "abc"
    store.increment("n")
    store.increment("n", 4)
    assert store.update_with("n", lambda value: value * 2) == 10
    assert session.store("other").keys() == []
    session.store("other")["a"] = "other"
    store.empty()
    assert (store.keys(), session.store("other").keys()) == ([], ["a"])
    store["x"] = 1
    store.clear()
    assert len(store) == 0
    assert repr(store) == "<Store 'a-Z_0.9'>"
    again = make(session.sessionID)
    again.load()
    assert again.store("a-Z_0.9").keys() == []
    assert again.store("other")["a"] == "other"


@pytest.mark.parametrize("name", ["a", "a" * 255, "A-b_c.9"])
def test_names_of_stores(make: Make, name: str) -> None:
    assert make().store(name).app == name


@pytest.mark.parametrize("name", ["", "a" * 256, "a b", "é", "a/b", "a\n", None, 5])
def test_bad_names_of_stores(make: Make, name: Any) -> None:
    with pytest.raises(SessionError, match="1 to 255 characters"):
        make().store(name)


def test_a_nested_edit_needs_save_on_storage_of_ones_own_and_a_commit_on_a_cursor(make: Make) -> None:
    session = make()
    session.create()
    session.store("app")["deep"] = {"list": [1]}
    session = make(session.sessionID)
    session.load()
    session.store("app")["deep"]["list"].append(2)
    if session.driver.connection is None:
        session.save()
    again = make(session.sessionID)
    again.load()
    assert again.store("app")["deep"] == {"list": [1, 2]}


def test_an_unstorable_value_names_key_and_type(make: Make) -> None:
    class Own:
        pass

    session = make()
    session.create()
    store = session.store("shop")
    with pytest.raises(UnstorableValue, match=r"'thing'.*'shop'.*Own") as caught:
        store["thing"] = Own()
    assert "register" in str(caught.value)
    assert "thing" not in store
    for key in (5, "", "a\0b", "x" * 256, "\ud800"):
        wrong: Any = key
        with pytest.raises(UnstorableValue, match="key"):
            store[wrong] = 1
