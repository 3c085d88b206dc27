"""Random requests whose commits fail, are repaired or rolled back, beside a plain dict that does the same."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest

REQUESTS = 5
STEPS = 9


class Twin:
    """The session as it must be: its values, and how often each operation was done."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def step(self, request: Any, rng: random.Random) -> None:  # noqa: C901 (a list of things to do)
        """Do one random thing to the session and to the twin."""
        store, values = request.store, self.values
        key = rng.choice("ab")
        number = rng.randrange(1000)
        what = rng.choice(["set", "delete", "append", "count", "update", "read", "empty", "list", "commit", "fail"])
        if what == "set":
            store[key] = values[key] = number
        elif what == "delete":
            assert store.pop(key, None) == values.pop(key, None)
        elif what == "append":
            store.setdefault("list", []).append(number)
            values.setdefault("list", []).append(number)
        elif what == "count":
            store.increment("count", number)
            values["count"] = values.get("count", 0) + number
        elif what == "update":
            store.update_with("sum", lambda old: [*old, number], [])
            values["sum"] = [*values.get("sum", []), number]
        elif what == "read":
            assert dict(store) == values
        elif what == "list":
            assert sorted(store) == sorted(values)
        elif what == "empty" and rng.random() < 0.4:
            store.empty()
            values.clear()
        elif what == "commit":
            request.connection.commit()
        elif what == "fail":
            self.fail(request, rng)

    def fail(self, request: Any, rng: random.Random) -> None:
        cursor = request.connection.cursor()
        cursor.execute("INSERT INTO child VALUES (77)")
        with pytest.raises(sqlite3.IntegrityError):
            request.connection.commit()
        for _ in range(rng.randrange(3)):
            self.quiet_step(request, rng)
        how = rng.choice(["repair", "rollback", "ROLLBACK"])
        if how == "repair":
            cursor.execute("DELETE FROM child")
        elif how == "rollback":
            request.connection.rollback()
        else:
            cursor.execute("ROLLBACK")

    def quiet_step(self, request: Any, rng: random.Random) -> None:
        number = rng.randrange(1000)
        request.store.increment("count", number)
        self.values["count"] = self.values.get("count", 0) + number
        key = rng.choice("ab")
        request.store[key] = self.values[key] = number
        if rng.random() < 0.5:
            request.store.setdefault("list", []).append(number)
            self.values.setdefault("list", []).append(number)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5, 11, 21, 22, 34, 36])
def test_the_session_is_what_a_dict_would_be(site: Any, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 (no secret)
    twin = Twin()
    browser = site.browser(seed=0)
    twin.values["seed"] = 0

    def handler(request: Any) -> None:
        for _ in range(STEPS):
            twin.step(request, rng)

    for _ in range(REQUESTS):
        answer = browser.get(handler)
        if answer.failure is not None:
            raise answer.failure
        assert browser.read() == twin.values
