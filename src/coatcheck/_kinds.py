"""Encode and decode an application's enums, namedtuples and dataclasses by their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum, Flag
from functools import cached_property, partial
from typing import Any

from coatcheck._forms import ensure, full_name
from coatcheck.errors import ConfigurationError

__all__ = ["functions_of", "is_namedtuple"]


def is_namedtuple(kind: type) -> bool:
    """Check whether a type is a namedtuple."""
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_make")


def _by_fields(stored: Any, names: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Return the fields of an object from stored data. A field that was added since then gets its default."""
    ensure(type(stored) is dict and stored.keys() <= names.keys(), "fields that the class does not have")
    return {name: stored[name] if name in stored else default() for name, default in names.items()}


def _no_default() -> Any:
    raise ValueError("a field is missing that has no default")


def functions_of(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the functions that encode and decode instances of an enum, a namedtuple or a dataclass."""
    if issubclass(cls, Flag):
        return lambda member: member.value, cls
    if issubclass(cls, Enum):
        return lambda member: member.name, lambda name: cls[name]
    names: dict[str, Callable[[], Any]]
    if is_namedtuple(cls):
        made: Any = cls
        defaults = made._field_defaults
        names = {
            name: partial(defaults.__getitem__, name) if name in defaults else _no_default for name in made._fields
        }
        return lambda value: value._asdict(), lambda stored: made._make(_by_fields(stored, names).values())
    if is_dataclass(cls):
        try:
            object.__new__(cls)
        except TypeError as error:
            raise ConfigurationError(
                f"{full_name(cls)} has more state than its fields: pass encode and decode"
            ) from error
        names = {field.name: _default(field) for field in fields(cls)}
        return partial(_take_apart, names), partial(_put_together, cls, names)
    raise ConfigurationError(f"{full_name(cls)} is not an enum, namedtuple or dataclass: pass encode and decode")


def _default(field: Field[Any]) -> Callable[[], Any]:
    if field.default_factory is not MISSING:
        return field.default_factory
    return _no_default if field.default is MISSING else lambda: field.default


def _take_apart(names: Mapping[str, object], value: Any) -> dict[str, Any]:
    for name in getattr(value, "__dict__", {}).keys() - names.keys():
        # A cached property can be computed again. Any other attribute would be lost silently.
        if not isinstance(getattr(type(value), name, None), cached_property):
            raise TypeError(f"the attribute {name} is not a field")
    return {name: getattr(value, name) for name in names}


def _put_together(cls: type, names: Mapping[str, Callable[[], Any]], stored: Any) -> Any:
    # Bypasses __init__, which may require, change or compute things: the fields keep their stored values.
    value: Any = object.__new__(cls)
    for name, part in _by_fields(stored, names).items():
        object.__setattr__(value, name, part)
    return value
