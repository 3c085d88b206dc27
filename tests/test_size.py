"""What a request costs on SQLite follows the change, not the session: rows, bytes, statements, and SQLite's own steps.

Everything here is counted, nothing is timed: rows by SQLite's count of changes, bytes by the growth of the write-ahead
log, statements by SQLite's trace, work by the instructions of its virtual machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Policy, Session, SessionManager
from coatcheck.drivers.sqlite import SQLiteDriver

KILOBYTE = "x" * 1000
KEYS = 100
NOW = 1_800_000_000.0


@dataclass
class Cost:
    """What one request cost."""

    statements: list[str] = field(default_factory=list)
    rows: int = 0
    logged: int = 0
    steps: int = 0

    @property
    def verbs(self) -> list[str]:
        return [text.split(None, 1)[0] for text in self.statements]


class Meter:
    """A manager on SQLite whose requests are metered."""

    def __init__(self, folder: Path, keys: int, policy: Policy | None = None) -> None:
        self.driver = SQLiteDriver(folder / f"{keys}.db")
        self.now = NOW
        self.manager = SessionManager(self.driver, policy, clock=lambda: self.now)
        self.cookie = ""
        self.request(lambda session: session.update({f"key {n}": KILOBYTE for n in range(keys)}))

    def request(self, handler: Callable[[Session], object]) -> Cost:
        cost = Cost()
        with self.driver._connections.held() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

            def step() -> int:
                cost.steps += 1
                return 0

            connection.set_trace_callback(cost.statements.append)
            connection.set_progress_handler(step, 1)
            before = connection.total_changes
        session = self.manager.open([self.cookie])
        handler(session)
        saved = self.manager.save(session)
        with self.driver._connections.held() as connection:
            connection.set_trace_callback(None)
            connection.set_progress_handler(None, 1)
            cost.rows = connection.total_changes - before
        cost.statements = [text.strip() for text in cost.statements]
        cost.logged = Path(self.driver.path + "-wal").stat().st_size
        if saved.set_cookie is not None:
            self.cookie = saved.set_cookie.partition(";")[0]
        return cost


@pytest.fixture
def meters(tmp_path: Path) -> Iterator[Callable[..., tuple[Meter, Meter]]]:
    made: list[Meter] = []

    def make(policy: Policy | None = None) -> tuple[Meter, Meter]:
        made.extend(Meter(tmp_path, keys, policy) for keys in (1, KEYS))
        return made[0], made[1]

    yield make
    for meter in made:
        meter.manager.close()


def change(session: Session) -> None:
    session["key 0"] = session["key 0"][::-1] + "!"


def overwrite(session: Session) -> None:
    session["key 0"] = "y" * 1000


def add(session: Session) -> None:
    session["new"] = "y" * 1000


def drop(session: Session) -> None:
    del session["key 0"]


def count(session: Session) -> None:
    session.increment("hits")


def edit_in_place(session: Session) -> None:
    session.setdefault("list", []).append(1)


def rotate(session: Session) -> None:
    session.rotate()


@pytest.mark.parametrize("handler", [change, overwrite, add, drop, count, edit_in_place, rotate])
def test_a_write_follows_the_change_and_not_the_session(meters: Any, handler: Callable[[Session], None]) -> None:
    """A session of 100 keys of 1 KB costs as many rows as one of a single key, and twice the bytes at most."""
    small, large = (meter.request(handler) for meter in meters())
    assert 1 <= large.rows == small.rows <= 3, "the value, the session's activity, and of a rotation the tombstone"
    assert small.logged > 0
    # Pages of 4 KB go to the log; the bound allows for a tree that is one page deeper.
    assert large.logged <= 2 * small.logged
    assert large.logged < KEYS * 1000 / 3


def test_a_hundred_changes_cost_what_they_change(meters: Any) -> None:
    """What a request writes grows with what it changes: rows exactly, bytes no faster."""
    _, large = meters()

    def change_some(session: Session, keys: int) -> None:
        for n in range(keys):
            session[f"key {n}"] = session[f"key {n}"][::-1] + "!"

    costs = {keys: large.request(lambda session, keys=keys: change_some(session, keys)) for keys in (1, 10, 100)}
    assert [cost.rows for cost in costs.values()] == [1, 10, 100]
    assert costs[10].logged <= 12 * costs[1].logged
    assert costs[100].logged <= 12 * costs[10].logged
    assert costs[1].logged * 8 <= costs[100].logged


def test_a_read_is_one_select(meters: Any) -> None:
    for meter in meters():
        for handler in (dict, lambda session: session.get("key 0"), lambda session: (session.user, "no" in session)):
            cost = meter.request(handler)
            assert cost.verbs == ["SELECT"]
            assert (cost.rows, cost.logged) == (0, 0)


def test_an_untouched_session_costs_nothing(meters: Any) -> None:
    for meter in meters():
        cost = meter.request(lambda _: None)
        assert (cost.statements, cost.steps) == ([], 0)


@pytest.mark.parametrize(("handler", "verb"), [
    (change, "UPDATE"), (add, "INSERT"), (drop, "DELETE"), (count, "INSERT"), (edit_in_place, "INSERT"),
])  # fmt: skip
def test_a_change_of_one_key_is_one_statement(meters: Any, handler: Callable[[Session], None], verb: str) -> None:
    """After the SELECT of the read; without a BEGIN and a COMMIT, which would be three turns at the lock."""
    for meter in meters():
        cost = meter.request(lambda session: (session.get("key 0"), handler(session)))
        assert cost.verbs == ["SELECT", verb]
        assert cost.rows == 1


def test_a_due_touch_is_one_statement_and_one_row(meters: Any) -> None:
    for meter in meters():
        meter.now += 3600
        cost = meter.request(dict)
        assert cost.verbs == ["SELECT", "UPDATE"]
        assert cost.rows == 1


def test_a_write_without_a_read_reads_no_values(meters: Any) -> None:
    for meter in meters():
        cost = meter.request(overwrite)
        assert (cost.rows, cost.verbs) == (1, ["INSERT"]), "the value alone"
        meter.now += 4000  # now it is due that the activity is recorded too
        cost = meter.request(overwrite)
        assert cost.rows == 2, "the value, and the activity"
        assert (cost.verbs[0], cost.verbs[-1]) == ("INSERT", "COMMIT")
        assert not any("coatcheck_value" in text for text in cost.statements if text.startswith("SELECT"))


@pytest.mark.parametrize("policy", [Policy(), Policy(rotate_after=3600)], ids=["asked for", "periodic"])
def test_a_rotation_does_not_grow_with_the_values(meters: Any, policy: Policy) -> None:
    """The same statements, rows and steps for 100 keys as for one, and no value is as much as looked at."""
    small, large = meters(policy)
    costs = []
    for meter in (small, large):
        before = meter.cookie
        if policy.rotate_after == "never":
            costs.append(meter.request(rotate))
        else:
            meter.now += 4000
            costs.append(meter.request(lambda session: session.user))
            load = costs[-1].statements.pop(0)
            assert load.startswith("SELECT")  # the read made it due: what it cost is no part of the rotation
        assert meter.cookie != before
    assert costs[0].verbs == costs[1].verbs
    assert costs[0].rows == costs[1].rows <= 3
    for cost in costs:
        assert not any("coatcheck_value" in text for text in cost.statements)
    if policy.rotate_after == "never":
        assert costs[1].steps <= 1.1 * costs[0].steps
    assert costs[1].logged <= 2 * costs[0].logged


def test_a_log_in_that_keeps_a_value_does_not_write_it(meters: Any) -> None:
    _, large = meters()
    cost = large.request(lambda session: session.login("ada", keep=[f"key {n}" for n in range(KEYS)]))
    assert cost.rows <= 4
    assert cost.logged < KEYS * 1000 / 3


def test_the_meter_sees_a_whole_record_being_written(meters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the session one blob, or were all values written again, these tests would fail."""
    small, large = meters()
    commit = SQLiteDriver.commit

    def whole(self: SQLiteDriver, digest: bytes, delta: Any, now: float) -> Any:
        from dataclasses import replace  # noqa: PLC0415 (used here only)

        from coatcheck.record import Put, Record  # noqa: PLC0415 (used here only)

        record = self.load(digest, now)
        assert isinstance(record, Record)
        rest = {name: Put(value.data) for name, value in record.values.items()}
        return commit(self, digest, replace(delta, puts=rest | dict(delta.puts)), now)

    monkeypatch.setattr(SQLiteDriver, "commit", whole)
    one, all_ = small.request(change), large.request(change)
    assert (one.rows, all_.rows) == (1, KEYS)
    assert all_.logged > 4 * one.logged
