"""What the exchanges of synchronous and asynchronous programs have in common: everything that needs no storage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from coatcheck.cookie import Channel, channel_of, cookie_name, deletion, deletions_of_others, find, set_cookie
from coatcheck.errors import CoatcheckError, SessionUnavailable
from coatcheck.headers import with_session
from coatcheck.saved import UNTOUCHED
from coatcheck.saving import is_pending
from coatcheck.session import Session, close_headers, expiry, finish, opened, state_of
from coatcheck.token import Token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coatcheck.changes import Changes
    from coatcheck.incoming import Incoming
    from coatcheck.record import Reason, SessionInfo
    from coatcheck.saved import Saved
    from coatcheck.state import Mark, State

__all__ = ["ExchangeBase", "Savepoint"]

S = TypeVar("S", bound=Session)


class Savepoint:
    """A session as it was before a save in a transaction of the application that may not last.

    Made by `ExchangeBase.savepoint`. Call exactly one of `release` and `rollback`, once the transaction is over.
    """

    __slots__ = ("_exchange", "_mark", "_saved", "_state")

    def __init__(self, exchange: ExchangeBase[Any]) -> None:
        self._exchange: Final = exchange
        self._saved: Final = exchange.saved
        self._state: Final[State] = opened(exchange.session)
        self._mark: Final[Mark] = self._state.mark()

    def is_of(self, exchange: ExchangeBase[Any]) -> bool:
        """Return whether it is a savepoint of the session of *exchange*."""
        return exchange is self._exchange

    def release(self) -> None:
        """Record that the transaction was committed."""
        self._state.release()

    def rollback(self) -> None:
        """Record that the transaction was rolled back: what the save wrote is pending again, its cookie is not sent."""
        self._exchange.saved = self._saved
        self._state.restore(self._mark)


class ExchangeBase(Generic[S]):
    """What `Exchange` and `AsyncExchange` have in common: everything that needs no storage.

    Attributes:
        session: The session. An adapter hands it to the application.
        incoming: The facts of the request.
        saved: What the saves so far came to: what the response has to send.
    """

    __slots__ = ("_at_save", "_given", "_manager", "_sweep_due", "incoming", "saved", "session")

    session: S

    def __init__(self, manager: Any, incoming: Incoming, driver: Any, token: str | None, began: float | None) -> None:
        self._manager: Final = manager
        self._given: Final = token
        self.incoming: Final = incoming
        self.session = manager.open(incoming if token is None else self._with(token), driver=driver)
        self.saved: Saved = UNTOUCHED
        self._at_save: Exception | None = None
        self._sweep_due: bool | None = None
        if began is not None:
            opened(self.session).opened = began

    def _with(self, token: str) -> Incoming:
        cookies = () if Token.parse(token) is None else (f"{self.cookie_name}={token}",)
        return self.incoming._replace(cookies=cookies)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.incoming!r}>"

    # -- what is known ------------------------------------------------------------------------------------------

    @property
    def touched(self) -> bool:
        """True once the application, or the adapter, has done anything with the session."""
        return state_of(self.session) is not None

    @property
    def pending(self) -> bool:
        """True if a save would have something to write.

        Raises:
            UnstorableValue: A value was changed in place into something that cannot be stored.
        """
        state = state_of(self.session)
        return state is not None and is_pending(state, self._manager.clock())

    @property
    def failure(self) -> Exception | None:
        """Why the session is unavailable to this request: its load failed, or a save whose outcome is not known."""
        state = state_of(self.session)
        return None if state is None else state.failure

    @property
    def raised(self) -> bool:
        """True if a use of the session raised an error in the application because storage failed.

        A framework may have made an answer with status 500 of it; the right one is 503.
        """
        state = state_of(self.session)
        return state is not None and state.raised

    @property
    def finished(self) -> bool:
        """True once the session was saved for the last time."""
        state = state_of(self.session)
        return state is not None and state.finished

    @property
    def ended(self) -> bool:
        """True once it is known that the session ended while the request was under way: nothing more is stored."""
        state = state_of(self.session)
        return state is not None and state.dead

    @property
    def ending(self) -> tuple[Token, ...]:
        """The tokens of the session that this request ends, as long as the save that ends it is still to come."""
        state = state_of(self.session)
        return () if state is None else state.ended

    @property
    def begun(self) -> bool:
        """True for a session that `begin` made and that no save has stored yet."""
        state = state_of(self.session)
        return state is not None and state.wish.stored and state.record is None

    @property
    def wrote(self) -> bool:
        """True once a save has written something."""
        state = state_of(self.session)
        return state is not None and state.wrote

    @property
    def info(self) -> SessionInfo | None:
        """The session as it was loaded or last written; None if there is none, or it was not loaded yet.

        It is another object whenever the session was read again, as a save does that merges another request's change.
        """
        state = state_of(self.session)
        return None if state is None else state.record

    @property
    def expires(self) -> float:
        """The moment at which the session ends if nothing else happens, with what is still to be saved counted in."""
        return expiry(opened(self.session))

    @property
    def reason(self) -> Reason | None:
        """Why the request's cookie opens no session, once that was looked up."""
        state = state_of(self.session)
        return None if state is None else state.reason

    @property
    def token(self) -> Token | None:
        """The token in force: the client's, or the one that takes its place."""
        state = state_of(self.session)
        return None if state is None else state.token

    @property
    def sent(self) -> tuple[Token, ...]:
        """The well-formed tokens that came: those in the request's cookies, or the one that the exchange was given."""
        return _tokens(self._values() if self._given is None else (self._given,))

    def _values(self) -> list[str]:
        return find(self.incoming.cookies, self.cookie_name)

    def use(self) -> None:
        """Record that the application uses the session, as any use of `session` does.

        Raises:
            SessionUnavailable: The session could not be loaded.
        """
        opened(self.session).check()

    def is_own_failure(self, error: BaseException) -> bool:
        """Return whether *error* says that this session's storage failed, and not some other storage.

        If the headers are not out yet, the right answer is 503 then.
        """
        failure = self.failure
        if error is self._at_save:
            return True
        return failure is not None and (
            error is failure or (isinstance(error, SessionUnavailable) and error.__cause__ is failure)
        )

    def _both(self, saved: Saved) -> Saved:
        """Return what two saves before the headers came to: the cookie of the first is still to be sent."""
        if saved.set_cookie is not None:
            return saved
        return replace(self.saved, vary=True, login_refused=saved.login_refused or self.saved.login_refused)

    # -- the response -------------------------------------------------------------------------------------------

    def headers(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the response's *headers* with what the last save adds: Set-Cookie, Vary and Cache-Control, merged.

        Call it after `save`, and `headers_sent` when they are out.
        """
        return with_session(headers, self.saved)

    def headers_sent(self) -> None:
        """Record that the response's headers are out: from here on no cookie can be set.

        What needs one raises `CoatcheckError` from then on: a log-in, a rotation, a first value without a session.
        """
        close_headers(self.session)

    def finish_untouched(self) -> bool:
        """Finish a session that nobody used, and return True; otherwise return False and do nothing.

        To be called when nothing of the application runs any more: there is nothing to save and no header to add.
        """
        if state_of(self.session) is not None:
            return False
        finish(self.session)
        return True

    @property
    def sweep_due(self) -> bool:
        """True if `close` is going to sweep. It is decided once, when it is first asked for."""
        if self._sweep_due is None:
            state = state_of(self.session)
            self._sweep_due = state is not None and state.wrote and self._manager.sweep_due()
        return self._sweep_due

    # -- cookies of the adapter's own making --------------------------------------------------------------------

    @property
    def _channel(self) -> Channel:
        return channel_of(self._manager.policy, self.incoming.scheme)

    @property
    def cookie_name(self) -> str:
        """The full name of the cookie, with the prefix that it has for this request."""
        return cookie_name(self._manager.policy, self._channel)

    def cookie(self, lifetime: float | None) -> str | None:
        """Return the value of a Set-Cookie header for the token in force; None if there is none.

        Args:
            lifetime: Seconds until the browser drops the cookie, or None until it closes.
        """
        token = self.token
        return None if token is None else set_cookie(self._manager.policy, self._channel, token.secret, lifetime)

    def deletion(self) -> str:
        """Return the value of a Set-Cookie header that deletes the session's cookie."""
        return deletion(self._manager.policy, self._channel)

    def deletions(self) -> tuple[str, ...]:
        """Return the values of Set-Cookie headers that delete the other cookies of the name, if several came.

        They go before the header that sets or deletes the session's own.
        """
        if len(self._values()) < 2:  # noqa: PLR2004 (several)
            return ()
        return deletions_of_others(self._manager.policy, self._channel, self.incoming.host, self.incoming.path)

    # -- the life of a session, for interfaces that lead it themselves ------------------------------------------

    def begin(self, *, deadline: float | None = None, stored: bool = True) -> Token:
        """Go on with a new, empty session, which the next save stores even without a value. Return its token.

        What the request's cookies open is left as it is, but ends together with the new session if this request ends
        that: a browser may keep several cookies. If the session was looked up before and had ended while the request
        was under way, nothing is stored, and `ended` is true: the cookie would take the place of a newer one.

        Args:
            deadline: The moment at which it ends in any case, in seconds since the epoch.
            stored: False for a session that is only of this request: nothing of it is stored, and no cookie is sent.

        Raises:
            CoatcheckError: The response's headers are out, or the session was saved for the last time.
        """
        state = opened(self.session)
        if state.finished or (stored and state.closed_headers):
            raise CoatcheckError("begin(): the response has started, so its cookie cannot be sent: begin before")
        values = self._values()
        if len(values) > 1:
            state.rivals, state.doubled = _tokens(values), True
            state.place = self.incoming.host, self.incoming.path
        state.dead = state.dead or not stored
        state.begin(None if state.dead else deadline)
        assert state.token is not None  # noqa: S101 (it was just drawn)
        return state.token

    def savepoint(self) -> Savepoint:
        """Return the session as it is, before a save in a transaction of the application's that may not last."""
        return Savepoint(self)

    @property
    def deadline(self) -> float | None:
        """The moment at which the session is to end in any case; None for the one that is stored, or none."""
        state = state_of(self.session)
        return None if state is None else state.wish.deadline

    @deadline.setter
    def deadline(self, moment: float | None) -> None:
        opened(self.session).ask(deadline=moment)

    def _changes(self) -> Changes | None:
        state = state_of(self.session)
        return None if state is None else state.changes

    def _keep_readable(self, changes: Changes | None) -> None:
        """Leave the application what it read and wrote, though nothing of it is stored."""
        state = state_of(self.session)
        if state is not None and changes is not None and state.dead:
            state.changes = changes


def _tokens(values: Iterable[str]) -> tuple[Token, ...]:
    return tuple(token for token in map(Token.parse, values) if token is not None)
