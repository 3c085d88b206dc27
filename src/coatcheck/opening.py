"""How a request's session is opened: by which tokens and over which channel. What both managers share, without I/O."""

from __future__ import annotations

import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from coatcheck.codec import Codec
from coatcheck.cookie import Channel, channel_of, cookie_name, find, is_joined
from coatcheck.drivers.base import AsyncDriver, Driver
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.events import Event, EventKind, Listener, emit
from coatcheck.incoming import Incoming
from coatcheck.policy import Policy
from coatcheck.revoked import Revocations
from coatcheck.session import Session, finish, state_of
from coatcheck.state import State
from coatcheck.token import Token

__all__ = ["ManagerBase"]

_log: Final = logging.getLogger("coatcheck")
_MAX_CANDIDATES: Final = 4

_SECURE_COOKIE: Final = (
    "a session over plain http: its cookie is Secure, so browsers keep it and send it back over https only (some also"
    " for http://localhost or http://127.0.0.1). Serve https, or set Policy(behind_tls_proxy=True) behind a proxy that"
    " terminates TLS, or, for development, Policy(insecure_http=True), which sends the cookie without Secure"
)
_JOINED: Final = (
    "the session cookie is not read, because its Cookie header is joined by commas: the client or a proxy sent several"
    " Cookie headers, and gunicorn and waitress join these by commas. Send one, with '; ' between the cookies"
)
_BARE_COOKIE: Final = (
    "a session over plain http: Policy(insecure_http=True) sends its cookie without Secure, so others in the network"
    " can read it. Use this for development only. Behind a proxy that terminates TLS, set"
    " Policy(behind_tls_proxy=True) instead"
)


class ManagerBase(ABC):
    """A `Policy`, a `Codec`, listeners and a clock: what a manager knows before it asks its driver for anything."""

    driver: Driver | AsyncDriver
    _loads_by_itself: ClassVar[bool]  # False if a load must be awaited

    def __init__(
        self,
        policy: Policy | None,
        codec: Codec | None,
        listeners: Iterable[Listener],
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(policy, Policy | None):
            raise ConfigurationError(f"the policy must be a Policy(...), not a {type(policy).__qualname__}")
        self.policy: Final = policy or Policy()
        self.codec: Final = codec or Codec()
        self.clock: Final = clock
        self._listeners: Final = tuple(listeners)
        self._commits = itertools.count(1)
        self._revocations: Final = Revocations()
        self._warned_http = False
        self._warned_risk = False
        self._names: Final = {channel: cookie_name(self.policy, channel) for channel in Channel}

    def emit(self, event: Event) -> None:
        """Log an event and tell the listeners."""
        emit(self._listeners, event)

    def _to_save(self, session: Session, *, final: bool) -> State | None:
        """Return what is behind a session that is to be saved; None if nobody used it.

        Raises:
            CoatcheckError: Another manager opened it, so that this one would write to other storage, under other
                settings.
        """
        if session._manager is not self:  # noqa: SLF001 (the two halves of one thing)
            raise CoatcheckError("save(session): another manager opened this session; save it with that one")
        state = state_of(session)
        if state is None and final:
            finish(session)
        return state

    @abstractmethod
    def load_state(self, state: State) -> Any:
        """Load the session of a request; of an asynchronous manager, to be awaited."""

    def sweep_due(self) -> bool:
        """Count a response that wrote something; True if a sweep is due after it."""
        every = self.policy.sweep_every
        return every > 0 and next(self._commits) % every == 0

    def state_of_request(
        self, request: Incoming | Sequence[str], channel: Channel, driver: Driver | AsyncDriver, opened: float
    ) -> State:
        """Return what is known of a request at the first use of its session. For `Session`."""
        if isinstance(request, Incoming):
            cookies = request.cookies
            channel = channel_of(self.policy, request.scheme)
            if channel is Channel.PLAIN and not self._warned_http:
                self._warned_http = True
                self.warn_of_http()
        else:
            cookies = request
        try:
            name = self._names[channel]
        except KeyError:
            raise CoatcheckError("open(): the channel has to be a Channel; more facts go into an Incoming") from None
        values = find(cookies, name) if cookies else ()
        if len(values) > 1:
            state = self._state_of_several(values, name, channel, opened)
            if isinstance(request, Incoming):
                state.place = request.host, request.path
        else:
            token = Token.parse(values[0]) if values else None
            if token is None and cookies and is_joined(cookies, name):
                self.emit(Event(kind=EventKind.JOINED, why=_JOINED))
            candidates = [] if token is None else [token]
            state = State(self.policy, self.codec, channel, opened, candidates, self.emit)
            if token is not None and self.policy.partitioned and name.startswith("__Host-"):
                state.doubled = True  # this one may be from before the policy said so, and stay beside a new one
        state.clock = self.clock
        state.revocations = self._revocations
        if self._loads_by_itself:
            state.loader = self.load_state
        state.driver = driver
        if driver.rotation_bits:
            state.rotation_bits = driver.rotation_bits
        return state

    def _state_of_several(self, values: Sequence[str], name: str, channel: Channel, opened: float) -> State:
        """Open the state of a request that came with several cookies.

        Of a name that only this host can set, none is tried. Two of it are one with Partitioned and one without, or
        something between put one in (RFC 6265bis 8.6).
        """
        rivals = [token for token in map(Token.parse, values) if token is not None]
        untried = name.startswith("__Host-") or len(rivals) > _MAX_CANDIDATES
        if untried:
            self.emit(Event(kind=EventKind.DUPLICATES))
        state = State(self.policy, self.codec, channel, opened, [] if untried else rivals, self.emit)
        state.doubled, state.rivals = True, tuple(rivals)
        state.unsettled = state.rivals if untried else ()
        return state

    def warn_of_http(self) -> None:
        """Log that a session goes over plain http. Called once; an adapter may override it with its own advice."""
        _log.warning(_BARE_COOKIE if self.policy.insecure_http else _SECURE_COOKIE)

    def _warn_of_risk(self, why: str) -> None:
        """Emit once the event of what endangers the sessions."""
        if not self._warned_risk:
            self._warned_risk = True
            self.emit(Event(kind=EventKind.AT_RISK, why=why))
