"""What the application holds: a session as a mapping, and the namespaces in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Self

from coatcheck._forms import is_text
from coatcheck.changes import Changes
from coatcheck.drivers.base import Capability
from coatcheck.errors import (
    CoatcheckError,
    ConfigurationError,
    DriverUnavailable,
    SessionUnavailable,
    UnsupportedCapability,
)
from coatcheck.moments import moment_of
from coatcheck.record import MAX_NOTE, WHOLE, Record, ValueKey
from coatcheck.revoked import Revocation
from coatcheck.state import State
from coatcheck.values import MAX_NAME, Values, checked_name

__all__ = ["AsyncSession", "Session", "Store", "state_of"]

_APP: Final = re.compile(r"[a-zA-Z0-9_.-]{1,255}", re.ASCII)
_DEFAULT_APP: Final = ""
_HEADERS_SENT: Final = 1
_FINISHED: Final = 2


class Store(Values):
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

    def _to_write(self) -> Changes:
        return self._session._to_write()  # noqa: SLF001 (likewise)

    def __repr__(self) -> str:
        return f"<Store {self._app!r} of {self._session!r}>"


class Session(Values):
    """A request's session: a mapping, and the session's life. It costs nothing until it is used.

    Values are read from storage at the first use and written once, when the response starts. A Session belongs to one
    request and is not shared between threads.
    """

    __slots__ = ("_manager", "_opened", "_request", "_stage")

    def __init__(self, manager: Any, *request: Any) -> None:
        self._manager = manager
        self._request = request
        self._opened: State | None = None
        self._stage = 0  # _HEADERS_SENT from when no cookie can be set any more, _FINISHED after the last save

    def _state(self) -> State:
        state = self._opened
        if state is None:
            state = self._opened = self._manager.state_of_request(*self._request)
            if self._stage:
                state.closed_headers, state.finished = True, self._stage == _FINISHED
        return state

    def _changes(self) -> Changes:
        state = self._opened or self._state()
        state.check()
        return state.changes

    def _to_write(self) -> Changes:
        return self._to_change().changes

    def _to_change(self) -> State:
        state = self._opened or self._state()
        state.check()
        if state.finished:
            raise CoatcheckError(
                "the session was saved for the last time, and this change would be lost: change it before the response"
                " is finished, or before save(final=True)"
            )
        return state

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
        """Return the namespace of *app*: 1 to 255 characters of ``a-zA-Z0-9-_.``.

        Raises:
            ConfigurationError: The name has another form.
        """
        if not isinstance(app, str) or _APP.fullmatch(app) is None:
            raise ConfigurationError(f"store({app!r}): the name must be 1 to 255 characters of a-z A-Z 0-9 - _ .")
        return Store(self, app)

    def login(self, user: str, keep: Iterable[str | ValueKey | Values] = (), *, end_others: bool = False) -> None:
        """Log *user* in: a new token, the old one dead at once, and nothing of what the visitor had left, but *keep*.

        Args:
            user: The user's name or number as a string, as `SessionManager.revoke_user` will be given it.
            keep: What stays, such as the cart: keys of the default store, (app, key) pairs, and whole stores, as in
                ``[session.store("shop")]``. If another user was logged in, nothing is kept (ASVS 7.2.4; WSTG-SESS-08).
            end_others: True ends all other sessions of the user once this one is stored, as after a change of password
                (ASVS 7.4.3). A log-in that is refused ends none.

        Raises:
            UnsupportedCapability: *end_others* is set, and the engine keeps no index by user.
            CoatcheckError: *user* is not a string of 1 to 255 characters, *keep* is not a list of the above, or the
                response's headers are already out.
        """
        check_user(user)
        kept = _names_to_keep(keep)
        state = self._to_change()
        _check_headers(state, "login")
        if end_others:
            _check_index(state)
        if kept and self.user not in (None, user):
            kept = []
        state.changes.clear_all(kept)
        moment = state.revocations.login_moment(user, state.opened)
        state.ask(login=(user, moment), end_others=end_others, note=state.wish.note or b"")

    def end_others(self) -> None:
        """End all other sessions of the user who is logged in, on every device. Done when the session is saved.

        To log in and end the others in one request, say ``login(user, end_others=True)``.

        Raises:
            UnsupportedCapability: The engine keeps no index by user.
            CoatcheckError: Nobody is logged in.
        """
        state = self._to_change()
        _check_index(state)
        if self.user is None:
            raise CoatcheckError(
                "end_others(): nobody is logged in, so there is no user whose other sessions could end"
            )
        state.ask(end_others=True)

    def logout(self) -> None:
        """End the session, with or without a user. What is written after it goes to a new session with a new token."""
        self.destroy()

    def rotate(self) -> None:
        """Issue a new token to the client; the old one is dead at once. For a change of rights within a log-in.

        Raises:
            CoatcheckError: The response's headers are already out.
        """
        state = self._to_change()
        _check_headers(state, "rotate")
        state.ask(rotate=True)

    def destroy(self) -> None:
        """End the session in storage, for every request that has it. Done when the response starts."""
        self._to_change().end()

    def expire_at(self, moment: float | datetime | timedelta) -> None:
        """Set the moment at which the session ends whatever happens.

        Now or earlier ends it as soon as it is saved. The idle and absolute limits go on beside it.

        Args:
            moment: Seconds since the epoch, a datetime with its time zone, or a timedelta from now.

        Raises:
            ConfigurationError: *moment* is something else, or lies before the session began, as a length of time in
                seconds does. For a moment before this request came, that is looked up, and storage may fail.
        """
        state = self._to_change()
        deadline = moment_of(moment, state.clock)
        if deadline < state.opened and not isinstance(moment, timedelta):
            state.load()
            if deadline < (state.opened if state.record is None else state.record.created):
                raise ConfigurationError(
                    "expire_at(moment): this moment is before the session began; for a duration from now use"
                    " expire_at(timedelta(seconds=...))"
                )
        state.ask(deadline=deadline)

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """False where the session could not be loaded because its storage is unavailable. Loads the session."""
        state = self._state()
        raised = state.raised
        try:
            self._loaded()
        except (DriverUnavailable, SessionUnavailable):
            state.raised = raised  # it is told by False and not by an error
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
        if state.wish.login is not None:
            return state.wish.login[0]
        state.load()
        return None if state.record is None else state.record.user

    @property
    def auth_time(self) -> float | None:
        """When the user last logged in, in seconds since the epoch, or None."""
        state = self._state()
        state.check()
        if state.wish.login is not None:
            return state.wish.login[1]
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
    def note(self) -> bytes:
        """What the application keeps with the session for a list of devices, such as the client or a label.

        `SessionInfo.note` shows it without reading values. It is at most `MAX_NOTE` (1,024) bytes. A rotation keeps it,
        and a log-in empties it, unless the same request sets it. A note alone begins no session.

        Raises:
            CoatcheckError: What is assigned is not bytes, or is too long.
        """
        state = self._state()
        state.check()
        if state.wish.note is not None:
            return state.wish.note
        state.load()
        return b"" if state.record is None else state.record.note

    @note.setter
    def note(self, note: bytes) -> None:
        if type(note) is not bytes or len(note) > MAX_NOTE:
            raise CoatcheckError(f"session.note takes bytes, at most {MAX_NOTE} of them")
        self._to_change().ask(note=note)

    @property
    def expires(self) -> float:
        """The moment at which the session ends if nothing else happens, in seconds since the epoch."""
        return expiry(self._loaded())


class AsyncSession(Session):
    """A request's session in an asynchronous program: the same mapping, read from storage by ``await session.load()``.

    Until then, reading from it raises `SessionNotLoaded`. What writes without reading (an assignment, `increment`,
    `logout`, `login` that keeps nothing) needs no load.
    """

    __slots__ = ()

    async def load(self) -> Self:
        """Find out whether there is a session, and read its values; once is enough. Gives the session itself.

        Loading alone is no use of the session: it does not count as activity, and the response does not vary with it.

        Raises:
            DriverUnavailable: Storage failed.
            SessionUnavailable: It failed before.
        """
        state = self._state()
        if state.failure is not None:
            state.raised = True
            raise SessionUnavailable(was_saved=state.finished) from state.failure
        if not state.loaded:
            await self._manager.load_state(state)
        return self


def expiry(state: State) -> float:
    """Return the moment at which a session ends, with what is still to be written counted in."""
    policy, known = state.policy, state.record
    record = known or Record(
        sid="",
        digest=b"",
        created=state.opened,
        seen=state.opened,
        idle=policy.idle_seconds,
        absolute=policy.absolute_seconds,
    )
    start = state.wish.login[1] if state.wish.login is not None else record.auth_time or record.created
    deadline = record.deadline if state.wish.deadline is None else state.wish.deadline
    return min(deadline, record.seen + record.idle, start + record.absolute)


def state_of(session: Session) -> State | None:
    """Return what is behind a session, for the manager and for exchanges; None if nothing used the session yet."""
    return session._opened  # noqa: SLF001 (the one door for the rest of the package)


def close_headers(session: Session) -> None:
    """Record that the response's headers are out: from here on no cookie can be set."""
    session._stage = session._stage or _HEADERS_SENT  # noqa: SLF001 (the one door for the rest of the package)
    if (state := session._opened) is not None:  # noqa: SLF001 (likewise)
        state.closed_headers = True


