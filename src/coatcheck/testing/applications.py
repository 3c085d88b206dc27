"""Helpers for the tests of an application: a client that is logged in already."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, overload

from coatcheck.cookie import Channel
from coatcheck.manager import AsyncSessionManager, SessionManager
from coatcheck.saved import Saved
from coatcheck.session import Session

__all__ = ["SessionCookie", "signed_in"]


class SessionCookie:
    """The cookie of a session, for a test client. Its repr does not show the token.

    Attributes:
        name: The cookie's name.
        value: Its value, which is the token: it grants access to the session.
    """

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __iter__(self) -> Iterator[str]:
        """Iterate over name and value, as in ``client.set_cookie(*cookie)``."""
        return iter((self.name, self.value))

    def __repr__(self) -> str:
        return f"<SessionCookie {self.name}=...>"

    @property
    def header(self) -> str:
        """The Cookie header of a request: ``name=value``."""
        return f"{self.name}={self.value}"


@overload
def signed_in(manager: SessionManager, user: str, /, *, secure: bool = True, **values: Any) -> SessionCookie: ...


@overload
def signed_in(
    manager: AsyncSessionManager, user: str, /, *, secure: bool = True, **values: Any
) -> Coroutine[Any, Any, SessionCookie]: ...


def signed_in(
    manager: SessionManager | AsyncSessionManager, user: str, /, *, secure: bool = True, **values: Any
) -> SessionCookie | Coroutine[Any, Any, SessionCookie]:
    """Log *user* in without a form or password, and return the cookie for a test client.

    Args:
        manager: The application's manager, as in ``middleware.manager``. For an `AsyncSessionManager` await the result:
            ``cookie = await signed_in(manager, "ada")``.
        user: The user, as for `Session.login`.
        secure: False if the test client uses plain http. Together with ``Policy(insecure_http=True)``, which most test
            clients need for a cookie over http, the cookie then has no prefix.
        values: The values of the session.

    Raises:
        RuntimeError: The user was revoked at the current moment of the manager's clock or later.
    """
    session = manager.open([], Channel.SECURE if secure else Channel.PLAIN)
    session.login(user)
    session.update(values)
    if isinstance(manager, SessionManager):
        return _cookie(manager.save(session), user)
    return _saved(manager, session, user)


async def _saved(manager: AsyncSessionManager, session: Session, user: str) -> SessionCookie:
    return _cookie(await manager.save(session), user)


def _cookie(saved: Saved, user: str) -> SessionCookie:
    if saved.set_cookie is None:
        raise RuntimeError(
            f"{user!r} was revoked at the current moment of the manager's clock or later: advance the clock, or empty"
            " the storage before each test"
        )
    name, _, value = saved.set_cookie.partition(";")[0].partition("=")
    return SessionCookie(name, value)
