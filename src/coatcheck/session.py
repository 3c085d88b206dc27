"""What the application holds: a session as a mapping, and the namespaces in it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Self

from coatcheck.changes import Changes
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable, SessionUnavailable, UnstorableValue
from coatcheck.merge import MISSING
from coatcheck.record import NEVER, Name, Record
from coatcheck.state import State

__all__ = ["AsyncSession", "Session", "Store", "state_of"]

_APP: Final = re.compile(r"[a-zA-Z0-9_.-]{1,255}", re.ASCII)
_MAX_KEY: Final = 255
_DEFAULT_APP: Final = ""


class _Values(MutableMapping[str, Any]):
    """The values of one application, as a mapping: every operation of a dict, each of them saved."""

    __slots__ = ()

    @property
    @abstractmethod
    def app(self) -> str:
        """The name of the application."""

    @abstractmethod
    def _changes(self) -> Changes:
        """Give the values and note a use of the session."""

    def __getitem__(self, key: str) -> Any:
        value = self._changes().read((self.app, key))
        if value is MISSING:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Give the value under *key*, or *default*."""
        value = self._changes().read((self.app, key))
        return default if value is MISSING else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._changes().read((self.app, key)) is not MISSING

    def __setitem__(self, key: str, value: Any) -> None:
        self._changes().write(self._name(key), value)

    def __delitem__(self, key: str) -> None:
        self._changes().drop((self.app, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._changes().keys(self.app))

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._changes().keys(self.app))

    def __len__(self) -> int:
        return len(self._changes().keys(self.app))

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Any:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """Give the values as a dict of their own; a change of that dict is not saved."""
        return dict(self)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, as a dict does, and give it with its value.

        Raises:
            KeyError: There is none.
        """
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): no values")

    def clear(self) -> None:
        """Delete all values of this application, those that other requests just wrote included."""
        self._changes().clear(self.app)

    def increment(self, key: str, amount: int = 1) -> None:
        """Add to a counter: exact however many requests do so at once, and without reading.

        Args:
            key: The key; one that is missing counts from 0. Any integer of 64 bits that was assigned is a counter.
            amount: What to add; negative to subtract.

        Raises:
            NotACounter: The key holds something else. Where this is not yet known, saving raises it.
            CounterOverflow: The result does not fit a signed 64-bit integer. Likewise.
        """
        if type(amount) is not int:
            raise UnstorableValue(
                self.app,
                key if isinstance(key, str) else repr(key),
                type(amount).__qualname__,
                "increment takes an int",
            )
        self._changes().increment(self._name(key), amount)

    def update_with(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Assign *function* of the value under *key*, exactly however many requests do so at once.

        Args:
            key: The key.
            function: Takes the present value and gives the new one. It has no other effect, since it runs again
                where another request changed the value meanwhile.
            default: What the function gets for a key that is missing.

        Returns:
            The new value, as this request sees it.
        """
        return self._changes().update_with(self._name(key), function, default)

    def _name(self, key: object) -> Name:
        if type(key) is not str:
            why = f"a key must be a str, not {type(key).__qualname__}"
            raise UnstorableValue(self.app, repr(key), type(key).__qualname__, why)
        if not 0 < len(key) <= _MAX_KEY or "\0" in key or not (key.isascii() or _is_unicode(key)):
            why = f"a key must be 1 to {_MAX_KEY} characters, without NUL or lone surrogates"
            raise UnstorableValue(self.app, key, "str", why)
        return (self.app, key)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Store(_Values):
    """One application's namespace in a session. Many applications share one session, one cookie and one expiry."""

    __slots__ = ("_app", "_session")

    def __init__(self, session: Session, app: str) -> None:
        self._session = session
        self._app = app

    @property
    def app(self) -> str:
        """The name of the application."""
        return self._app

    def _changes(self) -> Changes:
        return self._session._changes()  # noqa: SLF001 (one class in two parts)

    def __repr__(self) -> str:
        return f"<Store {self._app!r} of {self._session!r}>"


