"""Moments in the forms that an application may pass, in seconds since the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

from coatcheck.errors import ConfigurationError
from coatcheck.record import NEVER

__all__ = ["moment_of"]


def moment_of(given: object, clock: Callable[[], float]) -> float:
    """Return the moment *given* in seconds since the epoch, from 0 to `NEVER`.

    Args:
        given: Seconds since the epoch, a datetime with its time zone, or a timedelta from now.
        clock: Returns the present moment.

    Raises:
        ConfigurationError: *given* is something else.
    """
    if isinstance(given, timedelta):
        moment = clock() + given.total_seconds()
    elif isinstance(given, datetime) and given.utcoffset() is not None:
        moment = given.timestamp()
    elif (
        isinstance(given, int | float) and not isinstance(given, bool) and (type(given) is int or not math.isnan(given))
    ):
        moment = given
    else:
        found = "a datetime without a time zone" if isinstance(given, datetime) else type(given).__qualname__
        raise ConfigurationError(
            "a moment is a number of seconds since the epoch, a datetime with a time zone, or a timedelta from now, not"
            f" {'NaN' if found == 'float' else found}"
        )
    return float(max(0.0, min(moment, NEVER)))
