"""An operation and the way to the servers put together: nothing is left but exchanges with servers, and pauses."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.requests import Ask, Primaries, writes
from coatcheck.drivers.redis.routes import Routes
from coatcheck.drivers.redis.trouble import Lost, NotSent, unavailable

__all__ = ["driven"]

T = TypeVar("T")

_READING: Final = frozenset({"load", "sessions_of", "missing"})
"""Operations that write at most what another one left unfinished."""


def driven(operation: str, steps: Steps[T], routes: Routes) -> Steps[T]:
    """Carry out an operation: yields nothing but exchanges with servers and pauses.

    Raises:
        DriverUnavailable: It could not be carried out.
    """
    wrote = False
    request: Any = None
    try:
        request = steps.send(None)
        while True:
            reply = yield from routes.carry(request)
            following = steps.send(reply)
            wrote = wrote or _is_write(request)
            request = following
    except StopIteration as stop:
        done: T = stop.value
        return done
    except (NotSent, Lost) as error:
        wrote = wrote or (isinstance(error, Lost) and _is_write(request))
        unknown = wrote and operation not in _READING
        raise unavailable(operation, str(error), outcome_unknown=unknown) from error.__cause__ or error


def _is_write(request: Ask | list[Ask] | Primaries) -> bool:
    if isinstance(request, Primaries):
        return False
    return writes([request] if isinstance(request, Ask) else request)
