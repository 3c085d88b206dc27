"""Tokens: random, one spelling each, shown to nobody (checklist section A)."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import secrets
from collections.abc import Callable
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import CoatcheckError, ConflictError, NotACounter, Policy, UnstorableValue
from coatcheck.adapter import Saved
from coatcheck.cookie import Channel, cookie_name
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Delta, Put, Record
from coatcheck.session import state_of
from coatcheck.token import Token, new_sid

if TYPE_CHECKING:
    from tests.conftest import House

SECRET = "abcdefghijklmnopqrstuvwxyz_-0123"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-0123"


# -- A. the identifier ----------------------------------------------------------------------------------------------


def test_a_token_is_24_bytes_of_the_system_generator_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def urandom(size: int) -> bytes:
        drawn.append(size)
        return bytes(range(size))

    monkeypatch.setattr("secrets.token_bytes", urandom)
    token = Token.new()
    assert drawn == [24]
    assert token.secret == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


def test_tokens_and_sids_do_not_repeat_and_take_no_seed() -> None:
    random.seed(0)
    some = [Token.new().secret for _ in range(20_000)]
    random.seed(0)
    more = [Token.new().secret for _ in range(20_000)]
    assert len({*some, *more}) == 40_000
    assert {len(secret) for secret in some} == {32}
    assert len({new_sid(bytes(32), 0) for _ in range(20_000)}) == 20_000
    # No part of it counts or tells the time: every character is drawn from the whole alphabet.
    for at in range(32):
        assert len({secret[at] for secret in some}) == 64


def test_a_broken_random_generator_is_an_error_without_cookie_and_without_record(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(size: int) -> bytes:
        raise OSError("no entropy")

    monkeypatch.setattr("os.urandom", broken)
    monkeypatch.setattr("random._urandom", broken)  # the name under which `secrets` gets to it
    client = house.client()
    with pytest.raises(OSError, match="no entropy"), client.request() as session:
        session["cart"] = 1
    assert client.cookie is None
    assert client.replies == []
    assert house.driver.stored == 0
    assert house.driver.asked == []


def test_a_broken_random_generator_stops_a_log_in_and_leaves_the_old_session_as_it_was(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = house.visitor(cart=1)
    before = client.cookie

    def broken(size: int) -> bytes:
        raise OSError("no entropy")

    with monkeypatch.context() as patch:
        patch.setattr("random._urandom", broken)
        with pytest.raises(OSError, match="no entropy"), client.request() as session:
            session.login("ann")
    assert client.cookie == before
    assert client.read() == {"cart": 1}


def test_a_generator_that_repeats_itself_is_noticed_and_joins_nobody_to_anybody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = house.visitor(mine=1)
    raw = secrets.token_bytes
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: owner.secret)
    stranger = house.client()
    with pytest.raises(CoatcheckError, match="random generator is broken"), stranger.request() as session:
        session["theirs"] = 2
    assert stranger.cookie is None
    visitor = house.client()
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: raw(24).hex()[:32])
    with visitor.request() as session:
        session["third"] = 3
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: owner.secret)
    with pytest.raises(CoatcheckError, match="random generator is broken"), visitor.request() as session:
        session.rotate()
    monkeypatch.undo()
    assert owner.read() == {"mine": 1}
    assert visitor.read() == {"third": 3}


def test_one_token_has_one_spelling() -> None:
    assert Token.parse(SECRET) is not None
    for spelling in (SECRET + "=", SECRET + "==", SECRET[:-1] + "=", SECRET.replace("_", "/").replace("-", "+")):
        assert Token.parse(spelling) is None
    # 24 bytes fill 32 characters, so each change of the last character is another token.
    digests = {
        Token(SECRET[:-1] + last).digest for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    }
    assert len(digests) == 64


def test_a_changed_last_character_or_padding_opens_nothing(house: House) -> None:
    client = house.visitor(cart=1)
    assert client.cookie is not None
    last = client.cookie[-1]
    for cookie in (client.cookie + "=", client.cookie[:-1] + ("A" if last != "A" else "B"), client.cookie[:-1]):
        other = house.client()
        other.cookie = cookie
        assert other.read() == {}


def test_what_storage_holds_opens_nothing_and_holds_no_token(house: House) -> None:
    client = house.visitor(cart=1)
    (held,) = house.driver._sessions.values()
    assert held.digest == client.token.digest
    assert client.secret not in repr(vars(house.driver)) + repr(house.driver._digests) + repr(house.driver.calls)
    for stolen in (held.digest.hex()[:32], held.info.sid):
        thief = house.client()
        thief.cookie = f"__Host-sid={stolen}"
        assert thief.read() == {}


# -- A4. nothing shows the token ------------------------------------------------------------------------------------


def _shown(thing: Any) -> str:
    """All that a log, a debugger or a careless serializer would make of a thing."""
    forms = [repr(thing), str(thing), f"{thing}", json.dumps(thing, default=repr), repr([thing]), repr({1: thing})]
    return "\n".join(forms)


def test_no_repr_str_or_json_shows_token_or_digest(house: House) -> None:
    client = house.visitor(cart=["umbrella"])
    token = client.token
    session = client.open()
    session["more"] = 1
    state = state_of(session)
    assert state is not None
    things: list[Any] = [session, session.store("shop"), token, state, Delta(puts={("", "k"): Put(b"v", 1)})]
    assert session["cart"] == ["umbrella"]
    record = state.record
    assert isinstance(record, Record)
    things += [session, session.store("shop"), record, state.changes, house.manager, house.driver, *house.events]
    things.append(Saved(f"__Host-sid={token.secret}; Path=/"))
    text = "\n".join(map(_shown, things))
    for form in (token.secret, token.digest.hex(), repr(token.digest), str(list(token.digest))):
        assert form not in text
    assert record.sid in repr(session)
    assert "umbrella" not in repr(record)


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_token_does_not_leave_its_process(house: House, leave: Callable[[object], object]) -> None:
    client = house.visitor(cart=1)
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        leave(client.token)
    session = client.open()
    assert session["cart"] == 1
    with pytest.raises(CoatcheckError, match="neither pickled nor copied"):
        leave(session)


def test_errors_and_events_of_a_whole_life_show_no_token(
    build: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    house = build(Policy(on_conflict="error"))
    client = house.visitor(n="text", word=1)
    tokens = [client.token]
    raised: list[BaseException] = []

    def expect(kind: type[Exception], act: Callable[[], object]) -> None:
        with pytest.raises(kind) as caught:
            act()
        raised.append(caught.value)

    def write(**values: Any) -> None:
        with client.twin().request() as session:
            session.update(values)

    def conflicting() -> None:
        with client.request() as session:
            session["word"] = session["word"] + 1
            write(word=9)

    def incremented() -> None:
        with client.request() as session:
            session.increment("n")

    expect(ConflictError, conflicting)
    expect(NotACounter, incremented)
    expect(UnstorableValue, lambda: client.open().__setitem__("x", object()))
    for down in ("load", "commit", "rotate", "revoke"):
        house.driver.down = frozenset({down})
        expect(DriverUnavailable, lambda: _everything(client.twin()))
    house.driver.down = frozenset()
    with client.request() as session:
        session.login("ann\r\nFORGED")
    tokens.append(client.token)
    with client.request() as session:
        session.logout()
    for token in tokens:
        late = house.client()
        late.cookie = f"__Host-sid={token.secret}"
        late.read()
    text = caplog.text + repr(house.events) + "".join("".join(format_exception(error)) for error in raised)
    for token in tokens:
        for form in (token.secret, token.digest.hex(), repr(token.digest)):
            assert form not in text
    assert "\r\nFORGED" not in caplog.text
    assert "\nFORGED" not in caplog.text


def _everything(client: Any) -> None:
    """Read; then write, rotate and destroy, each in a request of its own."""
    client.read()
    with client.request() as session:
        session["x"] = 1
    with client.request() as session:
        session.rotate()
    with client.request() as session:
        session.destroy()


def test_the_default_name_names_no_product() -> None:
    assert cookie_name(Policy(), Channel.SECURE) == "__Host-sid"
    assert not re.search("coat|check|python|php|java|asp|session", cookie_name(Policy(), Channel.SECURE), re.IGNORECASE)


def test_a_successor_and_a_sid_share_the_leading_bits_that_an_engine_asks_for() -> None:
    token = Token.new()
    for bits in (1, 8):
        successors = {Token.successor(token.digest, bits).digest for _ in range(20)}
        sids = {bytes.fromhex(new_sid(token.digest, bits)) for _ in range(20)}
        assert len(successors) == len(sids) == 20
        tops = {int.from_bytes(each[:2], "big") >> (16 - bits) for each in (*successors, *sids, token.digest)}
        assert len(tops) == 1
