"""What a connection is, for sync and async I/O: bytes to send, replies, and what the server says of itself.

A server that was the primary may have become a replica while its connections stayed open. So once a second a connection
asks for the server's role, in front of the commands that it sends anyway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from hiredis import Reader
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from coatcheck.drivers._pool import Link
from coatcheck.drivers.redis.requests import Address, command
from coatcheck.drivers.redis.trouble import Lost, NotSent, refused, steps_back

__all__ = ["CHUNK", "ROLE", "Line", "connection_failed", "connection_lost", "is_primary", "is_refused"]

CHUNK: Final = 1 << 16
"""Bytes read at once."""

ROLE: Final = command(b"HELLO", 2)
"""Asks for the role among other things. Access control forbids it to nobody."""

ROLE_AGE: Final = 1.0
"""Seconds for which a server's role is taken for known."""

_REPLICA: Final = frozenset({b"replica", b"slave"})


def is_primary(reply: Any) -> bool:
    """Return whether a reply to `ROLE` says that the server is a primary. One that says nothing about it counts."""
    if not isinstance(reply, list):
        return not isinstance(reply, ReadOnlyError)
    return dict(zip(reply[::2], reply[1::2], strict=False)).get(b"role") not in _REPLICA


class Line(Link):
    """An open connection.

    Args:
        connection: redis-py's connection.
        asks_role: Whether the server has to be a primary.

    Attributes:
        connection: redis-py's connection.
        began: When the last exchange began, on the monotonic clock; or when it was opened.
        steps_back: True once the server has said that others have to be asked.
    """

    __slots__ = (
        "_asked",
        "_asks_role",
        "_expected",
        "_is_asking",
        "_reader",
        "_replies",
        "began",
        "connection",
        "steps_back",
    )

    def __init__(self, connection: Any, *, asks_role: bool) -> None:
        super().__init__()
        self.connection: Final[Any] = connection
        self.steps_back = False
        self._asks_role: Final = asks_role
        self.began = self.opened
        self._asked = -ROLE_AGE
        self._is_asking = False
        parser = connection._parser  # noqa: SLF001 (it has the table from what servers say to redis-py's errors)
        self._reader: Final[Any] = Reader(protocolError=InvalidResponse, replyError=parser.parse_error)
        self._replies: list[Any] = []
        self._expected = 0

    def is_clean(self) -> bool:
        return not (self._expected or self.steps_back)

    @property
    def is_partly_read(self) -> bool:
        """True where some replies of the exchange came."""
        return len(self._replies) > self._is_asking

    def begin(self, packed: Sequence[bytes], deadline: float) -> bytes:
        """Begin an exchange that has to be over at *deadline*; return what is to be sent.

        Raises:
            NotSent: There is no time left.
        """
        now = self.began = time.monotonic()
        if now >= deadline:
            raise NotSent("no time was left to ask it", is_timeout=True)
        self._replies = []
        self._expected = len(packed)
        self._is_asking = self._asks_role and now - self._asked >= ROLE_AGE
        if self._is_asking:
            self._asked = now
            self._expected += 1
            return ROLE + b"".join(packed)
        return packed[0] if len(packed) == 1 else b"".join(packed)

    def begin_login(self, packed: Sequence[bytes]) -> bytes:
        """Begin the exchange that logs in; return what is to be sent. Until then a server does not tell its role."""
        self._replies = []
        self._expected = len(packed)
        self._is_asking = False
        return b"".join(packed)

    def end_login(self) -> None:
        """End the exchange that logs in.

        Raises:
            RedisError: The server refuses the login.
        """
        for reply in self.end():
            if isinstance(reply, RedisError):
                raise reply

    def feed(self, data: bytes) -> bool:
        """Take what arrived; return whether all replies are there.

        Raises:
            RedisError: The server refuses the connection, or what it said is no reply.
            ConnectionResetError: It was the end.
        """
        if not data:
            raise ConnectionResetError("the server closed it")
        reader, replies = self._reader, self._replies
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if isinstance(reply, RedisError):
                self.steps_back = self.steps_back or steps_back(reply)
                if isinstance(reply, RedisConnectionError):
                    raise reply
            replies.append(reply)
        if len(replies) > self._expected:
            raise InvalidResponse("more replies than commands")
        return len(replies) == self._expected

    def end(self) -> list[Any]:
        """End an exchange; return the replies. A replica carried nothing out, whatever its replies were."""
        replies = self._replies
        self._replies = []
        self._expected = 0
        if self._is_asking and not is_primary(replies.pop(0)):
            self.steps_back = True
            return [ReadOnlyError("it reports that it is a replica", status_code="READONLY")] * len(replies)
        return replies


def is_refused(error: Exception) -> bool:
    """Return whether an error is the server's answer; redis-py takes some of these for the end of the connection."""
    return getattr(error, "status_code", None) is not None or isinstance(error, ResponseError)


def connection_failed(error: Exception, address: Address) -> NotSent:
    """Return the error for a connection that could not be made."""
    if is_refused(error):
        return NotSent(refused(error, str(address)))
    why = f"{address} cannot be reached: {error} (is the server running, and does the URL name its host and port?)"
    return NotSent(why, is_timeout=isinstance(error, (RedisTimeout, TimeoutError)))


def connection_lost(error: Exception, address: Address) -> Lost:
    """Return the error for a connection that failed in the middle of something."""
    if isinstance(error, (RedisTimeout, TimeoutError)):
        return Lost(f"{address} did not answer in time", is_timeout=True)
    return Lost(f"the connection to {address} broke: {error}", is_reset=True)
