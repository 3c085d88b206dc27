"""What an operation asks of the servers, and what somebody who talks to one server is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis.exceptions import RedisError

from coatcheck.drivers.redis.scripts import Script
from coatcheck.drivers.redis.trouble import SPOILT, Lost, NotSent, refused, said, was_begun

__all__ = [
    "ABORTED",
    "LEAVING",
    "PROMOTED",
    "SUBSCRIBED",
    "SWITCHED",
    "Address",
    "Ask",
    "Effect",
    "Forget",
    "Listen",
    "Message",
    "News",
    "Pause",
    "Primaries",
    "RoundTrip",
    "ask",
    "command",
    "given",
    "is_script_refusal",
    "loading",
    "run",
    "writes",
]

Word = bytes | str | int

SUBSCRIBED: Final = b"subscribe"
LEAVING: Final = b"+failover-state-send-slaveof-noone"
PROMOTED: Final = b"+promoted-slave"
SWITCHED: Final = b"+switch-master"
ABORTED: Final = b"-failover-abort-slave-timeout"
"""What sentinels tell: one is listened to from now on; a replica is about to be told that it is the primary; it is; all
have to use it; it did not become one."""

_REFUSALS: Final = frozenset({b"gone", b"conflict", b"no counter", b"overflow", b"confirm"})


class Address(NamedTuple):
    """A server: host and port, or the path of a Unix socket with the port 0."""

    host: str
    port: int
    is_sentinel: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Effect(Enum):
    """What it means that a command was perhaps carried out, perhaps not."""

    READS = 0
    PREPARES = 1
    """Leaves nothing behind that anybody sees, if nothing follows it."""
    WRITES = 2


class Ask(NamedTuple):
    """One command. An operation is sent the reply to it; to a list of these, the list of replies.

    Attributes:
        packed: The command as it is sent.
        slot: The slot of its keys, in a cluster.
        effect: What it may leave behind.
        script: The script that it runs.
        address: Whom it is for; None for anyone who has the slot.
        may_fail: Whether an error is a reply like others.
        may_be_spoilt: Whether the error that the key holds something else is.
    """

    packed: bytes
    slot: int
    effect: Effect
    script: Script | None = None
    address: Address | None = None
    may_fail: bool = False
    may_be_spoilt: bool = False


class Primaries(NamedTuple):
    """Asks for the addresses of all servers that have sessions. The reply is a list of them."""


class RoundTrip(NamedTuple):
    """Commands for one server, to be sent together. The reply is the list of their replies, errors among them.

    The driver that carries it out throws `NotSent` or `Lost` into it if it fails.
    """

    address: Address
    packed: Sequence[bytes]


class Forget(NamedTuple):
    """Forget what is known of a server, and close the connections to it: its address may lead elsewhere. No reply."""

    address: Address


class Message(NamedTuple):
    """What a sentinel told: what happened, and to whom."""

    kind: bytes
    text: bytes


class Listen(NamedTuple):
    """Listen to a sentinel from now on. No reply."""

    address: Address


class News(NamedTuple):
    """Asks for what sentinels told since the last time. The reply is a sequence of `Message`; nothing is waited for."""


class Pause(NamedTuple):
    """A wait of so many seconds."""

    seconds: float


def command(*words: Word) -> bytes:
    """Return a command as it is sent."""
    sent: bytes = pack_command(words)  # type: ignore[arg-type]  # hiredis's stub means a tuple of any length
    return sent


def ask(
    *words: Word,
    slot: int = 0,
    effect: Effect = Effect.READS,
    address: Address | None = None,
    may_fail: bool = False,
    may_be_spoilt: bool = False,
) -> Ask:
    """Return the request for a command; see `Ask`."""
    return Ask(command(*words), slot, effect, None, address, may_fail, may_be_spoilt)


def run(script: Script, key: bytes, slot: int, effect: Effect, *words: Word) -> Ask:
    """Return the request for a script. The key is one of those that it looks at: it tells the server the slot."""
    return Ask(command(b"EVALSHA", script.sha, 1, key, *words), slot, effect, script)


def loading(script: Script) -> Ask:
    """Return the request that a server learns a script."""
    return Ask(command(b"SCRIPT", b"LOAD", script.text), 0, Effect.READS)


def is_script_refusal(reply: Any) -> bool:
    """Return whether a script answered that it wrote nothing."""
    return isinstance(reply, list) and bool(reply) and isinstance(reply[0], bytes) and reply[0] in _REFUSALS


def writes(asks: Iterable[Ask]) -> bool:
    """Return whether any of several commands may leave something behind."""
    return any(each.effect is Effect.WRITES for each in asks)


def given(reply: Any, request: Ask, address: Address, *, wrote: bool) -> Any:
    """Return a reply that an operation makes sense of; raise any other error.

    Args:
        reply: The reply, or an error.
        request: What it answers.
        address: Who gave it.
        wrote: Whether others of the same operation were carried out, and write.

    Raises:
        NotSent: The server refused.
        Lost: It may have given up in the middle.
    """
    if not isinstance(reply, RedisError) or request.may_fail:
        return reply
    if request.may_be_spoilt and str(reply).startswith(SPOILT):
        return reply
    is_begun = request.script is not None and request.effect is Effect.WRITES and was_begun(reply)
    kind = Lost if wrote or is_begun else NotSent
    raise kind(refused(reply, str(address))) from RedisError(said(reply))  # its own text may repeat the command
