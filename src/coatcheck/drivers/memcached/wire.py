"""Memcached's text protocol, as far as sessions need it, without I/O: bytes to send, and the reply put together.

No client library for asyncio would do. aiomcache gives the connection of a cancelled task to the next one, which then
reads the other's session, and spins for ever where a server closes a connection. emcache leaves a task that waits for a
reply waiting when the connection is lost, tries a server that was down again a minute later, and does not say whether
a write was sent. Five commands are all that is needed, and both drivers use the same ones.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

from coatcheck.drivers.memcached.requests import Delete, Get, Item, Lines, Request, StoreItem, Touch

__all__ = ["Garbled", "Parser", "Refused", "feed", "put"]

T = TypeVar("T")

Parser = Generator[None, bytes, T]
"""Puts a reply together: is sent what arrives, and returns the reply once it is complete."""

_LONGEST_LINE: Final = 4096
_STORED: Final = {b"STORED": True, b"NOT_STORED": False, b"EXISTS": False, b"NOT_FOUND": False}
_TOUCHED: Final = {b"TOUCHED": True, b"NOT_FOUND": False}
_DELETED: Final = {b"DELETED": True, b"NOT_FOUND": False}


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        said: What it said.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Garbled(Exception):
    """What came back is no reply to what was asked."""


def put(request: Request) -> tuple[bytes, Parser[Any]]:
    """Return the bytes of *request*, and what puts its reply together."""
    buffer = bytearray()
    match request:
        case Get(_, keys):
            return f"gets {' '.join(keys)}\r\n".encode(), _started(_items(buffer, keys))
        case StoreItem(_, key, data, ttl, cas):
            verb, more = ("add", "") if cas is None else ("cas", f" {cas}")
            head = f"{verb} {key} 0 {ttl} {len(data)}{more}\r\n".encode()
            return b"%b%b\r\n" % (head, data), _started(_word(buffer, _STORED))
        case Touch(_, key, ttl):
            return f"touch {key} {ttl}\r\n".encode(), _started(_word(buffer, _TOUCHED))
        case Delete(_, key):
            return f"delete {key}\r\n".encode(), _started(_word(buffer, _DELETED))
        case Lines(_, command):
            return f"{command}\r\n".encode(), _started(_lines(buffer))


def feed(parser: Parser[Any], data: bytes) -> list[Any]:
    """Hand over what arrived; give a list with the reply in it, or an empty one where there is more to come.

    Raises:
        Refused: The server answered with an error, and is ready for the next request.
        Garbled: The connection is of no more use.
    """
    try:
        parser.send(data)
    except StopIteration as complete:
        return [complete.value]
    return []


def _started(parser: Parser[T]) -> Parser[T]:
    next(parser)
    return parser


def _line(buffer: bytearray) -> Parser[bytes]:
    while (end := buffer.find(b"\n")) < 0:
        if len(buffer) > _LONGEST_LINE:
            raise Garbled("a line without an end")
        buffer += yield
    line = bytes(buffer[:end]).removesuffix(b"\r")
    del buffer[: end + 1]
    if line == b"ERROR" or line.startswith((b"CLIENT_ERROR ", b"SERVER_ERROR ", b"BUSY")):
        if buffer:
            raise Garbled("more than one reply")
        raise Refused(line.decode("ascii", "replace"))
    return line


def _word(buffer: bytearray, words: dict[bytes, bool]) -> Parser[bool]:
    line = yield from _line(buffer)
    if line not in words or buffer:
        raise Garbled("an answer to something else")
    return words[line]


def _items(buffer: bytearray, keys: tuple[str, ...]) -> Parser[dict[str, Item]]:
    found: dict[str, Item] = {}
    while (line := (yield from _line(buffer))) != b"END":
        try:
            word, name, _, length, cas = line.split(b" ")
            key, size, number = name.decode("ascii"), int(length), int(cas)
        except ValueError:
            raise Garbled("no item") from None
        if word != b"VALUE" or key not in keys or size < 0:
            raise Garbled("an item that was not requested")
        while len(buffer) < size + 2:
            buffer += yield
        if buffer[size : size + 2] != b"\r\n":
            raise Garbled("an item of another length")
        found[key] = Item(bytes(buffer[:size]), number)
        del buffer[: size + 2]
    if buffer:
        raise Garbled("more than one reply")
    return found


def _lines(buffer: bytearray) -> Parser[list[str]]:
    lines: list[str] = []
    while (line := (yield from _line(buffer))) != b"END":
        lines.append(line.decode("ascii", "replace"))
    return lines
