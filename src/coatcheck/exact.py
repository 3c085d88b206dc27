"""What `increment` and `update_with` make of a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coatcheck.errors import CounterOverflow, NotACounter, UnstorableValue
from coatcheck.merge import MISSING
from coatcheck.record import COUNTER_MAX, COUNTER_MIN, ValueKey

__all__ = ["applied", "incremented"]


def incremented(name: ValueKey, value: Any, amount: int) -> int:
    """Return a counter's value after an increment.

    Raises:
        NotACounter: The value is something other than a 64-bit integer.
        CounterOverflow: The sum does not fit.
    """
    if value is MISSING:
        value = 0
    if type(value) is not int or not COUNTER_MIN <= value <= COUNTER_MAX:  # a larger one is stored as bytes
        raise NotACounter(*name)
    if not COUNTER_MIN <= value + amount <= COUNTER_MAX:
        raise CounterOverflow(*name)
    return int(value + amount)


def applied(name: ValueKey, function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function given to `update_with` makes of a value.

    Raises:
        UnstorableValue: It returned None, as a function does that changes its argument in place.
    """
    result = function(value)
    if result is None:
        why = "the function of update_with returned None: let it return the new value; to store None, assign it"
        raise UnstorableValue(*name, "NoneType", why)
    return result