class Session(_Values):
    """A request's session: a mapping, and the session's life. It costs nothing until it is used.

    Values are read from storage at the first use and written once, when the response starts. A Session belongs to one
    request and is not shared between threads.
    """

    __slots__ = ("_arguments", "_headers_sent", "_opened", "_opener")

    def __init__(self, opener: Callable[..., State], *arguments: Any) -> None:
        self._opener = opener
        self._arguments = arguments
        self._opened: State | None = None
        self._headers_sent = False

    def _state(self) -> State:
        state = self._opened
        if state is None:
            state = self._opened = self._opener(*self._arguments)
            state.closed_headers = self._headers_sent
        return state

    def _changes(self) -> Changes:
        state = self._opened or self._state()
        state.check()
        return state.changes

    def _loaded(self) -> State:
        state = self._state()
        state.load()
        return state

    app = _DEFAULT_APP
    """The name of the default store: the empty string."""

    def __repr__(self) -> str:
        state = self._opened
        if state is None or state.record is None:
            return "<Session>" if state is None or not state.loaded else "<Session, new>"
        return f"<Session sid={state.record.sid}>"

    # -- the session's life -------------------------------------------------------------------------------------

    def store(self, app: str) -> Store:
        """Give the namespace of *app*: 1 to 255 characters of ``a-zA-Z0-9-_.``.

        Raises:
            ConfigurationError: The name has another form.
        """
        if not isinstance(app, str) or _APP.fullmatch(app) is None:
            raise ConfigurationError(f"store({app!r}): the name must be 1 to 255 characters of a-z A-Z 0-9 - _ .")
        return Store(self, app)

    def login(self, user: str, keep: Iterable[str | Name] = ()) -> None:
        """Log *user* in: a new token, the old one dead at once, and nothing of what the visitor had left, but *keep*.

        Args:
            user: The user's name or number as a string, as `SessionManager.revoke_user` will be given it.
            keep: Keys of the default store, or (app, key) pairs, whose values stay, such as the cart. Where another
                user was logged in, nothing is kept (ASVS 7.2.4; WSTG-SESS-08).

        Raises:
            CoatcheckError: *user* is not a string of 1 to 255 characters, *keep* is a string instead of a list of them,
                or the response's headers are already out.
        """
        check_user(user)
        if isinstance(keep, str):
            raise CoatcheckError(f"login(keep={keep!r}) would keep the values under its letters: say keep=[{keep!r}]")
        state = self._state()
        _check_headers(state, "login")
        state.check()
        kept = [(_DEFAULT_APP, key) if isinstance(key, str) else (key[0], key[1]) for key in keep]
        if kept and self.user not in (None, user):
            kept = []
        state.changes.clear_all(kept)
        state.login = (user, state.revocations.login_moment(user, state.opened))

    def logout(self) -> None:
        """End the session, whoever is logged in. What is written after it goes to a new session with a new token."""
        self.destroy()

    def rotate(self) -> None:
        """Give the client a new token; the old one is dead at once. For a change of rights within a log-in.

        Raises:
            CoatcheckError: The response's headers are already out.
        """
        state = self._state()
        _check_headers(state, "rotate")
        state.check()
        state.rotate = True

    def destroy(self) -> None:
        """End the session in storage, for every request that has it. Done when the response starts."""
        self._state().end()

    def expire_at(self, moment: float) -> None:
        """Set the moment, in seconds since the epoch, at which the session ends whatever happens.

        Now or earlier ends it as soon as it is saved. The idle and absolute limits go on beside it.

        Raises:
            ValueError: *moment* is not a number.
        """
        if moment != moment:  # noqa: PLR0124 (NaN compares as later than everything, and would outlive every limit)
            raise ValueError("expire_at(moment): NaN is no moment")
        state = self._state()
        state.check()
        state.deadline = max(0.0, min(float(moment), NEVER))

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """False where the session could not be loaded because its storage is unavailable. Loads the session."""
        try:
            self._loaded()
        except (DriverUnavailable, SessionUnavailable):
            return False
        return True

    @property
    def is_new(self) -> bool:
        """True where no stored session belongs to this request so far."""
        return self._loaded().record is None

    @property
    def sid(self) -> str | None:
        """The session's public name, for good: for logs and lists of devices. None until it is stored or logged in."""
        return self._loaded().sid

    @property
    def user(self) -> str | None:
        """The user who is logged in, or None."""
        state = self._state()
        state.check()
        if state.login is not None:
            return state.login[0]
        state.load()
        return None if state.record is None else state.record.user

    @property
    def auth_time(self) -> float | None:
        """When the user last logged in, in seconds since the epoch, or None."""
        state = self._state()
        state.check()
        if state.login is not None:
            return state.login[1]
        state.load()
        return None if state.record is None else state.record.auth_time

    @property
    def created(self) -> float:
        """When the session was made, in seconds since the epoch."""
        state = self._loaded()
        return state.opened if state.record is None else state.record.created

    @property
    def seen(self) -> float:
        """The last recorded activity, in seconds since the epoch."""
        state = self._loaded()
        return state.opened if state.record is None else state.record.seen

    @property
    def expires(self) -> float:
        """The moment at which the session ends if nothing else happens, in seconds since the epoch."""
        return expiry(self._loaded())


