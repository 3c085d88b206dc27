"""Any operations in any order, by Hypothesis: a driver and the plain model have to agree after every step.

A failure is shrunk to the shortest sequence that still shows it, and reads as a program: which client did what.
"""

# ruff: noqa: S101 (asserts are what tests are made of)

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coatcheck.drivers.base import Capability, Driver
from coatcheck.errors import CounterOverflow, NotACounter
from coatcheck.record import (
    ABSENT,
    COUNTER_MAX,
    NEVER,
    Answer,
    Committed,
    Conflict,
    Delta,
    Missing,
    Put,
    Record,
    ValueKey,
)
from coatcheck.testing.helpers import START, Clock, make_record
from coatcheck.testing.model import Model, ModelSession, Refusal

__all__ = ["Sequences", "check"]

GRACE: Final = 30.0
MOST_SESSIONS: Final = 3
USERS: Final = ("ada", "bob")
A: Final[ValueKey] = ("", "a")
N: Final[ValueKey] = ("", "n")
B: Final[ValueKey] = ("shop", "b")
M: Final[ValueKey] = ("shop", "n")

_names = st.sampled_from([A, B, N, M])
_counters = st.sampled_from([N, M, N, M, A])
_data = st.sampled_from([b"x", b"7", b"", 0, 7, COUNTER_MAX])
_amounts = st.sampled_from([1, 5, -7, 0])
_values = st.dictionaries(_names, _data, max_size=2)
_ago = st.sampled_from([0, 1, 50])
_log_in = st.tuples(st.sampled_from(USERS), _ago)
_parts: Final[dict[str, st.SearchStrategy[Any]]] = {
    "puts": st.dictionaries(_names, _data, min_size=1, max_size=3),
    "drops": st.lists(_names, min_size=1, max_size=2, unique=True),
    "clear": st.sampled_from(["", "shop", "everything"]),
    "spare": st.lists(_names, min_size=1, max_size=2, unique=True),
    "increments": st.dictionaries(_counters, _amounts, min_size=1, max_size=2),
    "touch": _ago,
    "deadline": st.sampled_from([5000, 60, 0, -1]),
    "log_in": _log_in,
    "again": _ago,
}
_simple = st.one_of(
    st.just({}), *(st.fixed_dictionaries({name: part}) for name, part in _parts.items() if name != "spare")
)
_changes: Final[st.SearchStrategy[dict[str, Any]]] = st.one_of(_simple, st.fixed_dictionaries({}, optional=_parts))
_based = st.sampled_from(["on what it saw", "blindly"])


@dataclass
class Client:
    """One client: a token, and what its holder has seen.

    Attributes:
        digest: The digest of the token.
        versions: The version of each value at the last look.
        basis: What the driver gave along with it.
    """

    digest: bytes = field(repr=False)
    versions: dict[ValueKey, int] = field(default_factory=dict)
    basis: object = None


