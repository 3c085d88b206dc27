"""No token and no digest in any log line, event, error or repr, over the whole life of a session (checklist G1)."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from coatcheck import CoatcheckError, EventKind, Policy, Session
from coatcheck.errors import DriverUnavailable
from coatcheck.token import Token

if TYPE_CHECKING:
    from tests.conftest import Client, House

WEEK = 7 * 86400


@pytest.fixture(autouse=True)
def _at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


class Eavesdropper(logging.Handler):
    """Keeps all that a log could ever show of a record: its message, its arguments, its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(logging.Formatter("%(message)s").format(record) + repr(record.__dict__))


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    handler = Eavesdropper()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def spellings(secret: str) -> set[str]:
    """Every form in which a token or its digest could be written down."""
    digest = Token(secret).digest
    plain, url = base64.b64encode(digest).decode().rstrip("="), base64.urlsafe_b64encode(digest).decode().rstrip("=")
    number = str(int.from_bytes(digest, "big"))
    return {secret, secret.encode().hex(), digest.hex(), digest.hex().upper(), repr(digest)[2:-1], plain, url, number}


FAILING: dict[str, Callable[[Session], object]] = {
    "load": dict,
    "commit": lambda session: session.update(cart="lost"),
    "rotate": lambda session: session.rotate(),
    "revoke": lambda session: (session.get("cart"), session.logout()),
}


def live_through_everything(house: House) -> Iterator[str]:
    """All that can happen to a session, its troubles included; yields the tokens that were used on the way."""
    client = house.client()

    def step(handler: Callable[[Session], object], of: Client = client) -> str:
        with of.request() as session:
            handler(session)
        return of.secret if of.cookie else ""

    def clash(session: Session) -> None:
        assert session["cart"]
        step(lambda other: (other["cart"], other.update(cart=1)), client.twin())
        session["cart"] = 2

    yield step(lambda session: session.update(cart=["hat"], colour="red"))
    yield step(lambda session: session.login("ada", keep=["cart"]))
    late = client.twin()
    yield step(lambda session: session.rotate())
    yield step(dict, late)  # gone
    yield step(clash)
    for down, handler in FAILING.items():
        house.driver.down = frozenset({down})
        with pytest.raises(DriverUnavailable):
            step(handler)
        house.driver.down = frozenset()
    twice = house.manager.open([f"{client.cookie}; {late.cookie}"])
    assert not dict(twice)
    assert not dict(house.manager.open([f"a=b, {client.cookie}"]))
    yield step(lambda session: session.logout())
    stranger = house.client()
    stranger.cookie = f"__Host-sid={Token.new().secret}"
    yield step(dict, stranger)
    yield step(lambda session: session.update(again=1))
    overtaken = house.client().open()
    overtaken.login("eve")
    house.manager.revoke_user("eve")
    assert house.manager.save(overtaken).login_refused
    house.clock.advance(WEEK)
    yield step(dict)
    house.manager.sweep()


def test_no_token_or_digest_in_any_log_line_or_event(build: Callable[..., House], eavesdropper: Eavesdropper) -> None:
    """The whole life cycle at DEBUG, tracebacks of failures included (G1)."""
    house = build(Policy(rotate_after=86400, on_conflict="last"))
    secrets = set(live_through_everything(house)) - {""}
    assert len(secrets) >= 5
    kinds = set(house.kinds())
    assert kinds >= set(EventKind) - {EventKind.UNREADABLE, EventKind.AT_RISK}, set(EventKind) - kinds
    heard = "\n".join(eavesdropper.heard) + repr(house.events) + str(house.events)
    assert "session unavailable" in heard
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in heard


WRONG: list[Callable[[Session], object]] = [
    lambda session: session.increment("n"),
    lambda session: session.update(n=object()),
    lambda session: session.login(5),  # type: ignore[arg-type]
    lambda session: session.store("a b"),
    lambda session: session["cart"].append(object()),
]


def test_no_token_in_an_error_or_repr(house: House) -> None:
    """Whatever is raised, its text and the reprs of what an application can print hold no token and no digest."""
    client = house.visitor(n="text", cart=[1])
    first = client.secret
    shown: list[str] = []

    def note(error: BaseException) -> None:
        trace = traceback.TracebackException.from_exception(error, capture_locals=False)
        shown.append(repr(error) + str(error) + repr(error.__dict__) + "".join(trace.format()))

    for down in ("load", "commit", "rotate", "revoke", "create"):
        house.driver.down = frozenset({down})
        for handler in (
            dict,
            lambda session: session.update(n=1),
            lambda session: session.login("ada"),
            lambda s: s.logout(),
        ):
            for one in (client, house.client()):
                session = one.open()
                try:
                    handler(session)
                    house.manager.save(session)
                except CoatcheckError as error:
                    note(error)
                shown += [repr(session), str(session), f"{session._opened!r}"]
    house.driver.down = frozenset()
    client = house.visitor(n="text", cart=[1])

    def request(session: Session, wrong: Callable[[Session], object]) -> None:
        session.get("n")
        wrong(session)
        house.manager.save(session)

    for wrong in WRONG:
        session = client.open()
        with pytest.raises(CoatcheckError) as caught:
            request(session, wrong)
        note(caught.value)
        shown += [repr(session), repr(session.store("x")), repr(house.manager), repr(house.manager.policy)]
    assert len(shown) > 50
    text = "\n".join(shown)
    assert "down on purpose" in text
    for secret in (first, client.secret):
        for spelling in spellings(secret):
            assert spelling not in text
