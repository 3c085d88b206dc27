"""What goes wrong with sessions, as the 2005 interface names it."""

from __future__ import annotations

from coatcheck import CoatcheckError

__all__ = ["MissingKey", "SessionError", "SessionWarning"]


class SessionError(CoatcheckError):
    """A session, or a call about one, is not as it should be."""


class MissingKey(SessionError, KeyError):
    """There is no value under a key: a `SessionError` and a `KeyError`."""

    def __init__(self, key: object, app: str) -> None:
        super().__init__(f"no value under {key!r} in the session store {app!r}")
        self.key = key

    def __str__(self) -> str:  # KeyError would give the repr
        return str(self.args[0])


class SessionWarning(SessionError, Warning):
    """A call would end sessions that may be in use; nothing was done. ``ignoreWarning=True`` does it."""