class Sequences(RuleBasedStateMachine):
    """Several clients of one storage, and a clock that they share.

    Args:
        driver: The driver under test.
        other: Another handle on the same storage, or the same one.
        number: The number of the sequence: what an earlier one left behind has other names.
    """

    client = Bundle("client")

    def __init__(self, driver: Driver, other: Driver, number: int = 0) -> None:
        super().__init__()
        driver.tear_down()
        driver.setup()
        self._handles = (driver, other)
        self._steps = 0
        self._drawn = number * 1_000_000
        self._users = {name: f"{name}-{number}" for name in USERS}
        self._bits = driver.rotation_bits
        self._lists_users = Capability.USER_INDEX in driver.capabilities
        self._sweeps = Capability.COLLECTS_GARBAGE not in driver.capabilities
        self._model = Model()
        self._clock = Clock(START)
        self._clients: dict[bytes, Client] = {}

    # -- the steps

    @initialize(target=client, values=_values)
    def begins(self, values: dict[ValueKey, bytes | int]) -> Client:
        """The first session is made."""
        return self._arrive(None, 600, None, values)

    @precondition(lambda self: self._model.count(self._now) < MOST_SESSIONS)
    @rule(
        target=client,
        log_in=st.none() | _log_in,
        idle=st.sampled_from([600, 100, None]),
        absolute=st.sampled_from([None, 1000]),
        values=_values,
    )
    def arrives(
        self,
        log_in: tuple[str, int] | None,
        idle: int | None,
        absolute: int | None,
        values: dict[ValueKey, bytes | int],
    ) -> Client:
        """A new session is made."""
        return self._arrive(log_in, idle, absolute, values)

    @rule(client=client)
    def looks(self, client: Client) -> None:
        """The client loads its session, and knows from then on which versions it saw."""
        found = self._driver.load(client.digest, self._now)
        if isinstance(found, Record):
            client.versions = {name: value.version for name, value in found.values.items()}
            client.basis = found.basis

    @rule(client=client, values=st.dictionaries(_names, _data, min_size=1, max_size=3), based=_based)
    def puts(self, client: Client, values: Any, based: str) -> None:
        """The client commits values, on the versions that it saw or blindly."""
        self._commit(client, {"puts": values}, based)

    @rule(client=client, names=st.lists(_names, min_size=1, max_size=2, unique=True), based=_based)
    def drops(self, client: Client, names: list[ValueKey], based: str) -> None:
        """The client deletes values."""
        self._commit(client, {"drops": names}, based)

    @rule(client=client, name=_counters, amount=_amounts)
    def counts(self, client: Client, name: ValueKey, amount: int) -> None:
        """The client adds to a counter."""
        self._commit(client, {"increments": {name: amount}})

    @rule(client=client, ago=_ago, note=st.sampled_from([None, b"phone", b""]))
    def is_active(self, client: Client, ago: int, note: bytes | None) -> None:
        """The client's activity is recorded, perhaps late, and perhaps with a note."""
        self._commit(client, {"touch": ago, "note": note})

    @rule(client=client, log_in=_log_in)
    def logs_in(self, client: Client, log_in: tuple[str, int]) -> None:
        """The client logs in and keeps its token."""
        self._commit(client, {"log_in": log_in})

    @rule(client=client, change=_changes, based=_based)
    def commits(self, client: Client, change: dict[str, Any], based: str) -> None:
        """The client commits any change."""
        self._commit(client, change, based)

    @rule(target=client, client=client, change=st.just({}) | _changes)
    def renews(self, client: Client, change: dict[str, Any]) -> Any:
        """The client asks for a new token, with a grace; anyone who goes on under the old one has lost the reply."""
        return self._rotate(client, self._digest(client.digest), self._delta(client, change), GRACE)

    @rule(target=client, client=client, change=st.just({}) | _changes)
    def rotates(self, client: Client, change: dict[str, Any]) -> Any:
        """The client asks for a new token, and the old one is dead at once."""
        return self._rotate(client, self._digest(client.digest), self._delta(client, change), 0.0)

    @rule(client=client, by=st.sampled_from(["token", "token", "token", "sid", USERS[0]]))
    def logs_out(self, client: Client, by: str) -> None:
        """The session of the client's token is ended: by whichever token it has, by its sid, or as a user's device."""
        now = self._now
        found = self._model.find(client.digest, now)
        if by != "token":
            sids = [sid for sid in (self._model.owners.get(client.digest),) if sid is not None]
            user = self._users.get(by)
            count = self._driver.end(sids, now, user=user)
            right = self._model.end(sids, user, now)
            assert count == right, f"end ended {count} sessions of {right}"
        elif isinstance(found, ModelSession) or self._model.remembers(client.digest, now):
            ended = self._driver.revoke(client.digest, now)
            assert ended is self._model.revoke(client.digest, now), f"revoke says {ended}"

    @precondition(lambda self: self._lists_users)
    @rule(user=st.sampled_from(USERS), kept=st.none() | client)
    def logs_out_everywhere(self, user: str, kept: Client | None) -> None:
        """All sessions of a user are revoked, but perhaps one."""
        keep = None if kept is None else self._model.owners.get(kept.digest)
        ended = self._driver.revoke_user(self._users[user], self._now, keep=keep)
        right = self._model.revoke_user(self._users[user], keep, self._now)
        assert ended == right, f"revoke_user ended {ended} sessions of {right}"

    @rule(client=client, other=client, what=st.sampled_from(["token", "sid", "new token", "revoked token"]))
    def takes_what_is_taken(self, client: Client, other: Client, what: str) -> None:
        """A token or sid that is in use, or was just now, is refused to anybody else."""
        held, is_known = self._model.find(client.digest, self._now), self._model.remembers(client.digest, self._now)
        record = self._record(self._digest(), None, 0)
        if what == "revoked token":  # the revocation overtakes the creation that it is about
            assert not self._driver.revoke(record.digest, self._now)
            self._model.revoke(record.digest, self._now)
            self._create(record)
        elif what == "sid" and isinstance(held, ModelSession):
            self._create(replace(record, sid=held.record.sid))
        elif what == "token" and is_known:
            self._create(replace(record, digest=client.digest))
        elif what == "new token" and is_known and self._bits == 0:
            self._rotate(other, client.digest, Delta(), 0.0)

    @rule(seconds=st.sampled_from([1, 20, 31, 61, 300]))
    def waits(self, seconds: int) -> None:
        """Time goes by."""
        self._wait_until(self._now + seconds)

    @precondition(lambda self: any(moment < NEVER for moment in self._model.ends()))
    @rule(seconds=st.sampled_from([0.0, -0.0001, 1.0]))
    def waits_for_the_next_end(self, seconds: float) -> None:
        """Time goes by until something is to end: to that very moment, just before it, or shortly after."""
        due = [moment + seconds for moment in self._model.ends() if moment + seconds > self._now]
        if due and min(due) < NEVER - 1:
            self._wait_until(min(due))

    @precondition(lambda self: self._sweeps)
    @rule(limit=st.sampled_from([100, 1, 0]), since=st.sampled_from([None, 50, 400]))
    def sweeps(self, limit: int, since: int | None) -> None:
        """Somebody sweeps: all that has expired, or what did so lately."""
        floor = 0.0 if since is None else self._now - since
        self._model.swept(self._driver.sweep(self._now, limit, since=floor), limit, floor, self._now)

    # -- what must be true after each of them

    @invariant()
    def storage_is_as_the_model_says(self) -> None:
        """Lists, the dead and all tokens give what the model has, through either handle."""
        self._steps += 1
        model, now = self._model, self._now
        for user in self._users.values() if self._lists_users else ():
            listed = self._driver.sessions_of(user, now)
            right = model.sessions_of(user, now)
            assert sorted(info.sid for info in listed) == right, f"sessions_of({user!r})"
            assert [info.created for info in listed] == sorted(info.created for info in listed), "oldest first"
        assert self._driver.missing(model.sessions, now) == model.missing(now), "missing()"
        for number, digest in enumerate(self._clients):
            expected, found = model.load(digest, now), self._driver.load(digest, now)
            if isinstance(expected, Record):
                assert isinstance(found, Record), f"client_{number} has lost its session: {found}"
                assert found == expected, f"client_{number} loads something else"
                assert found.values == expected.values, f"client_{number} loads other values"
            else:
                assert isinstance(found, Missing), f"client_{number} opens a session that is no more: {found}"
                assert found.reason in expected, f"client_{number}: {found.reason!r}, and right is {expected}"

    # -- the parts

    @property
    def _now(self) -> float:
        return self._clock.now

    @property
    def _driver(self) -> Driver:
        return self._handles[self._steps % 2]

    def _wait_until(self, moment: float) -> None:
        while moment in self._model.open_ends():
            moment += 1
        self._clock.advance(moment - self._now)
        note(f"# {self._now - START:g} seconds after the start")

    def _digest(self, like: bytes = b"\0" * 32) -> bytes:
        self._drawn += 1
        kept = 256 - self._bits
        drawn = int.from_bytes(hashlib.sha256(b"%d" % self._drawn).digest(), "big") % (1 << kept)
        return (int.from_bytes(like, "big") >> kept << kept | drawn).to_bytes(32, "big")

    def _client(self, digest: bytes) -> Client:
        client = self._clients[digest] = Client(digest)
        return client

    def _record(self, digest: bytes, user: str | None, ago: int, **more: Any) -> Record:
        self._drawn += 1
        moment = None if user is None else self._now - ago
        return make_record(
            self._now,
            digest_=digest,
            sid_=f"{self._drawn:032x}",
            user=None if user is None else self._users[user],
            auth_time=moment,
            **more,
        )

    def _arrive(
        self,
        log_in: tuple[str, int] | None,
        idle: int | None,
        absolute: int | None,
        values: dict[ValueKey, bytes | int],
    ) -> Client:
        user, ago = log_in or (None, 0)
        record = self._record(self._digest(), user, ago, idle=idle or NEVER, absolute=absolute or NEVER, values=values)
        self._create(record)
        return self._client(record.digest)

    def _create(self, record: Record) -> None:
        refusals = self._model.create_refusals(record, self._now)
        done = _judged(self._driver.create(record, self._now), refusals)
        if done is not None:
            self._model.created(record, done)

    def _commit(self, client: Client, change: dict[str, Any], based: str = "blindly") -> None:
        delta, now = self._delta(client, change, based), self._now
        answer = _answer(lambda: self._driver.commit(client.digest, delta, now))
        done = _judged(answer, self._model.commit_refusals(client.digest, delta, now))
        if done is not None:
            self._model.committed(client.digest, delta, done, now)

    def _rotate(self, client: Client, new: bytes, delta: Delta, grace: float) -> Any:
        """Rotate, and give the new client; nobody where the rotation is refused."""
        refusals = self._model.rotate_refusals(client.digest, new, delta, grace, self._now)
        answer = _answer(lambda: self._driver.rotate(client.digest, new, delta, grace, self._now))
        done = _judged(answer, refusals)
        if done is None:
            return multiple()
        self._model.rotated(client.digest, new, delta, grace, done, self._now)
        return self._client(new)

    def _delta(self, client: Client, change: dict[str, Any], based: str = "on what it saw") -> Delta:
        now, clear = self._now, change.get("clear")
        is_based = based == "on what it saw"

        def base(name: ValueKey) -> int | None:
            return client.versions.get(name, ABSENT) if is_based else None

        puts = {name: Put(data, base(name)) for name, data in change.get("puts", {}).items()}
        increments = {name: by for name, by in change.get("increments", {}).items() if name not in puts}
        user, ago = change.get("log_in", (None, change.get("again")))
        return Delta(
            puts=puts,
            drops={name: base(name) for name in change.get("drops", ()) if name not in puts and name not in increments},
            clears=frozenset() if clear in (None, "everything") else frozenset({clear}),
            clear_all=clear == "everything",
            spare=frozenset(change.get("spare", ())) if clear is not None else frozenset(),
            increments=increments,
            touch=now - change["touch"] if "touch" in change else None,
            deadline=now + change["deadline"] if "deadline" in change else None,
            user=None if user is None else self._users[user],
            auth_time=None if ago is None else now - ago,
            note=change.get("note"),
            basis=client.basis,
        )


def check(driver: Driver, other: Driver, *, examples: int = 60, steps: int = 40, shrink: bool = True) -> None:
    """Run sequences of operations on *driver*, the same ones each time.

    Args:
        driver: The driver under test; everything in its storage is removed.
        other: Another handle on the same storage, or the same one.
        examples: How many sequences.
        steps: How many steps each of them has at most.
        shrink: Whether a failure is made as short as can be.
    """
    numbers = itertools.count()
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        lambda: Sequences(driver, other, next(numbers)),  # type: ignore[arg-type]  # any callable that makes one
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _answer(call: Callable[[], Answer]) -> Answer | Refusal:
    try:
        answer = call()
    except (NotACounter, CounterOverflow) as error:
        return type(error)
    return Conflict(tuple(sorted(answer.keys))) if isinstance(answer, Conflict) else answer


def _judged(answer: Answer | Refusal, refusals: set[Refusal]) -> Committed | None:
    """Return the answer of a write that was done, None for one that was refused; either must be right."""
    if refusals:  # a list, since an answer may hold a dict
        assert answer in list(refusals), f"the driver says {answer}, and right is {refusals}"
        return None
    assert isinstance(answer, Committed), f"the driver says {answer}, and the write has to be done"
    return answer
