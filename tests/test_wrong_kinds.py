"""What is of the wrong kind is refused where it is given, by an error that says what to give instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import coatcheck
from coatcheck import AsyncSessionManager, ConfigurationError, Policy, SessionManager
from coatcheck.errors import CoatcheckError
from coatcheck.wsgi import SessionMiddleware


@pytest.mark.parametrize("storage", [None, Path("x.db"), Policy(), AsyncSessionManager("memory:")])
@pytest.mark.parametrize("made", [SessionManager, AsyncSessionManager, lambda it: SessionMiddleware(lambda *_: (), it)])
def test_storage(made: Any, storage: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"takes a URL.* or a driver .* not a .*{type(storage).__name__}"):
        made(storage)


def test_a_driver_of_the_other_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"^SessionManager takes .* such as coatcheck\.open\(url\) gives"):
        SessionManager(coatcheck.open_async("memory:"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^AsyncSessionManager takes .* such as coatcheck\.open_async\(url\)"):
        AsyncSessionManager(coatcheck.open("memory:"))  # type: ignore[arg-type]


def test_settings() -> None:
    with pytest.raises(ConfigurationError, match="has to be a Policy"):
        SessionManager("memory:", {"idle": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize("manager", [SessionManager("memory:"), AsyncSessionManager("memory:")])
def test_a_cookie_that_is_in_no_list(manager: Any) -> None:
    """Its letters would be taken for cookies, and a visitor who has a session for a new one."""
    with pytest.raises(CoatcheckError, match=r"say open\(\[header\]\)") as caught:
        manager.open("sid=treasure")
    assert "treasure" not in str(caught.value)


def test_a_url_of_sqlalchemys() -> None:
    with pytest.raises(ConfigurationError, match="the client library is not chosen: say mysql:"):
        coatcheck.open("mysql+pymysql://shop:secret@db/shop")
