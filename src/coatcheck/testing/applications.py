"""Helpers for the tests of an application: a client that is logged in already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coatcheck.cookie import Channel
from coatcheck.manager import SessionManager

__all__ = ["SessionCookie", "signed_in"]


class SessionCookie:
    """The cookie of a session, for a test client. Its repr does not show the token.

    Attributes:
        name: The cookie's name.
        value: Its value, which is the token: whoever has it has the session.
    """

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __iter__(self) -> Iterator[str]:
        """Give name and value, as in ``client.set_cookie(*cookie)``."""
        return iter((self.name, self.value))

    def __repr__(self) -> str:
        return f"<SessionCookie {self.name}=...>"

    @property
    def header(self) -> str:
        """The Cookie header of a request: ``name=value``."""
        return f"{self.name}={self.value}"


def signed_in(manager: SessionManager, user: str, /, *, secure: bool = True, **values: Any) -> SessionCookie:
    """Log *user* in, without any form or password, and give the cookie for a test client.

    Args:
        manager: The application's manager, as in ``middleware.manager``.
        user: The user, as `Session.login` takes it.
        secure: False where the test client speaks plain http. With ``Policy(insecure_http=True)``, without which most
            test clients send no cookie over http, the cookie then has no prefix.
        values: What the session holds.
    """
    session = manager.open([], Channel.SECURE if secure else Channel.PLAIN)
    session.login(user)
    session.update(values)
    set_cookie = manager.save(session).set_cookie
    if set_cookie is None:
        raise RuntimeError(f"{user!r} was just revoked, at the same moment of the manager's clock: let it move on")
    name, _, value = set_cookie.partition(";")[0].partition("=")
    return SessionCookie(name, value)
