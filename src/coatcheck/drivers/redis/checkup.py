"""What the servers' own settings mean for the sessions on them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.keys import Keys
from coatcheck.drivers.redis.requests import Effect, Primaries, ask
from coatcheck.drivers.redis.trouble import Lost, NotSent
from coatcheck.drivers.redis.work import SCHEMA_VERSION, schema_checked

__all__ = ["advice_for", "first_look"]

_OLDEST: Final = (6, 2)
_KEEPS_ALL: Final = "noeviction"


class Look(NamedTuple):
    """What was seen at the first look.

    Attributes:
        risk: What puts sessions at risk; None if nothing is known against the servers.
        is_whole: False if a server did not answer, so that it is worth while to look again.
    """

    risk: str | None
    is_whole: bool


def first_look(keys: Keys, *, is_writing: bool) -> Steps[Look]:
    """Check the schema version, and look at the settings of all servers together.

    A server that does not answer is none of the business of an operation that goes to another one; but where nobody
    can be reached, that operation would only learn that this is known already.

    Args:
        keys: The names of the keys.
        is_writing: Whether to leave the schema version there where there is none.

    Raises:
        ConfigurationError: Another version of coatcheck stored sessions under this prefix.
        NotSent: No server can be reached.
    """
    slot = keys.slot(keys.schema)
    addresses = yield Primaries()
    written = [ask(b"SETNX", keys.schema, SCHEMA_VERSION, slot=slot, effect=Effect.PREPARES, may_fail=True)]
    replies = yield [
        *(ask(b"INFO", b"memory", address=address, may_fail=True) for address in addresses),
        *(written if is_writing else []),
        ask(b"GET", keys.schema, slot=slot, may_fail=True),
    ]
    if all(isinstance(reply, NotSent) and not reply.is_reset for reply in replies):
        raise replies[-1]
    infos, version = replies[: len(addresses)], replies[-1]
    if not isinstance(version, Exception):
        schema_checked(version)
    risks = [
        f"{address} {risk}"
        for address, info in zip(addresses, infos, strict=True)
        if (risk := _eviction(_fields(info))) is not None
    ]
    is_whole = not any(isinstance(reply, (NotSent, Lost)) for reply in (version, *infos))
    return Look(risks[0] if risks else None, is_whole)


def advice_for(replicas: int) -> Steps[list[str]]:
    """Return a sentence for each setting that should be mended, and how."""
    told: list[str] = []
    for address in (yield Primaries()):
        fields = _fields((yield ask(b"INFO", address=address, may_fail=True)))
        told += (f"{address} {sentence}" for sentence in _advice(fields, replicas))
    return told


def _advice(fields: dict[str, str], replicas: int) -> list[str]:
    if not fields:
        return ["does not let this user see INFO, so nothing is known about its settings: allow +info"]
    found: list[str] = []
    version = fields.get("valkey_version") or fields.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        found.append(f"is version {version}, and {'.'.join(map(str, _OLDEST))} is the oldest that works: update it")
    risk = _eviction(fields)
    if risk is not None:
        found.append(f"{risk}: set maxmemory-policy {_KEEPS_ALL}")
    elif fields.get("maxmemory_policy", _KEEPS_ALL) != _KEEPS_ALL:
        found.append(
            f"has maxmemory-policy {fields['maxmemory_policy']}, which will remove sessions as soon as maxmemory is "
            f"set: set maxmemory-policy {_KEEPS_ALL}"
        )
    if fields.get("aof_enabled") == "0":
        found.append("keeps no file of its writes, so a crash of it loses sessions and logouts: set appendonly yes")
    connected = fields.get("connected_slaves", "0")
    if replicas and connected.isdigit() and int(connected) < replicas:
        found.append(
            f"has {connected} replicas in touch and durable= in the URL waits for {replicas}, so no write counts as "
            "done: start replicas, or leave durable= away"
        )
    return found


def _eviction(fields: dict[str, str]) -> str | None:
    policy = fields.get("maxmemory_policy", _KEEPS_ALL)
    if policy == _KEEPS_ALL or fields.get("maxmemory", "0") == "0":
        return None
    return f"removes sessions when its memory is full, since its maxmemory-policy is {policy}"


def _fields(info: Any) -> dict[str, str]:
    """Return the fields of INFO; none where this user may not ask for it."""
    if not isinstance(info, bytes):
        return {}
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
