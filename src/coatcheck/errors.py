"""The errors that coatcheck raises.

    CoatcheckError
    ├── ConfigurationError          a policy, URL or option that cannot work
    │   ├── MissingExtra            an engine or framework that is not installed
    │   └── UnsupportedCapability   something that this engine does not offer
    ├── DriverUnavailable           the storage engine failed or could not be reached
    ├── SessionUnavailable          this request's session could not be loaded
    ├── SessionNotLoaded            a value was read before an asynchronous load
    ├── UnstorableValue             a key or a value that storage cannot hold (a TypeError too)
    │   └── ValueTooLarge           a value over the limit of the policy
    ├── CounterError                an increment that is impossible
    │   ├── NotACounter             the key holds something other than an integer
    │   └── CounterOverflow         the result does not fit 64 signed bits
    ├── StaleValue                  a change of an object that a merge took out of the session
    └── ConflictError               two requests changed one key and the policy says "error"

No message holds a token, a stored value or a connection password.
"""

from __future__ import annotations

__all__ = [
    "CoatcheckError",
    "ConfigurationError",
    "ConflictError",
    "CounterError",
    "CounterOverflow",
    "DriverUnavailable",
    "MissingExtra",
    "NotACounter",
    "SessionNotLoaded",
    "SessionUnavailable",
    "StaleValue",
    "UnstorableValue",
    "UnsupportedCapability",
    "ValueTooLarge",
]


def _place(app: str, key: str) -> str:
    return f"key {key!r}" + (f" of store {app!r}" if app else "")


class CoatcheckError(Exception):
    """The base class of every error that coatcheck raises on purpose."""


class ConfigurationError(CoatcheckError, ValueError):
    """A policy, a URL or an option cannot work. The message names it and the remedy."""


class MissingExtra(ConfigurationError):
    """An engine or framework needs a package that is not installed.

    Attributes:
        extra: The extra to install, as in ``pip install 'coatcheck[extra]'``.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs a package that is missing: pip install 'coatcheck[{extra}]'")
        self.extra = extra


class UnsupportedCapability(ConfigurationError):
    """The configuration asks an engine for something that it does not declare.

    Attributes:
        driver: The name of the driver.
        capability: The name of the missing capability.
    """

    def __init__(self, driver: str, capability: str, remedy: str) -> None:
        super().__init__(f"the {driver} driver does not offer {capability}: {remedy}")
        self.driver = driver
        self.capability = capability


class DriverUnavailable(CoatcheckError):
    """The storage engine failed or could not be reached. This never means "no session".

    Attributes:
        driver: The name of the driver.
        operation: The operation of the contract that failed, such as ``"commit"``.
        why: The cause, without the names of driver and operation.
        outcome_unknown: True if a write may have been executed although no reply came. Such a write is never sent
            again.
    """

    def __init__(self, driver: str, operation: str, why: str, *, outcome_unknown: bool = False) -> None:
        tail = "; it is unknown whether the write was executed" if outcome_unknown else ""
        super().__init__(f"session storage ({driver}) failed in {operation}: {why}{tail}")
        self.why = why
        self.driver = driver
        self.operation = operation
        self.outcome_unknown = outcome_unknown


class SessionUnavailable(CoatcheckError):
    """The session of this request could not be loaded or saved, so it can be neither read nor written.

    The cause of the error (``__cause__``) has the details.

    Args:
        was_saved: True if a save failed, so that storage may have the state before it or after it.
    """

    def __init__(self, *, was_saved: bool = False) -> None:
        super().__init__(
            "a save of this session failed or was cancelled, and may have been stored: open the session again"
            if was_saved
            else "the session could not be loaded: its storage is unavailable"
        )


class SessionNotLoaded(CoatcheckError):
    """A value was read before the session was loaded with ``await session.load()``."""

    def __init__(self) -> None:
        super().__init__("the session is not loaded: await session.load() before reading from it")


class UnstorableValue(CoatcheckError, TypeError):
    """A key or value cannot be stored and returned unchanged.

    Attributes:
        app: The store, "" for the default one.
        key: The key, or its ``repr`` if it is not a string.
        type_name: The full name of the type that was refused.
    """

    def __init__(self, app: str, key: str, type_name: str, why: str) -> None:
        super().__init__(f"{_place(app, key)}: {why}")
        self.app = app
        self.key = key
        self.type_name = type_name


class ValueTooLarge(UnstorableValue):
    """A value is larger than ``Policy.max_value_bytes``.

    Attributes:
        size: The encoded size in bytes.
        limit: The limit in bytes.
    """

    def __init__(self, app: str, key: str, type_name: str, size: int, limit: int) -> None:
        why = f"its encoding has {size} bytes, the limit is {limit}: raise Policy(max_value_bytes=...) or store less"
        super().__init__(app, key, type_name, why)
        self.size = size
        self.limit = limit


class CounterError(CoatcheckError):
    """An increment is impossible. None of the changes of its request were written.

    Attributes:
        app: The store, "" for the default one.
        key: The key.
    """

    _why = "cannot be incremented"

    def __init__(self, app: str, key: str) -> None:
        super().__init__(f"{_place(app, key)} {self._why}")
        self.app = app
        self.key = key


class NotACounter(CounterError):
    """The value of the key is not a 64-bit integer."""

    _why = "is not a 64-bit integer, so it cannot be incremented"


class CounterOverflow(CounterError):
    """The result of an increment does not fit a signed 64-bit integer."""

    _why = "would be outside the range of a signed 64-bit integer"


class StaleValue(CoatcheckError):
    """The request changed an object that is no longer part of its session, so the change would be lost.

    An earlier save of this request merged its changes with those of another request, which had removed or replaced the
    object. Nothing was written. Read the object from the session again, or assign the value.

    Attributes:
        app: The store, "" for the default one.
        key: The key that the object was a part of.
    """

    def __init__(self, app: str, key: str) -> None:
        super().__init__(
            f"{_place(app, key)}: an in-place change was made to a part of this value that another request had removed"
            " or replaced, as the previous save found: read it from the session again after a save, or assign the value"
        )
        self.app = app
        self.key = key


class ConflictError(CoatcheckError):
    """Two requests changed the same keys, the changes do not merge, and ``on_conflict`` is ``"error"``.

    None of the changes of this request were written.

    Attributes:
        keys: The (store, key) pairs in conflict.
    """

    def __init__(self, keys: tuple[tuple[str, str], ...]) -> None:
        named = ", ".join(sorted(_place(app, key) for app, key in keys))
        super().__init__(f"another request changed the same values in the meantime: {named}")
        self.keys = keys
