"""The environment of an application: ``environ['web.environment.name']`` and ``['web.environment.type']``."""

from __future__ import annotations

from typing import Any
from wsgiref.types import WSGIApplication

from web.environment import checkName
from web.wsgi.base import BaseMiddleware

__all__ = ["Environment"]


class Environment(BaseMiddleware):
    """Middleware that sets the environment to which the application belongs.

    Applications of one environment share users and sessions; its name begins the names of tables and keys, and names
    the session cookie. Beside the two keys of its module, it adds ``environ['web.environment.params']``, a dict of
    the other parameters.

    Args:
        application: The WSGI application.
        name: The name: 1 to 32 characters of ``A-Z``, ``a-z``, ``0-9`` and ``_``.
        storage: Where the environment keeps its data, for example ``'database'``.
        type: An older spelling of *storage*.
        **params: Parameters for the storage.

    Raises:
        EnvironmentNameError: The name cannot be used.
        ValueError: *storage* is missing, or *type* is different.
    """

    def __init__(
        self,
        application: WSGIApplication,
        name: str,
        storage: str | None = None,
        type: str | None = None,  # noqa: A002 -- the parameter's name in the 2005 reference
        **params: Any,
    ) -> None:
        super().__init__(application)
        self.name = checkName(name)
        if storage and type and storage != type:
            raise ValueError(
                f"Environment(storage={storage!r}, type={type!r}): both mean the same, so pass only one of them"
            )
        chosen = storage or type
        if not chosen or not isinstance(chosen, str):
            raise ValueError(f"Environment(storage={chosen!r}) names no storage: add for example storage='database'")
        self.storage = chosen
        self.params = params

    def environ(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Add the keys."""
        environ["web.environment.name"] = self.name
        environ["web.environment.type"] = self.storage
        environ["web.environment.params"] = dict(self.params)
        return environ
