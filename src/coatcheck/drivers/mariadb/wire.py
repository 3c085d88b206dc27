"""Statements as the server reads them, and what came back as the operations want it.

Parameters are written into the text here and not by the client library: aiomysql 0.3 cannot write bytes with PyMySQL
1.2, and none of them minds a connection of the application's that takes the backslash for a character like others. A
hexadecimal literal is the same in every mode and character set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from coatcheck.drivers.mariadb.dialect import REFUSED, TooLong, number_of
from coatcheck.drivers.mariadb.packed import unpacked
from coatcheck.drivers.sql.statement import Reply, Statement, Wants
from coatcheck.errors import ConfigurationError

__all__ = [
    "BETWEEN",
    "MOST",
    "SHORT",
    "check_length",
    "check_version",
    "in_one_packet",
    "is_refusal",
    "most_in",
    "nothing_for",
    "rendered",
    "reply_of",
    "text_of",
]

MOST: Final = Statement("SELECT @@max_allowed_packet", (), Wants.ROWS)
"""Asks how much the server takes at once from this connection, which does not change while it is open."""

SHORT: Final = 1 << 14
"""A statement of as many bytes is taken to be short enough for every server."""

BETWEEN: Final = "; "
_SPARE: Final = 256  # bytes for a limit that goes first
_VARBINARY: Final = 253  # the type by which the server announces a column that holds text
_OLDEST: Final = {"MariaDB": (10, 6), "MySQL": (8, 0)}


def rendered(statement: Statement) -> str:
    """Return the text of *statement* with its parameters in it, as literals that are numbers."""
    return statement.text % tuple(map(_literal, statement.parameters))


def text_of(packet: Iterable[Statement]) -> str:
    """Return the text of statements that are sent together."""
    return BETWEEN.join(map(rendered, packet))


def in_one_packet(statements: Sequence[Statement], texts: Sequence[str], most: float) -> int:
    """Return how many of *statements* go in one packet; see `coatcheck.drivers.sql.statement.Statement.waits`.

    Args:
        statements: What is to be sent.
        texts: What `rendered` made of them.
        most: The server's max_allowed_packet.
    """
    length = 0
    for place, statement in enumerate(statements):
        length += len(texts[place]) + len(BETWEEN)
        if place and (length + _SPARE >= most or (statement.waits and place > statements[0].begins)):
            return place
    return len(statements)


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray)):  # the latter in the key of a row that somebody spoilt
        return f"X'{value.hex()}'"
    if isinstance(value, float):
        return f"{value!r}e0" if "e" not in repr(value) else repr(value)  # without an exponent it would be a DECIMAL
    if isinstance(value, int):
        return str(int(value))
    raise TypeError(f"no parameter of a statement is a {type(value).__name__}")


def most_in(reply: Reply) -> int:
    """Return the bytes in the reply to `MOST`."""
    return int(cast("Sequence[Sequence[Any]]", reply)[0][0])


def check_length(text: str, most: float) -> None:
    """Look whether the server takes a statement.

    Args:
        text: All of it, as `rendered` gives it: in ASCII.
        most: The server's max_allowed_packet.

    Raises:
        TooLong: It does not.
    """
    length = len(text) + 1  # with the byte that says what it is
    if length >= most:
        raise TooLong(length, int(most))


def reply_of(statement: Statement, cursor: Any, rows: Sequence[Sequence[Any]]) -> Reply:
    """Return what *statement* wants.

    Args:
        statement: What was done.
        cursor: The cursor that did it.
        rows: All its rows.
    """
    if statement.wants is Wants.COUNT:
        return int(cursor.rowcount)
    if statement.wants is Wants.ID:
        return int(cursor.lastrowid) if cursor.rowcount else None
    if cursor.description is None:  # a change in one statement: the row that it is to give is the sum of a counter
        return [(_signed(cursor.lastrowid or 0),)] if cursor.rowcount else []
    sessions = unpacked(cursor.description[0][0], rows)
    if sessions is not None:
        return sessions
    texts = [place for place, column in enumerate(cursor.description) if column[1] == _VARBINARY]
    return [_with_text(row, texts) for row in rows]


def _with_text(row: Sequence[Any], texts: Sequence[int]) -> tuple[object, ...]:
    values = list(row)
    for place in texts:
        value = values[place]
        if isinstance(value, bytes):
            try:
                values[place] = value.decode()
            except UnicodeDecodeError:
                values[place] = bytearray(value)  # neither text nor the bytes of a value: somebody spoilt it
    return tuple(values)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def is_refusal(statement: Statement, error: Exception) -> bool:
    """Return whether *error* says that *statement* has done nothing, as it was meant to where a key exists.

    So an insertion may be refused, or a sum that is out of range; that another change meets a key is an error.
    """
    return number_of(error) in REFUSED and statement.text.startswith("INSERT")


def nothing_for(statement: Statement) -> Reply:
    """Return what *statement* wants where it did nothing."""
    if statement.wants is Wants.ROWS:
        return []
    return 0 if statement.wants is Wants.COUNT else None


@lru_cache(maxsize=16)
def check_version(said: str) -> None:
    """Look at what a server says of its version.

    Args:
        said: Such as `10.11.6-MariaDB-0+deb12u1` or `8.0.36`.

    Raises:
        ConfigurationError: It is too old.
    """
    kind = "MariaDB" if "mariadb" in said.lower() else "MySQL"
    found = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", said)  # MariaDB before 11 says 5.5.5 first, for old replicas
    if found is None or (int(found[1]), int(found[2])) < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        raise ConfigurationError(f"the server is {kind} {said.removeprefix('5.5.5-')}; sessions need {oldest} or later")
