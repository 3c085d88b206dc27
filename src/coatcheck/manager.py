"""SessionManager and AsyncSessionManager: configured once for an application, they open and save its sessions.

Two thin shells that carry out the same plan, one by calling the driver and one by awaiting it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Self

from coatcheck import saving
from coatcheck.codec import Codec
from coatcheck.cookie import Channel
from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers._strangers import check_driver
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable
from coatcheck.events import Event, EventKind, Listener
from coatcheck.incoming import Incoming
from coatcheck.loading import load
from coatcheck.opening import ManagerBase
from coatcheck.policy import Policy
from coatcheck.record import SessionInfo
from coatcheck.saved import UNTOUCHED, Saved
from coatcheck.session import AsyncSession, Session, check_user, checked_sids, sid_to_keep, spare
from coatcheck.state import State
from coatcheck.steps import Pause, Steps

__all__ = ["AsyncSessionManager", "SessionManager"]

_log: Final = logging.getLogger("coatcheck")

_ONE_COOKIE: Final = "open() takes the values of all Cookie headers of the request, in a list: call open([header])"


def _wrong_kind(storage: object, manager: str, how: str) -> ConfigurationError:
    found = type(storage).__qualname__
    return ConfigurationError(f"{manager} takes a URL, as text, or a driver such as {how} gives, not a {found}")


class SessionManager(ManagerBase):
    """Opens, saves and revokes sessions: a `Policy`, a `Driver` and a `Codec`. Shared by all threads.

    ``with SessionManager(url) as manager:`` closes it at the end.

    Args:
        storage: A URL such as ``"sqlite:///sessions.db"`` or ``"memory:"``, or a driver.
        policy: The settings. Default ``Policy()``.
        codec: Turns values into bytes. Pass one on which the application's own types are registered.
        listeners: Functions that are told of each `Event`.
        clock: Gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: The URL names no known engine, or an option that it does not have; or something is of the
            wrong kind.
    """

    driver: Driver
    _loads_by_itself = True

    def __init__(
        self,
        storage: str | Driver,
        policy: Policy | None = None,
        *,
        codec: Codec | None = None,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(policy, codec, listeners, clock)
        self.driver = open_driver(storage) if isinstance(storage, str) else storage
        if not isinstance(self.driver, Driver):
            raise _wrong_kind(storage, "SessionManager", "coatcheck.driver(url)")
        check_driver(self.driver)

    def open(
        self,
        request: Incoming | Sequence[str] = (),
        channel: Channel = Channel.SECURE,
        *,
        driver: Driver | None = None,
    ) -> Session:
        """Return a request's session. Reads nothing until the session is used.

        Args:
            request: The facts of the request, or the values of its Cookie headers alone, in a list.
            channel: How the request came, if *request* does not say so. Default by https.
            driver: A driver on a connection that the application lends; default the manager's own.
        """
        if isinstance(request, str):
            raise CoatcheckError(_ONE_COOKIE)
        return Session(self, request, channel, driver or self.driver, self.clock())

    def load_state(self, state: State) -> None:
        """Find out which session a request belongs to; see `coatcheck.loading`."""
        driver: Driver = state.driver
        if len(state.candidates) > 1:
            self._run(load(state, self.clock()), driver)
        else:  # the same without a plan, since nearly every request does this
            now = self.clock()
            try:
                answer = driver.load(state.candidates[0].digest, now)
            except DriverUnavailable as error:
                state.load_failed(error)
                raise
            state.answered(answer, now)
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)

    def save(
        self,
        session: Session,
        *,
        driver: Driver | None = None,
        final: bool = False,
        on_conflict: Literal["last", "error"] | None = None,
    ) -> Saved:
        """Write what a request changed, all of it or nothing. Call it before the response's headers go out.

        Args:
            session: A session of this manager.
            driver: A driver on a connection that the application lends; default the one that the session was opened
                with. A second save on such a connection looks whether the first one is still there, and writes it again
                if the application has rolled it back.
            final: True if the request is through with its session, so that nothing is saved after this.
            on_conflict: What happens if another request changed one key and the changes do not merge; default as the
                policy says. After a `ConflictError`, "last" lets this request's change win.

        Returns:
            The cookie to send, if any, and whether the response varies with the session.

        Raises:
            DriverUnavailable: Storage failed; with ``outcome_unknown`` the change may have been written, and is not
                sent again.
            SessionUnavailable: An earlier save of this session ended so; or it was on a lent connection, and what
                became of it cannot be told.
            ConflictError: Two requests changed one key, and *on_conflict* is "error". Nothing was written.
            CounterError: An increment cannot be done.
            UnstorableValue: A value was changed in place into something that cannot be stored.
            CoatcheckError: Another manager opened the session, or another thread is saving it.
        """
        state = self._to_save(session, final=final)
        if state is None:
            return UNTOUCHED
        driver, now = driver or state.driver, self.clock()
        is_lent = driver is not self.driver
        pending = saving.first_look(state, now, is_lent=is_lent, final=final)
        if isinstance(pending, Saved):
            return pending
        conflicts = on_conflict or self.policy.on_conflict
        steps = saving.save(state, now, pending, is_lent=is_lent, final=final, on_conflict=conflicts)
        if vars(state).setdefault("turn", steps) is not steps:
            raise CoatcheckError("save(session): another thread is saving it; a session belongs to one request")
        try:
            saved: Saved = self._run(steps, driver)
        finally:
            del vars(state)["turn"]
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)
        return saved

    @staticmethod
    def _run(steps: Steps, driver: Driver) -> Any:
        """Carry out a plan."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = getattr(driver, step.method)(*step.args, **step.named)
                except BaseException as error:  # noqa: BLE001 (the plan decides, and raises it again)
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def sweep(self) -> int:
        """Remove a slice of the expired sessions, `Policy.sweep_limit` at most, and return their number.

        A failure is logged and goes no further: nothing depends on a sweep.
        """
        try:
            return self.driver.sweep(self.clock(), self.policy.sweep_limit)
        except DriverUnavailable:
            _log.warning("could not sweep expired sessions", exc_info=True)
            return 0

    def sessions_of(self, user: str, *, driver: Driver | None = None) -> list[SessionInfo]:
        """List the live sessions of *user*, oldest first.

        Args:
            user: The user, as `Session.login` takes it.
            driver: A driver on a connection that the application lends; default the manager's own.

        Raises:
            UnsupportedCapability: The engine keeps no index by user.
        """
        return (driver or self.driver).sessions_of(check_user(user), self.clock())

    def revoke_user(self, user: str, *, keep: str | Session | None = None, driver: Driver | None = None) -> int:
        """End all sessions of *user*, on every device, but *keep*; return their number.

        A log-in that began before and is still under way does not slip through (ASVS 7.4.2, 7.4.3). One in the same
        request, after this call or into the session *keep*, stands.

        Args:
            user: The user, as `Session.login` takes it.
            keep: The session that goes on, or its sid. It may be one that this request logs in and has not saved yet.
            driver: A driver on a connection that the application lends, such as the one on which the new password is
                written; default the manager's own.

        Raises:
            UnsupportedCapability: The engine keeps no index by user.
            CoatcheckError: *keep* is a session that is neither stored nor logged in, or something else than a session
                or a sid.
        """
        sid = sid_to_keep(keep)
        now = self.clock()
        ended = (driver or self.driver).revoke_user(check_user(user), now, keep=sid)
        spare(keep, self._revocations.note(user, now, sid))
        if ended:
            self.emit(Event(kind=EventKind.DESTROYED, user=user))
        return ended

    def end_sessions(self, user: str, sids: Iterable[str], *, driver: Driver | None = None) -> int:
        """End some sessions of *user*, as a list of devices names them; return the number of live ones ended.

        A session that is not this user's stays as it is, so *sids* may come from a form as they are.

        Args:
            user: The user, as `Session.login` takes it.
            sids: The sids; see `sessions_of`.
            driver: A driver on a connection that the application lends; default the manager's own.

        Raises:
            CoatcheckError: *sids* is one sid and not a list, or holds something else than strings.
        """
        ended = (driver or self.driver).end(checked_sids(sids), self.clock(), user=check_user(user))
        if ended:
            self.emit(Event(kind=EventKind.DESTROYED, user=user))
        return ended

    def close(self) -> None:
        """Close the driver's connections. The next use opens new ones."""
        self.driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncSessionManager(ManagerBase):
    """`SessionManager` for asynchronous programs, over an `AsyncDriver`. Shared by all tasks and event loops.

        manager = AsyncSessionManager("redis://localhost")
        session = manager.open([cookie_header])
        await session.load()
        session["cart"].append("hat")
        saved = await manager.save(session)

    Args:
        storage: A URL, the same as for `SessionManager`, or an asynchronous driver.
        policy: The settings. Default ``Policy()``.
        codec: Turns values into bytes. Pass one on which the application's own types are registered.
        listeners: Functions that are told of each `Event`. They are called, not awaited.
        clock: Gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: The URL names no known engine, or an option that it does not have; or something is of the
            wrong kind.
    """

    driver: AsyncDriver
    _loads_by_itself = False

    def __init__(
        self,
        storage: str | AsyncDriver,
        policy: Policy | None = None,
        *,
        codec: Codec | None = None,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(policy, codec, listeners, clock)
        self.driver = open_async_driver(storage) if isinstance(storage, str) else storage
        if not isinstance(self.driver, AsyncDriver):
            raise _wrong_kind(storage, "AsyncSessionManager", "coatcheck.async_driver(url)")
        check_driver(self.driver)

    def open(
        self,
        request: Incoming | Sequence[str] = (),
        channel: Channel = Channel.SECURE,
        *,
        driver: AsyncDriver | None = None,
    ) -> AsyncSession:
        """Return a request's session; ``await session.load()`` before anything is read from it.

        Args:
            request: The facts of the request, or the values of its Cookie headers alone, in a list.
            channel: How the request came, if *request* does not say so. Default by https.
            driver: A driver on a connection that the application lends; default the manager's own.
        """
        if isinstance(request, str):
            raise CoatcheckError(_ONE_COOKIE)
        chosen = driver or self.driver
        return AsyncSession(self, request, channel, chosen, self.clock())

    async def load_state(self, state: State) -> None:
        """Find out which session a request belongs to; see `coatcheck.loading`."""
        driver: AsyncDriver = state.driver
        await self._run(load(state, self.clock()), driver)
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)

    async def save(
        self,
        session: Session,
        *,
        driver: AsyncDriver | None = None,
        final: bool = False,
        on_conflict: Literal["last", "error"] | None = None,
    ) -> Saved:
        """Write what a request changed, all of it or nothing; see `SessionManager.save`.

        If the task is cancelled meanwhile, the change may have been written; it is not sent again. If another task of
        the request is saving the session, this one waits until it is done, and saves what was changed since.
        """
        state = self._to_save(session, final=final)
        if state is None:
            return UNTOUCHED
        while "turn" in vars(state):
            await _turn(state)
        driver, now = driver or state.driver, self.clock()
        is_lent = driver is not self.driver
        pending = saving.first_look(state, now, is_lent=is_lent, final=final)
        if isinstance(pending, Saved):
            return pending
        conflicts = on_conflict or self.policy.on_conflict
        steps = saving.save(state, now, pending, is_lent=is_lent, final=final, on_conflict=conflicts)
        state.turn = []
        try:
            saved: Saved = await self._run(steps, driver)
        finally:
            for waiting in vars(state).pop("turn"):
                waiting.set()
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)
        return saved

    @staticmethod
    async def _run(steps: Steps, driver: AsyncDriver) -> Any:
        """Carry out a plan."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await _sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = await getattr(driver, step.method)(*step.args, **step.named)
                except BaseException as error:  # noqa: BLE001 (the plan decides, and raises it again)
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    async def sweep(self) -> int:
        """Remove a slice of the expired sessions; see `SessionManager.sweep`."""
        try:
            return await self.driver.sweep(self.clock(), self.policy.sweep_limit)
        except DriverUnavailable:
            _log.warning("could not sweep expired sessions", exc_info=True)
            return 0

    async def sessions_of(self, user: str, *, driver: AsyncDriver | None = None) -> list[SessionInfo]:
        """List the live sessions of *user*, oldest first; see `SessionManager.sessions_of`."""
        return await (driver or self.driver).sessions_of(check_user(user), self.clock())

    async def revoke_user(
        self, user: str, *, keep: str | Session | None = None, driver: AsyncDriver | None = None
    ) -> int:
        """End all sessions of *user* but *keep*, a session or its sid; see `SessionManager.revoke_user`."""
        if isinstance(keep, AsyncSession):
            await keep.load()
        sid = sid_to_keep(keep)
        now = self.clock()
        ended = await (driver or self.driver).revoke_user(check_user(user), now, keep=sid)
        spare(keep, self._revocations.note(user, now, sid))
        if ended:
            self.emit(Event(kind=EventKind.DESTROYED, user=user))
        return ended

    async def end_sessions(self, user: str, sids: Iterable[str], *, driver: AsyncDriver | None = None) -> int:
        """End some sessions of *user*, as a list of devices names them; see `SessionManager.end_sessions`."""
        ended = await (driver or self.driver).end(checked_sids(sids), self.clock(), user=check_user(user))
        if ended:
            self.emit(Event(kind=EventKind.DESTROYED, user=user))
        return ended

    async def close(self) -> None:
        """Close the driver's connections of the running event loop. The next use opens new ones."""
        await self.driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _sleep(seconds: float) -> None:
    import asyncio  # noqa: PLC0415 (an asynchronous program has it loaded; a synchronous one should not have to)

    await asyncio.sleep(seconds)


async def _turn(state: State) -> None:
    """Wait until the save that is under way is done."""
    import asyncio  # noqa: PLC0415 (as above)

    done = asyncio.Event()
    state.turn.append(done)
    await done.wait()
