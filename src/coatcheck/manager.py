"""SessionManager: configured once for an application, it opens and saves the sessions of its requests."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from coatcheck import outcome, plan
from coatcheck.codec import Codec
from coatcheck.cookie import Channel, Origin, channel_of, cookie_name, find
from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Driver
from coatcheck.errors import DriverUnavailable, SessionUnavailable
from coatcheck.events import Event, Kind, Listener, emit
from coatcheck.outcome import Saved
from coatcheck.policy import Policy
from coatcheck.record import Committed, SessionInfo
from coatcheck.session import Session, check_user, state_of
from coatcheck.state import State
from coatcheck.token import Token

__all__ = ["SessionManager"]

_log: Final = logging.getLogger("coatcheck")
_MAX_CANDIDATES: Final = 4
_UNTOUCHED: Final = Saved()
_READ: Final = Saved(vary=True)


class SessionManager:
    """Opens, saves and revokes sessions: a `Policy`, a `Driver` and a `Codec`. Shared by all threads.

    Args:
        storage: A URL such as ``"sqlite:///sessions.db"`` or ``"memory:"``, or a driver.
        policy: The settings. Default ``Policy()``.
        codec: Turns values into bytes; give one on which the application's own types are registered.
        listeners: Functions that are told of each `Event`.
        clock: Gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: The URL names no known engine, or an option that it does not have.
    """

    def __init__(
        self,
        storage: str | Driver,
        policy: Policy | None = None,
        *,
        codec: Codec | None = None,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.driver: Final = open_driver(storage) if isinstance(storage, str) else storage
        self.policy: Final = policy or Policy()
        self.codec: Final = codec or Codec()
        self.clock: Final = clock
        self._listeners: Final = tuple(listeners)
        self._commits = itertools.count(1)
        self._warned_http = False
        self._names: Final = {channel: cookie_name(self.policy, channel) for channel in Channel}

    def open(
        self,
        cookies: Sequence[str],
        channel: Channel | Origin = Channel.SECURE,
        *,
        driver: Driver | None = None,
    ) -> Session:
        """Give a request's session. Reads nothing until the session is used.

        Args:
            cookies: The values of the request's Cookie headers.
            channel: How the request came, or the facts that say so once the session is used; see `channel_of`.
            driver: A driver on a connection that the application lends; default the manager's own.
        """
        return Session(self._state, cookies, channel, driver or self.driver, self.clock())

    def _state(self, cookies: Sequence[str], channel: Channel | Origin, driver: Driver, opened: float) -> State:
        if not isinstance(channel, Channel):
            channel = channel_of(self.policy, *channel)
        if channel is Channel.PLAIN:
            self._warn_of_http()
        state = State(self.policy, self.codec, channel, opened, self._tokens(cookies, self._names[channel]), self.emit)
        state.loader = partial(self._load, driver)
        if driver.rotation_bits:
            state.rotation_bits = driver.rotation_bits
        return state

    def _load(self, driver: Driver, state: State) -> None:
        if len(state.candidates) > 1:
            self._run(plan.load(state, self.clock()), driver)
            return
        try:
            answer = driver.load(state.candidates[0].digest, self.clock())
        except DriverUnavailable as error:
            outcome.failed(state, error)
            raise
        outcome.loaded(state, answer)

    def _tokens(self, cookies: Sequence[str], name: str) -> list[Token]:
        values = find(cookies, name) if cookies else ()
        if not values:
            return []
        if len(values) == 1:
            token = Token.parse(values[0])
            return [] if token is None else [token]
        if len(values) > 1 and name.startswith("__Host-"):
            # No browser sends two of this name: something between put one in (RFC 6265bis 8.6).
            self.emit(Event(kind=Kind.DUPLICATES))
            return []
        tokens = [token for token in map(Token.parse, values) if token is not None]
        if len(tokens) > _MAX_CANDIDATES:
            self.emit(Event(kind=Kind.DUPLICATES))
            return []
        return tokens

    def _warn_of_http(self) -> None:
        if not self.policy.insecure_http and not self._warned_http:
            self._warned_http = True
            _log.warning(
                "a session over plain http from another machine: browsers refuse its Secure cookie. Serve https, or say"
                " Policy(trusted_scheme='https') behind a TLS proxy, or Policy(insecure_http=True) to go without"
            )

    def save(self, session: Session, *, driver: Driver | None = None, final: bool = False) -> Saved:
        """Write what a request changed, all of it or nothing. Call it before the response's headers go out.

        Args:
            session: A session of this manager.
            driver: A driver on a connection that the application lends; default the manager's own.
            final: True where the request is through with its session, so that nothing is saved after this.

        Returns:
            The cookie to send, if any, and whether the response varies with the session.

        Raises:
            DriverUnavailable: Storage failed; with ``outcome_unknown`` the change may have been written, and is not
                sent again.
            SessionUnavailable: An earlier save of this session ended so.
            ConflictError: Two requests changed one key, and the policy says "error".
            CounterError: An increment cannot be done.
            UnstorableValue: A value was changed in place into something that cannot be stored.
        """
        state = state_of(session)
        if state is None:
            return _UNTOUCHED
        if state.over and state.failure is not None:
            raise SessionUnavailable from state.failure
        now = self.clock()
        if not plan.is_pending(state, now):
            return _READ if state.used else _UNTOUCHED
        try:
            return self._save(state, now, driver or self.driver, final=final)
        except DriverUnavailable as error:
            outcome.unsaved(state, error)
            raise

    def _save(self, state: State, now: float, driver: Driver, *, final: bool) -> Saved:
        delta = plan.plain_change(state, now)
        if delta is not None and not delta:
            return _READ  # assigned as it was
        if delta is None or state.token is None:
            saved: Saved = self._run(plan.save(state, now), driver)
            state.over = final
            return saved
        answer = driver.commit(state.token.digest, delta, now)
        if isinstance(answer, Committed):
            state.over = final
            return outcome.written(state, delta, answer, now)
        saved = self._run(plan.save(state, now, answer), driver)
        state.over = final
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

    def sweep_due(self) -> bool:
        """Count a response that wrote something; True where a sweep is due after it."""
        every = self.policy.sweep_every
        return every > 0 and next(self._commits) % every == 0

    def sweep(self) -> int:
        """Remove a slice of the expired sessions, `Policy.sweep_limit` at most; give their number.

        A failure is logged and goes no further: nothing depends on a sweep.
        """
        try:
            return self.driver.sweep(self.clock(), self.policy.sweep_limit)
        except DriverUnavailable:
            _log.warning("could not sweep expired sessions", exc_info=True)
            return 0

    def sessions_of(self, user: str) -> list[SessionInfo]:
        """List the live sessions of *user*, oldest first."""
        return self.driver.sessions_of(check_user(user), self.clock())

    def revoke_user(self, user: str, *, keep: str | None = None) -> int:
        """End all sessions of *user*, on every device, but the one with the sid *keep*; give their number.

        A log-in that began before and is still under way does not slip through (ASVS 7.4.2, 7.4.3).
        """
        ended = self.driver.revoke_user(check_user(user), self.clock(), keep=keep)
        if ended:
            self.emit(Event(kind=Kind.DESTROYED, user=user))
        return ended

    def emit(self, event: Event) -> None:
        """Log an event and tell the listeners."""
        emit(self._listeners, event)

    def close(self) -> None:
        """Give back the driver's connections."""
        self.driver.close()