def finish(session: Session) -> None:
    """Record that the session was saved for the last time: from here on every change of it is refused."""
    session._stage = _FINISHED  # noqa: SLF001 (the one door for the rest of the package)
    if (state := session._opened) is not None:  # noqa: SLF001 (likewise)
        state.finished = True


def check_user(user: object) -> str:
    """Check the name of a user.

    Raises:
        CoatcheckError: It is not a string of 1 to 255 characters.
    """
    if type(user) is not str or not 0 < len(user) <= MAX_NAME or "\0" in user or not is_text(user):
        raise CoatcheckError("a user is named by a str of 1 to 255 characters without NUL, such as str(user.id)")
    return user


def checked_sids(sids: Iterable[str]) -> list[str]:
    """Return the sids of sessions to end, whatever else a form may have sent left out: it names no session.

    Raises:
        CoatcheckError: *sids* is one sid and not a list, or holds something else than strings.
    """
    named = [sids] if isinstance(sids, str) else list(sids)
    if isinstance(sids, str) or not all(type(sid) is str for sid in named):
        raise CoatcheckError("end_sessions(user, sids) takes a list of sids, each a str, as sessions_of gives them")
    return [sid for sid in named if 0 < len(sid) <= MAX_NAME and "\0" not in sid and is_text(sid)]


