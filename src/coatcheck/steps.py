"""What a plan yields to the manager that carries it out: calls on a driver, and pauses. Plain data."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Call", "Pause", "Steps"]

_NONE: Final[Mapping[str, Any]] = {}


class Call(NamedTuple):
    """A method of the driver to call, and its arguments."""

    method: str
    args: tuple[Any, ...]
    named: Mapping[str, Any] = _NONE


class Pause(NamedTuple):
    """Seconds to wait before the plan goes on."""

    seconds: float


Steps = Generator[Call | Pause, Any, Any]
"""A plan: it is sent the answer to each call, or has the error thrown in, and returns its result."""
