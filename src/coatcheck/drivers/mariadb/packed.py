"""Sessions in one or two columns: what the server says of a column takes its pure-Python clients longer than its value.

A packed column is text: the values with commas between them, a number as the server writes it, and text and bytes in
hexadecimal form. On a connection of the application's, whose character set and mode may be any, nothing is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from coatcheck.drivers.sql.statement import Row

__all__ = ["FIND_COLUMNS", "LOAD_COLUMNS", "unpacked"]

_NONE: Final = "-"
_FOUND: Final = "packed_session"
_LOADED: Final = "packed_value"


def _text(part: str) -> str | bytearray | None:
    """Return text, or what is neither text nor the bytes of a value: somebody spoilt it."""
    if part == _NONE:
        return None
    content = bytes.fromhex(part)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return bytearray(content)


def _bytes(part: str) -> bytes | None:
    return None if part == _NONE else bytes.fromhex(part)


def _float(part: str) -> float | None:
    return None if part == _NONE else float(part)


def _int(part: str) -> int | None:
    return None if part == _NONE else int(part)


_Fields = dict[str, Callable[[str], object]]

_FIELDS: Final[_Fields] = {
    "sid": _text,
    "created": _float,
    "seen": _float,
    "deadline": _float,
    "idle": _float,
    "absolute": _float,
    "username": _text,
    "auth_time": _float,
    "rotated": _float,
    "prior_until": _float,
    "ends": _float,
    "note": _bytes,
}
_ALL_FIELDS: Final[_Fields] = {"id": _int, **_FIELDS, "grace": _float, "digest": _bytes, "prior": _bytes}
_VALUE: Final[_Fields] = {"app": _text, "name": _text, "version": _int, "number": _int}

_HEAD: Final = tuple(_FIELDS.values())
_SESSION: Final = tuple(_ALL_FIELDS.values())
_TAIL: Final = tuple(_VALUE.values())
_NULLABLE: Final = frozenset({"username", "auth_time", "note", "prior"})


def _packed(alias: str, fields: _Fields) -> str:
    def written(name: str, read: Callable[[str], object]) -> str:
        column = f"HEX({alias}{name})" if read in (_text, _bytes) else f"{alias}{name}"
        return f"COALESCE({column}, '{_NONE}')" if name in _NULLABLE or alias == "v." else column

    return ", ".join(written(name, read) for name, read in fields.items())


FIND_COLUMNS: Final = f"CONCAT_WS(',', {_packed('', _ALL_FIELDS)}) AS {_FOUND}"
"""What a session is found in, for `Dialect.find_columns`."""

LOAD_COLUMNS: Final = f"CONCAT_WS(',', {_packed('s.', _FIELDS)}, {_packed('v.', _VALUE)}) AS {_LOADED}, v.data"
"""The same for `Dialect.load_columns`: a session, and one of its values."""


def unpacked(column: str, rows: Sequence[Sequence[Any]]) -> list[Row] | None:
    """Return rows as they would be in columns of their own, or None if they are.

    Args:
        column: The name of the first column.
        rows: All rows.
    """
    if column == _FOUND:
        return [tuple([read(part) for read, part in zip(_SESSION, row[0].split(","), strict=True)]) for row in rows]
    if column != _LOADED:
        return None
    found: list[Row] = []
    head: Row = ()
    for text, data in rows:
        parts = text.split(",")
        if not head:  # it is the same in all rows
            head = tuple([read(part) for read, part in zip(_HEAD, parts, strict=False)])
        app, name, version, number = [read(part) for read, part in zip(_TAIL, parts[len(head) :], strict=True)]
        found.append((*head, app, name, version, data, number))
    return found
