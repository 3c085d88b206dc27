"""Every member of the interface of 2005 is there, with its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import web.session
from coatcheck import CoatcheckError
from web.session import Driver, Manager, MissingKey, SessionError, SessionWarning, Store, driver, manager, start
from web.wsgi.session import Session


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters by name with their defaults, ``...`` where there is none."""
    found = inspect.signature(function).parameters.values()
    return {
        each.name: ... if each.default is each.empty else each.default
        for each in found
        if each.name != "self" and each.kind is not each.VAR_KEYWORD
    }


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (driver, {"driver": ..., "environment": ...}),
        (Driver.completeSessionEnvironment, {}),
        (Driver.createSessionEnvironment, {}),
        (Driver.removeSessionEnvironment, {"ignoreErrors": False}),
        (Manager.load, {"sessionID": None}),
        (Manager.create, {"sendCookieHeaders": True, "expire": None}),
        (Manager.store, {"app": ...}),
        (Manager.destroy, {"sessionID": None, "sendCookieHeaders": True, "ignoreWarning": False}),
        (Manager.valid, {"sessionID": None}),
        (Manager.exists, {"sessionID": None}),
        (Manager.setExpire, {"expireTime": ..., "sessionID": None}),
        (Manager.cleanup, {"min": 0, "max": None, "ignoreWarning": False}),
        (Manager.cookieSessionID, {"environ": None, "noSessionID": ""}),
        (Manager.sendCookieHeaders, {}),
        (Manager.setCookie, {"maxAge": None, "sendCookieHeaders": False}),
        (Manager.setCookieString, {"maxAge": None}),
        (Manager.deleteCookie, {"sendCookieHeaders": False}),
        (Manager.deleteCookieString, {}),
        (Manager.genSessionID, {"seed": None}),
        (Store.set, {"key": ..., "value": ...}),
        (Store.delete, {"key": ...}),
        (Store.empty, {}),
        (Store.has_key, {"key": ...}),
        (Store.keys, {}),
        (Store.items, {}),
        (Store.values, {}),
    ],
)
def test_signatures(function: Callable[..., Any], expected: dict[str, Any]) -> None:
    assert parameters(function) == expected


def test_signatures_of_the_long_ones() -> None:
    found = parameters(manager)
    assert list(found) == [
        "driver", "expire", "path", "domain", "comment", "maxAge", "seed", "cleanupProbability", "cookie", "autoCreate",
    ]  # fmt: skip
    expected = {"expire": 86400, "path": "/", "domain": "", "maxAge": None, "cleanupProbability": 0.05, "autoCreate": 0}
    assert found == found | expected
    found = parameters(start)
    assert list(found) == ["app", "environmentName", "environmentType", "expire", "setupSessionEnvironment"]
    assert found == found | {"environmentType": "database", "expire": 0, "setupSessionEnvironment": False}
    assert parameters(Session.__init__) == {"application": ..., "app": None, "setupEnvironment": False}


def test_all_names_are_there() -> None:
    for name in web.session.__all__:
        assert getattr(web.session, name) is not None
    assert issubclass(SessionWarning, Warning)
    assert issubclass(MissingKey, KeyError)
    assert issubclass(MissingKey, SessionError)
    assert issubclass(SessionError, CoatcheckError)
