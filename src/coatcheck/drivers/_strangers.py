"""Drivers that are not part of coatcheck: what one lacks is named when it is opened, not when it is first needed."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Final

from coatcheck.drivers.base import AsyncDriver, Capability, Driver
from coatcheck.errors import ConfigurationError

__all__ = ["check_class", "check_driver"]

_REMEDY: Final = "it was written for another version of coatcheck: update its package, or see docs/drivers.md"


def check_driver(driver: Driver | AsyncDriver) -> None:
    """Check that a driver has everything that the contract asks for.

    Raises:
        ConfigurationError: It lacks something. The message names it.
    """
    check_class(type(driver))
    capabilities = getattr(driver, "capabilities", None)
    lacks = [] if isinstance(getattr(driver, "name", None), str) else ["name, a str"]
    if not (isinstance(capabilities, frozenset) and all(isinstance(each, Capability) for each in capabilities)):
        lacks.append("capabilities, a frozenset of Capability")
    if lacks:
        raise ConfigurationError(f"the driver {_named(type(driver))} has no {' and no '.join(lacks)}: {_REMEDY}")


@cache
def check_class(kind: type[Driver | AsyncDriver]) -> None:
    """Check that a class of drivers has every method of the contract, and that each takes the contract's arguments.

    Raises:
        ConfigurationError: It lacks one. The message names all that it lacks.
    """
    contract = AsyncDriver if issubclass(kind, AsyncDriver) else Driver
    faults = [
        fault
        for name, method in vars(contract).items()
        if inspect.isfunction(method) and not name.startswith("_")
        for fault in _faults(kind, name, inspect.signature(method))
    ]
    if faults:
        raise ConfigurationError(f"the driver {_named(kind)} {' and '.join(faults)}: {_REMEDY}")


def _faults(kind: type[Driver | AsyncDriver], name: str, wanted: inspect.Signature) -> list[str]:
    method = getattr(kind, name)
    called = f"{name}{_shown(wanted)}"
    if name in getattr(kind, "__abstractmethods__", ()):
        return [f"has no {called}"]
    if not issubclass(kind, AsyncDriver) and inspect.iscoroutinefunction(method):
        return [f"has an asynchronous {name}()"]
    try:
        found = inspect.signature(method)
    except (TypeError, ValueError):  # of a kind that does not say
        return []
    by_name = {each.name for each in wanted.parameters.values() if each.kind is each.KEYWORD_ONLY}
    try:
        found.bind(*[None] * (len(wanted.parameters) - len(by_name)), **dict.fromkeys(by_name))
    except TypeError:
        return [f"has {name}{_shown(found)} for {called}"]
    return []


def _shown(signature: inspect.Signature) -> str:
    """Return the arguments of a method as a call names them."""
    _, *parameters = signature.parameters.values()
    bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
