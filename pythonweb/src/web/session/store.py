"""One application's values in a session, as the 2005 interface has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import coatcheck
from coatcheck import ConfigurationError
from web.session.errors import MissingKey, SessionError

if TYPE_CHECKING:
    from web.session.manager import Manager

__all__ = ["Store"]


class Store(MutableMapping[str, Any]):
    """The values of *app*: a mapping, with the methods of 2005 beside it.

    Attributes:
        manager: The `Manager` of the request.
    """

    def __init__(self, manager: Manager, app: str) -> None:
        self.manager = manager
        self.app = app

    @property
    def app(self) -> str:
        """The name of the application. Assign another one to continue with the values of that application.

        Raises:
            SessionError: The name is not 1 to 255 characters of ``a-zA-Z0-9-_.``.
        """
        return self._app

    @app.setter
    def app(self, name: str) -> None:
        try:
            self._app = self.manager._core.open().store(name).app  # noqa: SLF001 (two halves of one interface)
        except ConfigurationError as error:
            raise SessionError(str(error)) from error

    def __repr__(self) -> str:
        return f"<Store {self.app!r}>"

    def _values(self) -> coatcheck.Store:
        return self.manager._exchange_of("store").session.store(self.app)  # noqa: SLF001 (as above)

    def _changed(self) -> None:
        self.manager._changed()  # noqa: SLF001 (as above)

    def set(self, key: str, value: Any) -> None:
        """Assign *value* to *key*."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Delete the value under *key*.

        Raises:
            MissingKey: There is none.
        """
        del self[key]

    def empty(self) -> None:
        """Delete all values of this application."""
        self._values().clear()
        self._changed()

    def has_key(self, key: str) -> bool:
        """Return whether there is a value under *key*."""
        return key in self

    def keys(self) -> list[str]:  # type: ignore[override]  # a list, as programs of 2005 print it
        """List the keys."""
        return list(self._values())

    def values(self) -> list[Any]:  # type: ignore[override]
        """List the values."""
        return list(self._values().values())

    def items(self) -> list[tuple[str, Any]]:  # type: ignore[override]
        """List the keys with their values."""
        return list(self._values().items())

    def increment(self, key: str, amount: int = 1) -> None:
        """Add to a counter, exact however many requests do so at once; see `coatcheck.Session.increment`."""
        self._values().increment(key, amount)
        self._changed()

    def update_with(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Assign *function* of the present value; see `coatcheck.Session.update_with`."""
        value = self._values().update_with(key, function, default)
        self._changed()
        return value

    def clear(self) -> None:
        """Delete all values of this application."""
        self.empty()

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values()[key]
        except KeyError:
            raise MissingKey(key, self.app) from None

    def __setitem__(self, key: str, value: Any) -> None:
        self._values()[key] = value
        self._changed()

    def __delitem__(self, key: str) -> None:
        try:
            del self._values()[key]
        except KeyError:
            raise MissingKey(key, self.app) from None
        self._changed()

    def __contains__(self, key: object) -> bool:
        return key in self._values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __ior__(self, other: Any) -> Store:  # noqa: PYI034 (Self would promise more than a 2005 class keeps)
        self.update(other)
        return self