class AsyncSession(Session):
    """A request's session in an asynchronous program: the same mapping, read from storage by ``await session.load()``.

    Until then, reading from it raises `SessionNotLoaded`. What writes without reading (an assignment, `increment`,
    `logout`, `login` that keeps nothing) needs no load.
    """

    __slots__ = ("_loader",)

    def __init__(
        self, loader: Callable[[Any, State], Awaitable[None]], opener: Callable[..., State], *arguments: Any
    ) -> None:
        super().__init__(opener, *arguments)
        self._loader = loader

    async def load(self) -> Self:
        """Find out whether there is a session, and read its values; once is enough. Gives the session itself.

        Loading alone is no use of the session: it does not count as activity, and the response does not vary with it.

        Raises:
            DriverUnavailable: Storage failed.
            SessionUnavailable: It failed before.
        """
        state = self._state()
        if state.failure is not None:
            raise SessionUnavailable(was_saved=state.over) from state.failure
        if not state.loaded:
            await self._loader(state.driver, state)
        return self


def expiry(state: State) -> float:
    """Give the moment at which a session ends, with what is still to be written counted in."""
    policy, known = state.policy, state.record
    record = known or Record(
        sid="",
        digest=b"",
        created=state.opened,
        seen=state.opened,
        idle=policy.idle_seconds,
        absolute=policy.absolute_seconds,
    )
    start = state.login[1] if state.login is not None else record.auth_time or record.created
    deadline = record.deadline if state.deadline is None else state.deadline
    return min(deadline, record.seen + record.idle, start + record.absolute)


def state_of(session: Session) -> State | None:
    """Give what is behind a session, for the manager and for adapters; None where nobody used the session."""
    return session._opened  # noqa: SLF001 (the one door for the rest of the package)


def close_headers(session: Session) -> None:
    """Note that the response's headers are out: from here on no cookie can be set."""
    session._headers_sent = True  # noqa: SLF001 (the one door for the rest of the package)
    if (state := session._opened) is not None:  # noqa: SLF001 (likewise)
        state.closed_headers = True


def check_user(user: object) -> str:
    """Check the name of a user.

    Raises:
        CoatcheckError: It is not a string of 1 to 255 characters.
    """
    if type(user) is not str or not 0 < len(user) <= _MAX_KEY or "\0" in user or not _is_unicode(user):
        raise CoatcheckError("a user is named by a str of 1 to 255 characters without NUL, such as str(user.id)")
    return user


def sid_to_keep(keep: object) -> str | None:
    """Return the sid of a session that a revocation is to spare.

    Raises:
        CoatcheckError: *keep* is neither a sid nor a session that has one.
    """
    sid = keep.sid if isinstance(keep, Session) else keep
    if keep is not None and (not isinstance(sid, str) or not sid):
        raise CoatcheckError(
            "revoke_user(keep=...) takes a session or its sid; a session has a sid once it is stored or logged in:"
            " call login() before"
        )
    return sid if isinstance(sid, str) else None


def opened(session: Session) -> State:
    """Give what is behind a session, and open it where nobody used it yet."""
    return session._state()  # noqa: SLF001 (likewise)


def _check_headers(state: State, what: str) -> None:
    if state.closed_headers:
        raise CoatcheckError(f"{what}() needs a cookie, and the response has started: call it before the first output")
