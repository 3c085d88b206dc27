"""The quick way for values of lists, dicts and scalars gives the same bytes as the codec, or nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from coatcheck import Codec
from coatcheck.codec import MAX_DEPTH, encode_plain


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "containers"),
    [
        ([], 1),
        ({"a": 1, "b": [None, True, 1.5, "x", b"y"]}, 2),
        ([{"a": {"b": []}}, []], 5),
        ([2**64 - 1, -(2**63)], 1),
        (nested(MAX_DEPTH), MAX_DEPTH),
    ],
    ids=["empty", "scalars", "nested", "integers of 64 bits", "as deep as can be"],
)
def test_plain_values(value: Any, containers: int) -> None:
    plain = encode_plain(value)
    assert plain is not None
    data, found = plain
    assert data == Codec().encode(value)
    assert len({id(container) for container in found}) == len(found) == containers
    assert found[0] is value


@pytest.mark.parametrize(
    "value",
    [
        "text",
        1,
        None,
        (1,),
        {1},
        Counter("a"),
        {1: 2},
        [(1,)],
        {"a": {(1,): 2}},
        [2**64],
        ["\ud800"],
        nested(MAX_DEPTH + 1),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_other_values(value: Any) -> None:
    assert encode_plain(value) is None
