"""Sessions in one or two columns: what comes out of them is what was stored, to the last bit."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from typing import Final

import pytest
from testservers.engines import Engine, params

from coatcheck.record import COUNTER_MAX, COUNTER_MIN, MAX_NOTE, Delta, Record, ValueKey
from coatcheck.testing.helpers import START, committed, digest, loaded, make_record, user

NAMES: Final[list[ValueKey]] = [
    ("", ","),
    ("shop", "-"),
    ("-", "x,y"),
    ("\N{SNOWMAN}", "\N{COAT} "),
    ("X'00'", "'; %s"),
]
CONTENTS: Final[list[bytes | int]] = [b"", b",", b"-", b"\xff\x00", COUNTER_MAX, COUNTER_MIN, 0, -1]
USERS: Final = [None, "-", ",", "\N{SNOWMAN}, \N{COAT}", "e" * 255]
NOTES: Final = [b"", b"-", b",", bytes(MAX_NOTE)]

pytestmark = pytest.mark.parametrize("engine", params("mariadb"), indirect=True)


def records() -> list[Record]:
    """Sessions with what could be taken for something else, and moments with all the bits that a clock gives."""
    values = [dict(zip(NAMES, random.sample(CONTENTS, len(NAMES)), strict=True)) for _ in range(10)]
    shapes = list(product(USERS, NOTES))
    return [
        replace(
            make_record(user=user() if who == "-" else who, values=values[place % len(values)]),
            created=START + random.random() * 1e3,  # noqa: S311 (no secret)
            seen=START + random.random() * 1e3,  # noqa: S311
            note=note,
        )
        for place, (who, note) in enumerate([*shapes, *shapes])
    ]


def test_what_is_found_is_what_was_stored(engine: Engine) -> None:
    """By a load, by a rotation, which reads it to lock it, and in the list of a user."""
    driver = engine.open()
    driver.setup()
    for record in records():
        committed(driver.create(record, START))
        found = loaded(driver, record.digest, START)
        assert found == replace(record, values=found.values, fresh=found.fresh)
        assert {name: value.data for name, value in found.values.items()} == {
            name: value.data for name, value in record.values.items()
        }
        committed(driver.rotate(record.digest, new := digest(), Delta(), 0, START + 1))
        rotated = loaded(driver, new, START + 1)
        assert rotated == replace(found, digest=new, rotated=START + 1, fresh=rotated.fresh)
        if record.user is not None:
            info = next(each for each in driver.sessions_of(record.user, START) if each.sid == record.sid)
            assert (info.created, info.seen, info.note) == (record.created, record.seen, record.note)
