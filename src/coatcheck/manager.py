"""SessionManager and AsyncSessionManager: configured once for an application, they open and save its sessions.

Two thin shells that carry out the same plan, one by calling the driver and one by awaiting it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

from coatcheck import lending, outcome, plan
from coatcheck.codec import Codec
from coatcheck.cookie import Channel
from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers._strangers import check_driver
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.errors import CoatcheckError, ConfigurationError, DriverUnavailable, SessionUnavailable
from coatcheck.events import Event, EventKind, Listener
from coatcheck.incoming import Incoming
from coatcheck.opening import READ, UNTOUCHED, ManagerBase
from coatcheck.outcome import Saved
from coatcheck.policy import Policy
from coatcheck.record import Committed, SessionInfo
from coatcheck.session import (
    AsyncSession,
    Session,
    check_user,
    checked_sids,
    finish,
    sid_to_keep,
    spare,
    state_of,
)
from coatcheck.state import State

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
        codec: Turns values into bytes; give one on which the application's own types are registered.
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
        return Session(self._state, request, channel, driver or self.driver, self.clock())

    def _load(self, driver: Driver, state: State) -> None:
        if len(state.candidates) > 1:
            self._run(plan.load(state, self.clock()), driver)
        else:
            now = self.clock()
            try:
                answer = driver.load(state.candidates[0].digest, now)
            except DriverUnavailable as error:
                outcome.failed(state, error)
                raise
            outcome.loaded(state, answer, now)
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)

    def save(self, session: Session, *, driver: Driver | None = None, final: bool = False) -> Saved:
        """Write what a request changed, all of it or nothing. Call it before the response's headers go out.

        Args:
            session: A session of this manager.
            driver: A driver on a connection that the application lends; default the manager's own. A second save on
                such a connection looks whether the first one is still there, and writes it anew where the application
                has rolled it back.
            final: True where the request is through with its session, so that nothing is saved after this.

        Returns:
            The cookie to send, if any, and whether the response varies with the session.

        Raises:
            DriverUnavailable: Storage failed; with ``outcome_unknown`` the change may have been written, and is not
                sent again.
            SessionUnavailable: An earlier save of this session ended so; or it was on a lent connection, and what
                became of it cannot be told.
            ConflictError: Two requests changed one key, and the policy says "error".
            CounterError: An increment cannot be done.
            UnstorableValue: A value was changed in place into something that cannot be stored.
            CoatcheckError: Another manager opened the session.
        """
        state = state_of(session)
        if state is None:
            if final:
                finish(session)
            return UNTOUCHED
        self.check_own(state)
        if state.over and state.failure is not None:  # an earlier save ended with its outcome unknown
            raise SessionUnavailable(was_saved=True) from state.failure
        now, driver = self.clock(), driver or self.driver
        is_lent = driver is not self.driver
        try:
            if state.lent and is_lent and not state.over:
                self._run(lending.look(state, now), driver)
            if not plan.is_pending(state, now):
                state.over = state.over or final
                return READ if state.used else UNTOUCHED
            if not is_lent:
                state.lent = ()
                return self._save(state, now, driver, final=final)
            with lending.saving(state):
                return self._save(state, now, driver, final=final)
        except DriverUnavailable as error:
            outcome.unsaved(state, error)
            raise
        except BaseException as error:
            outcome.interrupted(state, driver.name, error)
            raise

    def _save(self, state: State, now: float, driver: Driver, *, final: bool) -> Saved:
        delta = plan.plain_change(state, now)
        if delta is not None and not delta:
            state.over = final
            return READ  # assigned as it was
        refused = None
        if delta is not None and state.token is not None:
            answer = driver.commit(state.token.digest, delta, now)
            if isinstance(answer, Committed):
                state.over = final
                return outcome.written(state, delta, answer, now)
            refused = answer
        saved: Saved = self._run(plan.save(state, now, refused), driver)
        state.over = final
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)
        return saved

    @staticmethod
    def _run(steps: plan.Steps, driver: Driver) -> Any:
        """Carry out a plan."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, plan.Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = getattr(driver, step.method)(*step.args)
                except Exception as error:  # noqa: BLE001 (the plan decides, and raises it again)
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def sweep(self) -> int:
        """Remove a slice of the expired sessions, `Policy.sweep_limit` at most; give their number.

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
        """Give back the driver's connections. The next use opens new ones."""
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
        codec: Turns values into bytes; give one on which the application's own types are registered.
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
        return AsyncSession(self._load, self._state, request, channel, chosen, self.clock())

    async def _load(self, driver: AsyncDriver, state: State) -> None:
        if len(state.candidates) > 1:
            await self._run(plan.load(state, self.clock()), driver)
        else:
            now = self.clock()
            try:
                answer = await driver.load(state.candidates[0].digest, now)
            except DriverUnavailable as error:
                outcome.failed(state, error)
                raise
            if not state.loaded:  # another task of the request may have been faster
                outcome.loaded(state, answer, now)
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)

    async def save(self, session: Session, *, driver: AsyncDriver | None = None, final: bool = False) -> Saved:
        """Write what a request changed, all of it or nothing; see `SessionManager.save`.

        Where the task is cancelled meanwhile, the change may have been written; it is not sent again.
        """
        state = state_of(session)
        if state is None:
            if final:
                finish(session)
            return UNTOUCHED
        self.check_own(state)
        if state.over and state.failure is not None:  # an earlier save ended with its outcome unknown
            raise SessionUnavailable(was_saved=True) from state.failure
        now, driver = self.clock(), driver or self.driver
        is_lent = driver is not self.driver
        try:
            if state.lent and is_lent and not state.over:
                await self._run(lending.look(state, now), driver)
            if not plan.is_pending(state, now):
                state.over = state.over or final
                return READ if state.used else UNTOUCHED
            if not is_lent:
                state.lent = ()
                return await self._save(state, now, driver, final=final)
            with lending.saving(state):
                return await self._save(state, now, driver, final=final)
        except DriverUnavailable as error:
            outcome.unsaved(state, error)
            raise
        except BaseException as error:
            outcome.interrupted(state, driver.name, error)
            raise

    async def _save(self, state: State, now: float, driver: AsyncDriver, *, final: bool) -> Saved:
        delta = plan.plain_change(state, now)
        if delta is not None and not delta:
            state.over = final
            return READ  # assigned as it was
        refused = None
        if delta is not None and state.token is not None:
            answer = await driver.commit(state.token.digest, delta, now)
            if isinstance(answer, Committed):
                state.over = final
                return outcome.written(state, delta, answer, now)
            refused = answer
        saved: Saved = await self._run(plan.save(state, now, refused), driver)
        state.over = final
        if driver.at_risk is not None:
            self._warn_of_risk(driver.at_risk)
        return saved

    @staticmethod
    async def _run(steps: plan.Steps, driver: AsyncDriver) -> Any:
        """Carry out a plan."""
        from asyncio import sleep  # noqa: PLC0415 (whoever gets here has it loaded; synchronous programs have not)

        try:
            step = next(steps)
            while True:
                if isinstance(step, plan.Pause):
                    await sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = await getattr(driver, step.method)(*step.args)
                except Exception as error:  # noqa: BLE001 (the plan decides, and raises it again)
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
        """Give back the driver's connections of the running event loop. The next use opens new ones."""
        await self.driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
