"""Transactions of ours that meet on a SQL server, held at the very statement at which it matters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pytest
from testservers.engines import Engine, params

from coatcheck.drivers.base import Driver
from coatcheck.drivers.sql.statement import Reply, Statement
from coatcheck.record import ABSENT, Committed, Conflict, Delta, Gone, Missing, Put, Reason, Record, ValueKey
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, puts, reason, started, user

A: Final[ValueKey] = ("", "a")
B: Final[ValueKey] = ("", "b")
N: Final[ValueKey] = ("", "n")
PATIENCE: Final = 120.0
A_WHILE: Final = 0.25
"""Seconds after which somebody who has not come by then is waiting."""

T = TypeVar("T")

ENGINES: Final = [row for row in params("postgresql", "pgbouncer", "mariadb") if not row.values[0].asynchronous]

pytestmark = pytest.mark.parametrize("engine", ENGINES, indirect=True)


class Brake:
    """Holds a driver just before the first statement of a certain kind, until it is let go.

    What is sent in one message is done one after the other: here what comes before the statement is sent before it.

    Args:
        driver: The driver.
        text: How the statement begins.
    """

    def __init__(self, driver: Driver, text: str) -> None:
        self._text: Final = text
        self._reached: Final = threading.Event()
        self._go: Final = threading.Event()
        client: Any = driver._client  # type: ignore[attr-defined]  # of a SQL driver
        self._run: Final = client.run
        client.run = self._braked

    def _braked(self, connection: object, statements: Sequence[Statement], deadline: float) -> list[Reply]:
        found = [place for place, each in enumerate(statements) if each.text.startswith(self._text)]
        replies: list[Reply] = []
        if found and not self._reached.is_set():
            if before := statements[: found[0]]:
                replies += self._run(connection, before, deadline)
            self._reached.set()
            assert self._go.wait(PATIENCE)
        replies += self._run(connection, statements[len(replies) :], deadline)
        return replies

    def wait(self) -> None:
        assert self._reached.wait(PATIENCE), "the statement never came"

    def go(self) -> None:
        self._go.set()


class Pair:
    """Two drivers on one database, the first of which can be held while the second does something.

    Attributes:
        one: The driver that is held.
        two: The other.
    """

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        self._engine: Final = engine
        self._pool: Final = pool
        self.two: Final = engine.open(timeout=PATIENCE)
        self.two.setup()
        self.one: Final = engine.open(timeout=PATIENCE)

    def held(self, work: Callable[[Driver], T], *, before: str = "COMMIT") -> tuple[Brake, Future[T]]:
        """Let the first driver do *work* up to a statement."""
        brake = Brake(self.one, before)
        running = self._pool.submit(work, self.one)
        brake.wait()
        return brake, running

    def waits(self, work: Callable[[Driver], T]) -> Future[T]:
        """Let the second driver begin *work*, and see that it has to wait."""
        running = self._pool.submit(work, self.two)
        with pytest.raises(TimeoutError):
            running.result(A_WHILE)
        return running


@pytest.fixture
def pair(engine: Engine) -> Iterator[Pair]:
    with ThreadPoolExecutor(4) as pool:
        yield Pair(engine, pool)


def logs_in(way: str, waiting: Record, who: str) -> Callable[[Driver], object]:
    """Give one of the ways in which *who* logs in."""
    login = Delta(user=who, auth_time=START)
    return {
        "create": lambda driver: driver.create(make_record(user=who), START),
        "commit": lambda driver: driver.commit(waiting.digest, login, START),
        "rotate": lambda driver: driver.rotate(waiting.digest, digest(), login, 0, START),
    }[way]


@pytest.mark.parametrize("way", ["create", "commit", "rotate"])
def test_a_log_in_that_is_first_is_found_by_the_revocation(pair: Pair, way: str) -> None:
    """`revoke_user` waits for a log-in that is about to commit, and ends it."""
    who = user()
    brake, login = pair.held(logs_in(way, started(pair.two), who))
    revocation = pair.waits(lambda driver: driver.revoke_user(who, START))
    brake.go()
    assert isinstance(login.result(PATIENCE), Committed)
    assert revocation.result(PATIENCE) == 1
    assert pair.two.sessions_of(who, START) == []


@pytest.mark.parametrize("way", ["create", "commit", "rotate"])
def test_a_log_in_waits_for_a_revocation_that_is_first(pair: Pair, way: str) -> None:
    """And it is refused, although it came before that was done."""
    who = user()
    waiting = started(pair.two)
    brake, revocation = pair.held(lambda driver: driver.revoke_user(who, START))
    login = pair.waits(logs_in(way, waiting, who))
    brake.go()
    assert revocation.result(PATIENCE) == 0
    assert login.result(PATIENCE) == Gone(Reason.REVOKED)
    assert pair.two.sessions_of(who, START) == []


def test_a_revocation_waits_for_a_rotation_that_is_first(pair: Pair) -> None:
    """And ends the session under the token that it has then, with a tombstone."""
    who, new = user(), digest()
    record = started(pair.two, user=who)
    brake, rotation = pair.held(lambda driver: driver.rotate(record.digest, new, Delta(), 0, START))
    revocation = pair.waits(lambda driver: driver.revoke_user(who, START))
    brake.go()
    committed(rotation.result(PATIENCE))
    assert revocation.result(PATIENCE) == 1
    assert pair.two.load(new, START) == Missing(Reason.REVOKED)


def test_a_second_log_in_in_a_session_and_a_revocation(pair: Pair) -> None:
    """A new `auth_time` in a session of that user takes the fence before the session, as the revocation does."""
    who = user()
    record = started(pair.two, START - 5, user=who)
    lock_user = pair.one._operations.dialect.sql.lock_user  # type: ignore[attr-defined]  # of a SQL driver
    brake, revocation = pair.held(lambda driver: driver.revoke_user(who, START), before=lock_user)
    again = pair.waits(lambda driver: driver.commit(record.digest, Delta(auth_time=START - 1), START))
    brake.go()
    assert revocation.result(PATIENCE) == 1
    assert again.result(PATIENCE) == Gone(Reason.REVOKED)


def test_a_session_that_changes_hands_before_it_is_locked(pair: Pair) -> None:
    """Whose fence counts is looked at again when the session is locked."""
    first, second = user(), user()
    record = started(pair.two, START - 5, user=first)
    pair.two.revoke_user(second, START)
    find = pair.one._operations.dialect.sql.find  # type: ignore[attr-defined]  # of a SQL driver
    brake, again = pair.held(
        lambda driver: driver.commit(record.digest, Delta(auth_time=START - 1), START + 1), before=find
    )
    committed(pair.two.commit(record.digest, Delta(user=second, auth_time=START + 1), START + 1))
    brake.go()
    assert again.result(PATIENCE) == Gone(Reason.REVOKED), "judged by the fence of the user of before"
    assert loaded(pair.two, record.digest, START + 1).auth_time == START + 1


def test_a_creation_that_is_first_is_found_by_the_revocation(pair: Pair) -> None:
    """`revoke` of a digest that is about to be created waits for it, and ends the session."""
    record = make_record(values={A: b"a"})
    brake, creation = pair.held(lambda driver: driver.create(record, START))
    revocation = pair.waits(lambda driver: driver.revoke(record.digest, START))
    brake.go()
    assert isinstance(creation.result(PATIENCE), Committed)
    assert revocation.result(PATIENCE) is True
    assert pair.two.load(record.digest, START) == Missing(Reason.REVOKED)


def test_a_creation_waits_for_a_revocation_that_is_first(pair: Pair) -> None:
    """And finds its tombstone."""
    record = make_record()
    brake, revocation = pair.held(lambda driver: driver.revoke(record.digest, START))
    creation = pair.waits(lambda driver: driver.create(record, START))
    brake.go()
    assert revocation.result(PATIENCE) is False
    assert creation.result(PATIENCE) == Gone(Reason.REVOKED)
    assert pair.two.load(record.digest, START) == Missing(Reason.REVOKED)


def test_a_new_token_waits_for_its_revocation(pair: Pair) -> None:
    """A rotation to a digest that is being revoked is refused, too."""
    record, new = started(pair.two), digest()
    brake, revocation = pair.held(lambda driver: driver.revoke(new, START))
    rotation = pair.waits(lambda driver: driver.rotate(record.digest, new, Delta(), 0, START))
    brake.go()
    assert revocation.result(PATIENCE) is False
    assert rotation.result(PATIENCE) == Conflict()
    assert loaded(pair.two, record.digest, START).sid == record.sid


def test_two_creations_of_one_digest(pair: Pair) -> None:
    record = make_record(values={A: b"first"})
    brake, first = pair.held(lambda driver: driver.create(record, START))
    second = pair.waits(lambda driver: driver.create(make_record(digest_=record.digest, values={A: b"second"}), START))
    brake.go()
    assert isinstance(first.result(PATIENCE), Committed)
    assert second.result(PATIENCE) == Conflict()
    assert loaded(pair.two, record.digest, START).values[A].data == b"first"


def test_two_creations_of_one_sid(pair: Pair) -> None:
    record = make_record()
    brake, first = pair.held(lambda driver: driver.create(record, START))
    second = pair.waits(lambda driver: driver.create(make_record(sid_=record.sid), START))
    brake.go()
    assert isinstance(first.result(PATIENCE), Committed)
    assert second.result(PATIENCE) == Conflict()


CHANGES: Final = {
    "put": puts({B: b"late"}),
    "put on a version": puts({A: b"late"}, 1),
    "put where nothing is": puts({B: b"late"}, ABSENT),
    "increment": Delta(increments={N: 1}),
    "touch": Delta(touch=START + 5),
    "put and touch": Delta(puts={B: Put(b"late")}, touch=START + 5),
    "many things": Delta(puts={B: Put(b"late")}, increments={N: 1}, touch=START + 5),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("end", ["rotate", "revoke", "revoke_user", "deadline"])
def test_a_change_waits_for_the_end_that_is_first(pair: Pair, end: str, change: str) -> None:
    """And is Gone, whichever way it goes to the server."""
    who = user()
    record = started(pair.two, user=who, values={A: b"a", N: 1})
    ends: dict[str, tuple[Callable[[Driver], object], Reason]] = {
        "rotate": (lambda driver: driver.rotate(record.digest, digest(), Delta(), 0, START), Reason.ROTATED),
        "revoke": (lambda driver: driver.revoke(record.digest, START), Reason.REVOKED),
        "revoke_user": (lambda driver: driver.revoke_user(who, START), Reason.REVOKED),
        "deadline": (
            lambda driver: driver.commit(record.digest, Delta(deadline=START, drops={B: None}), START - 1),
            Reason.EXPIRED,
        ),
    }
    work, why = ends[end]
    delta = CHANGES[change]
    if change == "put on a version":
        delta = puts({A: b"late"}, record.values[A].version)
    brake, ending = pair.held(work)
    late = pair.waits(lambda driver: driver.commit(record.digest, delta, START))
    brake.go()
    ending.result(PATIENCE)
    assert late.result(PATIENCE) == Gone(why)
    assert reason(pair.two.load(record.digest, START)) is why


@pytest.mark.parametrize("change", ["put on a version", "increment", "many things"])
def test_a_change_waits_for_the_change_that_is_first(pair: Pair, change: str) -> None:
    """Versions and counters are judged by what is stored when the session is locked, not by what was before."""
    record = started(pair.two, values={A: b"a", N: 1})
    base = record.values[A].version
    first = Delta(puts={A: Put(b"first", base)}, increments={N: 1})
    brake, running = pair.held(lambda driver: driver.commit(record.digest, first, START))
    if change == "put on a version":
        late = pair.waits(lambda driver: driver.commit(record.digest, puts({A: b"late"}, base), START))
    elif change == "increment":
        late = pair.waits(lambda driver: driver.commit(record.digest, Delta(increments={N: 1}), START))
    else:
        delta = Delta(puts={A: Put(b"late", base), B: Put(b"late")}, increments={N: 1})
        late = pair.waits(lambda driver: driver.commit(record.digest, delta, START))
    brake.go()
    committed(running.result(PATIENCE))
    found = loaded(pair.two, record.digest, START).values
    if change == "increment":
        assert committed(late.result(PATIENCE)).counters == {N: 3}
    else:
        assert late.result(PATIENCE) == Conflict((A,))
        assert (found[A].data, found[N].data) == (b"first", 2)
        assert B not in found


def test_a_sweep_waits_for_nobody(pair: Pair) -> None:
    """It leaves alone what somebody has locked."""
    busy, dead = (started(pair.two, values={A: b"a"}) for _ in range(2))
    late = START + 600
    change = Delta(drops={A: None}, touch=late - 1)
    brake, commit = pair.held(lambda driver: driver.commit(busy.digest, change, late - 1))
    assert pair.two.sweep(late, 10) == 1, "it removed the one that nobody holds"
    brake.go()
    committed(commit.result(PATIENCE))
    assert loaded(pair.two, busy.digest, late).sid == busy.sid
    assert reason(pair.two.load(dead.digest, late)) is Reason.UNKNOWN


def test_nobody_waits_for_a_sweep(pair: Pair, engine: Engine) -> None:
    """While it is under way, others read and write, and sweep what it has not taken."""
    live = started(pair.two, idle=5000.0, values={A: b"a"})
    dead = [started(pair.two, values={A: b"a"}) for _ in range(5)]
    late = START + 600
    brake, sweep = pair.held(lambda driver: driver.sweep(late, 3))
    quick = engine.open(timeout=2)
    assert quick.sweep(late, 10) == 2, "another sweep takes the others"
    assert loaded(quick, live.digest, late).sid == live.sid
    committed(quick.commit(live.digest, puts({A: b"b"}), late))
    assert all(isinstance(quick.load(each.digest, late), Missing) for each in dead)
    committed(quick.create(make_record(late), late))
    brake.go()
    assert sweep.result(PATIENCE) == 3