def sid_to_keep(keep: object) -> str | None:
    """Return the sid of a session that a revocation is to spare.

    Raises:
        CoatcheckError: *keep* is neither a sid nor a session that has one.
    """
    sid = keep.sid if isinstance(keep, Session) else keep
    if keep is not None and (not isinstance(sid, str) or not sid or not sid.isascii()):
        raise CoatcheckError(
            "revoke_user(keep=...) takes a session or its sid; a session has a sid once it is stored or logged in:"
            " call login() first"
        )
    return sid if isinstance(sid, str) else None


def spare(keep: object, revocation: Revocation) -> None:
    """Record that a revocation kept a session, where it was given the session and not its sid."""
    if isinstance(keep, Session):
        opened(keep).spared = revocation


def opened(session: Session) -> State:
    """Return what is behind a session, and open it if nothing used it yet."""
    return session._state()  # noqa: SLF001 (likewise)


def _names_to_keep(keep: Iterable[str | ValueKey | Values]) -> list[ValueKey]:
    if isinstance(keep, str):
        raise CoatcheckError(f"login(keep={keep!r}) would keep the values under its letters: pass keep=[{keep!r}]")
    if isinstance(keep, Values):
        raise CoatcheckError("login(keep=store) would take the store's keys for keys of the session: pass keep=[store]")
    names = []
    for entry in keep if isinstance(keep, Iterable) else (keep,):
        match entry:
            case str():
                names.append(checked_name(_DEFAULT_APP, entry))
            case Values():
                names.append((entry.app, WHOLE))
            case (str() as app, str() as key) if not app or _APP.fullmatch(app):
                names.append(checked_name(app, key))
            case _:
                raise CoatcheckError(
                    "login(keep=[...]) takes keys, (app, key) pairs and stores, as in keep=['cart', ('shop', 'cart'),"
                    f" session.store('shop')], but one entry is a {type(entry).__qualname__} of another form"
                )
    return names


def _check_headers(state: State, what: str) -> None:
    if state.closed_headers:
        raise CoatcheckError(f"{what}() needs a cookie, and the response has started: call it before the first output")


def _check_index(state: State) -> None:
    if Capability.USER_INDEX not in state.driver.capabilities:
        raise UnsupportedCapability(
            state.driver.name, Capability.USER_INDEX, "use an engine that can list the sessions of a user"
        )
