"""The values of one application as a mapping: what a session and each store in it have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, NoReturn, SupportsIndex

from coatcheck._forms import is_text
from coatcheck.changes import Changes
from coatcheck.errors import CoatcheckError, UnstorableValue
from coatcheck.merge import MISSING
from coatcheck.record import ValueKey

__all__ = ["MAX_NAME", "Values", "checked_name"]

MAX_NAME: Final = 255
"""The most characters of a key, and of a user's name."""


class Values(MutableMapping[str, Any]):
    """The values of one application, as a mapping: every operation of a dict, each of them saved."""

    __slots__ = ()

    @property
    @abstractmethod
    def app(self) -> str:
        """The name of the application."""

    @abstractmethod
    def _changes(self) -> Changes:
        """Return the values and record a use of the session."""

    @abstractmethod
    def _to_write(self) -> Changes:
        """Return the values to write to, and record a use of the session.

        Raises:
            CoatcheckError: The session was saved for the last time.
        """

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise CoatcheckError(
            f"a {type(self).__name__} belongs to its request and can be neither pickled nor copied: pass on its values,"
            " dict(session), or its name, session.sid"
        )

    def __getitem__(self, key: str) -> Any:
        value = self._changes().read((self.app, key))
        if value is MISSING:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under *key*, or *default*."""
        value = self._changes().read((self.app, key))
        return default if value is MISSING else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._changes().read((self.app, key)) is not MISSING

    def __setitem__(self, key: str, value: Any) -> None:
        self._to_write().write(checked_name(self.app, key), value)

    def __delitem__(self, key: str) -> None:
        self._to_write().drop((self.app, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._changes().keys(self.app))

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._changes().keys(self.app))

    def __len__(self) -> int:
        return len(self._changes().keys(self.app))

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Any:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """Return the values as a dict of their own; a change of that dict is not saved."""
        return dict(self)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, as a dict does, and return it with its value.

        Raises:
            KeyError: There is none.
        """
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): no values")

    def clear(self) -> None:
        """Delete all values of this application, those that other requests just wrote included."""
        self._to_write().clear(self.app)

    def increment(self, key: str, amount: int = 1) -> int | None:
        """Add to a counter: exact however many requests do so at once, and without reading.

        Args:
            key: The key; one that is missing counts from 0. Any integer of 64 bits that was assigned is a counter.
            amount: What to add; negative to subtract.

        Returns:
            The sum as this request sees it, or None if nobody has read or loaded the session yet: nothing is read
            for it. What other requests have added meanwhile is not in it before the session is saved.

        Raises:
            NotACounter: The key holds something else. Where this is not yet known, saving raises it.
            CounterOverflow: The result does not fit a signed 64-bit integer. Likewise.
        """
        if type(amount) is not int:
            raise UnstorableValue(
                self.app,
                key if isinstance(key, str) else repr(key),
                type(amount).__qualname__,
                "increment takes an int",
            )
        return self._to_write().increment(checked_name(self.app, key), amount)

    def update_with(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Assign *function* of the value under *key*, exactly however many requests do so at once.

        Args:
            key: The key.
            function: Takes the present value and returns the new one, which is not None. It has no other effect, since
                it runs again if another request changed the value meanwhile.
            default: What the function gets for a key that is missing.

        Returns:
            The new value, as this request sees it.

        Raises:
            UnstorableValue: The function returned None or something else that cannot be stored. Where it does so when
                it runs again, saving raises it.
        """
        return self._to_write().update_with(checked_name(self.app, key), function, default)


def checked_name(app: str, key: object) -> ValueKey:
    """Return the name of a value.

    Raises:
        UnstorableValue: The key is none that storage can hold.
    """
    if type(key) is not str:
        why = f"a key must be a str, not {type(key).__qualname__}"
        raise UnstorableValue(app, repr(key), type(key).__qualname__, why)
    if not 0 < len(key) <= MAX_NAME or "\0" in key or not (key.isascii() or is_text(key)):
        why = f"a key must be 1 to {MAX_NAME} characters, without NUL or lone surrogates"
        raise UnstorableValue(app, key, "str", why)
    return (app, key)
