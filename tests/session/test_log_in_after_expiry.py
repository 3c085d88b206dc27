"""A log-in that finds its session expired: its cookie comes last, as that of every log-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coatcheck import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import House


@pytest.mark.parametrize("keep", [[], ["cart"]], ids=["keeps nothing", "keeps the cart"])
@pytest.mark.parametrize("expires", ["before it is read", "after it is read"])
def test_a_request_of_the_same_browser_begins_no_session_beside_it(
    build: Callable[..., House], expires: str, keep: list[str]
) -> None:
    house = build(Policy(idle=600, absolute=3600))
    client = house.visitor(cart=["hat"])
    logging_in = client.open()
    if expires == "after it is read":
        assert logging_in["cart"] == ["hat"]
    house.clock.advance(601)
    meanwhile = client.twin().open()  # sent with the old cookie, before the answer to the log-in
    logging_in.login("ada", keep=keep)
    client.answer(logging_in)
    meanwhile["note"] = "an anonymous page"
    assert house.manager.save(meanwhile).set_cookie is None
    assert client.open().user == "ada"
