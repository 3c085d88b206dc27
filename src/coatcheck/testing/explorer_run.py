"""One schedule: some requests on one storage, each taken one driver call further when it is its turn.

The requests are coroutines over an asynchronous driver whose every call suspends them, and the owner of
the schedule resumes them. There are no threads, no event loop and no clock but the schedule's own. So the same choices
have the same results.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from coatcheck.codec import Codec
from coatcheck.cookie import Channel, cookie_name
from coatcheck.drivers.base import Driver
from coatcheck.events import Event, EventKind
from coatcheck.manager import AsyncSessionManager, SessionManager
from coatcheck.policy import Policy
from coatcheck.session import AsyncSession, Session
from coatcheck.testing.explorer_driver import DrivenDriver, NextStep, Suspended
from coatcheck.testing.explorer_visits import EXPIRY, IDLE, KINDS, SEED, USER, Abandoned, Beginning
from coatcheck.testing.helpers import START

__all__ = ["GRACE", "Schedule", "Step", "View", "Visit"]

GRACE: Final = 30.0
_WAIT: Final = 2.0  # until activity is due to be recorded, and tokens to be renewed
_JUMP: Final = IDLE + 1.0

_POLICY: Final = Policy(idle=IDLE, grace=GRACE)
_RENEWING: Final = Policy(idle=IDLE, grace=GRACE, rotate_after=1.0)
_CODEC: Final = Codec()
_COOKIE: Final = cookie_name(_POLICY, Channel.SECURE)

View = tuple[str | None, dict[str, Any]] | None
"""What a token opens, seen from outside: the user and the values, or None for no session."""


@dataclass(slots=True, eq=False)
class Step:
    """A part of a request that the model knows as one: "look", "revoke" or "save".

    Attributes:
        visit: Whose it is.
        what: Which one.
        at: When it began.
        first: The number of the step of the schedule that did its first driver call.
        last: The number of the step that did its last one.
    """

    visit: Visit
    what: str
    at: float
    first: int
    last: int
    is_called: bool = False

    def called(self, number: int) -> None:
        """Record that it did a driver call."""
        if not self.is_called:
            self.is_called, self.first = True, number
        self.last = number


class Visit:
    """One request of the browser.

    Attributes:
        name: What it is called in reports and writes into the session.
        weight: What it adds to a counter.
        number: Which request it is, from 0.
        kind: What it does.
        opened: When it came.
        brought: The token that it came with, or None.
        session: Its session.
        seen: What it found when it looked.
        revoked: How many sessions its revocation ended.
        steps: What it did, in order.
        events: What was told meanwhile.
        reply: The token of its answer, "deletion", or None for no cookie.
        refused: True if its log-in was refused.
        error: What it ended with, if that was an error.
        next_step: What it does when it is its turn.
    """

    session: Session

    def __init__(self, schedule: Schedule, number: int, kind: str) -> None:
        self.name = "ABC"[number]
        self.weight = 100**number * 10
        self.number = number
        self.kind = KINDS[kind]
        self.opened = 0.0
        self.brought: str | None = None
        self.seen: View = None
        self.revoked = 0
        self.steps: list[Step] = []
        self.events: list[Event] = []
        self.reply: str | None = None
        self.refused = False
        self.error: Exception | None = None
        dates = self.kind.ends or self.kind.logs_in or self.kind.rotates or self.kind.renews or self.kind.revokes
        self._loud = NextStep(dates=dates, revokes=self.kind.revokes)
        self.next_step = self._loud._replace(is_coming=True)
        self._schedule = schedule

    async def serve(self) -> None:
        """Come, do what the kind says, be saved, and answer."""
        schedule = self._schedule
        manager = schedule.renewing if self.kind.renews else schedule.manager
        self.opened = schedule.now
        self.next_step = self._loud
        self.brought = schedule.token_for(self.number)
        self.session = manager.open(() if self.brought is None else (f"{_COOKIE}={self.brought}",))
        try:
            await self.kind.act(self)
            if self.kind.saves:
                with self._step("save"):
                    saved = await manager.save(self.session)
                self.refused = saved.login_refused
                if saved.set_cookie is not None:
                    value = saved.set_cookie.partition(";")[0].partition("=")[2]
                    self.reply = value or "deletion"
                    schedule.jar = value or None
        except Abandoned:
            pass
        except Exception as error:  # noqa: BLE001 (the report tells of it)
            self.error = error

    async def look(self) -> None:
        """Read the session, and remember what was in it."""
        with self._step("look"):
            if isinstance(self.session, AsyncSession):
                self.next_step = self._loud._replace(is_quiet=True)
                await self.session.load()
                self.next_step = self._loud
            if not self.session.is_new:
                self.seen = self.session.user, deepcopy(dict(self.session))

    async def think(self) -> None:
        """Let others go on."""
        self.next_step = self._loud._replace(is_quiet=True)
        await Suspended()
        self.next_step = self._loud

    async def revoke(self) -> None:
        """End all sessions of `USER`."""
        with self._step("revoke"):
            self.revoked = await self._schedule.manager.revoke_user(USER)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        number = self._schedule.number
        self.steps.append(Step(self, what, self._schedule.now, number, number))
        yield
        if not self.steps[-1].is_called:
            self.steps[-1].last = self._schedule.number

    @property
    def told(self) -> set[EventKind]:
        """The kinds of the events."""
        return {event.kind for event in self.events}


class Schedule:
    """Some requests that run in one order, and what is left behind.

    Args:
        driver: Empty storage.
        beginning: What the requests find.
        kinds: The names of their kinds, or `EXPIRY`.
        tick: Seconds that each step takes.

    Attributes:
        now: The present moment.
        number: How many steps were done.
        visits: The requests.
        jar: The token that the browser holds.
        first_jar: The token that it held in the beginning.
        began: When the browser's session was ended or got a new token, if it did.
        known: Each token that existed before the requests came, and what it opened at first: that of another user,
            that of another device, and those of the browser.
        finished: The requests in the order of their answers.
        log: Who did what, for the report.
        trail: Of each step the actor that was chosen, and those that could have been.
    """

    def __init__(self, driver: Driver, beginning: Beginning, kinds: Sequence[str], tick: float) -> None:
        self.now = START
        self.number = 0
        self.beginning = beginning
        self.began = START
        self.jar: str | None = None
        self.known: dict[str, View] = {}
        self.finished: list[Visit] = []
        self.log: list[str] = []
        self.trail: list[tuple[int, tuple[int, ...]]] = []
        self._tick = tick
        self._running: Visit | None = None
        self._driver = driver
        driven = self._driven = DrivenDriver(driver, self._called)
        options: dict[str, Any] = {"codec": _CODEC, "listeners": [self._listen], "clock": lambda: self.now}
        self._outside = SessionManager(driver, _POLICY, **options)
        self.manager = AsyncSessionManager(driven, _POLICY, **options)
        self.renewing = AsyncSessionManager(driven, _RENEWING, **options)
        self._sent: tuple[str | None, ...] = (None,)
        self._begin()
        self.first_jar = self.jar
        self.visits: list[Visit] = []
        self._actors: list[tuple[Generator[None, None, None], Visit | None]] = []
        for kind in kinds:
            if kind == EXPIRY:
                self._actors.append((self._expire(), None))
            else:
                visit = Visit(self, len(self.visits), kind)
                self.visits.append(visit)
                self._actors.append((self._drive(visit), visit))

    # -- the beginning

    def _begin(self) -> None:
        """Make the sessions that are there when the requests come: of the browser, and of two others."""
        beginning = self.beginning
        self._store("bob", {"cart": ["of bob"]})
        self._store(USER, {"cart": ["on another device"]})
        if not beginning.stores:
            self.now += _WAIT
            return
        token = self._store(beginning.user, SEED)
        self.now += _JUMP if beginning.expired else _WAIT
        self.began = self.now
        self._sent = (token,)
        if beginning.rotated:
            self.jar = self._move(token, _POLICY)
        elif beginning.renewed:
            self.jar = self._move(token, _RENEWING)
            self._sent = (token, self.jar, token)
        elif beginning.ended:
            session = self._outside.open((f"{_COOKIE}={token}",))
            session.logout()
            self._outside.save(session)
        else:
            self.jar = token
        self.now += self._tick

    def _store(self, user: str | None, values: dict[str, Any]) -> str:
        session = self._outside.open(())
        if user is not None:
            session.login(user)
        session.update(values)
        return self._saved(self._outside, session)

    def _move(self, token: str, policy: Policy) -> str:
        manager = SessionManager(self._driver, policy, codec=_CODEC, clock=lambda: self.now)
        session = manager.open((f"{_COOKIE}={token}",))
        if policy is _POLICY:
            session.rotate()
        session.get("cart")
        return self._saved(manager, session)

    def _saved(self, manager: SessionManager, session: Session) -> str:
        cookie = manager.save(session).set_cookie
        assert cookie is not None  # noqa: S101 (a session that is made or renewed has one)
        token = cookie.partition(";")[0].partition("=")[2]
        self.known[token] = session.user, dict(session)
        return token

    # -- while they run

    def run(self, choices: Sequence[int]) -> bool:
        """Take the steps that *choices* say, and then, as long as there are any, the first that is possible.

        Two steps that follow each other and have nothing to do with each other are taken in one order only, that of
        their actors: the other order comes to the same.

        Returns:
            False where no such order begins with *choices*.
        """
        waiting = dict(enumerate(self._actors))
        last, was = -1, NextStep()
        while waiting:
            possible = tuple(at for at in waiting if at >= last or not was.commutes(self._next(at)))
            if not possible:
                return False
            choice = choices[len(self.trail)] if len(self.trail) < len(choices) else possible[0]
            self.trail.append((choice, possible))
            self.number += 1
            self.now += self._tick
            last, was = choice, self._next(choice)
            try:
                next(waiting[choice][0])
            except StopIteration:
                del waiting[choice]
        self._running = None
        self.now += self._tick
        return True

    def _next(self, actor: int) -> NextStep:
        visit = self._actors[actor][1]
        return NextStep() if visit is None else visit.next_step

    def _drive(self, visit: Visit) -> Generator[None, None, None]:
        context, work = Context(), visit.serve()
        while True:
            self._running = visit
            try:
                context.run(work.send, None)
            except StopIteration:
                break
            yield
        self.finished.append(visit)
        self.log.append(f"{visit.name} answers")

    def _expire(self) -> Generator[None, None, None]:
        self.now += _JUMP
        self._sent = (self.jar,)
        self.log.append("the clock moves on")
        yield from ()

    def _called(self, operation: str) -> None:
        visit = self._running
        if visit is not None:
            self.log.append(f"{visit.name} {operation}")
            visit.steps[-1].called(self.number)

    def _listen(self, event: Event) -> None:
        if self._running is not None:
            self._running.events.append(event)

    def token_for(self, number: int) -> str | None:
        """Return the token that a request sends: answers are on their way until the clock moves."""
        return self._sent[number % len(self._sent)]

    # -- the end

    def view(self, token: str) -> View:
        """Return what a token opens now."""
        session = self._outside.open((f"{_COOKIE}={token}",))
        return None if session.is_new else (session.user, dict(session))

    def views(self) -> dict[str, View]:
        """Return what each token opens now that anybody was ever given."""
        given = (visit.reply for visit in self.visits)
        tokens = (*self.known, *(reply for reply in given if reply not in {None, "deletion"}))
        return {token: self.view(token) for token in tokens if token is not None}

    def devices(self) -> int:
        """Return how many sessions `USER` has now."""
        return len(self._driver.sessions_of(USER, self.now))

    def stored(self) -> int:
        """Return how many of the sessions that the requests made are alive."""
        made = set(self._driven.made)
        return len(made - self._driver.missing(made, self.now))

    def close(self) -> None:
        """Close the driver."""
        self._driver.close()

    def named(self, given: str | None) -> str:
        """Return what a token is called in the report, which shows none."""
        if given is None or given == "deletion":
            return given or "no cookie"
        for visit in self.visits:
            if visit.reply == given:
                return f"the new cookie of {visit.name}"
        at = list(self.known).index(given)
        return ("the cookie of bob", "the cookie of another device", "the first cookie", "the second cookie")[at]
