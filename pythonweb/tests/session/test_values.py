"""Every type of value comes back exactly, and an edit deep inside is saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

import web.session

VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, 2**200, 0.0, -0.0, 1.5, math.inf, "", "text é €",
    b"", b"\0\xff", bytearray(b"ab"), [], [1, [2]], (), (1, (2,)), {}, {"a": {"b": 1}}, {1: "x", (2, 3): "y"},
    set(), {1, 2}, frozenset({"a"}), Decimal("1.10"), Decimal("NaN"), Fraction(1, 3), 1 + 2j, range(1, 9, 2),
    UUID(int=5), datetime(2005, 1, 2, 3, 4, 5, 6), datetime(2005, 1, 2, tzinfo=UTC),  # noqa: DTZ001 (naive on purpose)
    datetime(2005, 10, 30, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1), date(2005, 1, 2), time(1, 2, 3),
    timedelta(days=-1, microseconds=1), timezone(timedelta(hours=2), "X"), ZoneInfo("Asia/Tokyo"),
]  # fmt: skip


@pytest.mark.parametrize("storage", ["database", "memory"])
def test_every_type_survives_exactly(build: Callable[..., Any], storage: str) -> None:
    browser = build(storage=storage, name=f"values_{storage}").browser()
    browser.get(lambda request: request.store.update({str(number): value for number, value in enumerate(VALUES)}))
    found = browser.read()
    for number, value in enumerate(VALUES):
        got = found[str(number)]
        assert type(got) is type(value)
        assert repr(got) == repr(value)
    assert found["12"] == VALUES[12]


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        ([1], lambda value: value.append(2), [1, 2]),
        ({"a": {"b": [1]}}, lambda value: value["a"]["b"].append(2), {"a": {"b": [1, 2]}}),
        ({1}, lambda value: value.add(2), {1, 2}),
        (bytearray(b"a"), lambda value: value.extend(b"b"), bytearray(b"ab")),
        (([1],), lambda value: value[0].append(2), ([1, 2],)),
        ({"a": 1, "b": 2}, lambda value: value.pop("a"), {"b": 2}),
    ],
)
def test_nested_edits_are_saved(
    site: Any, before: Any, edit: Callable[[Any], object], after: Any, *, commits: bool
) -> None:
    browser = site.browser(value=before)

    def handler(request: Any) -> None:
        edit(request.store["value"])
        if commits:
            request.connection.commit()

    browser.get(handler)
    assert browser.read() == {"value": after}


def test_a_value_edited_into_something_that_cannot_be_stored_refuses_the_commit(site: Any) -> None:
    browser = site.browser(value=[1])

    def handler(request: Any) -> None:
        request.row("order")
        request.store["value"].append(object())
        request.connection.commit()

    failure = browser.get(handler).failure
    assert isinstance(failure, TypeError)
    assert "'value'" in str(failure)
    assert "object" in str(failure)
    assert site.rows() == []
    assert browser.read() == {"value": [1]}


@dataclass
class Point:
    x: int


def test_types_of_the_application_are_registered_on_the_codec(site: Any) -> None:
    browser = site.browser()
    with pytest.raises(TypeError, match=r"codec\.register"):
        raise browser.get(lambda request: request.store.set("p", Point(1))).failure
    web.session.codec.register(Point)
    browser.get(lambda request: request.store.set("p", Point(1)))
    assert browser.read() == {"p": Point(1)}
