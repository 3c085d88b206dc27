"""Any sequence of changes of a session's end, by a request and by others in its course, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck.testing import Clock

Request = Any

SECONDS = st.integers(1, 50)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["move", "set", "move the first end", "other moves", "other sets"]), SECONDS),
        st.tuples(st.sampled_from(["write", "commit", "roll back", "refused commit"]), st.just(0)),
        st.tuples(st.sampled_from(["twice refused commit", "mended commit"]), SECONDS),
    ),
    max_size=12,
)


class Model:
    """The end as storage has it, and what the request is still to do to it."""

    def __init__(self, end: float) -> None:
        self.first = self.stored = end
        self.pending: list[Callable[[float], float]] = []
        self.moved = 0.0
        self.was_set = False

    def move(self, seconds: float) -> None:
        self.moved += seconds
        self.pending.append(lambda end: end + seconds)

    def set(self, moment: float) -> None:
        self.was_set = True
        self.pending.append(lambda _end: moment)

    def move_the_first_end(self, seconds: float) -> None:
        if self.was_set:
            self.set(self.first + seconds)
        else:
            self.move(seconds - self.moved)

    def commit(self) -> None:
        for change in self.pending:
            self.stored = change(self.stored)
        self.pending.clear()


class Run:
    """A request that does the steps, with other requests in its course."""

    def __init__(self, browser: Any, clock: Clock, request: Request) -> None:
        self.browser = browser
        self.request = request
        self.manager = request.manager
        self.now = clock.now
        self.first = request.manager.expireTime
        self.model = Model(float(self.first))

    def do(self, what: str, seconds: int) -> None:
        getattr(self, what.replace(" ", "_"))(seconds)

    def move(self, seconds: int) -> None:
        self.manager.setExpire(self.manager.expireTime + seconds)
        self.model.move(seconds)

    def set(self, seconds: int) -> None:
        self.manager.setExpire(self.now + 2000 + seconds)
        self.model.set(self.now + 2000 + seconds)

    def move_the_first_end(self, seconds: int) -> None:
        self.manager.setExpire(self.first + seconds)
        self.model.move_the_first_end(seconds)

    def other_moves(self, seconds: int) -> None:
        self.browser.get(lambda other: other.manager.setExpire(other.manager.expireTime + seconds), keep=False)
        self.model.stored += seconds

    def other_sets(self, seconds: int) -> None:
        self.browser.get(lambda other: other.manager.setExpire(self.now + 3000 + seconds), keep=False)
        self.model.stored = self.now + 3000 + seconds

    def write(self, _seconds: int) -> None:
        self.request.store.increment("a")

    def commit(self, _seconds: int) -> None:
        had_changes = bool(self.model.pending)
        self.request.connection.commit()
        self.model.commit()
        if had_changes:
            assert self.manager.expireTime == self.model.stored

    def roll_back(self, _seconds: int) -> None:
        self.request.connection.rollback()

    def refused(self) -> None:
        self.request.connection.cursor().execute("INSERT INTO child VALUES (77)")
        with pytest.raises(Exception, match="FOREIGN KEY"):
            self.request.connection.commit()

    def refused_commit(self, _seconds: int) -> None:
        self.refused()
        self.roll_back(0)

    def twice_refused_commit(self, seconds: int) -> None:
        self.refused()
        self.move(seconds)
        self.refused()
        self.roll_back(0)

    def mended_commit(self, seconds: int) -> None:
        self.refused()
        self.move(seconds)
        self.request.connection.cursor().execute("DELETE FROM child")
        self.commit(0)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, new=st.booleans())
def test_any_changes_of_an_end_in_any_order(
    build: Any, clock: Clock, steps: list[tuple[str, int]], *, new: bool
) -> None:
    """In a session that another request made, and in one that is made in the same request."""
    site = build(expire=1000)
    browser = site.browser() if new else site.browser(a=0)
    runs: list[Run] = []

    def act(request: Request) -> None:
        runs.append(Run(browser, clock, request))
        for what, seconds in steps:
            if not (new and what.startswith("other")):  # who would not know it yet
                runs[0].do(what, seconds)

    assert browser.get(act).failure is None
    model = runs[0].model
    model.commit()
    ends: list[float] = []
    browser.get(lambda request: ends.append(float(request.manager.expireTime)))
    assert ends == [model.stored]
